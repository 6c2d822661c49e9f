"""Pictures of a run (metrics.jsonl) and of a study (its trials), for people.

matplotlib is imported inside the functions: training does not pay for it, and `Figure` without pyplot needs no display
and keeps nothing alive after the file is written. Colours are those of Okabe and Ito (2008), "Color Universal Design",
which the colour-blind can tell apart; nothing is said by colour alone.
"""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from sign_dist.data.layout import written_whole
from sign_dist.errors import RunError

BLUE, ORANGE, GREEN, SKY, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#56B4E9", "#CC79A7", "#6B7280"
CYCLE = (BLUE, ORANGE, GREEN, PURPLE, SKY, "#E69F00")
INK, FAINT = "#1F2937", "#E5E7EB"
MARKERS = ("o", "s", "^", "D", "v", "P")
# A panel of settings is drawn for so many; a study that searches more is read in its study.json.
MAX_SETTINGS = 12
# Beyond this ratio of the largest to the smallest value a setting was searched by its exponent.
LOG_RATIO = 20

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
    figure = _figure(9.6, 1.4 + 1.9 * len(groups))
    panels = figure.subplots(len(groups), 1, sharex=True, squeeze=False, height_ratios=[g.weight for g in groups])[:, 0]
    for panel, group in zip(panels, groups, strict=True):
        _lines(panel, rows, group.names)
        _dress(panel, ylabel=group.title)
        _bands(panel, rows, labelled=panel is panels[0])
        if group.shares:
            _percent(panel)
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
    _title(figure, f"Training: {_count(len(rows), 'epoch')}{took}{found}")
    _save(figure, out_png)


