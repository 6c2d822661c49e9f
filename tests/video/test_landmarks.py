"""Laws of the point layout and of `normalise`; the detector itself on real clips where they are at hand."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sign_dist.errors import VideoError, WeightsError
from sign_dist.video import landmarks as lm
from sign_dist.video import model_files
from sign_dist.video.decode import read_clip
from sign_dist.video.detectors import FaceDetector, LandmarkDetector, timestamps_ms
from sign_dist.video.model_files import digest_of, find_files, landmark_roles
from sign_dist.video.people import signer_region

SHARED = Path(os.environ.get("SIGN_DIST_SHARED", Path(__file__).parents[2].parent / "shared"))
CLIPS, MODELS = SHARED / "data/videos/asl_everyday", SHARED / "models/mediapipe"
real_clips = pytest.mark.skipif(
    not (CLIPS.is_dir() and MODELS.is_dir()), reason=f"no real clips and model files under SIGN_DIST_SHARED ({SHARED})"
)


def frames_of(name: str, fps: float, max_side_px: int = 640) -> np.ndarray:
    return read_clip(CLIPS / name, fps=fps, max_side_px=max_side_px, max_seconds=30).frames


def some_points(seed: int = 0, num_frames: int = 12) -> lm.Points:
    """A signer whose shoulders stand still and whose left hand comes and goes."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(0.2, 0.8, (num_frames, lm.NUM_LANDMARKS, lm.CHANNELS)).astype(np.float32)
    points[..., 3] = 1.0
    points[:, lm.LEFT_SHOULDER, :2], points[:, lm.RIGHT_SHOULDER, :2] = (0.6, 0.5), (0.4, 0.5)
    points[3:5, lm.LEFT_HAND] = 0.0
    return points


def test_parts_cover_all_points_once() -> None:
    covered = [i for part in lm.PARTS.values() for i in range(part.start, part.stop)]
    assert covered == list(range(lm.NUM_LANDMARKS))


def test_mirror_is_its_own_inverse_and_keeps_parts() -> None:
    assert sorted(lm.MIRROR) == list(range(lm.NUM_LANDMARKS))
    assert [lm.MIRROR[i] for i in lm.MIRROR] == list(range(lm.NUM_LANDMARKS))
    assert lm.MIRROR[lm.LEFT_HAND] == tuple(range(lm.RIGHT_HAND.start, lm.RIGHT_HAND.stop))
    assert lm.MIRROR[lm.LEFT_SHOULDER] == lm.RIGHT_SHOULDER
    assert lm.MIRROR[lm.NOSE] == lm.NOSE


@settings(max_examples=25, deadline=None)
@given(st.floats(0.2, 5.0), st.floats(-3.0, 3.0), st.floats(-3.0, 3.0))
def test_normalise_ignores_where_and_how_large_the_signer_is(scale: float, dx: float, dy: float) -> None:
    points = some_points()
    moved = points.copy()
    moved[..., :3] *= scale
    moved[..., :2] += (dx, dy)
    moved[points[..., 3] == 0] = 0.0
    np.testing.assert_allclose(lm.normalise(moved), lm.normalise(points), atol=2e-4)


def test_normalise_puts_shoulders_one_unit_apart_around_the_origin() -> None:
    result = lm.normalise(some_points())
    np.testing.assert_allclose(result[:, lm.LEFT_SHOULDER, :2], [[0.5, 0.0]] * len(result), atol=1e-5)
    np.testing.assert_allclose(result[:, lm.RIGHT_SHOULDER, :2], [[-0.5, 0.0]] * len(result), atol=1e-5)


def test_normalise_fills_short_gaps_with_less_confidence_and_leaves_long_ones() -> None:
    short = lm.normalise(some_points(), max_gap=2)[:, lm.LEFT_HAND]
    assert (short[3:5, :, 3] == 0.5).all()
    np.testing.assert_allclose(short[3, :, :2], (2 * short[2, :, :2] + short[5, :, :2]) / 3, atol=1e-5)
    long = lm.normalise(some_points(), max_gap=1)[:, lm.LEFT_HAND]
    assert (long[3:5] == 0).all()


@pytest.mark.parametrize("missing", [[lm.LEFT_SHOULDER], list(range(lm.NUM_POSE))])
def test_normalise_does_without_shoulders(missing: list[int]) -> None:
    points = some_points()
    points[:, missing] = 0.0
    result = lm.normalise(points)
    assert np.isfinite(result).all()
    assert (result[:, missing] == 0).all()


def test_normalise_names_a_clip_without_a_person() -> None:
    with pytest.raises(VideoError, match="no person") as caught:
        lm.normalise(np.zeros((5, lm.NUM_LANDMARKS, 4), np.float32))
    assert caught.value.code == "no_signer"


def test_rates_count_what_was_found_and_not_what_was_filled() -> None:
    rates = lm.detection_rates(lm.normalise(some_points(), max_gap=2))
    assert rates == {"pose": 1.0, "left_hand": pytest.approx(10 / 12), "right_hand": 1.0, "face": 1.0, "hands": 1.0}
    alone = some_points()
    alone[:, lm.RIGHT_HAND] = 0.0
    alone[:, lm.FACE] = 0.0
    rates = lm.detection_rates(lm.normalise(alone, max_gap=2).astype(np.float16))
    assert (rates["right_hand"], rates["face"]) == (0.0, 0.0)
    assert rates["hands"] == rates["left_hand"] == pytest.approx(10 / 12)


