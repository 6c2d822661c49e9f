"""Long recordings: a span far inside comes frame-exact, by seeking, and nothing of the rest is held."""

import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from sign_dist.errors import VideoError
from sign_dist.video import pyav_reader
from sign_dist.video.decode import LONG_S, probe, read_clip, read_frames
from sign_dist.video.sandbox import Guarded
from sign_dist.video.sandbox_child import max_rss_bytes

BITS, WIDTH, HEIGHT = 16, 128, 32
MINUTES, FPS = 20, 10
ANY = {"fps": 25.0, "max_side_px": 640, "max_seconds": 30.0}


def picture(number: int) -> np.ndarray:
    """Vertical bars, light or dark: the binary digits of a number."""
    bars = np.array([number >> bit & 1 for bit in range(BITS)], np.uint8) * 180 + 40
    return np.broadcast_to(bars.repeat(WIDTH // BITS)[None, :, None], (HEIGHT, WIDTH, 3)).copy()


def numbers(frames: np.ndarray) -> list[int]:
    centres = np.arange(BITS) * (WIDTH // BITS) + WIDTH // BITS // 2
    return ((frames[:, HEIGHT // 2, centres].mean(axis=2) > 130) * (1 << np.arange(BITS))).sum(axis=1).tolist()


def write(path: Path, times_s: Sequence[float], codec: str = "libx264", **options: str) -> Path:
    if codec == "libx264":
        options = {"preset": "ultrafast", "crf": "20", "threads": "1", **options}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(FPS), options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = Fraction(1, 1000)
        if codec == "mpeg4":
            stream.codec_context.time_base = Fraction(1, FPS)
        base = stream.codec_context.time_base
        for k, time in enumerate(times_s):
            frame = av.VideoFrame.from_ndarray(picture(k), format="rgb24")
            frame.time_base, frame.pts = base, round(time / base)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


EVEN = [k / FPS for k in range(MINUTES * 60 * FPS)]
# Frames stand for 40 to 400 ms, in no rhythm.
VARYING = [round(t, 3) for t in np.cumsum([0.0, *np.random.default_rng(0).choice([0.04, 0.08, 0.1, 0.2, 0.4], 4000)])]
FILES: dict[str, tuple[list[float], dict[str, str]]] = {
    "bframes.mp4": (EVEN, {"bf": "3", "g": "250", "b-pyramid": "normal"}),
    "long_gop.mkv": (EVEN[:4000], {"bf": "0", "g": "100000", "keyint_min": "100000", "sc_threshold": "0"}),
    "varying.mp4": (VARYING, {"bf": "2", "g": "100"}),
    "stream.ts": (EVEN[:4000], {"bf": "2", "g": "50"}),
    "old.avi": (EVEN[:4000], {"codec": "mpeg4", "bf": "2", "g": "100"}),
    "open_gop.mp4": (EVEN[:4000], {"bf": "3", "g": "60", "x264-params": "open-gop=1:scenecut=0"}),
}


@pytest.fixture(scope="module")
def long_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, list[float]]]:
    folder = tmp_path_factory.mktemp("long")
    return {name: (write(folder / name, times, **options), times) for name, (times, options) in FILES.items()}


@pytest.mark.long
@pytest.mark.parametrize("name", FILES)
def test_spans_are_frame_exact(long_files: dict[str, tuple[Path, list[float]]], name: str) -> None:
    path, times = long_files[name]
    assert probe(path).duration_s > LONG_S
    rng = np.random.default_rng(1)
    for start in [0.0, 3.0, *rng.uniform(0, times[-1] - 6, 6).round(2), times[-1] - 2.5]:
        clip = read_clip(path, **ANY, start_s=float(start), end_s=float(start) + 2.5)
        inside = [k for k, t in enumerate(times) if start - 1e-6 <= t < start + 2.5 - 1e-6]
        seen = numbers(clip.frames)
        assert clip.num_source == len(inside)
        if times is not VARYING:
            assert seen == inside
        else:
            span_s = times[inside[-1]] - times[inside[0]]
            shown = [times[inside[0]] + k / 25 for k in range(math.floor(span_s * 25 + 1e-6) + 1)]
            assert seen == [max(k for k in inside if times[k] <= t + 1e-4) for t in shown]


@pytest.mark.long
@pytest.mark.parametrize("name", FILES)
def test_frames_by_number_are_those_frames(long_files: dict[str, tuple[Path, list[float]]], name: str) -> None:
    path, times = long_files[name]
    asked = [*np.random.default_rng(2).integers(0, len(times), 8).tolist(), 0, len(times) - 1, 5, 5]
    assert numbers(read_frames(path, asked)) == asked
    with pytest.raises(IndexError, match=f"no frame {len(times)}: its {len(times)} frames"):
        read_frames(path, [0, len(times)])
    with pytest.raises(IndexError, match="no frame -1"):
        read_frames(path, [-1])


@pytest.mark.long
@pytest.mark.parametrize("name", ["bframes.mp4", "varying.mp4", "stream.ts", "open_gop.mp4"])
def test_a_far_span_is_reached_by_seeking(
    long_files: dict[str, tuple[Path, list[float]]], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few frames are decoded for it, and few bytes read."""
    path, times = long_files[name]
    decoded = 0
    frames = pyav_reader._frames

    def counted(*args: object, **kwargs: object) -> object:
        nonlocal decoded
        for pair in frames(*args, **kwargs):  # pyright: ignore[reportArgumentType, reportCallIssue]
            decoded += 1
            yield pair

    monkeypatch.setattr(pyav_reader, "_frames", counted)
    read_clip(path, **ANY, start_s=times[-1] * 0.8, end_s=times[-1] * 0.8 + 2)
    assert 2 < decoded < 600 < len(times)


def test_spans_that_leave_a_long_file_are_refused(long_files: dict[str, tuple[Path, list[float]]]) -> None:
    path, times = long_files["bframes.mp4"]
    for start, end, code in [
        (times[-1] + 10, times[-1] + 12, "span_outside"),
        (times[-1] - 1, times[-1] + 3, "span_outside"),
        (600.01, 600.05, "too_short"),
        (600, 700, "too_long"),
    ]:
        with pytest.raises(VideoError) as error:
            read_clip(path, **ANY, start_s=start, end_s=end)
        assert error.value.code == code, str(error.value)


@pytest.mark.parametrize("name", ["bframes.mp4", "long_gop.mkv", "stream.ts"])
def test_a_long_file_that_was_cut_is_noticed_where_it_matters(
    long_files: dict[str, tuple[Path, list[float]]], name: str, tmp_path: Path
) -> None:
    path, times = long_files[name]
    cut = tmp_path / name
    if name.endswith("mp4"):  # with its index at the front, as files for the web are
        with av.open(str(path)) as given, av.open(str(cut), "w", options={"movflags": "faststart"}) as taken:
            stream = given.streams.video[0]
            out = taken.add_stream_from_template(stream)
            for packet in given.demux(stream):
                if packet.dts is not None:
                    packet.stream = out
                    taken.mux(packet)
    else:
        cut.write_bytes(path.read_bytes())
    whole = cut.read_bytes()
    cut.write_bytes(whole[: len(whole) * 6 // 10])
    early = read_clip(cut, **ANY, start_s=times[-1] * 0.2, end_s=times[-1] * 0.2 + 2)
    assert numbers(early.frames)[0] == next(k for k, t in enumerate(times) if t >= times[-1] * 0.2 - 1e-6)
    with pytest.raises(VideoError) as error:
        read_clip(cut, **ANY, start_s=times[-1] * 0.9, end_s=times[-1] * 0.9 + 2)
    assert error.value.code in ("truncated", "decode_failed", "span_outside")


def rss_of_reading(path: str, start_s: float) -> list[int]:
    """For a child: memory before and after reading two seconds."""
    before = max_rss_bytes()
    frames = read_clip(path, fps=25, max_side_px=640, max_seconds=30, start_s=start_s, end_s=start_s + 2).frames
    return [before, max_rss_bytes(), len(frames)]


@pytest.mark.long
def test_a_span_of_a_huge_file_needs_little_memory(long_files: dict[str, tuple[Path, list[float]]], tmp_path: Path) -> None:
    """Three gigabytes behind the index: whoever reads the file whole does not fit into half a gigabyte."""
    source, times = long_files["bframes.mp4"]
    path = tmp_path / "huge.mp4"
    data = source.read_bytes()
    path.write_bytes(data + (8).to_bytes(4) + b"free")
    hole = 3 * 2**30
    with path.open("r+b") as file:
        file.seek(len(data))
        file.write((1).to_bytes(4) + b"free" + (16 + hole).to_bytes(8))
        file.truncate(len(data) + 16 + hole)
    with Guarded(rss_of_reading, memory_bytes=2**29) as guarded:
        before, after, count = guarded(str(path), times[-1] * 0.7)
    assert count == 20
    assert after - before < 100 * 2**20
