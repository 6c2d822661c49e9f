"""Who works on a block of clips now, so that jobs which share a store share the work; and which clip killed its process.

Claims only save work. Nothing breaks when two writers hold one block: the commit record decides (`features.store`).
"""

import dataclasses
import json
import os
import socket
import uuid
from pathlib import Path

from sign_dist.features.place import Place, started

# A holder on another machine renews its claim after every clip; one that was silent for so long is taken for dead.
LEASE_S = 300.0
# A clip in whose midst so many processes died is to blame. Fewer may be chance: memory pressure, a node taken away.
MAX_DEATHS = 6


@dataclasses.dataclass(frozen=True)
class _Held:
    """What a claim file says: its holder, the clip in progress, and the deaths seen so far."""

    writer: str
    key: str
    deaths: dict[str, int]


@dataclasses.dataclass(frozen=True)
class Claim:
    """A block that is ours until `release`."""

    place: Place
    block: str
    writer: str
    deaths: dict[str, int]
    """Clip key -> processes that died while they worked on it. Grows when a claim is taken over from a dead holder."""

    def working_on(self, key: str) -> bool:
        """Note the clip that is being worked on, and renew the lease. False: the claim was taken away meanwhile."""
        held = _read(self.place, self.block)
        if held is not None and held.writer != self.writer:
            return False
        _write(self.place, self.block, _Held(self.writer, key, self.deaths))
        return True

    def release(self) -> None:
        """Give the block back, whether it was committed or not."""
        held = _read(self.place, self.block)
        if held is not None and held.writer == self.writer:
            self.place.remove(_name(self.block))


def claim(place: Place, block: str) -> Claim | None:
    """Take a block, or None while a living writer has it."""
    writer = f"{socket.gethostname()}:{os.getpid()}:{started(os.getpid())}:{uuid.uuid4().hex[:8]}"
    if place.create(_name(block), json.dumps(dataclasses.asdict(_Held(writer, "", {}))).encode()):
        return Claim(place, block, writer, {})
    held = _read(place, block)
    if held is not None and _alive(place, block, held.writer):
        return None
    deaths = dict(held.deaths) if held else {}
    if held and held.key:
        deaths[held.key] = deaths.get(held.key, 0) + 1
    _write(place, block, _Held(writer, "", deaths))
    now = _read(place, block)  # of two that take over in one moment, the later writer stays
    return Claim(place, block, writer, deaths) if now is not None and now.writer == writer else None


def is_held(place: Place, block: str) -> bool:
    """Does a living writer hold the block?"""
    held = _read(place, block)
    return held is not None and _alive(place, block, held.writer)


def _alive(place: Place, block: str, writer: str) -> bool:
    host, pid, start, *_ = [*writer.split(":"), "", ""]
    if host == socket.gethostname() and start and pid.isdigit() and Path("/proc/self/stat").exists():
        return started(int(pid)) == start
    try:
        return place.age_s(_name(block)) < LEASE_S
    except FileNotFoundError:
        return False


def _name(block: str) -> str:
    return f"claims/{block}.json"


def _write(place: Place, block: str, held: _Held) -> None:
    place.write(_name(block), json.dumps(dataclasses.asdict(held)).encode(), durable=False)


def _read(place: Place, block: str) -> _Held | None:
    try:
        told = json.loads(place.read(_name(block)))
        return _Held(str(told["writer"]), str(told["key"]), {str(k): int(n) for k, n in dict(told["deaths"]).items()})
    except (FileNotFoundError, ValueError, KeyError, TypeError):  # gone, or not ours to understand
        return None
