"""A split's answers -> predictions.jsonl, report.json and one HTML page.

`build_report` only counts: it reads no file and no clock, so equal answers give an equal report. `write_report` writes
the three files; the page is drawn in `report_page`.
"""

import collections
import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sign_dist.data.layout import written_whole
from sign_dist.errors import DataError
from sign_dist.inference.report_page import render_page
from sign_dist.metrics import accuracy
from sign_dist.metrics.intervals import Interval, bootstrap, share_interval, wilson

# Fewer signers than this are no sample of signers: an interval over them comes out narrower than one over clips. Below
# FEW_SIGNERS it is given, with a caution.
MIN_SIGNERS = 5
FEW_SIGNERS = 10
FEW_CLIPS = 100


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """One clip, what it shows and what the model answered.

    `scores` are (gloss, score) pairs, the best first or not; `hypothesis` is the answer. `error` is why there is no
    answer, "" if there is one. `start_s` and `end_s` are the clip's span in the file `video_path`, 0 = to the end.
    """

    id: str
    reference: str
    hypothesis: str
    scores: tuple[tuple[str, float], ...] = ()
    signer: str = ""
    video_path: str | Path = ""
    start_s: float = 0.0
    end_s: float = 0.0
    error: str = ""

    def ranked(self) -> list[str]:
        """Answers, the best first; none for a clip that failed."""
        if self.error or not self.hypothesis:
            return []
        order = sorted(self.scores, key=lambda pair: -pair[1])
        return [self.hypothesis, *(label for label, _ in order if label != self.hypothesis)]

    @property
    def answer(self) -> str:
        """The hypothesis, "" for a clip that failed."""
        return "" if self.error else self.hypothesis

    @property
    def confidence(self) -> float:
        """Score of the answer, NaN if it has none."""
        return dict(self.scores).get(self.answer, math.nan)


def build_report(
    evaluated: Sequence[Evaluated],
    *,
    facts: Mapping[str, Any],
    vocabulary: Sequence[str] = (),
    seed: int = 0,
) -> dict[str, Any]:
    """The content of report.json: scores with intervals, tables, what failed, and what to know before believing it.

    A clip that failed stays in every denominator and counts as wrong: leaving it out would reward failing.

    Args:
        facts: where the numbers come from (dataset, split, features, model, software), nested as the caller likes.
            Lists of sentences under any key `warnings` are lifted to the report's own, so that leaks are seen first;
            so are `policy` and keys that end in `digest`.
        vocabulary: all glosses the model can answer; without it, those that occur in references and scores.
        seed: of the bootstrap.

    Raises:
        DataError: no clip, or an id that stands twice.
    """
    if not evaluated:
        raise DataError("there is no clip to report on: the split is empty, choose another one")
    twice = [id_ for id_, count in collections.Counter(e.id for e in evaluated).items() if count > 1]
    if twice:
        raise DataError(f"clips stand twice among the answers: {', '.join(twice[:5])}: evaluate each clip once")
    references = [e.reference for e in evaluated]
    answers = [e.answer for e in evaluated]
    ranked = [e.ranked() for e in evaluated]
    right = {k: accuracy.hits(references, ranked, k) for k in (1, 5)}
    known = set(vocabulary) | set(references) | {label for e in evaluated for label, _ in e.scores} | set(answers) - {""}
    label, share = accuracy.majority_baseline(references)
    failed = [e for e in evaluated if e.error]
    report = {
        "clips": len(evaluated),
        "correct": sum(right[1]),
        "failed": len(failed),
        "classes": len(known),
        "classes_asked": len(set(references)),
        "top1": accuracy.top_k_accuracy(references, ranked, 1),
        "top5": accuracy.top_k_accuracy(references, ranked, 5),
        "per_class": accuracy.class_accuracy(references, ranked, 1),
        "intervals": _intervals(evaluated, right, seed),
        "baselines": {
            "majority": {"label": label, "accuracy": share},
            "chance": {"accuracy": 1 / len(known)},
        },
        "policy": str(_find(facts, "policy") or ""),
        "warnings": [*_sentences(facts), *_cautions(evaluated, len(known))],
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
        "failed_clips": [{"id": e.id, "reference": e.reference, "error": e.error} for e in failed],
        "digests": _digests(facts),
        "facts": facts,
    }
    return _jsonable(report)


def write_report(
    folder: str | Path,
    evaluated: Sequence[Evaluated],
    report: Mapping[str, Any],
    *,
    metrics_jsonl: str | Path | None = None,
    title: str = "Evaluation",
) -> Path:
    """Write predictions.jsonl, report.json and report.html into `folder`; returns the page's path.

    Args:
        metrics_jsonl: the run's record; its curves are drawn into the page.
    """
    folder = Path(folder)
    with written_whole(folder / "predictions.jsonl") as temporary:
        temporary.write_text("".join(_line(e) for e in evaluated), encoding="utf-8")
    page = render_page(evaluated, report, metrics_jsonl=Path(metrics_jsonl) if metrics_jsonl else None, title=title)
    with written_whole(folder / "report.html") as temporary:
        temporary.write_text(page, encoding="utf-8")
    # Last: a reader that finds it finds the other two.
    with written_whole(folder / "report.json") as temporary:
        text = json.dumps(_jsonable(report), indent=2, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")
    return folder / "report.html"


def summary(report: Mapping[str, Any]) -> str:
    """The headline of a report in one sentence."""
    interval = report["intervals"]["top1"]
    text = (
        f"top-1 {report['top1']:.3f} (95 % interval {interval['low']:.3f} to {interval['high']:.3f}), top-5 {report['top5']:.3f}, "
        f"per class {report['per_class']:.3f} on {report['clips']} clips of {report['classes_asked']} signs"
    )
    return f"{text}; {report['failed']} clips failed and count as wrong" if report["failed"] else text


def _intervals(evaluated: Sequence[Evaluated], right: Mapping[int, list[bool]], seed: int) -> dict[str, Any]:
    """95 % intervals by name; `top1_by_signer` allows for other signers, the others only for other clips of the same."""
    values = [float(r) for r in right[1]]
    groups = [e.reference for e in evaluated]
    intervals = {
        "top1": share_interval(right[1], seed=seed),
        "top5": share_interval(right[5], seed=seed),
        "per_class": bootstrap(values, groups=groups, seed=seed),
    }
    signers = [e.signer for e in evaluated]
    if all(signers) and len(set(signers)) >= MIN_SIGNERS:
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


def _cautions(evaluated: Sequence[Evaluated], num_classes: int) -> list[str]:
    """What these answers themselves give reason to doubt."""
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
    if num_classes <= 5:
        found.append(f"top-5 says nothing with {num_classes} classes: five answers name all of them")
    elif any(not e.error and len(e.scores) < 5 for e in evaluated):
        found.append("some clips come with fewer than five scored answers: top-5 is a lower bound")
    return found


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


def _bounds(interval: Interval) -> list[float]:
    return [interval.low, interval.high]


def _line(clip: Evaluated) -> str:
    return json.dumps(_jsonable(dataclasses.asdict(clip)), ensure_ascii=False, allow_nan=False) + "\n"


def _jsonable(value: Any) -> Any:
    """The same in JSON's own types: NaN and infinities, which JSON lacks, become null; paths and the like become text."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {str(name): _jsonable(inner) for name, inner in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_jsonable(inner) for inner in (sorted(value, key=str) if isinstance(value, set | frozenset) else value)]
        case _ if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # a numpy scalar
            return _jsonable(value.item())
        case _:
            return str(value)
