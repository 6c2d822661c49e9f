"""The part of a report on isolated signs: top-k, classes, what is taken for what."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from sign_dist.inference.evaluated import Evaluated
from sign_dist.metrics import accuracy
from sign_dist.metrics.intervals import Interval, bootstrap, share_interval, wilson


def islr_part(evaluated: Sequence[Evaluated], *, vocabulary: Sequence[str], seed: int, min_signers: int) -> dict[str, Any]:
    """Scores are shares of clips, 0 to 1. `vocabulary`: all glosses the model can answer, beyond those that are seen here."""
    references = [e.reference for e in evaluated]
    answers = [e.answer for e in evaluated]
    ranked = [e.ranked() for e in evaluated]
    right = {k: accuracy.hits(references, ranked, k) for k in (1, 5)}
    known = set(vocabulary) | set(references) | {label for e in evaluated for label, _ in e.scores} | set(answers) - {""}
    label, share = accuracy.majority_baseline(references)
    intervals = _intervals(evaluated, right, seed, min_signers)
    values = {
        "top1": accuracy.top_k_accuracy(references, ranked, 1),
        "top5": accuracy.top_k_accuracy(references, ranked, 5),
        "per_class": accuracy.class_accuracy(references, ranked, 1),
    }
    asked = len(set(references))
    texts = {
        "top1": ("Top-1", f"{sum(right[1])} of {len(evaluated)} clips were recognised at the first answer.", share),
        "top5": ("Top-5", f"{sum(right[5])} of {len(evaluated)} clips have the right gloss among the first five answers.", None),
        "per_class": ("Per class", f"Mean over the {asked} classes asked, each counting the same.", 1 / asked),
    }
    return {
        "scores": [
            {
                "name": name,
                "title": title,
                "value": values[name],
                "unit": "share",
                "higher_is_better": True,
                "interval": intervals[name],
                "baseline": baseline,
                "signature": f"{name}|{'per class' if name == 'per_class' else 'per instance'}|case:mixed",
                "text": text,
            }
            for name, (title, text, baseline) in texts.items()
        ],
        "correct": sum(right[1]),
        "classes": len(known),
        "classes_asked": asked,
        **values,
        "intervals": intervals,
        "baselines": {"majority": {"label": label, "accuracy": share}, "chance": {"accuracy": 1 / len(known)}},
        "per_class_table": [
            {
                "label": row.label,
                "support": row.support,
                "predicted": row.predicted,
                "correct": row.correct,
                "recall": row.recall,
                "precision": row.precision,
                "recall_interval": _bounds(wilson(row.correct, row.support)) if row.support else None,
            }
            for row in accuracy.class_table(references, answers)
        ],
        "confusions": [
            {"reference": reference, "hypothesis": hypothesis, "count": count}
            for (reference, hypothesis), count in accuracy.confusion_counts(references, answers).items()
            if reference != hypothesis
        ],
        "signers": _signers(evaluated, right),
    }


def islr_cautions(evaluated: Sequence[Evaluated], part: Mapping[str, Any]) -> list[str]:
    """What to know of top-5 before believing it."""
    if part["classes"] <= 5:
        return [f"top-5 says nothing with {part['classes']} classes: five answers name all of them"]
    if any(not e.error and len(e.scores) < 5 for e in evaluated):
        return ["some clips come with fewer than five scored answers: top-5 is a lower bound"]
    return []


def _intervals(
    evaluated: Sequence[Evaluated], right: Mapping[int, list[bool]], seed: int, min_signers: int
) -> dict[str, dict[str, Any]]:
    """95 % intervals by name; `top1_by_signer` allows for other signers, the others only for other clips of the same."""
    values = [float(r) for r in right[1]]
    groups = [e.reference for e in evaluated]
    intervals = {
        "top1": share_interval(right[1], seed=seed),
        "top5": share_interval(right[5], seed=seed),
        "per_class": bootstrap(values, groups=groups, seed=seed),
    }
    signers = [e.signer for e in evaluated]
    if all(signers) and len(set(signers)) >= min_signers:
        intervals["top1_by_signer"] = bootstrap(values, clusters=signers, seed=seed)
    return {name: dataclasses.asdict(interval) for name, interval in intervals.items()}


def _signers(evaluated: Sequence[Evaluated], right: Mapping[int, list[bool]]) -> list[dict[str, Any]]:
    rows: dict[str, list[int]] = collections.defaultdict(list)
    for i, clip in enumerate(evaluated):
        rows[clip.signer].append(i)
    return [
        {
            "signer": signer,
            "clips": len(clips),
            "correct": (correct := sum(right[1][i] for i in clips)),
            "top1": correct / len(clips),
            "top1_interval": _bounds(wilson(correct, len(clips))),
            "top5": sum(right[5][i] for i in clips) / len(clips),
            "failed": sum(bool(evaluated[i].error) for i in clips),
        }
        for signer, clips in sorted(rows.items())
    ]


def _bounds(interval: Interval) -> list[float]:
    return [interval.low, interval.high]
