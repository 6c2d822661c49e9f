"""Landmark tracks in place of a video: `.npy` files with normalised points (T, K, 4), as `synth --landmarks` writes them.

A track has no pictures, so only landmark features can be made of it. Nor does it say how fast its frames follow each other:
as for a folder of pictures, `sampling.image_fps` does.
"""

import dataclasses
import struct
from pathlib import Path

import numpy as np

from sign_dist.config.data import Sampling
from sign_dist.errors import VideoError
from sign_dist.video.clip import Want, choose
from sign_dist.video.landmarks import CHANNELS, NUM_LANDMARKS, Points
from sign_dist.video.source import TRACK_SUFFIX, find_file

MAX_BYTES = 2**30
# Shoulder widths. Arms are about two long, and a detector's guesses lie a few beside; pixels lie far beyond.
FARTHEST = 50.0


@dataclasses.dataclass(frozen=True)
class Track:
    """Normalised points float32 (T, K, 4) and their rate; `num_source` is how many frames the span has before sampling."""

    points: Points
    fps: float
    num_source: int

    def __len__(self) -> int:
        return len(self.points)


def is_track(source: str | Path | bytes) -> bool:
    """Whether a clip is named as a track; bytes in memory never are."""
    return not isinstance(source, bytes) and Path(source).suffix.lower() == TRACK_SUFFIX


def read_track(path: str | Path, sampling: Sampling, *, start_s: float = 0.0, end_s: float = 0.0) -> Track:
    """The frames of `[start_s, end_s)` (`end_s` 0: to the end), at most `sampling.fps` a second. Never runs code of the file.

    Raises:
        VideoError: `missing`, `not_a_file`, `empty`, `unreadable`, `too_large`, `not_a_track`, `truncated`, `not_finite`,
            `no_signer`, `too_long`, `too_short` or `span_outside`.
    """
    found = find_file(path)
    assert found.path
    if found.is_folder:
        raise VideoError("not_a_track", f"{found.name!r} is a folder: give it a name without {TRACK_SUFFIX}")
    points = _mapped(found.path)
    if not len(points):
        raise VideoError("too_short", f"{found.name!r} has no frame")
    want = Want(sampling.fps, sampling.max_side_px, sampling.max_seconds, start_s, end_s)
    choice = choose(np.arange(len(points)) / sampling.image_fps, want, found.name)
    taken = np.asarray(points[choice.indices], np.float32)
    if not np.isfinite(taken).all():
        raise VideoError("not_finite", f"{found.name!r}: {np.count_nonzero(~np.isfinite(taken))} of its values are no numbers")
    seen = taken[..., 3] > 0
    if not seen.any():
        raise VideoError("no_signer", f"{found.name!r}: no point was found in any of {len(taken)} frames")
    if float(taken[..., 3].min()) < 0 or float(taken[..., 3].max()) > 1:
        raise VideoError("not_a_track", f"{found.name!r}: confidences, its last channel, must lie from 0 to 1")
    farthest = float(np.abs(taken[..., :2]).max())
    if farthest > FARTHEST:
        raise VideoError(
            "not_a_track",
            f"{found.name!r} has a point {farthest:.4g} from the origin: points must be normalised to shoulder widths",
        )
    taken[~seen] = 0.0  # what models rely on
    return Track(taken, choice.fps, choice.num_source)


def _mapped(path: Path) -> np.ndarray:
    """The array of a file, not yet read into memory."""
    name, size = path.name, path.stat().st_size
    if size > MAX_BYTES:
        raise VideoError("too_large", f"{name!r} has {size} bytes, more than the {MAX_BYTES} allowed")
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(file, max_header_size=10_000)
            start = file.tell()
    except (ValueError, EOFError, struct.error, SyntaxError) as error:
        text = " ".join(str(error).split())[:80]
        raise VideoError("not_a_track", f"{name!r} is no array as numpy.save writes it ({text})") from None
    except OSError as error:
        raise VideoError("unreadable", f"{name!r} cannot be read: {error.strerror}") from None
    if dtype.kind != "f" or len(shape) != 3 or shape[1:] != (NUM_LANDMARKS, CHANNELS) or fortran:
        order = ", column by column" if fortran and len(shape) > 1 else ""
        raise VideoError(
            "not_a_track", f"{name!r} holds {dtype} {shape}{order}: floats (T, {NUM_LANDMARKS}, {CHANNELS}) row by row are needed"
        )
    needed = start + shape[0] * NUM_LANDMARKS * CHANNELS * dtype.itemsize
    if size < needed:
        raise VideoError("truncated", f"{name!r} breaks off: {size} of its {needed} bytes are there")
    if not shape[0]:
        return np.zeros(shape, dtype)
    return np.memmap(path, dtype, "r", start, shape)
