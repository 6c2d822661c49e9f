"""A split's answers -> predictions.jsonl, report.json, one HTML page and a model card.

`build_report` only counts: it reads no file and no clock, so equal answers give an equal report. What differs by task is
counted in `report_islr`, `report_cslr`, `report_slt` and `report_vlm`. `write_report` writes the files; the page is drawn in
`report_page`.
"""

import collections
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sign_dist.data.layout import written_whole
from sign_dist.errors import DataError
from sign_dist.inference.evaluated import Evaluated, jsonable, write_predictions
from sign_dist.inference.model_card import model_card
from sign_dist.inference.report_cslr import cslr_part
from sign_dist.inference.report_islr import islr_cautions, islr_part
from sign_dist.inference.report_page import render_page
from sign_dist.inference.report_slt import slt_part
from sign_dist.inference.report_vlm import vlm_part
from sign_dist.inference.units import value_of
from sign_dist.metrics.text import Language
from sign_dist.training.curves import best_of

__all__ = ["Evaluated", "build_report", "summary", "write_report"]

# Fewer signers than this are no sample of signers: an interval over them comes out narrower than one over clips. Below
# FEW_SIGNERS it is given, with a caution.
MIN_SIGNERS = 5
FEW_SIGNERS = 10
FEW_CLIPS = 100


