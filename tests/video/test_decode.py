"""Decoding: the frame that is asked for is the frame that comes, at any rate and in any container, or a reason code."""

import csv
import math
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sign_dist.config.data import Sampling
from sign_dist.errors import VideoError
from sign_dist.video import decode
from sign_dist.video.check import MIN_FRAMES, MIN_SIDE_PX, REASONS, check_clip
from sign_dist.video.decode import Clip, probe, read_clip, time_indices

Paint = Callable[..., Path]
Numbers = Callable[[np.ndarray], list[int]]
ANY = {"fps": 25.0, "max_side_px": 640, "max_seconds": 30.0}


def read(path: Path, **want: float) -> Clip:
    return read_clip(path, **{**ANY, **want})  # pyright: ignore[reportArgumentType]


def code_of(path: Path, **want: float) -> str:
    with pytest.raises(VideoError) as error:
        read(path, **want)
    assert error.value.code in REASONS
    assert "\n" not in str(error.value)
    return error.value.code


def on_screen(times: list[float], fps: float, start_s: float = 0.0, end_s: float = 0.0) -> list[int]:
    """The law: frames on screen every 1 / fps from the first one that starts in the span to the last."""
    inside = [k for k, t in enumerate(times) if t >= start_s - 1e-6 and (not end_s or t < end_s - 1e-6)]
    span = times[inside[-1]] - times[inside[0]]
    steps = np.diff([times[k] for k in inside])
    if span and max(steps) <= 1.5 * np.median(steps) and (len(inside) - 1) / span <= fps * 1.01:
        return inside
    asked = [times[inside[0]] + k / fps for k in range(math.floor(span * fps + 1e-6) + 1)]
    return [max(k for k in inside if times[k] <= t + 1e-4) for t in asked]


@pytest.mark.parametrize("fps", [10, 25, 29.97, 50, 60, 120])
@pytest.mark.parametrize("bframes", ["0", "3"])
def test_frames_are_taken_by_time(tmp_path: Path, paint: Paint, numbers_of: Numbers, fps: float, bframes: str) -> None:
    path = paint(tmp_path / "clip.mp4", num_frames=60, fps=fps, bf=bframes)
    times = [k / fps for k in range(60)]
    for wanted in (25.0, 12.5):
        clip = read(path, fps=wanted)
        assert numbers_of(clip.frames) == on_screen(times, wanted)
        assert clip.fps == pytest.approx(min(wanted, fps), rel=1e-3)
        assert clip.decoder == "decord"
    spans = [(0.2, 0.45), (0.0, 0.3), (0.4, 0.0)]
    for start_s, end_s in spans:
        assert numbers_of(read(path, start_s=start_s, end_s=end_s).frames) == on_screen(times, 25, start_s, end_s)


@pytest.mark.parametrize(
    ("name", "codec"), [("c.webm", "libvpx-vp9"), ("c.avi", "mpeg4"), ("c.ts", "libx264"), ("c.mkv", "libx264"), ("c.mov", "mjpeg")]
)
def test_containers_and_decoders_agree(tmp_path: Path, paint: Paint, numbers_of: Numbers, name: str, codec: str) -> None:
    path = paint(tmp_path / name, num_frames=20, fps=50, codec=codec)
    assert numbers_of(read(path).frames) == list(range(0, 20, 2))
    assert numbers_of(read(path, start_s=0.2, end_s=0.32).frames) == [10, 12, 14]


@pytest.mark.parametrize("bframes", ["0", "2"])
def test_a_varying_rate_shows_each_frame_as_long_as_it_stood(
    tmp_path: Path, paint: Paint, numbers_of: Numbers, bframes: str
) -> None:
    steps = [0.04, 0.04, 0.2, 0.02, 0.02, 0.08, 0.12, 0.04, 0.04, 0.4, 0.04]
    times = [float(t) for t in np.cumsum([0.0, *steps])]
    path = paint(tmp_path / "clip.mp4", num_frames=len(times), times_s=times, bf=bframes)
    clip = read(path)
    assert clip.fps == 25
    assert numbers_of(clip.frames) == on_screen(times, 25)


