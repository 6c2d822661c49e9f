"""Resizing and augmentation as pure functions of an array and a random generator.

Landmarks are normalised points float32 (T, K, 4) (origin between the shoulders, shoulder width 1); a point with
confidence 0 is absent, all zeros, and stays so. Frames are uint8 (T, H, W, 3) RGB. No function changes its input.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from sign_dist.video.landmarks import FACE, HAND_WRIST, LEFT_HAND, MIRROR, RIGHT_HAND, Points

Frames = NDArray[np.uint8]
HANDS = (LEFT_HAND, RIGHT_HAND)


def mirror(points: Points) -> Points:
    """The same sign by a signer of the other handedness: x is negated, left and right change names.

    Holds for normalised points, whose x = 0 is the middle of the body. Twice gives the input.
    """
    result = points[:, list(MIRROR)]
    result[..., 0] *= -1.0
    return result


def resample(points: Points, num_steps: int) -> Points:
    """`num_steps` evenly spaced from the first to the last frame, linear between frames where a point is in both."""
    return _at(points, np.linspace(0.0, len(points) - 1.0, num_steps))


def _at(points: Points, positions: NDArray[np.float64]) -> Points:
    before = np.clip(np.floor(positions).astype(int), 0, len(points) - 1)
    after = np.minimum(before + 1, len(points) - 1)
    weight = (positions - before).astype(np.float32)[:, None, None]
    a, b = points[before], points[after]
    both = (a[..., 3:] > 0) & (b[..., 3:] > 0)
    return np.where(both, (1 - weight) * a + weight * b, np.where(weight < 0.5, a, b)).astype(np.float32)


def change_speed(points: Points, rng: np.random.Generator, strength: float) -> Points:
    """Faster or slower by up to a factor `1 + strength`, each as likely as the other, with a smooth uneven tempo."""
    if strength <= 0 or len(points) < 2:
        return points
    factor = np.exp(rng.uniform(-1, 1) * np.log1p(strength))
    num_steps = max(2, round(len(points) * factor))
    even = np.linspace(0.0, 1.0, num_steps)
    sway = rng.uniform(-1, 1) * min(strength, 1.0) * 0.5 / np.pi  # |slope of the sway| < 1 keeps time going forward
    return _at(points, (even + sway * np.sin(np.pi * even)).clip(0, 1) * (len(points) - 1))


def crop_time(points: Points, rng: np.random.Generator, strength: float, *, min_steps: int = 8) -> Points:
    """Cut up to the fraction `strength` of the clip away, split at random between its two ends."""
    longest = min(int(len(points) * strength), len(points) - min_steps)
    if longest <= 0:
        return points
    cut = int(rng.integers(0, longest + 1))
    start = int(rng.integers(0, cut + 1))
    return points[start : len(points) - (cut - start)]


def drop_frames(points: Points, rng: np.random.Generator, probability: float) -> Points:
    """Every frame is lost with this probability; at least one stays."""
    kept = rng.random(len(points)) >= probability
    return points[kept] if kept.any() else points


def jitter_space(
    points: Points,
    rng: np.random.Generator,
    *,
    rotate_deg: float = 0.0,
    scale: float = 0.0,
    shear: float = 0.0,
    shift: float = 0.0,
) -> Points:
    """One random affine map of the image plane for the whole clip: another camera and another build of the signer."""
    angle = np.deg2rad(rng.uniform(-rotate_deg, rotate_deg))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    skew = np.array([[1.0, rng.uniform(-shear, shear)], [rng.uniform(-shear, shear), 1.0]])
    size = np.exp(rng.uniform(-1, 1) * np.log1p(scale))
    stretch = np.diag(size * np.exp(rng.uniform(-0.5, 0.5, 2) * np.log1p(scale)))
    result = points.copy()
    result[..., :2] = points[..., :2] @ (turn @ skew @ stretch).T + rng.uniform(-shift, shift, 2)
    result[..., 2] *= size
    return _keep_absent(result, points)


def jitter_hands(
    points: Points, rng: np.random.Generator, *, rotate_deg: float = 0.0, scale: float = 0.0, shift: float = 0.0
) -> Points:
    """Turn, scale and shift each hand around its own wrist, the same over the clip: bodies differ in proportions."""
    result = points.copy()
    for hand in HANDS:
        wrist = points[:, hand][:, HAND_WRIST : HAND_WRIST + 1, :2]
        angle = np.deg2rad(rng.uniform(-rotate_deg, rotate_deg))
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        size = np.exp(rng.uniform(-1, 1) * np.log1p(scale))
        result[:, hand, :2] = (points[:, hand, :2] - wrist) @ (turn * size).T + wrist + rng.uniform(-shift, shift, 2)
    return _keep_absent(result, points)


def drop_parts(
    points: Points, rng: np.random.Generator, *, face: float = 0.0, hand: float = 0.0, longest: int | None = None
) -> Points:
    """With probability `face` the face is absent, with probability `hand` each hand for up to a third of the clip, and for at
    most `longest` steps."""
    result = points.copy()
    if rng.random() < face:
        result[:, FACE] = 0.0
    for part in HANDS:
        if rng.random() < hand:
            span = int(rng.integers(1, max(2, min(len(points) // 3, len(points) if longest is None else longest) + 1)))
            start = int(rng.integers(0, max(1, len(points) - span + 1)))
            result[start : start + span, part] = 0.0
    return result


def add_noise(points: Points, rng: np.random.Generator, strength: float) -> Points:
    """Independent Gaussian error of x, y and z, in shoulder widths."""
    result = points.copy()
    result[..., :3] += rng.normal(0.0, 1.0, points[..., :3].shape).astype(np.float32) * strength
    return _keep_absent(result, points)


def _keep_absent(result: Points, points: Points) -> Points:
    result[points[..., 3] <= 0] = 0.0
    return result


def augment_landmarks(
    points: Points,
    rng: np.random.Generator,
    *,
    mirror_probability: float = 0.5,
    speed: float = 0.5,
    crop: float = 0.3,
    frame_drop: float = 0.1,
    rotate_deg: float = 12.0,
    scale: float = 0.2,
    shear: float = 0.1,
    shift: float = 0.1,
    hand_rotate_deg: float = 10.0,
    hand_scale: float = 0.15,
    hand_shift: float = 0.05,
    face_dropout: float = 0.2,
    hand_dropout: float = 0.1,
    longest_gap: int | None = None,
    noise: float = 0.01,
) -> Points:
    """One random variant of a clip, (T, K, 4) -> (T', K, 4); 0 switches any of the strengths off.

    With `crop` 0 and a short `longest_gap` no sign of a sentence is lost.
    """
    points = crop_time(points, rng, crop)
    points = change_speed(points, rng, speed)
    points = drop_frames(points, rng, frame_drop)
    if rng.random() < mirror_probability:
        points = mirror(points)
    points = jitter_space(points, rng, rotate_deg=rotate_deg, scale=scale, shear=shear, shift=shift)
    points = jitter_hands(points, rng, rotate_deg=hand_rotate_deg, scale=hand_scale, shift=hand_shift)
    points = drop_parts(points, rng, face=face_dropout, hand=hand_dropout, longest=longest_gap)
    return add_noise(points, rng, noise)


def resize_frames(frames: Frames, height: int, width: int) -> Frames:
    """Frames of exactly `height` x `width`, averaged over areas when they shrink; the caller keeps the aspect ratio."""
    if height < 1 or width < 1:
        raise ValueError(f"need height >= 1 and width >= 1: {height=} {width=}")
    if frames.shape[1:3] == (height, width):
        return frames
    how = cv2.INTER_AREA if height * width < frames.shape[1] * frames.shape[2] else cv2.INTER_LINEAR
    result = np.empty((len(frames), height, width, 3), np.uint8)
    for t, frame in enumerate(frames):
        result[t] = cv2.resize(frame, (width, height), interpolation=how)
    return result


def augment_frames(
    frames: Frames,
    rng: np.random.Generator,
    *,
    mirror_probability: float = 0.0,
    speed: float = 0.3,
    crop: float = 0.2,
    frame_drop: float = 0.05,
    zoom: float = 0.15,
    brightness: float = 0.15,
    contrast: float = 0.2,
    saturation: float = 0.2,
) -> Frames:
    """One random variant of a clip of the same H and W: one crop, one colour change for all its frames.

    `zoom` is the largest fraction of each side that the crop leaves out. The mirror is off by default: a
    mirrored picture is another handedness, which only some tasks want.
    """
    frames = frames[_frame_choice(len(frames), rng, speed=speed, crop=crop, frame_drop=frame_drop)]
    height, width = frames.shape[1:3]
    left_out = rng.uniform(0.0, zoom) if zoom > 0 else 0.0
    h, w = max(1, round(height * (1 - left_out))), max(1, round(width * (1 - left_out)))
    top, left = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
    frames = resize_frames(frames[:, top : top + h, left : left + w], height, width)
    if rng.random() < mirror_probability:
        frames = frames[:, :, ::-1]
    return _change_colour(frames, rng, brightness=brightness, contrast=contrast, saturation=saturation)


def _frame_choice(num_frames: int, rng: np.random.Generator, *, speed: float, crop: float, frame_drop: float) -> NDArray[np.int64]:
    """Indices of frames: cropped, slowed or hastened, some left out; never empty, never backwards."""
    cut = int(rng.integers(0, int(num_frames * crop) + 1))
    cut = min(cut, num_frames - 1)
    start = int(rng.integers(0, cut + 1))
    kept = num_frames - cut
    num_steps = max(1, round(kept * np.exp(rng.uniform(-1, 1) * np.log1p(speed))))
    index = start + np.round(np.linspace(0, kept - 1, num_steps)).astype(np.int64)
    seen = rng.random(num_steps) >= frame_drop
    return index[seen] if seen.any() else index


def _change_colour(frames: Frames, rng: np.random.Generator, *, brightness: float, contrast: float, saturation: float) -> Frames:
    add = 255.0 * rng.uniform(-brightness, brightness)
    times = 1.0 + rng.uniform(-contrast, contrast)
    keep = 1.0 + rng.uniform(-saturation, saturation)
    grey = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601 luma
    mix = (keep * np.eye(3, dtype=np.float32) + (1.0 - keep) * np.ones((3, 1), np.float32) * grey).astype(np.float32)
    result = np.empty(frames.shape, np.uint8)
    for t, frame in enumerate(frames):  # one frame at a time: a clip in float32 takes four times its memory
        x = frame.astype(np.float32) @ mix.T
        result[t] = np.clip((x - 128.0) * times + 128.0 + add, 0, 255).astype(np.uint8)
    return result
