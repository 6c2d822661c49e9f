"""Vision-language models in training: adapters over whole and over quantised weights, kept by themselves, gone on with exactly."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sign_dist.config.data import Data, FrameFeatures
from sign_dist.config.model import VlmModel
from sign_dist.config.run import Run
from sign_dist.config.train import Lora, Optim, Train
from sign_dist.data.sample import Sample
from sign_dist.data.vocab import Vocab
from sign_dist.errors import RunError, SettingsError, WeightsError
from sign_dist.tasks.build import build_task
from sign_dist.tasks.task import Example
from sign_dist.training.adapt import sizes_of
from sign_dist.training.checkpoint import LocalCheckpoints, read_weights
from sign_dist.training.evaluate import evaluate
from sign_dist.training.loop import fit
from sign_dist.training.run_dir import RunDir
from sign_dist.training.start import start_model, with_weights
from sign_dist.training.strategy import OneProcess
from sign_dist.transfer.freeze import ADAPTER
from sign_dist.transfer.lora import adapters_of, add_adapters, merged_state, quantise

VOCAB = Vocab.of(["BLUE", "GREEN", "RED"])
TARGETS = "language_model.*.q_proj language_model.*.v_proj"
SHAPE = (32, 32, 3)
CHANNEL = {"RED": 0, "GREEN": 1, "BLUE": 2}


def clips(count: int, seed: int = 0) -> list[Example]:
    """Noise that shines in the colour of its gloss."""
    rng = np.random.default_rng(seed)
    found: list[Example] = []
    for i in range(count):
        gloss = VOCAB.glosses[i % 3]
        frames = rng.integers(0, 60, (2, *SHAPE), dtype=np.uint8)
        frames[..., CHANNEL[gloss]] += 180
        found.append(Example(Sample(f"clip{seed}_{i}", f"{i}.mp4", gloss=gloss), frames))
    return found


def run_of(lora: dict[str, Any] | None = None, model: dict[str, Any] | None = None, **train: Any) -> Run:
    return Run(
        task="vlm",
        data=Data(root="none", features=FrameFeatures(num_frames=2, size_px=32)),
        model=VlmModel(**({"width": 32, "depth": 1, "prompt": "Which?"} | (model or {}))),
        train=Train(**({"epochs": 2, "batch_size": 6, "lora": Lora(**(lora or {})), "optim": Optim(lr=5e-3)} | train)),
    )


def start(run: Run) -> nn.Module:
    return start_model(run, num_classes=3, feature_shape=SHAPE, vocab=VOCAB)


def trained(run: Run, root: Path, *, until: int = 0) -> nn.Module:
    """The model after training into `root`; with `until`, a death in the step after the checkpoint of that epoch."""
    root.mkdir(exist_ok=True)
    task, model = build_task(run, VOCAB), start(run)

    def on_step(step: int, *_: Any) -> None:
        if until and step > 4 * until:
            raise RunError("dies here")

    checkpoints = LocalCheckpoints(RunDir(root), task.monitor)
    fit(model, task, clips(24), clips(6, 1), run.train, strategy=OneProcess(), checkpoints=checkpoints, on_step=on_step)
    return model


def losses(run: Run, model: nn.Module) -> torch.Tensor:
    task = build_task(run, VOCAB)
    model.eval()
    with torch.no_grad():
        return task.losses(model, task.collate(clips(6, 2)))[0]["cross_entropy"]


@pytest.mark.long
def test_a_tiny_model_learns_to_say_what_it_sees(tmp_path: Path) -> None:
    run = run_of(epochs=12)
    task = build_task(run, VOCAB)
    model = trained(run, tmp_path / "run")
    assert evaluate(model, task, clips(12, 5), batch_size=6).scores["top1"] == 1.0


@pytest.mark.long
@pytest.mark.parametrize("quantize", ["none", "nf4", "int8"])
@pytest.mark.parametrize("dora", [False, True])
def test_checkpoints_hold_adapters_alone_and_give_the_model_again(quantize: str, dora: bool, tmp_path: Path) -> None:
    """Training goes on behind evaluations, which 4 bits on some CPUs would not."""
    if dora and quantize == "int8":
        pytest.skip("one of the two is enough")
    run = run_of({"targets": TARGETS, "rank": 4, "dora": dora}, {"quantize": quantize, "checkpointing": True})
    model = trained(run, tmp_path / "run")
    assert {n for n, p in model.named_parameters() if p.requires_grad} == set(adapters_of(model))
    tensors = read_weights(RunDir(tmp_path / "run").checkpoints()[-1])
    assert tensors.keys() == {n for n, _ in model.named_parameters() if ADAPTER in n}
    sizes = sizes_of(model)
    assert sizes.trained == sum(t.numel() for t in tensors.values())
    assert 0 < sizes.share < 0.05
    again = with_weights(run.model, run.train.lora, tensors, num_classes=3, feature_shape=SHAPE, vocab=VOCAB)
    assert torch.equal(losses(run, again), losses(run, model))
    assert not torch.equal(losses(run, again), losses(run, start(run)))


@pytest.mark.long
def test_a_run_with_adapters_goes_on_to_the_same_numbers(tmp_path: Path) -> None:
    run = run_of({"targets": TARGETS, "rank": 2, "dropout": 0.2}, {"quantize": "nf4"}, ema=0.9)
    whole = trained(run, tmp_path / "whole")
    with pytest.raises(RunError, match="dies here"):
        trained(run, tmp_path / "cut", until=1)
    assert len(RunDir(tmp_path / "cut").checkpoints()) == 1
    cut = trained(run, tmp_path / "cut")
    for name, tensor in adapters_of(whole).items():
        assert torch.equal(tensor, adapters_of(cut)[name]), name


@pytest.mark.long
def test_adapters_of_four_bits_fit_the_whole_weights_and_merge_into_them(tmp_path: Path) -> None:
    run = run_of({"targets": TARGETS, "rank": 4, "dora": True}, {"quantize": "nf4"})
    trained(run, tmp_path / "run")
    tensors = read_weights(RunDir(tmp_path / "run").checkpoints()[-1])
    sizes: dict[str, Any] = {"num_classes": 3, "feature_shape": SHAPE, "vocab": VOCAB}
    whole = with_weights(run.model, run.train.lora, tensors, **sizes, whole=True)
    plain = start(run_of())
    with pytest.raises(WeightsError, match="4 or 8 bits"):
        merged_state(with_weights(run.model, run.train.lora, tensors, **sizes))
    plain.load_state_dict(merged_state(whole))
    assert whole.state_dict().keys() == tensors.keys()
    torch.testing.assert_close(losses(run, plain), losses(run, whole), atol=1e-4, rtol=1e-4)


def test_other_adapters_are_refused() -> None:
    run = run_of({"targets": TARGETS, "rank": 2})
    tensors = adapters_of(add_adapters(start(run), TARGETS, rank=4))
    with pytest.raises(WeightsError, match="do not fit"):
        with_weights(run.model, run.train.lora, tensors, num_classes=3, feature_shape=SHAPE, vocab=VOCAB)


@pytest.mark.parametrize("bits", ["nf4", "int8"])
def test_fewer_bits_are_near_the_whole_and_leave_the_answers_layer(bits: Any) -> None:
    run = run_of(model={"width": 64})
    whole, small = start(run), start(run)
    quantise(small, bits, torch.float32)
    assert sizes_of(small).parameters == sizes_of(whole).parameters
    assert sizes_of(small).weights_bytes < 0.75 * sizes_of(whole).weights_bytes
    torch.testing.assert_close(losses(run, small), losses(run, whole), atol=0.2, rtol=0)
    assert not torch.equal(losses(run, small), losses(run, whole))
    state = dict(small.named_parameters())
    assert torch.equal(state["vlm.lm_head.weight"], dict(whole.named_parameters())["vlm.lm_head.weight"])
    assert not any(p.requires_grad for p in small.parameters())


def test_computing_inner_values_again_changes_no_gradient() -> None:
    gradients: list[dict[str, torch.Tensor]] = []
    for checkpointing in (False, True):
        run = run_of(model={"checkpointing": checkpointing})
        task, model = build_task(run, VOCAB), start(run).train()
        task.losses(model, task.collate(clips(3)))[0]["cross_entropy"].sum().backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"model.quantize": "nf4"}, "train.lora.targets"),
        ({"model.dtype": "fp16"}, "small changes"),
        ({"train.mixup": 0.2}, "words cannot be mixed"),
        ({"data.features.num_frames": 0}, "num_frames"),
    ],
)
def test_what_cannot_be_learned_is_said_before_anything_is_loaded(values: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        run_of().with_values(values)


def test_dora_is_for_linear_layers() -> None:
    with pytest.raises(SettingsError, match=r"train\.lora\.dora"):
        add_adapters(nn.Sequential(nn.Conv1d(2, 2, 1)), "0", dora=True)
