"""The child that reads files nobody vouched for: whatever happens to it costs one call, and it never outlives its parent."""

import ctypes
import itertools
import json
import math
import os
import pickle
import resource
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

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from sign_dist.config.data import Sampling
from sign_dist.errors import VideoError
from sign_dist.video.check import check_clip
from sign_dist.video.decode import read_clip
from sign_dist.video.guarded import check_guarded, guard_checks, guard_reads, read_guarded
from sign_dist.video.sandbox import ChildDiedError, Guarded
from sign_dist.video.sandbox_child import max_rss_bytes
from sign_dist.video.wire import Raw, pack, unpack

Paint = Callable[..., Path]


def misbehave(how: str) -> Any:
    """For the child: all that a decoder may do to its process, and some that it may not."""
    match how:
        case "segfault":
            return ctypes.string_at(0)
        case "abort":
            os.abort()
        case "exit":
            os._exit(3)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "sleep":
            time.sleep(60)
        case "spin":
            for _ in itertools.count():
                pass
        case "hog":
            return len([np.ones(2**20, np.uint8) for _ in range(4096)])
        case "raise":
            raise ZeroDivisionError("no\nsuch thing")
        case "refuse":
            raise VideoError("blank", "nothing to see")
        case "huge":
            return np.zeros(2**22, np.uint8)
        case "unsendable":
            return object()
        case "print":
            print("x" * 100_000, flush=True)
            os.write(1, b"y" * 100_000)
            return os.read(0, 10).decode()
        case "fill":
            with tempfile.TemporaryFile() as file:
                file.write(bytes(2**24))
        case "bad_alloc":
            os.write(2, b"terminate called after throwing an instance of 'std::bad_alloc'\n")
            os.abort()
        case _:
            return how
    return None


def pid() -> int:
    return os.getpid()


def echo(value: Any) -> Any:
    return value


@pytest.mark.long
@pytest.mark.parametrize(
    ("how", "code", "signal_number"),
    [
        ("segfault", "crashed", signal.SIGSEGV),
        ("abort", "crashed", signal.SIGABRT),
        ("exit", "crashed", 0),
        ("kill", "crashed", signal.SIGKILL),
        ("sleep", "timed_out", signal.SIGKILL),
        ("spin", "timed_out", signal.SIGKILL),
        ("bad_alloc", "out_of_memory", signal.SIGABRT),
    ],
)
def test_a_death_costs_one_call_and_has_a_reason(how: str, code: str, signal_number: int) -> None:
    with Guarded(misbehave, seconds=1.5, memory_bytes=2**28) as guarded:
        assert guarded("fine") == "fine"
        begin = time.monotonic()
        with pytest.raises(ChildDiedError) as error:
            guarded(how)
        assert time.monotonic() - begin < 10
        assert (error.value.code, error.value.signal) == (code, signal_number)
        assert guarded("fine again") == "fine again"
        usage = guarded.usage
        assert (usage.calls, usage.children, usage.deaths) == (3, 2, 1)


@pytest.mark.long
def test_what_fails_without_a_death_keeps_the_child_or_replaces_it() -> None:
    with Guarded(misbehave, seconds=60, memory_bytes=2**28, max_answer_bytes=2**20) as guarded:
        with pytest.raises(VideoError, match="nothing to see") as refused:
            guarded("refuse")
        assert refused.value.code == "blank"
        with pytest.raises(RuntimeError, match="ZeroDivisionError: no"):
            guarded("raise")
        with pytest.raises(RuntimeError, match="object cannot be sent"):
            guarded("unsendable")
        with pytest.raises(RuntimeError, match="File too large"):
            guarded("fill")
        assert guarded("print") == "", "neither what it prints nor what it reads is the pipe's"
        assert guarded.usage.children == 1
        with pytest.raises(VideoError) as greedy:
            guarded("hog")
        assert greedy.value.code == "out_of_memory"
        with pytest.raises(VideoError) as large:
            guarded("huge")
        assert large.value.code == "too_large"
        assert guarded("fine") == "fine"
        assert guarded.usage.deaths == 0
        assert guarded.usage.max_rss_bytes < 2**29


@pytest.mark.long
def test_cpu_time_is_bounded_even_where_nobody_watches_the_clock() -> None:
    """The parent may be stopped, too: the limit stands in the child."""
    with Guarded(limit_of_cpu, seconds=5) as guarded:
        for _ in range(3):
            used, limit = guarded()
            assert used < limit <= used + 2 * 5 + 2


def limit_of_cpu() -> list[float]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return [usage.ru_utime + usage.ru_stime, resource.getrlimit(resource.RLIMIT_CPU)[0]]


@pytest.mark.long
def test_one_child_serves_many_calls_until_it_has_served_enough() -> None:
    with Guarded(pid, calls_per_child=3) as guarded:
        seen = [guarded() for _ in range(7)]
        assert seen[0] == seen[2] != seen[3] == seen[5] != seen[6]
        assert os.getpid() not in seen
        assert not psutil.pid_exists(seen[0])
    deadline = time.monotonic() + 10
    while psutil.pid_exists(seen[-1]) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not psutil.pid_exists(seen[-1])


@pytest.mark.long
def test_a_child_killed_while_idle_is_no_files_fault() -> None:
    with Guarded(pid) as guarded:
        first = guarded()
        os.kill(first, signal.SIGKILL)
        time.sleep(0.1)
        assert guarded() != first
        assert guarded.usage.deaths == 0


