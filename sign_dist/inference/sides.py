"""What is compared: runs of one task, evaluated on the same clips."""

import dataclasses
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sign_dist.errors import DataError, RunError, SettingsError
from sign_dist.inference.evaluated import Evaluated, read_predictions
from sign_dist.metrics.text import Language


@dataclasses.dataclass(frozen=True)
class Side:
    """What is compared: for each of its runs the report and the clips, sorted by id."""

    name: str
    reports: tuple[dict[str, Any], ...]
    clips: tuple[tuple[Evaluated, ...], ...]


def read_side(word: str, split: str) -> Side:
    """`RUN`, or `RUN,RUN,RUN` for seeds of one recipe, or `name=RUN,RUN`; a run is its directory, or that of an evaluation.

    Raises:
        RunError: a run has no evaluation of that split.
        DataError: its files are damaged.
    """
    is_path = Path(word).exists()
    name, equals, rest = ("", "", word) if is_path else word.partition("=")
    words = [word] if is_path else (rest if equals else word).split(",")
    paths = [Path(part) for part in words if part]
    if not paths:
        raise SettingsError(f"{word!r} names no run: give a run directory, or several of one recipe with commas between them")
    read = [_read(path, split) for path in paths]
    first = paths[0].resolve()
    own = first.name if len(paths) == 1 else f"{first.name} and {len(paths) - 1} more"
    return Side(name if equals else own, tuple(report for report, _ in read), tuple(clips for _, clips in read))


def _read(path: Path, split: str) -> tuple[dict[str, Any], tuple[Evaluated, ...]]:
    folder = path if (path / "report.json").exists() else path / "eval" / split
    if not (folder / "report.json").exists():
        if not path.exists():
            raise RunError(f"no run {str(path)!r}: name run directories, as `sign-dist train` writes them")
        done = sorted(p.parent.name for p in path.glob("eval/*/report.json"))
        has = f" (it has {', '.join(done)})" if done else ""
        raise RunError(f"{str(path)!r} has no evaluation of split {split!r}{has}: run `sign-dist evaluate {path} {split}` first")
    try:
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        report.setdefault("task", "islr")  # of an older version, which knew no other
    except (ValueError, AttributeError) as error:
        raise DataError(f"{str(folder / 'report.json')!r} is damaged ({error}): evaluate the run again") from None
    clips = read_predictions(folder / "predictions.jsonl")
    return report, tuple(sorted(clips, key=lambda clip: clip.id))


def named(sides: Sequence[Side]) -> list[Side]:
    """Sides with a name of their own each."""
    if len(sides) < 2:
        raise DataError("one run alone cannot be compared: name two or more")
    names = [side.name for side in sides]
    return [
        dataclasses.replace(side, name=f"{side.name} ({names[: i + 1].count(side.name)})") if names.count(side.name) > 1 else side
        for i, side in enumerate(sides)
    ]


def refuse_other_clips(sides: Sequence[Side]) -> None:
    """Raise DataError unless all runs answered to the same clips, and to the same question."""
    first, known = sides[0], sides[0].clips[0]
    for side in sides:
        for report, clips in zip(side.reports, side.clips, strict=True):
            if report["task"] != first.reports[0]["task"]:
                raise DataError(
                    f"{first.name} is of task {first.reports[0]['task']!r} and {side.name} of {report['task']!r}: "
                    "only runs of one task can be compared"
                )
            ids, theirs = {clip.id for clip in known}, {clip.id for clip in clips}
            if ids != theirs:
                odd = min(ids ^ theirs)
                raise DataError(
                    f"{first.name} and {side.name} were evaluated on different clips ({len(ids - theirs)} only in the first, "
                    f"{len(theirs - ids)} only in the second, such as {odd!r}): evaluate both on the same split of the same dataset"
                )
            if wrong := next((a for a, b in zip(known, clips, strict=True) if a.reference != b.reference), None):
                raise DataError(
                    f"{first.name} and {side.name} have different references for clip {wrong.id!r}: they were evaluated on "
                    "datasets with other labels, so evaluate both on the same one"
                )


def cost_of(side: Side) -> dict[str, Any]:
    """What the reports of a side say beyond its scores; of several runs the mean of what is measured."""
    facts = [report.get("facts", {}) for report in side.reports]

    def mean(values: Sequence[Any]) -> float | None:
        known = [value for value in values if value is not None]
        return statistics.fmean(known) if known else None

    latency = [report.get("latency") or {} for report in side.reports]
    training = [report.get("training") or {} for report in side.reports]
    return {
        "name": side.name,
        "runs": len(side.reports),
        "model": facts[0].get("model", {}).get("kind", ""),
        "features": facts[0].get("features", {}).get("name", ""),
        "parameters": facts[0].get("size", {}).get("parameters"),
        "weights_bytes": facts[0].get("size", {}).get("weights_bytes"),
        "median_ms": mean([found.get("median_ms") for found in latency]),
        "p95_ms": mean([found.get("p95_ms") for found in latency]),
        "timing": facts[0].get("timing", {}),
        "epochs": mean([found.get("epochs") for found in training]),
        "seconds": mean([found.get("seconds") for found in training]),
        "failed": max(report["failed"] for report in side.reports),
        "run_digests": [found.get("training", {}).get("run digest", "") for found in facts],
    }


def language_of(report: dict[str, Any]) -> Language:
    """Of whose words the report counted."""
    written = str(report.get("facts", {}).get("dataset", {}).get("text_language", ""))
    match written:
        case "zho" | "deu":
            return "zh" if written == "zho" else "de"
        case _:
            return "other" if written not in ("", "eng") else "en"
