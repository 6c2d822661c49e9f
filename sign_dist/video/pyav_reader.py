"""The second decoder, PyAV (FFmpeg 8), and the first look at every file: its headers and the times of its frames.

It streams: one frame is held beside those that are kept, whatever the file's length, and a span far inside is reached by
seeking. A seek is believed only if it lands on a key frame at or before the span, since containers index by other clocks.
"""

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Generator, Iterator
from typing import Any

import av
import av.error
import numpy as np
from av.video.reformatter import Interpolation

from sign_dist.errors import VideoError
from sign_dist.video import clip as budgets
from sign_dist.video.clip import Clip, VideoInfo, Want, choose, falls_short, refuse_pixels, short, size_within
from sign_dist.video.source import Source

# What FFmpeg would follow to files that were never given.
PLAYLISTS = ("hls", "concat", "dash", "sdp", "imf")
# Containers whose declared duration is their own word, not FFmpeg's guess from bit rate or from the frames themselves.
DECLARES_DURATION = ("matroska,webm", "flv", "asf")
# A span this far behind the start is reached by seeking.
SEEK_FROM_S = 5.0
# How long before the span to seek: frames are stored out of order, and some indices point behind the key frame.
SEEK_MARGINS_S = (1.0, 10.0, 60.0)
FAULTS = (av.error.FFmpegError, ValueError, OverflowError)

av.logging.set_level(av.logging.PANIC)


@dataclasses.dataclass(frozen=True)
class FrameIndex:
    """When each frame of a file is shown, learnt from its packets without decoding them.

    `times` are seconds since the first frame, sorted; they are to be believed where `exact`. `fault` says why reading broke
    off, "" if it did not. `short_of_s` is the declared duration where no stream of the file comes near it, else 0.
    `rotation` and `size` are those of the first frame, 0 where nobody needed them.
    """

    times: np.ndarray
    exact: bool
    fault: str = ""
    short_of_s: float = 0.0
    rotation: int = 0
    size: tuple[int, int] = (0, 0)


@contextlib.contextmanager
def opened(source: Source) -> Generator[tuple[Any, Any, VideoInfo]]:
    """(container, picture stream, what the headers say)."""
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(source.open())
            # No protocol: a file that names others must not make FFmpeg open them.
            container = stack.enter_context(av.open(file, metadata_errors="ignore", options={"protocol_whitelist": "none"}))
            if container.format.name in PLAYLISTS:
                kind = container.format.name
                raise VideoError("playlist", f"{source.name!r} is a playlist ({kind}), which only names other files")
            stream: Any = container.streams.best("video") or next(iter(container.streams.video), None)
            if stream is None:
                raise VideoError("no_video_stream", f"{source.name!r} holds no picture stream, only sound or data")
            info = _info(container, stream, source.name)
        except MemoryError:
            raise
        except FAULTS as error:
            raise VideoError("not_video", f"{source.name!r} is no readable video: {short(error)}") from None
        yield container, stream, info


def _info(container: Any, stream: Any, name: str) -> VideoInfo:
    context = stream.codec_context
    if context is None:
        raise VideoError("unsupported_codec", f"{name!r} is coded in a way that no decoder here knows")
    width, height = int(context.width or 0), int(context.height or 0)
    refuse_pixels(width, height, name)
    rate = stream.average_rate or stream.guessed_rate
    duration_s = 0.0
    if stream.duration and stream.time_base:
        duration_s = float(stream.duration * stream.time_base)
    elif container.duration:
        duration_s = container.duration / 1e6
    fps = float(rate) if rate else 0.0
    return VideoInfo(width, height, fps, int(stream.frames or 0), duration_s, context.name, container.format.name)


