"""Lists of links: plain text, a table, or the annotation files of WLASL and MS-ASL -> what to fetch and under which name.

A row that cannot be used is a `Dead` row with a reason, never a guess. Names are safe whatever the list or the URL says.
"""

import csv
import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from sign_dist.data.link_faults import LinkError
from sign_dist.data.normalize import youtube_id
from sign_dist.errors import DataError

RESERVED = ("downloads.tsv", "failed.tsv", "clips.tsv")
"""The tables that a download writes beside the files."""
VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".wmv", ".flv", ".3gp", ".ogv", ".gif",
)  # fmt: skip
UNSUPPORTED_SUFFIXES = (".swf", ".m3u8", ".mpd", ".f4m", ".smil")
MAX_NAME_BYTES = 200  # of the 255 that file systems allow; .part.json and temporary names need the rest
COLUMNS = {
    "url": ("url", "link"),
    "id": ("id", "video_id"),
    "path": ("path", "file", "video_path"),
    "sha256": ("sha256",),
    "size": ("size", "size_bytes"),
}
"""What people call the columns of a table, in the order of a row's fields."""


@dataclasses.dataclass(frozen=True)
class Link:
    """One thing to fetch. More than one path: the same URL is wanted under several names. Size 0 or sha256 "": unknown."""

    url: str
    paths: tuple[str, ...]
    ids: tuple[str, ...]
    sha256: str = ""
    size_bytes: int = 0
    youtube: bool = False

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""


@dataclasses.dataclass(frozen=True)
class Clip:
    """What the list says of one clip: `[start_s, end_s)` of the file at `path`; `end_s = 0`: to its end."""

    id: str
    path: str
    start_s: float
    end_s: float
    source: str
    url: str


@dataclasses.dataclass(frozen=True)
class Dead:
    """A link or row that gave no file, with a code of `link_faults.REASONS`."""

    id: str
    url: str
    reason: str
    detail: str


@dataclasses.dataclass(frozen=True)
class LinkList:
    """A list as read: what to fetch, which clips it is for, and the rows that cannot be used."""

    links: list[Link]
    clips: list[Clip]
    dead: list[Dead]


@dataclasses.dataclass(frozen=True)
class _Row:
    where: str  # "line 3", for messages
    url: str
    id: str = ""
    path: str = ""
    sha256: str = ""
    size: str = ""
    start_s: float = 0.0
    end_s: float = 0.0
    source: str = ""


def read_links(path: Path) -> LinkList:
    """The links of a list.

    Raises:
        DataError: no such file, no UTF-8, or neither a list of links nor an annotation file that we know.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"list {str(path)!r} cannot be read ({error.strerror}): name a file of links") from None
    except UnicodeDecodeError as error:
        raise DataError(f"list {str(path)!r} is no UTF-8 text ({error}): save it as UTF-8") from None
    rows = _json_rows(text, path) if text.lstrip()[:1] in ("[", "{") else _text_rows(text, path)
    listed = _named(rows)
    if not listed.links and not listed.dead:
        raise DataError(f"list {str(path)!r} holds no link: write one URL a line, or a table with a column url")
    return listed


def _text_rows(text: str, path: Path) -> Iterator[_Row]:
    """A table if its header has a column for the URL, else one URL a line; `#` starts a comment."""
    lines = text.splitlines()
    first = next((line for line in lines if line.strip() and not line.startswith("#")), "")
    comma = "\t" not in first
    header = [name.strip().strip('"').lower() for name in first.split("," if comma else "\t")]
    if not set(COLUMNS["url"]) & set(header):
        if "://" not in first and not first.startswith("www.") and first:
            raise DataError(f"list {str(path)!r} is neither a table with a column url nor one URL a line: it begins {first[:60]!r}")
        for number, line in enumerate(lines, start=1):
            if line.strip() and not line.startswith("#"):
                yield _Row(f"line {number}", line.strip())
        return
    try:
        quoting = csv.QUOTE_MINIMAL if comma else csv.QUOTE_NONE
        reader = csv.reader(lines, delimiter="," if comma else "\t", quoting=quoting)
        for fields in reader:
            if not "".join(fields).strip() or fields[0].startswith("#") or fields == first.split("," if comma else "\t"):
                continue
            row = dict(zip(header, (field.strip() for field in fields), strict=False))
            yield _row(f"line {reader.line_num}", row)
    except csv.Error as error:
        raise DataError(f"list {str(path)!r} is no table: {error}") from None


def _json_rows(text: str, path: Path) -> Iterator[_Row]:
    """WLASL: glosses with instances. MS-ASL: entries with start_time and end_time. Else: objects with the table's columns."""
    try:
        entries: Any = json.loads(text)
    except ValueError as error:
        raise DataError(f"list {str(path)!r} is no JSON: {error}") from None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in cast("list[Any]", entries)):
        raise DataError(f"list {str(path)!r} is no list of objects: WLASL_v0.3.json, MSASL_*.json or objects with a url are read")
    rows = cast("list[dict[str, Any]]", entries)
    if not any("instances" in row or "url" in row for row in rows):
        raise DataError(f"list {str(path)!r} names no url: nslt_*.json and the like do not, take WLASL_v0.3.json")
    stem = path.stem.removeprefix("MSASL_")  # the reader of MS-ASL calls its clips test_00012
    for number, row in enumerate(rows):
        if "instances" in row:
            instances = cast("Iterable[Any]", row["instances"] if isinstance(row["instances"], list) else [None])
            for k, instance in enumerate(instances):
                yield _object(instance, f"entry {number} ({row.get('gloss', '')!r:.60}) instance {k}", _wlasl)
        elif "start_time" in row or "label" in row:
            yield _object(row, f"entry {number}", partial(_msasl, name=f"{stem}_{number:05d}"))
        else:
            yield _object(row, f"entry {number}", _plain)


