"""The curves of a training laid out as small charts that stay readable on a phone. How they look is in the templates."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from sign_dist.inference.charts import nice_step
from sign_dist.training.curves import Point, best_of, curve_groups, points_of, stage_bands

# As many lines as can be told apart; further ones are only in report.json.
MAX_LINES = 6
# The bottom of a loss may lie far below its beginning.
LOG_RATIO = 50


@dataclasses.dataclass(frozen=True)
class Line:
    """One curve: its path in the chart, and a mark on each of its points where there are few."""

    name: str
    path: str
    marks: list[Point]
    dashed: bool
    last: str
    """Its last value in words."""


@dataclasses.dataclass(frozen=True)
class Chart:
    """A panel with one scale, laid out in units of about a pixel."""

    title: str
    lines: list[Line]
    left_out: int
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    bands: list[tuple[float, float, str, bool]]
    """(from, to, name of the stage, whether it is shaded)."""
    best: tuple[float, float, str] | None
    """Where the chosen score is best, and what to say of it; y is NaN in the other charts."""
    description: str
    width: float = 360.0
    height: float = 190.0
    left: float = 46.0
    right: float = 352.0
    top: float = 22.0
    bottom: float = 164.0


def training_charts(rows: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """Charts of the lines of metrics.jsonl; none without a line."""
    if not rows:
        return []
    bands, best = stage_bands(rows), best_of(rows)
    return [
        _chart(rows, group.title, group.names, group.shares, bands, best)
        for group in curve_groups(rows)
        if any(points_of(rows, name) for name in group.names)
    ]


def _chart(
    rows: Sequence[Mapping[str, Any]],
    title: str,
    names: Sequence[str],
    shares: bool,
    bands: Sequence[tuple[float, float, float]],
    best: tuple[float, str, float] | None,
) -> Chart:
    curves = {name: points for name in names if (points := points_of(rows, name))}
    shown = dict(list(curves.items())[:MAX_LINES])
    chart = Chart(title, [], len(curves) - len(shown), [], [], [], None, "")
    first, last = rows[0]["epoch"] - 0.5, rows[-1]["epoch"] + 0.5
    values = [value for points in shown.values() for _, value in points]
    low, high = min(values), max(values)
    by_exponent = title == "loss" and 1e-300 < low < high / LOG_RATIO < 1e300
    ticks = (
        [0.0, 0.25, 0.5, 0.75, 1.0]
        if shares
        else _powers(low, high)
        if by_exponent
        else even_ticks(low if title == "loss" else min(low, 0.0), high)
    )
    low, high = min(low, ticks[0]), max(high, ticks[-1])

    def x(epoch: float) -> float:
        return round(chart.left + (chart.right - chart.left) * (epoch - first) / (last - first), 1)

    def y(value: float) -> float:
        part = math.log(value / low) / math.log(high / low) if by_exponent else (value - low) / (high - low)
        return round(chart.bottom - (chart.bottom - chart.top) * part, 1)

    mark = ""
    if best:
        name, at = best[1], best[2]
        mark = f"{name} is best at epoch {best[0]:g}: {at:.4g}"
    text = {name: f"{points[-1][1]:.4g}" for name, points in shown.items()}
    return dataclasses.replace(
        chart,
        lines=[
            Line(
                name,
                "M" + "L".join(f"{x(epoch)} {y(value)}" for epoch, value in points),
                [(x(epoch), y(value)) for epoch, value in points] if len(points) <= 12 else [],
                name.startswith("train/"),
                text[name],
            )
            for name, points in shown.items()
        ],
        x_ticks=[(x(epoch), f"{epoch:g}") for epoch in _epochs(rows[0]["epoch"], rows[-1]["epoch"])],
        y_ticks=[(y(tick), _percent(tick) if shares else f"{tick:g}") for tick in ticks],
        bands=[(x(start), x(end), f"stage {stage:g}", bool(i % 2)) for i, (start, end, stage) in enumerate(bands)],
        best=(x(best[0]), y(best[2]) if best[1] in shown else math.nan, mark) if best else None,
        description=f"{title} by epoch; at the end " + ", ".join(f"{name} {value}" for name, value in text.items()),
    )


def even_ticks(low: float, high: float) -> list[float]:
    """Four or five round values that enclose the data; from 0 where that costs little."""
    if 0 < low < 0.5 * high:
        low = 0.0
    if high - low < 1e-9:  # as good as flat, and less than steps can tell apart
        high = low + max(0.1 * abs(low), 1e-8)
    step = nice_step((high - low) / 4, whole=False)
    start, end = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * i, 12) for i in range(start, end + 1)]


def _powers(low: float, high: float) -> list[float]:
    """Powers of ten that enclose the data, not more than seven of them."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = -(-(last - first) // 6)
    return [10.0**k for k in range(first, last + every, every)]


def _epochs(first: float, last: float) -> list[float]:
    step = max(1, round(nice_step(max((last - first) / 6, 1e-9), whole=True)))
    inner = range(math.ceil(first / step) * step, math.floor(last) + 1, step)
    return [float(epoch) for epoch in inner] or [first]


def _percent(share: float) -> str:
    return f"{100 * share:g} %"
