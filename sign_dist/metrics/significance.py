"""Is one run better than another, or was it luck? Paired tests on the same clips.

- Paired bootstrap: Koehn (2004), "Statistical significance tests for machine translation evaluation". The same sentences are
  drawn for both runs. p is twice the share of draws in which the observed winner is not ahead, at most 1.
- Approximate randomisation: Noreen (1989); Riezler and Maxwell (2005) recommend it over the bootstrap. Each sentence's answers
  change places between the runs with probability 1/2; p is the share of draws with a difference at least as large as the one seen.
- McNemar (1947), exact: of the clips that one run alone has right, is one run's share compatible with one half?

A p of 0.05 says that chance alone would show such a difference once in twenty; of twenty comparisons, one is expected to.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from sign_dist.metrics.tally import Floats, Tally

RESAMPLES = 2000
# Numbers drawn at once: 32 MiB of float64.
_BLOCK = 4 * 2**20
# Two scores that differ by rounding are equal.
_EQUAL = 1e-12


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Scores of two runs on the same `n` clips; `p` is two-sided. `low` and `high` bound `difference` (NaN: not computed)."""

    first: float
    second: float
    p: float
    method: str
    n: int
    low: float = math.nan
    high: float = math.nan

    @property
    def difference(self) -> float:
        """Second minus first."""
        return self.second - self.first


def paired_bootstrap(first: Tally, second: Tally, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0) -> Comparison:
    """Difference of a corpus score between two runs, with a percentile interval.

    Raises:
        ValueError: the runs have not the same number of sentences, or none.
    """
    _check(first, second, resamples)
    if not 0 < level < 1:
        raise ValueError(f"need 0 < level < 1: {level=}")
    rng = np.random.default_rng(seed)
    n = len(first)
    shares = np.full(n, 1 / n)
    found: list[Floats] = []
    for count in _blocks(n, resamples):
        weights = rng.multinomial(n, shares, size=count).astype(np.float64)
        found.append(second.score(weights @ second.rows) - first.score(weights @ first.rows))
    draws = np.concatenate(found)
    draws = draws[~np.isnan(draws)]
    seen = second.value - first.value
    behind = draws <= _EQUAL if seen > 0 else draws >= -_EQUAL
    p = min(1.0, 2 * (behind.sum() + 1) / (len(draws) + 1))
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2]) if len(draws) else (math.nan, math.nan)
    method = f"paired bootstrap, {resamples} resamples, {level:g} interval"
    return Comparison(first.value, second.value, float(p), method, n, float(low), float(high))


def approximate_randomisation(first: Tally, second: Tally, *, resamples: int = RESAMPLES, seed: int = 0) -> Comparison:
    """Two-sided p of the difference of a corpus score between two runs.

    Raises:
        ValueError: the runs have not the same number of sentences, or none.
    """
    _check(first, second, resamples)
    rng = np.random.default_rng(seed)
    n = len(first)
    change = second.rows - first.rows
    sums = first.rows.sum(axis=0), second.rows.sum(axis=0)
    seen = abs(first.value - second.value)
    at_least = 0
    for count in _blocks(n, resamples):
        swapped = rng.integers(0, 2, size=(count, n)).astype(np.float64) @ change
        differences = np.abs(first.score(sums[0] + swapped) - second.score(sums[1] - swapped))
        at_least += int((~(differences < seen - _EQUAL * max(1.0, seen))).sum())
    p = (at_least + 1) / (resamples + 1)
    return Comparison(first.value, second.value, p, f"approximate randomisation, {resamples} resamples", n)


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> Comparison:
    """Accuracy of two runs on the same clips: the exact two-sided binomial test on the clips in which they differ.

    >>> comparison = mcnemar([True] * 8 + [False] * 2, [True] * 2 + [False] * 6 + [True] * 2)
    >>> round(comparison.p, 4)
    0.2891
    """
    if len(first) != len(second) or not first:
        raise ValueError(f"need the same clips, at least one, of both runs: got {len(first)} and {len(second)}")
    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    differing = only_first + only_second
    # As many as 2 ** differing outcomes: whole numbers stay exact where floats would overflow.
    tail = sum(math.comb(differing, k) for k in range(min(only_first, only_second) + 1))
    p = min(1.0, 2 * tail / 2**differing)
    method = f"McNemar, exact, {differing} clips differ"
    return Comparison(sum(first) / len(first), sum(second) / len(second), p, method, len(first))


def _blocks(n: int, resamples: int) -> list[int]:
    """How many draws of n sentences at a time."""
    rows = max(1, _BLOCK // n)
    return [min(rows, resamples - done) for done in range(0, resamples, rows)]


def _check(first: Tally, second: Tally, resamples: int) -> None:
    if len(first) != len(second) or not len(first):
        raise ValueError(f"need the same sentences, at least one, of both runs: got {len(first)} and {len(second)}")
    if first.rows.shape != second.rows.shape or first.higher_is_better != second.higher_is_better:
        raise ValueError("the two runs are tallied for different scores")
    if resamples < 1:
        raise ValueError(f"need resamples >= 1: {resamples=}")
