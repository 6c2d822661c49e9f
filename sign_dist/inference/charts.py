"""Numbers laid out for drawing: histograms, and the long tail of glosses. How they look is in the templates."""

import dataclasses
import math
import statistics
from collections.abc import Sequence
from typing import Any

# What a card of a page can show apart.
MAX_BINS = 24
MAX_COLUMNS = 160
# The farthest values share one bin where they would leave the rest no room.
FAR = 2.0
# Counts that differ by more are drawn by their exponent.
LOG_FROM = 60


def histogram(values: Sequence[float], *, whole: bool = False) -> dict[str, Any]:
    """Values -> bins `[edges[i], edges[i + 1])` with counts, and what people ask of them.

    `open_end`: the last bin holds all that lies beyond its lower edge. `whole`: values are whole numbers, and so are edges.
    Every value is in exactly one bin.
    """
    if not values:
        return {"num": 0, "edges": [], "counts": [], "open_end": False}
    ordered = sorted(values)
    high, far = ordered[-1], ordered[min(len(ordered) - 1, math.ceil(0.99 * len(ordered)))]
    open_end = high > FAR * far > 0
    low, top = ordered[0], far if open_end else high
    step = nice_step(max(top - low, 1e-9) / MAX_BINS, whole=whole)
    first = math.floor(low / step + 1e-9)
    count = math.floor(top / step + 1e-9) - first + 1 + open_end
    counts = [0] * count
    for value in ordered:
        counts[min(count - 1, max(0, math.floor(value / step + 1e-9) - first))] += 1
    return {
        "num": len(ordered),
        "edges": [round((first + i) * step, 6) for i in range(count + 1)],
        "counts": counts,
        "open_end": open_end,
        "min": low,
        "median": statistics.median(ordered),
        "mean": statistics.fmean(ordered),
        "p90": ordered[math.ceil(0.9 * len(ordered)) - 1],
        "max": high,
    }


def nice_step(least: float, *, whole: bool) -> float:
    """1, 2 or 5 times a power of ten, not less than `least`."""
    if whole and least <= 1:
        return 1.0
    power = 10.0 ** math.floor(math.log10(least))
    return next(round(power * factor, 12) for factor in (1, 2, 5, 10) if power * factor >= least * (1 - 1e-9))


@dataclasses.dataclass(frozen=True)
class Area:
    """One filled area of a chart, as the path of an SVG."""

    name: str
    path: str


@dataclasses.dataclass(frozen=True)
class Tail:
    """How often each gloss occurs, the most frequent first, as areas; by exponent where the counts differ very much."""

    areas: list[Area]
    ticks: list[tuple[float, str]]
    """Heights of the lines to read by, and what they mean."""
    by_exponent: bool
    num: int
    left: float = 40.0
    top: float = 8.0
    width: float = 640.0
    height: float = 180.0


def long_tail(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> Tail:
    """Areas for `rows`, which are sorted by `count`, each with a count under every one of `names`.

    Areas stand on each other; by exponent only their sum is drawn, since heights do not add up there.
    """
    tail = Tail([], [], rows[0]["count"] > LOG_FROM * max(1, statistics.median(row["count"] for row in rows)), len(rows))
    groups = _groups(len(rows))
    means = [[statistics.fmean(rows[i][name] for i in group) for name in names] for group in groups]
    highest = max(sum(each) for each in means)
    steps = _powers(highest) if tail.by_exponent else _even(highest)
    top = max(highest, steps[-1])

    def y(value: float) -> float:
        share = math.log10(1 + value) / math.log10(1 + top) if tail.by_exponent else value / top
        return tail.top + tail.height * (1 - share)

    x = [tail.left + tail.width * group.start / len(rows) for group in groups] + [tail.left + tail.width]
    ticks = [(round(y(step), 1), f"{step:,}") for step in steps]
    if tail.by_exponent:
        areas = [Area("all", _area(x, [y(sum(each)) for each in means], [y(0)] * len(means)))]
        return dataclasses.replace(tail, areas=areas, ticks=ticks)
    below = [0.0] * len(means)
    areas = list[Area]()
    for i, name in enumerate(names):
        above = [low + each[i] for low, each in zip(below, means, strict=True)]
        areas.append(Area(name, _area(x, list(map(y, above)), list(map(y, below)))))
        below = above
    return dataclasses.replace(tail, areas=areas, ticks=ticks)


def _groups(count: int) -> list[range]:
    """Ranks that share a column."""
    columns = min(count, MAX_COLUMNS)
    edges = [i * count // columns for i in range(columns + 1)]
    return [range(edges[i], edges[i + 1]) for i in range(columns)]


def _area(x: Sequence[float], above: Sequence[float], below: Sequence[float]) -> str:
    """A staircase between two heights per column."""
    there = "".join(f"V{high:.1f}H{x[i + 1]:.1f}" for i, high in enumerate(above))
    back = "".join(f"V{below[i]:.1f}H{x[i]:.1f}" for i in reversed(range(len(below))))
    return f"M{x[0]:.1f} {below[0]:.1f}{there}{back}Z"


def _powers(highest: float) -> list[int]:
    return [10**k for k in range(math.floor(math.log10(max(highest, 1)) + 1e-9) + 1)]


def _even(highest: float) -> list[int]:
    step = max(1, round(nice_step(max(highest, 1) / 4, whole=True)))
    return [step * k for k in range(1, max(1, math.ceil(highest / step)) + 1)]
