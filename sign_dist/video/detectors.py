"""Faces, bodies and hands in pictures, found by MediaPipe, whose only importer this is; dlib finds faces on request.

`LandmarkDetector` turns the frames of a clip into points, `FaceDetector` and `DlibFaceDetector` turn them into face boxes.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sign_dist.stderr import without_notes
from sign_dist.video.hand_sides import Hand, assign_sides
from sign_dist.video.landmarks import CHANNELS, FACE, FACE_POINTS, NUM_LANDMARKS, PARTS, POSE, POSE_POINTS, Points
from sign_dist.video.people import signer_region
from sign_dist.video.tubes import Box, Person, area, common_area

# absl's lines of level info and warning, and TensorFlow Lite's.
_NOTE = re.compile(rb"[IW]\d{4} |INFO: (Created TensorFlow Lite|\[\w+\.cc:\d+\])|WARNING: (Logging before|All log messages before)")
LANDMARKERS = ("pose", "hand", "face")


class LandmarkDetector:
    """Frames of one clip -> points `(T, K, 4)`; make one per process, it reads the model files once.

    Every call makes new landmarkers in VIDEO mode, so that no tracking leaks from clip to clip and equal input gives
    equal output. Separate pose, hand and face landmarkers rather than the holistic one: on 14 webcam clips at 15 fps they
    found a hand in 99 % of the frames against 94 %, with wrists a fifth steadier, and without the face cost less.
    """

    def __init__(
        self, files: Mapping[str, Path], *, person: Person = "moving", max_side: int = 640, min_hand_confidence: float = 0.4
    ) -> None:
        from mediapipe.tasks.python import vision  # 1-4 s

        self._vision: Any = vision
        self._bytes = {part: files[part].read_bytes() for part in LANDMARKERS if part in files}
        self._find_faces = FaceDetector(files["face_box"])
        self._person: Person = person
        self.max_side = max_side
        self.min_hand_confidence = min_hand_confidence

    def __call__(self, frames: NDArray[np.uint8], fps: float) -> Points:
        """Raw points of `frames` uint8 (T, H, W, 3) RGB, in units of the longer image side; confidence 0: not found."""
        if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8:
            raise ValueError(f"need uint8 frames (T, H, W, 3): {frames.dtype=} {frames.shape=}")
        if fps <= 0:
            raise ValueError(f"need fps > 0: {fps=}")
        left, top, right, bottom = signer_region(frames, self._find_faces, person=self._person)
        longer = max(frames.shape[1:3])
        scale = np.array([right - left, bottom - top, right - left], np.float32) / longer  # MediaPipe's z has the scale of x
        shift = np.array([left, top, 0], np.float32) / longer
        points = np.zeros((len(frames), NUM_LANDMARKS, CHANNELS), np.float32)
        pose_ids, face_ids = list(POSE_POINTS.values()), list(FACE_POINTS)
        hands: list[list[Hand]] = []
        with ExitStack() as stack:
            with without_notes(_NOTE):
                landmarkers = {part: stack.enter_context(self._landmarker(part)) for part in self._bytes}
            times_ms = timestamps_ms(len(frames), fps)
            images = self._images(frames[:, top:bottom, left:right])
            for t, (image, time_ms) in enumerate(zip(images, times_ms, strict=True)):
                with without_notes(_NOTE) if t == 0 else nullcontext():
                    found = {part: landmarker.detect_for_video(image, time_ms) for part, landmarker in landmarkers.items()}
                if found["pose"].pose_landmarks:
                    kept = [found["pose"].pose_landmarks[0][i] for i in pose_ids]
                    points[t, POSE, :3] = _xyz(kept) * scale + shift
                    points[t, POSE, 3] = [min(max(float(p.visibility or 0.0), 1e-3), 1.0) for p in kept]
                hands.append(
                    [
                        Hand(_xyz(marks) * scale + shift, "left" if side[0].category_name == "Left" else "right")
                        for marks, side in zip(found["hand"].hand_landmarks, found["hand"].handedness, strict=True)
                    ]
                )
                if "face" in found and found["face"].face_landmarks:
                    points[t, FACE, :3] = _xyz([found["face"].face_landmarks[0][i] for i in face_ids]) * scale + shift
                    points[t, FACE, 3] = 1.0
        for t, sides in enumerate(assign_sides(hands, points[:, POSE])):
            for side, hand in sides.items():
                part = PARTS[f"{side}_hand"]
                points[t, part, :3] = hand.points
                points[t, part, 3] = 1.0
        return points

    def _images(self, frames: NDArray[np.uint8]) -> Iterator[Any]:
        height, width = frames.shape[1:3]
        scale = min(1.0, self.max_side / max(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        for frame in frames:
            yield _image(cv2.resize(frame, size, interpolation=cv2.INTER_AREA) if scale < 1.0 else frame)

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


class FaceDetector:
    """Pictures (T, H, W, 3) -> the face boxes of each, in pixels, both ends inside, by MediaPipe's BlazeFace.

    BlazeFace sees pictures of 128 pixels, in which the face of a signer seen from head to knee, or beside another one, is too
    small: overlapping squares of half the size are searched too. The same picture always gives the same boxes.
    On 93 frames of 7 real clips faces had a confidence of 0.64 to 0.98, what was none 0.50 to 0.66, and more of it was seen
    in the squares, where more is asked for.
    """

    def __init__(self, model: Path, *, min_confidence: float = 0.6, min_in_squares: float = 0.7) -> None:
        self._model = model.read_bytes()
        self._min_confidence, self._min_in_squares = min_confidence, max(min_confidence, min_in_squares)

    def __call__(self, pictures: NDArray[np.uint8]) -> list[list[Box]]:
        from mediapipe.tasks.python import BaseOptions, vision

        options = vision.FaceDetectorOptions(
            base_options=BaseOptions(model_asset_buffer=self._model),
            running_mode=vision.RunningMode.IMAGE,
            min_detection_confidence=self._min_confidence,
        )
        # Opened for one clip and closed: MediaPipe complains of what is still open when Python ends.
        with without_notes(_NOTE), vision.FaceDetector.create_from_options(options) as detector:
            return [_faces_in(picture, detector, self._min_in_squares) for picture in pictures]


class DlibFaceDetector:
    """Pictures (T, H, W, 3) -> the face boxes of each by dlib: its convolutional detector where its file is given, else HOG.

    The picture is doubled once before the search, as it was for SignHiera's features.
    """

    def __init__(self, model: Path | None = None) -> None:
        import dlib  # pyright: ignore[reportMissingImports]

        self._cnn: Any = dlib.cnn_face_detection_model_v1(str(model)) if model else None
        self._hog: Any = None if model else dlib.get_frontal_face_detector()

    def __call__(self, pictures: NDArray[np.uint8]) -> list[list[Box]]:
        return [self._faces_in(picture) for picture in pictures]

    def _faces_in(self, picture: NDArray[np.uint8]) -> list[Box]:
        if self._cnn:
            found = [face.rect for face in self._cnn(np.ascontiguousarray(picture), 1)]
        else:
            found = self._hog(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), 1)
        return [(float(f.left()), float(f.top()), float(f.right()), float(f.bottom())) for f in found]


def timestamps_ms(num_frames: int, fps: float) -> list[int]:
    """Strictly increasing, as VIDEO mode demands, even above 1000 fps."""
    return [max(i, round(i * 1000.0 / fps)) for i in range(num_frames)]


def _image(picture: NDArray[np.uint8]) -> Any:
    from mediapipe import Image, ImageFormat

    return Image(image_format=ImageFormat.SRGB, data=np.ascontiguousarray(picture))


def _xyz(marks: Sequence[Any]) -> NDArray[np.float32]:
    return np.array([(m.x, m.y, m.z) for m in marks], np.float32)


def _faces_in(picture: NDArray[np.uint8], detector: Any, min_in_squares: float) -> list[Box]:
    faces = _search(picture, detector, 0, 0)
    height, width = picture.shape[:2]
    side = max(height, width) // 2
    for top in _places(height, side):
        for left in _places(width, side):
            found = _search(picture[top : top + side, left : left + side], detector, left, top)
            faces += [(score, box) for score, box in found if score >= min_in_squares]
    return _distinct(faces)


def _search(picture: NDArray[np.uint8], detector: Any, left: int, top: int) -> list[tuple[float, Box]]:
    """(confidence, box) of each face in a picture whose corner lies at (left, top)."""
    return [
        (
            float(face.categories[0].score or 0.0),
            (
                float(left + face.bounding_box.origin_x),
                float(top + face.bounding_box.origin_y),
                float(left + face.bounding_box.origin_x + face.bounding_box.width - 1),
                float(top + face.bounding_box.origin_y + face.bounding_box.height - 1),
            ),
        )
        for face in detector.detect(_image(picture)).detections
    ]


def _places(length: int, side: int) -> list[int]:
    """Where squares of `side` begin along a length: half overlapping, the last one at the end."""
    return [*range(0, max(length - side, 0), max(side // 2, 1)), max(length - side, 0)]


def _distinct(faces: list[tuple[float, Box]]) -> list[Box]:
    """The surest box of those that share half of the smaller one, from left to right."""
    kept: list[Box] = []
    for _, box in sorted(faces, key=lambda face: (-face[0], face[1])):
        if all(common_area(box, other) < 0.5 * min(area(box), area(other)) for other in kept):
            kept.append(box)
    return sorted(kept)
