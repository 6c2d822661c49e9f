"""Checkpoints, run directories and records: whole or not at all, the best and the newest, and never another run's."""

import dataclasses
import json
import math
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sign_dist.config.data import Data
from sign_dist.config.run import Run
from sign_dist.errors import RunError
from sign_dist.tasks.task import Monitor
from sign_dist.training import checkpoint as module
from sign_dist.training.checkpoint import (
    LocalCheckpoints,
    Progress,
    Saved,
    rank_of,
    read_average,
    read_state,
    read_weights,
    write_checkpoint,
)
from sign_dist.training.record import Record, environment, write_environment
from sign_dist.training.run_dir import RunDir, progress_of
from sign_dist.training.strategy import State

HIGH, LOW = Monitor("val/top1", "max"), Monitor("val/loss", "min")
RUN = Run(data=Data(root="data/x"))


def progress(epoch: int, value: float = 0.5) -> Progress:
    metrics = {"epoch": epoch, "step": epoch * 3, "val/top1": value, "val/loss": value}
    return Progress(epoch, epoch * 3, metrics, value, 0)


def saved(value: float = 0.0, same: bool = True) -> Saved:
    weights = {"a": torch.arange(3.0) + value}
    moments = {"a": {"exp_avg": torch.ones(3), "step": torch.tensor(3.0)}}
    return Saved(weights if same else {"a": torch.zeros(3)}, State(weights, moments), same)


def write(folder: Path, epoch: int = 1, value: float = 0.5, monitor: Monitor = HIGH) -> None:
    write_checkpoint(folder, progress(epoch, value), saved(), monitor)


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "epoch_0001"
    write(folder)
    found, state = read_state(folder)
    assert found == progress(1)
    assert torch.equal(state.weights["a"], torch.arange(3.0))
    assert torch.equal(state.moments["a"]["exp_avg"], torch.ones(3))
    assert state.moments["a"]["step"] == 3
    assert torch.equal(read_weights(folder)["a"], torch.arange(3.0))
    assert progress_of(folder)["epoch"] == 1
    write(folder, value=0.75)  # trained again
    assert read_state(folder)[0].best == 0.75
    assert [p.name for p in tmp_path.iterdir()] == ["epoch_0001"]


@given(
    st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, math.nan]), min_size=1, max_size=8),
    st.integers(1, 3),
    st.sampled_from([HIGH, LOW]),
)
def test_the_best_and_the_newest_are_kept(
    tmp_path_factory: pytest.TempPathFactory, values: list[float], keep: int, monitor: Monitor
) -> None:
    run_dir = RunDir(tmp_path_factory.mktemp("run"))
    run_dir.claim(RUN)
    checkpoints = LocalCheckpoints(run_dir, monitor, keep=keep)
    checkpoints._record = Quiet()  # pyright: ignore[reportAttributeAccessIssue]
    assert checkpoints.latest() is None
    for epoch, value in enumerate(values, start=1):
        checkpoints.report({}, progress(epoch, value), saved())
        assert checkpoints.latest() == run_dir.checkpoint(epoch)
    sign = 1 if monitor.mode == "max" else -1
    order = sorted(range(1, len(values) + 1), key=lambda e: (not math.isnan(v := values[e - 1]), sign * v if v == v else 0, e))
    expected = {*order[-keep:], *range(max(1, len(values) - 1), len(values) + 1)}
    assert {progress_of(p)["epoch"] for p in run_dir.checkpoints()} == expected
    assert run_dir.chosen() == run_dir.checkpoint(order[-1])


class Quiet:
    def append(self, metrics: dict[str, float]) -> None: ...