def build_report(
    evaluated: Sequence[Evaluated],
    *,
    facts: Mapping[str, Any],
    task: str = "islr",
    vocabulary: Sequence[str] = (),
    language: Language = "other",
    training: Sequence[Mapping[str, Any]] = (),
    calibration: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """The content of report.json: scores with intervals, tables, what failed, and what to know before believing it.

    A clip that failed stays in every denominator and counts as wrong, or as answered with nothing: leaving it out would
    reward failing.

    Args:
        facts: where the numbers come from (dataset, split, features, model, software), nested as the caller likes.
            Lists of sentences under any key `warnings` are lifted to the report's own, so that leaks are seen first;
            so are `policy` and keys that end in `digest`.
        task: `islr`, `cslr`, `slt` or `vlm`.
        vocabulary: all glosses the model can answer; without it, those that occur in references and scores.
        language: of translations.
        training: the lines of metrics.jsonl, for curves.
        calibration: what `report_calibration.calibration_part` says of confidences.
        seed: of the bootstrap.

    Raises:
        DataError: no clip, an id that stands twice, or no reference to score against.
    """
    if not evaluated:
        raise DataError("there is no clip to report on: the split is empty, choose another one")
    twice = [id_ for id_, count in collections.Counter(e.id for e in evaluated).items() if count > 1]
    if twice:
        raise DataError(f"clips stand twice among the answers: {', '.join(twice[:5])}: evaluate each clip once")
    if not any(e.reference.strip() for e in evaluated):
        what = "translations" if task == "slt" else "glosses"
        raise DataError(f"no clip of this split has a reference for task {task!r}: choose a split whose manifest has {what}")
    failed = [e for e in evaluated if e.error]
    scored = [e for e in evaluated if e.reference.strip() or task != "slt"]
    match task:
        case "islr":
            part = islr_part(evaluated, vocabulary=vocabulary, seed=seed, min_signers=MIN_SIGNERS)
            cautions = islr_cautions(evaluated, part)
        case "vlm":
            part = vlm_part(evaluated, vocabulary=vocabulary, seed=seed, min_signers=MIN_SIGNERS)
            cautions = islr_cautions(evaluated, part)
        case "cslr":
            part = cslr_part(evaluated, vocabulary=vocabulary, seed=seed, min_signers=MIN_SIGNERS)
            cautions = part["findings"]
        case "slt":
            part = slt_part(scored, language=language, seed=seed, min_signers=MIN_SIGNERS)
            cautions = part["findings"]
            if left_out := len(evaluated) - len(scored):
                cautions = [f"{left_out} of {len(evaluated)} clips have no translation: they are in no score", *cautions]
        case _:
            raise ValueError(f"no task {task!r}: it is islr, cslr, slt or vlm")
    report = {
        "task": task,
        "clips": len(evaluated),
        "scored": len(scored),
        "failed": len(failed),
        **part,
        **({"calibration": calibration} if calibration else {}),
        "policy": str(_find(facts, "policy") or ""),
        "warnings": [*_sentences(facts), *_cautions(evaluated), *cautions],
        "latency": _latency(evaluated),
        "training": _training(training),
        "failed_clips": [{"id": e.id, "reference": e.reference, "error": e.error} for e in failed],
        "digests": _digests(facts),
        "facts": facts,
    }
    return jsonable(report)


def write_report(folder: str | Path, evaluated: Sequence[Evaluated], report: Mapping[str, Any], *, name: str = "model") -> Path:
    """Write predictions.jsonl, report.html, MODEL_CARD.md and report.json into `folder`; the page's path. `name` is the run's."""
    folder = Path(folder)
    report = jsonable(report)
    split = str(report["facts"].get("split", {}).get("evaluated", ""))
    title = f"{name}: {split}" if split else name
    write_predictions(folder / "predictions.jsonl", evaluated)
    texts = {"report.html": render_page(evaluated, report, title=title), "MODEL_CARD.md": model_card(report, title=name)}
    # Last: a reader that finds it finds the others.
    texts["report.json"] = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    for name, text in texts.items():
        with written_whole(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return folder / "report.html"


def summary(report: Mapping[str, Any]) -> str:
    """The headline of a report in one sentence."""
    if report["task"] in ("islr", "vlm"):
        interval = report["intervals"]["top1"]
        text = (
            f"top-1 {report['top1']:.3f} (95 % interval {interval['low']:.3f} to {interval['high']:.3f}), "
            f"top-5 {report['top5']:.3f}, per class {report['per_class']:.3f} on {report['clips']} clips of "
            f"{report['classes_asked']} signs"
        )
        if written := report.get("written"):
            text += (
                f"; left free it writes the gloss in {written['exact_match']:.3f}, no gloss at all in {written['unparsable']:.3f}"
            )
    else:
        first, *others = report["scores"]
        low, high = (value_of(first["unit"], first["interval"][bound]) for bound in ("low", "high"))
        rest = ", ".join(f"{s['title']} {value_of(s['unit'], s['value'])}" for s in others)
        text = (
            f"{first['title']} {value_of(first['unit'], first['value'])} (95 % interval {low} to {high}), {rest} "
            f"on {report['clips']} clips"
        )
    return f"{text}; {report['failed']} clips failed and count as wrong" if report["failed"] else text


def _cautions(evaluated: Sequence[Evaluated]) -> list[str]:
    """What these answers themselves give reason to doubt, whatever the task."""
    found: list[str] = []
    failed = sum(bool(e.error) for e in evaluated)
    if failed:
        found.append(f"{failed} of {len(evaluated)} clips could not be recognised at all: they count as wrong")
    if len(evaluated) < FEW_CLIPS:
        found.append(f"{len(evaluated)} clips are few: a difference smaller than the interval means nothing")
    signers = {e.signer for e in evaluated if e.signer}
    if len(signers) == 1:
        found.append(f"all clips are of one signer ({min(signers)}): the scores do not tell how others fare")
    elif 1 < len(signers) < FEW_SIGNERS:
        found.append(f"{len(signers)} signers are few: what a new signer meets may lie outside the intervals")
    elif not signers:
        found.append("the signers are not known: whether the model knows new people cannot be told")
    return found


def _latency(evaluated: Sequence[Evaluated]) -> dict[str, Any] | None:
    """Milliseconds from features to answer, of the clips that were answered alone; None if there are none."""
    times = sorted(1e3 * e.model_s for e in evaluated if not math.isnan(e.model_s))
    if not times:
        return None
    return {
        "clips": len(times),
        "median_ms": statistics.median(times),
        "p95_ms": times[math.ceil(0.95 * len(times)) - 1],
        "max_ms": times[-1],
    }


def _training(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the record of training says in sum, and the record itself; empty without one."""
    if not rows:
        return {}
    best = best_of(rows)
    stages: dict[Any, list[float]] = {}
    for row in rows:
        stages.setdefault(row.get("stage", 0), []).append(row["epoch"])
    return {
        "epochs": rows[-1]["epoch"],
        "seconds": sum(row.get("seconds") or 0.0 for row in rows),
        "best": {"epoch": best[0], "name": best[1], "value": best[2]} if best else None,
        "stages": [{"stage": stage, "from": min(epochs), "to": max(epochs)} for stage, epochs in stages.items()],
        "rows": list(rows),
    }


def _sentences(facts: Any) -> list[str]:
    """What stands under any key `warnings`, each sentence once."""
    found: list[str] = []
    for name, value in _walk(facts):
        if name.rpartition(".")[2] == "warnings":
            found += [value] if isinstance(value, str) else [str(v) for v in value or ()]
    return list(dict.fromkeys(found))


def _digests(facts: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in _walk(facts) if name.endswith("digest") and value}


def _find(facts: Mapping[str, Any], key: str) -> Any:
    """The first value under `key` that is no section, however deep."""
    for name, value in _walk(facts):
        if name.rpartition(".")[2] == key and not isinstance(value, Mapping):
            return value
    return None


def _walk(tree: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """(dotted name, value) of everything in nested mappings, sections included."""
    found: list[tuple[str, Any]] = []
    for name, value in tree.items() if isinstance(tree, Mapping) else ():
        found += [(f"{prefix}{name}", value), *_walk(value, f"{prefix}{name}.")]
    return found
