"""Start `sign-dist` with a Ray of its own, and kill parts of it."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil


def start(*words: str, log: Path) -> subprocess.Popen[bytes]:
    """`sign-dist` with its own Ray, in a process group of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled"}
    environment.pop("RAY_ADDRESS", None)
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "sign_dist", *words], stdout=file, stderr=file, env=environment, start_new_session=True
        )


def wait_for(what: Callable[[], bool], process: subprocess.Popen[bytes], log: Path, *, seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert process.poll() is None, f"it ended before it could be killed:\n{log.read_text()[-3000:]}"
        assert time.monotonic() < end, f"nothing came of it:\n{log.read_text()[-3000:]}"
        time.sleep(0.01)


def kill_driver(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL the driver; what is left of the Ray it started is ended after a moment, as a reboot or a job manager would."""
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=10)
    for child in alive:  # ours: nobody else's Ray is a child of this driver
        child.kill()


def finish(*words: str, log: Path) -> None:
    process = start(*words, log=log)
    assert process.wait(timeout=300) == 0, log.read_text()[-3000:]


def name_of(process: psutil.Process) -> str:
    """Ray names its workers after what they run."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def worker_names(process: subprocess.Popen[bytes]) -> list[str]:
    try:
        return [name_of(child) for child in psutil.Process(process.pid).children(recursive=True)]
    except psutil.Error:
        return []
