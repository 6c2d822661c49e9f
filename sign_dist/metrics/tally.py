"""A score of a whole corpus as sums over its sentences, so that sentences can be drawn again and again without scoring anew.

Word error rate is a sum of errors over a sum of words; BLEU and chrF follow from sums of n-gram counts. A `Tally` keeps one row
of such numbers per sentence and says how a score follows from their sum. Intervals and tests between two runs stand on it.
"""

import collections
import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from sign_dist.metrics.wer import WordErrors

Floats = NDArray[np.float64]

CHRF_ORDER, CHRF_BETA = 6, 2


@dataclasses.dataclass(frozen=True)
class Tally:
    """`rows` (n, k): what each sentence adds. `score` maps sums (..., k) to scores (...)."""

    rows: Floats
    score: Callable[[Floats], Floats]
    higher_is_better: bool = True

    @property
    def value(self) -> float:
        """The score of all sentences, each once."""
        return float(self.score(self.rows.sum(axis=0)))

    def __len__(self) -> int:
        return len(self.rows)


def of_means(values: Sequence[float], *, higher_is_better: bool = True) -> Tally:
    """A score that is the mean of its sentences' or clips' scores.

    >>> of_means([1.0, 0.0]).value
    0.5
    """
    return Tally(np.array([(value, 1.0) for value in values], dtype=np.float64).reshape(-1, 2), _ratio, higher_is_better)


def of_word_errors(errors: Sequence[WordErrors]) -> Tally:
    """Word error rate; lower is better."""
    rows = np.array([(e.errors, e.num_words) for e in errors], dtype=np.float64).reshape(-1, 2)
    return Tally(rows, _ratio, higher_is_better=False)


def of_ngrams(counts: Sequence[tuple[int, int, Sequence[int], Sequence[int]]], order: int) -> Tally:
    """BLEU of an order, 0..100, from (hypothesis length, reference length, matches by n, n-grams by n) of each sentence."""
    rows = [(h, r, *matches[:order], *totals[:order]) for h, r, matches, totals in counts]
    return Tally(np.array(rows, dtype=np.float64).reshape(-1, 2 + 2 * order), _bleu)


def of_characters(references: Sequence[str], hypotheses: Sequence[str]) -> Tally:
    """chrF2, 0..100, with n-grams of up to 6 characters and without blanks, as sacrebleu counts it (Popovic 2015)."""
    rows = [_character_counts(r, h) for r, h in zip(references, hypotheses, strict=True)]
    return Tally(np.array(rows, dtype=np.float64).reshape(-1, 3 * CHRF_ORDER), _chrf)


def _ratio(sums: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(sums[..., 0] / sums[..., 1])


def _bleu(sums: Floats) -> Floats:
    """Papineni et al. 2002 with sacrebleu's exponential smoothing: the k-th order without a match counts 1 / 2**k matches."""
    order = (sums.shape[-1] - 2) // 2
    lengths, matches, totals = sums[..., :2], sums[..., 2 : 2 + order], sums[..., 2 + order :]
    missed = (matches == 0) & (totals > 0)
    smoothed = np.where(missed, 0.5 ** np.cumsum(missed, axis=-1), matches)
    with np.errstate(divide="ignore", invalid="ignore"):
        precisions = np.log(smoothed / totals)
        brevity = np.minimum(0.0, 1 - lengths[..., 1] / lengths[..., 0])
        score = 100 * np.exp(brevity + precisions.mean(axis=-1))
    # Without a match at all, or without a single n-gram of the highest order, the score is 0.
    return np.where(matches.any(axis=-1) & (totals > 0).all(axis=-1), score, 0.0)


def _chrf(sums: Floats) -> Floats:
    """F2 of the mean precision and the mean recall over the orders that both sides have n-grams of."""
    counts = sums.reshape(*sums.shape[:-1], CHRF_ORDER, 3)
    hypothesis, reference, matches = counts[..., 0], counts[..., 1], counts[..., 2]
    present = (hypothesis > 0) & (reference > 0)
    orders = np.maximum(present.sum(axis=-1), 1)
    precision = np.divide(matches, hypothesis, out=np.zeros_like(matches), where=present).sum(axis=-1) / orders
    recall = np.divide(matches, reference, out=np.zeros_like(matches), where=present).sum(axis=-1) / orders
    weight = CHRF_BETA**2
    below = weight * precision + recall
    score = 100 * (1 + weight) * precision * recall
    return np.divide(score, below, out=np.zeros_like(score), where=below > 0)


def _character_counts(reference: str, hypothesis: str) -> list[int]:
    """(n-grams of the hypothesis, of the reference, in both) for n = 1..6."""
    sides = ["".join(text.split()) for text in (reference, hypothesis)]
    counts: list[int] = []
    for n in range(1, CHRF_ORDER + 1):
        asked, answered = (collections.Counter(text[i : i + n] for i in range(len(text) - n + 1)) for text in sides)
        # sacrebleu counts nothing for a hypothesis whose reference is too short for this order.
        counts += [answered.total() if asked else 0, asked.total(), (asked & answered).total()]
    return counts
