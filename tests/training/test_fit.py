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
from sign_dist.errors import InterruptedRunError, RunError
from sign_dist.tasks.islr import Islr
from sign_dist.tasks.task import Example
from sign_dist.training.batches import Sampler, own_parts, parts_of
from sign_dist.training.checkpoint import LocalCheckpoints
from sign_dist.training.evaluate import evaluate
from sign_dist.training.loop import fit
from sign_dist.training.record import Record
from sign_dist.training.run_dir import RunDir, progress_of
from sign_dist.training.strategy import OneProcess

VOCAB = Vocab(("A", "B", "C"))
WIDTH = 6


class Norm(nn.BatchNorm1d):
    """Batch normalisation that a batch of one clip does not stop: it sees each clip twice, once smaller."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(torch.stack([input, 0.9 * input], dim=-1)).mean(dim=-1)


class Toy(nn.Module):
    """Mean over the clip, two layers, everything that can go wrong on resuming: dropout and running statistics."""

    def __init__(self, *, dropout: float = 0.3, norm: bool = True, squash: bool = True) -> None:
        super().__init__()
        bend = nn.Tanh if squash else nn.Identity
        self.body = nn.Sequential(nn.Linear(WIDTH, 8), Norm(8) if norm else nn.Identity(), bend())
        self.middle = nn.Sequential(nn.Linear(8, 8), bend(), nn.Dropout(dropout))
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
CLOCK = ("seconds", "clips_per_s", "step_ms", "data_wait_share")
"""What of metrics.jsonl a clock says."""
SETTINGS = Train(epochs=5, batch_size=4, optim=Optim(lr=0.02), keep_best=9)


def train(
    root: Path,
    settings: Train = SETTINGS,
    model: nn.Module | None = None,
    *,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    examples: list[Example] | None = None,
    task: Islr = TASK,
    notice: Callable[[], bool] | None = None,
) -> tuple[nn.Module, dict[str, float]]:
    model = model or toy()
    checkpoints = LocalCheckpoints(RunDir(root), task.monitor, keep=settings.keep_best)
    examples = examples or clips()
    metrics = fit(
        model,
        task,
        examples,
        clips(7, seed=1),
        settings,
        strategy=OneProcess(),
        checkpoints=checkpoints,
        on_epoch=on_epoch,
        notice=notice,
    )
    return model, metrics


def lines(root: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what a clock says."""
    found = [json.loads(line) for line in (root / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in CLOCK} for line in found]


