"""Does a confidence of 0.8 mean right in 80 of 100 cases? Reliability, calibration error, likelihood, and a temperature.

Inputs are natural log-probabilities (N, V) of a closed set of classes, targets (N,) as columns of it, -1 for a clip whose
reference is none of the classes: its answer is wrong at any confidence, and it has no likelihood. A temperature T divides
log-probabilities before they are normalised again (Guo et al. 2017, arXiv 1706.04599): it changes confidences and no answer.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

NUM_BINS = 15
LOW, HIGH = 0.01, 100.0
# Probabilities below what float32 holds were rounded to 0 on their way here, and their logarithm would end every sum.
FLOOR = math.log(float(np.finfo(np.float32).tiny))


@dataclasses.dataclass(frozen=True)
class Bin:
    """Clips of similar confidence: how many, between which confidences, their mean confidence and the share that is right."""

    count: int
    low: float
    high: float
    confidence: float
    accuracy: float


@dataclasses.dataclass(frozen=True)
class Calibration:
    """How well confidences keep their word.

    `ece` is the expected calibration error: the mean over clips of |accuracy - confidence| of the clip's bin. Of few clips it is
    above 0 even where every confidence is true; `ece_if_true` and `ece_if_true_high` say how much: its mean and its 95th
    percentile over outcomes drawn with the very confidences given. `nll` is the mean negative log-likelihood in nats, NaN
    where no reference is a class.
    """

    clips: int
    confidence: float
    accuracy: float
    ece: float
    ece_if_true: float
    ece_if_true_high: float
    nll: float
    without_class: int
    bins: tuple[Bin, ...]


def calibration(
    log_probs: ArrayLike, targets: ArrayLike, *, temperature: float = 1.0, bins: int = NUM_BINS, seed: int = 0
) -> Calibration:
    """All of it at one temperature.

    Raises:
        ValueError: no clip, or shapes that do not fit.
    """
    rows, wanted = _checked(log_probs, targets)
    scaled = at_temperature(rows, temperature)
    confidences, right = np.exp(scaled.max(axis=1)), scaled.argmax(axis=1) == wanted
    found = reliability(confidences.tolist(), right.tolist(), bins=bins)
    draws = expected_errors(confidences, bins=bins, seed=seed)
    return Calibration(
        clips=len(rows),
        confidence=float(confidences.mean()),
        accuracy=float(right.mean()),
        ece=calibration_error(found),
        ece_if_true=float(draws.mean()),
        ece_if_true_high=float(np.quantile(draws, 0.95)),
        nll=likelihood(rows, wanted, temperature),
        without_class=int((wanted < 0).sum()),
        bins=tuple(found),
    )


def reliability(confidences: Sequence[float], right: Sequence[bool], *, bins: int = NUM_BINS) -> list[Bin]:
    """Bins of about equally many clips, in the order of confidence.

    Equal masses and not equal widths: a good model is nearly always sure, and nine of ten equal widths would stand on a handful of
    clips (Nixon et al. 2019, arXiv 1904.01685). Clips of one confidence are never parted, so the order of clips does not matter.

    >>> [(b.count, b.confidence, b.accuracy) for b in reliability([0.5, 0.5, 0.9, 0.9], [True, False, True, True], bins=2)]
    [(2, 0.5, 0.5), (2, 0.9, 1.0)]
    """
    if len(confidences) != len(right) or bins < 1:
        raise ValueError(f"need one outcome per confidence and bins >= 1: {len(confidences)} and {len(right)}, {bins=}")
    values = np.asarray(confidences, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    ordered, hits = values[order], np.asarray(right, dtype=np.float64)[order]
    return [
        Bin(
            end - start,
            float(ordered[start]),
            float(ordered[end - 1]),
            float(ordered[start:end].mean()),
            float(hits[start:end].mean()),
        )
        for start, end in _spans(ordered, bins)
    ]


def calibration_error(found: Sequence[Bin]) -> float:
    """Expected calibration error of bins, 0 to 1; NaN without a clip.

    >>> calibration_error([Bin(3, 0.5, 0.5, 0.5, 1.0), Bin(1, 0.9, 0.9, 0.9, 0.9)])
    0.375
    """
    total = sum(b.count for b in found)
    return math.fsum(b.count * abs(b.accuracy - b.confidence) for b in found) / total if total else math.nan


def expected_errors(confidences: ArrayLike, *, bins: int = NUM_BINS, draws: int = 400, seed: int = 0) -> Floats:
    """Calibration errors (draws,) of outcomes that are drawn with these very confidences as their probabilities."""
    ordered = np.sort(np.asarray(confidences, dtype=np.float64))
    starts = np.array([start for start, _ in _spans(ordered, bins)])
    outcomes = np.random.default_rng(seed).random((draws, len(ordered))) < ordered
    gaps = np.abs(np.add.reduceat(outcomes - ordered, starts, axis=1))
    return gaps.sum(axis=1) / len(ordered)


def likelihood(log_probs: ArrayLike, targets: ArrayLike, temperature: float = 1.0) -> float:
    """Mean negative log-likelihood in nats of the clips whose reference is a class; NaN if there is none."""
    rows, wanted = _checked(log_probs, targets)
    known = wanted >= 0
    if not known.any():
        return math.nan
    return float(-at_temperature(rows[known], temperature)[np.arange(known.sum()), wanted[known]].mean())


def fit_temperature(log_probs: ArrayLike, targets: ArrayLike) -> float:
    """The temperature of least negative log-likelihood, from 0.01 to 100; fit it on other clips than those it is reported on.

    In 1 / T the likelihood is that of an exponential family, so it has one minimum; golden-section search over log T finds it.

    Raises:
        ValueError: no clip whose reference is a class.
    """
    rows, wanted = _checked(log_probs, targets)
    known = wanted >= 0
    if not known.any():
        raise ValueError("a temperature needs clips whose references are among the classes, got none")
    rows, wanted = rows[known], wanted[known]
    low, high = math.log(LOW), math.log(HIGH)
    golden = (math.sqrt(5) - 1) / 2
    while high - low > 1e-7:
        left, right = high - golden * (high - low), low + golden * (high - low)
        if likelihood(rows, wanted, math.exp(left)) <= likelihood(rows, wanted, math.exp(right)):
            high = right
        else:
            low = left
    return math.exp((low + high) / 2)


def at_temperature(log_probs: ArrayLike, temperature: float) -> Floats:
    """Log-probabilities (N, V) divided by the temperature and normalised again."""
    if not temperature > 0:
        raise ValueError(f"a temperature is above 0, got {temperature}")
    rows = np.asarray(log_probs, dtype=np.float64) / temperature
    rows = rows - rows.max(axis=1, keepdims=True)
    return rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))


def _spans(ordered: Floats, bins: int) -> list[tuple[int, int]]:
    """Where bins of sorted values begin and end; a cut within equal values moves behind them."""
    count = len(ordered)
    lasts = [float(ordered[count * i // bins - 1]) for i in range(1, bins) if count * i // bins]
    cuts: list[int] = np.searchsorted(ordered, lasts, side="right").tolist()
    edges = sorted({0, *cuts, count}) if count else []
    return list(itertools.pairwise(edges))


def _checked(log_probs: ArrayLike, targets: ArrayLike) -> tuple[Floats, NDArray[np.int64]]:
    rows = np.maximum(np.asarray(log_probs, dtype=np.float64), FLOOR)
    wanted = np.asarray(targets, dtype=np.int64)
    if rows.ndim != 2 or wanted.shape != rows.shape[:1] or not len(rows) or (wanted >= rows.shape[1]).any():
        raise ValueError(f"need log-probabilities (N, V) and N targets below V, N > 0: got {rows.shape} and {wanted.shape}")
    return rows, wanted
