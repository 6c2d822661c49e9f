"""A confusion matrix laid out for drawing: whole, and for many classes the part with the most mistakes."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence

from sign_dist.inference.evaluated import Evaluated

# Up to so many classes every one has a labelled row; a larger matrix is shown whole without labels, and its worst part with.
MAX_LABELLED = 40
NUM_WORST_CLASSES = 24
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


def confusion_matrices(evaluated: Sequence[Evaluated]) -> list[Matrix]:
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
