"""What a decoder is asked for and what it answers, and the budgets that every decoder keeps. No decoder is imported here."""

import dataclasses
import math
import re

import cv2
import numpy as np

from sign_dist.errors import VideoError

# Bounds that keep one hostile or mistaken file from taking the machine; a sign is seconds long and a few megapixels.
MAX_PIXELS = 8192 * 4320
MAX_BYTES_DECODED = 3 * 2**30
# A container may lie about its length; past this many frames nobody decodes on to find out. Two hours at 60 a second are
# 432,000.
MAX_FRAMES = 1_000_000


@dataclasses.dataclass(frozen=True)
class VideoInfo:
    """What a file says of itself, before anything is decoded. `num_frames` and `duration_s` are 0 where it is silent."""

    width: int
    height: int
    fps: float
    num_frames: int
    duration_s: float
    codec: str
    container: str


@dataclasses.dataclass(frozen=True)
class Clip:
    """Decoded frames `uint8 (T, H, W, 3)` RGB, upright, and the rate they were taken at.

    `num_source` is how many frames the file has in the span, before sampling; 0 where nobody counted.
    """

    frames: np.ndarray
    fps: float
    decoder: str
    num_source: int = 0

    def __len__(self) -> int:
        return len(self.frames)


@dataclasses.dataclass(frozen=True)
class Want:
    """Frames of `[start_s, end_s)` (`end_s` 0: to the end), at most `fps` a second, longer side at most `max_side_px`."""

    fps: float
    max_side_px: int
    max_seconds: float
    start_s: float = 0.0
    end_s: float = 0.0

    @property
    def span_text(self) -> str:
        return f"[{self.start_s:g}, {self.end_s:g}) s" if self.end_s else f"what follows {self.start_s:g} s"


def time_indices(times: np.ndarray, *, fps: float, start_s: float, end_s: float) -> tuple[np.ndarray, float]:
    """Which frames to take from frame times, and the rate that results.

    >>> time_indices(np.arange(60) / 60, fps=15, start_s=0, end_s=0)[0][:4].tolist()
    [0, 4, 8, 12]
    """
    inside = frames_inside(times, start_s=start_s, end_s=end_s)
    if len(inside) < 2:
        return inside, fps
    span = times[inside[-1]] - times[inside[0]]
    native = (len(inside) - 1) / span if span > 0 else fps
    steps = np.diff(times[inside])
    even = steps.max() <= 1.5 * np.median(steps)
    if even and native <= fps * 1.01:
        return inside, float(native)
    first = times[inside[0]]
    wanted = first + np.arange(math.floor(span * fps + 1e-6) + 1) / fps
    # The frame on screen at a time is the last one that started before it.
    return inside[np.searchsorted(times[inside], wanted + 1e-4, side="right") - 1], fps


def frames_inside(times: np.ndarray, *, start_s: float, end_s: float) -> np.ndarray:
    """Indices of the frames that start in `[start_s, end_s)`; `end_s` 0 means to the end."""
    return np.flatnonzero((times >= start_s - 1e-6) & ((times < end_s - 1e-6) if end_s else True))


@dataclasses.dataclass(frozen=True)
class Choice:
    """Which source frames make a clip, the rate of the clip, and how many frames its span has."""

    indices: np.ndarray
    fps: float
    num_source: int
    last: int
    """The last source frame of the span: one that can be decoded proves that the span is whole."""


def choose(times: np.ndarray, want: Want, name: str) -> Choice:
    """The frames that `want` asks of a file with frames at `times` (seconds since the first one).

    Raises:
        VideoError: `too_long`, `too_short`, `span_outside`, or `decode_failed` where time runs back.
    """
    if not np.isfinite(times).all() or (np.diff(times) < 0).any():
        raise VideoError("decode_failed", f"{name!r}: frame times do not grow")
    end = float(times[-1])
    if want.start_s > end + 1e-6:
        raise VideoError("span_outside", f"{name!r} ends at {end:.2f} s, before the clip starts at {want.start_s:g} s")
    refuse_length((min(want.end_s, end) if want.end_s else end) - want.start_s, want, name)
    inside = frames_inside(times, start_s=want.start_s, end_s=want.end_s)
    if len(inside) == 0:
        raise VideoError("too_short", f"{name!r} has no frame in {want.span_text}")
    step = float(np.median(np.diff(times))) if len(times) > 1 else 1 / want.fps
    refuse_missing_end(end + step, want, name)
    indices, fps = time_indices(times, fps=want.fps, start_s=want.start_s, end_s=want.end_s)
    return Choice(indices, fps, len(inside), int(inside[-1]))


def refuse_length(seconds: float, want: Want, name: str) -> None:
    """`too_long` for a clip of more seconds than are wanted."""
    if seconds > want.max_seconds:
        raise VideoError("too_long", f"{name!r} is {seconds:.1f} s long, more than the {want.max_seconds:g} s allowed")


def refuse_missing_end(end_s: float, want: Want, name: str) -> None:
    """`span_outside` where the file ends so long before the annotation that a sign is cut; annotators are not exact."""
    missing = want.end_s - end_s
    if want.end_s and missing > max(0.5, 0.1 * (want.end_s - want.start_s)):
        raise VideoError(
            "span_outside", f"{name!r} ends at {end_s:.2f} s, {missing:.2f} s before the clip's end at {want.end_s:g} s"
        )


def falls_short(reached_s: float, declared_s: float) -> bool:
    """Whether what was found ends clearly before what was promised; containers round by a frame or two."""
    return declared_s - reached_s > max(0.2, 0.02 * declared_s)


def refuse_pixels(width: int, height: int, name: str) -> None:
    """`too_large` for a picture beyond `MAX_PIXELS`."""
    if width * height > MAX_PIXELS:
        raise VideoError("too_large", f"{name!r} declares {width}x{height} pixels, more than {MAX_PIXELS} are allowed")


def refuse_bytes(num_frames: int, width: int, height: int, name: str) -> None:
    """`too_large` for frames that would not fit into `MAX_BYTES_DECODED`."""
    if num_frames * width * height * 3 > MAX_BYTES_DECODED:
        raise VideoError(
            "too_large", f"{num_frames} frames of {name!r} at {width}x{height} do not fit into {MAX_BYTES_DECODED} bytes"
        )


def size_within(width: int, height: int, max_side_px: int) -> tuple[int, int]:
    """(width, height) scaled down until the longer side fits; never up.

    >>> size_within(160, 96, 64)
    (64, 38)
    """
    ratio = max_side_px / max(height, width, 1)
    return (max(1, round(width * ratio)), max(1, round(height * ratio))) if ratio < 1 else (width, height)


def shrink(picture: np.ndarray, max_side_px: int) -> np.ndarray:
    """Scale a picture `(H, W, 3)` down until its longer side fits."""
    height, width = picture.shape[:2]
    size = size_within(width, height, max_side_px)
    return np.ascontiguousarray(picture if size == (width, height) else cv2.resize(picture, size, interpolation=cv2.INTER_AREA))


def short(error: BaseException) -> str:
    """The heart of a decoder's complaint: one line without number, path or log."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    text = re.sub(r"^\[Errno \d+\] ", "", lines[0])
    return re.split(r": '|; last error log", text)[0][:120]
