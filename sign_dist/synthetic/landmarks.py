"""Landmark tracks of synthetic signing without drawing or detecting anything: seconds instead of hours of experiments.

The joints that a renderer would draw are projected by the same camera and laid out as `video.landmarks` lays out what a
detector finds, normalised by the same function, with three faults that detectors have: every point shakes, every point
lies a little beside its joint for the whole clip, and hands are lost for a few frames now and then. What a real detector
does beyond that (swapped hands, fingers that are guessed wrongly when they are covered) is not there. On drawn clips of four
signers, MediaPipe's tracks of moving wrists correlate with these at 0.97 and more in x and y. Its depth of the body does
not: it lies about a shoulder width nearer and is stretched; let nothing depend on z.
"""

from typing import Final

import numpy as np

from sign_dist.synthetic.grammar import Sentence
from sign_dist.synthetic.hand import Floats
from sign_dist.synthetic.head import HEAD_PIVOT
from sign_dist.synthetic.motion import Motion
from sign_dist.synthetic.render import TOP, fit_scale
from sign_dist.synthetic.signer import Signer
from sign_dist.synthetic.utterance import make_utterance
from sign_dist.video.landmarks import LEFT_HAND, NUM_LANDMARKS, POSE_POINTS, RIGHT_HAND, Points, normalise

# Where a painted face has its points: shoulder widths, x to the right of the picture; the signer's left is there.
HEAD_POINTS: Final = {
    "nose": (0.0, 0.40, 0.28),
    "left_eye": (0.088, 0.50, 0.16),
    "right_eye": (-0.088, 0.50, 0.16),
    "left_ear": (0.218, 0.485, -0.06),
    "right_ear": (-0.218, 0.485, -0.06),
    "mouth_left": (0.074, 0.308, 0.18),
    "mouth_right": (-0.074, 0.308, 0.18),
}
HIP: Final = (0.30, -1.45, 0.0)  # below the picture: detectors guess it, and say so
HIP_CONFIDENCE: Final = 0.05
JITTER: Final = 0.012  # shoulder widths, every frame anew
BIAS: Final = 0.020  # shoulder widths, for the whole clip
LOST: Final = 0.02  # chance per frame that a hand gets lost
LOST_FRAMES: Final = (1, 5)  # for so many frames


def synthetic_landmarks(
    sentence: Sentence,
    signer: Signer,
    rng: np.random.Generator,
    *,
    jitter: float = JITTER,
    bias: float = BIAS,
    lost: float = LOST,
) -> Points:
    """Track (T, K, 4) of `signer` making `sentence`, as `LandmarkDetector` and `normalise` would give it.

    `rng` first draws the performance, then the faults, so a generator in the state that a clip was rendered from gives the
    track of that clip.
    """
    return motion_landmarks(make_utterance([sentence], signer, rng).motion, signer, rng, jitter=jitter, bias=bias, lost=lost)


def motion_landmarks(
    motion: Motion, signer: Signer, rng: np.random.Generator, *, jitter: float = JITTER, bias: float = BIAS, lost: float = LOST
) -> Points:
    """Normalised track (T, K, 4) of poses that are there already; face points are zeros, as they are by default."""
    if min(jitter, bias) < 0 or not 0 <= lost < 1:
        raise ValueError(f"need jitter >= 0, bias >= 0 and 0 <= lost < 1: {jitter=} {bias=} {lost=}")
    num_frames = motion.num_frames
    raw = np.zeros((num_frames, NUM_LANDMARKS, 4))
    body = _body(motion, signer)
    for number, name in enumerate(POSE_POINTS):
        raw[:, number, :3] = project(body[name], signer)
        raw[:, number, 3] = HIP_CONFIDENCE if "hip" in name else 1.0
    for part, side in ((RIGHT_HAND, 0), (LEFT_HAND, 1)):
        points = project(motion.hands[:, side], signer)
        points[..., 2] -= points[:, :1, 2]  # a hand's depth is told relative to its wrist
        raw[:, part, :3] = points
        raw[:, part, 3] = 1.0

    unit = signer.shoulder_width * 0.83 * fit_scale(signer) / max(signer.width_px, signer.height_px)
    raw[..., :3] += unit * bias * rng.normal(size=(1, NUM_LANDMARKS, 3))
    raw[..., :3] += unit * jitter * rng.normal(size=(num_frames, NUM_LANDMARKS, 3))
    for part in (RIGHT_HAND, LEFT_HAND):
        raw[_outside(raw[:, part], signer) | _lost(num_frames, lost, rng), part] = 0.0
    raw[raw[..., 3] <= 0] = 0.0
    return normalise(raw.astype(np.float32))


def project(points: Floats, signer: Signer) -> Floats:
    """World (..., 3) to the picture's x and y, rows growing downwards, and MediaPipe's z, less is nearer; longer side 1."""
    scale = fit_scale(signer)
    near = scale * signer.camera_distance / (signer.camera_distance - points[..., 2])
    x = signer.width_px * (0.5 + signer.shift_x * 0.6) + near * points[..., 0]
    y = scale * (TOP + signer.shift_y) - near * points[..., 1]
    return np.stack([x, y, -near * points[..., 2]], axis=-1) / max(signer.width_px, signer.height_px)


def _body(motion: Motion, signer: Signer) -> dict[str, Floats]:
    """Name of each point of the body -> (T, 3) in the world."""
    roll, right, up = motion.head.T
    cos, sin = signer.head_size * np.cos(roll), signer.head_size * np.sin(roll)
    found: dict[str, Floats] = {}
    for name, (x, y, z) in HEAD_POINTS.items():
        x, y = x - HEAD_PIVOT[0], y - HEAD_PIVOT[1]
        found[name] = np.column_stack(
            [HEAD_PIVOT[0] + right + cos * x - sin * y, HEAD_PIVOT[1] + up + sin * x + cos * y, np.full(len(roll), z)]
        )
    for side, word in ((0, "right"), (1, "left")):
        found[f"{word}_shoulder"] = motion.shoulders[:, side]
        found[f"{word}_elbow"] = motion.elbows[:, side]
        found[f"{word}_wrist"] = motion.hands[:, side, 0]
        found[f"{word}_hip"] = np.broadcast_to(np.array(HIP) * [2 * side - 1, 1, 1], (len(roll), 3))
    return found


def _outside(hand: Floats, signer: Signer) -> np.ndarray:
    """(T,) whether nearly all of a hand lies outside the picture, where nobody finds it."""
    limit = np.array([signer.width_px, signer.height_px]) / max(signer.width_px, signer.height_px)
    inside = ((hand[..., :2] > 0) & (hand[..., :2] < limit)).all(axis=-1)
    return inside.mean(axis=1) < 0.25


def _lost(num_frames: int, chance: float, rng: np.random.Generator) -> np.ndarray:
    """(T,) whether a hand is lost."""
    lost = np.zeros(num_frames, bool)
    for start in np.flatnonzero(rng.uniform(size=num_frames) < chance):
        lost[start : start + int(rng.integers(LOST_FRAMES[0], LOST_FRAMES[1] + 1))] = True
    return lost
