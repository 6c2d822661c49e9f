"""Sides of hands over a clip: laws on signers who are drawn, not filmed."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sign_dist.video import landmarks as lm
from sign_dist.video.hand_sides import Hand, Side, assign_sides, is_face

OTHER: dict[Side, Side] = {"left": "right", "right": "left"}


def hand_at(x: float, y: float, label: Side) -> Hand:
    """A hand 0.1 wide."""
    rng = np.random.default_rng(0)
    points = np.zeros((lm.NUM_HAND, 3), np.float32)
    points[:, :2] = np.array((x, y)) + rng.uniform(-0.05, 0.05, (lm.NUM_HAND, 2))
    points[lm.HAND_WRIST, :2] = (x, y)
    return Hand(points, label)


def body(surety: float = 1.0, num_frames: int = 1) -> lm.Points:
    """Someone 0.2 wide at the shoulders whose wrists hang at (0.65, 0.8) and (0.35, 0.8)."""
    pose = np.zeros((num_frames, lm.NUM_POSE, 4), np.float32)
    pose[..., 3] = 1.0
    pose[:, lm.NOSE, :2] = (0.5, 0.3)
    pose[:, lm.LEFT_SHOULDER, :2], pose[:, lm.RIGHT_SHOULDER, :2] = (0.6, 0.5), (0.4, 0.5)
    pose[:, lm.LEFT_WRIST, :2], pose[:, lm.RIGHT_WRIST, :2] = (0.65, 0.8), (0.35, 0.8)
    pose[:, [lm.LEFT_WRIST, lm.RIGHT_WRIST], 3] = surety
    return pose


def signing(num_frames: int) -> list[list[Hand]]:
    """Two hands that move up and down, rightly named."""
    heights = 0.75 + 0.05 * np.sin(np.arange(num_frames) / 3)
    return [[hand_at(0.65, y, "left"), hand_at(0.35, 1.5 - y, "right")] for y in heights]


def renamed(hands: list[Hand]) -> list[Hand]:
    return [Hand(hand.points, OTHER[hand.label]) for hand in hands]


def alone(hands: list[Hand], pose: Any = None) -> dict[Side, Hand]:
    return assign_sides([hands], body() if pose is None else pose)[0]


def test_hands_go_to_the_nearer_wrist_whatever_their_label_says() -> None:
    left, right = hand_at(0.66, 0.8, "right"), hand_at(0.36, 0.8, "left")
    for order in ([left, right], [right, left]):
        found = alone(order)
        assert found["left"] is left
        assert found["right"] is right
    assert list(alone([right])) == ["right"]


@given(st.integers(1, 25), st.booleans())
def test_with_sure_wrists_names_do_not_matter(num_frames: int, reverse: bool) -> None:
    true = signing(num_frames)
    given_hands = [renamed(frame)[:: -1 if reverse else 1] for frame in true]
    found = assign_sides(given_hands, body(num_frames=num_frames))
    for sides, frame in zip(found, true, strict=True):
        assert {side: hand.points[0, 0] for side, hand in sides.items()} == {hand.label: hand.points[0, 0] for hand in frame}


@given(st.integers(0, 27), st.integers(1, 5), st.floats(0.0, 1.0))
def test_frames_with_swapped_names_in_the_middle_are_mended(start: int, length: int, surety: float) -> None:
    true = signing(30)
    swapped = [renamed(frame) if start <= t < start + length else frame for t, frame in enumerate(true)]
    found = assign_sides(swapped, body(surety, 30))
    assert all(sides["left"].points[0, 0] > 0.5 > sides["right"].points[0, 0] for sides in found)


@given(st.integers(1, 40), st.sampled_from(["left", "right"]))
def test_one_hand_with_one_name_keeps_it_where_the_body_is_not_seen(num_frames: int, label: Side) -> None:
    hands = [[hand_at(0.5 + 0.002 * t, 0.6, label)] for t in range(num_frames)]
    found = assign_sides(hands, np.zeros((num_frames, lm.NUM_POSE, 4), np.float32))
    assert [list(sides) for sides in found] == [[label]] * num_frames


def test_a_hand_between_the_wrists_stays_on_the_side_of_most_of_its_frames() -> None:
    names: list[Side] = ["left"] * 4 + ["right"] * 2 + ["left"] * 6
    found = assign_sides([[hand_at(0.5, 0.6, name)] for name in names], body(0.2, len(names)))
    assert {side for sides in found for side in sides} == {"left"}


def test_a_hand_comes_back_on_its_side_after_it_was_hidden() -> None:
    true = signing(20)
    hands = [[] if 8 <= t < 12 else renamed(frame) if t == 12 else frame for t, frame in enumerate(true)]
    found = assign_sides(hands, body(0.1, 20))
    assert found[9] == {}
    assert found[12]["left"].points[0, 0] > 0.5


@given(st.lists(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.sampled_from(["left", "right"])), max_size=2), max_size=12))
def test_every_hand_is_used_at_most_once_and_no_other_is_made(frames: list[list[tuple[float, float, Side]]]) -> None:
    hands = [[hand_at(*hand) for hand in frame] for frame in frames]
    found = assign_sides(hands, body(num_frames=len(frames)))
    assert len(found) == len(hands)
    for sides, frame in zip(found, hands, strict=True):
        assert len({id(hand) for hand in sides.values()}) == len(sides)
        assert all(any(hand is other for other in frame) for hand in sides.values())


def test_one_hand_found_twice_counts_once() -> None:
    twice = [hand_at(0.36, 0.8, "right"), hand_at(0.365, 0.8, "left")]
    assert list(alone(twice)) == ["right"]


def test_the_label_decides_where_the_pose_does_not_see_the_wrists() -> None:
    assert list(alone([hand_at(0.55, 0.7, "right")], body(0.1))) == ["right"]


def test_a_face_taken_for_a_hand_is_left_out_and_a_hand_at_the_face_is_not() -> None:
    assert alone([hand_at(0.5, 0.3, "left")]) == {}
    touching = body()
    touching[:, lm.RIGHT_WRIST, :2] = (0.48, 0.38)
    assert list(alone([hand_at(0.5, 0.32, "right")], touching)) == ["right"]
    unseen = body()
    unseen[:, lm.NOSE, 3] = 0.2
    assert not is_face(hand_at(0.5, 0.3, "left"), unseen[0], 0.2)


def test_poses_of_another_length_are_an_error() -> None:
    with pytest.raises(ValueError):
        assign_sides(signing(3), body(num_frames=2))