def frame_index(container: Any, stream: Any, info: VideoInfo, max_side_px: int) -> FrameIndex:
    """Go through all packets of a container that was just opened. Memory: 8 bytes a frame."""
    ticks: list[int] = []
    exact, fault, corrupt = stream.time_base is not None, "", False
    reached: float | None = None
    first: Any = None
    look = max(info.width, info.height) > max_side_px
    stream.thread_type = "NONE"
    try:
        for packet in _to_the_end(container.demux()):
            moment = packet.pts if packet.pts is not None else packet.dts
            if packet.size and moment is not None and packet.time_base:
                end = float((moment + (packet.duration or 0)) * packet.time_base)
                reached = end if reached is None else max(reached, end)
            if packet.stream_index != stream.index:
                continue
            if not ticks and packet.has_sidedata("encryption_info"):
                raise VideoError("encrypted", "the pictures are encrypted, and no key is known")
            if look and first is None:
                first = _first_of(packet)
            if not packet.size or packet.is_discard:
                continue
            corrupt = packet.is_corrupt
            exact = exact and packet.pts is not None
            ticks.append(packet.pts if packet.pts is not None else 0)
            if len(ticks) > budgets.MAX_FRAMES:
                exact, fault = False, f"more than {budgets.MAX_FRAMES} frames"
                break
    except MemoryError:
        raise
    except FAULTS as error:
        fault = short(error)
    if corrupt and info.container.startswith("mov"):  # there each packet's size is known: the file ends inside this one
        fault = fault or "the last frame is cut"
    times = np.sort(np.array(ticks, np.int64))
    seconds = (times - times[0]) * float(stream.time_base) if exact and len(times) else times.astype(np.float64)
    declared = _declared_s(container, info)
    begin = min((container.start_time or 0) / 1e6, 0.0)
    short_of_s = declared if falls_short((reached or 0.0) - begin, declared) else 0.0
    rotation = round(first.rotation / 90) % 4 if first is not None else 0
    size = (first.width, first.height) if first is not None else (0, 0)
    return FrameIndex(seconds, exact and len(times) > 0, fault, short_of_s, rotation, size)


def _to_the_end(items: Iterator[Any]) -> Iterator[Any]:
    """Packets or frames; PyAV ends with an IndexError where a stream appeared in the middle, after all others are flushed."""
    with contextlib.suppress(IndexError):
        yield from items


def _declared_s(container: Any, info: VideoInfo) -> float:
    """The length that a header promises, 0 where there is no such promise."""
    if info.container == "avi":  # FFmpeg corrects an AVI's duration by the file's size, not its number of frames
        return info.num_frames / info.fps if info.fps else 0.0
    return (container.duration or 0) / 1e6 if info.container in DECLARES_DURATION else 0.0


def _first_of(packet: Any) -> Any:
    try:
        return next(iter(packet.decode()), None)
    except MemoryError:
        raise
    except FAULTS:
        return None


def read(source: Source, info: VideoInfo, want: Want, index: FrameIndex | None) -> Clip:
    """The wanted clip. Without an index (a span of a long file) it seeks and never goes through the whole file.

    Raises:
        VideoError: `decode_failed`, `truncated`, `too_large`, `mixed_sizes` and what `choose` raises.
    """
    keep = None
    if index and index.exact:
        expected = choose(index.times, want, source.name)
        keep = {_tick(t) for t in index.times[expected.indices]}
    taken = _stream(source, info, want, keep, seek=index is None)
    if keep is not None and not taken.fault and not keep <= set(map(_tick, taken.kept_times)):
        taken = _stream(source, info, want, None, seek=False)  # frames come at other times than packets promised
    _refuse_broken(taken, source, info, want, index)
    choice = choose(np.array(taken.times), want, source.name)
    place = {time: i for i, time in enumerate(taken.kept_times)}
    try:
        pictures = [taken.kept[place[taken.times[i]]] for i in choice.indices]
    except KeyError:  # packets promised other times, but the ones that were kept for them all came
        return read(source, info, want, dataclasses.replace(index, exact=False) if index else None)
    refuse_mixed(pictures, source.name)
    return Clip(np.stack(pictures), choice.fps, "pyav", choice.num_source)


