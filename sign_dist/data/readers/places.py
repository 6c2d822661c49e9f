"""Where the clips of a corpus lie: people keep one corpus in several layouts, and the layout on disk decides."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from sign_dist.errors import DataError

# Earlier ones win where a clip is there in more than one.
SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".3gp", ".ogv", ".gif")


def folder_of(root: Path) -> Path:
    """The corpus folder.

    Raises:
        DataError: it is a file.
    """
    if not root.is_dir():
        raise DataError(f"{str(root)!r} is no folder: give the folder that holds the corpus")
    return root


def first_file(folder: Path, names: Iterable[str]) -> Path | None:
    """The first of these files that is there; a name may hold `*`, of which the first in order counts."""
    for name in names:
        found = sorted(folder.glob(name)) if "*" in name else [folder / name]
        for path in found:
            if path.is_file():
                return path
    return None


def wanted(folder: Path, what: Sequence[str], places: Sequence[str] = ("",)) -> DataError:
    """The error of a corpus folder that lacks all of these files."""
    where = ", ".join(repr(place) for place in places if place)
    return DataError(
        f"{str(folder)!r} has no {' or '.join(what)}{f', nor have {where} in it' if where else ''}: is it the corpus folder?"
    )


class Videos:
    """Finds the video of a name in the first of some folders that has it, whatever its extension."""

    def __init__(self, folder: Path, places: Sequence[str]) -> None:
        self.folder, self.places = folder, tuple(places)
        self._names = {place: _names_in(folder / place) for place in self.places}
        self._usual = next((place for place in self.places if place and (folder / place).is_dir()), self.places[0])

    def find(self, stem: str, *, tail: str = "") -> str:
        """The path of `<stem><tail>.*`, relative to the corpus folder; "" if there is none."""
        for place in self.places:
            if name := self._names[place].get(stem + tail):
                return f"{place}/{name}" if place else name
        return ""

    def path(self, stem: str, *, tail: str = "") -> str:
        """As `find`; where it would be, if there is none: the check will say that it is missing."""
        if not stem:
            return ""
        usual = f"{self._usual}/{stem}{tail}.mp4" if self._usual else f"{stem}{tail}.mp4"
        return self.find(stem, tail=tail) or usual


def frames_folder(folder: Path, candidates: Sequence[str]) -> str:
    """The first candidate that is a folder, relative to the corpus folder; else the first candidate."""
    for path in candidates:
        if is_folder(folder, path):
            return path
    return candidates[0]


def is_folder(folder: Path, path: str) -> bool:
    """Whether a path of the annotations is a folder in the corpus. Never raises, and looks at nothing outside."""
    return _inside(path) and os.path.isdir(os.path.join(folder, path))  # noqa: PTH112, PTH118 (Path would raise)


def is_file(folder: Path, path: str) -> bool:
    """Whether a path of the annotations is a file in the corpus. Never raises, and looks at nothing outside."""
    return _inside(path) and os.path.isfile(os.path.join(folder, path))  # noqa: PTH113, PTH118 (Path would raise)


def _inside(path: str) -> bool:
    return not path.startswith("/") and ".." not in path.split("/")


def _names_in(folder: Path) -> dict[str, str]:
    """Name without its extension -> name with it."""
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208 (names are enough)
    except OSError:
        return {}
    found: dict[str, str] = {}
    for suffix in reversed(SUFFIXES):
        found |= {name[: -len(suffix)]: name for name in names if name.lower().endswith(suffix)}
    return found
