"""Body, hand and face points of a signer, found by MediaPipe; the only importer of mediapipe.

`LandmarkDetector` turns frames into raw points `(T, K, 4)`: x, y, z and confidence. `normalise` puts the origin between
the shoulders and makes the shoulder width 1. The order of the K points is fixed by the constants below.
"""

import hashlib
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from sign_dist.errors import VideoError, WeightsError
from sign_dist.stderr import without_notes

Points = NDArray[np.float32]  # (T, K, 4): x, y, z, confidence

# MediaPipe's own numbers of the points we keep; "left" and "right" are the signer's.
POSE_POINTS = {
    "nose": 0, "left_eye": 2, "right_eye": 5, "left_ear": 7, "right_ear": 8, "mouth_left": 9, "mouth_right": 10,
    "left_shoulder": 11, "right_shoulder": 12, "left_elbow": 13, "right_elbow": 14, "left_wrist": 15, "right_wrist": 16,
    "left_hip": 23, "right_hip": 24,
}  # fmt: skip
# Pairs (right, left) of the 478-point face mesh, then the points on its middle line.
FACE_PAIRS = (
    (61, 291), (40, 270), (37, 267), (91, 321), (84, 314),  # lips, outer
    (78, 308), (81, 311), (178, 402),  # lips, inner
    (70, 300), (63, 293), (105, 334), (66, 296), (107, 336),  # brows
    (33, 263), (133, 362), (159, 386), (145, 374), (468, 473),  # eyes and irises
    (234, 454),  # sides of the face
)  # fmt: skip
FACE_MIDDLE = (0, 17, 13, 14, 1, 10, 152)  # lips outer and inner, nose tip, forehead, chin
FACE_POINTS = tuple(right for right, _ in FACE_PAIRS) + tuple(left for _, left in FACE_PAIRS) + FACE_MIDDLE

NUM_POSE, NUM_HAND, NUM_FACE = len(POSE_POINTS), 21, len(FACE_POINTS)
POSE = slice(0, NUM_POSE)
LEFT_HAND = slice(POSE.stop, POSE.stop + NUM_HAND)
RIGHT_HAND = slice(LEFT_HAND.stop, LEFT_HAND.stop + NUM_HAND)
FACE = slice(RIGHT_HAND.stop, RIGHT_HAND.stop + NUM_FACE)
PARTS = {"pose": POSE, "left_hand": LEFT_HAND, "right_hand": RIGHT_HAND, "face": FACE}
NUM_LANDMARKS = FACE.stop
CHANNELS = 4

NOSE, LEFT_SHOULDER, RIGHT_SHOULDER, LEFT_WRIST, RIGHT_WRIST = (
    list(POSE_POINTS).index(name) for name in ("nose", "left_shoulder", "right_shoulder", "left_wrist", "right_wrist")
)
LEFT_EYE, RIGHT_EYE = list(POSE_POINTS).index("left_eye"), list(POSE_POINTS).index("right_eye")
HAND_WRIST, HAND_MIDDLE_BASE = 0, 9  # within a hand
HAND_TIPS = (4, 8, 12, 16, 20)


def _mirror() -> tuple[int, ...]:
    names = list(POSE_POINTS)
    swap = {"left": "right", "right": "left"}
    pose = [names.index("_".join(swap.get(word, word) for word in name.split("_"))) for name in names]
    n = len(FACE_PAIRS)
    face = [*range(n, 2 * n), *range(n), *range(2 * n, NUM_FACE)]
    hands = [*range(RIGHT_HAND.start, RIGHT_HAND.stop), *range(LEFT_HAND.start, LEFT_HAND.stop)]
    return tuple(pose + hands + [FACE.start + i for i in face])


MIRROR = _mirror()  # points[:, MIRROR] exchanges left and right


@dataclass(frozen=True)
class Asset:
    """A published model file: where it comes from, what it must hash to, and names that may stand in for it."""

    name: str
    url: str
    sha256: str
    other_names: tuple[str, ...] = ()


