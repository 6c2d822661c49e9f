"""The hand: 21 joints in three dimensions, moved by joint angles (forward kinematics).

The joints have MediaPipe's numbers: 0 wrist, 1-4 thumb, 5-8 index, 9-12 middle, 13-16 ring, 17-20 little finger.
Lengths are in hand lengths, from the wrist to the tip of the middle finger (proportions after Buryanov and Kotiuk 2010,
"Proportions of Hand Segments"). A hand's own axes are the columns of a rotation: `t` towards the thumb, `f` along the
straight fingers, `n` out of the palm. Everything here is a RIGHT hand, n = t x f; a left hand is a mirror image.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

NUM_JOINTS: Final = 21
PALM_JOINTS: Final = (0, 5, 9, 13, 17)
TIP_JOINTS: Final = (4, 8, 12, 16, 20)

FINGER_BASES: Final = np.array([[0.145, 0.500, 0.0], [0.045, 0.520, 0.0], [-0.055, 0.490, 0.0], [-0.145, 0.430, 0.0]])
FINGER_BONES: Final = np.array([[0.235, 0.140, 0.100], [0.250, 0.155, 0.105], [0.235, 0.145, 0.100], [0.185, 0.105, 0.090]])
THUMB_BASE: Final = np.array([0.095, 0.110, 0.030])
THUMB_BONES: Final = np.array([0.230, 0.175, 0.135])

Bend = tuple[float, float, float]  # flexion in degrees at the three joints of a finger
Vector = tuple[float, float, float]

STRAIGHT: Final[Bend] = (2, 4, 3)
FOLDED: Final[Bend] = (82, 98, 62)
CURVED: Final[Bend] = (24, 38, 26)
PINCHED: Final[Bend] = (55, 52, 30)

THUMB_OUT: Final[tuple[Vector, ...]] = ((0.78, 0.56, 0.22), (0.86, 0.50, 0.08), (0.84, 0.54, 0.00))
THUMB_BESIDE: Final[tuple[Vector, ...]] = ((0.52, 0.80, 0.28), (0.16, 0.98, 0.12), (0.02, 1.00, 0.04))
THUMB_ACROSS: Final[tuple[Vector, ...]] = ((0.42, 0.72, 0.55), (-0.30, 0.70, 0.62), (-0.88, 0.34, 0.16))
THUMB_OPPOSED: Final[tuple[Vector, ...]] = ((0.46, 0.52, 0.72), (0.00, 0.78, 0.62), (-0.15, 0.93, 0.32))
THUMB_CURVED: Final[tuple[Vector, ...]] = ((0.60, 0.40, 0.69), (0.42, 0.55, 0.72), (0.25, 0.85, 0.45))


@dataclass(frozen=True)
class Handshape:
    """Bends of index, middle, ring and little finger, their spread, and where the thumb's three bones point."""

    name: str
    bends: tuple[Bend, Bend, Bend, Bend]
    spread_deg: float
    thumb: tuple[Vector, ...]

    def angles(self) -> Floats:
        """(4, 4) radians: per finger three flexions and the deviation towards the thumb."""
        fan = self.spread_deg * np.array([1.0, 0.25, -0.5, -1.25])
        return np.radians(np.column_stack([np.array(self.bends, dtype=float), fan]))


HANDSHAPES: Final[dict[str, Handshape]] = {
    shape.name: shape
    for shape in (
        Handshape("B", (STRAIGHT, STRAIGHT, STRAIGHT, STRAIGHT), 2, THUMB_BESIDE),  # flat, fingers together
        Handshape("5", (STRAIGHT, STRAIGHT, STRAIGHT, STRAIGHT), 15, THUMB_OUT),  # all spread
        Handshape("S", (FOLDED, FOLDED, FOLDED, FOLDED), 1, THUMB_ACROSS),  # fist
        Handshape("1", (STRAIGHT, FOLDED, FOLDED, FOLDED), 1, THUMB_ACROSS),  # index finger
        Handshape("V", (STRAIGHT, STRAIGHT, FOLDED, FOLDED), 14, THUMB_ACROSS),  # two fingers, spread
        Handshape("W", (STRAIGHT, STRAIGHT, STRAIGHT, FOLDED), 13, THUMB_ACROSS),  # three fingers, spread
        Handshape("L", (STRAIGHT, FOLDED, FOLDED, FOLDED), 2, THUMB_OUT),  # index finger and thumb
        Handshape("Y", (FOLDED, FOLDED, FOLDED, STRAIGHT), 12, THUMB_OUT),  # thumb and little finger
        Handshape("I", (FOLDED, FOLDED, FOLDED, STRAIGHT), 2, THUMB_ACROSS),  # little finger
        Handshape("C", (CURVED, CURVED, CURVED, CURVED), 2, THUMB_CURVED),  # as if around a cup
        Handshape("O", (PINCHED, PINCHED, PINCHED, PINCHED), 1, THUMB_OPPOSED),  # all tips at the thumb
        Handshape("F", (PINCHED, STRAIGHT, STRAIGHT, STRAIGHT), 10, THUMB_OPPOSED),  # index at the thumb, the rest fanned
        Handshape("rest", ((18, 22, 12), (22, 26, 14), (26, 28, 16), (28, 30, 16)), 3, THUMB_BESIDE),
    )
}


def blend(first: Handshape, second: Handshape, weight: Floats) -> tuple[Floats, Floats]:
    """Angles (T, 4, 4) and unit thumb directions (T, 3, 3) from `first` (weight 0) to `second` (weight 1)."""
    mix = weight[:, None, None]
    thumb = (1 - mix) * np.array(first.thumb) + mix * np.array(second.thumb)
    return (1 - mix) * first.angles() + mix * second.angles(), thumb / np.linalg.norm(thumb, axis=-1, keepdims=True)


def local_joints(angles: Floats, thumb: Floats) -> Floats:
    """Joints (T, 21, 3) in hand lengths along (t, f, n) from the wrist, of angles (T, 4, 4) and thumb (T, 3, 3)."""
    num_frames = len(angles)
    joints = np.zeros((num_frames, NUM_JOINTS, 3))
    flexion = np.cumsum(angles[:, :, :3], axis=-1)  # (T, finger, bone), each bone turned by all joints before it
    deviation = angles[:, :, 3:4]
    bones = np.stack([np.cos(flexion) * np.sin(deviation), np.cos(flexion) * np.cos(deviation), np.sin(flexion)], axis=-1)
    chain = np.cumsum(bones * FINGER_BONES[None, :, :, None], axis=2) + FINGER_BASES[None, :, None, :]
    joints[:, 5:] = np.concatenate([np.broadcast_to(FINGER_BASES[None, :, None, :], (num_frames, 4, 1, 3)), chain], axis=2).reshape(
        num_frames, 16, 3
    )
    joints[:, 1] = THUMB_BASE
    joints[:, 2:5] = THUMB_BASE + np.cumsum(thumb * THUMB_BONES[None, :, None], axis=1)
    return joints


def placed_joints(local: Floats, rotation: Floats, wrist: Floats, length: float) -> Floats:
    """Joints (T, 21, 3) in the world, of a hand of `length` at `wrist` (T, 3); `rotation` (T, 3, 3) has columns t, f, n."""
    return wrist[:, None, :] + length * np.einsum("tij,tkj->tki", rotation, local)
