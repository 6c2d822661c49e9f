"""report.html: one page without outside resources that reads well on paper, on a phone, by day and by night.

This module decides what is shown and where it stands; how it looks is in `templates/report.html.j2`.
"""

import collections
import dataclasses
import logging
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sign_dist.errors import SignDistError, VideoError
from sign_dist.inference.html_page import data_uri, four_by_three, jpeg_uri, render
from sign_dist.training.curves import plot_curves
from sign_dist.video.decode import read_clip

if TYPE_CHECKING:
    from sign_dist.inference.report import Evaluated

logger = logging.getLogger(__name__)

# Up to so many classes every one has a labelled row; a larger matrix is shown whole without labels, and its worst part with.
MAX_LABELLED = 40
NUM_WORST_CLASSES = 24
NUM_WORST_CLIPS = 12
NUM_CONFUSIONS = 20
# Thumbnails: a tenth of a megapixel each keeps twelve clips below half a megabyte.
THUMB_SIDE_PX = 224
THUMB_MAX_SECONDS = 120.0
NO_ANSWER = "(no answer)"
OTHERS = "(others)"


@dataclasses.dataclass(frozen=True)
class Cell:
    """A square of the matrix: column, row, number of clips, share of its row's clips, and what to say about it."""

    x: float
    y: float
    count: int
    share: float
    right: bool
    title: str


@dataclasses.dataclass(frozen=True)
class Matrix:
    """A confusion matrix, laid out: rows are what was signed, columns what was answered; all in px."""

    title: str
    description: str
    rows: list[str]
    columns: list[str]
    cells: list[Cell]
    side: float
    left: float
    top: float
    labelled: bool

    @property
    def width(self) -> float:
        return self.left + self.side * len(self.columns) + 2

    @property
    def height(self) -> float:
        return self.top + self.side * len(self.rows) + 2


def render_page(evaluated: Sequence["Evaluated"], report: Mapping[str, Any], *, metrics_jsonl: Path | None, title: str) -> str:
    """The page as HTML text."""
    table = sorted(report["per_class_table"], key=lambda row: (_nan_last(row["recall"]), -row["support"], row["label"]))
    return render(
        "report.html.j2",
        title=title,
        report=report,
        scores=_scores(report),
        matrices=confusion_matrices(evaluated),
        classes=table,
        num_open=len(table) if len(table) <= MAX_LABELLED else NUM_WORST_CLASSES,
        confusions=report["confusions"][:NUM_CONFUSIONS],
        worst=[_show(clip) for clip in worst_clips(evaluated)],
        curves=_curves(metrics_jsonl),
        num_wrong=report["clips"] - report["correct"],
    )


def worst_clips(evaluated: Sequence["Evaluated"], most: int = NUM_WORST_CLIPS) -> list["Evaluated"]:
    """Clips that were answered wrongly, the most confident first: mistakes of the model, or of the annotation."""
    wrong = [e for e in evaluated if e.answer and e.answer != e.reference]
    return sorted(wrong, key=lambda e: (-e.confidence if not math.isnan(e.confidence) else math.inf, e.id))[:most]


def confusion_matrices(evaluated: Sequence["Evaluated"]) -> list[Matrix]:
    """One labelled matrix, or for many classes an overview and the labelled part with the most mistakes."""
    counts = collections.Counter((e.reference, e.answer or NO_ANSWER) for e in evaluated)
    asked = sorted({reference for reference, _ in counts})
    answered = sorted({answer for _, answer in counts} - {NO_ANSWER})
    rows, columns = asked, sorted(set(asked) | set(answered))
    if any(answer == NO_ANSWER for _, answer in counts):
        columns = [*columns, NO_ANSWER]
    if len(columns) <= MAX_LABELLED:
        return [_layout(counts, rows, columns, title=f"All {len(rows)} classes")]
    whole = _layout(counts, rows, columns, title=f"Overview of all {len(rows)} classes", labelled=False)
    # The pairs most often confused, not the classes most often missed: those are in the table of classes.
    chosen: dict[str, None] = {}
    for (reference, answer), _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if reference != answer and answer != NO_ANSWER and len({*chosen, reference, answer}) <= NUM_WORST_CLASSES:
            chosen |= {reference: None, answer: None}
    if not chosen:
        return [whole]
    worst = sorted(chosen)
    kept = {*worst, NO_ANSWER}
    part = collections.Counter[tuple[str, str]]()
    for (reference, answer), count in counts.items():
        if reference in kept:
            part[reference, answer if answer in kept else OTHERS] += count
    extra = [name for name in (OTHERS, NO_ANSWER) if any(answer == name for _, answer in part)]
    rows = [label for label in worst if any(reference == label for reference, _ in part)]
    return [whole, _layout(part, rows, [*worst, *extra], title=f"The {len(worst)} classes most often confused")]