def read_at(source: Source, info: VideoInfo, times: np.ndarray, max_side_px: int) -> list[np.ndarray]:
    """The frames at some of the file's exact times, growing; by seeking where that saves decoding."""
    wanted = sorted({_tick(t): float(t) for t in times}.items())
    found: dict[int, np.ndarray] = {}
    runs: list[list[tuple[int, float]]] = []
    for tick, time in wanted:
        if not runs or time - runs[-1][-1][1] > SEEK_FROM_S:
            runs.append([])
        runs[-1].append((tick, time))
    for run in runs:
        want = Want(1.0, max_side_px, float("inf"), run[0][1], run[-1][1] + 1e-3)
        taken = _stream(source, info, want, {tick for tick, _ in run}, seek=True)
        found |= {_tick(t): picture for t, picture in zip(taken.kept_times, taken.kept, strict=True)}
        lost = [time for tick, time in run if tick not in found]
        if lost:
            why = f" ({taken.fault})" if taken.fault else ""
            raise VideoError("truncated", f"{source.name!r}: the frame at {lost[0]:.3f} s cannot be decoded{why}")
    return [found[_tick(t)] for t in times]


def decoded_times(source: Source, info: VideoInfo) -> np.ndarray:
    """When each frame is shown, by decoding all of them: for files whose packets do not say."""
    taken = _stream(source, info, Want(25.0, 1, math.inf), set(), seek=False)
    if taken.fault or not taken.times:
        raise VideoError("decode_failed", f"{source.name!r}: {taken.fault or 'not one frame can be decoded'}")
    return np.array(taken.times)


def refuse_mixed(pictures: list[np.ndarray], name: str) -> None:
    """`mixed_sizes` unless all pictures have one shape."""
    sizes = sorted({(p.shape[1], p.shape[0]) for p in pictures})
    if len(sizes) > 1:
        text = " and ".join(f"{w}x{h}" for w, h in sizes[:2])
        raise VideoError("mixed_sizes", f"{name!r} changes its picture size in the middle: {text}")


def _tick(time: float) -> int:
    """A name for a time that survives rounding: tenths of a millisecond, cut where no usual time base has a moment."""
    return math.floor(time * 10_000 + 0.3683)


@dataclasses.dataclass
class _Taken:
    """What streaming found: times of all frames in reach of the span, and the pictures that were kept."""

    times: list[float] = dataclasses.field(default_factory=list)
    kept: list[np.ndarray] = dataclasses.field(default_factory=list)
    kept_times: list[float] = dataclasses.field(default_factory=list)
    num_seen: int = 0
    ended: bool = False
    """The file ended before the span did."""
    last_s: float = 0.0
    fault: str = ""


def _stream(source: Source, info: VideoInfo, want: Want, keep: set[int] | None, *, seek: bool) -> _Taken:
    taken = _Taken()
    num_bytes = 0
    try:
        for time_s, frame in _frames(source, info, want, seek=seek):
            taken.num_seen += 1
            taken.last_s = time_s
            if want.end_s and time_s >= want.end_s - 1e-6:
                return taken
            if time_s > want.max_seconds + want.start_s:
                raise VideoError("too_long", f"{source.name!r} goes on after the {want.max_seconds:g} s allowed")
            if not seek or time_s >= want.start_s - 1e-6:
                taken.times.append(time_s)
            if time_s < want.start_s - 1e-6 or (keep is not None and _tick(time_s) not in keep):
                continue
            picture = _upright(frame, want.max_side_px, source.name)
            num_bytes += picture.nbytes
            if num_bytes > budgets.MAX_BYTES_DECODED:
                raise VideoError("too_large", f"the frames of {source.name!r} do not fit into {budgets.MAX_BYTES_DECODED} bytes")
            taken.kept.append(picture)
            taken.kept_times.append(time_s)
        taken.ended = True
    except MemoryError:
        raise
    except FAULTS as error:
        taken.fault = short(error)
    return taken


