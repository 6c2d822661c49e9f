"""The part of a report on gloss sequences: word error rate, what kind of errors, which glosses, and aligned examples."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from sign_dist.inference.corpus_scores import (
    ROW_RESAMPLES,
    elsewhere,
    examples,
    length_bins,
    over_signers,
    part_of,
    scaled,
    signer_rows,
    unlike,
)
from sign_dist.inference.evaluated import Evaluated
from sign_dist.metrics import scoring, tally
from sign_dist.metrics.align import align
from sign_dist.metrics.intervals import corpus_interval, share_interval, wilson
from sign_dist.metrics.wer import WordErrors, confusions, sentence_errors

# Other answers that are shown beside an example.
NUM_OTHERS = 2


def cslr_part(evaluated: Sequence[Evaluated], *, vocabulary: Sequence[str], seed: int, min_signers: int) -> dict[str, Any]:
    """Word error rates are percent of the references' glosses, aligned as sclite does; more insertions than glosses give over 100.

    Raises:
        DataError: no clip has a gloss.
    """
    ids, references, answers = [e.id for e in evaluated], [e.reference for e in evaluated], [e.answer for e in evaluated]
    scored = scoring.score("wer", references, answers, ids=ids, vocabulary=vocabulary)
    rows = sentence_errors(references, answers)
    total = sum(rows, WordErrors())
    exact = [r.split() == h.split() for r, h in zip(references, answers, strict=True)]
    signers = [e.signer for e in evaluated]
    intervals = {
        "wer": scaled(corpus_interval(scored.tally, seed=seed), 100),
        "exact": scaled(share_interval(exact, seed=seed), 1),
    }
    if all(signers) and len(set(signers)) >= min_signers:
        intervals["wer_by_signer"] = scaled(over_signers(scored.tally, signers, seed=seed), 100)
    wer = 100 * total.rate
    other = elsewhere(evaluated)
    counts = confusions(references, answers)
    return {
        "scores": [
            {
                "name": "wer",
                "title": "Word error rate",
                "value": wer,
                "unit": "percent",
                "higher_is_better": False,
                "interval": intervals["wer"],
                "baseline": None,
                "signature": scored.signature,
                "text": f"{total.errors} errors in {total.num_words} glosses; lower is better.",
            },
            {
                "name": "exact",
                "title": "Whole sequences",
                "value": sum(exact) / len(exact),
                "unit": "share",
                "higher_is_better": True,
                "interval": intervals["exact"],
                "baseline": None,
                "signature": "exact match of the whole sequence|case:mixed",
                "text": f"{sum(exact)} of {len(exact)} clips have every gloss right.",
            },
        ],
        "wer": wer,
        "exact": sum(exact) / len(exact),
        "words": total.num_words,
        "errors": total.errors,
        "hits": total.hits,
        "substitutions": total.substitutions,
        "deletions": total.deletions,
        "insertions": total.insertions,
        "error_shares": {
            name: 100 * count / total.num_words
            for name, count in (("S", total.substitutions), ("D", total.deletions), ("I", total.insertions))
        },
        "intervals": intervals,
        "baselines": {
            "silence": {"wer": 100.0},
            "elsewhere": {"wer": 100 * scoring.score("wer", *other).value} if other[0] else None,
        },
        "findings": [str(finding) for finding in scored.findings],
        "glosses": [
            g | {"recall": g["correct"] / g["support"] if g["support"] else None, "recall_interval": _bounds(g)}
            for g in scored.details["glosses"]
        ],
        "confusions": [{"reference": r, "hypothesis": h, "count": count} for (r, h), count in counts.items() if r != h and r and h],
        "by_length": [
            {"from": low, "to": high, "clips": len(places), **_summed([rows[i] for i in places])}
            for low, high, places in length_bins([len(r.split()) for r in references])
        ],
        "signers": signer_rows(
            evaluated,
            lambda places: (
                _summed([rows[i] for i in places])
                | {"wer_interval": _interval(tally.of_word_errors([rows[i] for i in places]), seed)}
            ),
            signers=signers,
        ),
        "examples": _examples(evaluated, rows),
    }


def _summed(rows: Sequence[WordErrors]) -> dict[str, Any]:
    total = sum(rows, WordErrors())
    return {
        "words": total.num_words,
        "wer": 100 * total.rate,
        "substitutions": total.substitutions,
        "deletions": total.deletions,
        "insertions": total.insertions,
    }


def _interval(of: tally.Tally, seed: int) -> list[float] | None:
    """Of a few clips a bootstrap says nothing."""
    if len(of) < 5:
        return None
    found = corpus_interval(part_of(of, range(len(of))), resamples=ROW_RESAMPLES, seed=seed)
    return [100 * found.low, 100 * found.high]


def _bounds(gloss: dict[str, Any]) -> list[float] | None:
    if not gloss["support"]:
        return None
    found = wilson(gloss["correct"], gloss["support"])
    return [found.low, found.high]


def _examples(evaluated: Sequence[Evaluated], rows: Sequence[WordErrors]) -> dict[str, list[dict[str, Any]]]:
    """Best first by word error rate; of equal clips the longer ones, which say more, lie towards the ends."""
    shown = unlike(evaluated)
    pairs = [(e, row) for e, row in zip(evaluated, rows, strict=True) if row.num_words and e.id in shown]
    ordered = sorted(pairs, key=lambda pair: (pair[1].rate, (1 if pair[1].rate >= 1 else -1) * pair[1].num_words, pair[0].id))
    return {
        name: [
            {
                "id": e.id,
                "wer": 100 * row.rate,
                "errors": row.errors,
                "steps": [dataclasses.astuple(step) for step in align(e.reference.split(), e.hypothesis.split())],
                "others": [[label, score] for label, score in e.scores if label != e.hypothesis][:NUM_OTHERS],
            }
            for e, row in chosen
        ]
        for name, chosen in examples(ordered, ("best", "median", "worst")).items()
    }
