"""fit(): who shares a step changes nothing, an interruption changes nothing, and a fault is said."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from sign_dist.config.train import Optim, Train
from sign_dist.data.sample import Sample
from sign_dist.data.vocab import Vocab
from sign_dist.errors import RunError
from sign_dist.tasks.islr import Islr
from sign_dist.tasks.task import Example
from sign_dist.training.checkpoint import LocalCheckpoints
from sign_dist.training.data import micro_batches
from sign_dist.training.evaluate import evaluate
from sign_dist.training.loop import _batch, _loss, fit
from sign_dist.training.record import Record
from sign_dist.training.run_dir import RunDir
from sign_dist.training.strategy import OneProcess

VOCAB = Vocab(("A", "B", "C"))
WIDTH = 6


class Norm(nn.BatchNorm1d):
    """Batch normalisation that a batch of one clip does not stop: it sees each clip twice, once smaller."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(torch.stack([input, 0.9 * input], dim=-1)).mean(dim=-1)


class Toy(nn.Module):
    """Mean over the clip, two layers, everything that can go wrong on resuming: dropout and running statistics."""

    def __init__(self, *, dropout: float = 0.3, norm: bool = True) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(WIDTH, 8), Norm(8) if norm else nn.Identity(), nn.Tanh())
        self.middle = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Dropout(dropout))
        self.head = nn.Linear(8, 3)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        return self.head(self.middle(self.body(features.sum(1) / lengths[:, None])))

    def layer_groups(self) -> list[tuple[str, list[nn.Module]]]:
        return [("head", [self.head]), ("middle", [self.middle]), ("body", [self.body])]


@pytest.fixture(autouse=True)
def _no_tensorboard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Record, "_tensorboard", lambda *_: None)


def toy(seed: int = 0, **kind: Any) -> Toy:
    torch.manual_seed(seed)
    model = Toy(**kind)
    torch.manual_seed(seed + 1000)
    return model


def clips(count: int = 13, seed: int = 0) -> list[Example]:
    """Clips whose gloss shows in their features."""
    rng = np.random.default_rng(seed)
    examples: list[Example] = []
    for i in range(count):
        features = rng.normal(size=(3 + i % 4, WIDTH)).astype(np.float32)
        features[:, i % 3] += 2
        examples.append(Example(Sample(f"clip{i}", "", VOCAB.glosses[i % 3]), features))
    return examples


