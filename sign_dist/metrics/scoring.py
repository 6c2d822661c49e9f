"""One door to all scores: a name, references and hypotheses -> a value, how it was computed, an interval, a comparison."""

import dataclasses
import math
from collections.abc import Collection, Sequence
from typing import Any, Literal, TypeVar, assert_never, get_args

from sign_dist.errors import DataError, SettingsError, did_you_mean
from sign_dist.metrics import accuracy, diagnose, tally, text
from sign_dist.metrics.align import Cost
from sign_dist.metrics.cleanup import cleanup_named
from sign_dist.metrics.intervals import Interval, corpus_interval, share_interval
from sign_dist.metrics.significance import Comparison, approximate_randomisation, mcnemar, paired_bootstrap
from sign_dist.metrics.tally import Tally
from sign_dist.metrics.wer import WordErrors, confusions, gloss_table, sentence_errors

Metric = Literal["wer", "accuracy", "bleu", "chrf", "rouge", "meteor", "cider"]
METRICS: tuple[Metric, ...] = get_args(Metric)
COSTS: tuple[Cost, ...] = get_args(Cost)
LANGUAGES: tuple[text.Language, ...] = get_args(text.Language)
TOP_K = (5, 10)
Name = TypeVar("Name", bound=str)


@dataclasses.dataclass(frozen=True)
class Scored:
    """One score. `unit` says its scale; `details` are further numbers of the same count, by name."""

    metric: Metric
    value: float
    unit: str
    signature: str
    tally: Tally
    details: dict[str, Any]
    findings: list[diagnose.Finding]


def score(
    metric: str,
    references: Sequence[str],
    hypotheses: Sequence[str],
    *,
    ids: Sequence[str] = (),
    ranked: Sequence[Sequence[str]] | None = None,
    cost: str = "sclite",
    cleanup: str = "none",
    language: str = "en",
    vocabulary: Collection[str] = (),
) -> Scored:
    """Score a corpus. Clean-up comes first, for every metric.

    Args:
        ranked: answers to each clip, the best first, for top-k accuracy.
        vocabulary: glosses that the model can answer, to find out which are asked and not among them.

    Raises:
        SettingsError: a metric, cost, clean-up or language that there is not.
        DataError: there is nothing to score.
    """
    name = metric_named(metric)
    how: Cost = _one_of("cost", cost, COSTS)
    tongue: text.Language = _one_of("language", language, LANGUAGES)
    if not references:
        raise DataError("there is no sentence to score: the references are empty")
    refs, hyps = cleanup_named(cleanup).apply(references, hypotheses)
    names = ids or [str(number) for number in range(1, len(refs) + 1)]
    findings = diagnose.empty_hypotheses(names, references, hypotheses) + diagnose.one_answer(names, references, hypotheses)
    if name in ("wer", "accuracy"):
        asked = {gloss for reference in refs for gloss in ([reference] if name == "accuracy" else reference.split())}
        findings += diagnose.missing_classes(vocabulary or asked - {""}, refs, hyps)
    match name:
        case "wer":
            return _wer(refs, hyps, how, cleanup, findings)
        case "accuracy":
            return _accuracy(refs, hyps, ranked if cleanup == "none" else None, cleanup, findings)
        case "bleu":
            orders = text.bleu(refs, hyps, language=tongue)
            details = {found.name: found.value for found in orders}
            return _of_text(name, "0..100", orders[-1], details, cleanup, findings)
        case "chrf":
            return _of_text(name, "0..100", text.chrf(refs, hyps), {}, cleanup, findings)
        case "rouge":
            found = text.rouge_l(refs, hyps, language=tongue)
            details = {"f1": text.rouge_l(refs, hyps, language=tongue, beta=1.0).value}
            return _of_text(name, "0..1", found, details, cleanup, findings)
        case "meteor":
            return _of_text(name, "0..1", text.meteor(refs, hyps, language=tongue), {}, cleanup, findings)
        case "cider":
            return _of_text(name, "0..10", text.cider(refs, hyps, language=tongue), {}, cleanup, findings)
        case _:
            assert_never(name)


def metric_named(name: str) -> Metric:
    """Raises SettingsError for a name that there is not."""
    return _one_of("metric", name, METRICS)


