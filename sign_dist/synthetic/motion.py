"""From a sign and a signer to body poses over time: preparation, stroke, retraction (Kendon 1980; Kita et al. 1998).

World axes: x to the right of the picture, y up, z out of the picture towards the viewer; the origin is midway between
the shoulders and lengths are in average shoulder widths. Signers face the viewer, so their right hand is at negative x.
A left arm is computed as a right arm in a mirrored world; a left-handed signer is the mirror image of a right-handed one.
Paths follow the minimum-jerk profile of human reaching (Flash and Hogan 1985).
"""

import zlib
from dataclasses import dataclass
from typing import Final

import numpy as np

from sign_dist.synthetic.hand import (
    HANDSHAPES,
    PALM_JOINTS,
    TIP_JOINTS,
    Floats,
    Handshape,
    blend,
    local_joints,
    placed_joints,
)
from sign_dist.synthetic.lexicon import COUNTERPARTS, LOCATIONS, ORIENTATIONS, Location, Movement, Sign
from sign_dist.synthetic.signer import Signer

SHORTEST_S: Final = 1.2
LONGEST_S: Final = 2.2
UPPER_ARM: Final = 0.74
FOREARM: Final = 0.66
SHOULDER_X: Final = 0.415  # the joint lies inside the shoulder's outline
HEAD_LOCATIONS: Final[tuple[Location, ...]] = ("forehead", "temple", "eyes", "chin")
REST_WRIST: Final = np.array([-0.40, -0.96, 0.30])
REST_AXES: Final = ((0.78, -0.42, 0.30), (0.10, -0.62, -0.75))  # fingers, palm normal
BASE_HAND: Final = np.array([0.06, -0.62, 0.55])  # where the flat hand of a two-handed sign waits, in the world
TWO_HANDS_X: Final = 0.42  # so far from the middle two hands do not collide
MIRROR: Final = np.array([-1.0, 1.0, 1.0])
BASE_SIGN: Final = Sign("", "B", "palm", "tap", "up", "base")


@dataclass(frozen=True)
class Motion:
    """Poses of one clip, T frames. Index 0 is the signer's right side, 1 the left one."""

    fps: int
    hands: Floats  # (T, 2, 21, 3)
    elbows: Floats  # (T, 2, 3)
    shoulders: Floats  # (T, 2, 3)
    head: Floats  # (T, 3): roll in radians, then shift right and up
    eyes: Floats  # (T,) 1 open, 0 shut
    mouth: Floats  # (T,) 0 shut, 1 open
    brows: Floats  # (T,) 0 rest, 1 raised
    stroke: tuple[int, int]  # half-open span of frames

    @property
    def num_frames(self) -> int:
        return len(self.hands)


def clip_rng(seed: int, signer: Signer, sign: Sign, repetition: int) -> np.random.Generator:
    """The only source of chance in a clip, so that a clip does not depend on which others are made."""
    return np.random.default_rng([seed, 103, signer.index, zlib.crc32(sign.gloss.encode()), repetition])


def minimum_jerk(u: Floats) -> Floats:
    """Smooth step from 0 to 1 with zero speed and acceleration at both ends (Flash and Hogan 1985)."""
    u = np.clip(u, 0.0, 1.0)
    return u**3 * (10.0 - 15.0 * u + 6.0 * u**2)


