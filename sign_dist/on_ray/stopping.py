"""Who ends a trial before its last epoch, and why: the schedulers of Tune, told apart by name, and the budget of a study.

A decision is noted in the trial's own directory before Tune acts on it, so that the study can say what was stopped and why.
"""

import copy
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, MedianStoppingRule, PopulationBasedTraining, TrialScheduler

from sign_dist.config.search import Search
from sign_dist.errors import SettingsError
from sign_dist.study.layout import StudyDir
from sign_dist.study.rows import note

# What a trial reports: how far it is, in epochs or rungs, and its score, larger for better.
TIME, SCORE = "time", "score"

Curve = Sequence[tuple[float, float]]
"""(time, score) of each report of a trial, as the scheduler saw it."""


@dataclasses.dataclass
class Budget:
    """Time that a study may take; what earlier starts took is counted."""

    hours: float
    gpu_hours: float
    gpus_per_trial: float
    spent_s: float = 0.0
    trial_s: float = 0.0
    """Seconds of all trials that have ended."""
    started: float = dataclasses.field(default_factory=time.monotonic)
    running: dict[str, float] = dataclasses.field(default_factory=dict[str, float])
    """Seconds of each trial that runs."""

    @property
    def seconds(self) -> float:
        return self.spent_s + time.monotonic() - self.started

    @property
    def gpu_hours_spent(self) -> float:
        return (self.trial_s + sum(self.running.values())) * self.gpus_per_trial / 3600

    def over(self) -> str:
        """Why nothing may go on; empty while there is time."""
        if self.hours and self.seconds >= self.hours * 3600:
            return f"the study's {self.hours:g} hours are spent"
        if self.gpu_hours and self.gpu_hours_spent >= self.gpu_hours:
            return f"the study's {self.gpu_hours:g} GPU-hours are spent"
        return ""

    def ran(self, trial_id: str, seconds: float) -> None:
        self.running[trial_id] = seconds


class StopsTrials(Protocol):
    """What a way to run trials offers to whoever stops them."""

    def stop(self, trial: Path) -> bool:
        """Ask the trial's own processes to end; False if Tune shall end it."""
        ...


class _Noted:
    """Beside a scheduler of Tune: the budget, and a note of each decision."""

    study: StudyDir
    budget: Budget
    why: Callable[[Mapping[str, Any]], str]
    stops: StopsTrials
    last: float
    """Time of a trial's last report but one."""
    asked: set[str]
    """Trials whose own processes were asked to end."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        number = trial.config["id"]
        self.budget.ran(number, float(result.get("seconds", 0.0)))
        if result.get("ended") or number in self.asked:
            return TrialScheduler.CONTINUE  # the trial's last words, or it is about to stop: it ends by itself
        reason = self.budget.over()
        decision = TrialScheduler.STOP if reason else super().on_trial_result(tune_controller, trial, result)  # type: ignore[misc]
        if decision == TrialScheduler.STOP and not reason and result[TIME] >= self.last:
            return TrialScheduler.CONTINUE  # nothing is saved any more
        if decision != TrialScheduler.STOP:
            return decision
        trial_dir = self.study.trial(number)
        note(trial_dir, state="stopped", reason=reason or self.why(result))
        if not self.stops.stop(trial_dir.root):
            return TrialScheduler.STOP
        self.asked.add(number)
        return TrialScheduler.CONTINUE


class _Asha(_Noted, ASHAScheduler):
    pass


class _Median(_Noted, MedianStoppingRule):
    def _on_insufficient_samples(self, tune_controller: Any, trial: Any, time: float) -> str:
        """Tune's own pauses trials so that others begin; ours are as many as there is room for."""
        return TrialScheduler.CONTINUE


class _Fifo(_Noted, FIFOScheduler):
    pass


class _Pbt(_Noted, PopulationBasedTraining):
    """The trial that takes over another's weights and settings keeps its own name."""

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Tune's own wants no searcher beside it, lest two decide; here Optuna only gives the first settings."""
        nobody: Any = SimpleNamespace(search_alg=None)
        super().on_trial_add(nobody, trial)

    def _get_new_config(self, trial: Any, trial_to_clone: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        config, operations = super()._get_new_config(trial, trial_to_clone)
        return {**copy.deepcopy(config), "id": trial.config["id"]}, operations


def scheduler_of(search: Search, *, epochs: int, space: Any, study: StudyDir, budget: Budget, stops: StopsTrials) -> TrialScheduler:
    """The scheduler that the settings name.

    Raises:
        SettingsError: population-based training of a space that is no dict of distributions.
    """
    rungs = len(search.rungs())
    full = search.reduction ** (rungs - 1) if rungs > 1 else epochs
    grace = 1 if rungs > 1 else search.grace or max(1, epochs // 8)
    common: dict[str, Any] = {"time_attr": TIME, "metric": SCORE, "mode": "max"}
    found: Any
    match search.stops_by:
        case "asha":
            # One more than there are: the last report must return, so that the trial ends by itself and is marked done.
            found = _Asha(**common, max_t=full + 1, grace_period=min(grace, full), reduction_factor=search.reduction)
            text = f"not among the best of {search.reduction} at that point"
        case "median":
            found = _Median(**common, grace_period=grace)
            text = "below the median of the trials that came so far"
        case "pbt":
            found = _Pbt(
                **common,
                perturbation_interval=grace,
                hyperparam_mutations={"values": mutations_of(space)},
                require_attrs=False,
            )
            text = "its place was taken"
        case "none":
            found, text = _Fifo(), ""
    unit = "rung" if rungs > 1 else "epoch"
    found.study, found.budget, found.stops, found.last, found.asked = study, budget, stops, full, set()
    found.why = lambda result: f"{search.stops_by}: {text}, {unit} {_at(result, search, rungs):g}"
    return found


def mutations_of(space: Any) -> dict[str, Any]:
    """What population-based training may change: every distribution of a space."""
    if callable(space):
        raise SettingsError("search.scheduler = 'pbt' needs a space that is a dict of distributions, this one asks trial by trial")
    return {name: domain for name, domain in space.items() if hasattr(domain, "sample")}


@dataclasses.dataclass(frozen=True)
class _Past:
    """As much of a trial as schedulers look at."""

    trial_id: str


def replay(scheduler: Any, curves: Mapping[str, Curve]) -> None:
    """Tell a scheduler what trials of an earlier start reported, so that new ones are compared with them.

    Only halving and the rule of the median remember trials that have ended.
    """
    if not isinstance(scheduler, _Asha | _Median):
        return
    by_median = isinstance(scheduler, _Median)
    kind: Any = MedianStoppingRule if by_median else ASHAScheduler
    for trial_id, curve in curves.items():
        past, best = _Past(f"past_{trial_id}"), float("-inf")
        kind.on_trial_add(scheduler, None, past)
        for at, score in curve:
            best = max(best, score)
            if by_median:
                scheduler._results[past].append({TIME: at, SCORE: best})
            else:
                kind.on_trial_result(scheduler, None, past, {TIME: at, SCORE: best})


def _at(result: Mapping[str, Any], search: Search, rungs: int) -> float:
    time_ = float(result[TIME])
    if rungs == 1:
        return time_
    return next(i + 1 for i in range(rungs) if search.reduction**i >= time_)
