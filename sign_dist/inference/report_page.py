"""report.html: one page without outside resources that reads well on paper, on a phone, by day and by night.

This module decides what is shown and where it stands; how it looks is in `templates/report*.html.j2`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from sign_dist.inference.confusion import MAX_LABELLED, NO_ANSWER, NUM_WORST_CLASSES, confusion_matrices
from sign_dist.inference.curve_charts import training_charts
from sign_dist.inference.evaluated import Evaluated
from sign_dist.inference.html_page import render
from sign_dist.inference.report_calibration import reliability_chart
from sign_dist.inference.thumbnails import thumbnails
from sign_dist.inference.units import place_of, value_of

__all__ = ["MAX_LABELLED", "NO_ANSWER", "NUM_WORST_CLASSES", "confusion_matrices", "render_page", "score_cards", "worst_clips"]

NUM_WORST_CLIPS = 12
NUM_CONFUSIONS = 20
NUM_SUBSTITUTIONS = 12


def render_page(evaluated: Sequence[Evaluated], report: Mapping[str, Any], *, title: str) -> str:
    """The page as HTML text."""
    values: dict[str, Any] = {
        "title": title,
        "report": report,
        "scores": score_cards(report["scores"]),
        "charts": training_charts(report["training"].get("rows", ())),
        "confusions": report.get("confusions", ())[: NUM_CONFUSIONS if report["task"] in ("islr", "vlm") else NUM_SUBSTITUTIONS],
    }
    by_id = {e.id: e for e in evaluated}
    match report["task"]:
        case "islr" | "vlm":
            values |= _of_signs(evaluated, report)
        case "cslr":
            glosses = report["glosses"]
            values |= {
                "glosses": glosses,
                "num_open": len(glosses) if len(glosses) <= MAX_LABELLED else NUM_WORST_CLASSES,
                "examples": _examples(report["examples"], by_id),
                "parts": _error_parts(report),
            }
        case _:
            values |= {"examples": _examples(report["examples"], by_id)}
    return render(f"report_{report['task']}.html.j2", **values)


def score_cards(scores: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Scores with their values as text, and where they lie on their bar, 0 to 100."""
    return [dict(score) | _card(score) for score in scores]


def worst_clips(evaluated: Sequence[Evaluated], most: int = NUM_WORST_CLIPS) -> list[Evaluated]:
    """Clips that were answered wrongly, the most confident first: mistakes of the model, or of the annotation."""
    wrong = [e for e in evaluated if e.answer and e.answer != e.reference]
    return sorted(wrong, key=lambda e: (-e.confidence if not math.isnan(e.confidence) else math.inf, e.id))[:most]


def _card(score: Mapping[str, Any]) -> dict[str, Any]:
    unit, interval = score["unit"], score["interval"]
    low, high = place_of(unit, interval["low"]), place_of(unit, interval["high"])
    texts = {"value_text": score["value"], "low_text": interval["low"], "high_text": interval["high"]}
    return {name: value_of(unit, value).replace(" ", "\N{NO-BREAK SPACE}") for name, value in texts.items()} | {
        "place": place_of(unit, score["value"]),
        "low_place": low,
        "span": None if low is None or high is None else round(high - low, 2),
        "baseline_place": place_of(unit, score["baseline"]),
    }


def _of_signs(evaluated: Sequence[Evaluated], report: Mapping[str, Any]) -> dict[str, Any]:
    table = sorted(report["per_class_table"], key=lambda row: (_nan_last(row["recall"]), -row["support"], row["label"]))
    return {
        "matrices": confusion_matrices(evaluated),
        "reliability": reliability_chart(report["calibration"]) if report.get("calibration") else None,
        "classes": table,
        "num_open": len(table) if len(table) <= MAX_LABELLED else NUM_WORST_CLASSES,
        "worst": [_show(clip) for clip in worst_clips(evaluated)],
        "num_wrong": report["clips"] - report["correct"],
    }


def _show(clip: Evaluated) -> dict[str, Any]:
    picture, reason = thumbnails(clip)
    runners = [(label, score) for label, score in sorted(clip.scores, key=lambda pair: -pair[1])[:3]]
    return {"clip": clip, "picture": picture, "reason": reason, "runners": runners}


def _examples(groups: Mapping[str, Sequence[Mapping[str, Any]]], by_id: Mapping[str, Evaluated]) -> dict[str, list[dict[str, Any]]]:
    """The report's examples, each with the clip that it is about and its picture."""
    return {name: [dict(row) | _show(by_id[row["id"]]) for row in rows] for name, rows in groups.items()}


def _error_parts(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The bar of all glosses asked: right, replaced, left out; and beside it what was put in, on the same scale."""
    rows = [
        ("right", "hits", "Right"),
        ("replaced", "substitutions", "Replaced by another (S)"),
        ("missed", "deletions", "Left out (D)"),
        ("added", "insertions", "Put in (I)"),
    ]
    longest = report["words"] + report["insertions"]
    left = 0.0
    parts: list[dict[str, Any]] = []
    for style, key, name in rows:
        width = 100 * report[key] / max(1, longest)
        share = report[key] / max(1, report["words"])
        parts.append({"style": style, "name": name, "count": report[key], "share": share, "left": left, "width": width})
        left += width
    return parts


def _nan_last(value: float | None) -> float:
    return math.inf if value is None or math.isnan(value) else value