@pytest.mark.parametrize("rotation", [90, 180, 270])
@pytest.mark.parametrize("reader", [decode._read_decord, decode._read_pyav])
def test_frames_stand_upright(
    tmp_path: Path, paint: Paint, rotation: int, reader: Callable[[Path, decode.VideoInfo, decode._Want], Clip]
) -> None:
    path = paint(tmp_path / "clip.mp4", num_frames=8, width=192, height=128, rotation=rotation)
    want = decode._Want(25.0, 640, 30.0, 0.0, 0.0)
    frame = reader(path, probe(path), want).frames[0].astype(int)
    assert frame.shape == ((128, 192, 3) if rotation == 180 else (192, 128, 3))
    red = (frame[..., 0] - frame[..., 1]) > 80
    y, x = (np.argwhere(red).mean(axis=0) / red.shape) > 0.5
    # FFmpeg turns counter-clockwise by the angle that is written: the red corner leaves the top left that way.
    assert (bool(y), bool(x)) == {90: (True, False), 180: (True, True), 270: (False, True)}[rotation]


@pytest.mark.parametrize("reader", [decode._read_decord, decode._read_pyav])
@pytest.mark.parametrize("span", [(0.0, 0.0), (0.3, 0.9), (1.5, 0.0), (2.2, 2.36)])
def test_both_decoders_give_the_same_frames(
    painted_60: Path, numbers_of: Numbers, span: tuple[float, float], reader: Callable[[Path, decode.VideoInfo, decode._Want], Clip]
) -> None:
    clip = reader(painted_60, probe(painted_60), decode._Want(12.5, 640, 30.0, *span))
    assert numbers_of(clip.frames) == on_screen([k / 25 for k in range(60)], 12.5, *span)


@pytest.fixture(scope="module")
def painted_60(tmp_path_factory: pytest.TempPathFactory, paint: Paint) -> Path:
    return paint(tmp_path_factory.mktemp("clips") / "sixty.mp4", num_frames=60)


@pytest.fixture(scope="module")
def painted_gif(tmp_path_factory: pytest.TempPathFactory, paint: Paint) -> Path:
    return paint(tmp_path_factory.mktemp("clips") / "sixty.gif", num_frames=60, fps=20, codec="gif")


