"""How the project's pictures look: colours, marks, axes, and the file that they become.

matplotlib is imported inside the functions: training does not pay for it, and `Figure` without pyplot needs no display
and keeps nothing alive after the file is written. Colours are those of Okabe and Ito (2008), "Color Universal Design",
which the colour-blind can tell apart; nothing is said by colour alone.
"""

import math
from pathlib import Path
from typing import Any

from sign_dist.data.layout import written_whole

BLUE, ORANGE, GREEN, SKY, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#56B4E9", "#CC79A7", "#6B7280"
CYCLE = (BLUE, ORANGE, GREEN, PURPLE, SKY, "#E69F00")
INK, FAINT = "#1F2937", "#E5E7EB"
MARKERS = ("o", "s", "^", "D", "v", "P")


def new_figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Any, path: Path) -> None:
    with written_whole(Path(path)) as temporary:
        figure.savefig(temporary, format="png", dpi=130)


def dress(panel: Any, *, ylabel: str, xlabel: str = "", title: str = "") -> None:
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


def entitle(figure: Any, text: str) -> None:
    figure.suptitle(text, x=0.01, ha="left", color=INK, fontsize=11, fontweight="bold")


def as_percent(panel: Any) -> None:
    from matplotlib.ticker import PercentFormatter

    panel.set_ylim(-0.03, 1.03)
    panel.yaxis.set_major_formatter(PercentFormatter(1))


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
