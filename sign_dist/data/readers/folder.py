"""A folder per sign: `raw/HELLO/anna_1.mp4`. The folder's name is the gloss."""

from collections.abc import Iterator
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
    for path in clips:
        relative = path.relative_to(root)
        yield Sample(
            id=relative.with_suffix("").as_posix().replace("/", "_") if _unique(path) else relative.as_posix().replace("/", "_"),
            video_path=relative.as_posix(),
            gloss=" ".join(relative.parts[0].replace("_", " ").upper().split()),
        )


def _unique(path: Path) -> bool:
    """No other file of the folder differs from it by extension alone."""
    return sum(other.stem == path.stem for other in path.parent.iterdir()) == 1
