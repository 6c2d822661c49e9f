"""The signer's square: the numbers of the reference, laws of geometry, real faces."""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sign_dist.errors import VideoError, WeightsError
from sign_dist.video import face_crop, tubes
from sign_dist.video.people import signer_region, without_others
from sign_dist.video.tubes import Box
from tests.parity.vectors import parity_file, part_of

SQUARES = st.tuples(st.integers(0, 200), st.integers(0, 200), st.integers(1, 60)).map(
    lambda b: (float(b[0]), float(b[1]), float(b[0] + b[2]), float(b[1] + b[2]))
)


class Reference:
    """The vectors of a folder, its inputs made again by their rule."""

    def __init__(self, folder: Path) -> None:
        self.cases: dict[str, Any] = json.loads((folder / "cases.json").read_text())
        self.expected = np.load(folder / "expected.npz")

    @staticmethod
    def pixels(key: str, shape: list[int]) -> np.ndarray:
        return np.random.default_rng(zlib.crc32(key.encode())).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference(parity_file("ssvp_slt/preprocess/cases.json").parent)


def boxes_of(frames: list[list[list[float]]]) -> list[list[Box]]:
    return [[(b[0], b[1], b[2], b[3]) for b in frame] for frame in frames]


def grown(faces: list[list[Box]]) -> list[list[Box]]:
    return [[face_crop.expand(face) for face in frame] for frame in faces]


def no_motion() -> list[np.ndarray]:
    raise AssertionError("motion was asked for, though it decides nothing")


def test_pixels_are_normalised_as_in_the_reference(reference: Reference) -> None:
    import torch

    from sign_dist.models.signhiera import PIXEL_MEAN, PIXEL_STD, normalise_frames

    case = part_of(reference.cases, "norm")
    assert set(case["mean"]) == {PIXEL_MEAN}
    assert set(case["std"]) == {PIXEL_STD}
    frames = torch.from_numpy(reference.pixels(case["input_key"], case["input_shape"]))
    found = normalise_frames(frames[None])[0].permute(1, 2, 3, 0).numpy()
    np.testing.assert_allclose(found, reference.expected[case["output"].split()[0]], rtol=0, atol=1e-6)


def test_squares_are_cut_as_in_the_reference(reference: Reference) -> None:
    for case in part_of(reference.cases, "crop_resize"):
        left, top, right, bottom = case["bbox"]
        frames = reference.pixels(case["input_key"], case["input_shape"])
        found = face_crop.crop_square(frames, (left, top, right, bottom), case["target_size"])
        assert found.dtype == np.uint8
        assert (found == reference.expected[case["output"]]).all(), case["input_key"]


def test_faces_are_grown_and_chosen_as_in_the_reference(reference: Reference) -> None:
    for case in part_of(reference.cases, "face_boxes"):
        boxes = grown(boxes_of(case["faces_per_frame"]))
        assert max(map(len, boxes)) == case["max_num_faces"]
        for found, expected in zip(boxes, boxes_of(case["expanded"]), strict=True):
            np.testing.assert_allclose(np.array(found).reshape(-1, 4), np.array(expected).reshape(-1, 4), rtol=0, atol=1e-9)
        if "bbox_mean" in case:
            assert face_crop.choose_box(boxes, (1, 1), no_motion) == pytest.approx(case["bbox_mean"], abs=1e-9)
            continue
        linked = tubes.link(boxes, min_iou=case["iou_threshold"])
        assert [len(tube) for tube in linked] == case["tube_lengths"]
        assert len(linked) == case["num_tubes"]
        motion = list(reference.pixels(case["flow_key"], case["flow_shape"]))
        target = tubes.most_moving(linked, motion, min_share=case["num_ratio_threshold"])
        assert (target.mean() if target else None) == (
            pytest.approx(case["target_bbox"], abs=1e-9) if case["target_bbox"] else None
        )
        expected = case["target_bbox"] or case["fallback_bbox"]
        assert face_crop.choose_box(boxes, (1, 1), lambda motion=motion: motion) == pytest.approx(expected, abs=1e-9)


def test_overlaps_are_those_of_the_reference(reference: Reference) -> None:
    for case in part_of(reference.cases, "iou"):
        a, b = boxes_of([[case["a"], case["b"]]])[0]
        assert tubes.iou(a, b) == pytest.approx(case["iou"], abs=1e-9)


def test_centres_are_cut_as_in_the_reference(reference: Reference) -> None:
    for case in part_of(reference.cases, "center_crop_box"):
        assert face_crop.centre_box(case["h"], case["w"]) == pytest.approx(case["bbox"], abs=1e-9)
    for case in part_of(reference.cases, "uniform_crop"):
        height, width = case["h"], case["w"]
        places = np.arange(height * width).reshape(1, height, width, 1)
        found = face_crop.uniform_crop(places, case["size"], place=case["spatial_idx"])
        assert list(found.shape[1:3]) == case["out_shape"]
        assert list(divmod(int(found[0, 0, 0, 0]), width)) == case["top_left"]


