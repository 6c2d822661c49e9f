"""The part of the picture that belongs to the signer, where several people are seen."""

import numpy as np
from numpy.typing import NDArray

from sign_dist.video.face_crop import EVERY, FaceFinder, expand
from sign_dist.video.tubes import MIN_SHARE, Box, Person, Tube, choose, link, motion_maps

Region = tuple[int, int, int, int]
"""left, top, right, bottom in pixels, half-open."""

MIN_SIDE_PX = 64
"""A narrower strip is no place to sign in: the whole picture is used."""


def signer_region(frames: NDArray[np.uint8], find_faces: FaceFinder, *, person: Person = "moving", every: int = EVERY) -> Region:
    """The signer's part of the frames uint8 (T, H, W, 3): all of it, unless somebody else is seen as often.

    The picture is cut half-way between the signer's face and each other one that is seen in most of the sampled frames.
    """
    height, width = frames.shape[1:3]
    whole = (0, 0, width, height)
    sampled = frames[::every]
    faces = find_faces(sampled)
    if max(map(len, faces), default=0) < 2:
        return whole
    # Faces of people side by side never overlap, but the boxes that hold their hands do: link those, as the crop does.
    tubes = [tube for tube in link([[expand(face) for face in frame] for frame in faces]) if len(tube) > MIN_SHARE * len(sampled)]
    signer = choose(tubes, len(sampled), (height, width), lambda: motion_maps(sampled), person=person) if len(tubes) > 1 else None
    if signer is None:
        return whole
    region = without_others(signer, [tube for tube in tubes if tube is not signer], (height, width))
    return region if min(region[2] - region[0], region[3] - region[1]) >= MIN_SIDE_PX else whole


def without_others(signer: Tube, others: list[Tube], size: tuple[int, int]) -> Region:
    """The picture of `size` (height, width) cut half-way to each other face, across the direction in which it is further."""
    x, y = _face_centre(signer.mean())
    left, top, right, bottom = 0, 0, size[1], size[0]
    for other in others:
        other_x, other_y = _face_centre(other.mean())
        middle_x, middle_y = round((x + other_x) / 2), round((y + other_y) / 2)
        if abs(other_x - x) >= abs(other_y - y):
            left, right = (max(left, middle_x), right) if other_x < x else (left, min(right, middle_x))
        else:
            top, bottom = (max(top, middle_y), bottom) if other_y < y else (top, min(bottom, middle_y))
    return left, top, right, bottom


def _face_centre(grown: Box) -> tuple[float, float]:
    """Of the face inside its grown box, which reaches one face up and three down."""
    return (grown[0] + grown[2]) / 2, grown[1] + 0.3 * (grown[3] - grown[1])
