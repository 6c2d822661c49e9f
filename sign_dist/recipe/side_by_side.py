"""Runs side by side on the same clips: each score with its interval, and how it differs from the first run's."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sign_dist.data.layout import written_whole
from sign_dist.errors import RunError
from sign_dist.metrics.scoring import Scored, compare, interval_of, score

COLUMNS: Final = ("run", "metric", "score", "low", "high", "difference", "difference_low", "difference_high", "p", "test")
METRIC_OF: Final[Mapping[str, str]] = {"islr": "accuracy", "cslr": "wer", "slt": "bleu"}


@dataclass(frozen=True)
class Row:
    """A run's score with a 95 % interval, and its difference from the first run's by a paired test; none for the first."""

    run: str
    metric: str
    score: float
    low: float
    high: float
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    p: float | None = None
    test: str = ""


def side_by_side(predictions: Mapping[str, Path], *, task: str) -> list[Row]:
    """A row per run, of its predictions.jsonl. A clip that failed counts as answered by nothing.

    Raises:
        RunError: predictions are missing, or are not of the same clips.
    """
    answers = {run: _answers(path) for run, path in predictions.items()}
    clips = {run: sorted(found) for run, found in answers.items()}
    first = next(iter(clips))
    for run, ids in clips.items():
        if ids != clips[first]:
            lacking = sorted(set(ids) ^ set(clips[first]))
            raise RunError(
                f"{first!r} and {run!r} were not evaluated on the same clips ({', '.join(lacking[:3])}): evaluate them again"
            )
    scored = {run: _scored(found, clips[first], task) for run, found in answers.items()}
    return [_row(run, found, None if run == first else scored[first]) for run, found in scored.items()]


def write_side_by_side(predictions: Mapping[str, Path], out: Path, *, task: str) -> str:
    """Write the rows as a table and say in a line what came of it.

    Raises:
        RunError: as `side_by_side`.
    """
    rows = side_by_side(predictions, task=task)
    with written_whole(out) as temporary:
        lines = ["\t".join(COLUMNS), *("\t".join(_cell(getattr(row, name)) for name in COLUMNS) for row in rows)]
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return f"{rows[0].metric} of " + ", ".join(
        f"{row.run} {row.score:.4g}" + (f" (p = {row.p:.2g})" if row.p is not None else "") for row in rows
    )


def _answers(path: Path) -> dict[str, tuple[str, str]]:
    """(reference, hypothesis) by clip."""
    try:
        rows: list[dict[str, Any]] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    except (OSError, ValueError) as error:
        raise RunError(f"{str(path)!r} cannot be read ({error}): evaluate the run again") from None
    return {str(row["id"]): (str(row["reference"]), "" if row.get("error") else str(row.get("hypothesis", ""))) for row in rows}


def _scored(answers: Mapping[str, tuple[str, str]], clips: list[str], task: str) -> Scored:
    return score(METRIC_OF[task], [answers[clip][0] for clip in clips], [answers[clip][1] for clip in clips], ids=clips)


def _row(run: str, scored: Scored, first: Scored | None) -> Row:
    interval = interval_of(scored)
    row = (run, scored.metric, scored.value, interval.low, interval.high)
    if first is None:
        return Row(*row)
    bootstrap, *tests = compare(first, scored)
    test = tests[-1]  # McNemar's for right and wrong, randomisation for corpus scores
    return Row(*row, bootstrap.difference, bootstrap.low, bootstrap.high, test.p, test.method)


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
