"""Turns at the hosts: so many requests at once in all, so many per host, and no haste where a host asks for time."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from sign_dist.data.link_faults import LinkError


class _Host:
    def __init__(self, at_once: int) -> None:
        self.turn = asyncio.Semaphore(at_once)
        self.not_before = 0.0  # time.monotonic()
        self.rounds = 0  # failures to connect since it last answered, those of one moment counted once
        self.closed: LinkError | None = None


class Hosts:
    """Turns for one event loop. A host that asks for time, or does not answer, is left alone by every link, not by one."""

    def __init__(self, parallel: int, per_host: int) -> None:
        self._all = asyncio.Semaphore(parallel)
        self._hosts: defaultdict[str, _Host] = defaultdict(lambda: _Host(per_host))

    @asynccontextmanager
    async def turn(self, name: str) -> AsyncGenerator[None]:
        """Wait for a turn at a host. The host's bound comes first, so that a slow host never holds places of the others.

        Raises:
            LinkError: the host was given up.
        """
        host = self._hosts[name]
        async with host.turn:
            while (wait_s := host.not_before - time.monotonic()) > 0 and not host.closed:
                await asyncio.sleep(wait_s)
            if host.closed:
                raise LinkError(host.closed.reason, f"not tried again: {host.closed.detail}")
            async with self._all:
                yield

    def answered(self, name: str) -> None:
        self._hosts[name].rounds = 0

    def pause(self, name: str, seconds: float) -> None:
        """No request to the host for so long."""
        host = self._hosts[name]
        host.not_before = max(host.not_before, time.monotonic() + seconds)

    def silent(self, name: str, fault: LinkError, *, pause_s: float, tries: int) -> None:
        """A connection failed. Pause, and after `tries` rounds without any answer give the host up for this run."""
        host = self._hosts[name]
        if time.monotonic() < host.not_before:
            return  # begun before the pause that an earlier failure asked for
        host.rounds += 1
        self.pause(name, pause_s * 2 ** (host.rounds - 1))
        if host.rounds >= tries:
            host.closed = fault

    def close(self, name: str, fault: LinkError) -> None:
        """No more requests to the host in this run: its remaining links get the same fault."""
        self._hosts[name].closed = fault
