"""The one door to pixels: look at a clip, read frames of it by time or by number. Behind it stand three readers.

decord reads first, because it is asked for and fast. PyAV (FFmpeg 8) first reads the times of all frames from the packets,
and decodes what decord cannot or where decord sees other frames: AV1, GIF, MPEG-TS, WebM without a duration, edit lists,
very small pictures. A folder of numbered pictures is a clip too.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sign_dist.errors import VideoError
from sign_dist.video import decord_reader, pictures, pyav_reader
from sign_dist.video.clip import Choice, Clip, VideoInfo, Want, choose, refuse_length, time_indices
from sign_dist.video.pyav_reader import FrameIndex
from sign_dist.video.source import Source, find_source

__all__ = ["Clip", "VideoInfo", "probe", "read_clip", "read_frames", "time_indices"]

logger = logging.getLogger(__name__)

# A span of a file longer than this is reached by seeking: the packets before it are not even looked at.
LONG_S = 120.0


def probe(source: str | Path | bytes) -> VideoInfo:
    """Read a file's headers, or count a folder's pictures.

    Raises:
        VideoError: `missing`, `not_a_file`, `unreadable`, `empty`, `playlist`, `not_video`, `no_video_stream`,
            `unsupported_codec`, `encrypted`, `too_large` or `missing_frames`.
    """
    found = find_source(source)
    if found.is_folder:
        assert found.path
        return pictures.probe(found.path)
    with pyav_reader.opened(found) as (_, _, info):
        return info


def read_clip(
    source: str | Path | bytes,
    *,
    fps: float,
    max_side_px: int,
    max_seconds: float,
    image_fps: float = 25.0,
    start_s: float = 0.0,
    end_s: float = 0.0,
) -> Clip:
    """Frames of `[start_s, end_s)` (0 = to the end), at most `fps` a second, scaled down to `max_side_px`.

    `source` is a file, a folder of pictures shown at `image_fps`, or a file's bytes. Frame k of the answer is the one on
    screen k / fps after the first frame that starts in the span; an even clip slower than `fps` gives each frame once, one
    with a varying rate shows a frame as often as it stood on screen.

    Raises:
        VideoError: what `probe` raises, and `too_long`, `too_short`, `span_outside`, `decode_failed`, `truncated`,
            `mixed_sizes`.
    """
    want = Want(fps, max_side_px, max_seconds, start_s, end_s)
    found = find_source(source)
    if found.is_folder:
        assert found.path
        return pictures.read(found.path, want, image_fps=image_fps)
    info, index = _look(found, want)
    if index is None:
        return pyav_reader.read(found, info, want, None)
    choice = _choose(index, want, found.name) if index.exact else None
    whole = not choice or choice.last == len(index.times) - 1
    if choice and (frames := _by_decord(found, info, index, choice, max_side_px)) is not None:
        clip = Clip(frames, choice.fps, "decord", choice.num_source)
    else:
        clip = pyav_reader.read(found, info, want, index)
    if whole and index.fault:
        raise VideoError("truncated", f"{found.name!r} breaks off after {len(index.times)} frames ({index.fault})")
    if whole and index.short_of_s:
        end = float(index.times[-1])
        raise VideoError("truncated", f"{found.name!r} declares {index.short_of_s:.2f} s, but its last frame is at {end:.2f} s")
    return clip


def _choose(index: FrameIndex, want: Want, name: str) -> Choice:
    try:
        return choose(index.times, want, name)
    except VideoError as error:
        if error.code == "span_outside" and (index.fault or index.short_of_s):
            raise VideoError("truncated", f"{error}; the file says that it is longer") from None
        raise


def read_frames(source: str | Path | bytes, indices: Sequence[int], *, max_side_px: int = 4096) -> np.ndarray:
    """Frames by their numbers, in the order asked for, repeats too: `uint8 (len(indices), H, W, 3)`.

    The whole file's packets are read once to number its frames, but only what is needed is decoded.

    Raises:
        IndexError: there is no such frame.
        VideoError: as `read_clip`.
    """
    asked = np.asarray(indices, np.int64)
    if not len(asked):
        raise ValueError("no frame is asked for: give at least one number")
    found = find_source(source)
    if found.is_folder:
        assert found.path
        paths = pictures.list_pictures(found.path)
        _refuse_numbers(asked, len(paths), found.name)
        return pictures.read_pictures([paths[i] for i in asked], max_side_px, found.name)
    with pyav_reader.opened(found) as (container, stream, info):
        index = pyav_reader.frame_index(container, stream, info, max_side_px)
    count = len(index.times)
    if not count:
        raise VideoError("decode_failed", f"{found.name!r}: not one frame can be decoded")
    _refuse_numbers(asked, count, found.name)
    different, place = np.unique(asked, return_inverse=True)
    choice = Choice(different, 0.0, count, int(different[-1]))
    frames = _by_decord(found, info, index, choice, max_side_px) if index.exact else None
    if frames is None:
        times = index.times if index.exact else pyav_reader.decoded_times(found, info)
        _refuse_numbers(asked, len(times), found.name)
        frames = np.stack(pyav_reader.read_at(found, info, times[different], max_side_px))
    return frames[place]


def _refuse_numbers(asked: np.ndarray, count: int, name: str) -> None:
    outside = asked[(asked < 0) | (asked >= count)]
    if len(outside):
        raise IndexError(f"{name!r} has no frame {outside[0]}: its {count} frames are numbered from 0")


def _look(source: Source, want: Want) -> tuple[VideoInfo, FrameIndex | None]:
    """Headers, and the frame times unless a short span of a long file is asked for."""
    with pyav_reader.opened(source) as (container, stream, info):
        span_s = (want.end_s or info.duration_s) - want.start_s
        refuse_length(span_s, want, source.name)
        if info.duration_s > LONG_S and span_s < info.duration_s / 2:
            return info, None
        return info, pyav_reader.frame_index(container, stream, info, want.max_side_px)


def _by_decord(source: Source, info: VideoInfo, index: FrameIndex, choice: Choice, max_side_px: int) -> np.ndarray | None:
    """The chosen frames, or None where decord cannot read them."""
    if not decord_reader.can_read(info, index, max_side_px):
        return None
    try:
        return decord_reader.take(source, info, index, choice.indices, choice.last, max_side_px)
    except VideoError as error:
        if error.code == "too_large":
            raise
        logger.debug("decord gave up (%s), PyAV tries", error)
        return None
