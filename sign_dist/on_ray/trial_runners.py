"""What a trial does, and two ways to train it: inside the trial's own process, or with workers of Ray Train that it starts.

Inside: one device; starts in a second where the process of an earlier trial is taken over, and a stopped one leaves nothing
behind. With workers: any number; each trial costs the sixteen seconds that a TorchTrainer takes to start.
"""

import dataclasses
import gc
import json
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from ray import tune
from ray.util.state import list_placement_groups
from ray.util.state.exception import RayStateApiException

from sign_dist.config.run import Run
from sign_dist.config.search import Search
from sign_dist.data.layout import write_json
from sign_dist.errors import ServiceError, SettingsError
from sign_dist.on_ray.cluster import num_cpus, num_gpus
from sign_dist.on_ray.search import OBJECTIVE
from sign_dist.on_ray.training import OnEpoch, begin, facts_of, finish, fit_run, train
from sign_dist.study.layout import StudyDir
from sign_dist.study.objectives import direction, measure
from sign_dist.study.rows import note, noted, score
from sign_dist.tasks.build import monitor_of
from sign_dist.training.prefix import where_still
from sign_dist.training.record import write_environment
from sign_dist.training.run_dir import RunDir, progress_of
from sign_dist.training.strategy import OneProcess

# What a trial's own process takes where others do its work: Tune wants some of a CPU named.
SLIVER = 0.01
_ORIGIN = "trial.txt"


class TrialRunner(Protocol):
    """A way to train one trial."""

    def check(self, run: Run) -> None:
        """Whether trials of this run can be trained this way here. Raises: ServiceError, SettingsError."""
        ...

    def needs(self, run: Run) -> dict[str, float]:
        """What a trial's own process takes of the cluster."""
        ...

    def at_once(self, run: Run) -> int:
        """Trials that the cluster has room for."""
        ...

    def train(self, run: Run, root: Path, on_epoch: OnEpoch) -> bool:
        """Train into a run directory, or go on there; False if it was asked to stop."""
        ...

    def stop(self, trial: Path) -> bool:
        """Ask the trial's own processes to end; False if Tune shall end it."""
        ...


@dataclasses.dataclass(frozen=True)
class Inside:
    """One device, in the trial's own process, which ends where it reports: nothing is killed."""

    def check(self, run: Run) -> None:
        if run.scale.workers > 1:
            raise SettingsError(f"search.runner = 'inside' trains with one worker, got scale.workers = {run.scale.workers}")

    def needs(self, run: Run) -> dict[str, float]:
        return {"cpu": 1.0, "gpu": 1.0 if num_gpus() and run.scale.device != "cpu" else 0.0}

    def at_once(self, run: Run) -> int:
        return max(1, num_gpus() if self.needs(run)["gpu"] else num_cpus())

    def train(self, run: Run, root: Path, on_epoch: OnEpoch) -> bool:
        run_dir, run, clips = begin(run, root)
        if run_dir.done_file.exists():
            return True
        write_environment(run_dir, facts_of(run, *clips))
        torch.set_num_threads(1)
        on_gpu = torch.cuda.is_available() and run.scale.device != "cpu"
        try:
            fit_run(run, run_dir, OneProcess("cuda" if on_gpu else "cpu"), on_epoch=on_epoch)
        finally:
            gc.collect()  # the next trial may live in this process
            torch.cuda.empty_cache()
        finish(run_dir)
        return True

    def stop(self, trial: Path) -> bool:
        return False