@pytest.mark.parametrize("name", ["painted_60", "painted_gif"])
def test_spans_outside_the_file_are_too_short_and_long_ones_too_long(name: str, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(name)
    assert code_of(path, start_s=3.5) == "too_short"
    assert code_of(path, start_s=9, end_s=9.5) == "too_short"
    assert code_of(path, start_s=0.001, end_s=0.002) == "too_short"
    assert code_of(path, max_seconds=1.0) == "too_long"
    assert code_of(path, max_seconds=1.0, end_s=2.0) == "too_long"
    assert len(read(path, max_seconds=1.0, end_s=0.4)) >= 8
    assert len(read(path, max_seconds=1.0, start_s=2.0)) >= 8, "what is left after start counts, not the file"


def test_pictures_are_scaled_down_to_the_longer_side_and_never_up(tmp_path: Path, paint: Paint, numbers_of: Numbers) -> None:
    path = paint(tmp_path / "clip.mp4", num_frames=6, width=160, height=96)
    for side, shape in ((640, (96, 160)), (160, (96, 160)), (80, (48, 80)), (64, (38, 64))):
        frames = read(path, max_side_px=side).frames
        assert frames.shape == (6, *shape, 3)
        assert frames.dtype == np.uint8
        assert numbers_of(frames) == list(range(6))


@given(
    st.lists(st.floats(min_value=0.001, max_value=0.5), min_size=1, max_size=40),
    st.floats(min_value=1, max_value=60),
    st.floats(min_value=0, max_value=3),
    st.floats(min_value=0.01, max_value=4),
)
def test_indices_by_time_never_run_back_nor_leave_the_span(steps: list[float], fps: float, start_s: float, length_s: float) -> None:
    times = np.cumsum([0.0, *steps])
    for end_s in (0.0, start_s + length_s):
        indices, rate = time_indices(times, fps=fps, start_s=start_s, end_s=end_s)
        assert (np.diff(indices) >= 0).all()
        inside = (times >= start_s - 1e-6) & ((times < end_s) | (end_s == 0))
        assert inside[indices].all()
        assert (len(indices) > 0) == bool(inside.any())
        if len(indices) > 1:
            assert 0 < rate <= fps * 1.02
            span = times[inside][-1] - times[inside][0]
            assert abs(len(indices) - 1 - span * rate) <= 1 + 0.02 * span * rate


@given(st.integers(2, 200), st.integers(1, 120), st.integers(1, 60))
def test_an_even_clip_gives_every_frame_once_or_fewer_evenly(num_frames: int, native: int, fps: int) -> None:
    indices, rate = time_indices(np.arange(num_frames) / native, fps=fps, start_s=0, end_s=0)
    if native <= fps:
        assert indices.tolist() == list(range(num_frames))
        assert rate == pytest.approx(native)
    else:
        assert rate == pytest.approx(native) if native <= fps * 1.01 else rate == fps
        steps = np.diff(indices)
        assert len(steps) == 0 or steps.max() - steps.min() <= 1


@pytest.mark.parametrize("content", [b"", b"not a video at all", b"\x00" * 5000, b"\x89PNG\r\n\x1a\n", b"<html></html>" * 50])
def test_what_is_no_video_has_a_code(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    assert code_of(path) in (("not_video", "decode_failed") if content else ("empty",))


@pytest.mark.parametrize("name", ["a.mp4", "a.m3u8", "a.txt"])
@pytest.mark.parametrize(
    "text", ["#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nreal.ts\n#EXT-X-ENDLIST\n", "ffconcat version 1.0\nfile real.ts\n"]
)
def test_a_playlist_does_not_lead_to_another_file(tmp_path: Path, paint: Paint, name: str, text: str) -> None:
    paint(tmp_path / "real.ts")
    (tmp_path / name).write_text(text)
    assert code_of(tmp_path / name) == "not_video"


@pytest.mark.parametrize("name", ["no.mp4", "x" * 300 + ".mp4", "a\0b.mp4", "\udcff.mp4", "", "."])
def test_names_that_no_file_has_are_missing(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    assert code_of(path) == "missing"
    assert check_clip(path).reason == "missing"


@pytest.mark.parametrize(
    "name", ["-x.mp4", "a'b \".mp4", "%03d.mp4", "file:x.mp4", "http:x.mp4", "ж [1].mp4", "a\tb\n.mp4", "concat|a.mp4"]
)
def test_odd_names_are_only_names(
    tmp_path: Path, paint: Paint, numbers_of: Numbers, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = paint(tmp_path / "plain.mp4", num_frames=5).rename(tmp_path / name)
    assert numbers_of(read(path).frames) == list(range(5))
    monkeypatch.chdir(tmp_path)
    assert numbers_of(read(Path(name)).frames) == list(range(5))


@pytest.mark.parametrize("name", ["a.mp4", "a.avi", "a.webm"])
def test_damaged_bytes_give_frames_or_a_code_and_nothing_else(tmp_path: Path, paint: Paint, name: str) -> None:
    codec = {"a.mp4": "libx264", "a.avi": "mpeg4", "a.webm": "libvpx-vp9"}[name]
    whole = paint(tmp_path / name, num_frames=10, codec=codec).read_bytes()
    rng = random.Random(0)
    seen: set[str] = set()
    for i in range(40):
        content = bytearray(whole)
        if i % 3 == 0:
            del content[rng.randrange(len(content)) :]
        else:
            for _ in range(rng.choice([1, 4, 40])):
                content[rng.randrange(len(content))] = rng.randrange(256)
        path = tmp_path / f"{i}-{name}"
        path.write_bytes(bytes(content))
        checked = check_clip(path)
        assert checked.reason in {"", *REASONS}
        assert bool(checked.detail) == bool(checked.reason)
        seen.add(checked.reason)
    assert len(seen) > 1


def test_an_unknown_codec_has_a_code(tmp_path: Path, paint: Paint) -> None:
    whole = paint(tmp_path / "a.mp4", num_frames=6).read_bytes()
    strange = tmp_path / "strange.mp4"
    strange.write_bytes(whole.replace(b"avc1", b"zzzz"))
    assert code_of(strange) in ("not_video", "decode_failed")


def test_frames_beyond_the_memory_bound_are_refused_but_a_few_large_ones_are_not(
    tmp_path: Path, paint: Paint, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [paint(tmp_path / "a.mp4", num_frames=8), paint(tmp_path / "a.gif", num_frames=8, codec="gif")]
    monkeypatch.setattr(decode, "MAX_BYTES_DECODED", 9 * 64 * 48 * 3)
    for path in paths:
        assert len(read(path)) >= 7
    monkeypatch.setattr(decode, "MAX_BYTES_DECODED", 5 * 64 * 48 * 3)
    for path in paths:
        assert code_of(path) == "too_large"
    monkeypatch.setattr(decode, "MAX_PIXELS", 1000)
    for path in paths:
        assert code_of(path) == "too_large"


def flat(path: Path, colours: list[tuple[int, int, int]]) -> Path:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"threads": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for colour in colours:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), colour, np.uint8), format="rgb24")))
        container.mux(stream.encode(None))
    return path


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


