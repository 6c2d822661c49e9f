"""Where a clip's bytes come from: a file, a folder of pictures, or memory. Refuses what no decoder should be handed."""

import dataclasses
import io
import stat
from pathlib import Path
from typing import BinaryIO

from sign_dist.errors import VideoError

TRACK_SUFFIX = ".npy"
"""Of a landmark track, which `video.tracks` reads."""
# How lists of other files and addresses begin; FFmpeg would follow them to files that were never given.
PLAYLIST_HEADS = (b"#EXTM3U", b"ffconcat version", b"v=0\r\n", b"v=0\n")


@dataclasses.dataclass(frozen=True)
class Source:
    """A video in a file or in memory, or a folder of pictures. `name` is what messages call it."""

    name: str
    path: Path | None = None
    data: bytes = b""

    def open(self) -> BinaryIO:
        """The bytes, from the start. A decoder gets this, or its number, so that no name is ever parsed by a decoder."""
        return self.path.open("rb") if self.path else io.BytesIO(self.data)

    @property
    def is_folder(self) -> bool:
        return self.path is not None and self.path.is_dir()


def find_source(source: str | Path | bytes) -> Source:
    """The pictures that a path or bytes stand for.

    Raises:
        VideoError: what `find_file` raises, and `playlist` or `no_pictures`.
    """
    found = find_file(source)
    if found.is_folder:
        return found
    if found.path and found.path.suffix.lower() == TRACK_SUFFIX:
        raise VideoError("no_pictures", f"{found.name!r} is a landmark track, which has no pictures: use landmark features")
    try:
        with found.open() as file:
            head = file.read(64)
    except OSError as error:
        raise VideoError("unreadable", f"{found.name!r} cannot be read: {error.strerror}") from None
    if head.removeprefix(b"\xef\xbb\xbf").startswith(PLAYLIST_HEADS):
        raise VideoError("playlist", f"{found.name!r} is a playlist, which only names other files")
    return found


def find_file(source: str | Path | bytes) -> Source:
    """The file, folder or bytes that are given, whatever they hold.

    Raises:
        VideoError: `missing`, `not_a_file`, `empty` or `unreadable`.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        found = Source("bytes in memory", None, bytes(source))
        size = len(found.data)
    else:
        path = Path(source)
        found = Source(path.name, path)
        try:
            state = path.stat()
        except (OSError, ValueError) as error:  # ValueError: a name that no file can have
            if isinstance(error, PermissionError):
                raise VideoError("unreadable", f"{path.name[:120]!r} cannot be read: {error.strerror}") from None
            raise VideoError("missing", f"no file {path.name[:120]!r}") from None
        if stat.S_ISDIR(state.st_mode):
            return found
        if not stat.S_ISREG(state.st_mode):  # opening a pipe would wait for ever
            raise VideoError("not_a_file", f"{path.name!r} is a pipe, socket or device, no file")
        size = state.st_size
    if size == 0:
        raise VideoError("empty", f"{found.name!r} has 0 bytes")
    return found
