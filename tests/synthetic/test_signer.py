"""Signers are the same people in every world of a seed, and differ from each other."""

import pytest

from sign_dist.synthetic.signer import make_signer


def test_a_signer_depends_on_seed_and_index_alone() -> None:
    assert make_signer(0, 3) == make_signer(0, 3)
    assert make_signer(0, 3) != make_signer(1, 3)
    assert make_signer(0, 3).name == "signer03"


def test_a_few_signers_are_diverse() -> None:
    signers = [make_signer(0, index) for index in range(8)]
    assert len({signer.skin for signer in signers}) >= 6
    assert len({signer.hair_style for signer in signers}) >= 5
    assert len({signer.shirt for signer in signers}) >= 4
    assert len({(signer.width_px, signer.height_px) for signer in signers}) >= 4
    assert len({signer.fps for signer in signers}) >= 2


def test_about_fifteen_percent_are_left_handed() -> None:
    share = sum(make_signer(seed, index).left_handed for seed in range(5) for index in range(60)) / 300
    assert 0.10 < share < 0.20


def test_frames_can_be_encoded_and_skin_stands_out() -> None:
    for index in range(40):
        signer = make_signer(2, index)
        assert signer.width_px % 2 == 0
        assert signer.height_px % 2 == 0
        assert max(abs(a - b) for a, b in zip(signer.skin, signer.shirt, strict=True)) > 40


def test_a_negative_index_is_refused() -> None:
    with pytest.raises(ValueError, match="-1"):
        make_signer(0, -1)
