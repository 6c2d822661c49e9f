"""The part of a report on translations: BLEU and other text scores, by length, and examples from good to bad."""

from collections.abc import Sequence
from typing import Any

import numpy as np

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
from sign_dist.metrics import diagnose, text
from sign_dist.metrics.intervals import corpus_interval
from sign_dist.metrics.tally import Tally
from sign_dist.metrics.text import Language, TextScore

NUM_OTHERS = 2
HEADLINES = ("bleu4", "chrf", "rouge")
TITLES = {
    "bleu4": ("BLEU-4", "points", "0 to 100: matching word sequences up to four, of the whole corpus."),
    "chrf": ("chrF2", "points", "0 to 100: matching character sequences up to six; kinder to inflected words."),
    "rouge": ("ROUGE-L", "unit", "0 to 1: longest common subsequence of words, mean over sentences."),
}


def slt_part(evaluated: Sequence[Evaluated], *, language: Language, seed: int, min_signers: int) -> dict[str, Any]:
    """BLEU and chrF 0 to 100, ROUGE-L and METEOR 0 to 1, CIDEr-D 0 to 10; `sign_dist.metrics.text` says which variants."""
    references, answers = [e.reference for e in evaluated], [e.answer for e in evaluated]
    found = {s.name: s for s in _scores(references, answers, language)}
    signers = [e.signer for e in evaluated]
    intervals = {name: scaled(corpus_interval(found[name].tally, seed=seed), 1) for name in HEADLINES}
    if all(signers) and len(set(signers)) >= min_signers:
        intervals["bleu4_by_signer"] = scaled(over_signers(found["bleu4"].tally, signers, seed=seed), 1)
    bleu, chrf = found["bleu4"].tally, found["chrf"].tally
    words = [[len(text.words(t, language)) for t in side] for side in (references, answers)]
    other = elsewhere(evaluated)
    ids = [e.id for e in evaluated]
    return {
        "scores": [_headline(found[name], intervals[name]) for name in HEADLINES],
        **{name: score.value for name, score in found.items()},
        "signatures": {name: score.signature for name, score in found.items()},
        "intervals": intervals,
        "baselines": {"elsewhere": _worth(other, language) if other[0] else None},
        "findings": [
            str(f) for f in diagnose.empty_hypotheses(ids, references, answers) + diagnose.one_answer(ids, references, answers)
        ],
        "length_ratio": sum(words[1]) / max(1, sum(words[0])),
        "distinct_answers": len(set(answers)),
        "distinct_references": len(set(references)),
        "exact": sum(r == h for r, h in zip(references, answers, strict=True)) / len(evaluated),
        "by_length": [
            {"from": low, "to": high, "clips": len(places)} | _values(bleu, chrf, places, seed)
            for low, high, places in length_bins(words[0])
        ],
        "signers": signer_rows(evaluated, lambda places: _values(bleu, chrf, places, seed), signers=signers),
        "examples": _examples(evaluated, chrf),
    }


def _scores(references: Sequence[str], answers: Sequence[str], language: Language) -> list[TextScore]:
    return [
        *text.bleu(references, answers, language=language),
        text.chrf(references, answers),
        text.rouge_l(references, answers, language=language),
        text.meteor(references, answers, language=language),
        text.cider(references, answers, language=language),
    ]


def _headline(score: TextScore, interval: dict[str, Any]) -> dict[str, Any]:
    title, unit, words = TITLES[score.name]
    return {
        "name": score.name,
        "title": title,
        "value": score.value,
        "unit": unit,
        "higher_is_better": True,
        "interval": interval,
        "baseline": None,
        "signature": score.signature,
        "text": words,
    }


def _worth(other: tuple[list[str], list[str]], language: Language) -> dict[str, float]:
    return {"bleu4": text.bleu(*other, language=language)[-1].value, "chrf": text.chrf(*other).value}


def _values(bleu: Tally, chrf: Tally, places: Sequence[int], seed: int) -> dict[str, Any]:
    """Scores of some clips taken together; of fewer than five an interval says nothing."""
    mine = part_of(bleu, places)
    bounds = corpus_interval(mine, resamples=ROW_RESAMPLES, seed=seed) if len(mine) >= 5 else None
    return {
        "bleu4": mine.value,
        "bleu4_interval": [bounds.low, bounds.high] if bounds else None,
        "chrf": part_of(chrf, places).value,
    }


def _examples(evaluated: Sequence[Evaluated], chrf: Tally) -> dict[str, list[dict[str, Any]]]:
    """By each sentence's chrF, which also tells short ones apart, where BLEU-4 is mostly 0."""
    values = np.asarray(chrf.score(chrf.rows))
    shown = unlike(evaluated)
    pairs = [(e, float(value)) for e, value in zip(evaluated, values, strict=True) if e.id in shown]
    ordered = sorted(pairs, key=lambda pair: (-pair[1], -len(pair[0].reference), pair[0].id))
    return {
        name: [
            {
                "id": e.id,
                "reference": e.reference,
                "hypothesis": e.hypothesis,
                "chrf": value,
                "others": [[label, score] for label, score in e.scores if label != e.hypothesis][:NUM_OTHERS],
            }
            for e, value in chosen
        ]
        for name, chosen in examples(ordered, ("good", "median", "bad")).items()
    }