def make_motion(sign: Sign, signer: Signer, rng: np.random.Generator) -> Motion:
    """One performance of `sign` by `signer`; `rng` draws what differs between two repetitions."""
    length_s = float(np.clip(1.65 / signer.speed * rng.uniform(0.9, 1.1), SHORTEST_S, LONGEST_S))
    num_frames = round(length_s * signer.fps)
    time = (np.arange(num_frames) + 0.5) / num_frames
    begin = signer.hold * rng.uniform(0.6, 1.0)
    start, stop = begin + rng.uniform(0.20, 0.24), 1.0 - begin - rng.uniform(0.20, 0.24)
    raised = minimum_jerk((time - begin) / (start - begin)) * minimum_jerk((1 - begin - time) / (1 - begin - stop))
    phase = np.clip((time - start) / (stop - start), 0.0, 1.0)

    scale = signer.amplitude * rng.uniform(0.9, 1.1)
    shift = np.array(signer.location_shift) + rng.normal(0.0, 0.018, size=3)
    place = place_of(sign, signer)
    sway = 0.012 * np.sin(2 * np.pi * (time * length_s * 0.35 + rng.uniform()))
    arms = _Arms(signer, raised, np.column_stack([sway, 0.3 * sway, np.zeros(num_frames)]))

    strong_shift = shift * (MIRROR if signer.left_handed else 1.0)
    strong = arms.sign(sign, place + strong_shift, stroke_path(sign.movement, phase), scale)
    match sign.hands:
        case "one":
            weak = arms.rest()
        case "mirrored":
            weak = arms.sign(sign, place + strong_shift, stroke_path(sign.movement, phase), scale)
        case "alternating":
            weak = arms.sign(sign, place + strong_shift, stroke_path(sign.movement, 1.0 - phase), scale)
        case "base":
            weak = arms.base(shift)
    hands, elbows, shoulders = (np.stack([s, w * MIRROR], axis=1) for s, w in zip(strong, weak, strict=True))

    head_roll = raised * rng.normal(0.02, 0.03) + 0.01 * np.sin(2 * np.pi * (time * 0.9 + rng.uniform()))
    head = np.column_stack([head_roll, 1.3 * sway, raised * rng.normal(-0.008, 0.008)])
    if signer.left_handed:
        hands, elbows, shoulders = (part[:, ::-1] * MIRROR for part in (hands, elbows, shoulders))
        head = head * np.array([-1.0, -1.0, 1.0])
    blink_at = rng.uniform(0.05, 0.95)
    syllables = float(rng.integers(1, 4))
    mouth = signer.mouthing * np.sin(np.pi * syllables * phase) ** 2 * (raised > 0.5)
    inside = np.flatnonzero((time >= start) & (time < stop))
    return Motion(
        fps=signer.fps,
        hands=hands,
        elbows=elbows,
        shoulders=shoulders,
        head=head,
        eyes=1.0 - np.exp(-(((time - blink_at) * length_s / 0.07) ** 2)),
        mouth=mouth,
        brows=raised * rng.uniform(0.0, 1.0),
        stroke=(int(inside[0]), int(inside[-1]) + 1),
    )


@dataclass(frozen=True)
class StrokePath:
    """What a movement does during the stroke, per frame: it carries, turns, opens or wiggles the hand."""

    offset: Floats  # (T, 3) shoulder widths
    twist: Floats  # (T,) radians about the finger axis
    nod: Floats  # (T,) radians about the thumb axis
    change: Floats  # (T,) 0 the sign's handshape, 1 its counterpart
    wiggle: Floats  # (T, 4) radians added at the knuckles


def stroke_path(movement: Movement, u: Floats) -> StrokePath:
    """The movement at phase `u` (T,) in [0, 1] of the stroke, for a right hand."""
    zero = np.zeros_like(u)
    x, y, z, twist, nod, change = zero, zero, zero, zero, zero, zero
    wiggle = np.zeros((len(u), 4))
    eased, turn = minimum_jerk(u), 2 * np.pi * u
    match movement:
        case "up":
            y, z = 0.52 * (eased - 0.5), 0.1 * eased
        case "down":
            y, z = 0.52 * (0.5 - eased), 0.1 * eased
        case "out":
            x = 0.56 * (0.35 - eased)
        case "forward":
            z, y = 0.75 * eased - 0.15, 0.10 * (0.5 - eased)
        case "arc":
            x, y = 0.50 * (0.35 - eased), 0.34 * np.sin(np.pi * eased) - 0.1
        case "circle":
            x, y = -0.19 * np.sin(2 * turn), 0.19 * np.cos(2 * turn)
        case "tap":
            touch = np.sin(1.5 * turn) ** 2
            y, z = 0.05 * touch, 0.24 * touch - 0.05
            x = -0.10 * touch
        case "shake":
            x = 0.15 * np.sin(3 * turn)
        case "zigzag":
            x, y = 0.15 * np.sin(2.5 * turn), 0.5 * (0.5 - u)
        case "twist":
            twist = 0.9 * np.sin(2 * turn)
        case "nod":
            nod = 0.65 * np.sin(2 * turn)
        case "open_close":
            change = np.sin(turn) ** 2
        case "wiggle":
            wiggle = 0.45 * np.sin(3 * turn[:, None] + np.arange(4) * 1.4) + 0.25
            wiggle *= np.minimum(1.0, 8 * np.minimum(u, 1 - u))[:, None]
    return StrokePath(np.column_stack([x, y, z]), twist, nod, change, wiggle)