@dataclasses.dataclass(frozen=True)
class Workers:
    """A TorchTrainer of the trial's own, as `scale.*` says.

    Whoever stops a trial asks its workers by a file to end after their step, so that Ray Train tidies up as after any training.
    Where a trial's process dies, its workers' place is given back by a process that asks the dashboard what is still held.
    """

    def check(self, run: Run) -> None:
        try:
            list_placement_groups(limit=1, timeout=10)
        except (RayStateApiException, ConnectionError, OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:100]
            raise ServiceError(
                f"trials with scale.workers = {run.scale.workers} need Ray's dashboard, without which a trial that dies keeps its "
                f"CPUs for ever, and it does not answer ({reason}): start Ray with --include-dashboard=true, or set scale.workers=1"
            ) from None
        if self._room(run) < 1:
            raise ServiceError(
                f"a trial of scale.workers = {run.scale.workers} takes {self._cpus(run):g} CPUs, the cluster has {num_cpus()}: "
                "ask for fewer workers, or connect to a larger cluster with --address"
            )

    def needs(self, run: Run) -> dict[str, float]:
        return {"cpu": SLIVER}

    def at_once(self, run: Run) -> int:
        return max(1, self._room(run))

    def _room(self, run: Run) -> int:
        room = math.floor(num_cpus() / self._cpus(run))
        on_gpus = run.scale.device == "gpu" or (run.scale.device == "auto" and num_gpus() >= run.scale.workers)
        return min(room, num_gpus() // run.scale.workers) if on_gpus else room

    def _cpus(self, run: Run) -> float:
        return run.scale.workers * run.scale.cpus_per_worker + SLIVER

    def train(self, run: Run, root: Path, on_epoch: OnEpoch) -> bool:
        run_dir = RunDir(root)
        run_dir.stop_file.unlink(missing_ok=True)
        train(run, root, on_epoch=on_epoch)
        return run_dir.done_file.exists()

    def stop(self, trial: Path) -> bool:
        RunDir(trial).stop_file.touch()
        return True


def run_trial(config: Mapping[str, Any], *, run: Run, root: str, search: Search, runner: TrialRunner) -> None:
    """One trial, as Tune calls it: train rung by rung, report, and say at last what the trial reached."""
    trial = StudyDir(Path(root)).trial(str(config["id"]))
    full = where_still(run.with_values(config["values"]))
    if search.stops_by == "pbt":
        take_over(trial, full)
    rungs = search.rungs()
    clock = _Clock(trial, before=float(noted(trial).get("seconds", 0.0)))
    told = scores_of(full, search)
    reached: list[float] = []
    if len(rungs) > 1:
        begin(full, trial.root)  # the trial is the full run, whether or not it comes so far
    for i, values in enumerate(rungs):
        is_last = i == len(rungs) - 1
        folder = RunDir(trial.root if is_last else trial.root / f"rung_{i + 1}")
        reached = [told(line) for line in folder.metrics()]  # of an earlier start

        def heard(line: dict[str, float], reached: list[float] = reached) -> None:
            reached.append(told(line))
            seconds = clock.note()
            if len(rungs) == 1:
                facts = {"time": line["epoch"], "step": line["step"], "score": max(reached), "seconds": seconds, "ended": False}
                handed_on = _handed_on(trial, search)
                try:
                    tune.report(facts, checkpoint=handed_on)
                finally:  # a stopped trial does not come back from its report
                    if handed_on is not None:
                        shutil.rmtree(handed_on.path, ignore_errors=True)

        if not runner.train(full.with_values(values), folder.root, heard):
            return
        reached = reached or [told(line) for line in folder.metrics()]
        if not is_last:
            at = search.reduction**i
            tune.report({"time": at, "step": at, "score": max(reached), "seconds": clock.note(), "ended": False})
    names = search.names()
    objectives = measure(trial, names) if names else {}
    note(trial, state="finished", reason="", objectives=objectives)
    last = trial.metrics()[-1]
    at = search.reduction ** (len(rungs) - 1) if len(rungs) > 1 else last["epoch"]
    ended = {"time": at, "step": last["step"], "score": max(reached), "seconds": clock.note(), "ended": True}
    tune.report({**ended, **{OBJECTIVE + name: value for name, value in objectives.items()}})


def scores_of(run: Run, search: Search) -> Callable[[Mapping[str, Any]], float]:
    """A line of metrics -> its score, larger for better: of the one objective, or of the task's monitor.

    What Tune hears is the best so far: a trial that is stopped early then stands for what it reached, not for where it was.
    """
    names = search.names()
    if len(names) == 1 and names[0].startswith("val/"):
        sign = 1.0 if direction(names[0]) == "max" else -1.0
        return lambda line: sign * float(line[names[0]])
    monitor = monitor_of(run)
    return lambda line: score(line, monitor.name, monitor.mode)


def take_over(trial: RunDir, run: Run) -> None:
    """Where population-based training lets this trial go on from another's weights with changed settings: put them here."""
    given = tune.get_checkpoint()
    if given is None:
        return
    with given.as_directory() as folder:
        origin = (Path(folder) / _ORIGIN).read_text(encoding="utf-8")
        if origin == trial.root.name:
            return
        newest = RunDir(Path(folder)).checkpoints()[-1]
        for own in trial.checkpoints():
            shutil.rmtree(own)
        shutil.copytree(newest, trial.root / newest.name)
    line = progress_of(trial.root / newest.name)["metrics"]
    lines = [*(own for own in trial.metrics() if own["step"] < line["step"]), line]  # its past up to there, then the other's
    trial.metrics_file.write_text("".join(json.dumps(each) + "\n" for each in lines), encoding="utf-8")
    write_json(trial.run_file, begun_as(run).model_dump(mode="json"))
    note(trial, settings=changed(noted(trial).get("settings", {}), run), reason=f"went on from {origin}, {newest.name}")


def begun_as(run: Run) -> Run:
    """The run as its directory has it."""
    return run.with_values({"data.root": str(Path(run.data.root).absolute())})


def changed(settings: Mapping[str, Any], run: Run) -> dict[str, Any]:
    """The settings that a trial was given, with the values of a run."""
    flat = run.flat()
    return {name: flat[name] for name in settings if name in flat}


def _handed_on(trial: RunDir, search: Search) -> Any:
    """What others may go on from: the newest checkpoint, with the name of whose it is; only where they may."""
    if search.stops_by != "pbt" or not trial.checkpoints():
        return None
    newest = trial.checkpoints()[-1]
    folder = Path(tempfile.mkdtemp(prefix="sign_dist_pbt_"))
    shutil.copytree(newest, folder / newest.name)
    (folder / _ORIGIN).write_text(trial.root.name, encoding="utf-8")
    return tune.Checkpoint.from_directory(str(folder))


@dataclasses.dataclass
class _Clock:
    """Seconds that a trial held its device, over all its starts."""

    trial: RunDir
    before: float
    started: float = dataclasses.field(default_factory=time.monotonic)

    def note(self) -> float:
        """Write them down before Tune hears of it: a trial that is stopped does not come back from its report."""
        seconds = self.before + time.monotonic() - self.started
        note(self.trial, seconds=seconds)
        return seconds
