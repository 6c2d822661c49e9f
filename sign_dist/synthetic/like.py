"""Corpora in the shapes of real ones, so that their readers can be run from end to end on something that may be shared.

`wlasl`         WLASL_v0.3.json, nslt_N.json, wlasl_class_list.txt, videos/ID.mp4            isolated signs
`phoenix2014`   annotations/manual/SPLIT.corpus.csv, features/fullFrame-210x260px/SPLIT/ID/1/*.png
`phoenix2014T`  annotations/manual/PHOENIX-2014-T.SPLIT.corpus.csv, features/.../SPLIT/ID/*.png     with translations
`how2sign`      video_level/SPLIT/rgb_front/raw_videos/NAME.mp4 with several sentences each, and re-aligned lists of
                their times, separated by tabs although they end in .csv, as the download lays them out

Their oddities are kept: the lists of Phoenix 2014 hold double blanks, those of 2014T name a folder `1` that is not there,
Phoenix pictures are squeezed. The signs are those of no sign language.
"""

import datetime
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, get_args

import numpy as np

from sign_dist.errors import DataError, did_you_mean
from sign_dist.synthetic.corpus import (
    WORLD_VERSION,
    Clip,
    ClipMap,
    CorpusFacts,
    Split,
    claim,
    facts_of_clips,
    plan_clips,
    write_clips,
    write_corpus,
    write_text,
)
from sign_dist.synthetic.lexicon import LEXICON
from sign_dist.synthetic.motion import clip_rng, make_motion
from sign_dist.synthetic.sentences import (
    ALIGNMENT_COLUMNS,
    SentenceFacts,
    alignment_rows,
    claim_world,
    facts_of,
    table,
    write_sentences,
)
from sign_dist.synthetic.signer import Signer, make_signer
from sign_dist.synthetic.takes import Cast, SplitBy, Take, TakeMap, plan_takes, write_takes
from sign_dist.synthetic.words import DomainName

Like = Literal["table", "wlasl", "phoenix2014", "phoenix2014T", "how2sign"]

