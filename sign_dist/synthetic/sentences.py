"""A corpus of signed sentences with its labels, translations and alignment.

    ROOT/videos/signer03_0017.mp4       one sentence: rest, signs, rest (or landmarks/*.npy, drawn by nobody)
    ROOT/labels.tsv                     id, path, gloss (all of the sentence), signer, split, translation
    ROOT/alignment.tsv                  id, position, gloss, start_frame, end_frame, stroke_start, stroke_end
    ROOT/world.json                     the settings, the signers, what is damaged on purpose

The alignment is what nobody has for real corpora. It serves pictures and ceilings, not training. Spans are half-open.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from sign_dist.synthetic.corpus import WORLD_VERSION, Split, claim, write_text
from sign_dist.synthetic.signer import Signer
from sign_dist.synthetic.takes import Cast, Form, Take, TakeMap, plan_takes, write_takes

LABEL_COLUMNS: Final = ("id", "path", "gloss", "signer", "split", "translation")
ALIGNMENT_COLUMNS: Final = ("id", "position", "gloss", "start_frame", "end_frame", "stroke_start", "stroke_end")


@dataclass(frozen=True)
class SentenceFacts:
    """What was written. `corrupted` names the takes that are damaged on purpose, and how."""

    root: Path
    num_takes: int
    num_sentences: int
    num_written: int  # of the takes; the others were there already
    sentences_of_split: dict[str, int]
    corrupted: dict[str, str]


def write_sentences(
    root: Path,
    cast: Cast,
    *,
    landmarks: bool = False,
    progress: Callable[[int, int], None] | None = None,
    map: TakeMap = map,  # the builtin's name on purpose: any callable like it will do
) -> SentenceFacts:
    """Write one clip per sentence below `root`; with `landmarks`, tracks instead of videos.

    Raises DataError when the sizes are impossible or `root` holds a world of other settings.
    """
    root, form = Path(root), "landmarks" if landmarks else "video"
    takes = plan_sentences(root, cast, form=form)
    claim_world(root, cast, takes, like="table", form=form)
    num_written = write_takes(takes, map=map, progress=progress)
    rows = [
        (take.id, take.path.relative_to(root).as_posix(), " ".join(take.sentences[0].glosses), take.signer.name, take.split,
         take.sentences[0].translation)
        for take in takes
    ]  # fmt: skip
    write_text(root / "alignment.tsv", table(ALIGNMENT_COLUMNS, alignment_rows(takes)))
    write_text(root / "labels.tsv", table(LABEL_COLUMNS, rows))
    return facts_of(root, takes, num_written)


def plan_sentences(root: Path, cast: Cast, *, form: Form = "video") -> list[Take]:
    """The takes of a corpus in this module's layout; nothing is written. Experiments on landmarks need no more."""
    folder, suffix = ("landmarks", ".npy") if form == "landmarks" else ("videos", ".mp4")

    def place(number: int, signer: Signer, split: Split) -> tuple[str, Path]:
        name = f"{signer.name}_{number:04d}"
        return name, root / folder / f"{name}{suffix}"

    return plan_takes(cast, place, form)


def claim_world(root: Path, cast: Cast, takes: Sequence[Take], **about: str) -> None:
    """Say in ROOT/world.json what stands here, or find that it is the same world."""
    signers = {take.signer.index: asdict(take.signer) for take in takes}
    world: dict[str, Any] = {"version": WORLD_VERSION, **about, **asdict(cast), "signers": [signers[k] for k in sorted(signers)]}
    claim(root, {**world, "corrupted": {take.id: take.damage for take in takes if take.damage}})


def facts_of(root: Path, takes: Sequence[Take], num_written: int) -> SentenceFacts:
    """Counts of what was planned."""
    splits = {split: sum(len(take.sentences) for take in takes if take.split == split) for split in ("train", "val", "test")}
    corrupted = {take.id: str(take.damage) for take in takes if take.damage}
    return SentenceFacts(root, len(takes), sum(splits.values()), num_written, splits, corrupted)


def alignment_rows(takes: Iterable[Take]) -> Iterable[tuple[str, ...]]:
    """Every span of every take in order; the gloss of a rest is empty."""
    for take in takes:
        for position, span in enumerate(take.utterance()[0].spans):
            numbers = (span.start, span.end, span.stroke_start, span.stroke_end)
            yield (take.id, str(position), span.gloss, *map(str, numbers))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], separator: str = "\t") -> str:
    """A header and rows as text, never quoted."""
    return "".join(separator.join(row) + "\n" for row in (columns, *rows))