def test_select_last_stands_for_the_newest(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    run_dir.claim(RUN.with_values({"train.select": "last"}))
    for epoch, value in enumerate([0.9, 0.1], start=1):
        write(run_dir.checkpoint(epoch), epoch, value)
    assert run_dir.chosen() == run_dir.checkpoint(2)


def test_ranks_are_larger_for_better() -> None:
    assert rank_of(progress(1, 0.6), HIGH) > rank_of(progress(2, 0.5), HIGH)
    assert rank_of(progress(1, 0.5), LOW) > rank_of(progress(2, 0.6), LOW)
    for monitor in (HIGH, LOW):
        assert rank_of(progress(2, 0.5), monitor) > rank_of(progress(1, 0.5), monitor)
        assert rank_of(progress(9, math.nan), monitor) < rank_of(progress(1, 0.5), monitor)
    assert rank_of(dataclasses.replace(progress(1), metrics={}), HIGH) < rank_of(progress(1, 0.0), HIGH)


def test_torn_folders_are_no_checkpoints(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    write(run_dir.checkpoint(3), 3)
    shutil.copytree(run_dir.checkpoint(3), tmp_path / ".epoch_0004")
    shutil.copytree(run_dir.checkpoint(3), run_dir.checkpoint(5))
    (run_dir.checkpoint(5) / "progress.json").unlink()
    run_dir.checkpoint(6).mkdir()
    assert run_dir.checkpoints() == [run_dir.checkpoint(3)]
    write(run_dir.checkpoint(4), 4)
    assert run_dir.checkpoints() == [run_dir.checkpoint(3), run_dir.checkpoint(4)]
    write(run_dir.checkpoint(9999), 9999)
    write(run_dir.checkpoint(10000), 10000)
    assert run_dir.checkpoints()[-1] == run_dir.checkpoint(10000)


@pytest.mark.parametrize("where", ["save_file", "write_json", "rename"])
@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_fails_anywhere_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, fault: BaseException
) -> None:
    run_dir = RunDir(tmp_path)
    write(run_dir.checkpoint(1), 1)

    def fails(*_: object, **__: object) -> None:
        raise fault

    target, name = {
        "save_file": (module, "save_file"),
        "write_json": (module, "write_json"),
        "rename": (Path, "rename"),
    }[where]
    monkeypatch.setattr(target, name, fails)
    with pytest.raises(type(fault)):
        write(run_dir.checkpoint(2), 2)
    monkeypatch.undo()
    assert run_dir.checkpoints() == [run_dir.checkpoint(1)]
    write(run_dir.checkpoint(2), 2)
    assert read_state(run_dir.checkpoint(2))[0].epoch == 2


def test_half_removed_checkpoints_do_not_look_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = LocalCheckpoints(RunDir(tmp_path), HIGH, keep=1)
    checkpoints._record = Quiet()  # pyright: ignore[reportAttributeAccessIssue]

    def report(epoch: int, value: float) -> None:
        checkpoints.report({}, progress(epoch, value), saved())

    report(1, 0.5)
    report(2, 0.6)

    def fails(path: Path, **_: object) -> None:
        if path.name == "epoch_0001":
            (path / "optimizer.safetensors").unlink()
            raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", fails)
    with pytest.raises(KeyboardInterrupt):
        report(3, 0.7)
    monkeypatch.undo()
    assert [p.name for p in RunDir(tmp_path).checkpoints()] == ["epoch_0002", "epoch_0003"]


@pytest.mark.parametrize("name", ["optimizer.safetensors", "model.safetensors", "weights.safetensors", "progress.json"])
def test_damage_is_told_with_the_folder_and_nothing_else_is_raised(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "epoch_0001"
    write_checkpoint(folder, progress(1), saved(same=False), HIGH)
    whole, rng = (folder / name).read_bytes(), random.Random(0)
    told: list[str] = []
    for i in range(40):
        content = bytearray(whole)
        if i % 2:
            del content[rng.randrange(len(content)) :]
        else:
            for _ in range(8):
                content[rng.randrange(len(content))] = rng.randrange(256)
        (folder / name).write_bytes(bytes(content))
        told += damage(folder)
    assert len(told) >= 20
    assert all("epoch_0001" in text and "\n" not in text for text in told)
    (folder / name).unlink()
    assert damage(folder)


def damage(folder: Path) -> list[str]:
    """What reading a checkpoint complains of."""
    try:
        read_state(folder)
        read_weights(folder)
    except RunError as error:
        return [str(error)]
    return []


def test_weights_that_train_are_kept_beside_those_that_are_evaluated(tmp_path: Path) -> None:
    folder = tmp_path / "epoch_0001"
    write_checkpoint(folder, progress(1), saved(same=False), HIGH)
    assert torch.equal(read_state(folder)[1].weights["a"], torch.arange(3.0))
    assert torch.equal(read_weights(folder)["a"], torch.zeros(3))
    assert torch.equal(read_average(folder)["a"], torch.zeros(3))
    write_checkpoint(folder, progress(1), dataclasses.replace(saved(same=False), average={"a": torch.ones(3)}), HIGH)
    assert torch.equal(read_average(folder)["a"], torch.ones(3))


def test_tied_weights_are_written_and_read(tmp_path: Path) -> None:
    one = torch.arange(4.0)
    weights = {"a": one, "b": one}
    write_checkpoint(tmp_path / "epoch_0001", progress(1), Saved(weights, State(weights, {}), same=True), HIGH)
    assert torch.equal(read_weights(tmp_path / "epoch_0001")["b"], one)


def test_one_that_was_not_evaluated_is_gone_on_from_but_never_chosen(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    for select in ("best", "last"):
        shutil.rmtree(tmp_path)
        run_dir.claim(RUN.with_values({"train.select": select}))
        write(run_dir.checkpoint(1), 1)
        between = dataclasses.replace(progress(1), done_steps=2, step=5)
        write_checkpoint(run_dir.checkpoint(1, 2), between, saved(), HIGH, evaluated=False)
        assert LocalCheckpoints(run_dir, HIGH).latest() == run_dir.checkpoint(1, 2)
        assert run_dir.chosen() == run_dir.checkpoint(1)


# --- run directories --------------------------------------------------------------------------------------------------


def test_a_directory_belongs_to_one_run(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path / "deep" / "run")
    assert run_dir.claim(RUN) is False
    assert run_dir.claim(RUN) is True
    assert run_dir.claim(RUN.with_values({"scale.workers": 2, "scale.device": "cpu"})) is True
    assert run_dir.run() == RUN
    other = RUN.with_values({"train.epochs": 3, "train.optim.lr": 0.5, "scale.workers": 2})
    with pytest.raises(RunError, match=r"train\.epochs: 60 -> 3, train\.optim\.lr: .* -> 0\.5\): choose another --out") as error:
        run_dir.claim(other)
    assert "workers" not in str(error.value)
    switched = RUN.with_values({"model.kind": "feature", "data.features.kind": "signhiera"})
    with pytest.raises(RunError, match=r"data\.features\.kind: 'landmarks' -> 'signhiera'"):
        run_dir.claim(switched)
    assert run_dir.run() == RUN


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    with pytest.raises(RunError, match=r"no run\.json.*sign-dist train"):
        run_dir.run()
    assert run_dir.metrics() == []
    assert run_dir.checkpoints() == []
    run_dir.claim(RUN)
    with pytest.raises(RunError, match="no checkpoint yet"):
        run_dir.chosen()


@pytest.mark.parametrize("content", ["", "{", "[]", "\x00"])
def test_damaged_records_are_run_errors(tmp_path: Path, content: str) -> None:
    run_dir = RunDir(tmp_path)
    run_dir.claim(RUN)
    write(run_dir.checkpoint(1))
    (run_dir.checkpoint(1) / "progress.json").write_text(content)
    with pytest.raises(RunError, match=r"progress\.json"):
        progress_of(run_dir.checkpoint(1))
    run_dir.run_file.write_text(content)
    with pytest.raises(RunError, match=r"run\.json"):
        run_dir.run()
    run_dir.metrics_file.write_text('{"epoch": 1}\n{"epo')
    with pytest.raises(RunError, match=r"metrics\.jsonl"):
        run_dir.metrics()


def test_paths_lie_inside_the_directory(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    paths = [
        run_dir.eval("test"),
        run_dir.bundle,
        run_dir.done_file,
        run_dir.curves_file,
        run_dir.tensorboard,
        run_dir.checkpoint(7),
    ]
    assert all(path.is_relative_to(tmp_path) for path in paths)
    assert run_dir.checkpoint(7).name == "epoch_0007"


# --- records ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Record:
    monkeypatch.setattr(Record, "_tensorboard", lambda *_: None)
    return Record(RunDir(tmp_path / "run"))


def test_an_epoch_that_is_trained_again_replaces_its_line_and_those_after_it(record: Record) -> None:
    for epoch in (1, 2, 3, 4):
        record.append({"epoch": epoch, "step": epoch, "lr": 0.1})
    record.append({"epoch": 3, "step": 3, "lr": 0.5})
    assert [(m["epoch"], m["lr"]) for m in record.run_dir.metrics()] == [(1, 0.1), (2, 0.1), (3, 0.5)]
    record.append({"epoch": 4, "step": 4, "lr": 0.1})
    assert [m["epoch"] for m in record.run_dir.metrics()] == [1, 2, 3, 4]


@given(st.floats(), st.floats(min_value=1e-12, max_value=1e12))
def test_numbers_keep_six_digits_and_no_number_becomes_null(anything: float, value: float) -> None:
    from sign_dist.training.record import _plain

    assert _plain(value) == pytest.approx(value, rel=1e-5)
    json.dumps(_plain(anything), allow_nan=False)
    assert (_plain(anything) is None) == (not math.isfinite(anything))
    assert _plain(np.float32(value)) == pytest.approx(value, rel=1e-5)
    assert _plain(torch.tensor(2.0)) == 2.0
    assert _plain(7) == 7


def test_a_reader_never_sees_half_a_line(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    record.append({"epoch": 1, "step": 1})
    before = record.run_dir.metrics_file.read_bytes()

    def full(self: Path, *_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        record.append({"epoch": 2, "step": 2})
    monkeypatch.undo()
    assert record.run_dir.metrics_file.read_bytes() == before


def test_tensorboard_holds_the_curves(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    record = Record(run_dir)
    for epoch in (1, 2):
        record.append({"epoch": epoch, "step": epoch, "val/top1": 0.5, "train/loss": math.nan})
    record.close()
    record.close()
    (events,) = run_dir.tensorboard.glob("events*")
    content = events.read_bytes()
    assert b"val/top1" in content
    assert b"train/loss" not in content


def test_the_environment_is_recorded(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    write_environment(run_dir, {"dataset": "ab"})
    found = json.loads(run_dir.environment_file.read_text())
    assert found == {**json.loads(json.dumps(environment())), "dataset": "ab"}
    assert found["packages"]["torch"] == torch.__version__.split("+")[0] or found["packages"]["torch"] == torch.__version__
