"""A stranger's video: bounds on bytes, type, pixels and seconds before anything decodes it.

The multipart body goes chunk by chunk into one file of our own naming; what the client calls it is never read. Only
bytes that begin like a video container reach the prober: a decoder library also reads playlists and image sequences,
which name other files and addresses, and a stranger must not be able to make the server open those.
"""

import asyncio
import contextlib
import dataclasses
import logging
import shutil
import struct
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

from pydantic import Field
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from sign_dist.config.base import Settings
from sign_dist.errors import SignDistError, VideoError
from sign_dist.video.decode import VideoInfo, probe

logger = logging.getLogger(__name__)

# What boundaries, part headers and small extra fields may add to the video itself.
FRAMING_BYTES = 64 * 1024
# The prober's messages name the file by this, so nothing of the server's file system reaches the client.
FILE_NAME = "video"
DIR_PREFIX = "sign-dist-upload-"
CONTAINERS = "MP4, MOV, WebM, MKV, AVI, MPEG, WMV, FLV, Ogg and GIF"
HEAD_BYTES = 1024
MAX_BOXES = 1000
# (container, offset, bytes there). An MP4 begins with the size of its first box, then that box's name.
MAGIC = (
    *(("mp4", 4, box) for box in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot")),
    ("matroska", 0, b"\x1a\x45\xdf\xa3"),
    ("avi", 8, b"AVI "),
    ("gif", 0, b"GIF87a"),
    ("gif", 0, b"GIF89a"),
    ("mpeg", 0, b"\x00\x00\x01\xba"),
    ("mpeg", 0, b"\x00\x00\x01\xb3"),
    ("wmv", 0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),
    ("flv", 0, b"FLV\x01"),
    ("ogg", 0, b"OggS"),
)


class Limits(Settings):
    """What one request may cost, and how many may wait."""

    max_bytes: int = Field(default=64 * 2**20, ge=1024)
    """Size of the video file."""
    max_seconds: float = Field(default=30.0, gt=0)
    """Duration that the container declares. One that declares none is cut by the model's own bound while it decodes."""
    max_pixels: int = Field(default=4096 * 2304, ge=1024)
    """Width times height that the container declares."""
    max_frames: int = Field(default=7200, ge=1)
    """Frames that the container declares."""
    max_queued: int = Field(default=48, ge=1)
    """Requests in one process at a time, received, waiting or answered; the next one gets 503."""
    max_receive_s: float = Field(default=60.0, gt=0)
    """The body must have arrived by then, else 408."""
    max_wait_s: float = Field(default=180.0, gt=0)
    """The answer must be there so long after the body, else 504."""


class UploadError(SignDistError):
    """A request body that is no acceptable upload. `code` is a problem code of `sign_dist.inference.api`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclasses.dataclass(frozen=True)
class Upload:
    """A received file, and what it says of itself."""

    path: Path
    num_bytes: int
    info: VideoInfo


@contextlib.asynccontextmanager
async def receive_video(
    chunks: AsyncIterator[bytes], *, content_type: str, content_length: str, limits: Limits, field: str = "video"
) -> AsyncIterator[Upload]:
    """Stream a multipart body into a temporary file, which is gone when the block is left.

    `content_type` and `content_length` are the request's headers, "" if it has none.

    Raises:
        UploadError: what is wrong with the request: `too_many_bytes`, `slow_upload`, `not_multipart`, `bad_multipart`,
            `no_video_field`, `two_videos`.
        VideoError: what is wrong with the video: what `probe` raises, and `too_long`, `too_many_pixels`.
    """
    refuse_declared_size(content_length, limits)
    boundary = _boundary(content_type, field)
    folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix=DIR_PREFIX))
    try:
        path = folder / FILE_NAME
        with path.open("wb") as file:
            sink = _FieldToFile(file, field, limits.max_bytes)
            try:
                async with asyncio.timeout(limits.max_receive_s):
                    await _drain(chunks, boundary, sink, limits)
            except TimeoutError:
                raise UploadError(
                    "slow_upload", f"the body did not arrive within {limits.max_receive_s:g} s: send a smaller video"
                ) from None
        sink.refuse_incomplete()
        info = await asyncio.to_thread(inspect, path, limits)
        yield Upload(path, sink.num_bytes, info)
    finally:
        # Not awaited: a request that is being cancelled must still clean up.
        shutil.rmtree(folder, ignore_errors=True)


def refuse_declared_size(content_length: str, limits: Limits) -> None:
    """Refuse by the Content-Length header alone, before a byte of the body is read.

    Raises:
        UploadError: `too_many_bytes`, or `bad_multipart` for a header that is no number.
    """
    if not content_length:
        return
    if not (content_length.isascii() and content_length.isdigit()):
        raise UploadError("bad_multipart", "the Content-Length header is not a number")
    if int(content_length[:20]) > limits.max_bytes + FRAMING_BYTES:
        raise _too_many_bytes(limits.max_bytes)


def inspect(path: Path, limits: Limits) -> VideoInfo:
    """Look at a received file's first bytes and headers; nothing is decoded.

    Raises:
        VideoError: `empty`, `not_video`, `no_video_stream`, `too_large`, `too_long`, `too_many_pixels`.
    """
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if not head:
        raise VideoError("empty", "the video has 0 bytes: choose the file again")
    kind = container(head)
    if not kind:
        raise VideoError("not_video", f"the file does not begin like a video; accepted are {CONTAINERS}")
    info = probe(path)
    # FFmpeg believes an MP4's table of frames and passes over a movie header that says otherwise.
    seconds = max(info.duration_s, mp4_seconds(path) if kind == "mp4" else 0.0)
    if seconds > limits.max_seconds:
        raise VideoError(
            "too_long",
            f"the video says it is {seconds:.1f} s long; at most {limits.max_seconds:g} s are allowed: cut it",
        )
    if info.num_frames > limits.max_frames:
        raise VideoError(
            "too_long",
            f"the video says it has {info.num_frames} frames; at most {limits.max_frames} are allowed: cut it",
        )
    if info.width * info.height > limits.max_pixels:
        raise VideoError(
            "too_many_pixels",
            f"the video says it is {info.width}x{info.height}; at most {limits.max_pixels} pixels a frame are allowed: "
            "scale it down",
        )
    return info


def container(head: bytes) -> str:
    """The container that a file's first bytes announce, or "" if it is none that is accepted.

    >>> container(bytes(4) + b"ftypisom"), container(b"#EXTM3U"), container(b"GIF89a")
    ('mp4', '', 'gif')
    """
    for name, offset, magic in MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return "" if name == "avi" and not head.startswith(b"RIFF") else name
    return "mpegts" if _is_transport_stream(head) else ""


def mp4_seconds(path: Path) -> float:
    """The duration in an MP4's movie header (ISO 14496-12, 8.2.2), 0 where there is none."""
    with path.open("rb") as file:
        end = file.seek(0, 2)
        moov = _find_box(file, b"moov", 0, end)
        mvhd = _find_box(file, b"mvhd", *moov) if moov else None
        if not mvhd:
            return 0.0
        file.seek(mvhd[0])
        body = file.read(32)
    layout = struct.Struct(">20xIQ" if body[:1] == b"\1" else ">12xII")
    if len(body) < layout.size:
        return 0.0
    timescale, duration = layout.unpack_from(body)
    unknown = (0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF)
    return duration / timescale if timescale and duration not in unknown else 0.0


def _find_box(file: BinaryIO, name: bytes, start: int, end: int) -> tuple[int, int] | None:
    """Where the contents of the first box of that name begin and end."""
    for _ in range(MAX_BOXES):
        file.seek(start)
        head = file.read(16)
        if len(head) < 8 or start >= end:
            return None
        size, skip = int.from_bytes(head[:4]), 8
        if size == 1:
            size, skip = int.from_bytes(head[8:16]), 16
        stop = end if size == 0 else min(start + size, end)
        if head[4:8] == name:
            return start + skip, stop
        if stop < start + skip:
            return None
        start = stop
    return None


def sweep_leftovers(older_than_s: float = 3600.0) -> int:
    """Delete upload folders that a killed process left behind; how many there were."""
    before = time.time() - older_than_s
    leftovers: list[Path] = []
    for folder in Path(tempfile.gettempdir()).glob(f"{DIR_PREFIX}*"):
        with contextlib.suppress(OSError):  # another process sweeps too
            if folder.stat().st_mtime < before:
                leftovers.append(folder)
    for folder in leftovers:
        shutil.rmtree(folder, ignore_errors=True)
    if leftovers:
        logger.info("deleted %d leftover upload folders", len(leftovers))
    return len(leftovers)


class _FieldToFile:
    """The multipart parser's callbacks: one field goes to a file, every other one is dropped."""

    def __init__(self, file: BinaryIO, field: str, max_bytes: int) -> None:
        self.num_bytes = 0
        self._file, self._field, self._max_bytes = file, field.encode(), max_bytes
        self._header, self._value, self._disposition, self._name = b"", b"", b"", b""
        self._others: set[str] = set()
        self._found, self._ended = 0, False

    def callbacks(self) -> dict[str, object]:
        names = (
            "on_part_begin",
            "on_header_field",
            "on_header_value",
            "on_header_end",
            "on_headers_finished",
            "on_part_data",
            "on_end",
        )
        return {name: getattr(self, name) for name in names}

    def on_part_begin(self) -> None:
        self._header, self._value, self._disposition, self._name = b"", b"", b"", b""

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header, self._value = b"", b""

    def on_headers_finished(self) -> None:
        self._name = parse_options_header(self._disposition)[1].get(b"name", b"")
        if self._name != self._field:
            if len(self._others) < 8:
                self._others.add(self._name.decode("utf-8", "replace")[:40])
            return
        self._found += 1
        if self._found > 1:
            raise UploadError("two_videos", f"field {self._field.decode()!r} came more than once: send one video per request")

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._name != self._field:
            return
        self.num_bytes += end - start
        if self.num_bytes > self._max_bytes:
            raise _too_many_bytes(self._max_bytes)
        self._file.write(data[start:end])

    def on_end(self) -> None:
        self._ended = True

    def refuse_incomplete(self) -> None:
        if not self._ended:
            raise UploadError("bad_multipart", "the multipart body breaks off before its closing boundary: send it again")
        if not self._found:
            got = f", got {', '.join(sorted(map(repr, self._others)))}" if self._others else ""
            raise UploadError("no_video_field", f"the form has no field {self._field.decode()!r}{got}")


async def _drain(chunks: AsyncIterator[bytes], boundary: bytes, sink: _FieldToFile, limits: Limits) -> None:
    received = 0
    try:
        parser = MultipartParser(boundary, sink.callbacks())  # pyright: ignore[reportArgumentType]
        async for chunk in chunks:
            received += len(chunk)
            if received > limits.max_bytes + FRAMING_BYTES:
                raise _too_many_bytes(limits.max_bytes)
            parser.write(chunk)
        parser.finalize()
    except FormParserError:
        raise UploadError("bad_multipart", "the body is no well-formed multipart/form-data") from None


def _boundary(content_type: str, field: str) -> bytes:
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data":
        raise UploadError("not_multipart", f"send the video as field {field!r} of multipart/form-data")
    boundary = options.get(b"boundary", b"")
    if not boundary:
        raise UploadError("bad_multipart", "the Content-Type header names no boundary")
    return boundary


def _too_many_bytes(max_bytes: int) -> UploadError:
    return UploadError("too_many_bytes", f"the video is larger than the {max_bytes / 2**20:.3g} MiB ({max_bytes} bytes) allowed")


def _is_transport_stream(head: bytes) -> bool:
    """Packets of 188 bytes that begin with a sync byte, bare or behind the 4-byte time stamps of M2TS."""
    return any(
        len(head) > offset + 2 * size and all(head[offset + i * size] == 0x47 for i in range(3))
        for offset, size in ((0, 188), (4, 192))
    )
