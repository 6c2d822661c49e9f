"""A folder of pictures as a clip: one picture is one frame, in the order of the numbers in their names."""

import hashlib
import itertools
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from sign_dist.errors import VideoError
from sign_dist.video.clip import Clip, VideoInfo, Want, choose, refuse_bytes, refuse_pixels, short, shrink, size_within
from sign_dist.video.pyav_reader import refuse_mixed

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
FORMATS = ("JPEG", "PNG", "BMP", "WEBP")


def list_pictures(folder: Path) -> list[Path]:
    """The pictures of a folder in the order of their numbers. Hidden and other files are left out.

    Raises:
        VideoError: `missing` where there is no picture, `missing_frames` where a number is left out or stands twice.
    """
    try:
        found = [p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith(".") and p.is_file()]
    except OSError as error:
        raise VideoError("unreadable", f"the folder {folder.name!r} cannot be read: {error.strerror}") from None
    if not found:
        raise VideoError("missing", f"the folder {folder.name!r} holds no picture ({', '.join(s[1:] for s in SUFFIXES)})")
    found.sort(key=lambda path: natural_key(path.name))
    _refuse_gaps(found, folder.name)
    return found


def natural_key(name: str) -> tuple[tuple[str | int, ...], str]:
    """Sorts numbers as numbers.

    >>> sorted(["f10.png", "f9.png", "f1.png"], key=natural_key)
    ['f1.png', 'f9.png', 'f10.png']
    """
    parts = re.split(r"(\d+)", name.lower())
    return tuple(int(part) if i % 2 else part for i, part in enumerate(parts)), name


def _refuse_gaps(pictures: Sequence[Path], name: str) -> None:
    """Every second or third frame is a rate; a single hole is a loss."""
    numbers = _numbers(pictures)
    steps = [after - before for before, after in itertools.pairwise(numbers)]
    if not steps:
        return
    common = min(steps)
    for (a, b), step in zip(itertools.pairwise(pictures), steps, strict=True):
        if step <= 0:
            raise VideoError("missing_frames", f"{name!r} holds no single sequence: {a.name!r} and {b.name!r} have one number")
        if step != common > 0:
            raise VideoError("missing_frames", f"{name!r} has no picture between {a.name!r} and {b.name!r}")


def _numbers(pictures: Sequence[Path]) -> list[int]:
    """The one number in the names that counts frames (PHOENIX ends its names in another, always 0), or nothing."""
    groups = [tuple(map(int, re.findall(r"\d+", path.stem))) for path in pictures]
    if len({len(group) for group in groups}) != 1:
        return []
    counting = [column for column in zip(*groups, strict=True) if len(set(column)) > 1]
    if not counting and len(pictures) > 1 and groups[0]:
        return [groups[0][-1]] * len(pictures)
    return list(counting[0]) if len(counting) == 1 else []


def probe(folder: Path) -> VideoInfo:
    """Number and size of a folder's pictures; it cannot say a rate."""
    pictures = list_pictures(folder)
    width, height = size_of(pictures[0])
    refuse_pixels(width, height, folder.name)
    return VideoInfo(width, height, 0.0, len(pictures), 0.0, pictures[0].suffix.lower()[1:], "pictures")


def read(folder: Path, want: Want, *, image_fps: float) -> Clip:
    """The wanted clip; picture k is shown at k / image_fps.

    Raises:
        VideoError: what `list_pictures` and `choose` raise, `decode_failed`, `too_large` or `mixed_sizes`.
    """
    pictures = list_pictures(folder)
    choice = choose(np.arange(len(pictures)) / image_fps, want, folder.name)
    frames = read_pictures([pictures[i] for i in choice.indices], want.max_side_px, folder.name)
    return Clip(frames, choice.fps, "pictures", choice.num_source)


def read_pictures(pictures: Sequence[Path], max_side_px: int, name: str) -> np.ndarray:
    """Pictures as `uint8 (T, H, W, 3)` RGB; one that is asked for several times is decoded once."""
    sizes = {path: size_of(path) for path in pictures}
    if len(set(sizes.values())) > 1:
        (small, a), (large, b) = (f(sizes.items(), key=lambda item: item[1]) for f in (min, max))
        text = f"{small.name!r} is {a[0]}x{a[1]}, {large.name!r} {b[0]}x{b[1]} pixels"
        raise VideoError("mixed_sizes", f"{name!r} holds pictures of different sizes: {text}")
    width, height = sizes[pictures[0]]
    refuse_pixels(width, height, name)
    refuse_bytes(len(pictures), *size_within(width, height, max_side_px), name)
    frames = {path: _read(path, max_side_px) for path in sizes}
    refuse_mixed(list(frames.values()), name)
    return np.stack([frames[path] for path in pictures])


def size_of(path: Path) -> tuple[int, int]:
    """(width, height) by a picture's header; nothing is decoded."""
    try:
        with Image.open(path, formats=FORMATS) as picture:
            return picture.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise VideoError(*_fault(path, error)) from None


def _read(path: Path, max_side_px: int) -> np.ndarray:
    try:
        with Image.open(path, formats=FORMATS) as picture:
            # JPEG is decoded at a half, a quarter or an eighth where that is still larger than what is asked for.
            picture.draft("RGB", size_within(*picture.size, max_side_px))
            upright = ImageOps.exif_transpose(picture)
            if upright.mode.startswith("I"):  # 16 bits of grey, which a plain conversion would clip to white
                grey = (np.asarray(upright, np.uint32) >> 8).astype(np.uint8)
                return shrink(np.repeat(grey[..., None], 3, axis=2), max_side_px)
            return shrink(np.asarray(upright.convert("RGB")), max_side_px)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise VideoError(*_fault(path, error)) from None


def _fault(path: Path, error: Exception) -> tuple[str, str]:
    if isinstance(error, Image.DecompressionBombError):
        return "too_large", f"{path.name!r} declares more pixels than are allowed"
    if isinstance(error, OSError) and error.errno and not isinstance(error, UnidentifiedImageError):
        return "unreadable", f"{path.name!r} cannot be read: {error.strerror}"
    why = "it is empty" if path.stat().st_size == 0 else "no picture" if isinstance(error, UnidentifiedImageError) else short(error)
    return "decode_failed", f"the picture {path.name!r} cannot be decoded: {why}"


def digest(folder: Path) -> str:
    """sha256 over the names and bytes of a folder's pictures, in their order."""
    whole = hashlib.sha256()
    for path in list_pictures(folder):
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest() + path.name.encode("utf-8", "surrogateescape") + b"\0")
    return whole.hexdigest()
