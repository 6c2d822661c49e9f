"""One clip -> features, in one place: extraction, evaluation and serving all call `encode_clip`."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, assert_never

import numpy as np

from sign_dist.config.data import Features, FrameFeatures, LandmarkFeatures, SignHieraFeatures
from sign_dist.errors import SignDistError, VideoError
from sign_dist.features.spec import FeatureSpec
from sign_dist.features.store import pack
from sign_dist.video.decode import Clip, read_clip
from sign_dist.video.frames import spread, square_frames

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


def find_files(features: Features, folder: Path | None = None) -> EncoderFiles:
    """The files that these features need, downloaded where that is possible.

    Raises:
        WeightsError: one is missing or has other bytes than it should.
    """
    match features:
        case LandmarkFeatures():
            from sign_dist.video import landmarks

            files = landmarks.find_files(folder or models_dir(), face=features.face)
            paths = {"pose": files.pose, "hand": files.hand} | ({"face": files.face} if files.face else {})
            return EncoderFiles(paths, files.files_digest)
        case SignHieraFeatures(weights=weights) if weights:
            from sign_dist.transfer.load import file_digest

            return EncoderFiles({"signhiera": Path(weights).absolute()}, file_digest(Path(weights)))
        case SignHieraFeatures() | FrameFeatures():
            return EncoderFiles({}, "")
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
            from sign_dist.video.landmarks import LandmarkDetector, LandmarkFiles, normalise

            detector = LandmarkDetector(LandmarkFiles(**files.paths), max_side=features.sampling.max_side_px)
            every = features.every
            return lambda clip: normalise(detector(clip.frames, clip.fps)[::every], max_gap=MAX_GAP).astype(np.float16)
        case SignHieraFeatures():
            from sign_dist.features.signhiera import SignHieraEncoder

            return SignHieraEncoder(features.preset, weights=files.paths.get("signhiera"), seed=features.seed, device=device)
        case FrameFeatures(num_frames=num_frames, size_px=size_px):
            return lambda clip: square_frames(spread(clip.frames, num_frames), size_px)
        case _:
            assert_never(features)


def decode_row(row: dict[str, Any], features: Features) -> dict[str, Any]:
    """Add `frames`, `fps` and `error` to a row with `path`, `start_s`, `end_s`. A bad clip becomes a row with an error."""
    try:
        clip = read_clip(row["path"], start_s=row["start_s"], end_s=row["end_s"], **features.sampling.model_dump())
        return row | {"frames": clip.frames, "clip_fps": clip.fps, "error": ""}
    except (VideoError, MemoryError, OSError) as error:
        return row | {"frames": np.zeros((0, 1, 1, 3), np.uint8), "clip_fps": 0.0, "error": error_text(error)}


def encode_row(row: dict[str, Any], encoder: Encoder) -> dict[str, Any]:
    """A decoded row -> a row of the store, `features` or `error` filled."""
    base = {"key": row["key"], "id": row["id"], "fps": float(row["clip_fps"])}
    if row["error"]:
        return base | pack(np.zeros(0, np.float16)) | {"error": row["error"]}
    try:
        features = encoder(Clip(row["frames"], float(row["clip_fps"]), ""))
    except (SignDistError, ValueError, RuntimeError, MemoryError) as error:
        return base | pack(np.zeros(0, np.float16)) | {"error": error_text(error)}
    return base | pack(features) | {"error": ""}


def encode_clip(path: Path, features: Features, encoder: Encoder) -> np.ndarray:
    """A whole file -> features, by the very steps of extraction.

    Raises:
        VideoError: the file cannot be used.
    """
    clip = read_clip(path, **features.sampling.model_dump())
    return encoder(clip)


def error_text(error: BaseException) -> str:
    """`code: message`; an error that has no code of ours gives its type."""
    code = error.code if isinstance(error, VideoError) else type(error).__name__
    return f"{code}: {error}"
