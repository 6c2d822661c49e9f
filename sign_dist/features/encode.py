"""One clip -> features, in one place: extraction, evaluation and serving all call `encode_clip`."""

import dataclasses
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, assert_never

import numpy as np

from sign_dist.config.data import Features, FrameFeatures, LandmarkFeatures, SignHieraFeatures
from sign_dist.errors import SignDistError, VideoError, WeightsError
from sign_dist.features.spec import FeatureSpec
from sign_dist.features.store import pack
from sign_dist.video.decode import Clip, read_clip
from sign_dist.video.face_crop import FaceFinder
from sign_dist.video.frames import by_motion, spread
from sign_dist.video.landmarks import FACE
from sign_dist.video.model_files import digest_of, dlib_files, landmark_roles
from sign_dist.video.model_files import find_files as find_model_files
from sign_dist.video.squares import squares
from sign_dist.video.tracks import is_track, read_track

# Steps of a hand's absence that are interpolated: 0.2 s at 15 a second.
MAX_GAP = 3

Encoder = Callable[[Clip], np.ndarray]
"""Frames -> features: `(T, K, 4)` landmarks, `(T', D)` vectors or `uint8 (T, size, size, 3)` frames."""


def models_dir() -> Path | None:
    """`SIGN_DIST_MODELS`, the folder with model files that are already here."""
    value = os.environ.get("SIGN_DIST_MODELS", "")
    return Path(value).absolute() if value else None


@dataclasses.dataclass(frozen=True)
class EncoderFiles:
    """Model files an encoder needs, by their role; found once, so that every worker uses the same."""

    paths: dict[str, Path]
    digest: str


NO_FILES = EncoderFiles({}, "")
"""Of landmarks that are tracks already, in all of a dataset: nothing has to find them."""


def find_files(features: Features, folder: Path | None = None) -> EncoderFiles:
    """The files that these features need, downloaded where that is possible.

    Raises:
        WeightsError: one is missing or has other bytes than it should.
    """
    roles: tuple[str, ...] = ()
    paths: dict[str, Path] = {}
    match features:
        case LandmarkFeatures():
            roles = landmark_roles(face=features.face)
        case SignHieraFeatures():
            if features.weights:
                paths["signhiera"] = Path(features.weights).absolute()
            if needs_faces(features) and features.detector == "mediapipe":
                roles = ("face_box",)
            elif needs_faces(features):
                paths |= dlib_files(folder or models_dir())
        case FrameFeatures():
            roles = ("face_box",) if needs_faces(features) else ()
        case _:
            assert_never(features)
    if missing := [str(path) for path in paths.values() if not path.is_file()]:
        raise WeightsError(f"no weights file {missing[0]!r}: correct the path")
    paths |= find_model_files(roles, folder or models_dir())
    return EncoderFiles(paths, digest_of(paths) if paths else "")


def needs_faces(features: Features) -> bool:
    """Whether faces are looked for in the pictures."""
    match features:
        case LandmarkFeatures():
            return True
        case SignHieraFeatures() | FrameFeatures():
            return features.crop == "face" or features.privacy == "blur"
        case _:
            assert_never(features)


def spec_for(features: Features, files: EncoderFiles) -> FeatureSpec:
    """The spec of features made with these files."""
    return FeatureSpec(features=features, weights=files.digest, dtype="uint8" if features.kind == "frames" else "float16")


