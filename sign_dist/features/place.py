"""A folder that may lie anywhere: on this machine's disk, or in whatever pyarrow or fsspec can reach (s3://, gs://, hdfs://).

Only what a store of immutable files needs: whole writes, exclusive creation, listing, removal.
"""

import contextlib
import os
import socket
import time
import uuid
from pathlib import Path
from typing import Any, Protocol

from pyarrow import ArrowException, fs

from sign_dist.errors import DataError


class Place(Protocol):
    """Names are relative to the place and use `/`."""

    @property
    def uri(self) -> str: ...

    def read(self, name: str) -> bytes:
        """The bytes of a file. Raises FileNotFoundError."""
        ...

    def write(self, name: str, data: bytes, *, durable: bool = True) -> None:
        """A file that is there whole or not at all, whatever was there before; `durable`: it survives a power failure."""
        ...

    def create(self, name: str, data: bytes) -> bool:
        """Write a file that must not be there yet; False if it is."""
        ...

    def names(self, folder: str) -> list[str]:
        """Sorted names of the files in a folder, without the folder; none if there is no such folder."""
        ...

    def folders(self) -> list[str]:
        """Sorted names of the folders directly below."""
        ...

    def exists(self, name: str) -> bool: ...

    def remove(self, name: str) -> None:
        """Remove a file; nothing happens if there is none."""
        ...

    def age_s(self, name: str) -> float:
        """Seconds since the file was written. Raises FileNotFoundError."""
        ...

    def size_bytes(self, name: str) -> int:
        """Raises FileNotFoundError."""
        ...

    def sweep(self) -> None:
        """Remove what processes of this machine were writing when they died."""
        ...


def place_at(where: str | Path) -> Place:
    """The place that a path or an address names.

    Raises:
        DataError: nothing can open such an address.
    """
    text = str(where)
    return RemotePlace(text) if "://" in text and not text.startswith("file://") else LocalPlace(Path(text.removeprefix("file://")))


def join(where: str | Path, name: str) -> str:
    """`name` below a path or address; what follows a `?` in an address stays at its end."""
    head, mark, query = str(where).partition("?") if "://" in str(where) else (str(where), "", "")
    return f"{head.rstrip('/')}/{name}{mark}{query}"


def started(pid: int) -> str:
    """When a process of this machine started, in ticks since boot; "" if there is no such process or no way to know."""
    try:
        # After the name, which may hold blanks and brackets, the twentieth field.
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


class LocalPlace:
    """A folder of this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def uri(self) -> str:
        return str(self.folder)

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def write(self, name: str, data: bytes, *, durable: bool = True) -> None:
        temporary = self._staged(data, durable=durable)
        self._target(name)
        temporary.replace(self.folder / name)

    def create(self, name: str, data: bytes) -> bool:
        temporary = self._staged(data)
        try:
            # A link is refused where the name is taken: of two writers one wins, and nobody sees a part.
            os.link(temporary, self._target(name))
        except FileExistsError:
            return False
        except OSError:  # a file system without links
            try:
                with (self.folder / name).open("xb") as file:
                    file.write(data)
            except FileExistsError:
                return False
        finally:
            temporary.unlink(missing_ok=True)
        return True

    def names(self, folder: str) -> list[str]:
        try:
            return sorted(entry.name for entry in os.scandir(self.folder / folder) if entry.is_file())
        except FileNotFoundError:
            return []

    def folders(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir() if path.is_dir()) if self.folder.is_dir() else []

    def exists(self, name: str) -> bool:
        return (self.folder / name).is_file()

    def remove(self, name: str) -> None:
        (self.folder / name).unlink(missing_ok=True)

    def age_s(self, name: str) -> float:
        return time.time() - (self.folder / name).stat().st_mtime

    def size_bytes(self, name: str) -> int:
        return (self.folder / name).stat().st_size

    def sweep(self) -> None:
        for name in self.names("staging"):
            pid, start, _, host = [*name.split("-", 3), "", "", ""][:4]
            if host == socket.gethostname() and start and pid.isdigit() and started(int(pid)) != start:
                self.remove(f"staging/{name}")

    def _target(self, name: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _staged(self, data: bytes, *, durable: bool = True) -> Path:
        path = self._target(f"staging/{os.getpid()}-{started(os.getpid())}-{uuid.uuid4().hex}-{socket.gethostname()}")
        with path.open("wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        return path


class RemotePlace:
    """A folder behind an address. Object stores write whole objects, so nothing needs staging."""

    def sweep(self) -> None:
        """Nothing: there is no staging."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._opened: tuple[fs.FileSystem, str] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"uri": self.uri, "_opened": None}  # each process opens its own connection

    def read(self, name: str) -> bytes:
        filesystem, path = self._at(name)
        with filesystem.open_input_stream(path) as stream:
            return stream.read()

    def write(self, name: str, data: bytes, *, durable: bool = True) -> None:
        filesystem, path = self._at(name)
        filesystem.create_dir(path.rpartition("/")[0], recursive=True)
        with filesystem.open_output_stream(path) as stream:
            stream.write(data)

    def create(self, name: str, data: bytes) -> bool:
        # No exclusive creation through this door: two writers may both get through in the same moment. What is created
        # so holds either a claim, which only saves work, or a commit record, which is the same from every writer.
        if self.exists(name):
            return False
        self.write(name, data)
        return True

    def names(self, folder: str) -> list[str]:
        filesystem, path = self._at(folder)
        infos = filesystem.get_file_info(fs.FileSelector(path, allow_not_found=True))
        return sorted(info.base_name for info in infos if info.is_file)

    def folders(self) -> list[str]:
        filesystem, path = self._at("")
        infos = filesystem.get_file_info(fs.FileSelector(path.rstrip("/"), allow_not_found=True))
        return sorted(info.base_name for info in infos if info.type == fs.FileType.Directory)

    def exists(self, name: str) -> bool:
        filesystem, path = self._at(name)
        return filesystem.get_file_info(path).is_file

    def remove(self, name: str) -> None:
        filesystem, path = self._at(name)
        with contextlib.suppress(FileNotFoundError):
            filesystem.delete_file(path)

    def age_s(self, name: str) -> float:
        return time.time() - self._info(name).mtime_ns / 1e9

    def size_bytes(self, name: str) -> int:
        return int(self._info(name).size)

    def _info(self, name: str) -> fs.FileInfo:
        filesystem, path = self._at(name)
        info = filesystem.get_file_info(path)
        if not info.is_file:
            raise FileNotFoundError(f"no {name!r} in {self.uri!r}")
        return info

    def _at(self, name: str) -> tuple[fs.FileSystem, str]:
        if self._opened is None:
            self._opened = _open(self.uri)
        filesystem, root = self._opened
        return filesystem, f"{root.rstrip('/')}/{name}"


def _open(uri: str) -> tuple[fs.FileSystem, str]:
    try:
        return fs.FileSystem.from_uri(uri)
    except (ArrowException, ValueError) as arrow_error:
        try:
            import fsspec  # Ray Data brings it

            filesystem, path = fsspec.core.url_to_fs(uri)
        except (ImportError, ValueError) as error:
            raise DataError(
                f"no storage can be opened at {uri!r} ({arrow_error}; {error}): give a folder or s3://bucket/path"
            ) from None
        return fs.PyFileSystem(fs.FSSpecHandler(filesystem)), path