def test_no_memory_and_no_disk_are_reasons(tmp_path: Path, paint: Paint, monkeypatch: pytest.MonkeyPatch) -> None:
    path = paint(tmp_path / "a.mp4")

    def fail(error: BaseException) -> Callable[..., Clip]:
        def read_clip(*_: object, **__: object) -> Clip:
            raise error

        return read_clip

    monkeypatch.setattr("sign_dist.video.check.read_clip", fail(MemoryError()))
    assert check_clip(path).reason == "too_large"
    monkeypatch.setattr("sign_dist.video.check.read_clip", fail(OSError(5, "Input/output error")))
    assert check_clip(path).reason == "missing"


def test_every_odd_video_is_used_or_refused_for_the_right_reason(shared_folder: Path) -> None:
    folder = shared_folder / "data" / "videos" / "odd"
    if not folder.is_dir():
        pytest.skip(f"no folder {folder}")
    with (folder / "labels.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    assert {row["path"] for row in rows} < {path.name for path in folder.iterdir()}
    sampling = Sampling()
    found = {row["path"]: check_clip(folder / row["path"], sampling=sampling) for row in rows}
    wrong = {name: (c.reason, c.detail) for row in rows if (c := found[name := row["path"]]).reason not in expected(row, sampling)}
    assert not wrong
    assert all(row["sha256"] == found[row["path"]].sha256 for row in rows)


def expected(row: dict[str, str], sampling: Sampling) -> set[str]:
    """What may become of a video, by what FFmpeg says of it."""
    status, frames = row["ffmpeg_status"], int(row["frames"] or 0)
    if row["bytes"] == "0":
        return {"empty"}
    if status == "ok, no video stream":
        return {"no_video_stream"}
    if status == "error: invalid data":
        return {"not_video"}
    if status != "ok" and frames == 0:
        return {"decode_failed"}
    if status != "ok":
        return {"truncated"}
    fps, wanted = float(row["fps"]), sampling.fps
    sampled = frames if fps <= wanted * 1.01 else math.floor((frames - 1) / fps * wanted + 1e-6) + 1
    if sampled < MIN_FRAMES:
        return {"too_short"}
    if min(int(row["width"]), int(row["height"])) < MIN_SIDE_PX:
        return {"too_small"}
    return {"blank"} if "black" in row["notes"] or "constant frames" in row["notes"] else {""}
