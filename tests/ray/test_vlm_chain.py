"""The whole way of a vision-language model: trained as a whole, made a folder, adapted below 4 bits, evaluated, served, asked."""

import socket
from pathlib import Path

import pytest

from sign_dist.config.data import Data, FrameFeatures
from sign_dist.config.model import VlmModel
from sign_dist.config.run import Run
from sign_dist.config.train import Optim, Train
from sign_dist.data.layout import DatasetDir
from sign_dist.data.manifest import read_manifest
from sign_dist.data.vocab import Vocab
from sign_dist.training.run_dir import RunDir
from sign_dist.training.start import weights_of
from tests.ray.test_adapters import ask

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20"),
]


def test_four_bits_with_adapters_over_a_model_that_was_trained_here(
    ray_cluster: None, corpus: Path, dataset: Path, tmp_path: Path
) -> None:
    from sign_dist.inference.bundle import export
    from sign_dist.inference.predictor import Predictor
    from sign_dist.inference.transformers_folder import write_folder
    from sign_dist.on_ray import serving
    from sign_dist.on_ray.evaluation import evaluate_run
    from sign_dist.on_ray.training import train

    whole = Run(
        task="vlm",
        data=Data(root=str(dataset), features=FrameFeatures(num_frames=8)),
        model=VlmModel(width=32, depth=1, patch_px=16, prompt="Which sign?"),
        train=Train(epochs=1, batch_size=4, optim=Optim(lr=1e-3)),
    )
    train(whole, tmp_path / "whole")
    folder = write_folder(export(RunDir(tmp_path / "whole")), tmp_path / "folder")
    adapters = {"train.lora.targets": "language_model.*.q_proj language_model.*.v_proj", "train.lora.rank": 2}
    run = whole.with_values({**adapters, "model.source": str(folder), "model.quantize": "nf4", "decode.beam": 2})
    train(run, tmp_path / "adapted")
    chosen = RunDir(tmp_path / "adapted").chosen()
    assert weights_of(chosen)
    assert all("lora_" in name for name in weights_of(chosen))
    page, report = evaluate_run(tmp_path / "adapted", "test")
    assert page.exists()
    num_test = len(read_manifest(DatasetDir(dataset), "test"))
    assert report["calibration"]["before"]["clips"] == num_test
    bundle = export(RunDir(tmp_path / "adapted"))
    assert bundle.weights_file.stat().st_size < folder.joinpath("model.safetensors").stat().st_size / 4
    video = corpus / read_manifest(DatasetDir(dataset), "test")[0].video_path
    wanted = dict(Predictor.load(bundle.root)(video, 4).scores)
    assert sorted(wanted) == sorted(Vocab.read(DatasetDir(dataset).vocab_file).glosses)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    serving.start(serving.ServeArgs(bundle=str(bundle.root), decoders=1), port=port)
    try:
        head = b'--edge\r\nContent-Disposition: form-data; name="video"; filename="a"\r\n\r\n'
        status, answer = ask(port, "POST", "/v1/recognize?k=4", head + video.read_bytes() + b"\r\n--edge--\r\n")
    finally:
        serving.stop()
    assert status == 200
    assert {r["gloss"]: r["score"] for r in answer["results"]} == pytest.approx(wanted, abs=1e-5)