def _frames(source: Source, info: VideoInfo, want: Want, *, seek: bool) -> Iterator[tuple[float, Any]]:
    """(seconds since the file's first frame, frame), from the start or from a key frame before the span."""
    step = 1 / (info.fps or want.fps)
    if seek and want.start_s > SEEK_FROM_S:
        with opened(source) as (container, stream, _):
            stream.thread_type = "NONE"
            begun = _seek(container, stream, want.start_s)
            if begun:
                first, frames = begun
                yield from ((frame.time - first, frame) for frame in frames if frame.time is not None)
                return
    with opened(source) as (container, stream, _):
        stream.thread_type = "NONE"
        first = None
        for count, frame in enumerate(itertools.islice(_to_the_end(container.decode(stream)), budgets.MAX_FRAMES)):
            time_s = float(frame.time) if frame.time is not None else count * step
            first = time_s if first is None else first
            yield time_s - first, frame


def _seek(container: Any, stream: Any, start_s: float) -> tuple[float, Iterator[Any]] | None:
    """(time of the file's first frame, frames from a key frame at or before `start_s` on), or None where seeking fails."""
    head = next(_to_the_end(container.decode(stream)), None)
    if head is None or head.time is None:
        return None
    first = float(head.time)
    for margin in SEEK_MARGINS_S:
        target = first + start_s - margin
        if target <= first:
            return None
        try:
            container.seek(int(target / stream.time_base), stream=stream)
            frames = _to_the_end(container.decode(stream))
            # What comes before the first key frame may refer to pictures that were jumped over.
            key = next((frame for frame in frames if frame.key_frame), None)
        except MemoryError:
            raise
        except FAULTS:
            return None
        if key is not None and key.time is not None and first <= key.time <= first + start_s + 1e-6:
            return first, itertools.chain([key], frames)
    return None


def _upright(frame: Any, max_side_px: int, name: str) -> np.ndarray:
    """A decoded frame as an upright RGB picture; scaled while it is converted, which is cheaper than afterwards."""
    refuse_pixels(frame.width, frame.height, name)
    width, height = size_within(frame.width, frame.height, max_side_px)
    picture = frame.to_ndarray(format="rgb24", width=width, height=height, interpolation=Interpolation.BICUBIC)
    turned = np.rot90(picture, k=round(frame.rotation / 90) % 4)
    return np.ascontiguousarray(turned)


def _refuse_broken(taken: _Taken, source: Source, info: VideoInfo, want: Want, index: FrameIndex | None) -> None:
    """Nothing decoded, decoding broke off, or the file ended before what it promised."""
    name, why = source.name, f" ({taken.fault})" if taken.fault else ""
    if not taken.num_seen or (taken.fault and not taken.times):
        raise VideoError("decode_failed", f"{name!r}: not one frame can be decoded{why}")
    promised = max(info.num_frames, len(index.times) if index else 0)
    if taken.fault:
        of = f" of {promised}" if promised and not want.start_s else ""
        raise VideoError("truncated", f"{name!r} breaks off after {taken.num_seen}{of} frames{why}")
    if index is None:
        reached = taken.last_s + 1 / (info.fps or want.fps)
        if taken.ended and falls_short(reached, min(max(want.end_s, want.start_s), info.duration_s)):
            raise VideoError("truncated", f"{name!r} declares {info.duration_s:.1f} s, but no frame follows {reached:.1f} s")
        if not taken.times and taken.ended:
            raise VideoError("span_outside", f"{name!r} ends at {reached:.2f} s, before the clip starts at {want.start_s:g} s")
        if not taken.times:
            raise VideoError("too_short", f"{name!r} has no frame in {want.span_text}")
    elif taken.ended and index.exact and falls_short(taken.times[-1], float(index.times[-1])):
        count = f"{taken.num_seen} of {promised} frames"
        raise VideoError("truncated", f"{name!r} breaks off: {count}, the last at {taken.times[-1]:.2f} s, can be decoded")
    elif taken.ended and promised and taken.num_seen < 0.9 * promised and falls_short(taken.times[-1], info.duration_s):
        raise VideoError("truncated", f"{name!r} breaks off after {taken.num_seen} of {promised} frames")
