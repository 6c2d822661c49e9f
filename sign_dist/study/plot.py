"""The picture of a study, for people who look at a folder: history, curves, and the value against each setting."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from sign_dist.errors import RunError
from sign_dist.training.figure import BLUE, GREY, INK, ORANGE, counted, dress, entitle, is_finite, new_figure, save

# A panel of settings is drawn for so many; a study that searches more is read in its study.json.
MAX_SETTINGS = 12
# Beyond this ratio of the largest to the smallest value a setting was searched by its exponent.
LOG_RATIO = 20


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
    valued = [(i, trial, float(trial["value"])) for i, trial in enumerate(trials, start=1) if is_finite(trial.get("value"))]
    best = (max if mode == "max" else min)(valued, key=lambda item: item[2], default=None)
    settings = _searched([trial for _, trial, _ in valued])
    left_out = len(settings) - MAX_SETTINGS
    settings = settings[:MAX_SETTINGS]
    num_rows = math.ceil(len(settings) / 3)
    figure = new_figure(11, 4.2 + 2.9 * num_rows)
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
    entitle(figure, f"Study: {counted(len(trials), 'trial')} ({text}){more}")
    save(figure, out_png)


def _history(panel: Any, trials: Any, valued: Any, best: Any, metric: str, mode: str) -> None:
    dress(panel, ylabel=metric, xlabel="trial, in the order they began")
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
    mute = [i for i, trial in enumerate(trials, start=1) if not is_finite(trial.get("value"))]
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
    curves = [(t, [(float(e), float(v)) for e, v in t.get("curve") or () if is_finite(v)]) for t in trials]
    curves = [(trial, points) for trial, points in curves if points]
    dress(panel, ylabel=metric, xlabel="epoch", title=f"Learning curves (n = {len(curves)}; dashed: did not finish)")
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
    dress(panel, ylabel=metric, xlabel=f"{name} (n = {len(points)})")
    if all(isinstance(x, int | float) and not isinstance(x, bool) and is_finite(x) for x, _, _ in points):
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


def _short(text: str) -> str:
    return text if len(text) <= 14 else f"{text[:6]}…{text[-7:]}"
