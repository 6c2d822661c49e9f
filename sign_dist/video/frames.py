"""Which frames of a clip, and which square of them, a picture model sees."""

import cv2
import numpy as np

LEAST_MOTION = 0.05
"""Grey levels of 255 by which a picture must change on average to have moved."""


def spread(frames: np.ndarray, num_frames: int) -> np.ndarray:
    """`num_frames` frames, evenly from the first to the last; a short clip repeats some: (T, ...) -> (num_frames, ...)."""
    return frames[np.linspace(0, len(frames) - 1, num_frames).round().astype(int)]


def by_motion(frames: np.ndarray, num_frames: int) -> np.ndarray:
    """`num_frames` frames, at equal shares of the motion from the first to the last: (T, H, W, 3) -> (num_frames, H, W, 3).

    Motion between two frames is the mean difference of small grey pictures; what the camera's noise makes of still ones, the
    median of the quieter half, does not count, nor does less than `LEAST_MOTION`. Nothing moves: they are spread evenly.
    """
    small = np.stack([cv2.resize(cv2.cvtColor(f, cv2.COLOR_RGB2GRAY), (32, 32), interpolation=cv2.INTER_AREA) for f in frames])
    moved = np.abs(np.diff(small.astype(np.float32), axis=0)).mean(axis=(1, 2))
    if len(moved):
        noise = np.median(np.sort(moved)[: max(1, len(moved) // 2)])
        moved = np.maximum(moved - max(noise, LEAST_MOTION), 0)
    if not moved.any():
        return spread(frames, num_frames)
    # A hair of even motion, so that the way never stands still and its inverse is a function.
    way = np.concatenate([[0.0], np.cumsum(moved / moved.sum() + 1e-3 / len(moved))])
    shares = np.linspace(0, way[-1], num_frames)
    return frames[np.interp(shares, way, np.arange(len(frames))).round().astype(int)]


def square_frames(frames: np.ndarray, size_px: int) -> np.ndarray:
    """The shorter side scaled to `size_px`, the centre square cut out: `uint8 (T, size_px, size_px, 3)`."""
    height, width = frames.shape[1:3]
    ratio = size_px / min(height, width)
    size = (max(size_px, round(width * ratio)), max(size_px, round(height * ratio)))
    how = cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR
    left, top = (size[0] - size_px) // 2, (size[1] - size_px) // 2
    return np.stack([cv2.resize(f, size, interpolation=how)[top : top + size_px, left : left + size_px] for f in frames])
