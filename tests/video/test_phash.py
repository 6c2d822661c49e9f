"""Signatures of clips: what a copy keeps, what another take does not, and that the search loses no pair."""

import itertools

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sign_dist.errors import VideoError
from sign_dist.video import phash
from sign_dist.video.phash import MIN_ROWS, RATE_HZ, SAME, WIDTH, clip_signature, distance, find_matches, frames_signature


def performance(take: int, *, wall: int = 0, num_frames: int = 60, size: tuple[int, int] = (96, 128)) -> np.ndarray:
    """Frames (T, H, W, 3) of two light hands on ways of their own before a wall with a pattern."""
    rng, (height, width) = np.random.default_rng([take, 7]), size
    background = cv2.resize(np.random.default_rng(wall).integers(40, 160, (6, 8, 3), np.uint8), (width, height))
    knots = rng.uniform(0.15, 0.85, (2, 7, 2))
    frames = np.repeat(background[None], num_frames, axis=0)
    for t, hand in itertools.product(range(num_frames), range(2)):
        place = t / (num_frames - 1) * 6
        x, y = (np.interp(place, range(7), knots[hand, :, k]) * (width, height)[k] for k in (0, 1))
        cv2.circle(frames[t], (round(x), round(y)), width // 12, (230, 200, 190), -1)
    return frames


@pytest.fixture(scope="module")
def originals() -> list[np.ndarray]:
    """Eight takes before two walls."""
    return [performance(take, wall=take % 2) for take in range(8)]


def test_a_signature_has_a_row_for_each_thirtieth_of_a_second_whatever_the_rate() -> None:
    frames = performance(0)
    for fps in (12.0, 25.0, 30.0, 60.0):
        signature = frames_signature(frames, fps)
        assert signature.shape == (int((len(frames) - 1) / fps * RATE_HZ + 1e-6) + 1, WIDTH)
        assert signature.dtype == np.float16


@given(st.integers(0, 20), st.floats(-40, 40))
def test_brightness_does_not_count_and_mirroring_is_a_change_of_signs(take: int, lighter: float) -> None:
    frames = np.clip(performance(take, num_frames=14), 41, 214)
    signature = frames_signature(frames, 30).astype(np.float32)
    brighter = frames_signature((frames.astype(np.int16) + round(lighter)).astype(np.uint8), 30)
    np.testing.assert_allclose(brighter, signature, atol=12)  # rounding to grey levels
    mirrored = frames_signature(frames[:, :, ::-1], 30)
    np.testing.assert_allclose(mirrored.astype(np.float32), signature * phash.MIRROR, atol=12)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["same", "mirror", "scale", "trim_start", "trim_end", "thin", "noise", "all"])
def test_a_copy_is_found_and_another_take_is_not(kind: str, originals: list[np.ndarray]) -> None:
    rng = np.random.default_rng(0)
    copies = originals
    fps = 30.0
    if kind in ("mirror", "all"):
        copies = [c[:, :, ::-1] for c in copies]
    if kind in ("trim_start", "all"):
        copies = [c[15:] for c in copies]
    if kind == "trim_end":
        copies = [c[:-15] for c in copies]
    if kind in ("thin", "all"):
        copies, fps = [c[::2] for c in copies], 15.0
    if kind in ("scale", "all"):
        copies = [
            np.stack([cv2.resize(np.ascontiguousarray(f), (56, 40), interpolation=cv2.INTER_AREA) for f in c]) for c in copies
        ]
    if kind in ("noise", "all"):
        copies = [np.clip(c + rng.normal(0, 4, c.shape), 0, 255).astype(np.uint8) for c in copies]
    signatures = [frames_signature(c, 30.0) for c in originals] + [frames_signature(c, fps) for c in copies]
    matches = find_matches(signatures)
    assert {(m.first, m.second) for m in matches} == {(i, i + 8) for i in range(8)}
    assert all(m.distance <= SAME and m.mirrored == (kind in ("mirror", "all")) for m in matches)
    want = 15 if kind in ("trim_start", "all") else 0
    assert all(abs(m.offset - want) <= 2 for m in matches), "row r of the copy is row r + offset of the original"


@pytest.mark.long
def test_the_search_finds_what_comparing_every_pair_finds(originals: list[np.ndarray]) -> None:
    frames = [*originals, originals[2][10:50], originals[5][:, :, ::-1][5:], *(performance(take) for take in range(20, 26))]
    signatures = [frames_signature(f, 30) for f in frames]
    pairs = set()
    for i, j in itertools.combinations(range(len(signatures)), 2):
        for sign in (np.ones(WIDTH, np.float32), phash.MIRROR):
            if distance(signatures[i], signatures[j] * sign, offset=0, around=60)[0] <= SAME:
                pairs.add((i, j))
    assert {(m.first, m.second) for m in find_matches(signatures)} == pairs == {(2, 8), (5, 9)}


def test_distance_says_where_and_needs_an_overlap(originals: list[np.ndarray]) -> None:
    whole = frames_signature(originals[0], 30)
    assert distance(whole, whole, offset=0) == (0.0, 0)
    for first, second, sign in ((whole, whole[12:], 1), (whole[12:], whole, -1)):
        apart, offset = distance(first, second, offset=10 * sign, around=4)
        assert apart == 0.0
        assert abs(offset - 12 * sign) <= phash.SLACK
    assert distance(whole, whole, offset=40)[0] == np.inf
    assert distance(whole, frames_signature(originals[2], 30), offset=0, around=9)[0] > 10 * SAME


def test_short_and_few_clips_match_nothing(originals: list[np.ndarray]) -> None:
    whole = frames_signature(originals[0], 30)
    assert find_matches([]) == find_matches([whole]) == []
    assert find_matches([whole, whole[: MIN_ROWS - 1]]) == []
    assert len(find_matches([whole[:MIN_ROWS]] * 3)) == 3


def test_a_still_picture_matches_itself_only() -> None:
    stills = [np.repeat(performance(take, wall=take)[:1], 20, axis=0) for take in range(3)]
    signatures = [frames_signature(f, 30) for f in [*stills, stills[1]]]
    assert [(m.first, m.second) for m in find_matches(signatures)] == [(1, 3)]


def test_a_file_that_is_none_is_said(tmp_path) -> None:
    with pytest.raises(VideoError, match="no file"):
        clip_signature(tmp_path / "none.mp4")
