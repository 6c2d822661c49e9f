"""Stages, adapters and patience in the training loop itself: interrupted and not, and what a checkpoint holds of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sign_dist.config.train import Train
from sign_dist.data.sample import Sample
from sign_dist.data.vocab import Vocab
from sign_dist.errors import SettingsError
from sign_dist.tasks.islr import Islr
from sign_dist.tasks.task import Example
from sign_dist.training.checkpoint import LocalCheckpoints, read_state, read_weights
from sign_dist.training.evaluate import evaluate
from sign_dist.training.loop import fit
from sign_dist.training.record import Record
from sign_dist.training.run_dir import RunDir
from sign_dist.training.strategy import OneProcess
from sign_dist.transfer.freeze import ADAPTER

VOCAB = Vocab(("A", "B", "C"))
WIDTH = 6


class Net(nn.Module):
    """Three groups; the middle one may read its layer's weight past any adapter, as some networks do."""

    def __init__(self, *, passes_by: bool = False) -> None:
        super().__init__()
        self.passes_by = passes_by
        self.body = nn.Sequential(nn.Conv1d(WIDTH, 8, 3, padding=1), nn.BatchNorm1d(8), nn.Tanh())
        self.middle = nn.Linear(8, 8)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(8, 3)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        x = self.body(features.transpose(1, 2)).mean(2)
        x = nn.functional.linear(x, self.middle.weight, self.middle.bias) if self.passes_by else self.middle(x)
        return self.head(self.dropout(x.tanh()))

    def layer_groups(self) -> list[tuple[str, list[nn.Module]]]:
        return [("head", [self.head]), ("middle", [self.middle]), ("body", [self.body])]


@pytest.fixture(autouse=True)
def _no_tensorboard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Record, "_tensorboard", lambda *_: None)


def clips(count: int, seed: int) -> list[Example]:
    rng = np.random.default_rng(seed)
    found: list[Example] = []
    for i in range(count):
        features = rng.normal(size=(5, WIDTH)).astype(np.float32)
        features[:, i % 3] += 2
        found.append(Example(Sample(f"clip{i}", "", VOCAB.glosses[i % 3]), features))
    return found


class Stuck(Islr):
    """Never gets better."""

    def score(self, references: Any, predictions: Any) -> dict[str, float]:
        return {"top1": 0.5, "top5": 0.5}


class InterruptedTrainingError(Exception):
    pass


def net(seed: int = 0, **kind: Any) -> Net:
    torch.manual_seed(seed)
    model = Net(**kind)
    torch.manual_seed(seed + 1000)
    return model


def train(root: Path, model: nn.Module, *, stop_after: int = 0, task: Islr | None = None, **settings: Any) -> dict[str, float]:
    task = task or Islr(VOCAB)
    run = Train(epochs=6, batch_size=4, keep_best=9).with_values({"optim.lr": 0.02, "optim.warmup_fraction": 0, **settings})

    def stop(line: dict[str, float]) -> None:
        if line["epoch"] == stop_after:
            raise InterruptedTrainingError

    checkpoints = LocalCheckpoints(RunDir(root), task.monitor, keep=run.keep_best)
    strategy = OneProcess()
    return fit(model, task, clips(12, 0), clips(7, 1), run, strategy=strategy, checkpoints=checkpoints, on_epoch=stop)


CLOCK = ("seconds", "clips_per_s", "step_ms", "data_wait_share")
LORA = {"lora.targets": "body.0 middle", "lora.rank": 2}
VARIANTS: list[dict[str, Any]] = [
    LORA,
    {**LORA, "unfreeze.stages": 3, "ema": 0.8},
    {**LORA, "lora.dropout": 0.3, "parts": 2},
    {"freeze.groups": "body", "unfreeze.stages": 2, "optim.layer_decay": 0.5},
    {"unfreeze.plan": "head; middle", "patience": 1},
]


@pytest.mark.long
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("stop_after", [1, 4])
def test_an_interrupted_run_ends_as_an_undisturbed_one(tmp_path: Path, variant: dict[str, Any], stop_after: int) -> None:
    whole = train(tmp_path / "whole", net(), **variant)
    with pytest.raises(InterruptedTrainingError):
        train(tmp_path / "stopped", net(), stop_after=stop_after, **variant)
    again = train(tmp_path / "stopped", net(seed=9), **variant)
    last = [RunDir(tmp_path / name).checkpoints()[-1] / "model.safetensors" for name in ("whole", "stopped")]
    assert last[0].read_bytes() == last[1].read_bytes()
    assert {n: v for n, v in again.items() if n not in CLOCK} == {n: v for n, v in whole.items() if n not in CLOCK}


@pytest.mark.parametrize("ema", [0.0, 0.8])
def test_a_checkpoint_holds_merged_weights_that_score_as_was_measured(tmp_path: Path, ema: float) -> None:
    start = {name: tensor.clone() for name, tensor in net().state_dict().items()}
    measured = train(tmp_path, net(), **LORA, ema=ema)
    folder = RunDir(tmp_path).checkpoints()[-1]
    weights, (_, state) = read_weights(folder), read_state(folder)
    assert weights.keys() == start.keys(), "the names of the network without adapters"
    plain = net(seed=5)
    plain.load_state_dict(weights)
    scores = evaluate(plain, Islr(VOCAB), clips(7, 1), batch_size=4).scores
    assert scores["loss"] == pytest.approx(measured["val/loss"], rel=1e-5)
    moved = {name for name, tensor in weights.items() if not torch.equal(tensor, start[name])}
    assert moved == {"body.0.weight", "middle.weight", "head.weight", "head.bias"}, "statistics of what adapters sit on stand still"
    assert sum(ADAPTER in name for name in state.weights) == 4
    assert torch.equal(state.weights["middle.base_layer.weight"], start["middle.weight"])


@pytest.mark.parametrize("stages", [1, 3])
def test_an_adapter_that_the_network_passes_by_is_told_as_soon_as_it_should_learn(tmp_path: Path, stages: int) -> None:
    with pytest.raises(SettingsError, match=r"passes by the adapter of middle\.lora_A.*choose other train\.lora\.targets"):
        train(tmp_path, net(passes_by=True), **LORA, **{"unfreeze.stages": stages})
    assert len(RunDir(tmp_path).checkpoints()) == {1: 0, 3: 2}[stages]


@pytest.mark.parametrize(("stages", "patience", "epochs"), [(1, 2, 3), (3, 1, 5), (3, 2, 6), (2, 2, 5), (3, 0, 6)])
def test_patience_waits_for_the_last_stage(tmp_path: Path, stages: int, patience: int, epochs: int) -> None:
    """Of six epochs. The first evaluation of a run is better than none before it."""
    settings = {"unfreeze.stages": stages, "patience": patience}
    assert train(tmp_path, net(), task=Stuck(VOCAB), **settings)["epoch"] == epochs


def test_parts_without_a_clip_leave_statistics_alone(tmp_path: Path) -> None:
    """Accumulating over more parts than the last step has clips: nothing is seen that is not there."""
    seen: list[int] = []

    class Counting(Net):
        def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
            if self.training:
                seen.append(len(features))
            return super().forward(features, lengths)

    model, task = Counting(), Islr(VOCAB)
    run = Train(epochs=1, batch_size=4, parts=4)
    checkpoints = LocalCheckpoints(RunDir(tmp_path), task.monitor)
    fit(model, task, clips(9, 0), clips(3, 1), run, strategy=OneProcess(), checkpoints=checkpoints)
    assert seen == [1] * 9
