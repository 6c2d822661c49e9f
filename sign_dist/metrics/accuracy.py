"""Accuracy of one label per clip: top-k per clip and per class, a table of classes, confusion counts.

References and answers are strings; an empty answer `""` means that there was none and is wrong. Scores lie in [0, 1]
and are NaN where nothing was asked. Two averages are common and differ when classes are unequal: per instance (every
clip counts the same) and per class (every gloss counts the same).
"""

import collections
import dataclasses
import math
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class ClassScore:
    """One class: how often it was asked (`support`), answered (`predicted`), and both (`correct`)."""

    label: str
    support: int
    predicted: int
    correct: int

    @property
    def recall(self) -> float:
        """Share of its clips that were recognised; NaN without clips."""
        return _ratio(self.correct, self.support)

    @property
    def precision(self) -> float:
        """Share of its answers that were right; NaN if it was never answered."""
        return _ratio(self.correct, self.predicted)


def hits(references: Sequence[str], ranked: Sequence[Sequence[str]], k: int = 1) -> list[bool]:
    """Per clip: is the reference among the first k answers?

    >>> hits(["BOOK", "MILK"], [["BOOK", "EAT"], ["EAT", "MILK"]])
    [True, False]
    """
    _check_lengths(references, ranked)
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    return [bool(reference) and reference in answers[:k] for reference, answers in zip(references, ranked, strict=True)]


def top_k_accuracy(references: Sequence[str], ranked: Sequence[Sequence[str]], k: int = 1) -> float:
    """Share of clips whose reference is among the first k answers: per instance.

    >>> top_k_accuracy(["BOOK", "MILK"], [["BOOK", "EAT"], ["EAT", "MILK"]], k=2)
    1.0
    """
    right = hits(references, ranked, k)
    return _ratio(sum(right), len(right))


def class_accuracy(references: Sequence[str], ranked: Sequence[Sequence[str]], k: int = 1) -> float:
    """Mean over the classes that occur among the references of their top-k accuracy: per class.

    >>> class_accuracy(["BOOK", "BOOK", "BOOK", "MILK"], [["BOOK"], ["BOOK"], ["BOOK"], ["EAT"]])
    0.5
    """
    right: collections.Counter[str] = collections.Counter()
    support = collections.Counter(references)
    for reference, hit in zip(references, hits(references, ranked, k), strict=True):
        right[reference] += hit
    return _ratio(math.fsum(right[label] / count for label, count in support.items()), len(support))


def class_table(references: Sequence[str], hypotheses: Sequence[str], labels: Sequence[str] = ()) -> list[ClassScore]:
    """One row for each class that was asked, answered or named in `labels`, sorted by label.

    >>> [(row.label, row.recall) for row in class_table(["BOOK", "BOOK", "MILK"], ["BOOK", "MILK", "MILK"])]
    [('BOOK', 0.5), ('MILK', 1.0)]
    """
    _check_lengths(references, hypotheses)
    support, predicted = collections.Counter(references), collections.Counter(hypotheses)
    correct = collections.Counter(r for r, h in zip(references, hypotheses, strict=True) if r == h)
    names = sorted((set(support) | set(predicted) | set(labels)) - {""})
    return [ClassScore(name, support[name], predicted[name], correct[name]) for name in names]


def confusion_counts(references: Sequence[str], hypotheses: Sequence[str]) -> dict[tuple[str, str], int]:
    """(reference, hypothesis) -> number of clips, right answers included; the most frequent first, ties by name.

    >>> confusion_counts(["BOOK", "BOOK", "MILK"], ["BOOK", "BOOK", "BOOK"])
    {('BOOK', 'BOOK'): 2, ('MILK', 'BOOK'): 1}
    """
    _check_lengths(references, hypotheses)
    counts = collections.Counter(zip(references, hypotheses, strict=True))
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def majority_baseline(references: Sequence[str]) -> tuple[str, float]:
    """The most frequent class and the accuracy of always answering it: what a score must beat to mean anything.

    It is chosen on the references themselves, so no constant answer does better.

    >>> majority_baseline(["BOOK", "MILK", "MILK", "EAT"])
    ('MILK', 0.5)
    """
    if not references:
        return "", math.nan
    label, count = min(collections.Counter(references).items(), key=lambda item: (-item[1], item[0]))
    return label, count / len(references)


def _ratio(part: float, whole: int) -> float:
    return part / whole if whole else math.nan


def _check_lengths(references: Sequence[object], answers: Sequence[object]) -> None:
    if len(references) != len(answers):
        raise ValueError(f"need one answer per reference: got {len(references)} references and {len(answers)} answers")
