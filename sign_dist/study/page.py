"""study.html: what was searched, what came of it, what it cost, what was stopped and why, and whether the win is one.

One page without outside resources, as the reports are. This module decides what is shown, `pictures` where it lies.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sign_dist.config.run import Run
from sign_dist.data.layout import written_whole
from sign_dist.inference.html_page import render
from sign_dist.inference.units import value_of
from sign_dist.study.confirm import read_confirmation
from sign_dist.study.importance import FEW, MANY, importances
from sign_dist.study.layout import StudyDir
from sign_dist.study.objectives import LATENCY
from sign_dist.study.pareto import front
from sign_dist.study.pictures import curves, history, parallel, pareto, settings_in_order
from sign_dist.study.rows import TrialRow, best_of, name_of, objectives_of, rows_of
from sign_dist.tasks.build import monitor_of

STATES = ("finished", "stopped", "failed", "running")


@dataclasses.dataclass(frozen=True)
class Cost:
    """What trials of one state took. `gpu_hours` is 0 where no GPU was used."""

    state: str
    trials: int
    epochs: int
    seconds: float
    gpu_hours: float


def write_page(study: StudyDir) -> Path:
    """Write study.html anew from what the study's directory holds now; answers its path.

    Raises:
        RunError: no study lives there.
    """
    text = render_study(study)
    with written_whole(study.page_file) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return study.page_file


def render_study(study: StudyDir) -> str:
    """The page as HTML text."""
    facts, rows = study.facts(), rows_of(study)
    run = Run.from_tree(facts["run"])
    monitor = monitor_of(run)
    names = objectives_of(rows)
    scored = [(row.settings, row.score) for row in rows if row.score is not None]
    ranked = importances(scored)
    order = settings_in_order(rows, {each.name: each.share for each in ranked})
    best = best_of(rows)
    pairs = [(names[0], other) for other in names[1:]]
    flat = run.flat()
    return render(
        "study.html.j2",
        title=f"Study {study.root.resolve().name}",
        facts=facts,
        finished=bool(facts.get("finished")),
        metric=monitor.name,
        mode=monitor.mode,
        rows=rows,
        counts={state: sum(row.state == state for row in rows) for state in STATES},
        best=best,
        settings=[(name, flat.get(name), value) for name, value in best.settings.items()] if best else [],
        confirmation=_confirmation(study),
        plots=[plot for plot in (history(rows, monitor.name, monitor.mode), curves(rows, monitor.name)) if plot],
        importances=ranked,
        num_scored=len(scored),
        few=FEW,
        many=MANY,
        order=order,
        lines=parallel(rows, order, monitor.name),
        objectives=names,
        fronts=[plot for first, second in pairs if (plot := pareto(rows, first, second))],
        points=_points(study, rows, names) if pairs else [],
        costs=costs(study, rows),
        full_epochs=run.train.epochs * len(rows),
        ended_early=[row for row in rows if row.state in ("stopped", "failed")],
    )


def costs(study: StudyDir, rows: Sequence[TrialRow]) -> list[Cost]:
    """What the trials of each state took, and all of them last."""
    gpus = {row.number: _gpus(study, row) for row in rows}

    def of(name: str, mine: Sequence[TrialRow]) -> Cost:
        hours = sum(row.seconds * gpus[row.number] for row in mine) / 3600
        return Cost(name, len(mine), sum(row.epochs for row in mine), sum(row.seconds for row in mine), hours)

    found = [of(state, mine) for state in STATES if (mine := [row for row in rows if row.state == state])]
    return [*found, of("all", rows)]


def _gpus(study: StudyDir, row: TrialRow) -> int:
    """GPUs that a trial held, as its record of the machine has it."""
    trial = study.trial(row.id)
    if not trial.environment_file.exists():
        return 0
    facts: dict[str, Any] = json.loads(trial.environment_file.read_text(encoding="utf-8"))
    on_gpu = facts.get("device") == "gpu" if "device" in facts else bool(facts.get("gpus"))
    return int(facts.get("workers", 1)) if on_gpu else 0


def _confirmation(study: StudyDir) -> dict[str, Any] | None:
    found = read_confirmation(study)
    if found is None:
        return None
    unit = found["unit"]

    def text(score: Mapping[str, Any]) -> str:
        return f"{value_of(unit, score['value'])} ({value_of(unit, score['low'])} to {value_of(unit, score['high'])})"

    rows = [
        dict(each)
        | {
            "val_text": text(each["val"]),
            "test_text": text(each["test"]),
            "test_runs": ", ".join(value_of(unit, value) for value in each["test"]["runs"]),
        }
        for each in found["candidates"]
    ]
    return found | {"candidates": rows}


def _points(study: StudyDir, rows: Sequence[TrialRow], names: Sequence[str]) -> list[dict[str, Any]]:
    """The Pareto front with what is known of each point's bundle."""
    found: list[dict[str, Any]] = []
    for row in front(rows, names):
        file = study.bundle(row.number) / "bundle.json"
        search: dict[str, Any] = (
            json.loads(file.read_text(encoding="utf-8"))["provenance"].get("search", {}) if file.exists() else {}
        )
        again = search.get(f"{LATENCY}_again")
        found.append({"row": row, "name": name_of(row), "again": again, "agrees": search.get("latency_agrees", True)})
    return found
