"""One clip -> features: every fault becomes a row with its reason, every good clip the array its settings promise."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sign_dist.config.data import FrameFeatures, LandmarkFeatures, Sampling, SignHieraFeatures
from sign_dist.errors import VideoError, WeightsError
from sign_dist.features.encode import (
    build_encoder,
    decode_row,
    encode_clip,
    encode_row,
    error_text,
    find_files,
    models_dir,
    spec_for,
)
from sign_dist.features.store import SCHEMA, unpack
from sign_dist.video.decode import Clip

Paint = Callable[..., Path]
FRAMES = FrameFeatures(num_frames=5, size_px=32)


def job(path: Path, **span: float) -> dict[str, Any]:
    return {"key": "k", "id": "a", "path": str(path), "start_s": 0.0, "end_s": 0.0, **span}


def array(row: dict[str, Any]) -> np.ndarray:
    return unpack(row["features"], row["shape"], row["dtype"])


def test_frames_are_spread_over_the_span_and_square(tmp_path: Path, paint: Paint, numbers_of: Callable[..., list[int]]) -> None:
    path = paint(tmp_path / "a.mp4", num_frames=21, width=64, height=64)
    features = FrameFeatures(num_frames=5, size_px=64)
    encoder = build_encoder(features, find_files(features))
    row = encode_row(decode_row(job(path), features), encoder)
    assert row["error"] == ""
    assert row.keys() == set(SCHEMA.names)
    assert array(row).dtype == np.uint8
    assert array(row).shape == (5, 64, 64, 3)
    assert numbers_of(array(row)) == [0, 5, 10, 15, 20]
    span = encode_row(decode_row(job(path, start_s=0.2, end_s=0.56), features), encoder)
    assert numbers_of(array(span)) == [5, 7, 9, 11, 13]
    np.testing.assert_array_equal(encode_clip(path, features, encoder), array(row))
    assert spec_for(features, find_files(features)).dtype == "uint8"


@pytest.mark.parametrize("content", [None, b"", b"no video"])
def test_a_clip_that_cannot_be_read_is_a_row_with_a_reason(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.mp4"
    if content is not None:
        path.write_bytes(content)
    encoder = build_encoder(FRAMES, find_files(FRAMES))
    decoded = decode_row(job(path), FRAMES)
    assert decoded["frames"].size == 0
    row = encode_row(decoded, encoder)
    assert row["error"].split(":")[0] in ("missing", "empty", "not_video")
    assert array(row).size == 0
    assert row.keys() == set(SCHEMA.names)
    with pytest.raises(VideoError):
        encode_clip(path, FRAMES, encoder)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (VideoError("no_signer", "nobody there"), "no_signer: nobody there"),
        (WeightsError("bad file"), "WeightsError: bad file"),
        (ValueError("shape"), "ValueError: shape"),
        (RuntimeError("CUDA out of memory"), "RuntimeError: CUDA out of memory"),
        (MemoryError(), "MemoryError: "),
    ],
)
def test_an_encoder_that_fails_makes_a_row_with_a_reason(tmp_path: Path, paint: Paint, error: Exception, text: str) -> None:
    def fails(clip: Clip) -> np.ndarray:
        raise error

    row = encode_row(decode_row(job(paint(tmp_path / "a.mp4")), FRAMES), fails)
    assert row["error"] == text == error_text(error)
    assert array(row).size == 0


@pytest.mark.parametrize("error", [MemoryError(), OSError(5, "Input/output error"), VideoError("truncated", "x")])
def test_a_decoder_that_fails_makes_a_row_with_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fails(*_: object, **__: object) -> Clip:
        raise error

    monkeypatch.setattr("sign_dist.features.encode.read_clip", fails)
    assert decode_row(job(tmp_path), FRAMES)["error"] == error_text(error)


def test_random_signhiera_features_follow_from_the_seed_and_leave_the_generator_alone() -> None:
    rng = np.random.default_rng(0)
    clips = [Clip(rng.integers(0, 256, (n, 48, 64, 3), dtype=np.uint8), 25.0, "") for n in (1, 9, 40)]
    torch.manual_seed(5)
    before = torch.get_rng_state()
    encoders = [build_encoder(f, find_files(f)) for f in (SignHieraFeatures(), SignHieraFeatures(), SignHieraFeatures(seed=1))]
    assert torch.equal(before, torch.get_rng_state())
    for clip in clips:
        one, two, other = (encode(clip) for encode in encoders)
        assert one.dtype == np.float16
        assert one.ndim == 2
        assert len(one) >= 1
        assert np.isfinite(one).all()
        np.testing.assert_array_equal(one, two)
        assert not np.array_equal(one, other)


def test_weights_that_are_not_there_or_of_another_model_are_named(tmp_path: Path) -> None:
    features = SignHieraFeatures(weights=str(tmp_path / "none.pt"))
    with pytest.raises(WeightsError, match="no weights file"):
        find_files(features)
    torch.save({"a": torch.zeros(3)}, tmp_path / "none.pt")
    files = find_files(features)
    assert len(files.digest) == 64
    assert spec_for(features, files).weights == files.digest
    with pytest.raises(WeightsError, match="another model"):
        build_encoder(features, files)


def test_the_models_folder_is_named_by_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SIGN_DIST_MODELS", raising=False)
    assert models_dir() is None
    monkeypatch.setenv("SIGN_DIST_MODELS", str(tmp_path))
    assert models_dir() == tmp_path


def test_a_clip_too_long_for_its_sampling_is_refused(tmp_path: Path, paint: Paint) -> None:
    features = LandmarkFeatures(sampling=Sampling(max_seconds=0.2))
    assert decode_row(job(paint(tmp_path / "a.mp4", num_frames=30)), features)["error"].startswith("too_long: ")
