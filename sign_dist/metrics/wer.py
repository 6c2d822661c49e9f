"""Word error rate of gloss sequences: (substitutions + deletions + insertions) / words of the references, over a whole corpus.

It is not capped: more insertions than words give more than 1. The rate of a corpus is the sum of errors over the sum of words,
not the mean of the sentences' rates. `sign_dist.metrics.align` says which alignment is counted.
"""

import collections
import dataclasses
import math
from collections.abc import Iterable, Sequence

from sign_dist.metrics.align import Cost, align, count_ops


@dataclasses.dataclass(frozen=True)
class WordErrors:
    """Counts of one or of many sentences; they add up."""

    hits: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def num_words(self) -> int:
        """Words of the references."""
        return self.hits + self.substitutions + self.deletions

    @property
    def rate(self) -> float:
        """Errors per word; NaN where nothing was asked and nothing answered, infinite where only nothing was asked."""
        if self.num_words:
            return self.errors / self.num_words
        return math.inf if self.errors else math.nan

    def __add__(self, other: "WordErrors") -> "WordErrors":
        return WordErrors(
            self.hits + other.hits,
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
        )


@dataclasses.dataclass(frozen=True)
class GlossErrors:
    """One gloss over a corpus: how often it was asked (`support`), recognised, replaced, left out, and wrongly put in.

    `confused_with` are (gloss answered instead, times), the most frequent first.
    """

    gloss: str
    support: int
    correct: int
    substituted: int
    deleted: int
    inserted: int
    confused_with: tuple[tuple[str, int], ...]


def sentence_errors(references: Sequence[str], hypotheses: Sequence[str], cost: Cost = "sclite") -> list[WordErrors]:
    """Counts of each sentence; words are what blanks divide.

    Raises:
        ValueError: not one hypothesis per reference.
    """
    _check(references, hypotheses)
    return [WordErrors(*count_ops(r.split(), h.split(), cost)) for r, h in zip(references, hypotheses, strict=True)]


def corpus_errors(references: Sequence[str], hypotheses: Sequence[str], cost: Cost = "sclite") -> WordErrors:
    """Counts of all sentences together.

    >>> corpus_errors(["A B C", "D"], ["A C", "D E"])
    WordErrors(hits=3, substitutions=0, deletions=1, insertions=1)
    """
    return sum(sentence_errors(references, hypotheses, cost), WordErrors())


def wer(references: Sequence[str], hypotheses: Sequence[str], cost: Cost = "sclite") -> float:
    """Word error rate of a corpus, not in percent.

    >>> wer(["A B C", "D"], ["A C", "D E"])
    0.5
    """
    return corpus_errors(references, hypotheses, cost).rate


def confusions(references: Sequence[str], hypotheses: Sequence[str], cost: Cost = "sclite") -> dict[tuple[str, str], int]:
    """(word of the reference, word of the hypothesis) -> times; matches included, "" stands for no word.

    The most frequent first, ties by name.

    >>> confusions(["A B C"], ["A C D"])
    {('', 'D'): 1, ('A', 'A'): 1, ('B', ''): 1, ('C', 'C'): 1}
    """
    _check(references, hypotheses)
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    for reference, hypothesis in zip(references, hypotheses, strict=True):
        counts.update((s.reference, s.hypothesis) for s in align(reference.split(), hypothesis.split(), cost))
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def gloss_table(counts: dict[tuple[str, str], int], *, glosses: Iterable[str] = ()) -> list[GlossErrors]:
    """One row per gloss of `confusions`, and of `glosses`, sorted by name.

    >>> [(g.gloss, g.support, g.deleted) for g in gloss_table(confusions(["A B A"], ["A A"]))]
    [('A', 2, 0), ('B', 1, 1)]
    """
    found: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    inserted: collections.Counter[str] = collections.Counter()
    for (reference, hypothesis), count in counts.items():
        if reference:
            found[reference][hypothesis] += count
        else:
            inserted[hypothesis] += count
    answered = {hypothesis for _, hypothesis in counts if hypothesis}
    rows: list[GlossErrors] = []
    for gloss in sorted({*found, *answered, *glosses}):
        answers = found.get(gloss, collections.Counter[str]())
        others = {answer: n for answer, n in answers.items() if answer not in (gloss, "")}
        rows.append(
            GlossErrors(
                gloss=gloss,
                support=answers.total(),
                correct=answers[gloss],
                substituted=sum(others.values()),
                deleted=answers[""],
                inserted=inserted[gloss],
                confused_with=tuple(sorted(others.items(), key=lambda item: (-item[1], item[0]))),
            )
        )
    return rows


def _check(references: Sequence[str], hypotheses: Sequence[str]) -> None:
    if len(references) != len(hypotheses):
        raise ValueError(f"need one hypothesis per reference: got {len(references)} references, {len(hypotheses)} hypotheses")