def assert_same(one: nn.Module, two: nn.Module) -> None:
    for (name, a), b in zip(one.state_dict().items(), two.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


# --- who takes which clip ---------------------------------------------------------------------------------------------


@given(
    st.lists(st.integers(1, 90), min_size=1, max_size=60),
    st.integers(1, 12),
    st.integers(0, 5),
    st.integers(0, 5),
    st.integers(1, 4),
    st.sampled_from([0, 50, 200]),
)
def test_every_clip_is_in_one_step_of_an_epoch_and_no_step_is_larger_than_allowed(
    lengths: list[int], batch_size: int, seed: int, epoch: int, by_length: int, batch_frames: int
) -> None:
    sampler = Sampler(lengths, batch_size, seed, by_length, batch_frames)
    steps = sampler.steps(epoch)
    assert sorted(i for step in steps for i in step) == list(range(len(lengths)))
    assert steps == sampler.steps(epoch)
    assert len(steps) == sampler.num_steps(epoch)
    assert sampler.total_steps(3) == sum(len(sampler.steps(e)) for e in range(3))
    assert all(0 < len(step) <= batch_size for step in steps)
    if batch_frames:
        assert all(len(step) == 1 or len(step) * max(lengths[i] for i in step) <= batch_frames for step in steps)


def test_steps_by_length_waste_less_and_come_in_no_order_of_length() -> None:
    lengths = np.random.default_rng(0).integers(10, 200, 400).tolist()

    def padding(by_length: int) -> float:
        steps = Sampler(lengths, 8, by_length=by_length).steps(0)
        return 1 - sum(lengths) / sum(len(step) * max(lengths[i] for i in step) for step in steps)

    assert padding(16) < 0.1 < padding(4) < padding(1) > 0.3
    longest = [max(lengths[i] for i in step) for step in Sampler(lengths, 8, by_length=50).steps(0)]
    assert longest not in (sorted(longest), sorted(longest, reverse=True))


@given(st.integers(1, 20), st.integers(1, 9), st.integers(1, 9))
def test_every_part_has_one_owner_and_ranks_keep_pace(num_clips: int, parts: int, world: int) -> None:
    step = list(range(100, 100 + num_clips))
    cut = parts_of(step, parts)
    assert [i for part in cut for i in part] == step
    assert len(cut) == parts
    assert max(map(len, cut)) - min(map(len, cut)) <= 1
    owned = [own_parts(parts, rank=r, world_size=world) for r in range(world)]
    assert sorted(n for own in owned for n in own if n is not None) == list(range(parts))
    assert len({len(own) for own in owned}) == 1


@pytest.mark.long
def test_a_step_in_more_parts_trains_the_same_weights(tmp_path: Path) -> None:
    """Without dropout, which each part draws for itself."""
    one, _ = train(tmp_path / "1", model=toy(dropout=0, norm=False))
    for parts in (2, 4):
        settings = SETTINGS.with_values({"parts": parts})
        other, _ = train(tmp_path / str(parts), settings, toy(dropout=0, norm=False))
        for a, b in zip(one.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


# --- learning ---------------------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("extra", [{}, {"ema": 0.9}, {"parts": 2, "precision": "bf16"}])
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
    {"ema": 0.8, "parts": 2},
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
    assert {k: v for k, v in again.items() if k not in CLOCK} == {k: v for k, v in metrics.items() if k not in CLOCK}
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
    assert all(torch.equal(t, model.state_dict()[name]) for name, t in read_state(folder)[1].weights.items())
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
    settings = SETTINGS.with_values({"epochs": 3, "guard": "stop"})

    def poison(line: dict[str, float]) -> None:
        if line["epoch"] == 2:
            examples[5].features[0, 0] = value

    model = toy()
    with pytest.raises(RunError, match=r"the loss is .* at epoch 3, step \d+ \(clips .*train\.optim\.lr") as error:
        train(tmp_path, settings, model, on_epoch=poison, examples=examples)
    assert "clip5" in str(error.value)
    assert all(torch.isfinite(p).all() for p in model.parameters()), "the step is not taken"
    assert RunDir(tmp_path).checkpoints()[-1].name == "epoch_0002"


@pytest.mark.parametrize("guard", ["skip", "rollback"])
def test_a_step_that_is_no_number_is_left_out_and_training_goes_on(tmp_path: Path, guard: str) -> None:
    examples = clips()
    settings = SETTINGS.with_values({"epochs": 4, "guard": guard})

    def poison(line: dict[str, float]) -> None:
        examples[5].features[0, 0] = math.nan if line["epoch"] == 2 else 1.0

    model = toy(norm=False)  # statistics of a batch would keep what the forward pass has seen
    _, metrics = train(tmp_path, settings, model, on_epoch=poison, examples=examples)
    assert [line["train/skipped_steps"] for line in lines(tmp_path)] == [0, 0, 1, 0]
    assert metrics["epoch"] == 4
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert all(math.isfinite(line["train/loss"]) for line in lines(tmp_path))


def test_a_leap_of_the_loss_is_left_out_only_where_it_is_asked_for(tmp_path: Path) -> None:
    for spike, skipped in ((0.0, 0), (20.0, 1)):
        examples = clips()

        def poison(line: dict[str, float], examples: list[Example] = examples) -> None:
            examples[5].features[:] = 1e4 if line["epoch"] == 3 else 1.0

        settings = SETTINGS.with_values({"epochs": 4, "spike": spike})
        train(tmp_path / str(spike), settings, toy(norm=False, squash=False), on_epoch=poison, examples=examples)
        assert [line["train/skipped_steps"] for line in lines(tmp_path / str(spike))] == [0, 0, 0, skipped]


def test_steps_that_go_on_failing_end_the_run(tmp_path: Path) -> None:
    examples = clips()
    for example in examples:
        example.features[0, 0] = math.nan
    with pytest.raises(RunError, match=r"the loss is nan at epoch 1, step 3 \(clips "):
        train(tmp_path, SETTINGS.with_values({"max_skips": 2}), examples=examples)


@pytest.mark.long
@pytest.mark.parametrize(
    "variant",
    [{}, {"ema": 0.8, "parts": 2}, {"unfreeze.stages": 3, "by_length": 2}, {"lora.targets": "middle.0", "ema": 0.5}],
    ids=str,
)
@pytest.mark.parametrize("stop_at", [1, 2, 6, 11])
def test_a_run_that_is_stopped_inside_an_epoch_loses_a_step_at_most(tmp_path: Path, variant: dict[str, Any], stop_at: int) -> None:
    """A notice comes after some step: all is saved there, and the end is that of the undisturbed run, to the bit."""
    settings = SETTINGS.with_values(variant)
    whole, metrics = train(tmp_path / "whole", settings)
    asked = iter(range(100))
    root = tmp_path / "stopped"
    with pytest.raises(InterruptedRunError, match=f"step {stop_at} is saved"):
        train(root, settings, notice=lambda: next(asked) == stop_at - 1)
    assert progress_of(RunDir(root).checkpoints()[-1])["step"] == stop_at
    resumed, again = train(root, settings, toy(seed=99))
    assert_same(whole, resumed)
    assert lines(root) == lines(tmp_path / "whole")
    assert {k: v for k, v in again.items() if k not in CLOCK} == {k: v for k, v in metrics.items() if k not in CLOCK}


def test_checkpoints_come_between_evaluations_and_the_newest_stay(tmp_path: Path) -> None:
    made: list[str] = []

    class Watching(LocalCheckpoints):
        def report(self, metrics: Any, progress: Any, saved: Any) -> None:
            super().report(metrics, progress, saved)
            made.append(self.run_dir.checkpoints()[-1].name)

    settings = SETTINGS.with_values({"epochs": 2, "checkpoint_steps": 3, "keep_best": 1})
    fit(
        toy(),
        TASK,
        clips(),
        clips(7, seed=1),
        settings,
        strategy=OneProcess(),
        checkpoints=Watching(RunDir(tmp_path), TASK.monitor),
    )
    assert made == ["epoch_0000_step_000003", "epoch_0001", "epoch_0001_step_000002", "epoch_0002"]


def test_evaluations_by_steps_stop_and_choose_as_those_by_epochs(tmp_path: Path) -> None:
    train(tmp_path, SETTINGS.with_values({"epochs": 3, "evaluate_steps": 3}))
    assert [(line["step"], line["epoch"]) for line in lines(tmp_path)] == [(3, 0.75), (6, 1.5), (9, 2.25), (12, 3)]


def test_no_epochs_evaluate_and_save_the_model_as_it_is(tmp_path: Path) -> None:
    model = toy()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    for _ in range(2):
        trained, metrics = train(tmp_path, SETTINGS.with_values({"epochs": 0}), model)
        assert metrics["epoch"] == 0
        assert "val/top1" in metrics
        assert all(torch.equal(t, before[name]) for name, t in trained.state_dict().items())
        assert [p.name for p in RunDir(tmp_path).checkpoints()] == ["epoch_0000"]


@pytest.mark.long
def test_a_damaged_checkpoint_is_passed_by(tmp_path: Path) -> None:
    whole, _ = train(tmp_path / "whole")
    for damage in ("torn", "flipped", "missing"):
        root = tmp_path / damage
        train(root, SETTINGS)
        last = RunDir(root).checkpoints()[-1] / "optimizer.safetensors"
        content = bytearray(last.read_bytes())
        if damage == "missing":
            last.unlink()
        elif damage == "torn":
            last.write_bytes(content[:-7])
        else:
            content[-5] ^= 1
            last.write_bytes(content)
        resumed, _ = train(root, SETTINGS, toy(seed=99))
        assert_same(whole, resumed)


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