_SITE = "https://storage.googleapis.com/mediapipe-models"
ASSETS = {
    "pose": Asset(
        "pose_landmarker_lite.task",
        f"{_SITE}/pose_landmarker/pose_landmarker_lite/float16/1/pose_landmarker_lite.task",
        "59929e1d1ee95287735ddd833b19cf4ac46d29bc7afddbbf6753c459690d574a",
        ("pose_landmarker_full.task", "pose_landmarker.task"),
    ),
    "hand": Asset(
        "hand_landmarker.task",
        f"{_SITE}/hand_landmarker/hand_landmarker/float16/1/hand_landmarker.task",
        "fbc2a30080c3c557093b5ddfc334698132eb341044ccee322ccf8bcf3607cde1",
        ("hand_landmarker_lite.task",),
    ),
    "face": Asset(
        "face_landmarker.task",
        f"{_SITE}/face_landmarker/face_landmarker/float16/1/face_landmarker.task",
        "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff",
    ),
}
DOWNLOAD_TIMEOUT_S = 60.0
PARTS_OF_FILES = ("pose", "hand", "face")
# absl's lines of level info and warning, and TensorFlow Lite's.
_NOTE = re.compile(rb"[IW]\d{4} |INFO: Created TensorFlow Lite|WARNING: (Logging before|All log messages before)")


@dataclass(frozen=True)
class LandmarkFiles:
    """The model files of one detector; `face` is None when face points are not wanted."""

    pose: Path
    hand: Path
    face: Path | None = None

    @property
    def files_digest(self) -> str:
        """SHA-256 over the files' own digests: other files mean other features."""
        whole = hashlib.sha256()
        for part in ("pose", "hand", "face"):
            path: Path | None = getattr(self, part)
            whole.update(f"{part}:{_sha256(path) if path else ''}\n".encode())
        return whole.hexdigest()


def find_files(
    models_dir: str | Path | None = None,
    *,
    cache_dir: str | Path | None = None,
    face: bool = True,
    download: bool = True,
) -> LandmarkFiles:
    """The model files from `models_dir`, or from the cache folder, where missing ones are downloaded once.

    Raises WeightsError when a file is in neither place and cannot be fetched.
    """
    cache = Path(cache_dir) if cache_dir is not None else Path.home() / ".cache" / "sign_dist" / "mediapipe"
    parts = ["pose", "hand", "face"] if face else ["pose", "hand"]
    return LandmarkFiles(**{part: _find(ASSETS[part], models_dir, cache, download) for part in parts})


def _find(asset: Asset, models_dir: str | Path | None, cache: Path, download: bool) -> Path:
    if models_dir is not None:
        for name in (asset.name, *asset.other_names):
            if (path := Path(models_dir) / name).is_file():
                return path
    path = cache / asset.name
    if path.is_file():
        return path
    looked = f"{models_dir} and {cache}" if models_dir is not None else str(cache)
    remedy = f"download {asset.url} into a folder and set SIGN_DIST_MODELS to it"
    if not download:
        raise WeightsError(f"no {asset.name} in {looked}: {remedy}")
    try:
        _download(asset, path)
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise WeightsError(f"no {asset.name} in {looked}, and its download failed ({error}): {remedy}") from error
    return path


