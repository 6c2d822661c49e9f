"""Hidden faces: no detector finds them, nothing else changes, nothing is promised about a clip without one."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sign_dist.errors import VideoError
from sign_dist.video.face_crop import expand
from sign_dist.video.privacy import CELLS, blur_faces, filled, follow, hide
from sign_dist.video.tubes import Box

FACE: Box = (20.0, 20.0, 39.0, 39.0)


def noise(num_frames: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (num_frames, 80, 100, 3), dtype=np.uint8)


def finder(faces: list[list[Box]]) -> Callable[[np.ndarray], list[list[Box]]]:
    return lambda pictures: faces


def changed(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """(T, H, W)"""
    return (before != after).any(axis=-1)


@given(st.tuples(st.floats(-40, 110), st.floats(-40, 90)), st.floats(1, 60), st.floats(1, 60))
def test_only_the_box_changes_and_few_colours_are_left_in_it(corner: tuple[float, float], width: float, height: float) -> None:
    before = noise(1)[0]
    after = before.copy()
    box = (corner[0], corner[1], corner[0] + width, corner[1] + height)
    hide(after, box)
    rows, columns = np.nonzero(changed(before[None], after[None])[0])
    if len(rows) == 0:
        return
    assert corner[0] - 1 <= columns.min() <= columns.max() <= corner[0] + width + 1
    assert corner[1] - 1 <= rows.min() <= rows.max() <= corner[1] + height + 1
    inside = after[max(0, int(np.ceil(box[1]))) : int(box[3]), max(0, int(np.ceil(box[0]))) : int(box[2])]
    assert all(len({tuple(c) for c in row.tolist()}) <= CELLS for row in inside)


def test_what_is_hidden_does_not_hang_on_its_details() -> None:
    # Irreversible: pictures that differ in what a few means do not show become the same picture.
    one = np.zeros((40, 40, 3), np.uint8)
    one[::2] = 200
    other = np.roll(one, 1, axis=0)
    assert changed(one[None], other[None]).all()
    hide(one, (0.0, 0.0, 39.0, 39.0))
    hide(other, (0.0, 0.0, 39.0, 39.0))
    assert (one == other).all()


def test_a_frame_that_the_finder_misses_is_hidden_at_the_place_between() -> None:
    moved = (FACE[0] + 8, FACE[1], FACE[2] + 8, FACE[3])
    tracks = follow([[FACE], [], [], [], [moved]], memory=4)
    assert len(tracks) == 1
    assert tracks[0][2] == pytest.approx((FACE[0] + 4, FACE[1], FACE[2] + 4, FACE[3]))
    before = noise(5)
    after = blur_faces(before, 2.0, finder([[FACE], [], [], [], [moved]]))
    assert changed(before, after).any(axis=(1, 2)).all()


@given(st.lists(st.booleans(), min_size=1, max_size=60).filter(any))
def test_the_face_that_is_seen_most_is_hidden_in_every_frame(seen: list[bool]) -> None:
    tracks = follow([[FACE] if there else [] for there in seen], memory=5)
    longest = max(tracks, key=len)
    assert sorted(longest) == list(range(len(seen)))
    assert all(box == pytest.approx(FACE) for box in longest.values())


def test_two_faces_are_two_tracks_even_where_their_order_changes() -> None:
    other = (70.0, 20.0, 89.0, 39.0)
    tracks = follow([[FACE, other], [other, FACE], [FACE, other]], memory=2)
    assert sorted(track[0] for track in tracks) == [FACE, other]
    assert all(len(set(track.values())) == 1 and len(track) == 3 for track in tracks)


def test_what_is_seen_once_is_hidden_only_around_then() -> None:
    once = (70.0, 60.0, 79.0, 69.0)
    frames = [[FACE] for _ in range(20)]
    frames[10] = [FACE, once]
    lengths = sorted(len(track) for track in follow(frames, memory=8))
    assert lengths == [3, 20]
    assert sorted(filled({10: once}, 20, 1)) == [9, 10, 11]


def test_the_input_stays_as_it_was_and_nothing_else_changes() -> None:
    before = noise()
    kept = before.copy()
    after = blur_faces(before, 8.0, finder([[FACE]] * 8))
    assert (before == kept).all()
    area = changed(before, after)
    assert area[:, 20:40, 20:40].mean() > 0.9
    assert not area[:, :, 60:].any()
    assert not area[:, 60:].any()


def test_a_clip_without_a_face_is_refused() -> None:
    with pytest.raises(VideoError, match="no face") as caught:
        blur_faces(noise(), 25.0, finder([[]] * 8))
    assert caught.value.code == "no_signer"


@pytest.mark.long
def test_no_face_is_found_any_more_in_real_clips(shared_folder: Path) -> None:
    from sign_dist.video.decode import read_clip
    from sign_dist.video.detectors import FaceDetector

    model = shared_folder / "models/mediapipe/blaze_face_short_range.tflite"
    finds, suspects = FaceDetector(model), FaceDetector(model, min_confidence=0.5, min_in_squares=0.5)
    names = (
        "asl_everyday/help/help_s3_1.mp4",
        "asl_everyday/dad/dad_s1_1.mp4",
        "sentences/isl/are_you_busy.mp4",
        "thai_words/Block.mp4",
    )
    num_before = num_after = num_frames = 0
    for name in names:
        clip = read_clip(shared_folder / "data/videos" / name, fps=5, max_side_px=480, max_seconds=30)
        before = finds(clip.frames)
        blurred = blur_faces(clip.frames, clip.fps, finds)
        for was, still in zip(before, suspects(blurred), strict=True):
            num_frames += 1
            num_before += bool(was)
            # What such a low bar takes for a face elsewhere, a hand or a print on a shirt, is none.
            num_after += any(holds(face, box) for face in was for box in still)
        # Away from where a face was ever found, the hands above all, everything is what it was.
        away = np.ones(clip.frames.shape[1:3], bool)
        for face in (face for faces in before for face in faces):
            left, top, right, bottom = (max(0, round(edge)) for edge in expand(face, up=0.7, down=0.4, sideways=0.45))
            away[top:bottom, left:right] = False
        assert away.mean() > 0.5, name
        assert not changed(clip.frames, blurred)[:, away].any(), name
    assert num_before >= 0.97 * num_frames
    assert num_after <= 0.05 * num_frames, f"{num_after} of {num_frames}"


def holds(face: Box, box: Box) -> bool:
    """Whether the middle of a box lies in a face."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return face[0] <= x <= face[2] and face[1] <= y <= face[3]


