"""Clip -> SignHiera features `(T', D)`: windows, square frames, encoder."""

from pathlib import Path

import numpy as np
import torch

from sign_dist.models.signhiera import PRESETS, SignHiera, normalise_frames
from sign_dist.transfer.load import load_into, read_state_dict
from sign_dist.video.decode import Clip
from sign_dist.video.face_crop import FaceFinder
from sign_dist.video.squares import Crop, check_crop, squares
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
        crop: Crop = "none",
        person: Person = "moving",
        find_faces: FaceFinder | None = None,
        blur: bool = False,
    ) -> None:
        check_crop(crop, find_faces, blur=blur)
        self._shape = PRESETS[preset]
        # Random weights come from the seed alone and leave the process's own generator untouched.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._model = SignHiera(self._shape)
        if weights is not None:
            load_into(self._model, read_state_dict(weights), min_match=MIN_MATCH, ignore=("norm.", "head."))
        self._crop: Crop = crop
        self._find_faces, self._blur = find_faces, blur
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
        return squares(
            clip.frames,
            clip.fps,
            self._shape.width_px,
            crop=self._crop,
            person=self._person,
            find_faces=self._find_faces,
            blur=self._blur,
        )