_Word = TypeVar("_Word", bound=str)
USUAL_SENTENCES: Final = 40
GIVEN_SPLIT: Final[dict[Split, str]] = {"train": "train", "val": "dev", "test": "test"}  # Phoenix calls val "dev"
PHOENIX_SIZE_PX: Final = (210, 260)
PHOENIX_FPS: Final = 25
FRAMES: Final = "features/fullFrame-210x260px"
SENTENCES_PER_BROADCAST: Final = 4
SENTENCES_PER_VIDEO: Final = 4
DOUBLE_BLANKS_EVERY: Final = 5  # rows
MARGIN_S: Final = 0.08  # of a How2Sign span, before the first and after the last sign
MONTHS: Final = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December",
)  # fmt: skip
WEEKDAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
ID_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
HOW2SIGN_COLUMNS: Final = (
    "VIDEO_ID", "VIDEO_NAME", "SENTENCE_ID", "SENTENCE_NAME", "START_REALIGNED", "END_REALIGNED", "SENTENCE",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Order:
    """What `sign-dist synth` is asked for, as it was typed."""

    signs: int = 12
    signers: int = 8
    clips: int = 2
    seed: int = 0
    corrupt: int = 0
    like: str = "table"
    sentences: int = 0
    domain: str = "daily"
    split_by: str = "signer"
    agreement: bool = False
    size_px: int = 128
    fps: int = 20
    landmarks: bool = False
    first_sign: int = 0


def write_order(root: Path, order: Order, *, progress: Callable[[int, int], None] | None = None) -> str:
    """Write what is asked for; returns a sentence that says what was written.

    Raises DataError when the words do not go together, or as the functions that write do.
    """
    like = one_of("shape", order.like, get_args(Like))
    if like == "wlasl" and order.sentences:
        raise DataError("a corpus like wlasl has isolated signs: leave out --sentences, or choose another --like")
    if order.landmarks and (like != "table" or not order.sentences):
        raise DataError("landmark tracks are written for sentences in a table: add --sentences N, and leave out --like")
    if order.first_sign and (like != "table" or order.sentences):
        raise DataError("sentences, and a corpus like wlasl, begin with the first sign of the lexicon: leave out --first-sign")
    if like == "wlasl" or (like == "table" and not order.sentences):
        write = write_wlasl if like == "wlasl" else partial(write_corpus, first_sign=order.first_sign)
        facts = write(
            root, num_signs=order.signs, num_signers=order.signers, clips_per_sign=order.clips, seed=order.seed,
            num_corrupt=order.corrupt, progress=progress,
        )  # fmt: skip
        return f"{facts.num_clips} clips of {order.signs} signs by {order.signers} signers in {root}"
    cast = Cast(
        num_sentences=order.sentences or USUAL_SENTENCES, num_signers=order.signers, seed=order.seed, num_corrupt=order.corrupt,
        domain=one_of("domain", order.domain, get_args(DomainName)), split_by=one_of("split", order.split_by, get_args(SplitBy)),
        agreement=order.agreement, size_px=order.size_px, fps=order.fps,
    )  # fmt: skip
    if like == "table":
        done = write_sentences(root, cast, landmarks=order.landmarks, progress=progress)
    else:
        done = write_like(root, like, cast, progress=progress)
    counts = ", ".join(f"{split} {count}" for split, count in done.sentences_of_split.items())
    return f"{done.num_sentences} sentences ({counts}) by {order.signers} signers in {root}"


def one_of(what: str, word: str, allowed: tuple[_Word, ...]) -> _Word:
    """`word` as one of the allowed ones; raises DataError when it is none of them."""
    for known in allowed:
        if word == known:
            return known
    raise DataError(
        f"no {what} {word!r}: choose {', '.join(allowed)};{did_you_mean(word, allowed) or ' see sign-dist synth --help'}"
    )


def write_wlasl(
    root: Path,
    *,
    num_signs: int = 12,
    num_signers: int = 8,
    clips_per_sign: int = 2,
    seed: int = 0,
    num_corrupt: int = 0,
    progress: Callable[[int, int], None] | None = None,
    map: ClipMap = map,  # the builtin's name on purpose: any callable like it will do
) -> CorpusFacts:
    """The clips of `corpus.write_corpus`, named and listed as WLASL's; raises DataError as it does."""
    root = Path(root)
    plan = plan_clips(root, num_signs, num_signers, clips_per_sign, seed, num_corrupt)
    clips = [replace(clip, id=f"{k + 10:05d}", path=root / "videos" / f"{k + 10:05d}.mp4") for k, clip in enumerate(plan.clips)]
    plan = replace(plan, clips=tuple(clips))
    corrupted = {clip.id: clip.damage for clip in clips if clip.damage}
    claim(root, {"version": WORLD_VERSION, "like": "wlasl", **plan.world, "corrupted": corrupted})
    num_written = write_clips(plan.clips, map=map, progress=progress)

    split_of = dict(enumerate(plan.splits))
    entries: list[dict[str, Any]] = []
    subset: dict[str, dict[str, Any]] = {}
    for index, sign in enumerate(LEXICON[:num_signs]):
        mine = [clip for clip in clips if clip.sign_index == index]
        entries.append(
            {
                "gloss": sign.gloss.lower(),
                "instances": [_instance(clip, number, split_of[clip.signer_index]) for number, clip in enumerate(mine)],
            }
        )
        for clip in mine:
            signer = make_signer(seed, clip.signer_index)
            num_frames = make_motion(sign, signer, clip_rng(seed, signer, sign, clip.repetition)).num_frames
            subset[clip.id] = {"subset": split_of[clip.signer_index], "action": [index, 1, num_frames]}
    names = "".join(f"{index}\t{sign.gloss.lower()}\n" for index, sign in enumerate(LEXICON[:num_signs]))
    write_text(root / "wlasl_class_list.txt", names)
    write_text(root / f"nslt_{num_signs}.json", json.dumps(subset))
    write_text(root / "WLASL_v0.3.json", json.dumps(entries, indent=4))
    return facts_of_clips(root, plan, num_written)


def write_like(
    root: Path,
    like: Literal["phoenix2014", "phoenix2014T", "how2sign"],
    cast: Cast,
    *,
    progress: Callable[[int, int], None] | None = None,
    map: TakeMap = map,  # the builtin's name on purpose: any callable like it will do
) -> SentenceFacts:
    """Write the sentences of `cast` as that corpus is delivered, and alignment.tsv beside it.

    Phoenix has pictures of a fixed size and rate, whatever `cast` says.
    Raises DataError when the sizes are impossible or `root` holds a world of other settings.
    """
    root = Path(root)
    takes = _how2sign_takes(root, cast) if like == "how2sign" else _phoenix_takes(root, cast, like)
    claim_world(root, cast, takes, like=like)
    num_written = write_takes(takes, map=map, progress=progress)
    write_text(root / "alignment.tsv", table(ALIGNMENT_COLUMNS, alignment_rows(takes)))
    for split, given in GIVEN_SPLIT.items():
        mine = [take for take in takes if take.split == split]
        match like:
            case "phoenix2014":
                text, path = _phoenix_list(mine), f"annotations/manual/{given}.corpus.csv"
            case "phoenix2014T":
                text, path = _phoenix_t_list(mine), f"annotations/manual/PHOENIX-2014-T.{given}.corpus.csv"
            case "how2sign":
                text = table(HOW2SIGN_COLUMNS, [row for take in mine for row in _how2sign_rows(take)])
                path = f"sentence_level/{split}/text/en/raw_text/re_aligned/how2sign_realigned_{split}.csv"
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        write_text(root / path, text)
    return facts_of(root, takes, num_written)


def _instance(clip: Clip, number: int, split: Split) -> dict[str, Any]:
    signer = make_signer(clip.seed, clip.signer_index)
    return {
        "bbox": [0, 0, signer.width_px, signer.height_px],
        "fps": 25,
        "frame_end": -1,
        "frame_start": 1,
        "instance_id": number,
        "signer_id": clip.signer_index,
        "source": "synthetic",
        "split": split,
        "url": f"https://example.org/{clip.id}.mp4",
        "variation_id": 0,
        "video_id": clip.id,
    }


def _phoenix_takes(root: Path, cast: Cast, like: Literal["phoenix2014", "phoenix2014T"]) -> list[Take]:
    inner, picture = ("/1", "{id}.avi_pid0_fn{{:06d}}-0.png") if like == "phoenix2014" else ("", "images{{:04d}}.png")
    met: dict[tuple[int, Split], int] = {}

    def place(number: int, signer: Signer, split: Split) -> tuple[str, Path]:
        # A broadcast has one signer and stands in one split.
        order = met[signer.index, split] = met.get((signer.index, split), -1) + 1
        broadcast = (order // SENTENCES_PER_BROADCAST * 3 + ("train", "val", "test").index(split)) * cast.num_signers + signer.index
        day = datetime.date(2010, 1, 1) + datetime.timedelta(days=broadcast)
        name = f"{day.day:02d}{MONTHS[day.month - 1]}_{day.year}_{WEEKDAYS[day.weekday()]}_heute"
        name += f"{'_default' if like == 'phoenix2014' else ''}-{order % SENTENCES_PER_BROADCAST}"
        return name, root / FRAMES / GIVEN_SPLIT[split] / f"{name}{inner}"

    width_px, height_px = PHOENIX_SIZE_PX
    takes = plan_takes(replace(cast, sentences_per_take=1), place, "pictures")
    return [
        replace(
            take,
            signer=replace(take.signer, width_px=width_px, height_px=height_px, fps=PHOENIX_FPS),
            picture_name=picture.format(id=take.id),
        )
        for take in takes
    ]


def _phoenix_list(takes: Sequence[Take]) -> str:
    rows = list[tuple[str, ...]]()
    for k, take in enumerate(takes):
        first, *others = take.sentences[0].glosses
        blank = "  " if k % DOUBLE_BLANKS_EVERY == 0 else " "
        rows.append((take.id, f"{take.id}/1/*.png", _signer_name(take), f"{first}{blank}{' '.join(others)}"))
    return table(("id", "folder", "signer", "annotation"), rows, "|")


def _phoenix_t_list(takes: Sequence[Take]) -> str:
    rows = [
        (take.id, f"{take.id}/1/*.png", "-1", "-1", _signer_name(take), " ".join(take.sentences[0].glosses),
         take.sentences[0].translation.rstrip(".?").lower())
        for take in takes
    ]  # fmt: skip
    return table(("name", "video", "start", "end", "speaker", "orth", "translation"), rows, "|")


def _signer_name(take: Take) -> str:
    return f"Signer{take.signer.index + 1:02d}"


def _how2sign_takes(root: Path, cast: Cast) -> list[Take]:
    def place(number: int, signer: Signer, split: Split) -> tuple[str, Path]:
        letters = np.random.default_rng([cast.seed, 109, number]).choice(list(ID_LETTERS), size=11)
        name = f"{''.join(letters)}-{signer.index + 1}-rgb_front"
        return name, root / f"video_level/{split}/rgb_front/raw_videos/{name}.mp4"

    per_take = max(1, min(SENTENCES_PER_VIDEO, cast.num_sentences // max(cast.num_signers, 1)))
    return plan_takes(replace(cast, sentences_per_take=per_take), place)


def _how2sign_rows(take: Take) -> list[tuple[str, ...]]:
    utterance, _ = take.utterance()
    video_id, _, view = take.id.rpartition("-rgb_front")[0].rpartition("-")
    last_s = utterance.motion.num_frames / take.signer.fps
    rows = list[tuple[str, ...]]()
    for number, sentence in enumerate(take.sentences):
        start, end = (frame / take.signer.fps for frame in utterance.sentence_frames(number))
        times = (max(start - MARGIN_S, 0.0), min(end + MARGIN_S, last_s))
        name = f"{video_id}_{number}"
        rows.append((video_id, take.id, name, f"{name}-{view}-rgb_front", *(f"{time:.2f}" for time in times), sentence.translation))
    return rows