def test_rates_of_nothing_are_nought_and_of_other_features_an_error() -> None:
    assert set(lm.detection_rates(np.zeros((0, lm.NUM_LANDMARKS, 4), np.float32)).values()) == {0.0}
    with pytest.raises(ValueError, match="points"):
        lm.detection_rates(np.zeros((5, 256), np.float32))


def test_missing_file_says_where_it_was_looked_for_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="SIGN_DIST_MODELS") as caught:
        find_files(landmark_roles(), tmp_path / "here", cache_dir=tmp_path / "there", download=False)
    assert str(tmp_path / "here") in str(caught.value)
    assert str(tmp_path / "there") in str(caught.value)


def test_download_keeps_only_files_with_the_pinned_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "source").write_bytes(b"weights")
    url = (tmp_path / "source").as_uri()
    digest = hashlib.sha256(b"weights").hexdigest()
    roles = landmark_roles()
    monkeypatch.setattr(model_files, "ASSETS", {role: model_files.Asset(f"{role}.task", url, digest) for role in roles})
    files = find_files(roles, cache_dir=tmp_path / "cache")
    assert files["face"].read_bytes() == b"weights"
    assert digest_of(files) != digest_of(find_files(landmark_roles(face=False), cache_dir=tmp_path / "cache"))

    monkeypatch.setitem(model_files.ASSETS, "hand", model_files.Asset("other.task", url, "0" * 64))
    with pytest.raises(WeightsError, match="sha256"):
        find_files(roles, cache_dir=tmp_path / "cache")
    assert sorted(p.name for p in (tmp_path / "cache").iterdir()) == ["face.task", "face_box.task", "hand.task", "pose.task"]


def test_timestamps_always_increase() -> None:
    for fps in (7.5, 29.97, 5000.0):
        assert (np.diff(timestamps_ms(50, fps)) > 0).all()


@pytest.mark.long
@real_clips
def test_detector_finds_a_real_signer_and_repeats_itself(capfd: pytest.CaptureFixture[str]) -> None:
    frames = frames_of("help/help_s3_1.mp4", 7.5)
    detector = LandmarkDetector(find_files(landmark_roles(), MODELS, download=False))
    first = detector(frames, 7.5)
    assert first.shape == (len(frames), lm.NUM_LANDMARKS, lm.CHANNELS)
    assert (detector(frames, 7.5) == first).all()
    points = lm.normalise(first)
    found = {name: float((points[:, part, 3] > 0).any(1).mean()) for name, part in lm.PARTS.items()}
    assert found["pose"] == 1.0
    assert found["face"] > 0.8
    assert max(found["left_hand"], found["right_hand"]) > 0.6
    assert points[:, lm.LEFT_SHOULDER, 0].mean() > points[:, lm.RIGHT_SHOULDER, 0].mean()  # the signer's left
    assert capfd.readouterr().err == ""


@pytest.mark.long
@real_clips
def test_of_two_people_side_by_side_the_one_who_signs_is_followed() -> None:
    signing, still = frames_of("help/help_s3_1.mp4", 15), frames_of("dad/dad_s1_1.mp4", 15)[:1]
    both = [signing, np.repeat(still, len(signing), axis=0)]
    detector = LandmarkDetector(find_files(landmark_roles(face=False), MODELS, download=False))
    for order in (both, both[::-1]):
        left = order[0] is signing
        height = min(f.shape[1] for f in order)
        frames = np.concatenate([f[:, :height] for f in order], axis=2)
        width, place = max(frames.shape[1:3]), 0 if left else order[0].shape[2]
        points = detector(frames, 15.0)
        nose = points[points[:, lm.NOSE, 3] > 0, lm.NOSE, 0] * width
        assert len(nose) == len(frames)
        assert ((place < nose) & (nose < place + signing.shape[2])).all()
        hands = points[:, lm.LEFT_HAND.start : lm.RIGHT_HAND.stop]
        seen = hands[hands[..., 3] > 0][:, 0] * width
        assert len(seen)
        assert ((place - 10 < seen) & (seen < place + signing.shape[2] + 10)).all()
        alone = lm.detection_rates(lm.normalise(detector(signing[:, :height], 15.0)))
        assert lm.detection_rates(lm.normalise(points))["hands"] >= alone["hands"] - 0.2


@pytest.mark.long
@real_clips
def test_the_largest_of_two_people_can_be_asked_for() -> None:
    signing = frames_of("help/help_s3_1.mp4", 8)
    small = np.repeat(frames_of("dad/dad_s1_1.mp4", 8, 640)[:1], len(signing), axis=0)
    small = np.pad(small, ((0, 0), (0, signing.shape[1] - small.shape[1]), (0, 0), (0, 0)))
    faces = FaceDetector(MODELS / "blaze_face_short_range.tflite")
    for order in ([small, signing], [signing, small]):
        frames = np.concatenate(order, axis=2)
        (first, second) = faces(frames[:1])[0]
        left, _, right, _ = signer_region(frames, faces, person="largest")
        middle = (first[0] + first[2] + second[0] + second[2]) / 4
        first_is_larger = first[2] - first[0] > second[2] - second[0]
        assert (left, right) == (
            (0, pytest.approx(middle, abs=25)) if first_is_larger else (pytest.approx(middle, abs=25), frames.shape[2])
        )


@pytest.mark.long
@real_clips
def test_detector_reports_nothing_where_nobody_is() -> None:
    detector = LandmarkDetector(find_files(landmark_roles(face=False), MODELS, download=False))
    points = detector(np.full((3, 120, 160, 3), 90, np.uint8), 30.0)
    assert (points == 0).all()
    with pytest.raises(ValueError, match="uint8"):
        detector(np.zeros((2, 8, 8, 3), np.float32), 30.0)  # type: ignore[arg-type]
