"""A few answers to read: the best, those in the middle and the worst, by each clip's own score."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sign_dist.data.layout import written_whole
from sign_dist.errors import RunError
from sign_dist.inference.evaluated import read_predictions
from sign_dist.metrics.text import chrf
from sign_dist.metrics.wer import sentence_errors

COLUMNS = ("place", "id", "signer", "score", "reference", "hypothesis")


@dataclass(frozen=True)
class Answer:
    """A clip and what was answered; `score` is larger for better."""

    id: str
    signer: str
    reference: str
    hypothesis: str
    score: float


def write_samples(predictions: Path, out: Path, *, task: str, each: int) -> str:
    """Choose from predictions.jsonl, write a table and say in a line what it holds.

    Raises:
        RunError: there are no predictions.
        DataError: they are damaged.
    """
    if not predictions.is_file():
        raise RunError(f"no predictions {str(predictions)!r}: evaluate the run again")
    answers = [
        Answer(clip.id, clip.signer, clip.reference, clip.answer, score_of(clip.reference, clip.answer, task))
        for clip in read_predictions(predictions)
    ]
    chosen = choose(answers, each)
    with written_whole(out) as temporary:
        lines = ["\t".join(COLUMNS), *("\t".join(_cells(place, answer)) for place, answer in chosen)]
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return f"{len(chosen)} of {len(answers)} answers; in the middle: {_example(chosen)}"


def choose(answers: Sequence[Answer], each: int) -> list[tuple[str, Answer]]:
    """`each` of the best, of those in the middle and of the worst, no clip twice; of equal ones the earlier id.

    >>> [place for place, _ in choose([Answer(str(i), "", "", "", i) for i in range(7)], each=2)]
    ['best', 'best', 'middle', 'middle', 'worst', 'worst']
    """
    ranked = sorted(answers, key=lambda answer: (-answer.score, answer.id))
    if len(ranked) <= 3 * each:
        third = -(-len(ranked) // 3)
        return [(("best", "middle", "worst")[i // max(third, 1)], answer) for i, answer in enumerate(ranked)]
    start = (len(ranked) - each) // 2
    return [
        *(("best", answer) for answer in ranked[:each]),
        *(("middle", answer) for answer in ranked[start : start + each]),
        *(("worst", answer) for answer in ranked[-each:]),
    ]


def score_of(reference: str, hypothesis: str, task: str) -> float:
    """One clip's score: right or wrong (islr), minus its word error rate (cslr), chrF2 (slt).

    chrF, since BLEU-4 of one sentence is 0 wherever no four words in a row are right.
    """
    match task:
        case "cslr":
            return 0.0 - sentence_errors([reference], [hypothesis])[0].rate  # 0, not -0
        case "slt":
            return chrf([reference], [hypothesis]).value
        case _:
            return float(reference == hypothesis)


def _cells(place: str, answer: Answer) -> tuple[str, ...]:
    texts = (answer.id, answer.signer, f"{answer.score:.4g}", answer.reference, answer.hypothesis)
    return (place, *(" ".join(text.split()) for text in texts))


def _example(chosen: Sequence[tuple[str, Answer]]) -> str:
    found = next((answer for place, answer in chosen if place == "middle"), chosen[0][1] if chosen else None)
    return f"{found.reference!r} -> {found.hypothesis!r}" if found else "none"
