"""The square of each frame that a picture model sees, the same for stored frames and for an encoder's windows."""

from typing import Literal

import numpy as np

from sign_dist.video.face_crop import FaceFinder, crop_square, signer_box, uniform_crop
from sign_dist.video.frames import square_frames
from sign_dist.video.privacy import blur_faces
from sign_dist.video.tubes import Person

Crop = Literal["none", "centre", "face"]


def check_crop(crop: Crop, find_faces: FaceFinder | None, *, blur: bool) -> None:
    """Raises ValueError where faces have to be found and nothing finds them."""
    if find_faces is None and (blur or crop == "face"):
        raise ValueError(f"need find_faces for {crop=} and {blur=}")


def squares(
    frames: np.ndarray,
    fps: float,
    size_px: int,
    *,
    crop: Crop = "none",
    person: Person = "moving",
    find_faces: FaceFinder | None = None,
    blur: bool = False,
) -> np.ndarray:
    """A clip's frames (T, H, W, 3) -> `uint8 (T, size_px, size_px, 3)`.

    `none`: the middle square of the whole height; `centre`: cut without scaling; `face`: the square around the signer, one for the
    whole clip. With `blur` faces are hidden, after the signer was looked for.
    """
    check_crop(crop, find_faces, blur=blur)
    box = signer_box(frames, find_faces, person=person) if find_faces and crop == "face" else None
    if find_faces and blur:
        frames = blur_faces(frames, fps, find_faces)
    if box is not None:
        return crop_square(frames, box, size_px)
    return np.ascontiguousarray(uniform_crop(frames, size_px)) if crop == "centre" else square_frames(frames, size_px)