@dataclass(frozen=True)
class HandPoses:
    """What one right hand does, per frame: bends, thumb, where its axes point, where its wrist is."""

    angles: Floats  # (T, 4, 4)
    thumb: Floats  # (T, 3, 3) unit directions
    turned: Floats  # (T, 3, 3)
    wrist: Floats  # (T, 3)


def place_of(sign: Sign, signer: Signer) -> Floats:
    """Where `signer` makes `sign`: the middle of a right hand in the world, (3,)."""
    place = np.array(LOCATIONS[sign.location])
    if sign.hands in ("mirrored", "alternating"):
        place[0] = min(place[0], -TWO_HANDS_X)
    if sign.location in HEAD_LOCATIONS:
        place = place * np.array([signer.head_size, signer.head_size, 1.0])
    return place


def rest_poses(num_frames: int) -> HandPoses:
    """A hand in the lap."""
    shape = HANDSHAPES["rest"]
    angles, thumb = blend(shape, shape, np.zeros(num_frames))
    turned = np.broadcast_to(axes(*REST_AXES), (num_frames, 3, 3))
    return HandPoses(angles, thumb, turned, np.broadcast_to(REST_WRIST, (num_frames, 3)))


def sign_poses(sign: Sign, place: Floats, path: StrokePath, scale: float, hand_length: float) -> HandPoses:
    """A hand that makes `sign` at `place`, fully raised, without the wiggling of its fingers (`path.wiggle`)."""
    shape = HANDSHAPES[sign.handshape]
    angles, thumb = blend(shape, _counterpart(shape), path.change)
    signing = axes(*ORIENTATIONS[sign.orientation])
    turned = np.einsum("ij,tjk,tkl->til", signing, rotation("f", path.twist), rotation("t", path.nod))

    # What is brought to the location is the middle of the hand, not the wrist.
    still = local_joints(*blend(shape, shape, np.zeros(1)))[0]
    centre = 0.5 * still[list(PALM_JOINTS)].mean(axis=0) + 0.5 * still[list(TIP_JOINTS)].mean(axis=0)
    return HandPoses(angles, thumb, turned, place + scale * path.offset - hand_length * (signing @ centre))


def base_poses(num_frames: int, shift: Floats, hand_length: float) -> HandPoses:
    """The flat, still hand on which a two-handed sign is made (Battison 1978, dominance condition)."""
    return sign_poses(BASE_SIGN, (BASE_HAND + shift) * MIRROR, still_path(num_frames), 1.0, hand_length)


def still_path(num_frames: int) -> StrokePath:
    zero = np.zeros(num_frames)
    return StrokePath(np.zeros((num_frames, 3)), zero, zero, zero, np.zeros((num_frames, 4)))


def arm_of(signer: Signer, poses: HandPoses, sway: Floats) -> tuple[Floats, Floats, Floats]:
    """Joints (T, 21, 3), elbow (T, 3) and shoulder (T, 3) of the right arm that holds a hand so; bones keep their length."""
    shoulder = np.array([-SHOULDER_X * signer.shoulder_width, -0.10, 0.0]) + sway
    upper, fore = UPPER_ARM * signer.arm_length, FOREARM * signer.arm_length
    # The elbow hangs down and out, and yields to where the fingers point: the wrist then bends less.
    pole = np.array([-0.95, -0.75, -0.55]) - 0.5 * poses.turned[:, :, 1]
    elbow, wrist = two_bone_ik(shoulder, poses.wrist + sway, upper, fore, pole)
    return placed_joints(local_joints(poses.angles, poses.thumb), poses.turned, wrist, signer.hand_length), elbow, shoulder


@dataclass(frozen=True)
class _Arms:
    """Right arms of one clip: `raised` (T,) is 0 at rest and 1 while signing, `sway` (T, 3) moves the whole body."""

    signer: Signer
    raised: Floats
    sway: Floats

    def rest(self) -> tuple[Floats, Floats, Floats]:
        """A hand that stays in the lap."""
        return arm_of(self.signer, rest_poses(len(self.raised)), self.sway)

    def base(self, shift: Floats) -> tuple[Floats, Floats, Floats]:
        """The hand under the other one."""
        poses = base_poses(len(self.raised), shift, self.signer.hand_length)
        return self._raise(poses, np.zeros((len(self.raised), 4)))

    def sign(self, sign: Sign, place: Floats, path: StrokePath, scale: float) -> tuple[Floats, Floats, Floats]:
        """A hand that is raised to make `sign` at `place`, and lowered again."""
        return self._raise(sign_poses(sign, place, path, scale, self.signer.hand_length), path.wiggle)

    def _raise(self, there: HandPoses, wiggle: Floats) -> tuple[Floats, Floats, Floats]:
        resting = rest_poses(len(self.raised))
        up = self.raised[:, None, None]
        angles = (1 - up) * resting.angles + up * there.angles
        angles[:, :, 0] += wiggle * self.raised[:, None]
        thumb = (1 - up) * resting.thumb + up * there.thumb
        thumb /= np.linalg.norm(thumb, axis=-1, keepdims=True)
        turned = slerp(resting.turned, there.turned, self.raised)
        wrist = (1 - self.raised[:, None]) * resting.wrist + self.raised[:, None] * there.wrist
        wrist[:, 2] += 0.18 * np.sin(np.pi * self.raised)  # on its way the hand swings out in front of the body
        return arm_of(self.signer, HandPoses(angles, thumb, turned, wrist), self.sway)


