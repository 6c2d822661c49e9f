"""The only importer of a video decoder: look at a file, read frames of it.

decord reads first, because it is asked for and fast; PyAV (FFmpeg 8) reads what decord cannot: AV1, GIF, MPEG-TS, WebM
without a duration, very small pictures. A decord reader decodes ahead of what is asked and must not be shared between
threads, so each call opens its own, asks once and closes it.
"""

import dataclasses
import io
import itertools
import logging
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import av.error
import cv2
import decord
import numpy as np

from sign_dist.errors import VideoError

logger = logging.getLogger(__name__)

# Bounds that keep one hostile or mistaken file from taking the machine; a sign is seconds long and a few megapixels.
MAX_PIXELS = 8192 * 4320
MAX_BYTES_DECODED = 3 * 2**30
# A container may lie about its length; past this many frames nobody decodes on to find out.
MAX_FRAMES = 200_000

# What FFmpeg would follow to files that were never given.
PLAYLISTS = ("hls", "concat", "dash", "sdp", "imf")
# decord cannot seek in these: it repeats frames for those it does not find, and only says so on stderr.
NOT_FOR_DECORD = ("mpegts", "mpeg")

decord.logging.set_level(decord.logging.QUIET)
av.logging.set_level(av.logging.PANIC)


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
    """Decoded frames `uint8 (T, H, W, 3)` RGB, upright, and the rate they were taken at."""

    frames: np.ndarray
    fps: float
    decoder: str

    def __len__(self) -> int:
        return len(self.frames)


def probe(path: str | Path) -> VideoInfo:
    """Read a file's headers.

    Raises:
        VideoError: `missing`, `empty`, `not_video`, `no_video_stream` or `too_large`.
    """
    path = Path(path)
    try:
        size = path.stat().st_size if path.is_file() else None
    except (OSError, ValueError):  # a name that no file can have
        size = None
    if size is None:
        raise VideoError("missing", f"no file {path.name[:120]!r}")
    if size == 0:
        raise VideoError("empty", f"{path.name!r} has 0 bytes")
    try:
        # Absolute, since FFmpeg takes a bare "http:x.mp4" for an address.
        with av.open(str(path.absolute()), metadata_errors="ignore") as container:
            if container.format.name in PLAYLISTS:
                raise VideoError(
                    "not_video", f"{path.name!r} is a playlist ({container.format.name}), which only names other files"
                )
            if not container.streams.video:
                raise VideoError("no_video_stream", f"{path.name!r} holds no picture stream, only sound or data")
            return _info(container, path.name)
    except (av.error.FFmpegError, ValueError, OverflowError) as error:
        raise VideoError("not_video", f"{path.name!r} is no readable video: {_short(error)}") from None


def read_clip(
    path: str | Path,
    *,
    fps: float,
    max_side_px: int,
    max_seconds: float,
    image_fps: float = 25.0,
    start_s: float = 0.0,
    end_s: float = 0.0,
) -> Clip:
    """Frames of `[start_s, end_s)` (0 = to the end), at most `fps` a second, scaled down to `max_side_px`.

    Frame k of the answer is the one on screen k / fps after the first frame that starts in the span; an even clip slower
    than `fps` gives each frame once, one with a varying rate shows a frame as often as it stood on screen.

    Raises:
        VideoError: what `probe` raises, and `too_long`, `too_short`, `decode_failed`, `truncated`.
    """
    path = Path(path)
    info = probe(path)
    span_s = (end_s or info.duration_s) - start_s
    if span_s > max_seconds:
        raise VideoError("too_long", f"{path.name!r} is {span_s:.1f} s long, more than the {max_seconds:g} s allowed")
    want = _Want(fps, max_side_px, max_seconds, start_s, end_s)
    if info.container in NOT_FOR_DECORD:
        return _read_pyav(path, info, want)
    try:
        return _read_decord(path, info, want)
    except VideoError as error:
        if error.code in ("too_long", "too_short", "too_large"):
            raise
        logger.debug("decord gave up on %s (%s), PyAV tries", path.name, error)
    except (decord.DECORDError, RuntimeError, ValueError, IndexError) as error:
        logger.debug("decord gave up on %s (%s), PyAV tries", path.name, _short(error))
    return _read_pyav(path, info, want)


