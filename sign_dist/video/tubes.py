"""Who signs, where several faces are seen: boxes linked over time, and the choice among them.

A box is `(left, top, right, bottom)` in pixels, both ends inside; a tube is one person's boxes over the sampled frames.
The choice "moving" is that of SignHiera's features (Rust et al. 2024): the tube in whose boxes the picture moves most.
"""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from sign_dist.config.data import Person

Box = tuple[float, float, float, float]

MIN_IOU = 0.2
"""Boxes that overlap less than this belong to different people."""
MIN_SHARE = 0.5
"""Who is seen in no more than this share of the sampled frames does not compete."""


class Tube:
    """One person's boxes by sampled frame."""

    def __init__(self, boxes: dict[int, Box]) -> None:
        self.boxes = boxes

    def __len__(self) -> int:
        return len(self.boxes)

    def mean(self) -> Box:
        return mean_box(list(self.boxes.values()))


def mean_box(boxes: Sequence[Box]) -> Box:
    left, top, right, bottom = np.mean(np.asarray(boxes, np.float64), axis=0).tolist()
    return left, top, right, bottom


def area(box: Box) -> float:
    return (box[2] - box[0] + 1) * (box[3] - box[1] + 1)


def iou(a: Box, b: Box) -> float:
    """Intersection over union, in pixels: a box from 0 to 9 is 10 wide.

    >>> round(iou((0, 0, 9, 9), (5, 5, 14, 14)), 6)
    0.142857
    """
    common = common_area(a, b)
    return common / (area(a) + area(b) - common)


def common_area(a: Box, b: Box) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0]) + 1
    height = min(a[3], b[3]) - max(a[1], b[1]) + 1
    return max(0.0, width) * max(0.0, height)


def link(boxes: Sequence[Sequence[Box]], *, min_iou: float = MIN_IOU) -> list[Tube]:
    """Tubes from the boxes of each sampled frame; every box is in exactly one.

    A tube starts at the last box of the first frame that has some left, and takes from each other frame the box that
    overlaps that first one most, if by more than `min_iou`.
    """
    left = [list(frame) for frame in boxes]
    tubes: list[Tube] = []
    while any(left):
        first = next(t for t, frame in enumerate(left) if frame)
        anchor = left[first].pop()
        tube = {first: anchor}
        for t, frame in enumerate(left):
            if t == first or not frame:
                continue
            overlaps = [iou(anchor, box) for box in frame]
            best = int(np.argmax(overlaps))
            if overlaps[best] > min_iou:
                tube[t] = frame.pop(best)
        tubes.append(Tube(tube))
    return tubes


def most_moving(tubes: Sequence[Tube], motion: Sequence[NDArray[np.uint8]], *, min_share: float = MIN_SHARE) -> Tube | None:
    """The tube with the highest mean motion inside its boxes; None if no tube covers more than `min_share` of the frames."""
    best, best_value = None, -1.0
    for tube in tubes:
        value = float(np.mean([_inside(motion[t], box) for t, box in tube.boxes.items()]))
        if len(tube) / len(motion) > min_share and value > best_value:
            best, best_value = tube, value
    return best


def largest(tubes: Sequence[Tube]) -> Tube:
    """The tube with the largest summed area."""
    return max(tubes, key=lambda tube: sum(map(area, tube.boxes.values())))


def choose(
    tubes: Sequence[Tube],
    num_sampled: int,
    size: tuple[int, int],
    motion: Callable[[], Sequence[NDArray[np.uint8]]],
    *,
    person: Person = "moving",
) -> Tube | None:
    """The signer's tube among several in pictures of `size` (height, width); None where there is no tube.

    `motion` is asked only where it decides. Who is seen in few frames competes only if everyone is.
    """
    if not tubes:
        return None
    if person == "moving":
        return most_moving(tubes, motion()) or largest(tubes)
    often = [tube for tube in tubes if len(tube) / num_sampled > MIN_SHARE] or list(tubes)
    if person == "largest":
        return max(often, key=lambda tube: area(tube.mean()))
    return min(often, key=lambda tube: _from_centre(tube.mean(), size))


def motion_maps(frames: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """How much each pixel moved since the frame before, 0 to 255 within each frame; all zero for the first.

    `frames` uint8 (T, H, W, 3) RGB. Farnebäck's dense flow of the shrunken grey pictures.
    """
    height, width = frames.shape[1:3]
    scale = flow_scale(width)
    small = (max(1, int(width * scale)), max(1, int(height * scale)))
    maps = [np.zeros((height, width), np.uint8)]
    before: NDArray[np.uint8] | None = None
    for frame in frames:
        grey = cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), small)
        if before is not None:
            flow = cv2.calcOpticalFlowFarneback(before, grey, None, 0.5, 3, 15, 3, 5, 1.2, 0)  # pyright: ignore
            magnitude = cv2.cartToPolar(flow[..., 0], flow[..., 1])[0]
            maps.append(np.asarray(cv2.resize(scaled_to_bytes(magnitude), (width, height)), np.uint8))
        before = np.asarray(grey, np.uint8)
    return maps


def scaled_to_bytes(magnitude: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Smallest to 0, largest to 255; motion of less than one pixel in all is not blown up."""
    low, high = magnitude.min(), magnitude.max()
    return (255.0 * (magnitude - low) / max(float(high - low), 1.0)).astype(np.uint8)


def flow_scale(width: int) -> float:
    """By how much a picture shrinks before its motion is measured (960 px wide ones more than wider ones, as published)."""
    return 1 / 6 if width == 960 else 1 / 4 if width > 960 else 1 / 2


def _inside(motion: NDArray[np.uint8], box: Box) -> float:
    left, top, right, bottom = (int(edge) for edge in box)
    part = motion[max(0, top) : max(0, bottom), max(0, left) : max(0, right)]
    return float(part.mean()) if part.size else -1.0


def _from_centre(box: Box, size: tuple[int, int]) -> float:
    height, width = size
    return float(np.hypot((box[0] + box[2]) / 2 - width / 2, (box[1] + box[3]) / 2 - height / 2))