def _layout(
    counts: Mapping[tuple[str, str], int], rows: list[str], columns: list[str], *, title: str, labelled: bool = True
) -> Matrix:
    totals: collections.Counter[str] = collections.Counter()
    for (reference, _), count in counts.items():
        totals[reference] += count
    # An unlabelled overview fits the page; labelled squares have room for a label of 11 px and a count.
    side = 24.0 if labelled else max(2.0, 640 / len(columns))
    longest = min(18, max(len(label) for label in [*rows, *columns]))
    margin = 8 + 7.2 * longest if labelled else 22.0
    row_of, column_of = {r: i for i, r in enumerate(rows)}, {c: i for i, c in enumerate(columns)}
    cells = [
        Cell(
            round(margin + side * column_of[answer], 2),
            round(margin + side * row_of[reference], 2),
            count,
            count / totals[reference],
            reference == answer,
            f"{reference} answered as {answer}: {count} of {totals[reference]}",
        )
        for (reference, answer), count in sorted(counts.items())
    ]
    right = sum(cell.count for cell in cells if cell.right)
    text = f"Rows: what was signed. Columns: what was answered. {right} of {sum(totals.values())} clips lie on the diagonal."
    return Matrix(title, text, rows, columns, cells, round(side, 2), margin, margin, labelled)


def _scores(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The headline numbers, each with a sentence."""
    clips = report["clips"]
    top5 = round(report["top5"] * clips)
    texts = {
        "top1": ("Top-1", f"{report['correct']} of {clips} clips were recognised at the first answer."),
        "top5": ("Top-5", f"{top5} of {clips} clips have the right gloss among the first five answers."),
        "per_class": ("Per class", f"Mean over the {report['classes_asked']} classes asked, each counting the same."),
    }
    return [
        {"name": name, "value": report[key], "text": text, "interval": report["intervals"][key]}
        for key, (name, text) in texts.items()
    ]


def _show(clip: "Evaluated") -> dict[str, Any]:
    picture, reason = _thumbnails(clip)
    runners = [(label, score) for label, score in sorted(clip.scores, key=lambda pair: -pair[1])[:3]]
    return {"clip": clip, "picture": picture, "reason": reason, "runners": runners}


def _thumbnails(clip: "Evaluated") -> tuple[str, str]:
    """(three frames side by side as a JPEG data URI, "") or ("", why there is none)."""
    if not str(clip.video_path):
        return "", "no video is known"
    try:
        frames = read_clip(
            clip.video_path,
            fps=8,
            max_side_px=THUMB_SIDE_PX,
            max_seconds=THUMB_MAX_SECONDS,
            start_s=clip.start_s,
            end_s=clip.end_s,
        ).frames
    except VideoError as error:
        return "", "the file is missing" if error.code == "missing" else error.code.replace("_", " ")
    except OSError as error:
        return "", type(error).__name__
    strip = np.concatenate([four_by_three(frames[int(len(frames) * place)]) for place in (1 / 6, 1 / 2, 5 / 6)], axis=1)
    uri = jpeg_uri(strip)
    return uri, "" if uri else "the picture cannot be written"


def _curves(metrics_jsonl: Path | None) -> str:
    """The run's curves as a PNG data URI, "" without a record of them."""
    if metrics_jsonl is None:
        return ""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "curves.png"
        try:
            plot_curves(metrics_jsonl, path)
        except SignDistError as error:
            logger.warning("the report has no training curves: %s", error)
            return ""
        return data_uri("image/png", path.read_bytes())


def _nan_last(value: float | None) -> float:
    return math.inf if value is None or math.isnan(value) else value