def plot_study(trials: Sequence[Mapping[str, Any]], out_png: Path, *, metric: str, mode: Literal["max", "min"] = "max") -> None:
    """A study at a glance: history with the best so far, every trial's curve, and the value against each setting.

    Each trial has `id`, `state`, `value` (None without one), `epochs`, `settings` by dotted name and `curve`, a list of
    (epoch, value).

    Raises:
        RunError: no trials.
    """
    if not trials:
        raise RunError("there is no trial to draw: the study has not begun")
    if mode not in ("max", "min"):
        raise ValueError(f"mode must be 'max' or 'min', got {mode!r}")
    valued = [(i, trial, float(trial["value"])) for i, trial in enumerate(trials, start=1) if _finite(trial.get("value"))]
    best = (max if mode == "max" else min)(valued, key=lambda item: item[2], default=None)
    settings = _searched([trial for _, trial, _ in valued])
    left_out = len(settings) - MAX_SETTINGS
    settings = settings[:MAX_SETTINGS]
    num_rows = math.ceil(len(settings) / 3)
    figure = _figure(11, 4.2 + 2.9 * num_rows)
    # The history and the curves share a row of twice the width each; the settings follow three by three.
    grid = figure.add_gridspec(1 + num_rows, 6, height_ratios=[1.35] + [1] * num_rows)
    _history(figure.add_subplot(grid[0, :3]), trials, valued, best, metric, mode)
    _trial_curves(figure.add_subplot(grid[0, 3:]), trials, best, metric)
    for i, name in enumerate(settings):
        column = 2 * (i % 3)
        _against(figure.add_subplot(grid[1 + i // 3, column : column + 2]), name, valued, best, "" if i % 3 else metric)
    counts = {kind: sum(_kind(t) == kind for t in trials) for kind in ("finished", "stopped", "failed", "unfinished")}
    words = {"stopped": "stopped early"}
    text = ", ".join(f"{count} {words.get(kind, kind)}" for kind, count in counts.items() if count)
    more = f"; {left_out} more settings not drawn" if left_out > 0 else ""
    _title(figure, f"Study: {_count(len(trials), 'trial')} ({text}){more}")
    _save(figure, out_png)


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
    figure = _figure(2.3 * len(ways) + 0.9, 5.2)
    panels = figure.subplots(2, len(ways), sharex=True, sharey="row", squeeze=False)
    base, usual = next(iter(ways)), _mean_points(next(iter(ways.values())), score)
    for column, (name, runs) in enumerate(ways.items()):
        above, below = panels[:, column]
        _dress(above, ylabel="" if column else score)
        _dress(below, ylabel="" if column else "loss", xlabel="epoch")
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
            _percent(above)
        below.set_ylim(bottom=0)
        below.xaxis.get_major_locator().set_params(integer=True)
    for metric, style in (("val/loss", "-"), ("train/loss", "--")):
        panels[1, -1].plot([], [], style, color=GREY, label=metric)  # a line for the key alone: the runs have the colours
    keys = [panel.get_legend_handles_labels() for panel in panels[:, -1]]
    figure.legend(keys[0][0] + keys[1][0], keys[0][1] + keys[1][1], loc="outside lower center", frameon=False, ncols=8, fontsize=8)
    if title:
        _title(figure, title)
    _save(figure, out_png)


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
    stages = [(row["epoch"], row["stage"]) for row in rows if _finite(row.get("stage"))]
    starts = [i for i, (_, stage) in enumerate(stages) if not i or stages[i - 1][1] != stage]
    if len(starts) < 2:
        return []
    # An epoch is drawn at its number: the border lies behind the last epoch that was evaluated in a stage. Where not every epoch
    # was, the stage may have gone on for some of those that follow.
    edges = [stages[0][0] - 0.5, *(stages[i - 1][0] + 0.5 for i in starts[1:]), stages[-1][0] + 0.5]
    return [(edges[n], edges[n + 1], stages[i][1]) for n, i in enumerate(starts)]


def points_of(rows: Sequence[Mapping[str, Any]], name: str) -> list[Point]:
    """(epoch, value) where there is a number."""
    return [(row["epoch"], float(row[name])) for row in rows if _finite(row.get(name))]


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


def _history(panel: Any, trials: Any, valued: Any, best: Any, metric: str, mode: str) -> None:
    _dress(panel, ylabel=metric, xlabel="trial, in the order they began")
    for kind, marker, colour, face in (
        ("finished", "o", BLUE, BLUE),
        ("stopped", "o", BLUE, "white"),
        ("unfinished", "s", GREY, "white"),
        ("failed", "X", ORANGE, ORANGE),
    ):
        points = [(i, value) for i, trial, value in valued if _kind(trial) == kind]
        if points:
            x, y = zip(*points, strict=True)
            panel.scatter(x, y, s=30, marker=marker, edgecolors=colour, facecolors=face, label=kind, zorder=3)
    mute = [i for i, trial in enumerate(trials, start=1) if not _finite(trial.get("value"))]
    if mute:
        panel.scatter(
            mute, [0.02] * len(mute), marker="x", color=ORANGE, s=28, transform=panel.get_xaxis_transform(), label="no value"
        )
    if valued:
        pick = max if mode == "max" else min
        running = [pick(value for _, _, value in valued[: n + 1]) for n in range(len(valued))]
        panel.step([i for i, _, _ in valued], running, where="post", color=INK, linewidth=1.4, label="best so far", zorder=2)
        _star(panel, best[0], best[2], f"best: {best[2]:.4g}")
    panel.set_xlim(0.4, len(trials) + 0.6)
    panel.xaxis.get_major_locator().set_params(integer=True)
    # Above the panel, where it hides no trial.
    panel.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False, fontsize=8, ncols=6, columnspacing=1, handletextpad=0.3)


def _trial_curves(panel: Any, trials: Any, best: Any, metric: str) -> None:
    curves = [(t, [(float(e), float(v)) for e, v in t.get("curve") or () if _finite(v)]) for t in trials]
    curves = [(trial, points) for trial, points in curves if points]
    _dress(panel, ylabel=metric, xlabel="epoch", title=f"Learning curves (n = {len(curves)}; dashed: did not finish)")
    for trial, points in curves:
        first = bool(best) and trial is best[1]
        style = "-" if _kind(trial) == "finished" else (0, (4, 2))
        x, y = zip(*points, strict=True)
        colour = ORANGE if first else BLUE
        label = f"best: {trial.get('id', '')}" if first else None
        panel.plot(
            x,
            y,
            linestyle=style,
            color=colour,
            linewidth=2.2 if first else 1.1,
            alpha=1 if first else 0.5,
            marker="o" if len(points) == 1 else None,
            markersize=4,
            zorder=4 if first else 2,
            label=label,
        )
        panel.plot(x[-1:], y[-1:], "o", color=colour, markersize=3, alpha=1 if first else 0.7, zorder=4 if first else 2)
    panel.xaxis.get_major_locator().set_params(integer=True)
    if best and any(trial is best[1] for trial, _ in curves):
        panel.legend(loc="best", frameon=False, fontsize=8)
    if not curves:
        panel.text(0.5, 0.5, "no curves", transform=panel.transAxes, ha="center", va="center", color=GREY)


def _against(panel: Any, name: str, valued: Any, best: Any, metric: str) -> None:
    """The value against one setting: a log axis where it spans decades, columns where it is no number."""
    points = [(trial["settings"][name], value, trial) for _, trial, value in valued if name in trial.get("settings", {})]
    _dress(panel, ylabel=metric, xlabel=f"{name} (n = {len(points)})")
    if all(isinstance(x, int | float) and not isinstance(x, bool) and _finite(x) for x, _, _ in points):
        places = {id(trial): float(x) for x, _, trial in points}
        low, high = min(places.values()), max(places.values())
        panel.locator_params(axis="x", nbins=4)
        if low > 0 and high / low >= LOG_RATIO:
            panel.set_xscale("log")
        elif len(set(places.values())) <= 5 and all(isinstance(x, int) for x, _, _ in points):
            panel.set_xticks(sorted(set(places.values())))
            panel.margins(x=0.15)
    else:
        kinds = sorted({str(x) for x, _, _ in points})
        seen = dict.fromkeys(kinds, 0)
        places = {}
        for x, _, trial in points:
            # Side by side inside the column, in a fixed pattern, so that equal studies give equal pictures.
            places[id(trial)] = kinds.index(str(x)) + 0.08 * ((seen[str(x)] * 2) % 5 - 2)
            seen[str(x)] += 1
        panel.set_xticks(range(len(kinds)), [_short(kind) for kind in kinds])
        panel.set_xlim(-0.6, len(kinds) - 0.4)
    for kind, face in (("finished", BLUE), ("other", "white")):
        some = [(places[id(t)], value) for _, value, t in points if (_kind(t) == "finished") == (kind == "finished")]
        if some:
            x, y = zip(*some, strict=True)
            panel.scatter(x, y, s=22, edgecolors=BLUE, facecolors=face, alpha=0.85, zorder=3)
    if best and id(best[1]) in places:
        _star(panel, places[id(best[1])], best[2], "")


def _searched(trials: Sequence[Mapping[str, Any]]) -> list[str]:
    """Settings that differ between trials, or that only some have."""
    values: dict[str, list[Any]] = {}
    for trial in trials:
        for name, value in trial.get("settings", {}).items():
            values.setdefault(name, []).append(value)
    return [name for name, found in values.items() if len({str(v) for v in found}) > 1 or len(found) < len(trials)]


def _kind(trial: Mapping[str, Any]) -> str:
    match str(trial.get("state", "")).lower():
        case "finished" | "complete" | "completed" | "terminated" | "done":
            return "finished"
        case "stopped" | "pruned" | "early_stopped" | "stopped_early":
            return "stopped"
        case "failed" | "fail" | "error" | "errored":
            return "failed"
        case _:
            return "unfinished"


def _star(panel: Any, x: float, y: float, label: str) -> None:
    panel.plot([x], [y], "*", markersize=14, color=ORANGE, markeredgecolor="white", zorder=5, label=label or None)


def _title(figure: Any, text: str) -> None:
    figure.suptitle(text, x=0.01, ha="left", color=INK, fontsize=11, fontweight="bold")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _short(text: str) -> str:
    return text if len(text) <= 14 else f"{text[:6]}…{text[-7:]}"


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _percent(panel: Any) -> None:
    from matplotlib.ticker import PercentFormatter

    panel.set_ylim(-0.03, 1.03)
    panel.yaxis.set_major_formatter(PercentFormatter(1))


def _dress(panel: Any, *, ylabel: str, xlabel: str = "", title: str = "") -> None:
    if ylabel:
        panel.set_ylabel(ylabel, color=INK, fontsize=9)
    if xlabel:
        panel.set_xlabel(xlabel, color=INK, fontsize=9)
    if title:
        panel.set_title(title, loc="left", fontsize=10, color=INK)
    panel.grid(color=FAINT, linewidth=0.8)
    panel.set_axisbelow(True)
    panel.tick_params(colors=INK, labelsize=8, length=0, which="both")
    for side in ("top", "right", "left"):
        panel.spines[side].set_visible(False)
    panel.spines["bottom"].set_color(GREY)


def _figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Any, path: Path) -> None:
    with written_whole(Path(path)) as temporary:
        figure.savefig(temporary, format="png", dpi=130)
