"""Which frames of a clip are taken, and that a training clip's pictures change alike."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sign_dist.config.data import FrameFeatures
from sign_dist.features.encode import NO_FILES, spec_for
from sign_dist.video.frames import by_motion, spread
from sign_dist.video.transform import augment_frames


def square_at(places: list[int]) -> np.ndarray:
    """A bright square on grey at each of these columns."""
    frames = np.full((len(places), 64, 64, 3), 90, np.uint8)
    for frame, place in zip(frames, places, strict=True):
        frame[24:40, place : place + 16] = 255
    return frames


def test_frames_by_motion_stand_where_something_moves() -> None:
    """Still for 20 frames, moving for 8, still for 20: six of eight frames are of the eight."""
    places = [0] * 20 + [4, 8, 12, 16, 20, 24, 28, 32] + [32] * 20
    frames = square_at(places)
    seen = [int(np.argmax(frame[30, :, 0] == 255)) for frame in by_motion(frames, 8)]
    assert seen == sorted(seen)
    assert seen[0] == 0
    assert seen[-1] == 32
    assert len(set(seen)) == 8
    assert len({int(np.argmax(frame[30, :, 0] == 255)) for frame in spread(frames, 8)}) <= 4


@given(st.integers(1, 40), st.integers(1, 16))
@settings(max_examples=15, deadline=None)
def test_of_a_still_clip_they_are_spread_evenly(num_frames: int, wanted: int) -> None:
    frames = np.full((num_frames, 32, 32, 3), 7, np.uint8)
    frames[:, 0, 0, 0] = np.arange(num_frames)  # too little for motion
    assert np.array_equal(by_motion(frames, wanted), spread(frames, wanted))


def test_the_camera_s_noise_is_no_motion() -> None:
    rng = np.random.default_rng(0)
    frames = square_at([0] * 30 + [16, 32] + [32] * 30)
    noisy = (frames.astype(int) + rng.integers(-6, 7, frames.shape)).clip(0, 255).astype(np.uint8)
    seen = [int(np.argmax(frame[30, :, 0] > 200)) for frame in by_motion(noisy, 5)]
    assert 16 in seen


def test_even_frames_keep_the_name_of_their_features() -> None:
    """Adding the setting made nobody extract again."""
    assert spec_for(FrameFeatures(), NO_FILES).name == "frames-6ddc82ca"
    assert spec_for(FrameFeatures(pick="motion"), NO_FILES).name != "frames-6ddc82ca"


@pytest.mark.parametrize("seed", range(8))
def test_colour_and_place_change_alike_in_all_frames_of_a_clip(seed: int) -> None:
    """Of equal frames come equal frames; of another seed others."""
    rng = np.random.default_rng(99)
    frame = rng.integers(0, 256, (48, 48, 3), dtype=np.uint8)
    clip = np.repeat(frame[None], 6, axis=0)
    changed = augment_frames(clip, np.random.default_rng(seed), mirror_probability=0.5, zoom=0.3, brightness=0.3, contrast=0.3)
    assert all(np.array_equal(each, changed[0]) for each in changed)
    assert not np.array_equal(changed[0], frame)
    other = augment_frames(clip, np.random.default_rng(seed + 100), zoom=0.3, brightness=0.3, contrast=0.3)
    assert not np.array_equal(other[0], changed[0])
