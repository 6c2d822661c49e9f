"""Three frames of a clip side by side: pictures of its video, or the signer's points drawn where a clip is a track of landmarks."""

import itertools
from pathlib import Path

import cv2
import numpy as np

from sign_dist.errors import VideoError
from sign_dist.inference.evaluated import Evaluated
from sign_dist.inference.html_page import four_by_three, jpeg_uri
from sign_dist.video.decode import read_clip
from sign_dist.video.landmarks import CHANNELS, LEFT_HAND, NUM_LANDMARKS, POSE_POINTS, RIGHT_HAND

# Thumbnails: a tenth of a megapixel each keeps twelve clips below half a megabyte.
SIDE_PX = 224
MAX_SECONDS = 120.0
PLACES = (1 / 6, 1 / 2, 5 / 6)
ARMS = (
    ("left_shoulder", "right_shoulder"), ("left_shoulder", "left_elbow"), ("left_elbow", "left_wrist"),
    ("right_shoulder", "right_elbow"), ("right_elbow", "right_wrist"), ("mouth_left", "mouth_right"),
    ("left_shoulder", "left_hip"), ("right_shoulder", "right_hip"), ("left_hip", "right_hip"),
)  # fmt: skip
# Shoulder widths from the middle of the picture to its sides, and how far the middle lies below the shoulders.
REACH, BELOW = 2.0, 0.05
BACKGROUND, BODY, LEFT, RIGHT = (38, 45, 56), (230, 234, 240), (78, 166, 221), (240, 138, 75)


def thumbnails(clip: Evaluated) -> tuple[str, str]:
    """(three frames as a JPEG data address, "") or ("", why there is none)."""
    path = Path(clip.video_path)
    if not str(clip.video_path):
        return "", "no video is known"
    try:
        frames = [draw(pose) for pose in _poses(path)] if path.suffix == ".npy" else _pictures(clip, path)
    except VideoError as error:
        return "", "the file is missing" if error.code == "missing" else error.code.replace("_", " ")
    except FileNotFoundError:
        return "", "the file is missing"
    except (OSError, ValueError) as error:
        return "", type(error).__name__
    uri = jpeg_uri(np.concatenate(frames, axis=1))
    return uri, "" if uri else "the picture cannot be written"


def draw(pose: np.ndarray) -> np.ndarray:
    """Points (K, 4) of `video.landmarks` as a picture uint8 (H, W, 3); what was not found is not drawn."""
    height, width = SIDE_PX * 3 // 4, SIDE_PX
    picture = np.full((height, width, 3), BACKGROUND, np.uint8)
    scale = width / (2 * REACH)
    around = np.clip((pose[:, :2] - np.array([0, BELOW])) * scale, -4 * width, 4 * width)
    xy = np.round(around + np.array([width / 2, height / 2])).astype(int)
    seen = pose[:, 3] > 0

    def line(a: int, b: int, colour: tuple[int, int, int], thickness: int) -> None:
        if seen[a] and seen[b]:
            cv2.line(picture, tuple(map(int, xy[a])), tuple(map(int, xy[b])), colour, thickness, cv2.LINE_AA)

    names = list(POSE_POINTS)
    ears = [names.index(name) for name in ("left_ear", "right_ear", "nose")]
    if seen[ears].all():
        radius = max(4, int(0.75 * np.linalg.norm(xy[ears[0]] - xy[ears[1]])))
        cv2.circle(picture, tuple(map(int, xy[ears[2]])), radius, BODY, 1, cv2.LINE_AA)
    for a, b in ARMS:
        line(names.index(a), names.index(b), BODY, 2)
    for hand, colour in ((LEFT_HAND, LEFT), (RIGHT_HAND, RIGHT)):
        for finger in range(5):
            chain = [0, *range(1 + 4 * finger, 5 + 4 * finger)]
            for a, b in itertools.pairwise(chain):
                line(hand.start + a, hand.start + b, colour, 1)
    return picture


def _poses(path: Path) -> list[np.ndarray]:
    points = np.load(path, mmap_mode="r", allow_pickle=False)
    if points.ndim != 3 or points.shape[1:] != (NUM_LANDMARKS, CHANNELS) or not len(points):
        raise ValueError(f"{str(path)!r} holds no landmarks: {points.shape}")
    return [np.asarray(points[int(len(points) * place)], np.float32) for place in PLACES]


def _pictures(clip: Evaluated, path: Path) -> list[np.ndarray]:
    frames = read_clip(path, fps=8, max_side_px=SIDE_PX, max_seconds=MAX_SECONDS, start_s=clip.start_s, end_s=clip.end_s).frames
    return [four_by_three(frames[int(len(frames) * place)]) for place in PLACES]
