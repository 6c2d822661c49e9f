"""Landmark tracks in place of videos: what is taken of them, and each reason that one is refused for."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sign_dist.config.data import FrameFeatures, Glosses, LandmarkFeatures, Sampling, SignHieraFeatures
from sign_dist.data.layout import DatasetDir
from sign_dist.data.manifest import read_manifest
from sign_dist.data.prepare import prepare
from sign_dist.data.vocab import Vocab
from sign_dist.errors import VideoError
from sign_dist.features.encode import NO_FILES, build_encoder, decode_row, encode_clip, encode_row
from sign_dist.features.store import unpack
from sign_dist.synthetic.sentences import write_sentences
from sign_dist.synthetic.takes import Cast
from sign_dist.video.check import MIN_FRAMES, REASONS, check_clip, digest_of
from sign_dist.video.decode import probe, read_clip, read_frames
from sign_dist.video.landmarks import FACE, NUM_LANDMARKS
from sign_dist.video.phash import clip_signature
from sign_dist.video.tracks import FARTHEST, is_track, read_track


def points(num_frames: int = 30, dtype: str = "float16") -> np.ndarray:
    """A track whose every point says in x which frame it belongs to."""
    made = np.ones((num_frames, NUM_LANDMARKS, 4), dtype)
    made[..., 0] = np.arange(num_frames)[:, None] / 32
    return made


def saved(path: Path, array: Any) -> Path:
    np.save(path, array)
    return path


def numbers(track: np.ndarray) -> list[int]:
    return (track[:, 0, 0] * 32).round().astype(int).tolist()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
def test_a_track_is_read_as_it_was_written(tmp_path: Path, dtype: str) -> None:
    path = saved(tmp_path / "a.NPY.npy", points(20, dtype))
    track = read_track(path, Sampling(fps=25, image_fps=25))
    assert (track.points.dtype, track.fps, len(track), track.num_source) == (np.float32, 25.0, 20, 20)
    np.testing.assert_array_equal(track.points, points(20, "float32"))
    checked = check_clip(path)
    assert (checked.reason, checked.num_frames, checked.fps, checked.sha256) == ("", 20, 25.0, digest_of(path))


@given(num=st.integers(8, 60), image_fps=st.sampled_from([10.0, 20.0, 25.0, 50.0]), fps=st.sampled_from([5.0, 10.0, 20.0, 30.0]))
def test_frames_are_taken_by_time_like_those_of_a_video(
    num: int, image_fps: float, fps: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = saved(tmp_path_factory.getbasetemp() / "t.npy", points(num))
    track = read_track(path, Sampling(fps=fps, image_fps=image_fps))
    taken = numbers(track.points)
    if image_fps <= fps:
        assert taken == list(range(num))
        return
    assert track.fps == fps
    for k, frame in enumerate(taken):  # on screen at k / fps is the last frame that began before
        assert frame / image_fps <= k / fps + 1e-3 < (frame + 1) / image_fps + 2e-3
    half = numbers(read_track(path, Sampling(fps=fps, image_fps=image_fps), end_s=num / image_fps / 2).points)
    assert half == taken[: len(half)]
    # The last time that is asked for is less than a step before the last frame of the half.
    assert half[-1] < num / 2
    assert math.ceil(num / 2) - 1 < half[-1] + 1 + image_fps / fps


def test_absent_points_are_zeros_whatever_the_file_has_there(tmp_path: Path) -> None:
    made = points()
    made[3, 5] = (9, 9, 9, 0)
    track = read_track(saved(tmp_path / "a.npy", made), Sampling())
    assert not track.points[3, 5].any()
    assert track.points[2, 5].any()


def no_numbers() -> np.ndarray:
    made = points()
    made[4, 7, 1] = np.nan
    return made


REFUSED: dict[str, tuple[Any, str]] = {
    "integers": (points().astype(np.int16), "int16"),
    "a picture": (np.zeros((8, 8), np.float32), "(8, 8)"),
    "other points": (np.zeros((30, 33, 4), np.float32), "(30, 33, 4)"),
    "no confidence": (points()[..., :3], "(30, 102, 3)"),
    "column by column": (np.asfortranarray(points()), "column by column"),
    "pixels": (points() * np.array([1000, 1000, 1000, 1], np.float16), "shoulder widths"),
    "percent": (points() * np.array([1, 1, 1, 99], np.float16), "confidences"),
    "objects": (np.array([[["a"]]], dtype=object), "object"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_another_array_is_no_track_and_the_sentence_says_what_it_is(name: str, tmp_path: Path) -> None:
    array, part = REFUSED[name]
    checked = check_clip(saved(tmp_path / "a.npy", array))
    assert checked.reason == "not_a_track"
    assert part in checked.detail
    assert "\n" not in checked.detail


def test_each_other_reason_is_met(tmp_path: Path) -> None:
    whole = saved(tmp_path / "whole.npy", points()).read_bytes()
    contents = {
        "empty": b"",
        "truncated": whole[: len(whole) * 3 // 5],
        "not_a_track": b"<!doctype html>",
    }
    for reason, content in contents.items():
        (tmp_path / "a.npy").write_bytes(content)
        assert check_clip(tmp_path / "a.npy").reason == reason
    arrays = {
        "not_finite": no_numbers(),
        "no_signer": np.zeros((30, NUM_LANDMARKS, 4), np.float32),
        "too_short": points(MIN_FRAMES - 1),
        "too_long": points(100),
    }
    for reason, array in arrays.items():
        assert check_clip(saved(tmp_path / "a.npy", array), sampling=Sampling(max_seconds=3)).reason == reason, reason
        assert reason in REASONS
    assert check_clip(saved(tmp_path / "a.npy", points(0))).reason == "too_short"
    assert check_clip(saved(tmp_path / "a.npy", points()), start_s=9, end_s=12).reason == "span_outside"
    assert check_clip(tmp_path / "nobody.npy").reason == "missing"
    assert check_clip(saved(tmp_path / "far.npy", points() * FARTHEST), sampling=Sampling()).reason == "not_a_track"
    (tmp_path / "folder.npy").mkdir()
    assert check_clip(tmp_path / "folder.npy").reason == "not_a_track"


@given(junk=st.binary(min_size=1, max_size=400), head=st.booleans())
def test_no_bytes_make_a_check_raise(junk: bytes, head: bool, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "junk.npy"
    path.write_bytes((b"\x93NUMPY" if head else b"") + junk)
    assert check_clip(path).reason in {"not_a_track", "truncated", "too_short"}


def test_what_needs_pictures_says_so_in_one_way(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npy", points())
    assert is_track(path)
    assert not is_track(path.read_bytes())
    for ask in (
        lambda: probe(path),
        lambda: read_clip(path, fps=25, max_side_px=64, max_seconds=9),
        lambda: read_frames(path, [0]),
        lambda: clip_signature(path),
    ):
        with pytest.raises(VideoError, match="no pictures: use landmark features") as error:
            ask()
        assert error.value.code == "no_pictures"
    row = {"key": "k", "id": "a", "path": str(path), "start_s": 0.0, "end_s": 0.0}
    for features in (SignHieraFeatures(), FrameFeatures()):
        assert decode_row(row, features)["error"].startswith("no_pictures: ")


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("face", [False, True])
def test_features_of_a_track_are_its_points(tmp_path: Path, every: int, face: bool) -> None:
    path = saved(tmp_path / "a.npy", points())
    features = LandmarkFeatures(every=every, face=face)
    encoder = build_encoder(features, NO_FILES)
    row = encode_row(
        decode_row({"key": "k", "id": "a", "path": str(path), "start_s": 0.0, "end_s": 0.0}, features),
        encoder,
    )
    assert row["error"] == ""
    array = unpack(row["features"], row["shape"], row["dtype"])
    np.testing.assert_array_equal(array, encode_clip(path, features, encoder))
    assert array.dtype == np.float16
    assert numbers(array) == list(range(0, 30, every))
    assert array[:, FACE].any() == face


def test_features_of_tracks_alone_have_no_detector_for_a_video(tmp_path: Path, paint: Any) -> None:
    features = LandmarkFeatures()
    with pytest.raises(VideoError, match="landmark tracks alone") as error:
        encode_clip(paint(tmp_path / "a.mp4", num_frames=12), features, build_encoder(features, NO_FILES))
    assert error.value.code in REASONS


@pytest.mark.long
def test_a_corpus_of_tracks_is_prepared_with_single_glosses_and_a_reason_for_each_damage(tmp_path: Path) -> None:
    write_sentences(tmp_path / "raw", Cast(num_sentences=18, num_signers=3, num_corrupt=4, seed=3), landmarks=True)
    made = prepare(
        "table", tmp_path / "raw", tmp_path / "data", glosses=Glosses(labels="sequence"), sampling=Sampling(image_fps=20)
    )
    assert made.counts == {"train": 2, "val": 6, "test": 6}
    assert made.rejected == {"truncated": 1, "empty": 1, "not_a_track": 2}
    dataset = DatasetDir(tmp_path / "data")
    train = read_manifest(dataset, "train")
    assert Vocab.read(dataset.vocab_file).glosses == tuple(sorted({gloss for s in train for gloss in s.gloss.split()}))
    for sample in train:
        length = len(np.load(tmp_path / "raw" / sample.video_path))
        assert (sample.n_frames, sample.fps) == (length, 20.0)
