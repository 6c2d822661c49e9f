"""The signs differ from each other and can all be made."""

import numpy as np
import pytest

from sign_dist.synthetic.hand import HANDSHAPES, blend, local_joints
from sign_dist.synthetic.lexicon import (
    LEXICON,
    LOCATIONS,
    ORIENTATIONS,
    Sign,
    alike,
    check_lexicon,
    inventory,
)


def test_the_lexicon_is_large_and_consistent() -> None:
    assert len(LEXICON) >= 32
    check_lexicon(LEXICON)


def test_any_two_signs_differ_in_at_least_two_parameters() -> None:
    for number, first in enumerate(LEXICON):
        for second in LEXICON[:number]:
            assert alike(first, second) <= 3, (first.gloss, second.gloss)


def test_every_value_of_the_inventory_can_be_drawn() -> None:
    values = inventory()
    assert set(values["handshape"]) <= set(HANDSHAPES)
    assert set(values["location"]) == set(LOCATIONS)
    assert set(values["orientation"]) == set(ORIENTATIONS)
    assert len(values["handshape"]) >= 8
    assert len(values["location"]) >= 7
    assert len(values["movement"]) >= 7


def test_signs_that_cannot_be_told_apart_are_refused() -> None:
    first = Sign("ONE", "B", "chest", "tap", "in")
    with pytest.raises(ValueError, match="told apart"):
        check_lexicon((first, Sign("TWO", "B", "chest", "tap", "in")))
    with pytest.raises(ValueError, match="cannot open_close"):
        check_lexicon((Sign("THREE", "B", "chest", "open_close", "in"),))
    with pytest.raises(ValueError, match="go together"):
        check_lexicon((Sign("FOUR", "B", "palm", "tap", "down"),))


def test_handshapes_differ_and_stay_within_a_hand() -> None:
    shapes = {name: local_joints(*blend(shape, shape, np.zeros(1)))[0] for name, shape in HANDSHAPES.items() if name != "rest"}
    for name, joints in shapes.items():
        assert np.linalg.norm(joints, axis=1).max() < 1.15, name
        for other, those in shapes.items():
            assert name == other or np.linalg.norm(joints - those, axis=1).max() > 0.2, (name, other)
