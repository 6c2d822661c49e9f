"""From a trial to a bundle that says where its settings come from; and whether it answers as fast as the study said."""

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sign_dist.config.run import Run
from sign_dist.data.layout import write_json
from sign_dist.errors import RunError
from sign_dist.inference.bundle import Bundle, export
from sign_dist.inference.predictor import Predictor
from sign_dist.study.confirm import read_confirmation
from sign_dist.study.layout import StudyDir
from sign_dist.study.objectives import LATENCY, milliseconds, timed_clips
from sign_dist.study.pareto import front
from sign_dist.study.rows import TrialRow, best_of, name_of, objectives_of, rows_of
from sign_dist.tasks.build import monitor_of

# A time that is measured again may differ by so much of the study's. A busy machine only adds time, so it may try more than once.
TOLERANCE = 0.2
TRIES = 3


@dataclasses.dataclass(frozen=True)
class Promoted:
    """A trial that has become a bundle. Times per clip in ms: the study's and the bundle's own; NaN where it was not asked for."""

    row: TrialRow
    bundle: Bundle
    in_study_ms: float = math.nan
    again_ms: float = math.nan

    @property
    def ratio(self) -> float:
        return self.again_ms / self.in_study_ms

    @property
    def agrees(self) -> bool:
        """Whether the time measured again is within the tolerance of the study's; True where no time was an objective."""
        return math.isnan(self.ratio) or abs(self.ratio - 1) <= TOLERANCE

    def __str__(self) -> str:
        text = f"{name_of(self.row)} -> {self.bundle.root}"
        if not math.isnan(self.ratio):
            text += f": {self.again_ms:.2f} ms a clip, {self.in_study_ms:.2f} in the study"
        return text if self.agrees else f"{text}: differs by more than {TOLERANCE:.0%}"


def promote(study: StudyDir, *, number: int | None = None, out: Path | None = None) -> Promoted:
    """Export the winner of a study, or the trial of a number, with its provenance.

    The winner is the confirmed one, and without a confirmation the best on val.

    Raises:
        RunError: there is no such trial, or it has no checkpoint.
    """
    rows = rows_of(study)
    row = _winner(study, rows) if number is None else next((row for row in rows if row.number == number), None)
    if row is None:
        known = ", ".join(str(row.number) for row in rows if row.score is not None)
        raise RunError(f"no trial {number} of {str(study.root)!r} can be promoted: it has {known or 'none that was evaluated'}")
    return _promote(study, rows, row, out or study.bundle(row.number))


def promote_front(study: StudyDir) -> list[Promoted]:
    """Export every trial of the Pareto front into `bundles/` of the study.

    Raises:
        RunError: the study has fewer than two objectives, or no trial with all of them.
    """
    rows = rows_of(study)
    names = objectives_of(rows)
    if len(names) < 2:
        raise RunError(
            f"{str(study.root)!r} has no Pareto front, its objective is one: promote its winner, without --pareto, "
            'or search with search.objectives="val/wer latency_ms"'
        )
    points = front(rows, names)
    if not points:
        raise RunError(f"no trial of {str(study.root)!r} finished with all of {', '.join(names)}: there is no Pareto front")
    return [_promote(study, rows, row, study.bundle(row.number)) for row in points]


def provenance(study: StudyDir, rows: Sequence[TrialRow], row: TrialRow) -> dict[str, Any]:
    """How the settings of a trial were found: what bundle.json keeps under `search`."""
    facts = study.facts()
    run = Run.from_tree(facts["run"])
    confirmation = read_confirmation(study)
    confirmed = confirmation is not None and any(each["name"] == name_of(row) for each in confirmation["candidates"])
    trial = study.trial(row.id).run()
    return {
        "study": study.root.resolve().name,
        "trial": row.number,
        "of_trials": len(rows),
        "state": f"{row.state} {row.reason}".strip(),
        "space": facts["space"],
        "search": facts.get("search", {}),
        "settings": row.settings,
        "seed": trial.train.seed,
        "run": trial.digest(),
        "metric": monitor_of(run).name,
        "value": row.value,
        "objectives": row.objectives,
        "caution": f"the value is the best of {len(rows)} trials on the split it was chosen on: it is too good",
        "confirmed": confirmation["verdict"] if confirmation and confirmed else "no: not trained again on other seeds",
    }


def _winner(study: StudyDir, rows: Sequence[TrialRow]) -> TrialRow | None:
    confirmation = read_confirmation(study)
    if confirmation:
        return next((row for row in rows if name_of(row) == confirmation["winner"]), None)
    return best_of(rows)


def _promote(study: StudyDir, rows: Sequence[TrialRow], row: TrialRow, out: Path) -> Promoted:
    known = provenance(study, rows, row)
    bundle = export(study.trial(row.id), out, name=f"{study.root.resolve().name}_{name_of(row)}", search=known)
    if LATENCY not in row.objectives:
        return Promoted(row, bundle)
    # By the very code that serves, from the bundle alone.
    predictor = Predictor.load(bundle.root)
    clips = timed_clips(study.trial(row.id).run())
    done = Promoted(row, bundle, row.objectives[LATENCY], math.inf)
    for _ in range(TRIES):
        again = milliseconds(lambda clip: predictor.predict([clip.features]), clips)
        done = dataclasses.replace(done, again_ms=min(again, done.again_ms))
        if done.agrees:
            break
    facts = json.loads(bundle.facts_file.read_text(encoding="utf-8"))
    facts["provenance"]["search"] |= {"latency_ms_again": round(done.again_ms, 4), "latency_agrees": done.agrees}
    write_json(bundle.facts_file, facts)
    return done
