"""Pictures of runs, for people, and the rows of metrics.jsonl that they are drawn from."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sign_dist.errors import RunError
from sign_dist.training.figure import (
    CYCLE,
    GREY,
    INK,
    MARKERS,
    ORANGE,
    SKY,
    as_percent,
    counted,
    dress,
    entitle,
    is_finite,
    new_figure,
    save,
)

# What chooses a run's checkpoint, by task, and whether more is better.
MONITORS = {"val/top1": 1, "val/wer": -1, "val/bleu4": 1, "val/loss": -1}
# Scores in percent or 0 to 100, also where they happen to be small.
_POINTS = (
    "wer",
    "substitutions",
    "deletions",
    "insertions",
    "blank",
    "empty",
    "too_short",
    "bleu1",
    "bleu2",
    "bleu3",
    "bleu4",
    "chrf",
)
IN_POINTS = frozenset(f"{where}/{name}" for where in ("val", "train") for name in _POINTS)

Point = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class CurveGroup:
    """Curves that share a panel and its scale. `shares`: they lie between 0 and 1. `weight`: how high the panel is."""

    title: str
    names: tuple[str, ...]
    weight: float
    shares: bool = False


def plot_curves(metrics_jsonl: Path, out_png: Path) -> None:
    """Loss, score, learning rate and throughput by epoch, with unfreezing stages as bands and the best epoch marked.

    Scores on a scale of 0 to 1 and those in percent or points do not share an axis: each scale has its panel.

    A last line that is torn, as a killed run leaves it, is left out. Of two lines of one epoch the later one holds.

    Raises:
        RunError: no file, no line, or a line that is none of ours.
    """
    rows = read_metrics(Path(metrics_jsonl))
    best = best_of(rows)
    groups = curve_groups(rows)
    figure = new_figure(9.6, 1.4 + 1.9 * len(groups))
    panels = figure.subplots(len(groups), 1, sharex=True, squeeze=False, height_ratios=[g.weight for g in groups])[:, 0]
    for panel, group in zip(panels, groups, strict=True):
        _lines(panel, rows, group.names)
        dress(panel, ylabel=group.title)
        _bands(panel, rows, labelled=panel is panels[0])
        if group.shares:
            as_percent(panel)
        if group.title == "learning rate":
            panel.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
        if best:
            panel.axvline(best[0], color=INK, linewidth=1, linestyle=(0, (1, 2)), zorder=1)
            if best[1] in group.names:
                panel.plot([best[0]], [best[2]], marker="*", markersize=13, color=ORANGE, markeredgecolor="white", zorder=5)
    panels[-1].set_xlabel("epoch", color=INK, fontsize=9)
    panels[-1].xaxis.get_major_locator().set_params(integer=True)
    panels[-1].set_xlim(rows[0]["epoch"] - 0.5, rows[-1]["epoch"] + 0.5)
    minutes = sum(value for _, value in points_of(rows, "seconds")) / 60
    took = f", {minutes:.3g} minutes" if minutes else ""
    found = f"; best {best[1]} {best[2]:.3g} at epoch {best[0]:g} (star, dotted line)" if best else ""
    entitle(figure, f"Training: {counted(len(rows), 'epoch')}{took}{found}")
    save(figure, out_png)


def plot_side_by_side(
    ways: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]], out_png: Path, *, score: str = "val/top1", title: str = ""
) -> None:
    """Kinds of runs beside each other, a column each: the score above, the losses below, a line for each run of the kind.

    `ways` are the rows of `read_metrics` of every run of a kind, such as one for each seed. All columns have the same axes. The
    first kind's mean score is drawn into the columns of the others, for comparison; stages of unfreezing are bands.

    Raises:
        RunError: no runs.
    """
    if not ways or not all(ways.values()):
        raise RunError("there is no run to draw: give at least one of each kind")
    figure = new_figure(2.3 * len(ways) + 0.9, 5.2)
    panels = figure.subplots(2, len(ways), sharex=True, sharey="row", squeeze=False)
    base, usual = next(iter(ways)), _mean_points(next(iter(ways.values())), score)
    for column, (name, runs) in enumerate(ways.items()):
        above, below = panels[:, column]
        dress(above, ylabel="" if column else score)
        dress(below, ylabel="" if column else "loss", xlabel="epoch")
        # The title stands above the stages' names.
        above.set_title(name, fontsize=10, color=INK, pad=16)
        _bands(above, runs[0], labelled=True, size=7)
        _bands(below, runs[0], labelled=False)
        if column and usual:
            above.plot(*zip(*usual, strict=True), color=GREY, linewidth=1.2, linestyle=(0, (1, 1.5)), label=f"{base}, mean")
        for i, rows in enumerate(runs):
            faded = {"color": CYCLE[i % 6], "linewidth": 1.3, "marker": MARKERS[i % 6], "markersize": 3}
            for panel, metric, style in ((above, score, "-"), (below, "val/loss", "-"), (below, "train/loss", "--")):
                if points := points_of(rows, metric):
                    label = f"run {i + 1}" if panel is above else None
                    panel.plot(*zip(*points, strict=True), linestyle=style, label=label, **faded)
        if all(0 <= value <= 1 for rows in runs for _, value in points_of(rows, score)):
            as_percent(above)
        below.set_ylim(bottom=0)
        below.xaxis.get_major_locator().set_params(integer=True)
    for metric, style in (("val/loss", "-"), ("train/loss", "--")):
        panels[1, -1].plot([], [], style, color=GREY, label=metric)  # a line for the key alone: the runs have the colours
    keys = [panel.get_legend_handles_labels() for panel in panels[:, -1]]
    figure.legend(keys[0][0] + keys[1][0], keys[0][1] + keys[1][1], loc="outside lower center", frameon=False, ncols=8, fontsize=8)
    if title:
        entitle(figure, title)
    save(figure, out_png)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl by epoch. A torn last line is left out; of two lines of one epoch the later one holds.

    Raises:
        RunError: no file, no line, or a line that is none of ours.
    """
    if not path.exists():
        raise RunError(f"no metrics {str(path)!r}: curves can be drawn once the first epoch is over")
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    by_epoch: dict[float, dict[str, Any]] = {}
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            epoch = float(row["epoch"])
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines) > 1 and isinstance(error, json.JSONDecodeError):
                break
            raise RunError(f"{str(path)!r} line {number} is no record of an epoch ({error}): {line[:60]!r}") from None
        by_epoch[epoch] = by_epoch.get(epoch, {}) | row | {"epoch": epoch}
    if not by_epoch:
        raise RunError(f"{str(path)!r} is empty: curves can be drawn once the first epoch is over")
    return [by_epoch[epoch] for epoch in sorted(by_epoch)]


