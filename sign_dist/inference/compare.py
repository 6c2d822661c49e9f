"""Runs side by side: scores, size, speed, and whether a difference is more than luck; on the very same clips.

A side is one run, or several that differ only in their seed. Of several, each clip counts with the mean of what the seeds answered:
the tests then say whether the recipe is better, as far as so few seeds can, and not whether one lucky training is.
"""

import dataclasses
import itertools
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sign_dist.data.layout import written_whole
from sign_dist.inference.corpus_scores import by_signer
from sign_dist.inference.evaluated import Evaluated, jsonable
from sign_dist.inference.html_page import render
from sign_dist.inference.sides import Side, cost_of, language_of, named, refuse_other_clips
from sign_dist.inference.units import Unit, place_of, value_of
from sign_dist.metrics import scoring
from sign_dist.metrics.intervals import corpus_interval
from sign_dist.metrics.scoring import Metric, Scored
from sign_dist.metrics.significance import approximate_randomisation, mcnemar, paired_bootstrap
from sign_dist.metrics.tally import Tally
from sign_dist.metrics.text import Language

Pairs = Literal["all", "first"]

# Fewer signers are no sample of signers, as in the report.
MIN_SIGNERS = 5
# A p of 0.05 is what everybody reads; it is corrected for the number of pairs.
LEVEL = 0.05
NUM_EXAMPLES = 3


@dataclasses.dataclass(frozen=True)
class Measure:
    """A score that runs of a task are compared by. `factor` takes it from the scale of `metrics.scoring` to that of `unit`."""

    metric: Metric
    title: str
    unit: Unit
    factor: float = 1.0


MEASURES: dict[str, tuple[Measure, ...]] = {
    "islr": (Measure("accuracy", "Top-1", "share"),),
    "vlm": (Measure("accuracy", "Top-1", "share"),),
    "cslr": (Measure("wer", "Word error rate", "percent", 100.0),),
    "slt": (Measure("bleu", "BLEU-4", "points"), Measure("chrf", "chrF2", "points")),
}


def compare(sides: Sequence[Side], *, split: str = "", pairs: Pairs = "all", seed: int = 0) -> dict[str, Any]:
    """The content of compare.json: a row per side, and a test per pair and score.

    Raises:
        DataError: fewer than two sides, or they were evaluated on other clips, other references or another task.
    """
    sides = named(sides)
    refuse_other_clips(sides)
    task = sides[0].reports[0]["task"]
    # A clip without a reference is in no score, as in the report.
    keep = [i for i, clip in enumerate(sides[0].clips[0]) if clip.reference.strip() or task != "slt"]
    language = language_of(sides[0].reports[0])
    scored = {m.metric: [_scored(side, m, keep, language) for side in sides] for m in MEASURES[task]}
    clips = [sides[0].clips[0][i] for i in keep]
    chosen = itertools.combinations(range(len(sides)), 2) if pairs == "all" else [(0, j) for j in range(1, len(sides))]
    tests: list[dict[str, Any]] = [
        {"first": sides[i].name, "second": sides[j].name}
        | {
            "scores": [_test(m, scored[m.metric][i], scored[m.metric][j], clips, seed) for m in MEASURES[task]],
            "examples": _examples(sides[i], sides[j], keep, task),
        }
        for i, j in chosen
    ]
    for number in range(len(MEASURES[task])):
        for test, p in zip(tests, holm([t["scores"][number]["p"] for t in tests]), strict=True):
            test["scores"][number] |= {"p_holm": p, "differs": p < LEVEL}
    for test in tests:
        test["verdict"] = _verdict(test)
    return jsonable(
        {
            "task": task,
            "split": split,
            "clips": len(clips),
            "signers": len({clip.signer for clip in clips if clip.signer}),
            "measures": [{"name": m.metric, "title": m.title, "unit": m.unit} for m in MEASURES[task]],
            "sides": [
                cost_of(side) | {"scores": [_value(m, scored[m.metric][i], seed) for m in MEASURES[task]]}
                for i, side in enumerate(sides)
            ],
            "pairs": tests,
            "warnings": _warnings(sides, len(clips), len(tests)),
        }
    )


