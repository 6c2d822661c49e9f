"""Call a function in a child process with limits on memory, time and answers, so that a bad file costs one call.

A decoder that crashes, hangs or eats memory takes its process with it, and Python cannot stop it from within. The child is
started once by a plain exec (safe in threads and in Ray's workers), serves call after call, is replaced when it dies, and
dies with its parent. Its answers are JSON and raw arrays, never pickles: a decoder that was taken over through a crafted
file cannot make the parent run anything.
"""

import contextlib
import ctypes
import dataclasses
import functools
import importlib
import json
import math
import os
import resource
import select
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from sign_dist.errors import VideoError

# What a child may take beyond what it has after its imports.
MEMORY_BYTES = 2 * 2**30
SECONDS = 120.0
MAX_ANSWER_BYTES = 3 * 2**30
# A child is replaced after so many calls: what a decoder leaks ends with it.
CALLS_PER_CHILD = 1000
# What a child may write to any file, its own complaints included.
MAX_FILE_BYTES = 2**20
START_SECONDS = 60.0

Raw = bytes | memoryview

HEAD = struct.Struct("<QQ")  # bytes of JSON, bytes of arrays behind it
PR_SET_PDEATHSIG = 1
PR_SET_NO_NEW_PRIVS = 38


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
        _find(name),
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
        command = [sys.executable, "-c", "from sign_dist.video.sandbox import serve; serve()"]
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
        text = json.dumps(_pack({"function": name, "args": list(args), "kwargs": kwargs, "seconds": seconds}, arrays)).encode()
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
            # Of one that died by itself only this is known; it may be what the parent held when it started the child.
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
        return answer | ({"value": _unpack(answer["value"], raw)} if "value" in answer else {})

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


def _pack(value: Any, arrays: list[Raw]) -> Any:
    """A value as JSON; bytes and arrays go into `arrays`, in order."""
    match value:
        case None | bool() | int() | str():
            return value
        case float() if math.isfinite(value):
            return value
        case float():
            return {"float": str(value)}
        case bytes() | bytearray() | memoryview():
            arrays.append(bytes(value))
            return {"bytes": len(arrays[-1])}
        case np.ndarray():
            # Not copied: a clip may be most of what a child may hold.
            arrays.append(np.ascontiguousarray(value).data.cast("B") if value.size else b"")
            return {"array": value.dtype.str, "shape": list(value.shape)}
        case np.generic():
            return value.item()
        case list() | tuple():
            return [_pack(item, arrays) for item in value]
        case dict():
            return {"dict": {str(name): _pack(item, arrays) for name, item in value.items()}}
        case Path():
            return str(value)
        case _:
            raise TypeError(f"{type(value).__name__} cannot be sent to or from a child: use numbers, text, bytes, lists and dicts")


def _unpack(text: Any, raw: bytes | bytearray) -> Any:
    """What `_pack` packed. Arrays may be views of `raw`. Raises ValueError for what it could not have packed."""
    view, place = memoryview(raw), 0

    def take(count: int) -> memoryview:
        nonlocal place
        if count < 0 or place + count > len(view):
            raise ValueError(f"{count} bytes are announced, {len(view) - place} are there")
        place += count
        return view[place - count : place]

    def value(packed: Any) -> Any:
        match packed:
            case {"bytes": int(count)}:
                return bytes(take(count))
            case {"float": str(number)}:
                return float(number)
            case {"array": str(kind), "shape": list(shape)}:
                dtype = np.dtype(kind)
                if dtype.kind not in "biuf" or not all(isinstance(n, int) and n >= 0 for n in shape):
                    raise ValueError(f"no plain array: {kind} {shape}")
                return np.frombuffer(take(math.prod(shape) * dtype.itemsize), dtype).reshape(shape)
            case {"dict": dict(items)}:
                return {str(name): value(item) for name, item in items.items()}
            case list():
                return [value(item) for item in packed]
            case _:
                return packed

    return value(text)


def _find(name: str) -> Callable[..., Any]:
    module, _, path = name.partition(":")
    return functools.reduce(getattr, path.split("."), importlib.import_module(module))


def serve() -> None:
    """The child: answer calls until the parent closes the pipe or dies."""
    writer, parent, memory_bytes, module = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if os.getppid() != parent:  # it died before it could be told to take us along
        os._exit(0)
    # The pipes get other numbers: nothing that a library reads or prints may reach them.
    requests = os.dup(0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    importlib.import_module(module)
    bare = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (bare + memory_bytes, bare + memory_bytes))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_FILE_BYTES, MAX_FILE_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _answer(writer, {"ready": True}, [])
    while True:
        head = _read_all(requests, HEAD.size)
        if len(head) < HEAD.size:
            os._exit(0)
        num_text, num_raw = HEAD.unpack(head)
        text = _read_all(requests, num_text)
        request = _unpack(json.loads(text), _read_all(requests, num_raw))
        used = resource.getrusage(resource.RUSAGE_SELF)
        cpu_s = math.ceil(used.ru_utime + used.ru_stime + 2 * request["seconds"]) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, resource.RLIM_INFINITY))
        arrays: list[Raw] = []
        packed = _call(request, arrays)
        _answer(writer, packed | {"max_rss": max_rss_bytes()}, arrays)
        del arrays, packed, request


def _call(request: dict[str, Any], arrays: list[Raw]) -> dict[str, Any]:
    """The packed answer to a request."""
    try:
        return {"value": _pack(_find(request["function"])(*request["args"], **request["kwargs"]), arrays)}
    except VideoError as error:
        return {"code": error.code, "message": str(error)}
    except MemoryError:
        arrays.clear()
        return {"code": "out_of_memory", "message": "reading it takes more memory than allowed"}
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent gets to know
        arrays.clear()
        return {"failed": "".join(traceback.format_exception_only(error)).strip()}


def max_rss_bytes(pid: int | str = "self") -> int:
    """The most memory that a living process has held, 0 if nobody can say. Unlike getrusage's it starts anew at exec."""
    try:
        words = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").partition("VmHWM:")[2].split()
        return int(words[0]) * 1024 if words else 0
    except OSError:
        return 0


def _answer(writer: int, packed: dict[str, Any], arrays: list[Raw]) -> None:
    text = json.dumps(packed).encode()
    for part in (HEAD.pack(len(text), sum(map(len, arrays))), text, *arrays):
        left = memoryview(part)
        while left:
            left = left[os.write(writer, left) :]


def _read_all(file: int, count: int) -> bytes:
    parts: list[bytes] = []
    while count:
        part = os.read(file, min(count, 2**20))
        if not part:
            break
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
