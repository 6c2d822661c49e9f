"""The first decoder, decord: fast, and believed only where it sees the same frames as FFmpeg's own index.

It ignores some edit lists, repeats frames it cannot find and decodes ahead of what is asked. A reader must not be shared
between threads, so each call opens its own, asks once and closes it.
"""

import contextlib
import io
import math
from pathlib import Path
from typing import Any

import av  # noqa: F401 - first: decord brings an old libvpx, which PyAV's encoders would be bound to
import decord
import numpy as np

from sign_dist.errors import VideoError
from sign_dist.video.clip import VideoInfo, refuse_bytes, short, shrink, size_within
from sign_dist.video.pyav_reader import FrameIndex
from sign_dist.video.source import Source

# decord cannot seek in these (it repeats frames for those it does not find, and only says so on stderr), or cannot open them.
NOT_FOR_DECORD = ("mpegts", "mpeg", "gif")
UNKNOWN_CODECS = ("libdav1d", "av1", "libaom-av1")
# It decodes frames nobody has asked for yet, all that are left in the file if it is given the time.
MAX_AHEAD_BYTES = 2**30
MIN_WIDTH_PX = 17
FAULTS = (decord.DECORDError, RuntimeError, ValueError, IndexError)

decord.logging.set_level(decord.logging.QUIET)


def can_read(info: VideoInfo, index: FrameIndex, max_side_px: int) -> bool:
    """Whether decord is worth trying: it knows the format, and what it may decode ahead fits into memory."""
    if info.container in NOT_FOR_DECORD or info.codec in UNKNOWN_CODECS or info.width < MIN_WIDTH_PX:
        return False
    width, height = size_within(info.width, info.height, max_side_px)
    return index.exact and not index.fault and len(index.times) * width * height * 3 <= MAX_AHEAD_BYTES


def take(source: Source, info: VideoInfo, index: FrameIndex, indices: np.ndarray, last: int, max_side_px: int) -> np.ndarray:
    """Frames `uint8 (T, H, W, 3)` at some indices. `last` is decoded too: it proves that nothing before it is torn off.

    Raises:
        VideoError: `decode_failed` where decord and the index disagree, or decord gives up.
    """
    try:
        with contextlib.ExitStack() as stack:
            reader = _open(source, stack, index, max_side_px)
            _refuse_other_frames(reader, index, source.name)
            asked, place = np.unique(np.append(indices, last), return_inverse=True)
            small = size_within(info.width, info.height, max_side_px)
            refuse_bytes(len(indices), *small, source.name)
            # Pictures that decord did not scale come in small batches: it is the shrunken ones that are kept.
            at_once = min(64, max(1, 2**28 // (info.width * info.height * 3)))
            parts = np.array_split(asked, math.ceil(len(asked) / at_once))
            frames = np.concatenate([_batch(reader, part, max_side_px) for part in parts])
    except VideoError:
        raise
    except FAULTS as error:
        raise VideoError("decode_failed", f"{source.name!r}: {short(error)}") from None
    return frames[place[:-1]]


def _batch(reader: Any, indices: np.ndarray, max_side_px: int) -> np.ndarray:
    batch = reader.get_batch(indices.tolist()).asnumpy()
    if max(batch.shape[1:3]) <= max_side_px:
        return batch
    return np.stack([shrink(frame, max_side_px) for frame in batch])


def _open(source: Source, stack: contextlib.ExitStack, index: FrameIndex, max_side_px: int) -> Any:
    width, height = index.size
    if index.rotation % 2:
        width, height = height, width
    size: dict[str, int] = {}
    if max(width, height) > max_side_px:
        # Scaled by the decoder, so that full pictures are neither converted nor queued.
        size = dict(zip(("width", "height"), size_within(width, height, max_side_px), strict=True))
    file = stack.enter_context(source.open())
    place: Any = file
    if source.path and Path("/proc/self/fd").is_dir():
        place = f"/proc/self/fd/{file.fileno()}"  # a name such as "-x.mp4" or one with quotes is never parsed
    elif source.path:
        place = io.BytesIO(file.read())
    return decord.VideoReader(place, num_threads=1, **size)


def _refuse_other_frames(reader: Any, index: FrameIndex, name: str) -> None:
    count = len(reader)
    if count != len(index.times):
        raise VideoError("decode_failed", f"{name!r}: decord sees {count} frames, FFmpeg {len(index.times)}")
    times = reader.get_frame_timestamp(range(count))[:, 0].astype(np.float64)
    # decord tells times as 32-bit numbers: half a millisecond after two hours.
    if not np.allclose(times - times[0], index.times, rtol=0, atol=2e-3):
        raise VideoError("decode_failed", f"{name!r}: decord and FFmpeg disagree on when frames are shown")