@pytest.mark.long
def test_stored_frames_hold_no_face(shared_folder: Path) -> None:
    from sign_dist.config.data import FrameFeatures
    from sign_dist.features.encode import build_encoder, encode_clip, find_files, spec_for
    from sign_dist.video.detectors import FaceDetector

    models = shared_folder / "models/mediapipe"
    path = shared_folder / "data/videos/asl_everyday/help/help_s3_1.mp4"
    faces = FaceDetector(models / "blaze_face_short_range.tflite")
    found: dict[str, int] = {}
    names: set[str] = set()
    for privacy in ("none", "blur"):
        features = FrameFeatures(num_frames=6, size_px=256, privacy=privacy)
        files = find_files(features, models)
        names.add(spec_for(features, files).name)
        found[privacy] = sum(map(bool, faces(encode_clip(path, features, build_encoder(features, files)))))
    assert found == {"none": 6, "blur": 0}
    assert len(names) == 2


def test_pictures_of_no_face_at_all_are_refused_by_the_encoder_too(shared_folder: Path) -> None:
    from sign_dist.config.data import FrameFeatures
    from sign_dist.features.encode import build_encoder, find_files
    from sign_dist.video.decode import Clip

    features = FrameFeatures(privacy="blur")
    encoder = build_encoder(features, find_files(features, shared_folder / "models/mediapipe"))
    flat = np.stack([cv2.GaussianBlur(frame, (0, 0), 9) for frame in noise(3)])
    with pytest.raises(VideoError, match="no face"):
        encoder(Clip(flat, 25.0, ""))
