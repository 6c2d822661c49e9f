"""Checking: each reason a clip can be refused for, made to happen; and what a usable clip is said to be."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from sign_dist.config.data import Sampling
from sign_dist.video.check import MIN_FRAMES, REASONS, check_clip
from sign_dist.video.decode import Clip

Paint = Callable[..., Path]


def film(path: Path, pictures: list[np.ndarray], **container_options: str) -> Path:
    """Pictures (H, W, 3) as an H.264 file."""
    with av.open(str(path), "w", options=container_options) as container:
        stream = container.add_stream("libx264", rate=25, options={"threads": "1"})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture, np.uint8), format="rgb24")))
        container.mux(stream.encode(None))
    return path


def flat(path: Path, colours: list[tuple[int, int, int]]) -> Path:
    return film(path, [np.full((48, 64, 3), colour, np.uint8) for colour in colours])


def test_flat_clips_are_blank_whatever_their_colour(tmp_path: Path, paint: Paint) -> None:
    for name, colours in {
        "black": [(0, 0, 0)] * 8,
        "white": [(255, 255, 255)] * 8,
        "red": [(250, 10, 10)] * 8,
        "fade": [(30 * k, 30 * k, 30 * k) for k in range(8)],
    }.items():
        assert check_clip(flat(tmp_path / f"{name}.mp4", colours)).reason == "blank", name
    assert check_clip(paint(tmp_path / "painted.mp4", num_frames=8)).reason == ""


def test_a_checked_clip_says_what_training_will_see(tmp_path: Path, paint: Paint) -> None:
    path = paint(tmp_path / "a.mp4", num_frames=60, fps=50)
    checked = check_clip(path, start_s=0.2, end_s=0.8, sampling=Sampling(fps=10))
    assert (checked.reason, checked.num_frames, checked.fps) == ("", 6, 10.0)
    assert len(checked.sha256) == 64
    assert checked.sha256 == check_clip(path).sha256
    assert check_clip(path, start_s=1.0, end_s=1.05).reason == "too_short"
    assert check_clip(paint(tmp_path / "b.mp4", num_frames=MIN_FRAMES - 1)).reason == "too_short"
    assert check_clip(paint(tmp_path / "c.mp4", width=16, height=16)).reason == "too_small"
    assert check_clip(path, sampling=Sampling(max_seconds=0.5)).reason == "too_long"
    broken = check_clip(tmp_path)
    assert (broken.reason, broken.num_frames, broken.sha256) == ("missing", 0, "")


def test_too_short_says_what_the_file_has_and_what_is_left(tmp_path: Path, paint: Paint) -> None:
    fast = paint(tmp_path / "fast.mp4", num_frames=12, fps=120)
    detail = check_clip(fast).detail
    assert "3 of its 12 frames remain at 25 a second" in detail, detail
    few = check_clip(paint(tmp_path / "few.mp4", num_frames=3)).detail
    assert ": 3 frames, 4 are needed" in few, few


def test_no_memory_and_no_disk_are_reasons(tmp_path: Path, paint: Paint, monkeypatch: pytest.MonkeyPatch) -> None:
    path = paint(tmp_path / "a.mp4")

    def fail(error: BaseException) -> Callable[..., Clip]:
        def read_clip(*_: object, **__: object) -> Clip:
            raise error

        return read_clip

    monkeypatch.setattr("sign_dist.video.check.read_clip", fail(MemoryError()))
    assert check_clip(path).reason == "out_of_memory"
    monkeypatch.setattr("sign_dist.video.check.read_clip", fail(OSError(5, "Input/output error")))
    assert check_clip(path).reason == "unreadable"


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")  # opening it would wait for ever
    assert check_clip(tmp_path / "pipe.mp4").reason == "not_a_file"
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(os.path.relpath(tmp_path / "s"))
        assert check_clip(tmp_path / "s").reason == "not_a_file"
    assert check_clip("/dev/zero").reason == "not_a_file"


def test_a_file_that_may_not_be_read_is_unreadable(tmp_path: Path, paint: Paint, monkeypatch: pytest.MonkeyPatch) -> None:
    path = paint(tmp_path / "a.mp4")
    monkeypatch.setattr(Path, "open", lambda *_, **__: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    checked = check_clip(path)
    assert (checked.reason, checked.detail) == ("unreadable", "'a.mp4' cannot be read: Permission denied")


def test_a_still_is_frozen_and_a_small_movement_is_not(tmp_path: Path) -> None:
    still = np.zeros((240, 320, 3), np.uint8)
    still[40:200, 120:200] = (180, 140, 110)
    still[:, 250:] = 90
    assert check_clip(film(tmp_path / "still.mp4", [still] * 30)).reason == "frozen"
    assert check_clip(film(tmp_path / "instant.mp4", [still] * 6)).reason == "", "a quarter of a second proves nothing"
    moving = []
    for k in range(30):
        moving.append(still.copy())
        moving[-1][100:110, 100 + k : 110 + k] = 128  # a hand, far away
    assert check_clip(film(tmp_path / "moving.mp4", moving)).reason == ""


def test_an_encrypted_file_is_told_from_a_broken_one(tmp_path: Path) -> None:
    key = "76a6c65c5ea762046bd749a2e632ccbb"
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (48, 64, 3)) for _ in range(12)]
    options = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": key, "encryption_kid": key}
    assert check_clip(film(tmp_path / "locked.mp4", pictures, **options)).reason == "encrypted"
    assert check_clip(film(tmp_path / "open.mp4", pictures)).reason == ""


def test_a_file_whose_pictures_change_size_is_refused(tmp_path: Path, paint: Paint) -> None:
    """Two transport streams behind each other, as broadcasts are cut together."""
    a = paint(tmp_path / "a.ts", num_frames=12, width=64, height=48).read_bytes()
    b = paint(tmp_path / "b.ts", num_frames=12, width=96, height=64).read_bytes()
    (tmp_path / "both.ts").write_bytes(a + b)
    checked = check_clip(tmp_path / "both.ts")
    assert checked.reason in ("mixed_sizes", "decode_failed"), checked


@pytest.mark.long
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.97])
@pytest.mark.parametrize(
    ("name", "options"), [("a.mp4", {"movflags": "faststart"}), ("a.mkv", {}), ("a.avi", {}), ("a.flv", {}), ("a.webm", {})]
)
def test_a_missing_tail_is_noticed_at_any_rate(tmp_path: Path, name: str, options: dict[str, str], share: float) -> None:
    """Even where so few frames are sampled that the tail would not have been touched."""
    rng = np.random.default_rng(0)
    path = tmp_path / name
    codec = {"a.avi": "mpeg4", "a.flv": "flv1", "a.webm": "libvpx"}.get(name, "libx264")
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=25, options={"threads": "1"} | ({"bf": "0"} if codec == "libx264" else {}))
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for k in range(200):
            picture = rng.integers(0, 255, (48, 64, 3)).astype(np.uint8)
            picture[:, k % 64] = 0
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    slow = Sampling(fps=1.0)
    assert check_clip(path, sampling=slow).reason == ""
    whole = path.read_bytes()
    end = whole.rindex(b"idx1") if name == "a.avi" else len(whole)  # behind the pictures stands a table to seek by
    path.write_bytes(whole[: int(end * share)])
    checked = check_clip(path, sampling=slow)
    assert checked.reason == "truncated", checked
    early = check_clip(path, sampling=Sampling(), end_s=8 * share * 0.5)
    assert early.reason == "", "a clip before the tear is whole"


def test_reasons_are_sentences_of_their_own() -> None:
    assert len(REASONS) >= 20
    assert all(what and remedy and what != remedy for what, remedy in REASONS.values())
    assert len({what for what, _ in REASONS.values()}) == len(REASONS)