@dataclasses.dataclass(frozen=True)
class _Want:
    fps: float
    max_side_px: int
    max_seconds: float
    start_s: float
    end_s: float


def _info(container: Any, name: str) -> VideoInfo:
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise VideoError("not_video", f"{name!r} is coded in a way that no decoder here knows")
    width, height = int(stream.codec_context.width or 0), int(stream.codec_context.height or 0)
    if width * height > MAX_PIXELS:
        raise VideoError("too_large", f"{name!r} declares {width}x{height} pixels, more than {MAX_PIXELS} are allowed")
    rate = stream.average_rate or stream.guessed_rate
    duration_s = 0.0
    if stream.duration and stream.time_base:
        duration_s = float(stream.duration * stream.time_base)
    elif container.duration:
        duration_s = container.duration / 1e6
    fps, codec = float(rate) if rate else 0.0, stream.codec_context.name
    return VideoInfo(width, height, fps, int(stream.frames or 0), duration_s, codec, container.format.name)


def time_indices(times: np.ndarray, *, fps: float, start_s: float, end_s: float) -> tuple[np.ndarray, float]:
    """Which frames to take from frame times, and the rate that results.

    >>> time_indices(np.arange(60) / 60, fps=15, start_s=0, end_s=0)[0][:4].tolist()
    [0, 4, 8, 12]
    """
    inside = np.flatnonzero((times >= start_s - 1e-6) & ((times < end_s - 1e-6) if end_s else True))
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


