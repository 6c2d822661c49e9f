"""Processes are really killed; the same command then finishes the work, nothing lost and nothing done twice."""

import json
import signal
from pathlib import Path

import psutil
import pytest

from sign_dist.training.run_dir import RunDir
from tests.ray.faults import finish, kill_driver, name_of, start, wait_for

pytestmark = pytest.mark.ray

# Enough that a run which has done a few of them is still in their midst when it is killed.
EPOCHS = 14
JOB = """
from sign_dist.config.data import Data, FrameFeatures
from sign_dist.config.model import VideoCnnModel
from sign_dist.config.run import Run, Scale
from sign_dist.config.train import Train

def run() -> Run:
    return Run(
        data=Data(root={root!r}, features=FrameFeatures(num_frames=8)),
        model=VideoCnnModel(),
        train=Train(epochs={epochs}, batch_size=8, keep_best=1),
        scale=Scale(workers={workers}),
    )
"""
SPACE = """
from ray import tune

def space():
    return {"train.optim.lr": tune.loguniform(1e-4, 1e-2)}
"""


def job_file(folder: Path, dataset: Path, *, epochs: int, workers: int = 1) -> Path:
    path = folder / "job.py"
    path.write_text(JOB.format(root=str(dataset), epochs=epochs, workers=workers))
    return path


def test_training_equals_the_undisturbed_run_after_a_worker_was_killed(dataset: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    job = job_file(tmp_path, dataset, epochs=EPOCHS, workers=2)
    disturbed, calm = RunDir(tmp_path / "disturbed"), RunDir(tmp_path / "calm")
    process = start("train", str(job), "--out", str(disturbed.root), log=log)
    wait_for(lambda: len(disturbed.metrics()) >= 3, process, log)
    workers = [c for c in psutil.Process(process.pid).children(recursive=True) if "TrainWorker" in name_of(c)]
    assert len(workers) == 2
    workers[1].kill()
    killed_at = len(disturbed.metrics())
    assert killed_at < EPOCHS
    assert process.wait(timeout=300) == 0, log.read_text()[-3000:]
    finish("train", str(job), "--out", str(calm.root), log=log)
    assert [m["epoch"] for m in disturbed.metrics()] == list(range(1, EPOCHS + 1))
    for mine, theirs in zip(disturbed.metrics(), calm.metrics(), strict=True):
        assert mine["train/loss"] == pytest.approx(theirs["train/loss"], abs=1e-6)
        assert mine["val/loss"] == pytest.approx(theirs["val/loss"], abs=1e-6)


def test_training_goes_on_after_its_driver_was_killed(dataset: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    job = job_file(tmp_path, dataset, epochs=EPOCHS)
    run_dir = RunDir(tmp_path / "r")
    words = ("train", str(job), "--out", str(run_dir.root))
    process = start(*words, log=log)
    wait_for(lambda: len(run_dir.checkpoints()) >= 1 and len(run_dir.metrics()) >= 4, process, log)
    kill_driver(process)
    reached = [m["epoch"] for m in run_dir.metrics()][-1]
    assert reached < EPOCHS
    finish(*words, log=log)
    assert [m["epoch"] for m in run_dir.metrics()] == list(range(1, EPOCHS + 1))
    assert run_dir.done_file.exists()


def test_a_study_goes_on_after_its_driver_was_killed(dataset: Path, tmp_path: Path) -> None:
    import optuna

    log = tmp_path / "log"
    job = job_file(tmp_path, dataset, epochs=6)
    space = tmp_path / "space.py"
    space.write_text(SPACE)
    root = tmp_path / "study"
    words = ("tune", str(job), str(space), "--trials", "5", "--out", str(root))
    process = start(*words, log=log)
    # Most trials are stopped early and never done: so many epochs, of two trials at least.
    wait_for(lambda: sum(len(RunDir(path.parent).metrics()) for path in root.glob("trial_*/run.json")) >= 7, process, log)
    kill_driver(process)
    done_before = {path: path.stat().st_mtime_ns for path in root.glob("trial_*/done.json")}
    finish(*words, log=log)
    facts = json.loads((root / "study.json").read_text())
    assert facts["finished"]
    assert len(facts["trials"]) == 5
    assert all(trial["value"] is not None for trial in facts["trials"])
    assert done_before.items() <= {path: path.stat().st_mtime_ns for path in root.glob("trial_*/done.json")}.items()
    stored = optuna.load_study(study_name="study", storage=f"sqlite:///{root / 'optuna.db'}")
    assert len([t for t in stored.trials if t.state.is_finished()]) == 5


def test_ctrl_c_is_one_line(dataset: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    job = job_file(tmp_path, dataset, epochs=200)
    process = start("train", str(job), "--out", str(tmp_path / "r"), log=log)
    wait_for(lambda: len(RunDir(tmp_path / "r").metrics()) >= 1, process, log)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert "the same command goes on" in log.read_text()
    assert "Traceback" not in log.read_text()