def two_bone_ik(shoulder: Floats, wrist: Floats, upper: float, fore: float, pole: Floats) -> tuple[Floats, Floats]:
    """Elbow and reachable wrist, all (T, 3), by the law of cosines; the elbow bends towards `pole`, bones keep length."""
    reach = wrist - shoulder
    distance = np.linalg.norm(reach, axis=-1, keepdims=True)
    direction = reach / np.maximum(distance, 1e-9)
    held = np.clip(distance, abs(upper - fore) + 0.02, 0.998 * (upper + fore))
    along = (upper**2 - fore**2 + held**2) / (2 * held)
    aside = np.sqrt(np.maximum(upper**2 - along**2, 0.0))
    bend = pole - np.sum(pole * direction, axis=-1, keepdims=True) * direction
    bend = bend / np.maximum(np.linalg.norm(bend, axis=-1, keepdims=True), 1e-9)
    return shoulder + along * direction + aside * bend, shoulder + held * direction


def axes(fingers: tuple[float, float, float], normal: tuple[float, float, float]) -> Floats:
    """Rotation (3, 3) with columns t, f, n of a right hand: `fingers` is kept, `normal` is made orthogonal to it.

    >>> axes((0, 1, 0), (0, 0, 1)).tolist()  # palm to the viewer, fingers up: the thumb is at the right of the picture
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    f = np.array(fingers, dtype=float)
    f /= np.linalg.norm(f)
    n = np.array(normal, dtype=float)
    n -= (n @ f) * f
    n /= np.linalg.norm(n)
    return np.column_stack([np.cross(f, n), f, n])


def rotation(axis: str, angle: Floats) -> Floats:
    """(T, 3, 3) rotations by `angle` (T,) about the hand's own axis "t" or "f"."""
    c, s, zero, one = np.cos(angle), np.sin(angle), np.zeros_like(angle), np.ones_like(angle)
    rows = (c, zero, s, zero, one, zero, -s, zero, c) if axis == "f" else (one, zero, zero, zero, c, -s, zero, s, c)
    return np.stack(rows, axis=-1).reshape(-1, 3, 3)


def slerp(first: Floats, second: Floats, weight: Floats) -> Floats:
    """Rotations (T, 3, 3) on the shortest way from `first` to `second` at `weight` (T,): Rodrigues' formula."""
    relative = np.einsum("tji,tjk->tik", first, second)
    skew = np.stack(
        [
            relative[:, 2, 1] - relative[:, 1, 2],
            relative[:, 0, 2] - relative[:, 2, 0],
            relative[:, 1, 0] - relative[:, 0, 1],
        ],
        axis=-1,
    )
    sine = 0.5 * np.linalg.norm(skew, axis=-1)
    angle = np.arctan2(sine, 0.5 * (np.trace(relative, axis1=1, axis2=2) - 1))
    axis = skew / np.maximum(2 * sine, 1e-9)[:, None]
    cross = np.zeros_like(relative)
    cross[:, 0, 1], cross[:, 0, 2], cross[:, 1, 2] = -axis[:, 2], axis[:, 1], -axis[:, 0]
    cross -= cross.transpose(0, 2, 1)
    part = (weight * angle)[:, None, None]
    return first @ (np.eye(3) + np.sin(part) * cross + (1 - np.cos(part)) * (cross @ cross))


def _counterpart(shape: Handshape) -> Handshape:
    """The shape that an open-close movement alternates with; only some handshapes have one."""
    return HANDSHAPES[COUNTERPARTS.get(shape.name, shape.name)]