def _read_decord(path: Path, info: VideoInfo, want: _Want) -> Clip:
    # From memory, so that a name such as "-x.mp4" or one with quotes is never parsed by the decoder.
    with io.BytesIO(path.read_bytes()) as data:
        reader = decord.VideoReader(data, num_threads=1)
        count = len(reader)
        if count == 0:
            raise VideoError("decode_failed", f"{path.name!r}: the decoder finds no frame")
        if count > MAX_FRAMES:
            raise VideoError("too_long", f"{path.name!r} declares {count} frames, more than {MAX_FRAMES} are allowed")
        times = reader.get_frame_timestamp(range(count))[:, 0].astype(np.float64)
        if not np.isfinite(times).all() or (np.diff(times) < 0).any() or times[-1] <= 0 < count - 1:
            raise VideoError("decode_failed", f"{path.name!r}: frame times do not grow")
        times = times - times[0]
        span_s = times[-1] - want.start_s
        if span_s > want.max_seconds and not want.end_s:
            raise VideoError("too_long", f"{path.name!r} is {span_s:.1f} s long, more than the {want.max_seconds:g} s allowed")
        if info.num_frames and count < 0.9 * info.num_frames:
            raise VideoError("decode_failed", f"{path.name!r}: the index holds {count} of {info.num_frames} frames")
        indices, fps = time_indices(times, fps=want.fps, start_s=want.start_s, end_s=want.end_s)
        if len(indices) == 0:
            raise VideoError("too_short", f"{path.name!r} has no frame in [{want.start_s:g}, {want.end_s:g}) s")
        # Large pictures come in small batches: it is the shrunken ones that are kept.
        at_once = min(32, max(1, MAX_PIXELS // max(1, info.width * info.height)))
        batches = [
            _shrink(reader.get_batch(part.tolist()).asnumpy(), want.max_side_px, len(indices))
            for part in np.array_split(indices, math.ceil(len(indices) / at_once))
        ]
    return Clip(np.concatenate(batches), fps, "decord")


def _read_pyav(path: Path, info: VideoInfo, want: _Want) -> Clip:
    frames: list[np.ndarray] = []
    times: list[float] = []
    fault = ""
    seen = held_bytes = 0
    try:
        with path.open("rb") as file, av.open(file, metadata_errors="ignore") as container:
            for time_s, picture in _pyav_frames(container, want, info):
                seen += 1
                if picture is None:
                    continue
                frames.append(_shrink(picture[None], want.max_side_px, 1)[0])
                times.append(time_s)
                held_bytes += frames[-1].nbytes
                if held_bytes > MAX_BYTES_DECODED:
                    raise VideoError("too_large", f"the frames of {path.name!r} do not fit into {MAX_BYTES_DECODED} bytes")
    except (av.error.FFmpegError, ValueError, OverflowError) as error:
        fault = _short(error)
    if not frames and seen and not fault:
        raise VideoError("too_short", f"{path.name!r} has no frame in [{want.start_s:g}, {want.end_s:g}) s")
    if not frames:
        raise VideoError("decode_failed", f"{path.name!r}: not one frame can be decoded{f' ({fault})' if fault else ''}")
    expected = info.num_frames if not want.end_s else 0
    if fault or (expected and seen < 0.9 * expected and times[-1] < 0.9 * info.duration_s):
        of = f" of {expected}" if expected else ""
        raise VideoError("truncated", f"{path.name!r} breaks off after {seen}{of} frames{f' ({fault})' if fault else ''}")
    indices, fps = time_indices(np.array(times), fps=want.fps, start_s=want.start_s, end_s=want.end_s)
    if len(indices) == 0:
        raise VideoError("too_short", f"{path.name!r} has no frame in [{want.start_s:g}, {want.end_s:g}) s")
    if len({frame.shape for frame in frames}) > 1:
        raise VideoError("decode_failed", f"{path.name!r} changes its picture size in the middle")
    return Clip(np.stack([frames[i] for i in indices]), fps, "pyav")


def _pyav_frames(container: Any, want: _Want, info: VideoInfo) -> Iterator[tuple[float, np.ndarray | None]]:
    """(seconds since the first frame, upright RGB picture), until the span ends; no picture long before the span."""
    stream = container.streams.video[0]
    stream.thread_type = "NONE"
    first: float | None = None
    step = 1 / (info.fps or want.fps)
    for count, frame in enumerate(itertools.islice(container.decode(stream), MAX_FRAMES)):
        time_s = float(frame.time) if frame.time is not None else count * step
        first = time_s if first is None else first
        time_s -= first
        if want.end_s and time_s >= want.end_s:
            return
        if time_s > want.max_seconds + want.start_s:
            raise VideoError("too_long", f"the clip goes on after the {want.max_seconds:g} s allowed")
        if time_s < want.start_s - 1.0:
            yield time_s, None
            continue
        if frame.width * frame.height > MAX_PIXELS:
            raise VideoError("too_large", f"a frame of {frame.width}x{frame.height} pixels is more than is allowed")
        yield time_s, np.rot90(frame.to_ndarray(format="rgb24"), k=round(frame.rotation / 90) % 4)


def _shrink(batch: np.ndarray, max_side_px: int, num_frames: int) -> np.ndarray:
    """Scale `(T, H, W, 3)` down until its longer side fits; refuse what would not fit into memory even so."""
    height, width = batch.shape[1:3]
    ratio = max_side_px / max(height, width)
    if ratio < 1:
        size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
        batch = np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in batch])
    if batch[0].nbytes * num_frames > MAX_BYTES_DECODED:
        raise VideoError(
            "too_large", f"{num_frames} frames of {batch.shape[2]}x{batch.shape[1]} do not fit into {MAX_BYTES_DECODED} bytes"
        )
    return np.ascontiguousarray(batch)


def _short(error: BaseException) -> str:
    """The heart of a decoder's complaint: one line without number, path or log."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    text = re.sub(r"^\[Errno \d+\] ", "", lines[0])
    return re.split(r": '|; last error log", text)[0][:120]
