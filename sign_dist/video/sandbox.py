"""Call a function in a child process with limits on memory, time and answers, so that a bad file costs one call.

A decoder that crashes, hangs or eats memory takes its process with it, and Python cannot stop it from within. The child is
started once by a plain exec (safe in threads and in Ray's workers), serves call after call, is replaced when it dies, and
dies with its parent. Its answers are JSON and raw arrays, never pickles: a decoder that was taken over through a crafted
file cannot make the parent run anything.
"""

import contextlib
import dataclasses
import functools
import json
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sign_dist.errors import VideoError
from sign_dist.video.sandbox_child import find, max_rss_bytes
from sign_dist.video.wire import HEAD, Raw, pack, unpack

# What a child may take beyond what it has after its imports.
MEMORY_BYTES = 2 * 2**30
SECONDS = 120.0
MAX_ANSWER_BYTES = 3 * 2**30
# A child is replaced after so many calls: what a decoder leaks ends with it.
CALLS_PER_CHILD = 1000
START_SECONDS = 60.0


class ChildDiedError(VideoError):
    """The child did not live to answer. `signal` is what ended it, 0 if it left by itself."""

    def __init__(self, code: str, message: str, signal_number: int = 0) -> None:
        super().__init__(code, message)
        self.signal = signal_number


@dataclasses.dataclass
class Usage:
    """What the children of a guard did so far."""

    calls: int = 0
    children: int = 0
    deaths: int = 0
    """Children that ended in the middle of a call, whoever ended them."""
    max_rss_bytes: int = 0
    """The most memory that one of them is known to have held."""


