"""Clip -> SignHiera features `(T', D)`: windows, square frames, encoder."""

from pathlib import Path
from typing import Literal

import numpy as np
import torch

from sign_dist.models.signhiera import PRESETS, SignHiera, normalise_frames
from sign_dist.transfer.load import load_into, read_state_dict
from sign_dist.video.decode import Clip
from sign_dist.video.face_crop import FaceFinder, crop_square, signer_box, uniform_crop
from sign_dist.video.frames import square_frames
from sign_dist.video.privacy import blur_faces
from sign_dist.video.tubes import Person
from sign_dist.video.windows import signhiera_windows

# The share of a checkpoint's encoder that must fit; below it the file is another model's.
MIN_MATCH = 0.95


class SignHieraEncoder:
    """A frozen SignHiera over the windows of a clip."""

    def __init__(
        self,
        preset: str,
        *,
        weights: Path | None,
        seed: int,
        device: str,
        crop: Literal["none", "centre", "face"] = "none",
        person: Person = "moving",
        find_faces: FaceFinder | None = None,
        blur: bool = False,
    ) -> None:
        if find_faces is None and (blur or crop == "face"):
            raise ValueError(f"need find_faces for {crop=} and {blur=}")
        self._shape = PRESETS[preset]
        # Random weights come from the seed alone and leave the process's own generator untouched.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._model = SignHiera(self._shape)
        if weights is not None:
            load_into(self._model, read_state_dict(weights), min_match=MIN_MATCH, ignore=("norm.", "head."))
        self._crop, self._find_faces, self._blur = crop, find_faces, blur
        self._person: Person = person
        self._device = torch.device(device)
        self._model.to(self._device).eval()

    @torch.inference_mode()
    def __call__(self, clip: Clip) -> np.ndarray:
        shape = self._shape
        windows = signhiera_windows(len(clip), clip.fps, window=shape.num_frames, stride=shape.num_frames // 2)
        frames = torch.from_numpy(self._squares(clip))
        features: list[np.ndarray] = []
        for window in windows:
            # Two frames make a feature: cut behind the last one that is kept, nothing after it is seen.
            real = torch.from_numpy(window.indices[: 2 * window.num_features])
            video = normalise_frames(frames[real][None].to(self._device))
            features.append(self._model.features(video)[0].float().cpu().numpy())
        return np.concatenate(features).astype(np.float16)

    def _squares(self, clip: Clip) -> np.ndarray:
        """What the encoder sees of the clip: `uint8 (T, size, size, 3)`."""
        frames, size_px, find_faces = clip.frames, self._shape.width_px, self._find_faces
        # The signer is looked for before the faces are gone.
        box = signer_box(frames, find_faces, person=self._person) if find_faces and self._crop == "face" else None
        if find_faces and self._blur:
            frames = blur_faces(frames, clip.fps, find_faces)
        if box is not None:
            return crop_square(frames, box, size_px)
        return np.ascontiguousarray(uniform_crop(frames, size_px)) if self._crop == "centre" else square_frames(frames, size_px)
