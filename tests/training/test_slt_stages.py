"""From stage to stage of a translation: what an encoder learned is what features are extracted with, and text stays frozen."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from sign_dist.config.data import Data, FrameFeatures, SignHieraFeatures
from sign_dist.config.model import FrontEncoder, SonarModel, TranslatorModel
from sign_dist.config.run import Decode, Run
from sign_dist.config.train import Freeze, Optim, Train
from sign_dist.errors import SignDistError, WeightsError
from sign_dist.features.encode import build_encoder, find_files
from sign_dist.models.build import build_model
from sign_dist.tasks.slt import Slt
from sign_dist.tasks.task import Monitor
from sign_dist.training.checkpoint import Progress, Saved, read_weights, write_checkpoint
from sign_dist.training.parts import save_encoder, take_parts
from sign_dist.training.run_dir import RunDir
from sign_dist.training.start import start_from, start_model
from sign_dist.training.strategy import State
from sign_dist.video.decode import Clip
from tests.worlds import extract_here, last_metrics, look_alike, train_here

FRAMES = FrameFeatures(num_frames=0)
RUN = Run(task="slt", data=Data(root="nowhere", features=FRAMES), model=TranslatorModel(width=16, depth=1, heads=2))
SHAPE = (64, 64, 3)


def model_of(run: Run, shape: tuple[int, ...] = SHAPE, seed: int = 1) -> Any:
    torch.manual_seed(seed)
    return build_model(run.model, num_classes=0, feature_shape=shape).eval()


def run_dir_of(root: Path, run: Run, weights: dict[str, Tensor]) -> RunDir:
    """A run directory with one checkpoint."""
    run_dir = RunDir(root)
    run_dir.claim(run)
    progress = Progress(1, 1, {"val/bleu4": 1.0}, 1.0, 0)
    write_checkpoint(run_dir.checkpoint(1), progress, Saved(weights, State(weights, {}), True), Monitor("val/bleu4", "max"))
    return run_dir


@pytest.mark.long
@pytest.mark.parametrize("whole", [True, False], ids=["checkpoint", "part"])
@pytest.mark.parametrize("settings", [RUN.model, SonarModel()], ids=["translator", "sonar"])
def test_features_are_extracted_with_what_a_run_has_trained(settings: Any, whole: bool, tmp_path: Path) -> None:
    run = RUN.model_copy(update={"model": settings})
    model = model_of(run)
    run_dir = run_dir_of(tmp_path / "run", run, model.state_dict())
    file = tmp_path / "encoder.safetensors"
    if whole:
        file = run_dir.chosen() / "model.safetensors"
    else:
        assert save_encoder(run_dir, file) == len(model.front.encoder.state_dict())
    features = SignHieraFeatures(weights=str(file))
    clip = Clip(np.random.default_rng(0).integers(0, 256, (30, 64, 64, 3), dtype=np.uint8), 25.0, "")
    with torch.inference_mode():
        seen, _ = model.front(torch.from_numpy(clip.frames)[None], torch.tensor([30]))
    np.testing.assert_allclose(build_encoder(features, find_files(features))(clip), seen[0], atol=2e-3)
    assert not np.allclose(build_encoder(SignHieraFeatures(), find_files(SignHieraFeatures()))(clip), seen[0], atol=2e-3)
    # And a model that begins with it sees the same.
    again = model_of(run.with_values({"model.encoder.weights": str(file)}), seed=2)
    (said,) = take_parts(again, run.with_values({"model.encoder.weights": str(file)}).model)
    assert "SignHiera from" in said
    with torch.inference_mode():
        torch.testing.assert_close(again.front(torch.from_numpy(clip.frames)[None], torch.tensor([30]))[0], seen)


def test_a_run_without_an_encoder_in_front_has_none_to_give(tmp_path: Path) -> None:
    run = RUN.with_values({"data.features": SignHieraFeatures()})
    run_dir = run_dir_of(tmp_path / "run", run, model_of(run, (6,)).state_dict())
    with pytest.raises(WeightsError, match=r"no SignHiera in front of its model, which reads signhiera"):
        save_encoder(run_dir, tmp_path / "encoder.safetensors")
    with pytest.raises(WeightsError, match=r"must end in \.safetensors"):
        save_encoder(run_dir, tmp_path / "encoder.pt")


@pytest.mark.parametrize("seen", ["frames", "vectors"])
def test_a_stage_starts_from_the_one_before_whichever_of_both_read_frames(seen: str, tmp_path: Path) -> None:
    """Frames -> vectors leaves the encoder behind; vectors -> frames keeps the encoder it has."""
    shapes = (SHAPE, (256,)) if seen == "frames" else ((256,), SHAPE)
    before, after = (model_of(RUN, shape, seed) for seed, shape in enumerate(shapes))
    front = {name: t.clone() for name, t in after.state_dict().items() if name.startswith("front.")}
    start_from(after, run_dir_of(tmp_path / "run", RUN, before.state_dict()).root)
    for name, tensor in after.state_dict().items():
        assert torch.equal(tensor, front[name] if name in front else before.state_dict()[name])


def test_sonars_halves_take_weights_of_their_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = RUN.with_values({"model": SonarModel(), "data.features": SignHieraFeatures()})
    donor = model_of(run, (6,), seed=5)
    for part in ("encoder", "decoder"):
        # The three names of T5's embedding are one tensor.
        tensors = {name: t.clone() for name, t in getattr(donor, part).state_dict().items()}
        save_file(tensors, tmp_path / f"{part}.safetensors")
    values = {"model.encoder_weights": str(tmp_path / "encoder.safetensors"), "model.tokenizer": "nllb"}
    settings: Any = run.with_values(values | {"model.decoder_weights": str(tmp_path / "decoder.safetensors")}).model
    model = model_of(run, (6,), seed=6)
    assert len(list(take_parts(model, settings))) == 2
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), donor.parameters(), strict=True))
    assert all(p.requires_grad for p in model.parameters())
    wrong = settings.model_copy(update={"decoder_weights": settings.encoder_weights})
    with pytest.raises(WeightsError):
        list(take_parts(model, wrong))


def test_decoder_weights_without_their_tokenizer_are_refused() -> None:
    with pytest.raises(SignDistError, match=r"model\.tokenizer"):
        RUN.with_values({"model": {"kind": "sonar", "decoder_weights": "x.pt"}})


@pytest.mark.long
def test_the_two_stages_of_the_guide_in_small(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As it is, then the encoder's last block from frames, then features extracted with it and all that reads them."""
    dataset = look_alike(tmp_path / "world", "how2sign")
    shared: dict[str, Any] = {
        "task": "slt",
        "model": SonarModel(encoder=FrontEncoder(fps=10, train_fraction=0.2)),
        "decode": Decode(beam=2, max_len=10),
    }
    frames = FrameFeatures(num_frames=0, sampling=SignHieraFeatures().sampling)
    zero = Run(**shared, data=Data(root=str(dataset.root), features=SignHieraFeatures()), train=Train(epochs=0, batch_size=2))
    extract_here(dataset, zero.data.features)
    train_here(zero, tmp_path / "zero")
    told = last_metrics(tmp_path / "zero")
    assert (told["epoch"], told["step"]) == (0, 0)
    assert "val/bleu4" in told
    train = Train(
        epochs=2, batch_size=2, optim=Optim(lr=1e-3), start_from=str(tmp_path / "zero"), freeze=Freeze(groups="text_* sonar_*")
    )
    first = Run(**shared, data=Data(root=str(dataset.root), features=frames), train=train)
    extract_here(dataset, frames)
    train_here(first, tmp_path / "first")
    before, after = (read_weights(RunDir(tmp_path / name).chosen()) for name in ("zero", "first"))
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())  # SONAR stood still
    fresh = {k: v for k, v in start_model(first, num_classes=0, feature_shape=SHAPE).state_dict().items() if k.startswith("front.")}
    assert len(fresh) + len(before) == len(after)
    save_encoder(RunDir(tmp_path / "first"), tmp_path / "adapted.safetensors")
    adapted = SignHieraFeatures(weights=str(tmp_path / "adapted.safetensors"))
    extract_here(dataset, adapted)
    second = Run(
        **shared,
        data=Data(root=str(dataset.root), features=adapted),
        train=Train(epochs=2, batch_size=2, start_from=str(tmp_path / "first")),
    )
    with caplog.at_level(logging.INFO):
        train_here(second, tmp_path / "second")
    assert "starts from" in caplog.text
    assert last_metrics(tmp_path / "second")["train/loss"] < before_loss(tmp_path / "zero")
    assert Slt.monitor.name in last_metrics(tmp_path / "second")


def before_loss(root: Path) -> float:
    return last_metrics(root)["val/loss"]
