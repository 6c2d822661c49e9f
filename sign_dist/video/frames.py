"""Which frames of a clip, and which square of them, a picture model sees."""

import cv2
import numpy as np


def spread(frames: np.ndarray, num_frames: int) -> np.ndarray:
    """`num_frames` frames, evenly from the first to the last; a short clip repeats some: (T, ...) -> (num_frames, ...)."""
    return frames[np.linspace(0, len(frames) - 1, num_frames).round().astype(int)]


def square_frames(frames: np.ndarray, size_px: int) -> np.ndarray:
    """The shorter side scaled to `size_px`, the centre square cut out: `uint8 (T, size_px, size_px, 3)`."""
    height, width = frames.shape[1:3]
    ratio = size_px / min(height, width)
    size = (max(size_px, round(width * ratio)), max(size_px, round(height * ratio)))
    how = cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR
    left, top = (size[0] - size_px) // 2, (size[1] - size_px) // 2
    return np.stack([cv2.resize(f, size, interpolation=how)[top : top + size_px, left : left + size_px] for f in frames])