def test_motion_is_measured_as_in_the_reference(reference: Reference) -> None:
    for width, scale in part_of(reference.cases, "scale_ratio_by_width").items():
        assert tubes.flow_scale(int(width)) == pytest.approx(scale)
    found = tubes.scaled_to_bytes(reference.expected["magnitude_in"])
    assert (found == reference.expected["magnitude_out"]).all()


def test_windows_of_pixels_are_those_of_the_reference(reference: Reference) -> None:
    import torch

    from sign_dist.models.signhiera import normalise_frames
    from sign_dist.video.windows import signhiera_windows

    case = part_of(reference.cases, "window_tensor")
    frames = torch.from_numpy(reference.pixels(case["input_key"], case["input_shape"]))
    windows = signhiera_windows(
        len(frames),
        case["fps"],
        window=case["num_frames"],
        stride=case["stride"],
        sampling_rate=case["sampling_rate"],
        target_fps=case["target_fps"],
    )
    found = normalise_frames(torch.stack([frames[torch.from_numpy(w.indices)] for w in windows])).numpy()
    np.testing.assert_allclose(found, reference.expected["window_frames"], rtol=0, atol=1e-6)
    assert [w.padding for w in windows] == reference.expected["window_padding"].tolist()


@given(st.lists(st.lists(SQUARES, max_size=4), max_size=6))
def test_every_box_is_in_exactly_one_tube(frames: list[list[Box]]) -> None:
    linked = tubes.link(frames)
    found = sorted((t, box) for tube in linked for t, box in tube.boxes.items())
    assert found == sorted((t, box) for t, frame in enumerate(frames) for box in frame)
    for tube in linked:
        first = tube.boxes[min(tube.boxes)]
        assert all(tubes.iou(first, box) > tubes.MIN_IOU for box in tube.boxes.values())


@given(st.tuples(*[st.floats(-50, 150)] * 2), st.floats(2, 90), st.floats(2, 90))
def test_a_square_has_the_longer_side_and_the_same_middle(corner: tuple[float, float], width: float, height: float) -> None:
    left, top, right, bottom = face_crop.square((corner[0], corner[1], corner[0] + width, corner[1] + height))
    side = max(width, height)
    assert abs(right - left - side) < 2  # both ends are cut towards zero
    assert abs(bottom - top - side) < 2
    assert abs((left + right) / 2 - corner[0] - width / 2) <= 1
    assert abs((top + bottom) / 2 - corner[1] - height / 2) <= 1


def test_a_square_outside_the_picture_is_black_and_one_that_misses_it_an_error() -> None:
    frames = np.full((1, 20, 20, 3), 200, np.uint8)
    half = face_crop.crop_square(frames, (-20.0, 0.0, 20.0, 20.0), 40)[0, 20]
    assert (half[:18] == 0).all()
    assert (half[22:] == 200).all()
    with pytest.raises(ValueError, match="no pixel"):
        face_crop.crop_square(frames, (30.0, 30.0, 50.0, 50.0), 8)


def test_a_picture_smaller_than_the_square_is_refused() -> None:
    with pytest.raises(VideoError, match="64x32") as caught:
        face_crop.uniform_crop(np.zeros((1, 32, 64, 3), np.uint8), 33)
    assert caught.value.code == "too_small"
    with pytest.raises(ValueError, match="place"):
        face_crop.uniform_crop(np.zeros((1, 32, 64, 3), np.uint8), 32, place=3)


STILL, MOVING, SMALL = (10.0, 10.0, 39.0, 39.0), (60.0, 10.0, 84.0, 34.0), (45.0, 40.0, 49.0, 44.0)


@pytest.mark.parametrize(("person", "chosen"), [("moving", MOVING), ("largest", STILL), ("central", SMALL)])
def test_among_several_the_person_asked_for_is_chosen(person: Any, chosen: Box) -> None:
    frames = [[STILL, MOVING, SMALL]] * 4
    motion = [np.zeros((90, 96), np.uint8) for _ in frames]
    for picture in motion:
        picture[10:35, 60:85] = 100
    tube = tubes.choose(tubes.link(frames), 4, (90, 96), lambda: motion, person=person)
    assert tube is not None
    assert tube.mean() == chosen


def test_who_is_rarely_seen_does_not_compete_and_nobody_is_nobody() -> None:
    frames = [[STILL], [STILL], [STILL, MOVING], [STILL]]
    motion = [np.zeros((90, 96), np.uint8) for _ in frames]
    for picture in motion:
        picture[10:35, 60:85] = 255
    for person in ("moving", "central"):
        tube = tubes.choose(tubes.link(frames), 4, (90, 96), lambda: motion, person=person)
        assert tube is not None
        assert tube.mean() == STILL
    assert tubes.choose([], 4, (90, 96), no_motion) is None
    assert face_crop.choose_box([[], []], (90, 96), no_motion) is None


