"""A folder per sign: `raw/HELLO/anna_1.mp4`. The folder's name is the gloss."""

import collections
from collections.abc import Iterator, Sequence
from pathlib import Path

from sign_dist.data.sample import Rejected, Sample
from sign_dist.errors import DataError

# Text that people leave beside videos; everything else is tried, since a wrong extension says little.
NOT_VIDEO = {
    ".md",
    ".txt",
    ".tsv",
    ".csv",
    ".json",
    ".yaml",
    ".yml",
    ".html",
    ".pdf",
    ".py",
    ".srt",
    ".vtt",
    ".jpg",
    ".jpeg",
    ".png",
}


def read(root: Path) -> Iterator[Sample | Rejected]:
    """Every file one folder below `root` or deeper; the first folder names the sign, upper case.

    Raises:
        DataError: no folder with a file in it.
    """
    files = sorted(
        p for p in root.rglob("*") if p.is_file() and not any(part.startswith(".") for part in p.relative_to(root).parts)
    )
    clips = [p for p in files if p.suffix.lower() not in NOT_VIDEO and len(p.relative_to(root).parts) > 1]
    if not clips:
        raise DataError(f"{str(root)!r} has no folder with videos in it: put each sign's clips into a folder named after the sign")
    ids = _ids([path.relative_to(root) for path in clips])
    for path in clips:
        relative = path.relative_to(root)
        gloss = " ".join(relative.parts[0].replace("_", " ").upper().split())
        if gloss:
            yield Sample(id=ids[relative], video_path=relative.as_posix(), gloss=gloss)
        else:
            yield Rejected(ids[relative], relative.as_posix(), "no_gloss", f"the folder {relative.parts[0]!r} names no sign")


def _ids(paths: Sequence[Path]) -> dict[Path, str]:
    """The shortest name of each path that no other path has: `A_b`, else `A_b.mp4`, else `A/b.mp4`."""
    forms = {p: (_flat(p.with_suffix("")), _flat(p), p.as_posix()) for p in paths}
    taken = collections.Counter(form for three in forms.values() for form in dict.fromkeys(three))
    return {p: next((form for form in three if taken[form] == 1), three[-1]) for p, three in forms.items()}


def _flat(path: Path) -> str:
    return path.as_posix().replace("/", "_")
