"""Which frames an encoder's windows see; integers only, no pixels."""

import dataclasses
import math

import numpy as np


@dataclasses.dataclass(frozen=True)
class Window:
    """Frame indices (all distinct ones in order, then the padding) and how many of its features are real."""

    indices: np.ndarray
    padding: int
    num_features: int


def clip_span(num_frames: int, span: float, index: int, num_clips: int, *, use_offset: bool = False) -> tuple[float, float]:
    """First and last position of clip `index` of `num_clips`, each `span` frames long, spread over a video.

    With `use_offset` the clips run from the first to the last frame in whole steps, and a single one lies in the middle;
    without it the first `num_clips` of `num_clips + 1` such places are taken.

    >>> clip_span(300, 256.0, 0, 1, use_offset=True)
    (22, 277.0)
    """
    if num_frames < 1 or span <= 0 or not 0 <= index < num_clips:
        raise ValueError(f"need num_frames >= 1, span > 0 and 0 <= index < num_clips: {num_frames=} {span=} {index=} {num_clips=}")
    spare = max(num_frames - span, 0)
    if not use_offset:
        start = spare * index / num_clips
    elif num_clips == 1:
        start = math.floor(spare / 2)
    else:
        start = index * math.floor(spare / (num_clips - 1))
    return start, start + span - 1


def window_at(
    num_frames: int, fps: float, start: float, *, window: int, sampling_rate: int = 2, target_fps: float = 25.0
) -> Window:
    """The window whose span begins at frame position `start`: `window` frames over `sampling_rate * window / target_fps` s.

    Positions behind the last frame repeat it; the repetitions stand at the end and are the padding. Where the video is
    slower than the encoder wants, frames repeat inside the window as well and do not count as padding.
    """
    end = start + _span(fps, window, sampling_rate, target_fps) - 1
    positions = np.linspace(start + 0.5, end + 0.5, window).clip(0, num_frames - 1)
    indices = np.floor(positions).astype(np.int64)
    real = len(np.unique(indices))
    if target_fps > fps * sampling_rate:
        # Below half the target rate the rule can count more than there are (130 of 128 at 5 fps): no more features than fit.
        real = min(math.floor(real * target_fps / (fps * sampling_rate)), window)
    padding = window - real
    return Window(indices, padding, window // 2 - padding // 2)


def signhiera_windows(
    num_frames: int, fps: float, *, window: int = 128, stride: int = 64, sampling_rate: int = 2, target_fps: float = 25.0
) -> list[Window]:
    """Windows of a clip as SignHiera's features were made (Rust et al. 2024): each spans the same number of seconds.

    A window takes `window` frames, every `sampling_rate`-th at `target_fps`; windows start every `stride * sampling_rate`
    frames of the video, whatever its rate, and their features are concatenated, overlaps included: the sign encoder was
    trained on that. Two frames make one feature. The last window ends with `padding` frames to leave out.

    A clip of just one window's length has two, since the first one that ends at or behind the last frame is the last:

    >>> [w.num_features for w in signhiera_windows(256, 25.0)]
    [64, 33]
    """
    if num_frames < 1 or not 0 < fps < math.inf:
        raise ValueError(f"need num_frames >= 1 and fps > 0: {num_frames=} {fps=}")
    if window < 2 or stride < 1 or sampling_rate < 1 or target_fps <= 0:
        raise ValueError(
            f"need window >= 2, stride >= 1, sampling_rate >= 1 and target_fps > 0: "
            f"{window=} {stride=} {sampling_rate=} {target_fps=}"
        )
    windows: list[Window] = []
    for start in range(0, num_frames, stride * sampling_rate):
        windows.append(window_at(num_frames, fps, start, window=window, sampling_rate=sampling_rate, target_fps=target_fps))
        if start + _span(fps, window, sampling_rate, target_fps) - 1 >= num_frames:
            break
    return windows


def _span(fps: float, window: int, sampling_rate: int, target_fps: float) -> float:
    """Frames of the video that a window spans; in this order of operations, on which the last digit hangs."""
    return sampling_rate * window / target_fps * fps