def curve_groups(rows: Sequence[Mapping[str, Any]]) -> list[CurveGroup]:
    """What is drawn into which panel: losses, scores by their scale, learning rate, throughput; empty panels but for the
    loss and the scores are left out."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    losses = [name for name in names if "/" in name and "loss" in name]
    scores = [name for name in names if name.startswith("val/") and name not in losses]
    scores += [name for name in names if name.startswith("train/") and f"val/{name.removeprefix('train/')}" in scores]
    largest = {name: max((abs(value) for _, value in points_of(rows, name)), default=0.0) for name in scores}
    # WER and BLEU are in percent and points, accuracies are shares.
    large = [name for name in scores if name in IN_POINTS or largest[name] > 1]
    small = [name for name in scores if name not in large]
    groups = [CurveGroup("loss", tuple(losses), 3)]
    if large:
        groups.append(CurveGroup("score, percent or points", tuple(large), 3))
    if small or not large:
        signed = any(value < 0 for name in small for _, value in points_of(rows, name))
        groups.append(CurveGroup("score", tuple(small), 3, shares=bool(small) and not signed))
    groups.append(CurveGroup("learning rate", tuple(n for n in names if n == "lr" or n.startswith("lr/")), 1.6))
    groups.append(CurveGroup("clips per second", tuple(n for n in names if n == "clips_per_s"), 1.6))
    waste = tuple(n for n in ("padding_share", "data_wait_share") if n in names)
    groups.append(CurveGroup("padding and waiting", waste, 1.6, shares=True))
    return [g for g in groups if g.names or g.weight > 2]


def stage_bands(rows: Sequence[Mapping[str, Any]]) -> list[tuple[float, float, float]]:
    """(from, to, stage) of each stage of unfreezing along the epochs; none where there is only one stage."""
    stages = [(row["epoch"], row["stage"]) for row in rows if is_finite(row.get("stage"))]
    starts = [i for i, (_, stage) in enumerate(stages) if not i or stages[i - 1][1] != stage]
    if len(starts) < 2:
        return []
    # An epoch is drawn at its number: the border lies behind the last epoch that was evaluated in a stage. Where not every epoch
    # was, the stage may have gone on for some of those that follow.
    edges = [stages[0][0] - 0.5, *(stages[i - 1][0] + 0.5 for i in starts[1:]), stages[-1][0] + 0.5]
    return [(edges[n], edges[n + 1], stages[i][1]) for n, i in enumerate(starts)]


def points_of(rows: Sequence[Mapping[str, Any]], name: str) -> list[Point]:
    """(epoch, value) where there is a number."""
    return [(row["epoch"], float(row[name])) for row in rows if is_finite(row.get(name))]


def best_of(rows: Sequence[Mapping[str, Any]]) -> tuple[float, str, float] | None:
    """(epoch, name, value) of the best validation by the first of `MONITORS` that was measured; of equal ones the later."""
    for name, sign in MONITORS.items():
        if points := points_of(rows, name):
            epoch, value = max(points, key=lambda point: (sign * point[1], point[0]))
            return epoch, name, value
    return None


def _mean_points(runs: Sequence[Sequence[Mapping[str, Any]]], name: str) -> list[Point]:
    """(epoch, mean of the runs) where all of them were measured."""
    curves = [dict(points_of(rows, name)) for rows in runs]
    return [(epoch, sum(c[epoch] for c in curves) / len(curves)) for epoch in curves[0] if all(epoch in c for c in curves)]


def _lines(panel: Any, rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    drawn = 0
    for i, name in enumerate(names):
        if points := points_of(rows, name):
            drawn += 1
            style = "--" if name.startswith("train/") else "-"
            # Marks tell the lines apart without colour, and show a run of one epoch at all.
            marks = {"marker": MARKERS[i % 6], "markersize": 4, "markevery": max(1, len(points) // 15)}
            panel.plot(*zip(*points, strict=True), style, color=CYCLE[i % 6], label=name, **marks)
    if not drawn:
        panel.text(0.5, 0.5, "not measured", transform=panel.transAxes, ha="center", va="center", color=GREY)
    elif drawn > 1 or not names[0].startswith("lr"):
        panel.legend(loc="best", frameon=False, ncols=2 if drawn > 3 else 1)


def _bands(panel: Any, rows: Sequence[Mapping[str, Any]], *, labelled: bool, size: float = 10) -> None:
    """A band per unfreezing stage, if there is more than one; every other one is shaded."""
    for i, (start, end, stage) in enumerate(stage_bands(rows)):
        if i % 2:
            panel.axvspan(start, end, color=SKY, alpha=0.14, linewidth=0, zorder=0)
        if labelled:
            place = {"transform": panel.get_xaxis_transform(), "ha": "center", "fontsize": size}
            panel.text((start + end) / 2, 1.01, f"stage {stage:g}", color=GREY, **place)
