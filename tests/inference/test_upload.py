"""receive_video: what a stranger may send, and what is left on disk afterwards (nothing)."""

import asyncio
import io
import os
import struct
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from sign_dist.errors import VideoError
from sign_dist.inference.upload import (
    DIR_PREFIX,
    Limits,
    UploadError,
    container,
    inspect,
    mp4_seconds,
    receive_video,
    sweep_leftovers,
)

LIMITS = Limits(max_bytes=200_000, max_seconds=10, max_pixels=640 * 480, max_receive_s=2)
FORM = "multipart/form-data; boundary=edge"


def video(*, size: tuple[int, int] = (64, 64), num_frames: int = 6, frame_s: float = 0.04, format: str = "mp4") -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=format) as out:
        stream = out.add_stream("libvpx" if format == "webm" else "libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for i in range(num_frames):
            frame = av.VideoFrame.from_ndarray(np.full((size[1], size[0], 3), 20 * i, np.uint8), format="rgb24")
            frame.pts, frame.time_base = round(i * frame_s * 1000), Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return buffer.getvalue()


def form(data: bytes, *, field: str = "video", name: str = "x.mp4") -> bytes:
    head = f'--edge\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'
    return head.encode() + data + b"\r\n--edge--\r\n"


def patched(data: bytes, box: bytes, offset: int, value: bytes) -> bytes:
    at = data.index(box) + len(box) + offset
    return data[:at] + value + data[at + len(value) :]


def receive(body: bytes, *, content_type: str = FORM, content_length: str = "", piece: int = 777, limits: Limits = LIMITS) -> bytes:
    """The bytes that arrived in the file, by way of chunks."""

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), piece):
            yield body[start : start + piece]

    async def go() -> bytes:
        async with receive_video(chunks(), content_type=content_type, content_length=content_length, limits=limits) as upload:
            assert upload.num_bytes == upload.path.stat().st_size
            return upload.path.read_bytes()

    return asyncio.run(go())


@pytest.fixture(autouse=True)
def nothing_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield
    assert list(tmp_path.glob(f"{DIR_PREFIX}*")) == []


@pytest.mark.parametrize("piece", [1, 7, 1000, 10**6])
def test_a_video_arrives_unchanged_however_it_is_cut_into_chunks(piece: int) -> None:
    data = video(format="webm" if piece == 1000 else "mp4")
    assert receive(form(data), piece=piece) == data


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/shadow", "..\\x", "a\x00b", "-rf", "x" * 3000, ""])
def test_what_the_client_calls_its_file_is_of_no_consequence(name: str) -> None:
    data = video()
    assert receive(form(data, name=name)) == data


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "empty"),
        (b"I am no video at all, just words. " * 100, "not_video"),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "not_video"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "not_video"),
        (b"#EXTM3U\nAVI file:///etc/passwd\n", "not_video"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "not_video"),
        (bytes(4) + b"ftypisom" + bytes(4000), "not_video"),
        (video()[:600], "not_video"),
        (video(size=(1280, 720)), "too_many_pixels"),
        (video(num_frames=4, frame_s=3600.0), "too_long"),
        (bytes(300_000), "too_many_bytes"),
    ],
)
def test_what_is_no_acceptable_video_is_refused_with_a_code(data: bytes, code: str) -> None:
    with pytest.raises((VideoError, UploadError)) as caught:
        receive(form(data))
    assert caught.value.code == code
    assert tempfile.gettempdir() not in str(caught.value)


def test_headers_that_declare_three_hours_are_refused_though_the_frames_say_otherwise() -> None:
    data = video()
    (timescale,) = struct.unpack_from(">I", data, data.index(b"mvhd") + 16)
    long = data
    for box, offset, ticks in ((b"mvhd", 16, timescale), (b"tkhd", 20, timescale), (b"mdhd", 16, 16000)):
        long = patched(long, box, offset, struct.pack(">I", 3 * 3600 * ticks))
    with pytest.raises(VideoError, match=r"10800\.0 s") as caught:
        receive(form(long))
    assert caught.value.code == "too_long"


def test_the_movie_header_is_read_in_both_versions(tmp_path: Path) -> None:
    def box(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body) + 8) + name + body

    old = box(b"mvhd", struct.pack(">IIIII", 0, 0, 0, 600, 1200) + bytes(80))
    new = box(b"mvhd", struct.pack(">IQQIQ", 1 << 24, 0, 0, 1000, 2**33) + bytes(80))
    path = tmp_path / "x"
    for header, seconds in ((old, 2.0), (new, 2**33 / 1000), (b"", 0.0), (b"\x00\x00\x00\x02mvhd", 0.0)):
        path.write_bytes(
            box(b"ftyp", b"isom") + struct.pack(">I", 1) + b"free" + struct.pack(">Q", 20) + bytes(4) + box(b"moov", header)
        )
        assert mp4_seconds(path) == seconds