def jitter(features: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return features + rng.normal(0, 0.1, features.shape).astype(np.float32)


TASK = Islr(VOCAB, label_smoothing=0.1, augment=jitter)
SETTINGS = Train(epochs=5, batch_size=4, optim=Optim(lr=0.02), keep_best=9)


def train(
    root: Path,
    settings: Train = SETTINGS,
    model: nn.Module | None = None,
    *,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    examples: list[Example] | None = None,
    task: Islr = TASK,
) -> tuple[nn.Module, dict[str, float]]:
    model = model or toy()
    checkpoints = LocalCheckpoints(RunDir(root), task.monitor, keep=settings.keep_best)
    examples = examples or clips()
    metrics = fit(
        model, task, examples, clips(7, seed=1), settings, strategy=OneProcess(), checkpoints=checkpoints, on_epoch=on_epoch
    )
    return model, metrics


def lines(root: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what a clock says."""
    found = [json.loads(line) for line in (root / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in ("seconds", "clips_per_s")} for line in found]


def assert_same(one: nn.Module, two: nn.Module) -> None:
    for (name, a), b in zip(one.state_dict().items(), two.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


# --- who takes which clip ---------------------------------------------------------------------------------------------


@given(st.integers(1, 60), st.integers(1, 4), st.integers(1, 4), st.integers(1, 5), st.integers(0, 5), st.integers(0, 5))
def test_every_clip_is_taken_once_and_in_the_same_steps_however_many_share_them(
    num_clips: int, world: int, accumulate: int, per_part: int, seed: int, epoch: int
) -> None:
    batch_size = world * accumulate * per_part

    def steps(world: int, accumulate: int) -> list[list[int]]:
        ranks = [
            list(
                micro_batches(
                    num_clips, batch_size=batch_size, accumulate=accumulate, rank=r, world_size=world, seed=seed, epoch=epoch
                )
            )
            for r in range(world)
        ]
        assert len({len(rank) for rank in ranks}) == 1
        together = [[i for rank in ranks for part in rank[step][1] for i in part] for step in range(len(ranks[0]))]
        assert all(len(rank[step][1]) == accumulate for rank in ranks for step in range(len(rank)))
        assert all(rank[step][0] == len(clips) for rank in ranks for step, clips in enumerate(together))
        sizes = [len(part) for rank in ranks for _, parts in rank for part in parts]
        assert max(sizes) <= batch_size // (world * accumulate)
        return together

    shared = steps(world, accumulate)
    assert sorted(i for step in shared for i in step) == list(range(num_clips))
    assert all(len(step) == batch_size for step in shared[:-1])
    assert shared == steps(1, 1)


@pytest.mark.parametrize(("world", "accumulate"), [(1, 1), (1, 2), (1, 4), (2, 1), (2, 2), (4, 1)])
def test_the_gradient_of_a_step_does_not_depend_on_who_shares_it(world: int, accumulate: int) -> None:
    """With augmentation and a last step that leaves ranks empty; without dropout and batch statistics."""
    examples = clips(5)

    def gradients(world: int, accumulate: int) -> list[list[Tensor]]:
        model, found = toy(dropout=0, norm=False).double(), []
        ranks = [
            micro_batches(5, batch_size=4, accumulate=accumulate, rank=r, world_size=world, seed=0, epoch=2) for r in range(world)
        ]
        for step in zip(*ranks, strict=True):
            model.zero_grad()
            for num_clips, parts in step:
                for part in parts:
                    batch = _batch(TASK, examples, part, 0, 2)
                    batch = type(batch)(
                        batch.ids, batch.references, batch.features.double(), batch.lengths, batch.targets, batch.weights
                    )
                    (_loss(model, TASK, batch, SETTINGS) / num_clips).backward()
            found.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
        return found

    for shared, alone in zip(gradients(world, accumulate), gradients(1, 1), strict=True):
        for a, b in zip(shared, alone, strict=True):
            # Logits are rounded to fp32 before the loss.
            torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_accumulating_trains_the_same_weights(tmp_path: Path) -> None:
    one, _ = train(tmp_path / "1", model=toy(dropout=0, norm=False))
    for accumulate in (2, 4):
        settings = SETTINGS.with_values({"accumulate": accumulate})
        other, _ = train(tmp_path / str(accumulate), settings, toy(dropout=0, norm=False))
        for a, b in zip(one.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


# --- learning ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extra", [{}, {"ema": 0.9}, {"accumulate": 2, "precision": "bf16"}])
def test_a_toy_problem_is_learned_by_heart(tmp_path: Path, extra: dict[str, Any]) -> None:
    settings = SETTINGS.with_values({"epochs": 25, "optim.lr": 0.05, "optim.weight_decay": 0.0, **extra})
    task = Islr(VOCAB)
    model, metrics = train(tmp_path, settings, toy(dropout=0, norm=False), task=task)
    assert metrics["train/loss"] < 0.2
    assert evaluate(model, task, clips(), batch_size=5).scores["top1"] == 1.0
    assert metrics["epoch"] == 25
    assert metrics["step"] == 25 * 4


def test_the_same_seed_trains_the_same_weights_and_another_does_not(tmp_path: Path) -> None:
    (one, _), (two, _) = (train(tmp_path / name) for name in "ab")
    assert_same(one, two)
    other, _ = train(tmp_path / "c", SETTINGS.with_values({"seed": 1}))
    assert any(not torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


class InterruptedTrainingError(Exception):
    pass


VARIANTS: list[dict[str, Any]] = [
    {},
    {"ema": 0.8, "accumulate": 2},
    {"unfreeze.stages": 3},
    {"patience": 2, "evaluate_every": 2, "epochs": 6},
]


@pytest.mark.parametrize(
    ("variant", "how"),
    [({}, "lost checkpoint"), ({}, "exception"), *((variant, "both") for variant in VARIANTS)],
    ids=str,
)
def test_an_interrupted_run_ends_as_an_undisturbed_one(tmp_path: Path, variant: dict[str, Any], how: str) -> None:
    settings = SETTINGS.with_values(variant)
    whole, metrics = train(tmp_path / "whole", settings)
    seen: list[float] = []

    def stop(line: dict[str, float]) -> None:
        seen.append(line["epoch"])
        if len(seen) == 2:
            raise InterruptedTrainingError

    root = tmp_path / "stopped"
    if how == "lost checkpoint":
        train(root, settings)
    else:
        with pytest.raises(InterruptedTrainingError):
            train(root, settings, on_epoch=stop)
    if how != "exception":
        shutil.rmtree(RunDir(root).checkpoints()[-1])
    resumed, again = train(root, settings, toy(seed=99), on_epoch=lambda line: seen.append(line["epoch"]))
    assert_same(whole, resumed)
    assert lines(root) == lines(tmp_path / "whole")
    clock = ("seconds", "clips_per_s")
    assert {k: v for k, v in again.items() if k not in clock} == {k: v for k, v in metrics.items() if k not in clock}
    chosen = [RunDir(path).checkpoints()[-1] for path in (tmp_path / "whole", root)]
    assert (chosen[0] / "model.safetensors").read_bytes() == (chosen[1] / "model.safetensors").read_bytes()
    assert [p.name for p in RunDir(root).checkpoints()][-1] == chosen[0].name


def test_a_finished_run_is_left_alone(tmp_path: Path) -> None:
    _, metrics = train(tmp_path)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    resumed, again = train(tmp_path, model=toy(seed=5), on_epoch=lambda _: pytest.fail("trained again"))
    assert again == metrics
    assert (tmp_path / "metrics.jsonl").read_bytes() == before
    assert_same(resumed, train(tmp_path / "other")[0])


# --- averages, stages, stopping ---------------------------------------------------------------------------------------


def test_the_average_is_evaluated_and_saved_and_lies_between_the_weights(tmp_path: Path) -> None:
    from sign_dist.training.checkpoint import read_state, read_weights

    model, _ = train(tmp_path, SETTINGS.with_values({"ema": 0.9}))
    folder = RunDir(tmp_path).checkpoints()[-1]
    average = read_weights(folder)
    assert any(not torch.equal(average[name], t) for name, t in model.state_dict().items())
    assert torch.equal(average["body.1.num_batches_tracked"], model.state_dict()["body.1.num_batches_tracked"])
    assert all(torch.equal(t, model.state_dict()[name]) for name, t in read_state(folder)[1]["model"].items())
    averaged = toy()
    averaged.load_state_dict(average)
    scores = evaluate(averaged, TASK, clips(7, seed=1), batch_size=4).scores
    assert lines(tmp_path)[-1]["val/loss"] == pytest.approx(scores["loss"], rel=1e-5)


def test_a_stage_trains_exactly_its_layers_and_frozen_statistics_stand_still(tmp_path: Path) -> None:
    settings = SETTINGS.with_values({"epochs": 6, "unfreeze.stages": 3})
    model = toy()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    moved: list[set[str]] = []

    def look(_: dict[str, float]) -> None:
        now = {name: t.clone() for name, t in model.state_dict().items()}
        moved.append({name.split(".")[0] for name, t in now.items() if not torch.equal(t, before[name])})
        before.update(now)

    train(tmp_path, settings, model, on_epoch=look)
    assert moved == [{"head"}, {"head"}, {"head", "middle"}, {"head", "middle"}, *[{"head", "middle", "body"}] * 2]
    assert [line["stage"] for line in lines(tmp_path)] == [0, 0, 1, 1, 2, 2]


def test_patience_stops_after_so_many_evaluations_without_a_better_one(tmp_path: Path) -> None:
    class Stuck(Islr):
        def score(self, references: Any, predictions: Any) -> dict[str, float]:
            return {"top1": 0.5, "top5": 0.5}

    task = Stuck(VOCAB)
    for patience, epochs in ((1, 2), (3, 4), (0, 9)):
        _, metrics = train(tmp_path / str(patience), SETTINGS.with_values({"epochs": 9, "patience": patience}), task=task)
        assert metrics["epoch"] == epochs


@pytest.mark.parametrize(("every", "epochs"), [(1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (9, [5])])
def test_evaluations_come_when_they_are_due_and_at_the_end(tmp_path: Path, every: int, epochs: list[int]) -> None:
    train(tmp_path, SETTINGS.with_values({"evaluate_every": every}))
    assert [line["epoch"] for line in lines(tmp_path)] == epochs
    assert RunDir(tmp_path).checkpoints()[-1].name == "epoch_0005"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_names_its_clips_and_keeps_the_last_checkpoint(tmp_path: Path, value: float) -> None:
    examples = clips()
    settings = SETTINGS.with_values({"epochs": 3})

    def poison(line: dict[str, float]) -> None:
        if line["epoch"] == 2:
            examples[5].features[0, 0] = value

    model = toy()
    with pytest.raises(RunError, match=r"the loss is .* at epoch 3, step \d+ \(clips .*train\.optim\.lr") as error:
        train(tmp_path, settings, model, on_epoch=poison, examples=examples)
    assert "clip5" in str(error.value)
    assert all(torch.isfinite(p).all() for p in model.parameters()), "the step is not taken"
    assert RunDir(tmp_path).checkpoints()[-1].name == "epoch_0002"


def test_metrics_hold_what_people_plot(tmp_path: Path) -> None:
    told: list[dict[str, float]] = []
    train(tmp_path, on_epoch=told.append)
    assert [line["epoch"] for line in told] == [1, 2, 3, 4, 5]
    for line in told:
        assert {"train/loss", "train/grad_norm", "val/top1", "val/top5", "val/loss", "lr", "seconds", "clips_per_s"} <= line.keys()
        assert all(math.isfinite(value) for value in line.values())
    assert told[-1]["lr"] < told[1]["lr"]


# --- evaluation -------------------------------------------------------------------------------------------------------


class Rank(OneProcess):
    """One of several ranks that never meet: what it would send is kept."""

    def __init__(self, rank: int, world_size: int) -> None:
        super().__init__()
        self.rank, self.world_size = rank, world_size
        self.sent: list[Any] = []

    def gather(self, value: Any) -> list[Any]:
        self.sent.append(value)
        return [value]


@given(st.integers(1, 9), st.integers(1, 4), st.integers(1, 5))
def test_ranks_evaluate_every_clip_once_and_in_any_batches_alike(count: int, world: int, batch_size: int) -> None:
    model, examples = toy().train(), clips(count)
    alone = evaluate(model, TASK, examples, batch_size=batch_size)
    assert model.training, "the mode is put back"
    assert len(alone.predictions) == count
    ranks = [Rank(r, world) for r in range(world)]
    for rank in ranks:
        evaluate(model, TASK, examples, batch_size=batch_size, strategy=rank)
    rows = sorted((row for rank in ranks for row in rank.sent[0]), key=lambda row: row[0])
    assert [row[0] for row in rows] == list(range(count))
    assert [row[1].hypothesis for row in rows] == [p.hypothesis for p in alone.predictions]
    assert [row[2] for row in rows] == [e.sample.gloss for e in examples]
    assert math.fsum(row[3] for row in rows) / count == pytest.approx(alone.scores["loss"], rel=1e-4)
