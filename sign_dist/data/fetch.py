"""One link -> one file over HTTP: resumed by ranges, retried with backoff, checked, then renamed into its place.

Ranges: RFC 9110, sections 13.1.5 (If-Range) and 14.
"""

import asyncio
import dataclasses
import email.utils
import errno
import random
import re
import shutil
import time
from collections.abc import AsyncIterator, Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from sign_dist.data.hosts import Hosts
from sign_dist.data.link_faults import LinkError
from sign_dist.data.links import Link
from sign_dist.data.part import HEAD_BYTES, Part, Version, content_fault, finish
from sign_dist.errors import DataError

MAX_REDIRECTS = 10
MAX_ATTEMPTS = 100  # also where every attempt brings a few bytes more
FREE_BYTES = 64 << 20  # left on the disk for everybody else


@dataclasses.dataclass(frozen=True)
class Manners:
    """How hard to try, and how politely. `tries` are attempts that bring no byte more than the one before."""

    parallel: int = 16
    per_host: int = 4
    tries: int = 5
    timeout_s: float = 30.0
    max_bytes: int = 8 << 30
    min_bytes_per_s: float = 256.0  # measured over timeout_s
    backoff_s: float = 1.0  # doubled by every attempt
    max_backoff_s: float = 60.0
    max_retry_after_s: float = 300.0  # a server that asks for more is left alone until the next run


@dataclasses.dataclass(frozen=True)
class Fetched:
    """A file in its place. `received_bytes` came over the network in this run."""

    size_bytes: int
    sha256: str
    received_bytes: int


async def fetch(client: httpx.AsyncClient, hosts: Hosts, link: Link, target: Path, manners: Manners) -> Fetched:
    """Fetch a link into `target`, from where an earlier run left off.

    Raises:
        LinkError: no file, with the reason; a part that can be resumed stays.
        DataError: the disk is full.
    """
    part, furthest, failures, received = Part(target), -1, 0, 0
    for _ in range(MAX_ATTEMPTS):
        attempt = _Attempt(client, hosts, link, part, manners)
        try:
            with _named_faults(target):
                try:
                    resumed = await attempt.run()
                finally:
                    received += attempt.received_bytes
                size, digest = await asyncio.to_thread(finish, part, link, can_retry=resumed)
                return Fetched(size, digest, received)
        except LinkError as fault:
            if not fault.retry:
                raise
            kept = part.size if _continuable(part, link) else 0
            failures = 1 if kept > furthest >= 0 else failures + 1
            furthest = max(kept, furthest)
            if failures >= manners.tries:
                raise
            wait_s = min(manners.backoff_s * 2 ** (failures - 1), manners.max_backoff_s) * random.uniform(0.5, 1.0)
            await asyncio.sleep(max(fault.wait_s, wait_s))
    raise LinkError("broken_off", f"not whole after {MAX_ATTEMPTS} attempts, {part.size} bytes are there")


def _continuable(part: Part, link: Link) -> Version | None:
    """The version of a part that can be continued: the server can vouch for it, or the list's sha256 will."""
    version = part.version(link.url)
    return version if version and (version.etag or version.modified or link.sha256) else None