def write_comparison(folder: Path, comparison: dict[str, Any]) -> Path:
    """Write compare.json and compare.html; returns the page's path."""
    page = render("compare.html.j2", title="Runs compared", c=comparison, rows=_cells(comparison))
    for name, text in (("compare.html", page), ("compare.json", json.dumps(comparison, indent=2, ensure_ascii=False) + "\n")):
        with written_whole(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return folder / "compare.html"


def holm(ps: Sequence[float]) -> list[float]:
    """p of several tests, corrected so that the chance of a single false alarm among all of them stays what p says (Holm 1979).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(ps)), key=lambda i: ps[i])
    found = [0.0] * len(ps)
    highest = 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[i]))
        found[i] = highest
    return found


def _scored(side: Side, measure: Measure, keep: Sequence[int], language: Language) -> list[Scored]:
    """One score per run of a side."""
    return [
        scoring.score(measure.metric, [clips[i].reference for i in keep], [clips[i].answer for i in keep], language=language)
        for clips in side.clips
    ]


def _mean(scored: Sequence[Scored]) -> Tally:
    """Of each clip the mean over the runs: the score of its sum is that of all answers of all runs together."""
    return dataclasses.replace(scored[0].tally, rows=np.mean([s.tally.rows for s in scored], axis=0))


def _value(measure: Measure, scored: Sequence[Scored], seed: int) -> dict[str, Any]:
    tally = _mean(scored)
    interval = scoring.interval_of(scored[0], seed=seed) if len(scored) == 1 else corpus_interval(tally, seed=seed)
    values = [measure.factor * s.value for s in scored]
    return {
        "name": measure.metric,
        "value": measure.factor * tally.value,
        "low": measure.factor * interval.low,
        "high": measure.factor * interval.high,
        "method": interval.method,
        "runs": values,
        "spread": statistics.stdev(values) if len(values) > 1 else None,
        "signature": scored[0].signature,
    }


def _test(
    measure: Measure, first: Sequence[Scored], second: Sequence[Scored], clips: Sequence[Evaluated], seed: int
) -> dict[str, Any]:
    """Second minus first. `p` is of approximate randomisation, the safest of the tests (Riezler and Maxwell 2005)."""
    one, other = _mean(first), _mean(second)
    drawn = paired_bootstrap(one, other, seed=seed)
    swapped = approximate_randomisation(one, other, seed=seed)
    found: dict[str, Any] = {
        "name": measure.metric,
        "difference": measure.factor * drawn.difference,
        "low": measure.factor * drawn.low,
        "high": measure.factor * drawn.high,
        "better": _better(one, drawn.difference),
        "p": swapped.p,
        "p_bootstrap": drawn.p,
        "methods": [drawn.method, swapped.method],
    }
    signers = [clip.signer for clip in clips]
    if all(signers) and len(set(signers)) >= MIN_SIGNERS:
        over = paired_bootstrap(by_signer(one, signers), by_signer(other, signers), seed=seed)
        found["by_signer"] = {"low": measure.factor * over.low, "high": measure.factor * over.high, "p": over.p, "signers": over.n}
    if measure.metric == "accuracy" and len(first) == len(second) == 1:
        exact = mcnemar(*([bool(hit) for hit in s[0].tally.rows[:, 0]] for s in (first, second)))
        found["p_mcnemar"] = exact.p
        found["methods"].append(exact.method)
    return found


def _better(tally: Tally, difference: float) -> str:
    """Which of two is ahead: `first`, `second` or neither."""
    if not difference:
        return ""
    return "second" if (difference > 0) == tally.higher_is_better else "first"


def _verdict(test: dict[str, Any]) -> str:
    main = test["scores"][0]
    if not main["differs"] or not main["better"]:
        return f"no difference between {test['first']} and {test['second']} that these clips could tell from luck"
    better, worse = (test["second"], test["first"]) if main["better"] == "second" else (test["first"], test["second"])
    return f"{better} is better than {worse}"


def _examples(first: Side, second: Side, keep: Sequence[int], task: str) -> dict[str, list[dict[str, Any]]]:
    """The clips with the largest gain and the largest loss from the first side's first run to the second's."""
    pairs = [(first.clips[0][i], second.clips[0][i]) for i in keep]
    gains = [_quality(task, b) - _quality(task, a) for a, b in pairs]
    order = sorted(range(len(pairs)), key=lambda i: (-gains[i], pairs[i][0].id))

    def rows(places: Sequence[int]) -> list[dict[str, Any]]:
        return [
            {"id": a.id, "reference": a.reference, "first": a.answer, "second": b.answer, "gain": gains[i]}
            for i in places
            for a, b in [pairs[i]]
        ]

    gained = [i for i in order if gains[i] > 0]
    lost = [i for i in reversed(order) if gains[i] < 0]
    return {
        "gained": rows(gained[:NUM_EXAMPLES]),
        "lost": rows(lost[:NUM_EXAMPLES]),
        "num_gained": len(gained),
        "num_lost": len(lost),
    }  # pyright: ignore[reportReturnType]


def _quality(task: str, clip: Evaluated) -> float:
    """How good an answer is, to put clips in order: a hit, minus its word errors, or its chrF2."""
    match task:
        case "islr" | "vlm":
            return float(clip.answer == clip.reference)
        case "cslr":
            return -float(scoring.sentence_errors([clip.reference], [clip.answer])[0].errors)
        case _:
            return scoring.text.chrf([clip.reference], [clip.answer]).value


def _warnings(sides: Sequence[Side], num_clips: int, num_pairs: int) -> list[str]:
    found: list[str] = []
    for side in sides:
        for report in side.reports:
            found += [f"{side.name}: {text}" for text in report.get("warnings", ()) if "chosen on" in text or "trained on" in text]
    if any(len(side.reports) == 1 for side in sides):
        found.append("a test over clips says nothing about another seed: compare several runs of each recipe, with commas")
    if num_clips < 100:
        found.append(f"{num_clips} clips tell only large differences from luck")
    if num_pairs > 1:
        found.append(f"{num_pairs} pairs are tested, so p is corrected for that (Holm)")
    devices = {json.dumps(report.get("facts", {}).get("timing", {}), sort_keys=True) for side in sides for report in side.reports}
    if len(devices) > 1:
        found.append("times per clip were taken on different devices or with different numbers of threads")
    digests = {report.get("digests", {}).get("dataset.dataset digest", "") for side in sides for report in side.reports}
    if len(digests - {""}) > 1:
        found.append("the datasets are not one and the same, though these clips and their labels are")
    return list(dict.fromkeys(found))


def _cells(comparison: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """For each side the bars of its scores, as texts and places from 0 to 100."""
    measures = comparison["measures"]
    return [
        [
            {
                "text": value_of(m["unit"], score["value"]),
                "bounds": f"{value_of(m['unit'], score['low'])} to {value_of(m['unit'], score['high'])}",
                "spread": ""
                if score["spread"] is None
                else f"± {value_of(m['unit'], score['spread'])} over {len(score['runs'])} runs",
                "place": place_of(m["unit"], score["value"]) or 0.0,
                "low": place_of(m["unit"], score["low"]),
                "high": place_of(m["unit"], score["high"]),
            }
            for m, score in zip(measures, side["scores"], strict=True)
        ]
        for side in comparison["sides"]
    ]
