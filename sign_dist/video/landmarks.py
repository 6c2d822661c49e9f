"""Body, hand and face points of a signer: their order, their normalisation, how many of them were found.

Points are `(T, K, 4)`: x, y, z and confidence, 0 where a point was not found. The order of the K points is fixed by the
constants below; `video/detectors.py` finds them.
"""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sign_dist.errors import VideoError

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


FILLED = 0.5
"""The confidence of a filled point, as a share of its neighbours'."""


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
        part[before + 1 : after, :, 3] = FILLED * np.minimum(part[before, :, 3], part[after, :, 3])


def detection_rates(points: Points) -> dict[str, float]:
    """Share of a clip's frames, 0 to 1, in which each part was found, from its (normalised) points (T, K, 4).

    `hands` is the share with at least one hand. A hand or a face that was only filled in, which carries half the
    confidence, does not count. A clip of no frames gives 0.
    """
    if points.ndim != 3 or points.shape[1:] != (NUM_LANDMARKS, CHANNELS):
        raise ValueError(f"need points (T, {NUM_LANDMARKS}, {CHANNELS}): {points.shape=}")
    if len(points) == 0:
        return dict.fromkeys((*PARTS, "hands"), 0.0)
    least = {"pose": 0.0}
    found = {name: (points[:, part, 3] > least.get(name, FILLED)).any(axis=1) for name, part in PARTS.items()}
    found["hands"] = found["left_hand"] | found["right_hand"]
    return {name: float(seen.mean()) for name, seen in found.items()}
