"""A list of links -> files in a folder, with a record of each. The same call goes on where an earlier one stopped.

In the folder: `downloads.tsv`, a row for each file that is whole; `failed.tsv`, a row for each clip of the last list that has
no file, with the reason; `clips.tsv`, which file and span each clip of the list is. Dead links are data, not errors.
"""

import asyncio
import collections
import contextlib
import dataclasses
import fcntl
import hashlib
import shutil
import threading
from collections.abc import Callable, Generator
from datetime import UTC, datetime
from pathlib import Path

import httpx

from sign_dist import __version__
from sign_dist.data import youtube
from sign_dist.data.fetch import FREE_BYTES, Fetched, Manners, fetch, free_bytes, new_client
from sign_dist.data.hosts import Hosts
from sign_dist.data.layout import written_whole
from sign_dist.data.link_faults import LinkError
from sign_dist.data.links import Clip, Dead, Link, LinkList, read_links
from sign_dist.data.manifest import write_tsv
from sign_dist.data.part import HEAD_BYTES, Part, content_fault
from sign_dist.errors import DataError

AGENT = f"sign-dist/{__version__} (+https://github.com/sign-dist/sign-dist)"
COLUMNS = ("path", "url", "size_bytes", "sha256", "fetched_at")
DEAD_COLUMNS = tuple(field.name for field in dataclasses.fields(Dead))
CLIP_COLUMNS = tuple(field.name for field in dataclasses.fields(Clip))

Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a call did. `failed` counts clips by reason, the other numbers count links."""

    num_links: int
    num_fetched: int
    num_there_before: int
    received_bytes: int
    failed: dict[str, int]
    failed_file: Path


def download(
    list_file: Path, folder: Path, *, manners: Manners | None = None, verify: bool = False, progress: Progress | None = None
) -> Summary:
    """Fetch what a list names into `folder`; `progress` gets (links done, links).

    A file that is recorded and has the recorded size is left alone; with `verify` its sha256 must fit as well.

    Raises:
        DataError: the list cannot be read, the folder cannot be written or is in use, or the disk has no room.
    """
    manners, listed = manners or Manners(), read_links(list_file)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone_in(folder):
            record = Record(folder)
            _write_table(folder / "clips.tsv", CLIP_COLUMNS, listed.clips)
            refuse_full_disk(folder, listed.links)
            work = _Work(listed, folder, record, manners, verify, progress or (lambda _done, _total: None))
            try:
                work.run()
            finally:
                record.write_whole()
                _write_table(folder / "failed.tsv", DEAD_COLUMNS, work.dead)
    except OSError as error:
        raise DataError(f"folder {str(folder)!r} cannot be used ({error}): choose one that can be written") from error
    failed = collections.Counter(dead.reason for dead in work.dead)
    return Summary(
        num_links=len(listed.links),
        num_fetched=work.num_fetched,
        num_there_before=work.num_there_before,
        received_bytes=work.received_bytes,
        failed=dict(failed.most_common()),
        failed_file=folder / "failed.tsv",
    )


def refuse_full_disk(folder: Path, links: list[Link]) -> None:
    """Stop before the start where the sizes that the list states do not fit.

    Raises:
        DataError: with what is needed and what is free.
    """
    missing = [link for link in links if not (folder / link.paths[0]).exists()]
    needed = sum(max(0, link.size_bytes - Part(folder / link.paths[0]).size) for link in missing)
    free = free_bytes(folder)
    if needed and needed + FREE_BYTES > free:
        raise DataError(
            f"{len(missing)} files need {needed / 1e9:.2f} GB in {str(folder)!r}, {free / 1e9:.2f} GB are free: "
            "free space, or choose a folder on another disk"
        )


class Record:
    """downloads.tsv: a line is appended as soon as a file is whole, and the table is written anew at the end of a run."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / "downloads.tsv"
        self.rows: dict[str, dict[str, str]] = {}
        for line in self._lines():
            fields = line.split("\t")
            if len(fields) == len(COLUMNS) and fields[2].isdigit():
                self.rows[fields[0]] = dict(zip(COLUMNS, fields, strict=True))
        self.write_whole()

    def _lines(self) -> list[str]:
        """Without the header, and without the last line if a kill or a full disk cut it off."""
        if not self.file.exists():
            return []
        whole, _, _ = self.file.read_text(encoding="utf-8", errors="replace").rpartition("\n")
        return whole.split("\n")[1:]

    def has(self, link: Link, *, verify: bool = False) -> bool:
        """Whether all files of a link are there as recorded. A file without a record is taken in if the list fits it.

        A file comes under its name only when it is whole, so one without a record was there before the first run, or the
        run was killed between the renaming and the record.
        """
        return all(self._has(link, path, verify) for path in link.paths)

    def _has(self, link: Link, path: str, verify: bool) -> bool:
        file, row = self.folder / path, self.rows.get(path)
        if not file.is_file():
            return False
        size = file.stat().st_size
        if row:
            same = int(row["size_bytes"]) == size and (row["url"] == link.url or row["sha256"] == link.sha256)
            return same and link.sha256 in ("", row["sha256"]) and (not verify or _sha256(file) == row["sha256"])
        with file.open("rb") as start:
            if content_fault(start.read(HEAD_BYTES), file) or link.size_bytes not in (0, size):
                return False
        digest = _sha256(file)
        if link.sha256 not in ("", digest):
            return False
        self.add(link, path, Fetched(size, digest, 0))
        return True

    def add(self, link: Link, path: str, fetched: Fetched) -> None:
        """One line, in one write: a kill leaves it whole or cut off, never mixed with another."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        values = (path, link.url, str(fetched.size_bytes), fetched.sha256, now)
        self.rows[path] = dict(zip(COLUMNS, values, strict=True))
        with self.file.open("ab", buffering=0) as file:
            file.write(("\t".join(values) + "\n").encode())

    def write_whole(self) -> None:
        """The rows whose files are there, by path."""
        there = [self.rows[path] for path in sorted(self.rows) if (self.folder / path).is_file()]
        write_tsv(self.file, COLUMNS, there)


class _Work:
    """One run over a list, in one event loop."""

    def __init__(self, listed: LinkList, folder: Path, record: Record, manners: Manners, verify: bool, progress: Progress) -> None:
        self.links, self.dead = listed.links, list(listed.dead)
        self.folder, self.record, self.manners, self.verify, self.progress = folder, record, manners, verify, progress
        self.num_done = self.num_fetched = self.num_there_before = self.received_bytes = 0
        self.stop = threading.Event()

    def run(self) -> None:
        """Fetch all links. Ctrl-C ends every transfer where it is and comes out as KeyboardInterrupt."""
        try:
            asyncio.run(self._all())
        except* DataError as group:
            raise _first(group) from None

    async def _all(self) -> None:
        hosts = Hosts(self.manners.parallel, self.manners.per_host)
        self.progress(0, len(self.links))
        try:
            async with new_client(self.manners, AGENT) as client, asyncio.TaskGroup() as tasks:
                for link in self.links:
                    tasks.create_task(self._one(client, hosts, link))
        finally:
            self.stop.set()  # a thread of yt-dlp cannot be cancelled

    async def _one(self, client: httpx.AsyncClient, hosts: Hosts, link: Link) -> None:
        target = self.folder / link.paths[0]
        try:
            if await asyncio.to_thread(self.record.has, link, verify=self.verify):
                self.num_there_before += 1
            else:
                fetched = await (
                    self._youtube(hosts, link, target) if link.youtube else fetch(client, hosts, link, target, self.manners)
                )
                self.num_fetched += 1
                self.received_bytes += fetched.received_bytes
                self._place(link, target, fetched)
        except LinkError as fault:
            self.dead += [Dead(clip, link.url, fault.reason, fault.detail) for clip in link.ids]
        self.num_done += 1
        self.progress(self.num_done, len(self.links))

    async def _youtube(self, hosts: Hosts, link: Link, target: Path) -> Fetched:
        async with hosts.turn(link.host):
            try:
                return await asyncio.to_thread(youtube.fetch, link, target, self.manners, self.stop)
            except LinkError as fault:
                if fault.reason == "too_many_requests":
                    hosts.close(link.host, fault)
                raise

    def _place(self, link: Link, target: Path, fetched: Fetched) -> None:
        """Record the file, and give it the further names under which it is wanted."""
        self.record.add(link, link.paths[0], fetched)
        for path in link.paths[1:]:
            other = self.folder / path
            try:
                other.parent.mkdir(parents=True, exist_ok=True)
                with written_whole(other) as temporary:
                    temporary.unlink()
                    try:
                        temporary.hardlink_to(target)
                    except OSError:  # a file system without links
                        shutil.copyfile(target, temporary)
            except OSError as error:
                raise LinkError("not_writable", f"{path}: {error}") from error
            self.record.add(link, path, fetched)


@contextlib.contextmanager
def _alone_in(folder: Path) -> Generator[None]:
    """Two downloads into one folder would write into each other's parts."""
    with (folder / ".download.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(f"another download writes to {str(folder)!r}: wait for it, or choose another folder") from None
        yield


def _first(group: BaseExceptionGroup[DataError]) -> DataError:
    found = group.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found


def _write_table(path: Path, columns: tuple[str, ...], rows: list[Clip] | list[Dead]) -> None:
    write_tsv(path, columns, [dataclasses.asdict(row) for row in rows])


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
