"""What reports on gloss sequences and on translations share: corpus scores with intervals, by signer, by length, examples."""

import collections
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from sign_dist.inference.evaluated import Evaluated
from sign_dist.metrics.intervals import Interval, corpus_interval
from sign_dist.metrics.tally import Tally

MOST_BINS = 5
NUM_EXAMPLES = 3
# How often all answers are handed on to other clips, to see what they are worth there.
NUM_SHIFTS = 3
# A row of a table needs no third digit of its interval.
ROW_RESAMPLES = 500

T = TypeVar("T")


def over_signers(tally: Tally, signers: Sequence[str], *, seed: int = 0) -> Interval:
    """Percentile bootstrap interval of a corpus score that draws whole signers: how other signers might fare."""
    grouped = by_signer(tally, signers)
    found = corpus_interval(grouped, seed=seed)
    return dataclasses.replace(found, method=found.method.replace("sentences", "signers"), n=len(tally), num_clusters=len(grouped))


def by_signer(tally: Tally, signers: Sequence[str]) -> Tally:
    """A tally with one row per signer, the sum of the rows of their clips: what is drawn or swapped then are signers."""
    index = {name: i for i, name in enumerate(sorted(set(signers)))}
    sums = np.zeros((len(index), tally.rows.shape[1]))
    np.add.at(sums, [index[name] for name in signers], tally.rows)
    return dataclasses.replace(tally, rows=sums)


def scaled(interval: Interval, by: float) -> dict[str, Any]:
    """An interval as JSON, times a factor such as 100 for percent."""
    return dataclasses.asdict(interval) | {name: by * getattr(interval, name) for name in ("value", "low", "high")}


def elsewhere(clips: Sequence[Evaluated]) -> tuple[list[str], list[str]]:
    """(references, answers given to other clips): what the answers are worth without having seen the clip.

    The clips are ordered by name and all answers are handed on by a quarter, a half and three quarters of the list. Empty for
    fewer than four clips.
    """
    if len(clips) < NUM_SHIFTS + 1:
        return [], []
    ordered = sorted(clips, key=lambda e: e.id)
    references, answers = [e.reference for e in ordered], [e.answer for e in ordered]
    shifts = [len(ordered) * k // (NUM_SHIFTS + 1) for k in range(1, NUM_SHIFTS + 1)]
    return references * len(shifts), [answer for k in shifts for answer in [*answers[k:], *answers[:k]]]


def length_bins(lengths: Sequence[int]) -> list[tuple[int, int, list[int]]]:
    """(from, to, places) of at most `MOST_BINS` ranges of lengths with about as many clips each; every clip is in one.

    >>> [(low, high, len(places)) for low, high, places in length_bins([1, 1, 2, 3, 5, 8])]
    [(1, 1, 2), (2, 2, 1), (3, 3, 1), (5, 5, 1), (8, 8, 1)]
    """
    counts = collections.Counter(lengths)
    bins: list[list[int]] = []
    want = len(lengths) / MOST_BINS
    filled = 0
    for length in sorted(counts):
        # A new range begins where the ranges before it have had their share of the clips.
        if not bins or (len(bins) < MOST_BINS and filled >= want * len(bins)):
            bins.append([])
        bins[-1].append(length)
        filled += counts[length]
    return [(b[0], b[-1], [i for i, n in enumerate(lengths) if b[0] <= n <= b[-1]]) for b in bins]


def examples(ordered: Sequence[T], names: tuple[str, str, str], most: int = NUM_EXAMPLES) -> dict[str, list[T]]:
    """The first, the middle and the last of a list, without one in two places; the last come from the end.

    >>> examples(range(9), ("best", "median", "worst"), 2)
    {'best': [0, 1], 'median': [3, 4], 'worst': [8, 7]}
    """
    n = len(ordered)
    each = min(most, -(-n // 3))
    first, last = list(ordered[:each]), list(ordered[max(each, n - each) :])[::-1]
    start = max(each, (n - each) // 2)
    middle = list(ordered[start : min(start + each, n - len(last))])
    return dict(zip(names, (first, middle, last), strict=True))


def unlike(clips: Sequence[Evaluated]) -> set[str]:
    """Ids of clips that do not repeat the reference and the answer of one before them, nor failed: examples worth showing."""
    first: dict[tuple[str, str], str] = {}
    for clip in sorted(clips, key=lambda e: e.id):
        if not clip.error:
            first.setdefault((clip.reference, clip.hypothesis), clip.id)
    return set(first.values())


def signer_rows(
    clips: Sequence[Evaluated], row: Callable[[list[int]], Mapping[str, Any]], *, signers: Sequence[str]
) -> list[dict[str, Any]]:
    """One row per signer, by name: clips, failed ones, and what `row` says of the places of a signer's clips."""
    places: dict[str, list[int]] = collections.defaultdict(list)
    for i, name in enumerate(signers):
        places[name].append(i)
    return [
        {"signer": name, "clips": len(mine), "failed": sum(bool(clips[i].error) for i in mine), **row(mine)}
        for name, mine in sorted(places.items())
    ]


def part_of(tally: Tally, places: Sequence[int]) -> Tally:
    """The tally of some of its sentences."""
    return dataclasses.replace(tally, rows=tally.rows[list(places)])
