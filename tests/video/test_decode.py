"""Decoding: the frame that is asked for is the frame that comes, at any rate and in any container, or a reason code."""

import math
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sign_dist.errors import VideoError
from sign_dist.video import clip as budgets
from sign_dist.video import decord_reader, pyav_reader
from sign_dist.video.check import REASONS, check_clip
from sign_dist.video.clip import Want, choose
from sign_dist.video.decode import Clip, probe, read_clip, read_frames, time_indices
from sign_dist.video.source import find_source

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


def by_decord(path: Path, want: Want) -> np.ndarray:
    """The frames of `want` by decord alone."""
    source = find_source(path)
    with pyav_reader.opened(source) as (container, stream, info):
        index = pyav_reader.frame_index(container, stream, info, want.max_side_px)
    choice = choose(index.times, want, path.name)
    return decord_reader.take(source, info, index, choice.indices, choice.last, want.max_side_px)


def by_pyav(path: Path, want: Want) -> np.ndarray:
    """The frames of `want` by PyAV alone, told what the packets say."""
    source = find_source(path)
    with pyav_reader.opened(source) as (container, stream, info):
        index = pyav_reader.frame_index(container, stream, info, want.max_side_px)
    return pyav_reader.read(source, info, want, index).frames


def by_seeking(path: Path, want: Want) -> np.ndarray:
    """The frames of `want` by PyAV alone, as it reads a span of a long file."""
    source = find_source(path)
    return pyav_reader.read(source, probe(path), want, None).frames


READERS = [by_decord, by_pyav, by_seeking]
Reader = Callable[[Path, Want], np.ndarray]


def on_screen(times: list[float], fps: float, start_s: float = 0.0, end_s: float = 0.0) -> list[int]:
    """The law: frames on screen every 1 / fps from the first one that starts in the span to the last."""
    inside = [k for k, t in enumerate(times) if t >= start_s - 1e-6 and (not end_s or t < end_s - 1e-6)]
    span = times[inside[-1]] - times[inside[0]]
    steps = np.diff([times[k] for k in inside])
    if span and max(steps) <= 1.5 * np.median(steps) and (len(inside) - 1) / span <= fps * 1.01:
        return inside
    asked = [times[inside[0]] + k / fps for k in range(math.floor(span * fps + 1e-6) + 1)]
    return [max(k for k in inside if times[k] <= t + 1e-4) for t in asked]


@pytest.mark.long
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
@pytest.mark.parametrize("side", [640, 64])
@pytest.mark.parametrize("reader", READERS)
def test_frames_stand_upright(tmp_path: Path, paint: Paint, rotation: int, side: int, reader: Reader) -> None:
    path = paint(tmp_path / "clip.mp4", num_frames=8, width=192, height=128, rotation=rotation)
    frame = reader(path, Want(25.0, side, 30.0))[0].astype(int)
    high, wide = (128, 192) if side == 640 else (43, 64)
    assert frame.shape == ((high, wide, 3) if rotation == 180 else (wide, high, 3))
    red = (frame[..., 0] - frame[..., 1]) > 80
    y, x = (np.argwhere(red).mean(axis=0) / red.shape) > 0.5
    # FFmpeg turns counter-clockwise by the angle that is written: the red corner leaves the top left that way.
    assert (bool(y), bool(x)) == {90: (True, False), 180: (True, True), 270: (False, True)}[rotation]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("span", [(0.0, 0.0), (0.3, 0.9), (1.5, 0.0), (2.2, 2.36)])
def test_all_readers_give_the_same_frames(painted_60: Path, numbers_of: Numbers, span: tuple[float, float], reader: Reader) -> None:
    frames = reader(painted_60, Want(12.5, 640, 30.0, *span))
    assert numbers_of(frames) == on_screen([k / 25 for k in range(60)], 12.5, *span)


def test_readers_scale_alike(shared_folder: Path) -> None:
    """A fallback must not change what a model sees: scaled frames of both decoders differ less than by a re-encoding."""
    path = shared_folder / "data" / "videos" / "odd" / "book_h264_bframes.mp4"
    if not path.is_file():
        pytest.skip(f"no file {path}")
    want = Want(5.0, 224, 30.0)
    a, b = (reader(path, want).astype(float) for reader in (by_decord, by_pyav))
    assert a.shape == b.shape == (19, 168, 224, 3)
    assert np.abs(a - b).mean() < 2.0


@pytest.fixture(scope="module")
def painted_60(tmp_path_factory: pytest.TempPathFactory, paint: Paint) -> Path:
    return paint(tmp_path_factory.mktemp("clips") / "sixty.mp4", num_frames=60)


@pytest.fixture(scope="module")
def painted_gif(tmp_path_factory: pytest.TempPathFactory, paint: Paint) -> Path:
    return paint(tmp_path_factory.mktemp("clips") / "sixty.gif", num_frames=60, fps=20, codec="gif")


@pytest.mark.parametrize("name", ["painted_60", "painted_gif"])
def test_spans_outside_the_file_are_refused_and_so_are_long_ones(name: str, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(name)
    assert code_of(path, start_s=3.5) == "span_outside"
    assert code_of(path, start_s=9, end_s=9.5) == "span_outside"
    assert code_of(path, start_s=1.5, end_s=4.5) == "span_outside", "most of a sign is not the sign"
    assert len(read(path, start_s=1.5, end_s=2.85)) > 8, "annotators are not exact"
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
    assert code_of(tmp_path / name) == "playlist"


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


@pytest.mark.long
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
    assert code_of(strange) == "unsupported_codec"


def test_frames_beyond_the_memory_bound_are_refused_but_a_few_large_ones_are_not(
    tmp_path: Path, paint: Paint, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [paint(tmp_path / "a.mp4", num_frames=8), paint(tmp_path / "a.gif", num_frames=8, codec="gif")]
    monkeypatch.setattr(budgets, "MAX_BYTES_DECODED", 9 * 64 * 48 * 3)
    for path in paths:
        assert len(read(path)) >= 7
    monkeypatch.setattr(budgets, "MAX_BYTES_DECODED", 5 * 64 * 48 * 3)
    for path in paths:
        assert code_of(path) == "too_large"
    monkeypatch.setattr(budgets, "MAX_PIXELS", 1000)
    for path in paths:
        assert code_of(path) == "too_large"


@pytest.mark.parametrize("bframes", ["0", "2"])
def test_an_edit_list_that_cuts_the_start_is_obeyed(tmp_path: Path, paint: Paint, numbers_of: Numbers, bframes: str) -> None:
    """As a phone trims a recording: the frames before the cut stay in the file, and nobody shows them."""
    import av

    whole, cut = paint(tmp_path / "whole.mp4", num_frames=40, bf=bframes), tmp_path / "cut.mp4"
    with (
        av.open(str(whole)) as given,
        av.open(str(cut), "w", options={"use_editlist": "1", "avoid_negative_ts": "disabled"}) as taken,
    ):
        stream = given.streams.video[0]
        out = taken.add_stream_from_template(stream)
        for packet in given.demux(stream):
            if packet.dts is not None and packet.pts is not None:
                shift = round(10 / 25 / stream.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, out
                taken.mux(packet)
    for clip in (read(cut), Clip(by_seeking(cut, Want(25.0, 640, 30.0)), 25.0, "")):
        assert numbers_of(clip.frames) == list(range(10, 40))
    assert numbers_of(read(cut, start_s=0.4, end_s=0.6).frames) == list(range(20, 25))
    assert numbers_of(read_frames(cut, [0, 29])) == [10, 39]
