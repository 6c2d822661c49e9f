"""A table beside the videos: labels.tsv or labels.csv with path, gloss or translation, and optional further columns."""

import csv
import math
from collections.abc import Iterator
from pathlib import Path

from sign_dist.data.sample import Rejected, Sample
from sign_dist.errors import DataError

NAMES = ("labels.tsv", "labels.csv")
# What people call the columns. `label` is a gloss only where there is no gloss.
COLUMNS: dict[str, tuple[str, ...]] = {
    "id": ("id",),
    "path": ("path", "video_path", "video", "file"),
    "gloss": ("gloss", "label", "sign"),
    "signer": ("signer", "signer_id", "speaker"),
    "split": ("split", "subset"),
    "start": ("start", "start_s"),
    "end": ("end", "end_s"),
    "translation": ("translation", "text", "sentence"),
    "source": ("source", "recording"),
}


def read(root: Path) -> Iterator[Sample | Rejected]:
    """Rows of the table in `root`, or of the table file that `root` itself is; paths are relative to its folder.

    Raises:
        DataError: no table, or no column for the path.
    """
    table = find(root)
    folder = table.parent
    rows, header = _rows(table)
    if not any(name in header for name in COLUMNS["path"]):
        raise DataError(f"{str(table)!r} has no column {COLUMNS['path'][0]!r}: its header is {', '.join(header)}")
    seen: set[str] = set()
    for line, row in rows:
        path = _get(row, "path")
        clip_id = _get(row, "id") or _id_of(path)
        fault = _fault(row, path, clip_id, seen, folder)
        seen.add(clip_id)
        if fault:
            where, (reason, detail) = f"{table.name} line {line}", fault
            yield Rejected(clip_id or where, path, reason, f"{where}: {detail}")
            continue
        yield Sample(
            id=clip_id,
            video_path=path,
            gloss=" ".join(_get(row, "gloss").upper().split()),
            signer=_get(row, "signer"),
            split=_get(row, "split"),
            translation=_get(row, "translation"),
            start_s=float(_get(row, "start") or 0),
            end_s=float(_get(row, "end") or 0),
            source=_get(row, "source"),
        )


def _id_of(path: str) -> str:
    """The path without its extension; there is none to take from "", "." or "/"."""
    return Path(path).with_suffix("").as_posix().replace("/", "_") if Path(path).name else path


def find(root: Path) -> Path:
    """The table in a corpus folder, or `root` itself if it is a file.

    Raises:
        DataError: there is none.
    """
    if root.is_file():
        return root
    for name in NAMES:
        if (root / name).exists():
            return root / name
    raise DataError(
        f"{str(root)!r} has no {' or '.join(NAMES)}: write one with the columns path and gloss, or use the reader folder"
    )


def _rows(table: Path) -> tuple[list[tuple[int, dict[str, str]]], list[str]]:
    """(line, values) of each row, and the header; a row of several lines has the number of its last one."""
    with table.open(encoding="utf-8-sig", newline="") as file:
        try:
            lines = file.readlines()
            blank = next((i for i, line in enumerate(lines) if line.strip()), 0)  # lines above the header
            if table.suffix.lower() == ".csv":
                reader = csv.DictReader(lines[blank:], restval="")
            else:
                reader = csv.DictReader(lines[blank:], delimiter="\t", quoting=csv.QUOTE_NONE, restval="")
            # A row longer than the header has its rest under None, as a list; nobody asked for it.
            rows = [(blank + reader.line_num, {str(k).strip().lower(): v for k, v in row.items() if k}) for row in reader]
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{str(table)!r} is no UTF-8 table: {error}") from None
        return rows, [name.strip().lower() for name in reader.fieldnames or []]


def _get(row: dict[str, str], column: str) -> str:
    values = (row.get(name, "").strip() for name in COLUMNS[column])
    return next((value for value in values if value), "")


def _fault(row: dict[str, str], path: str, clip_id: str, seen: set[str], folder: Path) -> tuple[str, str] | None:
    """Why a row cannot be a sample, before its video is looked at."""
    if clip_id in seen:
        return "duplicate_id", f"an earlier row has the id {clip_id!r}"
    if not path:
        return "missing", "the row names no file"
    if "\0" in path or not (folder / path).resolve().is_relative_to(folder.resolve()):
        return "not_allowed", f"{path!r} leaves the folder of the table"
    if not _get(row, "gloss") and not _get(row, "translation"):
        return "no_gloss", "the row has neither a gloss nor a translation"
    try:
        start, end = float(_get(row, "start") or 0), float(_get(row, "end") or 0)
    except ValueError:
        return "bad_span", f"start {_get(row, 'start')!r} and end {_get(row, 'end')!r} must be seconds"
    if not math.isfinite(start) or not math.isfinite(end):
        return "bad_span", f"start {start} and end {end} must be finite"
    if start < 0 or (end and end <= start):
        return "bad_span", f"the span [{start:g}, {end:g}) s is empty"
    return None
