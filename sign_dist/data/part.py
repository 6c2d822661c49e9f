"""The unfinished file of a download, and what it must show before it gets its name.

Beside a target `clip.mp4` grow `clip.mp4.part` (the bytes so far) and `clip.mp4.part.json` (which version of the file they
are of). The second is written while the first is empty and never changes after that, so the pair fits at whatever moment the
process is killed.
"""

import dataclasses
import hashlib
import json
import os
import re
from pathlib import Path

from sign_dist.data.layout import write_json
from sign_dist.data.link_faults import LinkError
from sign_dist.data.links import Link

HEAD_BYTES = 1024  # of a file, looked at to tell a web page from a video
TEXT_SUFFIXES = (".txt", ".csv", ".tsv", ".json", ".html", ".xml", ".srt", ".vtt", ".md", ".stm", ".eaf")


@dataclasses.dataclass(frozen=True)
class Version:
    """Which bytes a part is made of; `total` -1: unknown."""

    url: str
    etag: str
    modified: str
    total: int


class Part:
    """The unfinished file of a target."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(f"{target.name}.part")
        self.version_file = target.with_name(f"{target.name}.part.json")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def version(self, url: str) -> Version | None:
        """What the part is of, if that is known and it is of this URL."""
        try:
            found = Version(**json.loads(self.version_file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        return found if found.url == url and self.path.exists() else None

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self.version_file.unlink(missing_ok=True)

    def begin(self, version: Version | None) -> None:
        """An empty part; None: of a version that cannot be named, so it will not be resumed."""
        self.discard()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.touch()
        if version:
            write_json(self.version_file, dataclasses.asdict(version))


def finish(part: Part, link: Link, *, can_retry: bool = False) -> tuple[int, str]:
    """Check a part that is at its end and rename it into its place; returns its size and sha256.

    A part that was resumed may be pieced together wrongly: with `can_retry` its fault asks for another attempt.
    """
    size = part.size
    with part.path.open("rb") as file:
        fault = content_fault(file.read(HEAD_BYTES), part.target)
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    if not fault and link.size_bytes and size != link.size_bytes:
        fault = LinkError("wrong_size", f"{size} bytes, the list says {link.size_bytes}", retry=can_retry)
    if not fault and link.sha256 and digest != link.sha256:
        fault = LinkError("wrong_sha256", f"{digest}, the list says {link.sha256}", retry=can_retry)
    if fault:
        part.discard()
        raise fault
    part.path.replace(part.target)
    part.version_file.unlink(missing_ok=True)
    return size, digest


def content_fault(head: bytes, target: Path) -> LinkError | None:
    """Why a file that begins so cannot be what the target's name promises; everything but a text is taken for a video."""
    if not head:
        return LinkError("empty", "0 bytes")
    if head[:3] in (b"FWS", b"CWS", b"ZWS"):
        return LinkError("unsupported", "the content is Flash")
    if target.suffix.lower() in TEXT_SUFFIXES or re.search(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]", head):
        return None
    return LinkError("is_text", f"it begins {head[:60].decode('utf-8', 'replace')!r}")
