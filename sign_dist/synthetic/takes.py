"""Takes: who signs which sentences in which split, and the file or folder that each of them becomes.

A take depends on (seed, signer, number, its sentences) alone, so takes can be written in any order and by any process.
"""

import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, get_args

import cv2
import numpy as np

from sign_dist.errors import DataError
from sign_dist.synthetic.corpus import Damage, Split, damaged, encode, split_of_signers, write_missing
from sign_dist.synthetic.grammar import Sentence, draw_sentence
from sign_dist.synthetic.landmarks import motion_landmarks
from sign_dist.synthetic.render import renderer
from sign_dist.synthetic.signer import Signer, make_signer
from sign_dist.synthetic.utterance import Utterance, make_utterance
from sign_dist.synthetic.words import DOMAINS, DomainName

Form = Literal["video", "pictures", "landmarks"]
SplitBy = Literal["signer", "sentence"]
TakeMap = Callable[[Callable[["Take"], bool], Iterable["Take"]], Iterable[bool]]

MOST_SENTENCES: Final = 8000  # of one domain: beyond, new ones become hard to find
PNG_EFFORT: Final = 1  # zlib's: larger files, a third of the time
PHOENIX_HEIGHT_PX: Final = 300  # the corpus's pictures are squeezed from 210 x 300 to 210 x 260


@dataclass(frozen=True)
class Cast:
    """What a corpus of sentences is made of."""

    num_sentences: int = 200
    num_signers: int = 8
    domain: DomainName = "daily"
    seed: int = 0
    num_corrupt: int = 0
    split_by: SplitBy = "signer"
    agreement: bool = False
    size_px: int = 128
    fps: int = 20
    sentences_per_take: int = 1

    def check(self) -> None:
        """Raises DataError when the numbers are impossible."""
        if self.num_signers < 3 or self.sentences_per_take < 1 or self.seed < 0:
            raise DataError(
                f"need at least 3 signers, 1 sentence a recording and a seed >= 0, "
                f"got {self.num_signers}, {self.sentences_per_take} and {self.seed}"
            )
        least = self.num_signers * self.sentences_per_take
        if not least <= self.num_sentences <= MOST_SENTENCES:
            raise DataError(
                f"every signer makes {self.sentences_per_take} or more sentences, and a domain has enough for {MOST_SENTENCES}: "
                f"ask for {least} to {MOST_SENTENCES} sentences, not {self.num_sentences}"
            )
        if self.domain not in DOMAINS:
            raise DataError(f"no domain {self.domain!r}: choose {' or '.join(DOMAINS)}")
        if self.size_px % 2 or not 64 <= self.size_px <= 1024 or not 5 <= self.fps <= 60:
            raise DataError(f"need an even size of 64 to 1024 px and 5 to 60 fps, got {self.size_px} and {self.fps}")


@dataclass(frozen=True)
class Take:
    """One recording to make: small, so that it can travel to another process. `path` is a file, or a folder of pictures."""

    id: str
    path: Path
    form: Form
    seed: int
    number: int
    signer: Signer
    sentences: tuple[Sentence, ...]
    split: Split
    damage: Damage | None = None
    picture_name: str = ""  # of the pictures of a folder, with {} for their number

    def utterance(self) -> tuple[Utterance, np.random.Generator]:
        """The poses, and the generator in the state after they were drawn."""
        rng = np.random.default_rng([self.seed, 105, self.signer.index, self.number])
        return make_utterance(self.sentences, self.signer, rng), rng


def draw_sentences(cast: Cast) -> list[Sentence]:
    """`num_sentences` different sentences; those of a smaller corpus of the same seed are the first of a larger one."""
    rng = np.random.default_rng([cast.seed, 106, list(DOMAINS).index(cast.domain)])
    found: dict[tuple[str, ...], Sentence] = {}
    while len(found) < cast.num_sentences:
        sentence = draw_sentence(cast.domain, rng, agreement=cast.agreement)
        found.setdefault(sentence.glosses, sentence)
    return list(found.values())