def _object(entry: Any, where: str, convert: Callable[[dict[str, Any], str], _Row]) -> _Row:
    """A row of an object; one that cannot be converted has no URL and says so when it is named."""
    try:
        return convert(entry, where)
    except (AttributeError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        return _Row(f"{where}: {type(error).__name__} {error}", "")


def _wlasl(entry: dict[str, Any], where: str) -> _Row:
    """frame_start counts from 1, frame_end = -1 means to the end; both at the nominal fps of 25."""
    fps, first, last = float(entry.get("fps", 25)), int(entry.get("frame_start", 1)), int(entry.get("frame_end", -1))
    span = ((first - 1) / fps, last / fps if last > 0 else 0.0)
    return _Row(
        where, _text(entry["url"]), _text(entry["video_id"]), start_s=span[0], end_s=span[1], source=_text(entry.get("source", ""))
    )


def _msasl(entry: dict[str, Any], where: str, name: str) -> _Row:
    span = (float(entry.get("start_time", 0)), float(entry.get("end_time", 0)))
    return _Row(where, _text(entry["url"]), name, start_s=span[0], end_s=span[1], source="msasl")


def _plain(entry: dict[str, Any], where: str) -> _Row:
    return _row(where, {name: _text(entry[name]) for names in COLUMNS.values() for name in names if name in entry})


def _row(where: str, cells: dict[str, str]) -> _Row:
    url, own_id, path, sha256, size = (next((cells[n] for n in names if cells.get(n)), "") for names in COLUMNS.values())
    return _Row(where, url, own_id, path, sha256.lower(), size)


def _text(value: Any) -> str:
    if not isinstance(value, str | int):
        raise TypeError(f"expected text, got {value!r:.60}")
    str(value).encode()  # JSON can hold half of a surrogate pair, UTF-8 cannot
    return str(value).strip()


def _named(rows: Iterable[_Row]) -> LinkList:
    """Links in the order of the list, each under a name that no other has."""
    links: dict[str, Link] = {}
    listed = LinkList([], [], [])
    taken: dict[str, str] = dict.fromkeys(RESERVED, "")  # name in lower case -> URL
    seen: set[tuple[str, str]] = set()
    for row in rows:
        try:
            url, youtube_id = clean_url(row.url)
            size = _checked(row)
            path = _path(row, url, youtube_id, taken)
        except LinkError as fault:
            listed.dead.append(Dead(row.id, row.url, fault.reason, f"{row.where}: {fault.detail}"))
            continue
        taken[path.casefold()] = url
        clip_id = row.id or PurePosixPath(path).with_suffix("").as_posix()
        if (clip_id, url) in seen and row.end_s == 0:
            continue  # the same row again
        seen.add((clip_id, url))
        new = Link(url, (path,), (clip_id,), row.sha256, size, youtube=bool(youtube_id))
        old = links.get(url)
        if old and (old.sha256 or row.sha256) != (row.sha256 or old.sha256):
            detail = f"{row.where}: an earlier row gives this URL another sha256"
            listed.dead.append(Dead(row.id, row.url, "bad_row", detail))
            continue
        links[url] = new if not old else _joined(old, new)
        listed.clips.append(Clip(clip_id, path, row.start_s, row.end_s, row.source, url))
    listed.links.extend(links.values())
    return listed


def _joined(old: Link, new: Link) -> Link:
    return dataclasses.replace(
        old,
        paths=tuple(dict.fromkeys(old.paths + new.paths)),
        ids=tuple(dict.fromkeys(old.ids + new.ids)),
        sha256=old.sha256 or new.sha256,
        size_bytes=old.size_bytes or new.size_bytes,
    )


def clean_url(text: str) -> tuple[str, str]:
    """The URL to ask for and, for YouTube, the id of the video.

    >>> clean_url("www.youtube.com/watch?v=wX78EPtSuzU&t=4")
    ('https://www.youtube.com/watch?v=wX78EPtSuzU', 'wX78EPtSuzU')

    Raises:
        LinkError: bad_row, bad_url or unsupported.
    """
    if not text:
        raise LinkError("bad_row", "no URL")
    url = f"http://{text}" if text.startswith("www.") else text
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise LinkError("bad_url", f"{error}") from None
    if parts.scheme in ("rtmp", "rtmps", "rtsp", "mms", "ftp"):
        raise LinkError("unsupported", f"the protocol {parts.scheme} is not spoken here")
    if parts.scheme not in ("http", "https") or not host or re.search(r"[\s\x00-\x1f\x7f]", url):
        raise LinkError("bad_url", "expected http:// or https://, a host, and no blanks")
    if PurePosixPath(parts.path).suffix.lower() in UNSUPPORTED_SUFFIXES:
        raise LinkError("unsupported", f"{PurePosixPath(parts.path).suffix} is no video file")
    video = youtube_id(url)
    return (f"https://www.youtube.com/watch?v={video}", video) if video else (parts._replace(fragment="").geturl(), "")


def _checked(row: _Row) -> int:
    """The size that a row states, in bytes; 0: none."""
    if row.sha256 and not re.fullmatch(r"[0-9a-f]{64}", row.sha256):
        raise LinkError("bad_row", f"sha256 {row.sha256!r:.80} is not 64 hexadecimal digits")
    if row.size and not (row.size.isascii() and row.size.isdigit() and len(row.size) < 18):
        raise LinkError("bad_row", f"size {row.size!r:.80} is no number of bytes")
    if not (math.isfinite(row.start_s) and math.isfinite(row.end_s) and row.start_s >= 0) or 0 < row.end_s <= row.start_s:
        raise LinkError("bad_row", f"the span [{row.start_s:g}, {row.end_s:g}) s is empty")
    return int(row.size or 0)


def _path(row: _Row, url: str, youtube_id: str, taken: dict[str, str]) -> str:
    """Where the file goes, relative to the folder: the path given, else a name made of the id or the URL."""
    if row.path:
        fault = path_fault(row.path)
        if fault:
            raise LinkError("bad_name", f"{row.path!r:.120} {fault}")
        path = PurePosixPath(row.path).as_posix()
        if taken.get(path.casefold(), url) != url:
            raise LinkError("duplicate_name", f"{path!r} is the path of an earlier link")
        return path
    last = PurePosixPath(unquote(urlsplit(url).path)).name
    suffix = PurePosixPath(last).suffix.lower()
    name = f"{youtube_id}.mp4" if youtube_id else safe_name(last)
    if row.id and not youtube_id:
        name = safe_name(row.id) + (suffix if suffix in VIDEO_SUFFIXES else ".mp4")
    if taken.get(name.casefold(), url) != url:
        stem, dot, end = name.rpartition(".")
        name = f"{stem or end}-{hashlib.sha256(url.encode()).hexdigest()[:8]}{dot if stem else ''}{end if stem else ''}"
    return name


def path_fault(path: str) -> str:
    """Why a path given in a list cannot be used below the folder; "" if it can.

    >>> path_fault("day_1/anna.mp4"), path_fault("../anna.mp4")
    ('', "has a part '..'")
    """
    if re.search(r"[\x00-\x1f\x7f\\]", path) or not path.isprintable():
        return "holds a backslash or a character that cannot be printed"
    if path.startswith("/") or re.match(r"[A-Za-z]:", path):
        return "is not relative"
    for part in path.split("/"):
        if part in ("", ".", ".."):
            return f"has a part {part!r}"
        if part.startswith(".") or part.endswith((".part", ".part.json")):
            return "is hidden, or ends as unfinished files do"
        if len(part.encode()) > MAX_NAME_BYTES:
            return f"has a part longer than {MAX_NAME_BYTES} bytes"
    return "is the name of a table of the download" if path.casefold() in RESERVED else ""


def safe_name(text: str) -> str:
    """A file name made of any text: letters, digits, `_`, `-` and inner dots stay, the rest becomes `_`.

    >>> safe_name("../etc/päss wd?.mp4")
    '_etc_päss_wd_.mp4'
    """
    name = re.sub(r"[^\w.-]", "_", text).strip(".")
    while name.endswith((".part", ".part.json")):
        name = name.rpartition(".")[0]
    stem, dot, suffix = name.rpartition(".")
    if len(suffix) > 8 or not stem:
        stem, dot, suffix = name, "", ""
    room = MAX_NAME_BYTES - 20 - len((dot + suffix).encode())  # a digest may be put in between
    return (stem.encode()[:room].decode(errors="ignore") or "video") + dot + suffix
