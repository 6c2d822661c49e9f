"""A corpus of isolated signs as people deliver one: a folder of H.264 videos and a table of labels.

    ROOT/videos/signer00_hello_00.mp4    one clip: rest, sign, rest
    ROOT/labels.tsv                      id, path (relative to ROOT), gloss, signer, split; written last
    ROOT/world.json                      seed, sizes, all signers and signs, which files are damaged on purpose

Each clip depends on (seed, signer, gloss, repetition) alone, and the same settings give the same bytes. Writing can be
interrupted and repeated: a file appears under its name only when it is whole, and those that are there are kept.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, Protocol, TypeVar, get_args

import av
import cv2
import numpy as np

from sign_dist.errors import DataError
from sign_dist.synthetic.lexicon import LEXICON, Sign, check_lexicon
from sign_dist.synthetic.motion import clip_rng, make_motion
from sign_dist.synthetic.render import renderer
from sign_dist.synthetic.signer import Signer, make_signer

Split = Literal["train", "val", "test"]
Damage = Literal["truncated", "empty", "text", "no_header"]

WORLD_VERSION: Final = 1  # raise when the same settings give other pictures
COLUMNS: Final = ("id", "path", "gloss", "signer", "split")
TEST_SHARE: Final = 0.20
VAL_SHARE: Final = 0.15
CRF: Final = "23"  # x264's quality: fine enough for fingers, some 70 kB a clip


@dataclass(frozen=True)
class Clip:
    """One file to write. Small, so that it can travel to another process."""

    id: str
    path: Path
    seed: int
    signer_index: int
    sign_index: int
    repetition: int
    damage: Damage | None


@dataclass(frozen=True)
class CorpusFacts:
    """What was written. `corrupted` names the clips that are damaged on purpose, and how."""

    root: Path
    num_clips: int
    num_written: int  # the others were there already
    glosses: tuple[str, ...]
    signers_of_split: dict[str, tuple[str, ...]]
    corrupted: dict[str, str]


class _HasPath(Protocol):
    @property
    def path(self) -> Path: ...


_Item = TypeVar("_Item", bound=_HasPath)
ClipMap = Callable[[Callable[[Clip], bool], Iterable[Clip]], Iterable[bool]]


def write_corpus(
    root: Path,
    *,
    num_signs: int = 12,
    num_signers: int = 8,
    clips_per_sign: int = 2,
    seed: int = 0,
    num_corrupt: int = 0,
    first_sign: int = 0,
    progress: Callable[[int, int], None] | None = None,
    map: ClipMap = map,  # the builtin's name on purpose: any callable like it will do
) -> CorpusFacts:
    """Write `num_signs` x `num_signers` x `clips_per_sign` clips below `root`, one split per signer.

    The signs are those of the lexicon from `first_sign` on: corpora that share none are as two sign languages.

    The last fifth of the signers (at least one) is "test", those before (15 %, at least one) "val", the rest "train".
    `num_corrupt` train files are damaged. `map` may be parallel; `progress` is called with (done, total).

    Raises DataError when the sizes are impossible or `root` holds a world of other settings.
    """
    root = Path(root)
    plan = plan_clips(root, num_signs, num_signers, clips_per_sign, seed, num_corrupt, first_sign)
    claim(root, {"version": WORLD_VERSION, **plan.world})
    num_written = write_clips(plan.clips, map=map, progress=progress)
    rows = [
        (clip.id, clip.path.relative_to(root).as_posix(), LEXICON[clip.sign_index].gloss,
         make_signer(seed, clip.signer_index).name, plan.splits[clip.signer_index])
        for clip in plan.clips
    ]  # fmt: skip
    write_text(root / "labels.tsv", "".join("\t".join(row) + "\n" for row in (COLUMNS, *rows)))
    return facts_of_clips(root, plan, num_written)


@dataclass(frozen=True)
class ClipPlan:
    """What will be written: the clips, the split of each signer, and what world.json says of it."""

    clips: tuple[Clip, ...]
    splits: tuple[Split, ...]
    world: dict[str, Any]


def plan_clips(
    root: Path, num_signs: int, num_signers: int, clips_per_sign: int, seed: int, num_corrupt: int, first_sign: int = 0
) -> ClipPlan:
    """All clips of a corpus below `root`; nothing is written. Raises DataError when the sizes are impossible."""
    sizes = {
        "num_signs": num_signs,
        "num_signers": num_signers,
        "clips_per_sign": clips_per_sign,
        "seed": seed,
        "num_corrupt": num_corrupt,
        "first_sign": first_sign,
    }
    _check_sizes(sizes)
    signs = LEXICON[first_sign : first_sign + num_signs]
    check_lexicon(signs)
    signers = [make_signer(seed, index) for index in range(num_signers)]
    splits = split_of_signers(num_signers)
    clips = tuple(_plan(root, sizes, splits))
    # The usual world keeps the record it had before there were others.
    world = {
        **{name: size for name, size in sizes.items() if name != "first_sign" or size},
        "signers": [{**asdict(signer), "split": split} for signer, split in zip(signers, splits, strict=True)],
        "signs": [asdict(sign) for sign in signs],
        "corrupted": {clip.id: clip.damage for clip in clips if clip.damage},
    }
    return ClipPlan(clips, tuple(splits), world)


def write_clips(clips: Sequence[Clip], *, map: ClipMap = map, progress: Callable[[int, int], None] | None = None) -> int:
    """Write what is not there yet; returns how many that were. `progress` is called with (done, total)."""
    return write_missing(clips, write_one, map=map, progress=progress)


def facts_of_clips(root: Path, plan: ClipPlan, num_written: int) -> CorpusFacts:
    """Counts of what was planned."""
    named = [(make_signer(plan.world["seed"], index).name, split) for index, split in enumerate(plan.splits)]
    return CorpusFacts(
        root=root,
        num_clips=len(plan.clips),
        num_written=num_written,
        glosses=tuple(sign["gloss"] for sign in plan.world["signs"]),
        signers_of_split={split: tuple(name for name, given in named if given == split) for split in get_args(Split)},
        corrupted={clip.id: str(clip.damage) for clip in plan.clips if clip.damage},
    )


def write_missing(
    items: Sequence[_Item],
    write: Callable[[_Item], bool],
    *,
    map: Callable[[Callable[[_Item], bool], Iterable[_Item]], Iterable[bool]],
    progress: Callable[[int, int], None] | None,
) -> int:
    """`write` those whose path is not there; returns how many that were."""
    missing = [item for item in items if not item.path.exists()]
    done = len(items) - len(missing)
    for _ in map(write, missing):
        done += 1
        if progress is not None:
            progress(done, len(items))
    return len(missing)


def write_clip(path: Path, sign: Sign, signer: Signer, *, seed: int, repetition: int) -> int:
    """Render one performance and write it as H.264 in MP4; returns the number of frames. `path` appears when whole."""
    motion = make_motion(sign, signer, clip_rng(seed, signer, sign, repetition))
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.part")
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # the pictures are small: threads cost more than they bring, and clips can be made in parallel
    try:
        encode(unfinished, renderer(signer).frames(motion), fps=signer.fps, size=(signer.width_px, signer.height_px))
    finally:
        cv2.setNumThreads(threads)
    unfinished.replace(path)
    return motion.num_frames


def encode(path: Path, frames: Iterable[np.ndarray[Any, np.dtype[np.uint8]]], *, fps: int, size: tuple[int, int]) -> None:
    """Write RGB frames (H, W, 3) as H.264; one thread and fixed settings, so equal frames give equal bytes."""
    with av.open(str(path), "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=fps, options={"preset": "superfast", "crf": CRF, "threads": "1"})
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def write_one(clip: Clip) -> bool:
    """Write the file of `clip`, damaged where it should be. At module level: it can be sent to a worker process."""
    sign, signer = LEXICON[clip.sign_index], make_signer(clip.seed, clip.signer_index)
    if clip.damage is None:
        write_clip(clip.path, sign, signer, seed=clip.seed, repetition=clip.repetition)
        return True
    whole = clip.path.with_name(f".{clip.path.name}.whole")
    write_clip(whole, sign, signer, seed=clip.seed, repetition=clip.repetition)
    whole.write_bytes(damaged(whole.read_bytes(), clip.damage))
    whole.replace(clip.path)
    return True


def damaged(content: bytes, damage: Damage) -> bytes:
    """A video file after an accident that real corpora show; none of the results can be played."""
    match damage:
        case "truncated":  # a download that stopped: the index at the end of the file is lost
            return content[: len(content) * 3 // 5]
        case "empty":
            return b""
        case "text":  # a page saved under the video's name
            return b"<!doctype html><title>404 Not Found</title>\n<p>The requested video is not available.</p>\n"
        case "no_header":
            return bytes(1024) + content[1024:]


def split_of_signers(num_signers: int) -> list[Split]:
    """The split of each signer; no signer is in two.

    >>> split_of_signers(5)
    ['train', 'train', 'train', 'val', 'test']
    """
    num_test = max(1, round(TEST_SHARE * num_signers))
    num_val = max(1, round(VAL_SHARE * num_signers))
    train: list[Split] = ["train"] * (num_signers - num_test - num_val)
    val: list[Split] = ["val"] * num_val
    test: list[Split] = ["test"] * num_test
    return train + val + test


def _plan(root: Path, sizes: dict[str, int], splits: list[Split]) -> Iterator[Clip]:
    """All clips, signer by signer, so that what is painted once per signer is used by neighbours."""
    per_signer = sizes["num_signs"] * sizes["clips_per_sign"]
    in_train = per_signer * splits.count("train")
    rng = np.random.default_rng([sizes["seed"], 104])
    unlucky = {int(number) for number in rng.permutation(in_train)[: sizes["num_corrupt"]]}
    kinds: tuple[Damage, ...] = get_args(Damage)
    num_damaged = number = 0
    for signer_index in range(sizes["num_signers"]):
        for sign_index in range(sizes["first_sign"], sizes["first_sign"] + sizes["num_signs"]):
            for repetition in range(sizes["clips_per_sign"]):
                damage: Damage | None = None
                if number in unlucky:
                    damage = kinds[num_damaged % len(kinds)]
                    num_damaged += 1
                name = f"signer{signer_index:02d}_{LEXICON[sign_index].gloss.lower()}_{repetition:02d}"
                path = root / "videos" / f"{name}.mp4"
                yield Clip(name, path, sizes["seed"], signer_index, sign_index, repetition, damage)
                number += 1


def _check_sizes(sizes: dict[str, int]) -> None:
    if not 1 <= sizes["num_signs"] <= len(LEXICON):
        raise DataError(f"the synthetic lexicon has {len(LEXICON)} signs: ask for 1 to {len(LEXICON)}, not {sizes['num_signs']}")
    if not 0 <= sizes["first_sign"] <= len(LEXICON) - sizes["num_signs"]:
        raise DataError(
            f"the synthetic lexicon has {len(LEXICON)} signs: {sizes['num_signs']} of them can begin at number 0 to "
            f"{len(LEXICON) - sizes['num_signs']}, not {sizes['first_sign']}"
        )
    if sizes["num_signers"] < 3:
        raise DataError(f"each split needs a signer of its own: ask for at least 3 signers, not {sizes['num_signers']}")
    if sizes["clips_per_sign"] < 1 or sizes["seed"] < 0:
        raise DataError(f"need clips_per_sign >= 1 and seed >= 0, got {sizes['clips_per_sign']} and {sizes['seed']}")
    in_train = sizes["num_signs"] * sizes["clips_per_sign"] * split_of_signers(sizes["num_signers"]).count("train")
    if not 0 <= sizes["num_corrupt"] <= in_train:
        raise DataError(f"can damage 0 to {in_train} files (those of train), not {sizes['num_corrupt']}")


def claim(root: Path, world: dict[str, Any]) -> None:
    """Say in ROOT/world.json which world stands here, or find that it is the same one."""
    path = root / "world.json"
    text = json.dumps(world, indent=1, sort_keys=False) + "\n"
    root.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.read_text(encoding="utf-8") != text:
        raise DataError(f"{path} describes a synthetic world of other settings: choose an empty folder or remove that one")
    write_text(path, text)


def write_text(path: Path, text: str) -> None:
    """Write a small file as a whole or not at all."""
    unfinished = path.with_name(f".{path.name}.part")
    unfinished.write_text(text, encoding="utf-8", newline="\n")
    unfinished.replace(path)