class _Attempt:
    """One request, with its redirects, and its answer's bytes."""

    def __init__(self, client: httpx.AsyncClient, hosts: Hosts, link: Link, part: Part, manners: Manners) -> None:
        self.client, self.hosts, self.link, self.part, self.manners = client, hosts, link, part, manners
        self.received_bytes = 0

    async def run(self) -> bool:
        """Bring the part to its full length; returns whether it was begun by an earlier attempt."""
        version = _continuable(self.part, self.link)
        headers = {"Accept-Encoding": "identity"}
        offset = self.part.size if version else 0
        if version and offset == version.total > 0:
            return True  # only the check and the renaming were missing
        if version and offset:
            headers["Range"] = f"bytes={offset}-"
            if version.etag or version.modified:
                headers["If-Range"] = version.etag or version.modified
        url = httpx.URL(self.link.url)
        for _ in range(MAX_REDIRECTS + 1):
            async with self.hosts.turn(url.host):
                with self._connecting(url.host):
                    response = await self.client.send(self.client.build_request("GET", url, headers=headers), stream=True)
                try:
                    self.hosts.answered(url.host)
                    if not response.has_redirect_location:
                        return await self._take(response, version, offset, url.host)
                    url = _redirected(url, response.headers["location"])
                finally:
                    await response.aclose()
        raise LinkError("bad_redirect", f"more than {MAX_REDIRECTS} redirects, the last to {url}")

    @contextmanager
    def _connecting(self, host: str) -> Generator[None]:
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
            if "certificate" in str(error).lower():
                raise LinkError("bad_certificate", str(error)) from error
            fault = LinkError("unreachable", f"{host}: {error or type(error).__name__}", retry=True)
            self.hosts.silent(host, fault, pause_s=self.manners.backoff_s, tries=self.manners.tries)
            raise fault from error
        except httpx.RemoteProtocolError as error:
            if "location header" in str(error):  # httpx reads it even where it does not follow
                raise LinkError("bad_redirect", str(error)) from error
            raise

    async def _take(self, response: httpx.Response, version: Version | None, offset: int, host: str) -> bool:
        headers, part = response.headers, self.part
        etag = headers.get("etag", "")
        match response.status_code:
            case 200:
                offset = 0
                encoded = headers.get("content-encoding", "identity") != "identity"
                total = -1 if encoded else int(headers.get("content-length", -1))
            case 206 if offset and version:
                start, total = _content_range(headers.get("content-range", ""))
                other = bool(etag and version.etag and etag != version.etag)
                if other or start != offset or (version.total >= 0 and total not in (-1, version.total)):
                    part.discard()
                    raise LinkError("changed", f"{response.url} is another file than {offset} bytes before", retry=True)
                total = total if total >= 0 else version.total
                encoded = False
            case 416 if offset and version:
                # RFC 9110, 15.5.17: it names the length. The length stated before was a lie if we have just that many.
                if _content_range(headers.get("content-range", ""))[1] == offset and etag in ("", version.etag):
                    return True
                part.discard()
                raise LinkError("changed", f"{response.url} is shorter than the {offset} bytes that came before", retry=True)
            case _:
                raise self._of_status(response, host)
        self._refuse_size(total)
        if free_bytes(part.target.parent) < total - offset + FREE_BYTES:
            raise DataError(f"{part.target.parent} has no room for {total - offset} bytes more: free space and run again")
        if not offset:
            modified = headers.get("last-modified", "")
            strong = "" if etag.startswith("W/") else etag  # RFC 9110, 13.1.5: weak ones do not vouch for ranges
            part.begin(None if encoded else Version(self.link.url, strong, modified, total))
        await self._store(response.aiter_bytes() if encoded else response.aiter_raw(), offset)
        if total >= 0 and part.size != total:
            raise LinkError("broken_off", f"{part.size} of {total} bytes came", retry=True)
        return offset > 0

    async def _store(self, chunks: AsyncIterator[bytes], offset: int) -> None:
        size, head, head_is_checked = offset, b"", offset > 0
        mark_s, mark = time.monotonic(), offset
        with self.part.path.open("ab", buffering=0) as file:
            async for chunk in chunks:
                file.write(chunk)
                size += len(chunk)
                self.received_bytes += len(chunk)
                self._refuse_size(size)
                if not head_is_checked and len(head := head + chunk) >= HEAD_BYTES:
                    head_is_checked = True
                    self._refuse_head(head)
                if (passed_s := time.monotonic() - mark_s) >= self.manners.timeout_s:
                    if size - mark < self.manners.min_bytes_per_s * passed_s:
                        raise LinkError("timeout", f"{size - mark} bytes in {passed_s:.0f} s", retry=True)
                    mark_s, mark = time.monotonic(), size

    def _refuse_size(self, size: int) -> None:
        if size > self.manners.max_bytes:
            self.part.discard()
            raise LinkError("too_large", f"at least {size} bytes, the limit is {self.manners.max_bytes}")

    def _refuse_head(self, head: bytes) -> None:
        if fault := content_fault(head, self.part.target):
            self.part.discard()
            raise fault

    def _of_status(self, response: httpx.Response, host: str) -> LinkError:
        status = response.status_code
        said = f"{status} {response.reason_phrase}".strip()
        if status in (404, 410):
            return LinkError("not_found", said)
        if status not in (408, 425, 429) and status < 500:
            return LinkError("refused", said)
        reason = {408: "timeout", 425: "too_many_requests", 429: "too_many_requests"}.get(status, "server_error")
        wait_s = retry_after_s(response.headers.get("retry-after", ""))
        if wait_s > self.manners.max_retry_after_s:
            fault = LinkError(reason, f"{said}; {host} asks to come back in {wait_s:.0f} s")
            self.hosts.close(host, fault)
            return fault
        if wait_s:
            self.hosts.pause(host, wait_s)
        retry = status not in (501, 505)
        return LinkError(reason, said, retry=retry, wait_s=wait_s)


def retry_after_s(value: str) -> float:
    """Seconds that a Retry-After header asks for: a number, or a date; 0 where it says nothing that we understand.

    >>> retry_after_s("120"), retry_after_s("soon"), retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT")
    (120.0, 0.0, 0.0)
    """
    if value.isascii() and value.isdigit():
        return float(value[:12])
    try:
        date = email.utils.parsedate_to_datetime(value)
    except (TypeError, ValueError):
        return 0.0
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def free_bytes(folder: Path) -> int:
    """Room on the disk of a folder that may not exist yet."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _content_range(value: str) -> tuple[int, int]:
    """(first byte, total) of a Content-Range header; -1: not said."""
    found = re.fullmatch(r"bytes\s+(?:(\d+)-\d+|\*)/(\d+|\*)", value.strip())
    if not found:
        return -1, -1
    return int(found[1] or -1), -1 if found[2] == "*" else int(found[2])


def _redirected(url: httpx.URL, location: str) -> httpx.URL:
    try:
        new = url.join(location)
    except httpx.InvalidURL as error:
        raise LinkError("bad_redirect", f"to {location!r:.200}: {error}") from None
    if new.scheme not in ("http", "https") or not new.host:
        raise LinkError("bad_redirect", f"to {location!r:.200}")
    return new


@contextmanager
def _named_faults(target: Path) -> Generator[None]:
    """What goes wrong below us, as reason codes."""
    try:
        yield
    except httpx.TimeoutException as error:
        raise LinkError("timeout", f"{type(error).__name__}", retry=True) from error
    except (httpx.TransportError, httpx.DecodingError) as error:
        raise LinkError("broken_off", f"{error or type(error).__name__}", retry=True) from error
    except httpx.InvalidURL as error:
        raise LinkError("bad_url", f"{error}") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DataError(f"the disk of {target.parent} is full: free space and run again, it goes on") from error
        raise LinkError("not_writable", f"{error}") from error


def new_client(manners: Manners, agent: str) -> httpx.AsyncClient:
    """A client that leaves redirects and bounds to us."""
    options: dict[str, Any] = {"limits": httpx.Limits(max_connections=None, max_keepalive_connections=manners.parallel)}
    return httpx.AsyncClient(timeout=manners.timeout_s, follow_redirects=False, headers={"User-Agent": agent}, **options)