def _download(asset: Asset, path: Path) -> None:
    """Fetch to a temporary name, check, rename: a cut-off download never looks like a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as part:
        try:
            with urllib.request.urlopen(asset.url, timeout=DOWNLOAD_TIMEOUT_S) as response:
                shutil.copyfileobj(response, part)
            part.flush()
            found = _sha256(Path(part.name))
            if found != asset.sha256:
                raise ValueError(f"its sha256 is {found}, not {asset.sha256}")
            Path(part.name).replace(path)
        finally:
            Path(part.name).unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class _Hand:
    points: NDArray[np.float32]  # (21, 3)
    label: Literal["left", "right"]


class LandmarkDetector:
    """Frames of one clip -> points `(T, K, 4)`; make one per process, it reads the model files once.

    Every call makes new landmarkers in VIDEO mode, so that no tracking leaks from clip to clip and equal input gives
    equal output. Separate pose, hand and face landmarkers rather than the holistic one: on 14 webcam clips at 15 fps they
    found a hand in 99 % of the frames against 94 %, with wrists a fifth steadier, and without the face cost less.
    """

    def __init__(self, files: LandmarkFiles, *, max_side: int = 640, min_hand_confidence: float = 0.4) -> None:
        from mediapipe.tasks.python import vision  # 1-4 s

        self._vision: Any = vision
        self._bytes = {part: path.read_bytes() for part in PARTS_OF_FILES if (path := getattr(files, part)) is not None}
        self.files_digest = files.files_digest
        self.max_side = max_side
        self.min_hand_confidence = min_hand_confidence

    def __call__(self, frames: NDArray[np.uint8], fps: float) -> Points:
        """Raw points of `frames` uint8 (T, H, W, 3) RGB, in units of the longer image side; confidence 0: not found."""
        if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8:
            raise ValueError(f"need uint8 frames (T, H, W, 3): {frames.dtype=} {frames.shape=}")
        if fps <= 0:
            raise ValueError(f"need fps > 0: {fps=}")
        height, width = frames.shape[1:3]
        unit = np.array([width, height, width], np.float32) / max(height, width)  # MediaPipe's z has the scale of x
        points = np.zeros((len(frames), NUM_LANDMARKS, CHANNELS), np.float32)
        pose_ids, face_ids = list(POSE_POINTS.values()), list(FACE_POINTS)
        last_wrists: dict[str, NDArray[np.float32]] = {}
        with ExitStack() as stack:
            with without_notes(_NOTE):
                landmarkers = {part: stack.enter_context(self._landmarker(part)) for part in self._bytes}
            times_ms = _timestamps_ms(len(frames), fps)
            for t, (image, time_ms) in enumerate(zip(self._images(frames), times_ms, strict=True)):
                with without_notes(_NOTE) if t == 0 else nullcontext():
                    found = {part: landmarker.detect_for_video(image, time_ms) for part, landmarker in landmarkers.items()}
                if found["pose"].pose_landmarks:
                    kept = [found["pose"].pose_landmarks[0][i] for i in pose_ids]
                    points[t, POSE, :3] = _xyz(kept) * unit
                    points[t, POSE, 3] = [min(max(float(p.visibility or 0.0), 1e-3), 1.0) for p in kept]
                hands = [
                    _Hand(_xyz(marks) * unit, "left" if side[0].category_name == "Left" else "right")
                    for marks, side in zip(found["hand"].hand_landmarks, found["hand"].handedness, strict=True)
                ]
                for side, hand in assign_hands(hands, points[t, POSE], last_wrists).items():
                    part = PARTS[f"{side}_hand"]
                    points[t, part, :3] = hand.points
                    points[t, part, 3] = 1.0
                    last_wrists[side] = hand.points[HAND_WRIST, :2]
                if "face" in found and found["face"].face_landmarks:
                    points[t, FACE, :3] = _xyz([found["face"].face_landmarks[0][i] for i in face_ids]) * unit
                    points[t, FACE, 3] = 1.0
        return points

    def _images(self, frames: NDArray[np.uint8]) -> Iterator[Any]:
        from mediapipe import Image, ImageFormat

        height, width = frames.shape[1:3]
        scale = min(1.0, self.max_side / max(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        for frame in frames:
            small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA) if scale < 1.0 else frame
            yield Image(image_format=ImageFormat.SRGB, data=np.ascontiguousarray(small))

    def _landmarker(self, part: str) -> Any:
        from mediapipe.tasks.python import BaseOptions

        vision = self._vision
        common: dict[str, Any] = {
            "base_options": BaseOptions(model_asset_buffer=self._bytes[part]),
            "running_mode": vision.RunningMode.VIDEO,
        }
        match part:
            case "pose":
                return vision.PoseLandmarker.create_from_options(vision.PoseLandmarkerOptions(**common))
            case "hand":
                least = self.min_hand_confidence
                return vision.HandLandmarker.create_from_options(
                    vision.HandLandmarkerOptions(
                        **common,
                        num_hands=2,
                        min_hand_detection_confidence=least,
                        min_hand_presence_confidence=least,
                        min_tracking_confidence=least,
                    )
                )
            case _:
                return vision.FaceLandmarker.create_from_options(vision.FaceLandmarkerOptions(**common))


def _timestamps_ms(num_frames: int, fps: float) -> list[int]:
    """Strictly increasing, as VIDEO mode demands, even above 1000 fps."""
    return [max(i, round(i * 1000.0 / fps)) for i in range(num_frames)]


def _xyz(marks: Sequence[Any]) -> NDArray[np.float32]:
    return np.array([(m.x, m.y, m.z) for m in marks], np.float32)


def assign_hands(
    hands: Sequence[_Hand], pose: NDArray[np.float32], last_wrists: dict[str, NDArray[np.float32]]
) -> dict[str, _Hand]:
    """Which found hand is the left and which the right one: the assignment with the least total cost.

    A hand costs its distance from the pose's wrist of that side, as far as the pose is sure of it, plus half the distance
    from where that hand was last seen, in shoulder widths. MediaPipe's own label, which flips when hands cross or turn,
    breaks near-ties, and decides where the pose sees no wrist. One hand found twice counts once.
    """
    width = float(np.linalg.norm(pose[LEFT_SHOULDER, :2] - pose[RIGHT_SHOULDER, :2])) if pose[NOSE, 3] > 0 else 0.0
    unit = width if width > 1e-3 else 0.25
    surest = float(pose[[LEFT_WRIST, RIGHT_WRIST], 3].max()) if width > 1e-3 else 0.0

    def cost(hand: _Hand, side: Literal["left", "right"]) -> float:
        wrist = hand.points[HAND_WRIST, :2]
        total = 0.15 + 0.85 * (1.0 - surest) if hand.label != side else 0.0
        anchor = pose[LEFT_WRIST if side == "left" else RIGHT_WRIST, :2]
        total += surest * float(np.linalg.norm(wrist - anchor)) / unit
        if side in last_wrists:
            total += 0.5 * min(float(np.linalg.norm(wrist - last_wrists[side])) / unit, 1.0)
        return total

    if len(hands) == 2 and np.linalg.norm(hands[0].points[:, :2] - hands[1].points[:, :2], axis=1).mean() < 0.1 * unit:
        hands = [min(hands, key=lambda hand: min(cost(hand, "left"), cost(hand, "right")))]
    match len(hands):
        case 0:
            return {}
        case 1:
            side = "left" if cost(hands[0], "left") < cost(hands[0], "right") else "right"
            return {side: hands[0]}
        case _:
            a, b = hands[0], hands[1]
            if cost(a, "left") + cost(b, "right") <= cost(b, "left") + cost(a, "right"):
                return {"left": a, "right": b}
            return {"left": b, "right": a}


def normalise(points: Points, *, max_gap: int = 6) -> Points:
    """Origin between the shoulders, shoulder width 1 (medians over the clip); gaps of <= `max_gap` frames are filled.

    Filled points carry half the confidence of their neighbours. Points that stay absent are all zeros.
    Raises VideoError `no_signer` when nothing was found in any frame.
    """
    if points.ndim != 3 or points.shape[1:] != (NUM_LANDMARKS, CHANNELS):
        raise ValueError(f"need points (T, {NUM_LANDMARKS}, {CHANNELS}): {points.shape=}")
    if not (points[..., 3] > 0).any():
        raise VideoError("no_signer", f"no person was found in any of the {len(points)} frames")
    origin, unit = _body_frame(points)
    result = points.astype(np.float32, copy=True)
    result[..., :2] -= origin
    result[..., :3] /= unit
    seen = result.copy()
    for part in PARTS.values():
        _fill_gaps(result[:, part], max_gap)
    for part, other in ((LEFT_HAND, RIGHT_HAND), (RIGHT_HAND, LEFT_HAND)):
        # A hand whose side was mistaken for some frames leaves a gap on its own side, right where it was then found.
        filled = (seen[:, part, 3] <= 0).all(1) & (seen[:, other, 3] > 0).any(1)
        near = np.linalg.norm(result[:, part, :2] - seen[:, other, :2], axis=-1).mean(1) < 0.25
        result[filled & near, part] = 0.0
    result[result[..., 3] <= 0] = 0.0
    return result


def _body_frame(points: Points) -> tuple[NDArray[np.float32], float]:
    """Origin (x, y) and unit of length of a clip; eyes, then whatever was found, stand in for missing shoulders."""
    for left, right, width_in_shoulders, drop in (
        (LEFT_SHOULDER, RIGHT_SHOULDER, 1.0, 0.0),
        (LEFT_EYE, RIGHT_EYE, 0.16, 0.65),
    ):
        seen = (points[:, left, 3] > 0.1) & (points[:, right, 3] > 0.1)
        if seen.any():
            pair = points[seen][:, [left, right], :2]
            unit = float(np.median(np.linalg.norm(pair[:, 0] - pair[:, 1], axis=-1))) / width_in_shoulders
            if unit > 1e-4:
                middle = np.median(pair.mean(1), axis=0).astype(np.float32)
                return middle + np.array([0.0, drop * unit], np.float32), unit
    found = points[points[..., 3] > 0][:, :2]
    return np.median(found, axis=0), max(float(found.std(axis=0).max()) * 2.0, 1e-4)


def _fill_gaps(part: Points, max_gap: int) -> None:
    """Linear in time between two sightings of the whole part, in place."""
    seen = np.flatnonzero((part[..., 3] > 0).any(axis=1))
    for before, after in pairwise(seen):
        gap = int(after - before - 1)
        if not 0 < gap <= max_gap:
            continue
        weight = (np.arange(1, gap + 1, dtype=np.float32) / (gap + 1))[:, None, None]
        part[before + 1 : after] = (1 - weight) * part[before] + weight * part[after]
        part[before + 1 : after, :, 3] = 0.5 * np.minimum(part[before, :, 3], part[after, :, 3])
