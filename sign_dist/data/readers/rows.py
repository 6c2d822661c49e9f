"""Rows of annotation files, each with the place it stands at: text with separators, and JSON.

A file that is none of its kind is one `DataError`; a row that is none is a `Row` with a `fault`, so that it can be rejected.
"""

import csv
import dataclasses
import json
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from sign_dist.errors import DataError

_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)


@dataclasses.dataclass(frozen=True)
class Row:
    """One row: where it stands ("train.csv line 3"), its values by column, and why it is none ("" if it is one)."""

    where: str
    values: dict[str, str]
    fault: str = ""

    def __getitem__(self, column: str) -> str:
        return self.values.get(column, "")


def text_of(path: Path) -> str:
    """The text of an annotation file.

    Raises:
        DataError: not there, empty, not UTF-8, or a web page that was saved in its place.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"annotations {str(path)!r} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"annotations {str(path)!r} are no UTF-8 text ({error}): download them again, or save them as UTF-8"
        ) from None
    if not text.strip():
        raise DataError(f"annotations {str(path)!r} are empty: download them again")
    if re.match(r"\s*<(!doctype|html|head|body|\?xml)", text, re.IGNORECASE):
        raise DataError(f"annotations {str(path)!r} are a web page, as a failed download leaves it: download them again")
    return text


def with_header(path: Path, columns: Sequence[str], separators: str) -> Iterator[Row]:
    """Rows below a header that names at least `columns` (in any order and case), between which one of `separators` stands.

    Raises:
        DataError: no such header.
    """
    lines = _lines(text_of(path))
    number, first = lines[0]
    headers = [[name.strip().strip('"').lower() for name in first.split(s)] for s in separators]
    for separator, header in zip(separators, headers, strict=True):
        if set(columns) <= set(header):
            if len(set(header)) < len(header):
                raise DataError(f"{str(path)!r} names a column twice in its header: {', '.join(header)}")
            yield from _rows(path, lines[1:], separator, header)
            return
    raise DataError(
        f"{str(path)!r} has no header with the columns {', '.join(columns)} and {_names(separators)} between them: "
        f"line {number} is {first[:80]!r}"
    )


def without_header(path: Path, columns: Sequence[str], separator: str) -> Iterator[Row]:
    """Rows of a file that has no header: every line holds the values of `columns`, in this order."""
    yield from _rows(path, _lines(text_of(path)), separator, columns)


def has_header(path: Path, columns: Sequence[str], separator: str) -> bool:
    """Whether the first line names these columns."""
    first = _lines(text_of(path))[0][1]
    return set(columns) <= {name.strip().lower() for name in first.split(separator)}


def _lines(text: str) -> list[tuple[int, str]]:
    """Lines that hold something, with their number from 1. Only line feeds end a line: other signs may stand in a text."""
    numbered = ((number, line.rstrip("\r")) for number, line in enumerate(text.split("\n"), start=1))
    return [(number, line) for number, line in numbered if line.strip()]


def _rows(path: Path, lines: Sequence[tuple[int, str]], separator: str, header: Sequence[str]) -> Iterator[Row]:
    for number, line in lines:
        where = f"{path.name} line {number}"
        fields = _fields(line, separator)
        if fields is None:
            yield Row(where, {}, "a quote is opened and not closed in this line")
        elif len(fields) != len(header):
            yield Row(where, {}, f"{len(fields)} fields where {len(header)} are needed ({', '.join(header)})")
        else:
            yield Row(where, dict(zip(header, (field.strip() for field in fields), strict=True)))


def _fields(line: str, separator: str) -> list[str] | None:
    """A line's fields. Each line stands alone: a quote that is left open must not swallow the rows below it."""
    if separator == ",":
        try:
            return next(csv.reader([line], strict=True))
        except (csv.Error, StopIteration):
            return None
    fields = line.split(separator)
    return [_unquoted(field) for field in fields] if separator == "\t" else fields


def _unquoted(field: str) -> str:
    """A field that a spreadsheet has put into quotes; any other quote belongs to the text."""
    quoted = re.fullmatch(r'"((?:[^"]|"")*)"', field.strip())
    return quoted[1].replace('""', '"') if quoted else field


def _names(separators: str) -> str:
    return " or ".join({"\t": "a tab", ",": "a comma", "|": "'|'"}.get(s, repr(s)) for s in separators)


def json_of(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        DataError: no JSON, cut short, or an object that names a key twice.
    """
    text = text_of(path)
    try:
        return json.loads(text, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise DataError(f"annotations {str(path)!r} are no whole JSON ({error}): download them again") from None


def entries_of(path: Path) -> list[Any]:
    """The entries of a JSON list.

    Raises:
        DataError: no JSON, no list, or an empty one.
    """
    value = json_of(path)
    if not isinstance(value, list) or not value:
        raise DataError(f"annotations {str(path)!r} are no list with entries: is this the corpus's own file?")
    return cast("list[Any]", value)


def object_of(entry: Any) -> dict[str, Any]:
    """An entry as an object; an empty one where it is something else."""
    return cast("dict[str, Any]", entry) if isinstance(entry, dict) else {}


def list_in(value: Any) -> list[Any] | None:
    """A JSON value as a list; None where it is none."""
    return cast("list[Any]", value) if isinstance(value, list) else None


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return value


def text_in(value: Any) -> str:
    """A JSON value as text: "" for anything but text or a whole number."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    return str(value).strip()


def whole_in(value: Any) -> int | None:
    """A JSON value as a whole number; None where it is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def number_in(value: Any) -> float:
    """Text or a JSON value as a number; nan where it is none.

    >>> number_in("1.5"), number_in("1,5"), number_in(True)
    (1.5, nan, nan)
    """
    if isinstance(value, str):
        return float(value) if _NUMBER.fullmatch(value.strip()) else math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan
