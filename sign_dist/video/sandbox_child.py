"""What runs in a guarded child: take limits, answer calls until the parent closes the pipe or dies."""

import ctypes
import functools
import importlib
import json
import math
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sign_dist.errors import VideoError
from sign_dist.video.wire import HEAD, Raw, pack, unpack

# What a child may write to any file, its own complaints included.
MAX_FILE_BYTES = 2**20
PR_SET_PDEATHSIG = 1
PR_SET_NO_NEW_PRIVS = 38


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
        request = unpack(json.loads(text), _read_all(requests, num_raw))
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
        return {"value": pack(find(request["function"])(*request["args"], **request["kwargs"]), arrays)}
    except VideoError as error:
        return {"code": error.code, "message": str(error)}
    except MemoryError:
        arrays.clear()
        return {"code": "out_of_memory", "message": "reading it takes more memory than allowed"}
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent gets to know
        arrays.clear()
        return {"failed": "".join(traceback.format_exception_only(error)).strip()}


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


def find(name: str) -> Callable[..., Any]:
    module, _, path = name.partition(":")
    return functools.reduce(getattr, path.split("."), importlib.import_module(module))


def max_rss_bytes(pid: int | str = "self") -> int:
    """The most memory that a living process has held, 0 if nobody can say. Unlike getrusage's it starts anew at exec."""
    try:
        words = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").partition("VmHWM:")[2].split()
        return int(words[0]) * 1024 if words else 0
    except OSError:
        return 0
