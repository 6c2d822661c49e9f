"""Which frames an encoder's windows see; integers only, no pixels."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Window:
    """Frame indices (all distinct ones in order, then the padding) and how many of its features are real."""

    indices: np.ndarray
    padding: int
    num_features: int


def signhiera_windows(
    num_frames: int, fps: float, *, window: int = 128, stride: int = 64, sampling_rate: int = 2, target_fps: float = 25.0
) -> list[Window]:
    """Windows of a clip as SignHiera's features were made (Rust et al. 2024): each spans the same number of seconds.

    A window takes `window` frames, every `sampling_rate`-th at `target_fps`; windows start every `stride * sampling_rate`
    frames of the video, whatever its rate, and their features are concatenated, overlaps included: the sign encoder was
    trained on that. Two frames make one feature. The last window ends with `padding` frames to leave out.

    >>> [w.num_features for w in signhiera_windows(256, 25.0)]
    [64, 32]
    """
    if num_frames < 1 or fps <= 0:
        raise ValueError(f"need num_frames >= 1 and fps > 0: {num_frames=} {fps=}")
    span = sampling_rate * window / target_fps * fps
    windows: list[Window] = []
    for start in range(0, num_frames, stride * sampling_rate):
        end = start + span - 1
        positions = np.linspace(start + 0.5, end + 0.5, window).clip(0, num_frames - 1)
        indices = np.floor(positions).astype(np.int64)
        real = len(np.unique(indices))
        if target_fps > fps * sampling_rate:
            real = int(np.floor(real * target_fps / (fps * sampling_rate)))
        padding = window - real
        windows.append(Window(indices, padding, window // 2 - padding // 2))
        if end >= num_frames:
            break
    return windows