class Guarded:
    """`function`, called in a child process. Calls from several threads get a child each.

    The function must be importable by its name; arguments are numbers, strings, bytes, lists and dicts; it answers those,
    None or NumPy arrays of plain numbers.

    Calling raises:
        VideoError: what the function raised; `timed_out` after `seconds` of the clock or twice that of a CPU;
            `out_of_memory` beyond `memory_bytes` more than the bare child needs; `too_large` for an answer beyond
            `max_answer_bytes`; `crashed` with the signal if the child died otherwise.
        RuntimeError: the function failed in a way of its own.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        memory_bytes: int = MEMORY_BYTES,
        seconds: float = SECONDS,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
        calls_per_child: int = CALLS_PER_CHILD,
    ) -> None:
        self._name = f"{function.__module__}:{function.__qualname__}"
        if "<" in self._name or "__main__" in self._name:
            raise ValueError(f"a child cannot import {self._name}: give a function at the top of a module")
        self._memory_bytes, self._seconds = memory_bytes, seconds
        self._max_answer_bytes, self._calls_per_child = max_answer_bytes, calls_per_child
        self._idle: list[_Child] = []
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self.usage = Usage()

    def __reduce__(self) -> Any:
        # A copy in another process starts children of its own.
        limits = (self._memory_bytes, self._seconds, self._max_answer_bytes, self._calls_per_child)
        return _again, (self._name, *limits)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        child = self._take()
        try:
            answer = child.call(self._name, args, kwargs, self._seconds, self._max_answer_bytes)
        except BaseException as error:
            # Whatever went wrong, an interrupt too: nobody knows what this child is doing now.
            rss = child.end()
            with self._lock:
                self.usage.calls += 1
                self.usage.deaths += isinstance(error, ChildDiedError)
                self.usage.max_rss_bytes = max(self.usage.max_rss_bytes, rss)
            raise
        with self._lock:
            self.usage.calls += 1
            self.usage.max_rss_bytes = max(self.usage.max_rss_bytes, answer["max_rss"])
        if child.num_calls >= self._calls_per_child or answer.get("code") == "out_of_memory":
            child.end()
        else:
            with self._lock:
                self._idle.append(child)
        if "code" in answer:
            raise VideoError(answer["code"], answer["message"])
        if "failed" in answer:
            raise RuntimeError(f"{self._name} failed in its child: {answer['failed']}")
        return answer["value"]

    def close(self) -> None:
        """End the children; the next call starts new ones."""
        with self._lock:
            idle, self._idle = self._idle, []
        for child in idle if os.getpid() == self._pid else []:
            child.end()

    def __enter__(self) -> "Guarded":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # modules may be gone when the interpreter ends
            self.close()

    def _take(self) -> "_Child":
        with self._lock:
            if os.getpid() != self._pid:  # a fork: these children are our parent's
                self._idle, self._pid = [], os.getpid()
            while self._idle:
                child = self._idle.pop()
                if child.alive():
                    return child
                child.end()  # killed while it was idle, which is no file's fault
            self.usage.children += 1
        return _starter().submit(_Child, self._memory_bytes, self._name.split(":")[0]).result()


def _again(name: str, memory_bytes: int, seconds: float, max_answer_bytes: int, calls_per_child: int) -> Guarded:
    return Guarded(
        find(name),
        memory_bytes=memory_bytes,
        seconds=seconds,
        max_answer_bytes=max_answer_bytes,
        calls_per_child=calls_per_child,
    )


@functools.cache
def _starter_of(pid: int) -> ThreadPoolExecutor:
    del pid
    return ThreadPoolExecutor(1, "sandbox")


def _starter() -> ThreadPoolExecutor:
    """The one thread that starts children: a child is told of the death of the thread that started it, not of the process."""
    return _starter_of(os.getpid())


class _Child:
    """A process that answers calls, and the pipes to it."""

    def __init__(self, memory_bytes: int, module: str) -> None:
        self.num_calls = 0
        self.max_rss_bytes = 0
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `end`
        answers, writer = os.pipe()
        command = [sys.executable, "-c", "from sign_dist.video.sandbox_child import serve; serve()"]
        command += [str(writer), str(os.getpid()), str(memory_bytes), module]
        path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, sys.path)])
        quiet = {
            "PYTHONPATH": path,
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "OPENCV_FOR_THREADS_NUM": "1",
            "MALLOC_ARENA_MAX": "2",
        }
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=self._complaints,
                pass_fds=[writer],
                env=os.environ | quiet,
                start_new_session=True,  # Ctrl-C in the terminal is for the parent, which then ends the child
            )
        except BaseException:
            os.close(answers)
            raise
        finally:
            os.close(writer)
        self._answers = answers
        assert self._process.stdin
        self._requests = self._process.stdin.fileno()
        os.set_blocking(self._requests, False)
        try:
            self._receive(time.monotonic() + START_SECONDS, 2**16)
        except BaseException:
            self.end()
            raise

    def alive(self) -> bool:
        return self._ended() is None

    def call(self, name: str, args: Any, kwargs: Any, seconds: float, max_answer_bytes: int) -> dict[str, Any]:
        self.num_calls += 1
        deadline = time.monotonic() + seconds
        arrays: list[Raw] = []
        text = json.dumps(pack({"function": name, "args": list(args), "kwargs": kwargs, "seconds": seconds}, arrays)).encode()
        self._send([HEAD.pack(len(text), sum(map(len, arrays))), text, *arrays], deadline)
        return self._receive(deadline, max_answer_bytes)

    def end(self) -> int:
        """Kill it and answer the most memory that it held, in bytes."""
        with contextlib.suppress(ProcessLookupError):
            if self._process.returncode is None:
                self.max_rss_bytes = max(self.max_rss_bytes, max_rss_bytes(self._process.pid))
                os.kill(self._process.pid, signal.SIGKILL)
        self._reap(wait=True)
        for pipe in (self._process.stdin, self._complaints):
            with contextlib.suppress(OSError):
                if pipe:
                    pipe.close()
        if self._answers >= 0:
            os.close(self._answers)
            self._answers = -1
        return self.max_rss_bytes

    def _reap(self, *, wait: bool) -> None:
        if self._process.returncode is not None:
            return
        try:
            pid, status, usage = os.wait4(self._process.pid, 0 if wait else os.WNOHANG)
        except ChildProcessError:  # someone else waited for it
            self._process.returncode = -signal.SIGKILL
            return
        if pid:
            self._process.returncode = os.waitstatus_to_exitcode(status)
            # Of one that died by itself only this is known, and a figure no larger than ours is that of the fork before it.
            ours = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            if usage.ru_maxrss > ours:
                self.max_rss_bytes = self.max_rss_bytes or usage.ru_maxrss * 1024

    def _ended(self) -> int | None:
        self._reap(wait=False)
        return self._process.returncode

    def _send(self, parts: list[Raw], deadline: float) -> None:
        for part in parts:
            left = memoryview(part)
            while left:
                if not select.select([], [self._requests], [], max(0.0, deadline - time.monotonic()))[1]:
                    raise self._timed_out()
                try:
                    left = left[os.write(self._requests, left) :]
                except BrokenPipeError:
                    raise self._died() from None

    def _receive(self, deadline: float, max_bytes: int) -> dict[str, Any]:
        num_text, num_raw = HEAD.unpack(self._read(HEAD.size, deadline))
        if num_text + num_raw > max_bytes:
            raise VideoError("too_large", f"what was read takes {num_text + num_raw} bytes, more than the {max_bytes} allowed")
        answer = json.loads(bytes(self._read(num_text, deadline)))
        raw = self._read(num_raw, deadline)
        self.max_rss_bytes = int(answer.get("max_rss", 0))
        return answer | ({"value": unpack(answer["value"], raw)} if "value" in answer else {})

    def _read(self, count: int, deadline: float) -> bytearray:
        data = bytearray(count)
        left = memoryview(data)
        while left:
            if not select.select([self._answers], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise self._timed_out()
            read = os.readv(self._answers, [left[: 2**20]])
            if not read:
                raise self._died()
            left = left[read:]
        return data

    def _timed_out(self) -> ChildDiedError:
        return ChildDiedError("timed_out", "reading it took longer than the time allowed, and was stopped", signal.SIGKILL)

    def _died(self) -> ChildDiedError:
        """The pipe is closed: name the death."""
        self._reap(wait=True)
        code = self._process.returncode
        number = -code if code < 0 else 0
        self._complaints.seek(0, os.SEEK_END)
        self._complaints.seek(max(0, self._complaints.tell() - 4096))
        words = self._complaints.read().decode("utf-8", "replace")
        if number == signal.SIGXCPU:
            return ChildDiedError("timed_out", "reading it took more CPU time than allowed, and was stopped", number)
        if any(word in words for word in ("bad_alloc", "MemoryError", "Cannot allocate memory")):
            return ChildDiedError("out_of_memory", "reading it took more memory than allowed, and its process ended", number)
        name = signal.Signals(number).name if number in set(signal.Signals) else f"exit code {code}"
        hint = " (the system's own memory killer does that)" if number == signal.SIGKILL else ""
        return ChildDiedError("crashed", f"the process that read this clip was ended by {name}{hint}", number)
