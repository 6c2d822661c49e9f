"""The view that WLASL's loaders take of a clip, for networks trained by them: sizes as theirs, to the pixel.

Their training upscales a clip with a side under 226 px so that the smaller side has 226, or else squashes one with a side over
256 px to 256 x 256, ratio or not; testing only upscales. A square of 224 px is then cut, at the centre when testing. A test clip
of 720p so keeps a small part of its middle: resize such clips first.
"""

import cv2
import numpy as np

MIN_SIDE_PX, MAX_SIDE_PX, CROP_PX = 226, 256, 224


def loader_size(height: int, width: int, *, train: bool) -> tuple[int, int]:
    """Size (height, width) before the crop.

    >>> loader_size(180, 320, train=False), loader_size(180, 320, train=True), loader_size(100, 256, train=True)
    ((226, 402), (256, 256), (226, 579))
    """
    if height < 1 or width < 1:
        raise ValueError(f"need a picture of one pixel or more: {height=} {width=}")
    if train and max(height, width) > MAX_SIDE_PX:  # asked of the size as it came, upscaled or not
        return MAX_SIDE_PX, MAX_SIDE_PX
    scale = MIN_SIDE_PX / min(height, width) if min(height, width) < MIN_SIDE_PX else 1.0
    return round(height * scale), round(width * scale)


def centre_corner(height: int, width: int, crop: int = CROP_PX) -> tuple[int, int]:
    """Top and left of the square at the centre; a half pixel goes to the even side."""
    if min(height, width) < crop:
        raise ValueError(f"need sides of {crop} px or more to cut from: {height=} {width=}")
    return round((height - crop) / 2), round((width - crop) / 2)


def wlasl_view(frames: np.ndarray, *, train: bool = False) -> np.ndarray:
    """Frames uint8 (T, H, W, 3) -> (T, 224, 224, 3), their centre, resized as the loader of that name does."""
    height, width = loader_size(*frames.shape[1:3], train=train)
    if (height, width) != frames.shape[1:3]:
        resized = [cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR) for frame in frames]
        frames = np.stack(resized) if resized else np.zeros((0, height, width, 3), np.uint8)
    top, left = centre_corner(height, width)
    return frames[:, top : top + CROP_PX, left : left + CROP_PX]
