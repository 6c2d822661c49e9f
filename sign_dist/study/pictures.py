"""The pictures of a study laid out in units of about a pixel; how they look is in the template.

A mark or a path carries a class: `finished`, `stopped`, `failed`, `running`, `best`, `front`, or `q0` (best fifth) to `q4`.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from sign_dist.inference.curve_charts import even_ticks
from sign_dist.study.importance import as_text, is_number
from sign_dist.study.objectives import direction
from sign_dist.study.pareto import front
from sign_dist.study.rows import TrialRow, best_of

# More axes than these cannot be told apart; the most important come first.
MOST_AXES = 8
FIFTHS = 5


@dataclasses.dataclass(frozen=True)
class Mark:
    x: float
    y: float
    kind: str
    text: str


@dataclasses.dataclass(frozen=True)
class Stroke:
    path: str
    kind: str
    text: str


@dataclasses.dataclass(frozen=True)
class Plot:
    """Two axes with what lies between them."""

    title: str
    description: str
    x_name: str
    y_name: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    marks: list[Mark]
    strokes: list[Stroke]
    width: float = 420.0
    height: float = 250.0
    left: float = 52.0
    right: float = 410.0
    top: float = 14.0
    bottom: float = 208.0


@dataclasses.dataclass(frozen=True)
class Axis:
    """An upright axis of parallel coordinates, with the values at its ends or of its choices."""

    x: float
    name: str
    ticks: list[tuple[float, str]]


@dataclasses.dataclass(frozen=True)
class Parallel:
    """A line per trial across all settings."""

    axes: list[Axis]
    strokes: list[Stroke]
    left_out: int
    width: float
    height: float = 300.0
    top: float = 34.0
    bottom: float = 270.0


def history(rows: Sequence[TrialRow], metric: str, mode: str) -> Plot | None:
    """The value of each trial by its number, and the best so far."""
    known = [row for row in rows if row.value is not None]
    if not known:
        return None
    best = best_of(rows)
    frame = _Frame([row.number for row in known], [_value(row) for row in known], whole=True)
    better = max if mode == "max" else min
    so_far: list[tuple[float, float]] = []
    for row in sorted(known, key=lambda row: row.number):
        value = better(_value(row), so_far[-1][1]) if so_far else _value(row)
        if so_far:
            so_far.append((row.number, so_far[-1][1]))
        so_far.append((row.number, value))
    marks = [
        Mark(
            frame.x(row.number),
            frame.y(_value(row)),
            "best" if row is best else row.state,
            f"trial {row.number}: {_value(row):.4g}",
        )
        for row in sorted(known, key=lambda row: row is best)
    ]
    strokes = [Stroke(frame.path(so_far), "front", "best so far")]
    text = f"{metric} of {len(known)} trials, the best {better(_value(row) for row in known):.4g}"
    return frame.plot("Best so far", text, "trial", metric, marks, strokes)


def curves(rows: Sequence[TrialRow], metric: str) -> Plot | None:
    """Every trial's curve; a mark stands where a trial was stopped or failed."""
    drawn = [row for row in rows if row.curve]
    points = [point for row in drawn for point in row.curve]
    if not points:
        return None
    best = best_of(rows)
    frame = _Frame([x for x, _ in points], [y for _, y in points], whole=True)
    strokes = [
        Stroke(frame.path(row.curve), "best" if row is best else row.state, f"trial {row.number}, {row.state}")
        for row in sorted(drawn, key=lambda row: (row is best, row.state == "finished"))
    ]
    marks = [
        Mark(
            frame.x(row.curve[-1][0]),
            frame.y(row.curve[-1][1]),
            row.state,
            f"trial {row.number} {row.state}: {row.reason or 'no reason noted'}",
        )
        for row in drawn
        if row.state in ("stopped", "failed")
    ]
    text = f"{metric} by epoch of {len(drawn)} trials, {len(marks)} of which were stopped or failed"
    return frame.plot("Curves", text, "epoch", metric, marks, strokes)


def pareto(rows: Sequence[TrialRow], first: str, second: str) -> Plot | None:
    """Trials by two objectives, and the front that no trial beats in both."""
    names = [second, first]
    known = [row for row in rows if all(math.isfinite(row.objectives.get(name, math.nan)) for name in names)]
    if not known:
        return None
    best = front(rows, names)
    numbers = {row.number for row in best}
    frame = _Frame([row.objectives[second] for row in known], [row.objectives[first] for row in known])
    corners: list[tuple[float, float]] = []
    for row in best:
        here = (row.objectives[second], row.objectives[first])
        if corners:  # nothing between two points of the front reaches further than their worse values
            corners.append((here[0], corners[-1][1]))
        corners.append(here)
    marks = [
        Mark(
            frame.x(row.objectives[second]),
            frame.y(row.objectives[first]),
            "best" if row.number in numbers else row.state,
            f"trial {row.number}: {first} {row.objectives[first]:.4g}, {second} {row.objectives[second]:.4g}",
        )
        for row in sorted(known, key=lambda row: row.number in numbers)
    ]
    strokes = [Stroke(frame.path(corners), "front", "Pareto front")] if corners else []
    better = ", ".join(f"{name} {'lower' if direction(name) == 'min' else 'higher'} is better" for name in (first, second))
    text = f"{len(known)} trials by {first} and {second}, {len(best)} of them on the front; {better}"
    return frame.plot(f"{first} and {second}", text, second, first, marks, strokes)


