"""Which words of a reference became which words of a hypothesis: the alignment behind a word error rate.

Two costs are common, and they count differently:

- `sclite`: substitution 4, insertion 3, deletion 3, as NIST's sclite aligns; published word error rates of continuous sign
  recognition are counted so. Where several alignments cost the same, the last step is a match or substitution rather than an
  insertion, and an insertion rather than a deletion: the same counts as sclite 2.10 gives.
- `unit`: every error costs 1, so that the errors are the Levenshtein distance, as jiwer counts; with rapidfuzz's alignment,
  which is jiwer's.

Words are compared as they are written. sclite folds the case of ASCII letters unless it is run with `-s`.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Literal, assert_never

from rapidfuzz.distance import Levenshtein

Cost = Literal["sclite", "unit"]
Op = Literal["=", "S", "D", "I"]

SUBSTITUTION, INSERTION, DELETION = 4, 3, 3


@dataclasses.dataclass(frozen=True)
class Step:
    """One column of an alignment: `=` match, `S` substitution, `D` deletion (no hypothesis), `I` insertion (no reference)."""

    op: Op
    reference: str
    hypothesis: str


def align(reference: Sequence[str], hypothesis: Sequence[str], cost: Cost = "sclite") -> list[Step]:
    """The cheapest way from the reference's words to the hypothesis's, from left to right.

    >>> [step.op for step in align("A B C".split(), "A C D".split(), "sclite")]
    ['=', 'D', '=', 'I']
    >>> [step.op for step in align("A B C".split(), "A C D".split(), "unit")]
    ['=', 'S', 'S']
    """
    i = j = 0
    steps: list[Step] = []
    for op in _ops(reference, hypothesis, cost):
        word = reference[i] if op != "I" else ""
        answer = hypothesis[j] if op != "D" else ""
        steps.append(Step(op, word, answer))
        i += op != "I"
        j += op != "D"
    return steps


def count_ops(reference: Sequence[str], hypothesis: Sequence[str], cost: Cost = "sclite") -> tuple[int, int, int, int]:
    """Matches, substitutions, deletions and insertions of the alignment.

    >>> count_ops("A B C".split(), "A C D".split())
    (2, 0, 1, 1)
    """
    ops = _ops(reference, hypothesis, cost)
    return ops.count("="), ops.count("S"), ops.count("D"), ops.count("I")


def draw(steps: Sequence[Step], *, width: int = 0) -> str:
    """Three lines, one under the other, as sclite prints them: reference, hypothesis (`*` where a word lacks), operation.

    With a `width` in characters, long sentences go on below, with an empty line between.

    >>> print(draw(align("A BERG C".split(), "A C".split())))
    REF: A BERG C
    HYP: A **** C
         = D    =
    """
    columns = [
        (step.reference or "*" * len(step.hypothesis), step.hypothesis or "*" * len(step.reference), step.op) for step in steps
    ]
    blocks: list[list[str]] = [["REF: ", "HYP: ", "     "]]
    for column in columns:
        size = max(map(len, column))
        if width and len(blocks[-1][0]) > 5 and len(blocks[-1][0]) + size > width:
            blocks.append(["REF: ", "HYP: ", "     "])
        blocks[-1] = [line + word.ljust(size) + " " for line, word in zip(blocks[-1], column, strict=True)]
    return "\n\n".join("\n".join(line.rstrip() for line in block) for block in blocks)


def _ops(reference: Sequence[str], hypothesis: Sequence[str], cost: Cost) -> list[Op]:
    match cost:
        case "sclite":
            return _sclite(reference, hypothesis)
        case "unit":
            return _unit(reference, hypothesis)
        case _:
            assert_never(cost)


def _sclite(reference: Sequence[str], hypothesis: Sequence[str]) -> list[Op]:
    """Dynamic programming over all prefixes, then back from the end."""
    # What both end with is matched in any case, since a match is free and is preferred; only the rest costs time.
    tail = 0
    while tail < min(len(reference), len(hypothesis)) and reference[-1 - tail] == hypothesis[-1 - tail]:
        tail += 1
    left, right = reference[: len(reference) - tail], hypothesis[: len(hypothesis) - tail]
    row = [j * INSERTION for j in range(len(right) + 1)]
    rows = [row]
    for word in left:
        diagonal = row[0]
        best = diagonal + DELETION
        new = [best]
        for j, answer in enumerate(right, 1):
            above = row[j]
            through = diagonal if word == answer else diagonal + SUBSTITUTION
            best = min(through, above + DELETION, best + INSERTION)
            new.append(best)
            diagonal = above
        rows.append(new)
        row = new
    ops: list[Op] = ["="] * tail
    i, j = len(left), len(right)
    while i or j:
        here = rows[i][j]
        equal = bool(i and j) and left[i - 1] == right[j - 1]
        if i and j and here == rows[i - 1][j - 1] + (0 if equal else SUBSTITUTION):
            ops.append("=" if equal else "S")
            i, j = i - 1, j - 1
        elif j and here == rows[i][j - 1] + INSERTION:
            ops.append("I")
            j -= 1
        else:
            ops.append("D")
            i -= 1
    return ops[::-1]


def _unit(reference: Sequence[str], hypothesis: Sequence[str]) -> list[Op]:
    ids: dict[str, int] = {}
    coded = [[ids.setdefault(word, len(ids)) for word in words] for words in (reference, hypothesis)]
    ops: list[Op] = []
    names: dict[str, Op] = {"equal": "=", "replace": "S", "delete": "D", "insert": "I"}
    for block in Levenshtein.opcodes(coded[0], coded[1]):
        length = max(block.src_end - block.src_start, block.dest_end - block.dest_start)
        ops.extend(itertools.repeat(names[block.tag], length))
    return ops
