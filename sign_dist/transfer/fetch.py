"""Fetch a published checkpoint into a folder: resumed, checked, and only under a licence that was agreed to."""

import asyncio
import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

from sign_dist.data.download import AGENT
from sign_dist.data.fetch import Manners, new_client
from sign_dist.data.fetch import fetch as fetch_link
from sign_dist.data.hosts import Hosts
from sign_dist.data.link_faults import REASONS, LinkError
from sign_dist.data.links import Link
from sign_dist.data.part import Part
from sign_dist.errors import WeightsError
from sign_dist.transfer.catalogue import Published
from sign_dist.transfer.weights_file import file_digest

MANNERS = Manners(max_bytes=16 << 30)
TICK_S = 0.3

# What to do where it is another thing than for one clip of many.
REMEDIES = {
    "is_text": "open the address in a browser: it is often a login, or a question to confirm",
    "not_found": "it may have moved",
    "refused": "fetch it with a browser, and put it into the folder under its name",
    "timeout": "run it again: it goes on where it stopped",
    "wrong_size": "it was changed since it was published, so do not trust it",
    "wrong_sha256": "it was changed since it was published, so do not trust it",
    "too_large": "it cannot be the published one",
    "too_many_requests": "run it again later",
}
OnBytes = Callable[[int, int], None]
"""(bytes that are there, bytes of the whole; 0: not known)"""


@dataclasses.dataclass(frozen=True)
class Fetched:
    """A checkpoint in its place; `received_bytes` 0: it was there already."""

    path: Path
    size_bytes: int
    sha256: str
    received_bytes: int


def weights_dir() -> Path:
    """`SIGN_DIST_MODELS`, or the folder of this user's cache."""
    named = os.environ.get("SIGN_DIST_MODELS", "")
    return Path(named) if named else Path.home() / ".cache" / "sign_dist" / "weights"


def fetch_weights(
    entry: Published, folder: Path, *, accept_licence: bool = False, manners: Manners = MANNERS, on_bytes: OnBytes | None = None
) -> Fetched:
    """Fetch an entry of the catalogue. The same call goes on where an interrupted one stopped.

    Raises:
        WeightsError: no agreement to the licence, no address, a download that failed, or bytes that are not the published ones.
        DataError: the disk is full.
    """
    if not entry.url:
        raise WeightsError(
            f"{entry.name} has no address that can be fetched: get {entry.file} from {entry.page} with a browser, "
            "then look at it with `sign-dist weights inspect`"
        )
    if entry.needs_consent and not accept_licence:
        terms = f"is under {entry.licence}" if entry.licence else "has a licence that is not known here"
        raise WeightsError(f"{entry.name} {terms}: read {entry.page}, and repeat the command with --accept-licence if you agree")
    target = folder / entry.file
    if target.is_file():
        digest = file_digest(target)
        if entry.sha256 and digest != entry.sha256:
            raise WeightsError(f"{str(target)!r} is there and is another file (sha256 {digest}, not {entry.sha256}): move it away")
        return Fetched(target, target.stat().st_size, digest, 0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return asyncio.run(_fetch(entry, target, manners, on_bytes))
    except LinkError as fault:
        remedy = REMEDIES.get(fault.reason) or REASONS.get(fault.reason, ("", "run it again"))[1]
        what = f"{entry.name} could not be fetched from {entry.url} ({fault.reason}, {fault.detail})"
        raise WeightsError(f"{what}: {remedy}; its page is {entry.page}") from None
    except OSError as error:
        raise WeightsError(
            f"folder {str(folder)!r} cannot be written ({error.strerror or error}): name another with --out"
        ) from None


async def _fetch(entry: Published, target: Path, manners: Manners, on_bytes: OnBytes | None) -> Fetched:
    link = Link(entry.url, (target.name,), (), sha256=entry.sha256, size_bytes=entry.size_bytes)
    async with new_client(manners, AGENT) as client:
        watching = asyncio.create_task(_watch(Part(target), entry, on_bytes)) if on_bytes else None
        try:
            got = await fetch_link(client, Hosts(1, 1), link, target, manners)
        finally:
            if watching is not None:
                watching.cancel()
    return Fetched(target, got.size_bytes, got.sha256, got.received_bytes)


async def _watch(part: Part, entry: Published, on_bytes: OnBytes) -> None:
    """Tell how far a download is, until it is cancelled."""
    while True:
        await asyncio.sleep(TICK_S)
        if version := part.version(entry.url):
            on_bytes(part.size, entry.size_bytes or max(version.total, 0))
