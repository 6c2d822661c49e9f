"""How far a score can be trusted: intervals around a mean of few clips, often of fewer signers.

- Percentile bootstrap: Efron and Tibshirani (1993), "An Introduction to the Bootstrap", chapter 13. Resampling whole
  signers instead of clips keeps the clips of one signer together, which resemble each other: Field and Welsh (2007),
  "Bootstrapping clustered data", J. R. Statist. Soc. B 69. With fewer than about ten signers such an interval is too
  narrow: Cameron, Gelbach and Miller (2008), "Bootstrap-based improvements for inference with clustered errors".
- Wilson score interval: Wilson (1927), J. Am. Stat. Assoc. 22; recommended up to n = 40 by Brown, Cai and DasGupta
  (2001), "Interval estimation for a binomial proportion", Stat. Sci. 16.
"""

import dataclasses
import math
import statistics
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sign_dist.metrics.tally import Tally

# Up to here a share is given Wilson's interval (Brown et al. 2001): a bootstrap of so few values is lumpy, too narrow.
SMALL_N = 40
RESAMPLES = 2000
# Weights held at once while resampling: 32 MiB of float64.
_BLOCK = 4 * 2**20


@dataclasses.dataclass(frozen=True)
class Interval:
    """`low <= value <= high` of a score of `n` clips; `num_clusters` is 0 unless whole clusters were resampled."""

    value: float
    low: float
    high: float
    level: float
    method: str
    n: int
    num_clusters: int = 0


def wilson(successes: int, n: int, *, level: float = 0.95) -> Interval:
    """Wilson score interval of a share `successes / n`; fit for small n, and for none or all of n.

    >>> interval = wilson(9, 10)
    >>> round(interval.low, 3), round(interval.high, 3)
    (0.596, 0.982)
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"need n >= 1 and 0 <= successes <= n: {successes=} {n=}")
    z = _z(level)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At the ends the exact bounds are 0 and 1; rounding may miss them by 1e-17.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return Interval(share, low, high, level, "Wilson score", n)


def bootstrap(
    values: Sequence[float],
    *,
    groups: Sequence[str] | None = None,
    clusters: Sequence[str] | None = None,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval of a mean.

    Args:
        values: one number per clip, such as 1.0 for a right answer.
        groups: the class of each clip. The score is then the mean over classes of the class's mean, as in per-class
            accuracy; a class that a resample misses does not count in it.
        clusters: the signer of each clip. Whole signers are then resampled, not clips.

    The same clips in another order give the same interval. It is widened where needed to contain the estimate.

    Raises:
        ValueError: no values, lengths that differ, or fewer than two clusters.
    """
    if not len(values):
        raise ValueError("a bootstrap needs at least one value, got none")
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(f"need 0 < level < 1 and resamples >= 1: {level=} {resamples=}")
    for name, labels in (("groups", groups), ("clusters", clusters)):
        if labels is not None and len(labels) != len(values):
            raise ValueError(f"need one of {name} per value: got {len(labels)} for {len(values)}")
    x = np.asarray(values, dtype=np.float64)
    group = _codes(groups, len(x))
    cluster = np.arange(len(x)) if clusters is None else _codes(clusters, len(x))
    # Sorted by class, so that sums per class are sums of runs; then by value, so that the clips' order does not matter.
    order = np.lexsort((x, cluster, group) if clusters is not None else (x, group))
    x, group, cluster = x[order], group[order], cluster[order]
    if clusters is None:
        cluster = np.arange(len(x))
    num_units = int(cluster.max()) + 1
    if clusters is not None and num_units < 2:
        raise ValueError(f"resampling clusters needs at least two of them, got {num_units}")
    starts = np.flatnonzero(np.r_[True, np.diff(group) > 0])
    estimate = float(_scores(np.ones((1, len(x))), x, starts)[0])
    rng = np.random.default_rng(seed)
    shares = np.full(num_units, 1 / num_units)
    rows = max(1, _BLOCK // len(x))
    scores = np.concatenate(
        [
            _scores(
                rng.multinomial(num_units, shares, size=min(rows, resamples - done))[:, cluster].astype(np.float64),
                x,
                starts,
            )
            for done in range(0, resamples, rows)
        ]
    )
    low, high = np.quantile(scores, [(1 - level) / 2, (1 + level) / 2])
    what = "clips" if clusters is None else "signers"
    return Interval(
        estimate,
        min(float(low), estimate),
        max(float(high), estimate),
        level,
        f"percentile bootstrap over {what}, {resamples} resamples",
        len(x),
        0 if clusters is None else num_units,
    )


def corpus_interval(tally: Tally, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """Percentile bootstrap interval of a corpus score, such as WER or BLEU: whole sentences are drawn, their sums scored.

    Draws in which nothing was asked do not count. It is widened where needed to contain the estimate.

    Raises:
        ValueError: no sentence.
    """
    n = len(tally)
    if not n:
        raise ValueError("a bootstrap needs at least one sentence, got none")
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(f"need 0 < level < 1 and resamples >= 1: {level=} {resamples=}")
    rng = np.random.default_rng(seed)
    shares = np.full(n, 1 / n)
    # In an order of their own, so that the order of the sentences does not matter.
    rows = tally.rows[np.lexsort(tally.rows.T)]
    size = max(1, _BLOCK // n)
    draws = np.concatenate(
        [tally.score(rng.multinomial(n, shares, size=min(size, resamples - done)) @ rows) for done in range(0, resamples, size)]
    )
    draws = draws[np.isfinite(draws)]
    value = tally.value
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2]) if len(draws) else (math.nan, math.nan)
    method = f"percentile bootstrap over sentences, {resamples} resamples"
    return Interval(value, min(float(low), value), max(float(high), value), level, method, n)


def share_interval(correct: Sequence[bool], *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """Interval of a share of right answers: bootstrap, or Wilson where that would be too narrow.

    That is up to `SMALL_N` clips, and where all are right or all wrong: a bootstrap of equal values has no width.
    """
    right = sum(correct)
    if len(correct) <= SMALL_N or right in (0, len(correct)):
        return wilson(right, len(correct), level=level)
    return bootstrap([float(c) for c in correct], level=level, resamples=resamples, seed=seed)


def _scores(weights: NDArray[np.float64], x: NDArray[np.float64], starts: NDArray[np.intp]) -> NDArray[np.float64]:
    """Mean over runs of each run's weighted mean, for every row of weights `(resamples, n)`, without empty runs."""
    counts = np.add.reduceat(weights, starts, axis=1)
    sums = np.add.reduceat(weights * x, starts, axis=1)
    present = counts > 0
    means = np.divide(sums, counts, out=np.zeros_like(sums), where=present)
    return means.sum(axis=1) / present.sum(axis=1)


def _codes(labels: Sequence[str] | None, n: int) -> NDArray[np.intp]:
    """Labels as numbers from 0, in the order of their names."""
    if labels is None:
        return np.zeros(n, dtype=np.intp)
    rank = {label: i for i, label in enumerate(sorted(set(labels)))}
    return np.array([rank[label] for label in labels], dtype=np.intp)


def _z(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"need 0 < level < 1: {level=}")
    return statistics.NormalDist().inv_cdf((1 + level) / 2)