def plan_takes(cast: Cast, place: Callable[[int, Signer, Split], tuple[str, Path]], form: Form = "video") -> list[Take]:
    """All takes, signer by signer; `place` gives (id, path) of a take from its number, signer and split.

    Signers take turns, so each has as many takes as any other, or one less. Split by signer, no signer is in two splits;
    split by sentence, all are in all. A sentence is signed once, so none is in two splits.
    """
    cast.check()
    sentences = draw_sentences(cast)
    size = cast.sentences_per_take
    groups = [tuple(sentences[k : k + size]) for k in range(0, len(sentences), size)]
    signers = [
        replace(make_signer(cast.seed, index), width_px=cast.size_px, height_px=cast.size_px, fps=cast.fps)
        for index in range(cast.num_signers)
    ]
    splits = _splits(cast, len(groups))
    takes = list[Take]()
    for number in sorted(range(len(groups)), key=lambda n: (n % cast.num_signers, n)):
        signer = signers[number % cast.num_signers]
        id_, path = place(number, signer, splits[number])
        takes.append(Take(id_, path, form, cast.seed, number, signer, groups[number], splits[number]))
    train = [k for k, take in enumerate(takes) if take.split == "train"]
    if not 0 <= cast.num_corrupt <= len(train):
        raise DataError(f"can damage 0 to {len(train)} recordings (those of train), not {cast.num_corrupt}")
    kinds: tuple[Damage, ...] = get_args(Damage)
    unlucky = np.random.default_rng([cast.seed, 107]).permutation(train)[: cast.num_corrupt]
    for order, k in enumerate(sorted(int(k) for k in unlucky)):
        takes[k] = replace(takes[k], damage=kinds[order % len(kinds)])
    return takes


def _splits(cast: Cast, num_takes: int) -> list[Split]:
    if cast.split_by == "signer":
        of_signer = split_of_signers(cast.num_signers)
        return [of_signer[number % cast.num_signers] for number in range(num_takes)]
    shares = split_of_signers(num_takes)
    order = np.random.default_rng([cast.seed, 108]).permutation(num_takes)
    return [shares[int(rank)] for rank in order]


def write_takes(takes: Sequence[Take], *, map: TakeMap = map, progress: Callable[[int, int], None] | None = None) -> int:
    """Write what is not there yet; returns how many that were. `progress` is called with (done, total)."""
    return write_missing(takes, write_take, map=map, progress=progress)


def write_take(take: Take) -> bool:
    """Write one take; it appears under its name when it is whole. At module level: it can be sent to a worker process."""
    take.path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = take.path.with_name(f".{take.path.name}.part")
    utterance, rng = take.utterance()
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # the pictures are small: threads cost more than they bring, and takes can be made in parallel
    try:
        match take.form:
            case "video":
                signer = take.signer
                frames = renderer(signer).frames(utterance.motion)
                encode(unfinished, frames, fps=signer.fps, size=(signer.width_px, signer.height_px))
                if take.damage:
                    unfinished.write_bytes(damaged(unfinished.read_bytes(), take.damage))
            case "pictures":
                _write_pictures(take, utterance, unfinished)
            case "landmarks":
                with unfinished.open("wb") as file:
                    np.save(file, motion_landmarks(utterance.motion, take.signer, rng).astype(np.float16))
                if take.damage:
                    unfinished.write_bytes(damaged(unfinished.read_bytes(), take.damage))
    finally:
        cv2.setNumThreads(threads)
    unfinished.replace(take.path)
    return True


def _write_pictures(take: Take, utterance: Utterance, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # of an interrupted run
    folder.mkdir()
    tall = replace(take.signer, height_px=PHOENIX_HEIGHT_PX)
    size = (take.signer.width_px, take.signer.height_px)
    for number, frame in enumerate(renderer(tall).frames(utterance.motion)):
        squeezed = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
        _, content = cv2.imencode(".png", cv2.cvtColor(squeezed, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, PNG_EFFORT])
        data = damaged(content.tobytes(), take.damage) if take.damage else content.tobytes()
        (folder / take.picture_name.format(number)).write_bytes(data)
