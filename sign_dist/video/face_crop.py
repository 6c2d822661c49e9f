"""The square around the signer, found from face boxes, as the frames of SignHiera's features were cut (Rust et al. 2024).

A face is looked for in every 16th frame; its box, grown over shoulders and signing space, becomes one square for the whole
clip. Boxes are `(left, top, right, bottom)` in pixels, both ends inside.
"""

import math
from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from sign_dist.errors import VideoError
from sign_dist.video.tubes import Box, Person, choose, link, mean_box, motion_maps

Frames = NDArray[np.uint8]
FaceFinder = Callable[[Frames], list[list[Box]]]
"""Pictures uint8 (T, H, W, 3) RGB -> the faces in each."""

EVERY = 16
"""Frames from one look for faces to the next."""


def expand(face: Box, *, up: float = 1.0, down: float = 3.0, sideways: float = 1.5) -> Box:
    """A face box grown to the signing space, by so many of its own heights and widths.

    >>> expand((10, 10, 19, 19))
    (-5.0, 0.0, 34.0, 49.0)
    """
    left, top, right, bottom = face
    width, height = right - left + 1, bottom - top + 1
    return left - sideways * width, top - up * height, right + sideways * width, bottom + down * height


def centre_box(height: int, width: int) -> Box:
    """The middle square of half the smaller side: where a signer is looked for who has no face."""
    side = min(height, width) // 2
    left, top = width // 2 - side // 2, height // 2 - side // 2
    return float(left), float(top), float(left + side), float(top + side)


def signer_box(frames: Frames, find_faces: FaceFinder, *, person: Person = "moving", every: int = EVERY) -> Box:
    """The box to crop a clip uint8 (T, H, W, 3) to: one for all frames, it may reach past the picture.

    One face at most in every sampled frame: the mean of their boxes. Several: the person chosen among the tubes. None: the
    middle of the picture.
    """
    sampled = frames[::every]
    boxes = [[expand(face) for face in faces] for faces in find_faces(sampled)]
    height, width = frames.shape[1:3]
    return choose_box(boxes, (height, width), lambda: motion_maps(sampled), person=person) or centre_box(height, width)


def choose_box(
    boxes: Sequence[Sequence[Box]],
    size: tuple[int, int],
    motion: Callable[[], Sequence[NDArray[np.uint8]]],
    *,
    person: Person = "moving",
) -> Box | None:
    """The mean box of the signer, from the grown boxes of each sampled frame; None where no face was seen."""
    if max(map(len, boxes), default=0) == 1:
        return mean_box([frame[0] for frame in boxes if frame])
    tube = choose(link(boxes), len(boxes), size, motion, person=person)
    return tube.mean() if tube else None


def crop_square(frames: Frames, box: Box, size_px: int) -> Frames:
    """The square around a box, black where it leaves the picture, scaled: uint8 (T, size_px, size_px, 3)."""
    left, top, right, bottom = square(box)
    height, width = frames.shape[1:3]
    inside = frames[:, max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    if not inside.size:
        raise ValueError(f"the box {box} holds no pixel of a picture of {width}x{height}")
    margins = ((max(-top, 0), max(bottom - height, 0)), (max(-left, 0), max(right - width, 0)))
    padded = np.pad(inside, ((0, 0), *margins, (0, 0)))
    return np.stack([cv2.resize(frame, (size_px, size_px)) for frame in padded])


def square(box: Box) -> tuple[int, int, int, int]:
    """The shorter side widened at both ends to the longer one's length, then cut to whole pixels towards zero."""
    left, top, right, bottom = box
    more = ((right - left) - (bottom - top)) / 2
    if more > 0:
        top, bottom = top - more, bottom + more
    else:
        left, right = left + more, right - more
    return int(left), int(top), int(right), int(bottom)


def uniform_crop(frames: Frames, size_px: int, *, place: int = 1) -> Frames:
    """A square of `size_px` cut without scaling: 1 the middle, 0 and 2 the two ends of the longer side.

    Raises:
        VideoError: `too_small`, a side is shorter than the square.
    """
    height, width = frames.shape[1:3]
    if min(height, width) < size_px:
        raise VideoError("too_small", f"pictures of {width}x{height} hold no square of {size_px} pixels: use another crop")
    if place not in (0, 1, 2):
        raise ValueError(f"need place 0, 1 or 2: {place=}")
    top, left = math.ceil((height - size_px) / 2), math.ceil((width - size_px) / 2)
    end = (0, None, max(height, width) - size_px)[place]
    if end is not None:
        top, left = (end, left) if height > width else (top, end)
    return frames[:, top : top + size_px, left : left + size_px]