def parallel(rows: Sequence[TrialRow], order: Sequence[str], metric: str) -> Parallel | None:
    """Settings side by side, in the given order, and the value last; coloured by fifths of the score."""
    known = sorted((row for row in rows if row.score is not None), key=lambda row: -(row.score or 0.0))
    varied = [name for name in order if len({as_text(row.settings[name]) for row in known if name in row.settings}) > 1]
    if len(known) < 2 or not varied:
        return None
    shown = varied[:MOST_AXES]
    step = 96.0
    blank = Parallel([], [], len(varied) - len(shown), 70 + step * len(shown) + 40)
    scales = [_Scale([row.settings[n] for row in known if n in row.settings], blank.top, blank.bottom) for n in shown]
    scales.append(_Scale([row.value for row in known], blank.top, blank.bottom))
    axes = [
        Axis(56 + step * i, name, scale.ticks)
        for i, (name, scale) in enumerate(zip([*(n.rpartition(".")[2] for n in shown), metric], scales, strict=True))
    ]
    strokes: list[Stroke] = []
    for rank in reversed(range(len(known))):
        row = known[rank]
        values = [*(row.settings.get(name) for name in shown), row.value]
        points = [(axis.x, scale.y(value)) for axis, scale, value in zip(axes, scales, values, strict=True) if value is not None]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        strokes.append(Stroke(path, f"q{rank * FIFTHS // len(known)}", f"trial {row.number}: {_value(row):.4g}"))
    return dataclasses.replace(blank, axes=axes, strokes=strokes)


class _Scale:
    """Values -> heights: numbers from least to greatest, by exponent where they span more than a power of ten; or choices."""

    def __init__(self, values: Sequence[Any], top: float, bottom: float) -> None:
        self._top, self._bottom = top, bottom
        self._choices = [] if is_number(values) else sorted({as_text(value) for value in values})
        if self._choices:
            self.ticks = [(self.y(choice), choice) for choice in self._choices]
            return
        self._low, self._high = float(min(values)), float(max(values))
        self._by_exponent = self._low > 0 and self._high / self._low > 10
        self.ticks = [(self.y(value), f"{value:.3g}") for value in sorted({self._low, self._high})]

    def y(self, value: Any) -> float:
        if self._choices:
            share = (self._choices.index(as_text(value)) + 0.5) / len(self._choices)
        elif self._high == self._low:
            share = 0.5
        elif self._by_exponent:
            share = math.log(value / self._low) / math.log(self._high / self._low)
        else:
            share = (value - self._low) / (self._high - self._low)
        return round(self._bottom - (self._bottom - self._top) * share, 1)


class _Frame:
    """Where numbers lie between two axes that enclose them."""

    def __init__(self, xs: Sequence[float], ys: Sequence[float], *, whole: bool = False) -> None:
        self._xs = _whole_ticks(min(xs), max(xs)) if whole else even_ticks(min(xs), max(xs))
        self._ys = even_ticks(min(ys), max(ys))
        self._x = (min(self._xs[0], min(xs)), max(self._xs[-1], max(xs), self._xs[0] + 1e-9))
        self._y = (min(self._ys[0], min(ys)), max(self._ys[-1], max(ys), self._ys[0] + 1e-9))

    def x(self, value: float) -> float:
        return round(Plot.left + 8 + (Plot.right - Plot.left - 16) * (value - self._x[0]) / (self._x[1] - self._x[0]), 1)

    def y(self, value: float) -> float:
        return round(Plot.bottom - (Plot.bottom - Plot.top) * (value - self._y[0]) / (self._y[1] - self._y[0]), 1)

    def path(self, points: Sequence[tuple[float, float]]) -> str:
        return "M" + "L".join(f"{self.x(x)} {self.y(y)}" for x, y in points)

    def plot(self, title: str, text: str, x_name: str, y_name: str, marks: list[Mark], strokes: list[Stroke]) -> Plot:
        x_ticks = [(self.x(at), f"{at:g}") for at in self._xs]
        return Plot(title, text, x_name, y_name, x_ticks, [(self.y(at), f"{at:g}") for at in self._ys], marks, strokes)


def _whole_ticks(low: float, high: float) -> list[float]:
    step = max(1, round((high - low) / 6))
    return [float(at) for at in range(math.floor(low), math.floor(high) + 1, step)]


def _value(row: TrialRow) -> float:
    return row.value if row.value is not None else math.nan


def settings_in_order(rows: Sequence[TrialRow], ranked: Mapping[str, float]) -> list[str]:
    """All settings that trials had, those with the greater number in `ranked` first."""
    names = dict.fromkeys(name for row in rows for name in row.settings)
    return sorted(names, key=lambda name: -ranked.get(name, -1.0))
