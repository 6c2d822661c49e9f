"""Two sets of adapters over one model, served by one replica: each request gets the set that it names."""

import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from sign_dist.errors import RunError

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20")]

GLOSSES = ("BOOK", "MILK", "THANK-YOU")


def write_sets(root: Path) -> None:
    """Two bundles over a base that is drawn from its seed, whose adapters are as different as chance makes them."""
    import torch

    from sign_dist.config.data import FrameFeatures
    from sign_dist.config.model import VlmModel
    from sign_dist.config.train import Lora
    from sign_dist.data.vocab import Vocab
    from sign_dist.features.encode import find_files, spec_for
    from sign_dist.inference.bases import base_of
    from sign_dist.inference.bundle import Bundle, BundleFacts
    from sign_dist.models.build import build_model
    from sign_dist.training.adapt import adapt
    from sign_dist.training.checkpoint import save_weights_file
    from sign_dist.transfer.weights_file import file_digest

    model, shape, vocab = VlmModel(width=32, depth=1, patch_px=8, prompt="Sign?"), (32, 32, 3), Vocab(GLOSSES)
    lora = Lora(targets="language_model.*.q_proj language_model.*.v_proj lm_head", rank=4)
    frames = FrameFeatures(num_frames=2, size_px=32)
    base = base_of(model, feature_shape=shape, vocab=vocab)
    for seed, name in enumerate(("home", "school")):
        built = build_model(model, num_classes=0, feature_shape=shape, glosses=GLOSSES)
        adapt(built, lora)
        generator = torch.Generator().manual_seed(seed)
        for part, parameter in built.named_parameters():
            if "lora_" in part:
                parameter.data = torch.randn(parameter.shape, generator=generator)
        bundle = Bundle(root / name)
        bundle.root.mkdir(parents=True)
        vocab.write(bundle.vocab_file)
        save_weights_file(built.state_dict(), bundle.weights_file)
        facts = BundleFacts(
            name=name, task="vlm", model=model, lora=lora, base=base, feature_shape=shape, vocab_size=len(GLOSSES),
            spec=spec_for(frames, find_files(frames)), weights_sha256=file_digest(bundle.weights_file),
        )  # fmt: skip
        bundle.facts_file.write_text(facts.model_dump_json())


def write_video(path: Path) -> Path:
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for _ in range(12):
            picture = np.kron(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def served(ray_cluster: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    from sign_dist.on_ray import adapters, serving

    root = tmp_path_factory.mktemp("sets")
    write_sets(root)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    args = adapters.AdapterArgs(bundle=str(root), decoders=1, default="school")
    serving.start(args, port=port, app=adapters.application(args))
    yield port, root
    serving.stop()


def ask(port: int, method: str, path: str, body: bytes = b"", name: str = "") -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    headers = {"content-type": "multipart/form-data; boundary=edge"} | ({"serve_multiplexed_model_id": name} if name else {})
    try:
        connection.request(method, path, body or None, headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def test_each_request_is_answered_by_the_set_that_it_names(served: tuple[int, Path], tmp_path: Path) -> None:
    from sign_dist.inference.predictor import Predictor

    port, root = served
    video = write_video(tmp_path / "sign.mp4")
    body = (
        b'--edge\r\nContent-Disposition: form-data; name="video"; filename="a"\r\n\r\n' + video.read_bytes() + b"\r\n--edge--\r\n"
    )
    wanted = {name: dict(Predictor.load(root / name)(video, 3).scores) for name in ("home", "school")}
    assert wanted["home"] != pytest.approx(wanted["school"], abs=1e-3)
    for name, stands_for in [("home", "home"), ("school", "school"), ("", "school"), ("home", "home")]:
        status, answer = ask(port, "POST", "/v1/recognize?k=3", body, name)
        assert status == 200
        assert answer["model"].startswith(f"{stands_for}-")
        assert {r["gloss"]: r["score"] for r in answer["results"]} == pytest.approx(wanted[stands_for], abs=1e-5)
    status, problem = ask(port, "POST", "/v1/recognize", body, "hone")
    assert (status, problem["code"]) == (404, "not_found")
    assert "did you mean 'home'" in problem["detail"]
    assert ask(port, "GET", "/v1/model", name="home")[1]["facts"]["models"] == ["home", "school"]


def test_sets_that_cannot_be_served_together_are_refused(tmp_path: Path) -> None:
    from sign_dist.on_ray import adapters

    with pytest.raises(RunError, match="holds no bundles"):
        adapters.sets_of(adapters.AdapterArgs(bundle=str(tmp_path)))
    write_sets(tmp_path)
    with pytest.raises(RunError, match="to be the default: there are home, school"):
        adapters.sets_of(adapters.AdapterArgs(bundle=str(tmp_path), default="work"))
    facts = tmp_path / "home" / "bundle.json"
    text = json.loads(facts.read_text())
    facts.write_text(json.dumps(text | {"base": "0" * 64}))
    with pytest.raises(RunError, match="over different models"):
        adapters.sets_of(adapters.AdapterArgs(bundle=str(tmp_path)))
    facts.write_text(json.dumps(text | {"base": ""}))
    with pytest.raises(RunError, match="whole model"):
        adapters.sets_of(adapters.AdapterArgs(bundle=str(tmp_path)))