def build_encoder(features: Features, files: EncoderFiles, *, device: str = "cpu") -> Encoder:
    """A function from a decoded clip to its features. Costly to build; call it often.

    Heavy libraries are imported here, so that a process that only decodes never pays for them.
    """
    match features:
        case LandmarkFeatures():
            from sign_dist.video.detectors import LandmarkDetector
            from sign_dist.video.landmarks import normalise

            if not files.paths:
                return _no_detector
            detector = LandmarkDetector(files.paths, person=features.person, max_side=features.sampling.max_side_px)
            every = features.every
            return lambda clip: normalise(detector(clip.frames, clip.fps)[::every], max_gap=MAX_GAP).astype(np.float16)
        case SignHieraFeatures():
            from sign_dist.features.signhiera import SignHieraEncoder

            return SignHieraEncoder(
                features.preset,
                weights=files.paths.get("signhiera"),
                seed=features.seed,
                device=device,
                crop=features.crop,
                person=features.person,
                find_faces=_face_finder(features, files),
                blur=features.privacy == "blur",
            )
        case FrameFeatures(num_frames=num_frames, size_px=size_px):
            find_faces = _face_finder(features, files)
            how = by_motion if features.pick == "motion" else spread

            def encode(clip: Clip) -> np.ndarray:
                chosen = partial(how, num_frames=num_frames) if num_frames else np.asarray
                # Faces are looked for in all frames; without that only those that are kept are worth cutting.
                seen = squares(
                    clip.frames if find_faces else chosen(clip.frames),
                    clip.fps,
                    size_px,
                    crop=features.crop,
                    person=features.person,
                    find_faces=find_faces,
                    blur=features.privacy == "blur",
                )
                return chosen(seen) if find_faces else seen

            return encode
        case _:
            assert_never(features)


def _face_finder(features: SignHieraFeatures | FrameFeatures, files: EncoderFiles) -> FaceFinder | None:
    if not needs_faces(features):
        return None
    from sign_dist.video.detectors import DlibFaceDetector, FaceDetector

    if isinstance(features, SignHieraFeatures) and features.detector == "dlib":
        return DlibFaceDetector(files.paths.get("face_box_dlib"))
    return FaceDetector(files.paths["face_box"])


def decode_row(row: dict[str, Any], features: Features) -> dict[str, Any]:
    """Add `frames`, `clip_fps` and `error` to a row with `path`, `start_s`, `end_s`. A bad clip becomes a row with an error.

    `frames` are pictures (T, H, W, 3), or the features themselves where the clip is a landmark track.
    """
    try:
        clip = _read(row["path"], features, row["start_s"], row["end_s"])
        return row | {"frames": clip.frames, "clip_fps": clip.fps, "error": ""}
    except (VideoError, MemoryError, OSError) as error:
        return row | {"frames": np.zeros((0, 1, 1, 3), np.uint8), "clip_fps": 0.0, "error": error_text(error)}


def encode_row(row: dict[str, Any], encoder: Encoder) -> dict[str, Any]:
    """A decoded row -> a row of the store, `features` or `error` filled."""
    base = {"key": row["key"], "id": row["id"], "fps": float(row["clip_fps"])}
    if row["error"]:
        return base | pack(np.zeros(0, np.float16)) | {"error": row["error"]}
    try:
        features = _encoded(Clip(row["frames"], float(row["clip_fps"]), ""), encoder)
    except (SignDistError, ValueError, RuntimeError, MemoryError) as error:
        return base | pack(np.zeros(0, np.float16)) | {"error": error_text(error)}
    return base | pack(features) | {"error": ""}


def encode_clip(path: Path, features: Features, encoder: Encoder) -> np.ndarray:
    """A whole file -> features, by the very steps of extraction.

    Raises:
        VideoError: the file cannot be used.
    """
    return _encoded(_read(path, features), encoder)


def _read(path: str | Path, features: Features, start_s: float = 0.0, end_s: float = 0.0) -> Clip:
    """A clip's pictures; of a landmark track (.npy) its features, float16 (T, K, 4), where these are landmarks."""
    if isinstance(features, LandmarkFeatures) and is_track(path):
        track = read_track(path, features.sampling, start_s=start_s, end_s=end_s)
        points = track.points[:: features.every].astype(np.float16)
        if not features.face:
            points[:, FACE] = 0.0
        return Clip(points, track.fps, "track", track.num_source)
    return read_clip(path, start_s=start_s, end_s=end_s, **features.sampling.model_dump())


def _encoded(clip: Clip, encoder: Encoder) -> np.ndarray:
    return clip.frames if clip.frames.ndim == 3 else encoder(clip)


def _no_detector(clip: Clip) -> np.ndarray:
    raise VideoError(
        "no_detector", "these features were made of landmark tracks alone, without a detector that finds points in pictures"
    )


def error_text(error: BaseException) -> str:
    """`code: message`; an error that has no code of ours gives its type."""
    code = error.code if isinstance(error, VideoError) else type(error).__name__
    return f"{code}: {error}"
