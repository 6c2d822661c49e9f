"""Pictures: the right size and type, equal for equal motions, with hands where the joints are."""

import numpy as np
import pytest

from sign_dist.synthetic.lexicon import LEXICON
from sign_dist.synthetic.motion import clip_rng, make_motion
from sign_dist.synthetic.render import SUPERSAMPLING, Renderer, renderer
from sign_dist.synthetic.signer import make_signer
from sign_dist.synthetic.solid import SolidLayer


def clip(index: int, sign_index: int, repetition: int = 0) -> tuple:
    signer, sign = make_signer(0, index), LEXICON[sign_index]
    return signer, make_motion(sign, signer, clip_rng(0, signer, sign, repetition))


@pytest.mark.parametrize("index", [0, 1, 2, 3])
def test_frames_are_rgb_bytes_of_the_signer_size(index: int) -> None:
    signer, motion = clip(index, index)
    frame = renderer(signer).frame(motion, motion.num_frames // 2)
    assert frame.shape == (signer.height_px, signer.width_px, 3)
    assert frame.dtype == np.uint8
    assert frame.std() > 20


def test_a_frame_does_not_depend_on_what_was_drawn_before() -> None:
    signer, motion = clip(0, 0)
    at = motion.stroke[0]
    fresh = Renderer(signer).frame(motion, at)
    used = Renderer(signer)
    for index in (0, at + 3, motion.num_frames - 1):
        used.frame(motion, index)
    np.testing.assert_array_equal(used.frame(motion, at), fresh)


def test_the_picture_moves() -> None:
    signer, motion = clip(1, 0)
    draw = renderer(signer)
    rest, stroke = (draw.frame(motion, at).astype(int) for at in (0, sum(motion.stroke) // 2))
    assert (np.abs(rest - stroke).max(axis=2) > 30).mean() > 0.05


@pytest.mark.long
def test_signing_hands_are_inside_the_picture_and_have_the_colour_of_skin() -> None:
    inside = []
    for index in range(8):
        for sign_index in range(index % 4, len(LEXICON), 4):
            signer, motion = clip(index, sign_index)
            draw = renderer(signer)
            strong = 1 if signer.left_handed else 0
            for at in range(*motion.stroke, 9):
                points = np.array([draw.project(joint)[0][:2] for joint in motion.hands[at, strong]]) / SUPERSAMPLING
                inside.append(((points >= 0) & (points < [signer.width_px, signer.height_px])).all(axis=1))
    assert np.mean(inside) > 0.97

    signer, motion = clip(0, 0)
    at = sum(motion.stroke) // 2
    strong = 1 if signer.left_handed else 0
    x, y = (int(v / SUPERSAMPLING) for v in renderer(signer).project(motion.hands[at, strong, 9])[0][:2])
    colour = renderer(signer).frame(motion, at)[y, x].astype(int)
    assert np.abs(colour - signer.skin).max() < 110
    assert colour[0] > colour[2]


def test_nearer_solids_cover_farther_ones() -> None:
    layer = SolidLayer(40, 40)
    layer.cone((10.0, 20.0, 5.0), (30.0, 20.0, 5.0), 4.0, 4.0, base=101, span=50)
    layer.cone((20.0, 10.0, 0.0), (20.0, 30.0, 0.0), 4.0, 4.0, base=1, span=50)
    assert layer.tone[20, 20] >= 101
    assert 0 < layer.tone[12, 20] < 101
    assert layer.tone[2, 2] == 0
    layer.cone((-50.0, -50.0, 0.0), (-40.0, -50.0, 0.0), 4.0, 4.0, base=1, span=50)  # outside: nothing happens
    layer.clear()
    assert not layer.tone.any()