@pytest.mark.parametrize(
    ("body", "content_type", "code"),
    [
        (form(b"x"), "application/json", "not_multipart"),
        (form(b"x"), "", "not_multipart"),
        (form(b"x"), "multipart/form-data", "bad_multipart"),
        (form(b"x"), "multipart/form-data; boundary=" + "y" * 300, "bad_multipart"),
        (form(b"x"), "multipart/form-data; boundary=other", "bad_multipart"),
        (form(video())[:-20], FORM, "bad_multipart"),
        (b"", FORM, "bad_multipart"),
        (b"--edge--\r\n", FORM, "no_video_field"),
        (form(video(), field="film"), FORM, "no_video_field"),
        (form(b"x").replace(b"\r\n--edge--\r\n", b"\r\n") + form(b"y"), FORM, "two_videos"),
        (b"--edge\r\n" + b"X-A: b\r\n" * 500 + b"\r\nx\r\n--edge--\r\n", FORM, "bad_multipart"),
        (b"--edge\r\nContent-Disposition: " + b"a" * 100_000, FORM, "bad_multipart"),
    ],
)
def test_what_is_no_acceptable_form_is_refused_with_a_code(body: bytes, content_type: str, code: str) -> None:
    with pytest.raises(UploadError) as caught:
        receive(body, content_type=content_type)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("declared", "code"), [(str(2 * 2**30), "too_many_bytes"), ("9" * 5000, "too_many_bytes"), ("-1", "bad_multipart")]
)
def test_a_declared_size_is_refused_before_the_body_is_touched(declared: str, code: str) -> None:
    async def never() -> AsyncIterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    async def go() -> None:
        async with receive_video(never(), content_type=FORM, content_length=declared, limits=LIMITS):
            pass

    with pytest.raises(UploadError) as caught:
        asyncio.run(go())
    assert caught.value.code == code


def test_a_body_without_end_is_cut_at_the_bound_wherever_its_bytes_go() -> None:
    for field in ("video", "other"):
        sent = 0

        async def endless(field: str = field) -> AsyncIterator[bytes]:
            nonlocal sent
            yield form(b"", field=field).removesuffix(b"\r\n--edge--\r\n")
            while True:
                sent += 50_000
                yield bytes(50_000)

        async def go(chunks: AsyncIterator[bytes]) -> None:
            async with receive_video(chunks, content_type=FORM, content_length="", limits=LIMITS):
                pass

        with pytest.raises(UploadError) as caught:
            asyncio.run(go(endless()))
        assert caught.value.code == "too_many_bytes"
        assert sent <= 2 * LIMITS.max_bytes


def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    async def stalls() -> AsyncIterator[bytes]:
        yield form(b"")[:20]
        await asyncio.sleep(60)

    async def go() -> None:
        limits = LIMITS.with_values({"max_receive_s": 0.05})
        async with receive_video(stalls(), content_type=FORM, content_length="", limits=limits):
            pass

    with pytest.raises(UploadError) as caught:
        asyncio.run(go())
    assert caught.value.code == "slow_upload"


def test_the_file_is_gone_when_the_request_is_cancelled() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield form(video())

    async def hold(arrived: asyncio.Event) -> None:
        async with receive_video(chunks(), content_type=FORM, content_length="", limits=LIMITS):
            arrived.set()
            await asyncio.sleep(60)

    async def go() -> None:
        arrived = asyncio.Event()
        task = asyncio.create_task(hold(arrived))
        await arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(go())


def test_leftovers_of_a_killed_process_are_swept_and_fresh_uploads_are_not(tmp_path: Path) -> None:
    old, fresh, foreign = tmp_path / f"{DIR_PREFIX}old", tmp_path / f"{DIR_PREFIX}new", tmp_path / "other"
    for folder in (old, fresh, foreign):
        folder.mkdir()
        (folder / "video").touch()
    two_hours_ago = time.time() - 7200
    os.utime(old, (two_hours_ago, two_hours_ago))
    os.utime(foreign, (two_hours_ago, two_hours_ago))
    assert sweep_leftovers() == 1
    assert (old.exists(), fresh.exists(), foreign.exists()) == (False, True, True)
    (fresh / "video").unlink()
    fresh.rmdir()


def test_containers_are_told_by_their_first_bytes() -> None:
    assert container(video()) == "mp4"
    assert container(video(format="webm")) == container(video(format="matroska")) == "matroska"
    assert container(video(format="avi")) == "avi"
    assert container(video(format="mpegts")) == "mpegts"
    assert container(b"G" * 1024) == "mpegts"  # a sync byte alone proves little: the prober decides


def test_declared_frames_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "video"
    path.write_bytes(video(num_frames=6))
    with pytest.raises(VideoError, match="6 frames"):
        inspect(path, LIMITS.with_values({"max_frames": 5}))
    assert inspect(path, LIMITS.with_values({"max_frames": 6})).num_frames == 6
