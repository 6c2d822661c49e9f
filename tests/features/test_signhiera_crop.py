"""What SignHiera's encoder sees of a clip, and what its features are named after."""

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from sign_dist.config.data import FrameFeatures, SignHieraFeatures
from sign_dist.errors import VideoError, WeightsError
from sign_dist.features.encode import build_encoder, find_files, spec_for
from sign_dist.features.signhiera import SignHieraEncoder
from sign_dist.models.signhiera import PRESETS, SignHiera
from sign_dist.models.windowed import WindowedSignHiera
from sign_dist.video.decode import Clip, read_clip
from sign_dist.video.face_crop import crop_square, expand, uniform_crop
from sign_dist.video.windows import signhiera_windows

SIZE = PRESETS["tiny"].width_px
FACE = (60.0, 30.0, 79.0, 49.0)


def clip(num_frames: int = 20, height: int = 160, width: int = 200) -> Clip:
    return Clip(np.random.default_rng(0).integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8), 25.0, "")


def encoder(**settings: object) -> SignHieraEncoder:
    return SignHieraEncoder("tiny", weights=None, seed=0, device="cpu", **settings)  # type: ignore[arg-type]


def test_every_crop_gives_the_features_of_its_own_squares() -> None:
    frames = clip().frames
    assert min(frames.shape[1:3]) >= SIZE
    given = {
        "centre": np.ascontiguousarray(uniform_crop(frames, SIZE)),
        "face": crop_square(frames, expand(FACE), SIZE),
    }
    plain = encoder()
    for crop, squares in given.items():
        found = encoder(crop=crop, find_faces=lambda pictures: [[FACE]] * len(pictures))(clip())
        np.testing.assert_array_equal(found, plain(Clip(squares, 25.0, "")))
        assert (found != plain(clip())).any()


def test_blurred_pixels_never_reach_the_encoder() -> None:
    one = clip()
    other = Clip(one.frames.copy(), 25.0, "")
    inside = other.frames[:, 30:50, 60:80]
    inside[:] = inside[:, ::-1, ::-1]  # another face with the same colours
    hidden = encoder(crop="face", blur=True, find_faces=lambda pictures: [[(55.0, 25.0, 84.0, 54.0)]] * len(pictures))
    shown = encoder(crop="face", find_faces=lambda pictures: [[(55.0, 25.0, 84.0, 54.0)]] * len(pictures))
    near = np.abs(hidden(one).astype(np.float32) - hidden(other)).max()
    far = np.abs(shown(one).astype(np.float32) - shown(other)).max()
    assert near < far / 3
    with pytest.raises(VideoError, match="no face"):
        encoder(blur=True, find_faces=lambda pictures: [[] for _ in pictures])(one)


@pytest.mark.long
@pytest.mark.parametrize("preset", ["base_16x224", "small_128x224"])
def test_presets_of_published_sizes_are_encoders(preset: Literal["base_16x224", "small_128x224"]) -> None:
    settings = SignHieraFeatures(preset=preset)
    features = build_encoder(settings, find_files(settings))(clip(40))
    shape = PRESETS[preset]
    windows = signhiera_windows(40, 25.0, window=shape.num_frames, stride=shape.num_frames // 2)
    assert features.shape == (sum(window.num_features for window in windows), 768)
    assert features.dtype == np.float16
    assert np.isfinite(features).all()


@pytest.mark.parametrize("num_frames", [1, 15, 16, 17, 40, 100])
def test_features_are_as_many_as_the_windows_have(num_frames: int) -> None:
    shape = PRESETS["tiny"]
    windows = signhiera_windows(num_frames, 25.0, window=shape.num_frames, stride=shape.num_frames // 2)
    assert len(encoder()(clip(num_frames, SIZE, SIZE))) == sum(w.num_features for w in windows)


@pytest.mark.parametrize("crop", ["none", "centre"])
def test_stored_frames_are_what_the_encoder_sees(crop: Literal["none", "centre"]) -> None:
    film = clip(40)
    frames, vectors = FrameFeatures(num_frames=0, size_px=SIZE, crop=crop), SignHieraFeatures(crop=crop)
    torch.manual_seed(vectors.seed)
    front = WindowedSignHiera(SignHiera(PRESETS["tiny"]), fps=film.fps).eval()
    stored = build_encoder(frames, find_files(frames))(film)
    with torch.inference_mode():
        seen, _ = front(torch.from_numpy(stored)[None], torch.tensor([40]))
    np.testing.assert_allclose(seen[0], build_encoder(vectors, find_files(vectors))(film), atol=2e-3)


def test_looking_for_faces_without_a_finder_is_an_error() -> None:
    for wrong in ({"crop": "face"}, {"blur": True}):
        with pytest.raises(ValueError, match="find_faces"):
            encoder(**wrong)


def test_a_weights_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"gone\.pth"):
        find_files(SignHieraFeatures(weights=str(tmp_path / "gone.pth")))


def test_the_detector_s_file_names_the_features(tmp_path: Path) -> None:
    plain = spec_for(SignHieraFeatures(), find_files(SignHieraFeatures(), tmp_path))
    assert plain.weights == ""
    looking = {"crop": "face"}, {"privacy": "blur"}
    for features in (kind.model_validate(how) for kind in (SignHieraFeatures, FrameFeatures) for how in looking):
        names: set[str] = set()
        for content in (b"one", b"two"):
            (tmp_path / "blaze_face_short_range.tflite").write_bytes(content)
            names.add(spec_for(features, find_files(features, tmp_path)).name)
        assert len(names) == 2


@pytest.mark.long
def test_a_real_signer_is_encoded_from_the_square_around_the_face(shared_folder: Path) -> None:
    features = SignHieraFeatures(crop="face")
    files = find_files(features, shared_folder / "models/mediapipe")
    real = read_clip(shared_folder / "data/videos/asl_gestures_ccby/eat.mkv", fps=25, max_side_px=320, max_seconds=30)
    found = build_encoder(features, files)(real)
    assert np.isfinite(found).all()
    assert found.shape == build_encoder(SignHieraFeatures(), find_files(SignHieraFeatures()))(real).shape
