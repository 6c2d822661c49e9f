"""WLASL's view of a clip: laws of its sizes, and that the crop is the middle."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sign_dist.video.wlasl_view import centre_corner, loader_size, wlasl_view

SIDE = st.integers(1, 2000)


@given(SIDE, SIDE, st.booleans())
def test_sizes_leave_room_for_the_crop_and_keep_the_ratio_when_testing(height: int, width: int, train: bool) -> None:
    found = loader_size(height, width, train=train)
    assert min(found) >= 226
    assert centre_corner(*found) >= (1, 1)
    if train:
        assert max(found) <= 256 or max(height, width) <= 256
    elif min(height, width) >= 226:
        assert found == (height, width)
    else:
        assert min(found) == 226
        assert max(found) / 226 == pytest.approx(max(height, width) / min(height, width), abs=1 / 226)
    assert loader_size(width, height, train=train) == found[::-1]


def test_the_view_is_the_middle_of_every_frame() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 240, 320, 3), dtype=np.uint8)
    np.testing.assert_array_equal(wlasl_view(frames), frames[:, 8:232, 48:272])
    small = np.zeros((3, 113, 226, 3), np.uint8)
    small[:, :, 113:] = 200
    view = wlasl_view(small)
    assert view.shape == (3, 224, 224, 3)
    assert (view[:, :, :110] == 0).all()
    assert (view[:, :, 114:] == 200).all()
    assert wlasl_view(np.zeros((2, 480, 640, 3), np.uint8), train=True).shape == (2, 224, 224, 3)
    assert wlasl_view(np.zeros((0, 100, 100, 3), np.uint8)).shape == (0, 224, 224, 3)


def test_pictures_without_pixels_and_crops_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="height=0 width=5"):
        loader_size(0, 5, train=False)
    with pytest.raises(ValueError, match="224 px or more"):
        centre_corner(223, 300)
