"""Laws of the augmentations: shape, range, absence and determinism."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sign_dist.video import transform
from sign_dist.video.landmarks import FACE, LEFT_HAND, NUM_LANDMARKS, RIGHT_HAND, Points


def clip(num_frames: int = 20, seed: int = 0) -> Points:
    rng = np.random.default_rng(seed)
    points = rng.normal(0, 1, (num_frames, NUM_LANDMARKS, 4)).astype(np.float32)
    points[..., 3] = rng.uniform(0.2, 1.0, points.shape[:2])
    points[: num_frames // 2, LEFT_HAND] = 0.0
    return points


def frames(num_frames: int = 6, height: int = 20, width: int = 30) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8)


def test_mirror_twice_is_the_clip_itself() -> None:
    points = clip()
    assert (transform.mirror(transform.mirror(points)) == points).all()
    assert (transform.mirror(points)[:, RIGHT_HAND, 1:] == points[:, LEFT_HAND, 1:]).all()


def test_resample_keeps_ends_and_identity() -> None:
    points = clip()
    np.testing.assert_allclose(transform.resample(points, len(points)), points, atol=1e-6)
    longer = transform.resample(points, 33)
    assert len(longer) == 33
    np.testing.assert_allclose(longer[[0, -1]], points[[0, -1]], atol=1e-6)


def test_resample_never_mixes_an_absent_point_with_a_found_one() -> None:
    points = clip()
    longer = transform.resample(points, 57)[:, LEFT_HAND]
    sizes = np.abs(points[len(points) // 2, LEFT_HAND]).sum()
    first = longer[(longer[..., 3] > 0).any(1)][0]
    assert np.abs(first).sum() == pytest.approx(sizes, rel=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 40))
def test_augmented_clips_are_finite_of_one_shape_and_follow_from_the_generator(seed: int, num_frames: int) -> None:
    points = clip(num_frames)
    before = points.copy()
    one = transform.augment_landmarks(points, np.random.default_rng(seed))
    two = transform.augment_landmarks(points, np.random.default_rng(seed))
    assert one.shape[0] >= 1
    assert one.shape[1:] == points.shape[1:]
    assert one.dtype == np.float32
    assert np.isfinite(one).all()
    assert (one == two).all()
    assert (points == before).all()
    assert (one[one[..., 3] <= 0] == 0).all()


def test_all_strengths_zero_changes_nothing() -> None:
    points = clip()
    still = transform.augment_landmarks(
        points, np.random.default_rng(0), mirror_probability=0, speed=0, crop=0, frame_drop=0, rotate_deg=0, scale=0,
        shear=0, shift=0, hand_rotate_deg=0, hand_scale=0, hand_shift=0, face_dropout=0, hand_dropout=0, noise=0,
    )  # fmt: skip
    np.testing.assert_allclose(still, points, atol=1e-5)


def test_change_speed_stays_within_its_factor_and_never_turns_back() -> None:
    points = np.zeros((40, NUM_LANDMARKS, 4), np.float32)
    points[..., 3] = 1.0
    points[..., 0] = np.arange(40, dtype=np.float32)[:, None]
    for seed in range(50):
        changed = transform.change_speed(points, np.random.default_rng(seed), 0.5)
        assert 40 / 1.5 - 1 <= len(changed) <= 40 * 1.5 + 1
        assert (np.diff(changed[:, 0, 0]) >= 0).all()


def test_crop_leaves_a_contiguous_part_of_enough_steps() -> None:
    points = clip(30)
    for seed in range(30):
        cropped = transform.crop_time(points, np.random.default_rng(seed), 0.9, min_steps=8)
        starts = [i for i in range(30 - len(cropped) + 1) if (points[i : i + len(cropped)] == cropped).all()]
        assert len(cropped) >= 8
        assert starts


def test_dropped_parts_are_wholly_absent() -> None:
    gone = transform.drop_parts(clip(), np.random.default_rng(0), face=1.0, hand=0.0)
    assert (gone[:, FACE] == 0).all()
    assert (gone[:, RIGHT_HAND] == clip()[:, RIGHT_HAND]).all()


@pytest.mark.parametrize("size", [(10, 15), (40, 60), (20, 30)])
def test_resized_frames_have_the_size_asked_for(size: tuple[int, int]) -> None:
    assert transform.resize_frames(frames(), *size).shape == (6, *size, 3)
    grey = np.full((2, 20, 30, 3), 77, np.uint8)
    assert (transform.resize_frames(grey, *size) == 77).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12))
def test_augmented_frames_keep_size_and_type_and_follow_from_the_generator(seed: int, num_frames: int) -> None:
    make: Callable[[], np.ndarray] = lambda: transform.augment_frames(  # noqa: E731
        frames(num_frames), np.random.default_rng(seed), mirror_probability=0.5
    )
    one = make()
    assert one.shape[0] >= 1
    assert one.shape[1:] == (20, 30, 3)
    assert one.dtype == np.uint8
    assert (one == make()).all()


def test_colour_changes_are_the_same_for_all_frames() -> None:
    same = np.repeat(frames(1), 5, axis=0)
    changed = transform.augment_frames(same, np.random.default_rng(3), speed=0.0, crop=0.0, frame_drop=0.0)
    assert (changed == changed[:1]).all()
    assert (changed != same).any()
