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

SHARED = Path(os.environ.get("SIGN_DIST_SHARED", Path(__file__).parents[2].parent / "shared"))
CLIPS, MODELS = SHARED / "data/videos/asl_everyday", SHARED / "models/mediapipe"
real_clips = pytest.mark.skipif(
    not (CLIPS.is_dir() and MODELS.is_dir()), reason=f"no real clips and model files under SIGN_DIST_SHARED ({SHARED})"
)


def some_points(seed: int = 0, num_frames: int = 12) -> lm.Points:
    """A signer whose shoulders stand still and whose left hand comes and goes."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(0.2, 0.8, (num_frames, lm.NUM_LANDMARKS, lm.CHANNELS)).astype(np.float32)
    points[..., 3] = 1.0
    points[:, lm.LEFT_SHOULDER, :2], points[:, lm.RIGHT_SHOULDER, :2] = (0.6, 0.5), (0.4, 0.5)
    points[3:5, lm.LEFT_HAND] = 0.0
    return points


def hand_at(x: float, y: float, label: str) -> lm._Hand:
    return lm._Hand(np.full((lm.NUM_HAND, 3), (x, y, 0.0), np.float32), label)  # type: ignore[arg-type]


def body() -> np.ndarray:
    pose = np.zeros((lm.NUM_POSE, 4), np.float32)
    pose[:, 3] = 1.0
    pose[lm.LEFT_SHOULDER, :2], pose[lm.RIGHT_SHOULDER, :2] = (0.6, 0.5), (0.4, 0.5)
    pose[lm.LEFT_WRIST, :2], pose[lm.RIGHT_WRIST, :2] = (0.65, 0.8), (0.35, 0.8)
    return pose


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


def test_hands_go_to_the_nearer_wrist_whatever_their_label_says() -> None:
    left, right = hand_at(0.66, 0.8, "right"), hand_at(0.36, 0.8, "left")
    for order in ([left, right], [right, left]):
        found = lm.assign_hands(order, body(), {})
        assert found["left"] is left
        assert found["right"] is right
    assert list(lm.assign_hands([right], body(), {})) == ["right"]


def test_a_hand_between_both_wrists_keeps_the_side_it_was_seen_on() -> None:
    last = {"left": np.array([0.5, 0.8], np.float32), "right": np.array([0.1, 0.1], np.float32)}
    assert list(lm.assign_hands([hand_at(0.5, 0.8, "right")], body(), last)) == ["left"]


def test_without_a_body_the_label_decides() -> None:
    absent = np.zeros((lm.NUM_POSE, 4), np.float32)
    assert list(lm.assign_hands([hand_at(0.5, 0.5, "left")], absent, {})) == ["left"]
    assert list(lm.assign_hands([hand_at(0.5, 0.5, "right")], absent, {})) == ["right"]


def test_one_hand_found_twice_counts_once() -> None:
    twice = [hand_at(0.36, 0.8, "right"), hand_at(0.365, 0.8, "left")]
    assert list(lm.assign_hands(twice, body(), {})) == ["right"]


def test_the_label_decides_where_the_pose_does_not_see_the_wrists() -> None:
    unsure = body()
    unsure[[lm.LEFT_WRIST, lm.RIGHT_WRIST], 3] = 0.1
    assert list(lm.assign_hands([hand_at(0.55, 0.7, "right")], unsure, {})) == ["right"]


def test_missing_file_says_where_it_was_looked_for_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="SIGN_DIST_MODELS") as caught:
        lm.find_files(tmp_path / "here", cache_dir=tmp_path / "there", download=False)
    assert str(tmp_path / "here") in str(caught.value)
    assert str(tmp_path / "there") in str(caught.value)


def test_download_keeps_only_files_with_the_pinned_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "source").write_bytes(b"weights")
    url = (tmp_path / "source").as_uri()
    digest = hashlib.sha256(b"weights").hexdigest()
    monkeypatch.setattr(lm, "ASSETS", {part: lm.Asset(f"{part}.task", url, digest) for part in ("pose", "hand", "face")})
    files = lm.find_files(cache_dir=tmp_path / "cache")
    assert files.face is not None
    assert files.face.read_bytes() == b"weights"
    assert files.files_digest != lm.find_files(cache_dir=tmp_path / "cache", face=False).files_digest

    monkeypatch.setitem(lm.ASSETS, "hand", lm.Asset("other.task", url, "0" * 64))
    with pytest.raises(WeightsError, match="sha256"):
        lm.find_files(cache_dir=tmp_path / "cache")
    assert sorted(p.name for p in (tmp_path / "cache").iterdir()) == ["face.task", "hand.task", "pose.task"]


def test_timestamps_always_increase() -> None:
    for fps in (7.5, 29.97, 5000.0):
        assert (np.diff(lm._timestamps_ms(50, fps)) > 0).all()


@real_clips
def test_detector_finds_a_real_signer_and_repeats_itself(capfd: pytest.CaptureFixture[str]) -> None:
    decord = pytest.importorskip("decord")
    reader = decord.VideoReader(str(CLIPS / "help/help_s3_1.mp4"), num_threads=1)
    frames = reader.get_batch(range(0, len(reader), 4)).asnumpy()
    detector = lm.LandmarkDetector(lm.find_files(MODELS, download=False))
    first = detector(frames, 7.5)
    assert first.shape == (len(frames), lm.NUM_LANDMARKS, lm.CHANNELS)
    assert (detector(frames, 7.5) == first).all()
    points = lm.normalise(first)
    found = {name: float((points[:, part, 3] > 0).any(1).mean()) for name, part in lm.PARTS.items()}
    assert found["pose"] == 1.0
    assert found["face"] > 0.8
    assert max(found["left_hand"], found["right_hand"]) > 0.6
    assert points[:, lm.LEFT_SHOULDER, 0].mean() > points[:, lm.RIGHT_SHOULDER, 0].mean()  # the signer's left
    assert "W0000" not in capfd.readouterr().err


@real_clips
def test_detector_reports_nothing_where_nobody_is() -> None:
    detector = lm.LandmarkDetector(lm.find_files(MODELS, face=False, download=False))
    points = detector(np.full((3, 120, 160, 3), 90, np.uint8), 30.0)
    assert (points == 0).all()
    with pytest.raises(ValueError, match="uint8"):
        detector(np.zeros((2, 8, 8, 3), np.float32), 30.0)  # type: ignore[arg-type]
