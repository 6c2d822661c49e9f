"""Which found hand is the left and which the right one, decided over the whole clip.

MediaPipe names the side of each hand in each frame alone, and errs when hands cross, turn or hide each other. Here the side
is the cheapest sequence of sides over the clip (Viterbi): near the pose's wrist of that side, near where that hand was
last, and of the name that MediaPipe gave.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sign_dist.video.landmarks import HAND_WRIST, LEFT_SHOULDER, LEFT_WRIST, NOSE, RIGHT_SHOULDER, RIGHT_WRIST, Points

Side = Literal["left", "right"]
OTHER: dict[Side, Side] = {"left": "right", "right": "left"}

# Costs are in shoulder widths. A hand of the wrong name costs WRONG_NAME where the pose is sure of its wrists, and WRONG_BLIND
# where it sees none; hands on the other one's side cost CROSSED; a jump of a whole shoulder width from frame to frame costs JUMP.
WRONG_NAME, WRONG_BLIND, CROSSED, JUMP = 0.15, 0.5, 0.3, 2.0
FORGET_FRAMES = 15
"""Where a hand was so many frames ago says nothing any more; before that it says less from frame to frame."""
SAME_HAND = 0.1
"""Two hands whose points lie closer than this, in the mean, are one hand found twice."""
FACE_RADIUS, FAR_FROM_WRISTS = 0.4, 0.75
"""A "hand" whose middle is so near to the nose while both wrists of the pose are so far away is the face, taken for a hand."""
MAX_PATHS = 12


@dataclasses.dataclass(frozen=True, eq=False)
class Hand:
    """A hand of one frame and the side that MediaPipe gives it."""

    points: NDArray[np.float32]
    """(21, 3)"""
    label: Side


Sides = dict[Side, Hand]
_Seen = tuple[Hand, int]  # a hand and its frame


@dataclasses.dataclass(frozen=True)
class _Path:
    """A choice for every frame so far."""

    cost: float
    last: dict[Side, _Seen]
    choice: Sides
    before: "_Path | None"


def assign_sides(hands: Sequence[Sequence[Hand]], poses: Points) -> list[Sides]:
    """For each frame its hands by side, each at most once: the assignment with the least total cost over the clip.

    `hands` are those found in each frame, two at most are kept; `poses` (T, NUM_POSE, 4) in the units of the hands.
    """
    unit = _shoulder_width(poses)
    paths = [_Path(0.0, {}, {}, None)]
    for t, (found, pose) in enumerate(zip(hands, poses, strict=True)):
        real = [hand for hand in found if not is_face(hand, pose, unit)]
        options = [(option, _cost_alone(option, pose, unit)) for option in _options(real, unit)]
        best: dict[tuple[int, int], _Path] = {}
        for path in paths:
            remembered: dict[Side, _Seen] = {side: seen for side, seen in path.last.items() if t - seen[1] <= FORGET_FRAMES}
            for option, alone in options:
                moved = sum(
                    _cost_of_motion(hand, remembered.get(side), remembered.get(OTHER[side]), t, unit)
                    for side, hand in option.items()
                )
                cost = path.cost + alone + moved
                last = remembered.copy()
                for side, hand in option.items():
                    last[side] = (hand, t)
                # What comes depends on the past only through where each hand was last.
                key = (id(last["left"][0]) if "left" in last else 0, id(last["right"][0]) if "right" in last else 0)
                if key not in best or cost < best[key].cost:
                    best[key] = _Path(cost, last, option, path)
        paths = sorted(best.values(), key=lambda path: path.cost)[:MAX_PATHS]
    chosen: list[Sides] = []
    path: _Path | None = paths[0]
    while path is not None and path.before is not None:
        chosen.append(path.choice)
        path = path.before
    return chosen[::-1]


def is_face(hand: Hand, pose: Points, unit: float) -> bool:
    """Whether the hand detector took the face for a hand, as it does in dark pictures."""
    if pose[NOSE, 3] <= 0.5:
        return False
    from_nose = np.linalg.norm(hand.points[:, :2].mean(axis=0) - pose[NOSE, :2])
    from_wrists = np.linalg.norm(pose[[LEFT_WRIST, RIGHT_WRIST], :2] - hand.points[HAND_WRIST, :2], axis=1).min()
    return bool(from_nose < FACE_RADIUS * unit and from_wrists > FAR_FROM_WRISTS * unit)


def _options(found: Sequence[Hand], unit: float) -> list[Sides]:
    """Every way to name the hands of one frame."""
    if len(found) > 1 and np.linalg.norm(found[0].points[:, :2] - found[1].points[:, :2], axis=1).mean() < SAME_HAND * unit:
        return [option for hand in found[:2] for option in _options([hand], unit)]
    match list(found[:2]):
        case []:
            return [{}]
        case [hand]:
            return [{"left": hand}, {"right": hand}]
        case [a, b]:
            return [{"left": a, "right": b}, {"left": b, "right": a}]
        case _:
            raise AssertionError


def _cost_alone(option: Sides, pose: Points, unit: float) -> float:
    surest = float(pose[[LEFT_WRIST, RIGHT_WRIST], 3].max()) if pose[NOSE, 3] > 0 else 0.0
    total = 0.0
    for side, hand in option.items():
        anchor = pose[LEFT_WRIST if side == "left" else RIGHT_WRIST, :2]
        total += surest * float(np.linalg.norm(hand.points[HAND_WRIST, :2] - anchor)) / unit
        if hand.label != side:
            total += WRONG_NAME + (WRONG_BLIND - WRONG_NAME) * (1.0 - surest)
    if len(option) == 2 and pose[NOSE, 3] > 0:
        apart = option["left"].points[:, 0].mean() - option["right"].points[:, 0].mean()
        across = pose[LEFT_SHOULDER, 0] - pose[RIGHT_SHOULDER, 0]
        total += CROSSED if apart * across < 0 else 0.0
    return total


def _cost_of_motion(hand: Hand, own: _Seen | None, other: _Seen | None, t: int, unit: float) -> float:
    """A jump from where this side's hand was; and being where the other side's hand was, as far as the own place is not known."""
    cost, known = 0.0, 0.0
    if own is not None:
        known = _recent(own, t)
        cost += known * min(_distance(hand, own[0], unit), 1.0)
    if other is not None:
        cost += (1.0 - known) * _recent(other, t) * (1.0 - min(_distance(hand, other[0], unit), 1.0))
    return JUMP * cost


def _recent(seen: _Seen, t: int) -> float:
    """1 for the frame before, falling to 0 as it is forgotten."""
    return 1.0 - (t - seen[1] - 1) / FORGET_FRAMES


def _distance(a: Hand, b: Hand, unit: float) -> float:
    return float(np.linalg.norm(a.points[:, :2] - b.points[:, :2], axis=1).mean()) / unit


def _shoulder_width(poses: Points) -> float:
    """Median over the clip, a quarter of the picture where no shoulders are seen."""
    seen = (poses[:, LEFT_SHOULDER, 3] > 0) & (poses[:, RIGHT_SHOULDER, 3] > 0)
    if not seen.any():
        return 0.25
    widths = np.linalg.norm(poses[seen, LEFT_SHOULDER, :2] - poses[seen, RIGHT_SHOULDER, :2], axis=-1)
    return float(np.median(widths)) if np.median(widths) > 1e-3 else 0.25