@pytest.mark.long
def test_threads_get_children_of_their_own_which_outlive_them() -> None:
    barrier = threading.Barrier(3)

    def work(k: int) -> list[int]:
        barrier.wait()
        return [guarded(k * 100 + i) for i in range(20)]

    with Guarded(echo) as guarded:
        with ThreadPoolExecutor(3) as pool:
            assert list(pool.map(work, range(3))) == [[k * 100 + i for i in range(20)] for k in range(3)]
        assert 1 <= guarded.usage.children <= 3
        children = guarded.usage.children
        time.sleep(0.2)
        assert guarded("after the threads have ended") == "after the threads have ended"
        assert guarded.usage.children == children, "a child dies with its process, not with the thread that first used it"


@pytest.mark.long
def test_the_child_dies_with_its_parent(tmp_path: Path) -> None:
    script = (
        "import time; from tests.video.test_sandbox import pid, Guarded; g = Guarded(pid); print(g(), flush=True); time.sleep(60)"
    )
    root = str(Path(__file__).resolve().parents[2])
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=root, text=True) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        assert psutil.pid_exists(child)
        parent.kill()
    deadline = time.monotonic() + 10
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


@pytest.mark.long
def test_a_guard_travels_to_other_processes_without_its_children() -> None:
    with Guarded(echo, seconds=7) as guarded:
        assert guarded(1) == 1
        copy = pickle.loads(pickle.dumps(guarded))
        with copy:
            assert copy(2) == 2
            assert (copy._seconds, copy.usage.children) == (7, 1)


def test_what_no_child_could_import_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="a child cannot import"):
        Guarded(lambda: 1)


@pytest.mark.long
def test_no_file_of_the_parent_stays_open() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        with Guarded(pid) as guarded:
            guarded()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(max_size=50)
    | arrays_of.arrays(st.sampled_from(["u1", "<i8", "<f4"]), arrays_of.array_shapes(min_dims=0, min_side=0, max_side=3)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(plain)
def test_values_arrive_as_they_were_sent(value: Any) -> None:
    arrays: list[Raw] = []
    text = json.dumps(pack(value, arrays))
    assert same(unpack(json.loads(text), b"".join(arrays)), value)


def same(a: Any, b: Any) -> bool:
    if isinstance(b, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b, equal_nan=b.dtype.kind == "f")
    if isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in b)
    return a == b and type(a) is type(b)


@pytest.mark.parametrize(
    "packed",
    [
        {"bytes": 9},
        {"bytes": -1},
        {"array": "|O", "shape": [1]},
        {"array": "<f8", "shape": [10**9]},
        {"array": "<f8", "shape": [-1]},
    ],
)
def test_an_answer_that_lies_is_an_error(packed: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        unpack(packed, b"12345678")
    assert math.isinf(unpack({"float": "inf"}, b""))


@pytest.mark.long
def test_a_guarded_check_and_read_are_the_plain_ones(tmp_path: Path, paint: Paint) -> None:
    path = paint(tmp_path / "a.mp4", num_frames=60, fps=50)
    sampling = Sampling(fps=10)
    options = sampling.model_dump()
    assert check_guarded(path, start_s=0.2, end_s=0.8, sampling=sampling) == check_clip(
        path, start_s=0.2, end_s=0.8, sampling=sampling
    )
    assert check_guarded(path.read_bytes(), sampling=sampling) == check_clip(path, sampling=sampling)
    assert check_guarded(tmp_path / "none.mp4").reason == "missing"
    ours, theirs = read_clip(path, **options), read_guarded(path, **options)
    assert np.array_equal(ours.frames, theirs.frames)
    assert (ours.fps, ours.decoder, ours.num_source) == (theirs.fps, theirs.decoder, theirs.num_source)
    with pytest.raises(VideoError) as error:
        read_guarded(path, **{**options, "max_seconds": 0.5})
    assert error.value.code == "too_long"


@pytest.mark.long
def test_a_clip_that_outgrows_its_limits_is_one_bad_row(tmp_path: Path, paint: Paint) -> None:
    big = paint(tmp_path / "big.mp4", num_frames=100, width=1280, height=960)
    small = paint(tmp_path / "small.mp4")
    wide = Sampling(max_side_px=4096)
    with guard_checks(memory_bytes=200 * 2**20) as guard:
        assert check_guarded(big, sampling=wide, guard=guard).reason == "out_of_memory"
        assert check_guarded(small, sampling=wide, guard=guard).reason == ""
        assert guard.usage.max_rss_bytes < 2**29
    with guard_checks(seconds=0.02) as guard:
        assert check_guarded(big, sampling=wide, guard=guard).reason == "timed_out"
    with guard_reads(max_answer_bytes=2**20) as guard, pytest.raises(VideoError) as error:
        read_guarded(big, guard=guard, **wide.model_dump())
    assert error.value.code == "too_large"


def killed_at_first(path: str, *_: Any) -> dict[str, Any]:
    """For the child: somebody kills it in the midst of a file's first call, or of each, as the file says."""
    file = Path(path)
    if file.read_text() != "done":
        file.write_text(file.read_text().replace("once", "done"))
        os.kill(os.getpid(), signal.SIGKILL)
    return {"reason": "", "detail": "second try"}


@pytest.mark.long
def test_a_kill_from_outside_is_not_held_against_the_file(tmp_path: Path) -> None:
    (tmp_path / "unlucky").write_text("once")
    (tmp_path / "deadly").write_text("ever")
    with Guarded(killed_at_first) as guard:
        assert check_guarded(tmp_path / "unlucky", guard=guard).detail == "second try"
        assert check_guarded(tmp_path / "deadly", guard=guard).reason == "crashed"
        assert guard.usage.deaths == 3


def test_the_memory_a_process_has_held_is_known() -> None:
    assert max_rss_bytes() > 2**24
    assert max_rss_bytes(2**22 + 1) == 0