def test_a_clip_without_faces_is_cropped_to_its_middle() -> None:
    frames = np.zeros((40, 48, 64, 3), np.uint8)
    assert face_crop.signer_box(frames, lambda pictures: [[] for _ in pictures]) == face_crop.centre_box(48, 64)
    asked: list[int] = []
    face_crop.signer_box(frames, lambda pictures: asked.append(len(pictures)) or [[] for _ in pictures])
    assert asked == [3]  # frames 0, 16 and 32


def test_the_picture_moves_where_something_moves() -> None:
    rng = np.random.default_rng(0)
    frames = np.full((4, 96, 160, 3), 60, np.uint8)
    frames[:, :, 80:] = rng.integers(0, 255, (96, 80, 1), dtype=np.uint8)
    patch = rng.integers(0, 255, (10, 10, 1), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    for t in range(4):
        frames[t, 20 + 4 * t : 60 + 4 * t, 20:60] = patch
    maps = tubes.motion_maps(frames)
    assert [m.shape for m in maps] == [(96, 160)] * 4
    assert maps[0].max() == 0
    assert all(m[30:60, 25:55].mean() > 3 * m[:, 100:].mean() for m in maps[1:])


def test_the_signer_s_part_ends_half_way_to_everyone_else() -> None:
    def person(x: float, y: float) -> tubes.Tube:
        return tubes.Tube({0: face_crop.expand((x - 10, y - 10, x + 9, y + 9))})

    left, top, right, bottom = without_others(person(200, 100), [person(400, 120), person(190, 300)], (400, 600))
    assert (left, top) == (0, 0)
    assert right == pytest.approx(300, abs=2)
    assert bottom == pytest.approx(200, abs=2)


def test_one_person_has_the_whole_picture() -> None:
    frames = np.zeros((20, 48, 64, 3), np.uint8)
    assert signer_region(frames, lambda pictures: [[(10.0, 5.0, 20.0, 15.0)] for _ in pictures]) == (0, 0, 64, 48)


def test_dlib_that_is_not_installed_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    from sign_dist.config.data import SignHieraFeatures
    from sign_dist.features.encode import find_files

    monkeypatch.setattr(importlib.util, "find_spec", lambda name, package=None: None)
    with pytest.raises(WeightsError, match=r"sign-dist\[dlib\]"):
        find_files(SignHieraFeatures(crop="face", detector="dlib"))


def test_dlib_finds_a_real_face_where_mediapipe_does(shared_folder: Path) -> None:
    pytest.importorskip("dlib")
    from sign_dist.video.decode import read_clip
    from sign_dist.video.detectors import DlibFaceDetector, FaceDetector

    model = shared_folder / "models/mediapipe/blaze_face_short_range.tflite"
    clip = read_clip(shared_folder / "data/videos/asl_everyday/help/help_s3_1.mp4", fps=3, max_side_px=640, max_seconds=30)
    ours, dlibs = FaceDetector(model)(clip.frames), DlibFaceDetector()(clip.frames)
    both = [(a[0], b[0]) for a, b in zip(ours, dlibs, strict=True) if len(a) == len(b) == 1]
    assert len(both) > len(clip) / 2
    assert all(tubes.iou(a, b) > 0.4 for a, b in both)


@pytest.mark.long
def test_real_faces_are_found_near_and_far_and_lie_in_the_crop(shared_folder: Path) -> None:
    from sign_dist.video.decode import read_clip
    from sign_dist.video.detectors import FaceDetector

    detector = FaceDetector(shared_folder / "models/mediapipe/blaze_face_short_range.tflite")
    for name in ("asl_everyday/help/help_s3_1.mp4", "asl_gestures_ccby/eat.mkv", "sentences/isl/are_you_busy.mp4"):
        clip = read_clip(shared_folder / "data/videos" / name, fps=6, max_side_px=640, max_seconds=30)
        found = detector(clip.frames)
        assert np.mean([len(faces) == 1 for faces in found]) > 0.9, name
        assert found == detector(clip.frames)
        left, top, right, bottom = face_crop.signer_box(clip.frames, detector)
        face = np.mean([faces[0] for faces in found if len(faces) == 1], axis=0)
        assert left < face[0] < face[2] < right, name
        assert top < face[1] < face[3] < bottom, name
    far = np.zeros((1, 360, 640, 3), np.uint8)  # the same signer, small in a corner of a large picture
    far[0, 180:360, 400:640] = read_clip(
        shared_folder / "data/videos/asl_everyday/help/help_s3_1.mp4", fps=6, max_side_px=240, max_seconds=30
    ).frames[0]
    (faces,) = detector(far)
    assert len(faces) == 1
    assert 400 < faces[0][0] < faces[0][2] < 640