def interval_of(scored: Scored, *, level: float = 0.95, seed: int = 0) -> Interval:
    """Of an accuracy Wilson's interval where a bootstrap would be too narrow, else a bootstrap over sentences."""
    if scored.metric == "accuracy":
        return share_interval([bool(hit) for hit in scored.tally.rows[:, 0]], level=level, seed=seed)
    return corpus_interval(scored.tally, level=level, seed=seed)


def compare(first: Scored, second: Scored, *, seed: int = 0) -> list[Comparison]:
    """Tests of the difference between two runs on the same clips, in the same order."""
    found = [
        paired_bootstrap(first.tally, second.tally, seed=seed),
        approximate_randomisation(first.tally, second.tally, seed=seed),
    ]
    if first.metric == "accuracy":
        hits = ([bool(hit) for hit in scored.tally.rows[:, 0]] for scored in (first, second))
        found.append(mcnemar(*hits))
    return found


def _wer(refs: Sequence[str], hyps: Sequence[str], cost: Cost, cleanup: str, findings: list[diagnose.Finding]) -> Scored:
    rows = sentence_errors(refs, hyps, cost)
    total = sum(rows, WordErrors())
    if not total.num_words:
        raise DataError("a word error rate needs words in the references, and these have none after the clean-up")
    glosses = sorted(gloss_table(confusions(refs, hyps, cost)), key=lambda g: g.correct - g.support - g.inserted)
    details = {
        "words": total.num_words,
        "errors": total.errors,
        "hits": total.hits,
        "substitutions": total.substitutions,
        "deletions": total.deletions,
        "insertions": total.insertions,
        "glosses": [dataclasses.asdict(g) for g in glosses],
    }
    costs = "sub:4|ins:3|del:3" if cost == "sclite" else "sub:1|ins:1|del:1"
    signature = f"WER|cost:{cost}|{costs}|cleanup:{cleanup}|case:mixed"
    return Scored("wer", total.rate, "errors per word, not capped", signature, tally.of_word_errors(rows), details, findings)


def _accuracy(
    refs: Sequence[str],
    hyps: Sequence[str],
    ranked: Sequence[Sequence[str]] | None,
    cleanup: str,
    findings: list[diagnose.Finding],
) -> Scored:
    answers = [[h] if h else [] for h in hyps]
    right = accuracy.hits(refs, answers)
    mistakes: dict[str, list[tuple[str, int]]] = {}
    for (reference, answer), count in accuracy.confusion_counts(refs, hyps).items():
        if answer != reference:
            mistakes.setdefault(reference, []).append((answer, count))
    label, share = accuracy.majority_baseline(refs)
    rows = sorted(accuracy.class_table(refs, hyps), key=lambda c: c.correct - c.support)
    details: dict[str, Any] = {
        "per_class": accuracy.class_accuracy(refs, answers),
        "classes": len(set(refs)),
        "majority": {"label": label, "accuracy": share},
        "glosses": [
            {"gloss": c.label, "support": c.support, "answered": c.predicted, "correct": c.correct}
            | {"recall": None if math.isnan(c.recall) else c.recall}
            | {"precision": None if math.isnan(c.precision) else c.precision}
            | {"confused_with": mistakes.get(c.label, [])}
            for c in rows
        ],
    }
    for k in TOP_K if ranked is not None and any(len(answers) > 1 for answers in ranked) else ():
        details[f"top{k}"] = accuracy.top_k_accuracy(refs, ranked or (), k)
        details[f"top{k}_per_class"] = accuracy.class_accuracy(refs, ranked or (), k)
    value = tally.of_means([float(hit) for hit in right])
    return Scored("accuracy", value.value, "0..1", f"top-1|per instance|cleanup:{cleanup}|case:mixed", value, details, findings)


def _of_text(
    metric: Metric, unit: str, found: text.TextScore, details: dict[str, Any], cleanup: str, findings: list[diagnose.Finding]
) -> Scored:
    return Scored(metric, found.value, unit, f"{found.signature}|cleanup:{cleanup}", found.tally, details, findings)


def _one_of(what: str, name: str, known: tuple[Name, ...]) -> Name:
    for one in known:
        if name == one:
            return one
    raise SettingsError(f"no {what} {name!r}: there are {', '.join(known)};{did_you_mean(name, known)}".rstrip(";"))
