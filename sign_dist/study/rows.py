"""A trial as one row: what it tried, how it ended and why, what it reached and what that took.

Most of it stands in the trial's run directory. What a run cannot know of itself, that it was one of many, stands beside it in
`trial.json`: its number, the settings that were proposed, why it was stopped, what was measured of it when it had ended.
"""

import dataclasses
import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from sign_dist.data.layout import write_json
from sign_dist.errors import RunError
from sign_dist.study.layout import StudyDir
from sign_dist.study.objectives import direction
from sign_dist.tasks.build import monitor_of
from sign_dist.tasks.task import Monitor
from sign_dist.training.run_dir import RunDir

State = Literal["finished", "stopped", "failed", "running"]


@dataclasses.dataclass(frozen=True)
class TrialRow:
    """One trial.

    `value` is its best monitor and `score` the same, larger for better (see `score`): None without one evaluation.
    `seconds` is the wall time that it held its device, summed over attempts; `curve` is (epoch, monitor) per evaluation.
    """

    id: str
    number: int
    state: State
    reason: str
    value: float | None
    score: float | None
    best_epoch: float | None
    epochs: int
    seconds: float
    settings: dict[str, Any]
    objectives: dict[str, float]
    curve: list[tuple[float, float]]

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "TrialRow":
        """A row of study.json.

        Raises:
            RunError: it lacks something, as those of another version may.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        missing = sorted(names - row.keys())
        if missing:
            raise RunError(f"a trial of the study has no {', '.join(missing)}: it was made by another version; search anew")
        values: dict[str, Any] = {name: row[name] for name in names}
        values["curve"] = [(epoch, value) for epoch, value in row["curve"]]
        return cls(**values)


def score(metrics: Mapping[str, Any], name: str, mode: str) -> float:
    """The monitor, larger for better; the validation loss decides between equal ones, as it does not between others."""
    value = metrics[name] if mode == "max" else -metrics[name]
    return float(value) - 1e-4 * min(float(metrics["val/loss"]), 100.0)


def note(trial: RunDir, **facts: Any) -> None:
    """Remember of a trial what its run does not say: `number`, `state`, `reason`, `seconds`, `settings`, `objectives`.

    What was noted before stays, unless it is named again.

    Raises:
        ValueError: a fact that no row has.
    """
    known = {field.name for field in dataclasses.fields(TrialRow)}
    if not facts.keys() <= known or facts.get("state", "running") not in get_args(State):
        raise ValueError(f"a trial's note holds some of {sorted(known)}, its state one of {get_args(State)}: got {facts}")
    write_json(_note_file(trial), noted(trial) | facts)


def noted(trial: RunDir) -> dict[str, Any]:
    """What has been remembered of a trial; empty if nothing was."""
    file = _note_file(trial)
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def trial_rows(
    study: StudyDir, names: Collection[str], failed: Mapping[str, str], *, running: Collection[str] = ()
) -> list[TrialRow]:
    """Every trial of a study, by number.

    Args:
        names: the settings that the space may change; a trial's own note of what it was given goes first.
        failed: path or id of a trial -> why it failed.
        running: ids of those that have not ended.
    """
    reasons = {Path(path).name: reason for path, reason in failed.items()}
    rows: list[TrialRow] = []
    for position, trial in enumerate(study.trials()):
        trial_id = trial.root.name.removeprefix("trial_")
        rows.append(_row(trial, trial_id, position, names, reasons.get(trial_id), is_running=trial_id in running))
    return sorted(rows, key=lambda row: row.number)


def rows_of(study: StudyDir) -> list[TrialRow]:
    """The trials as study.json has them; of a study that has not ended, as they are now.

    Raises:
        RunError: no study lives there.
    """
    facts = study.facts()
    if facts.get("finished"):
        return [TrialRow.of(row) for row in facts["trials"]]
    return trial_rows(study, facts["space"], {})


def name_of(row: TrialRow) -> str:
    """What a trial is called beside others.

    >>> name_of(TrialRow("x_00007", 7, "finished", "", None, None, None, 0, 0.0, {}, {}, []))
    'trial_0007'
    """
    return f"trial_{row.number:04d}"


def objectives_of(rows: Sequence[TrialRow]) -> list[str]:
    """Names of what was measured of trials, in the order that they were asked for."""
    return list(dict.fromkeys(name for row in rows for name in row.objectives))


def best_of(rows: Sequence[TrialRow]) -> TrialRow | None:
    """The trial with the best score or, where one objective was asked for, with the best of that; None if no trial has one."""
    scored = [row for row in rows if row.score is not None]
    names = objectives_of(rows)
    if len(names) != 1:
        return max(scored, key=lambda row: row.score or 0.0, default=None)
    (name,) = names
    sign = 1 if direction(name) == "max" else -1
    measured = [row for row in scored if name in row.objectives]
    return max(measured, key=lambda row: (sign * row.objectives[name], row.score or 0.0), default=None)


def told(study: StudyDir, num_trials: int) -> tuple[int, int, float | None]:
    """(epochs trained over all trials, epochs if none is stopped early, best monitor so far), while a study runs."""
    trials = [trial for trial in study.trials() if trial.run_file.exists()]
    epochs = study.facts()["run"]["train"]["epochs"]
    if not trials:
        return 0, num_trials * epochs, None
    monitor = monitor_of(trials[0].run())
    curves = [[line[monitor.name] for line in trial.metrics()] for trial in trials]
    choose = max if monitor.mode == "max" else min
    return sum(map(len, curves)), num_trials * epochs, choose((choose(curve) for curve in curves if curve), default=None)


def _row(trial: RunDir, trial_id: str, position: int, names: Collection[str], why: str | None, *, is_running: bool) -> TrialRow:
    lines, own = trial.metrics(), noted(trial)
    run = trial.run() if trial.run_file.exists() else None
    monitor = monitor_of(run) if run else Monitor("", "max")
    best = max(lines, key=lambda line: score(line, monitor.name, monitor.mode), default=None)
    state: State = "finished" if trial.done_file.exists() else own.get("state", "running" if is_running else "stopped")
    flat = run.flat() if run else {}
    return TrialRow(
        id=trial_id,
        number=int(own.get("number", _number(trial_id, position))),
        state="failed" if why is not None else state,
        reason=own.get("reason", "") if why is None else why,
        value=best[monitor.name] if best else None,
        score=score(best, monitor.name, monitor.mode) if best else None,
        best_epoch=best["epoch"] if best else None,
        epochs=int(lines[-1]["epoch"]) if lines else 0,
        seconds=round(float(own.get("seconds", 0.0)), 2),
        settings=dict(own.get("settings") or {name: flat[name] for name in names if name in flat}),
        objectives=dict(own.get("objectives", {})),
        curve=[(line["epoch"], line[monitor.name]) for line in lines],
    )


def _number(trial_id: str, position: int) -> int:
    """The name of a trial is its number, or ends in it."""
    found = re.search(r"(\d+)$", trial_id)
    return int(found.group(1)) if found else position


def _note_file(trial: RunDir) -> Path:
    return trial.root / "trial.json"
