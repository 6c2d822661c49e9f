"""connect(): a Ray of its own on this machine, the one a submitted job runs in, or one at an address."""

import contextlib
import logging
import os
import re
import tempfile
from collections.abc import Generator

from sign_dist.errors import ServiceError
from sign_dist.stderr import without_notes

# Ray reads these when it is imported. A new local Ray would else demand tokens and write one into the user's home, and
# tasks would take a GPU's visibility away from a process that only decodes.
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
# Tune's older reporter keeps quiet when it is told to; the newer one prints its tables all the same.
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
# Ray's C++ side would tell the terminal of each worker that ends; what matters reaches us as exceptions.
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")

import ray

# 107 bytes is the longest path of a socket, and Ray puts about 65 under this.
MAX_TMPDIR = 40
_NOTE = re.compile(rb".*Set ray log level from environment variable")


def connect(address: str = "local", *, dashboard: bool = False, num_cpus: int | None = None) -> None:
    """Be connected to Ray afterwards. Does nothing if this process already is.

    `local` starts a Ray that ends with this process; inside a submitted job it means the job's own cluster, so that the
    same words work in both places. `auto` joins the Ray of this machine or job. Anything else is an address such as
    `10.0.0.5:6379` or `ray://head:10001`.

    Raises:
        ServiceError: nobody answers at the address.
    """
    if ray.is_initialized():
        return
    quiet = {"log_to_driver": False, "logging_level": logging.WARNING, "configure_logging": False}
    if address == "local" and "RAY_JOB_CONFIG_JSON_ENV_VAR" not in os.environ:
        temporary = tempfile.gettempdir()
        with without_notes(_NOTE):
            ray.init(
                address="local",
                num_cpus=num_cpus,
                include_dashboard=dashboard,
                object_store_memory=_object_store_bytes(),
                _temp_dir=None if len(temporary) <= MAX_TMPDIR else "/tmp/ray",
                **quiet,
            )
        return
    try:
        with without_notes(_NOTE):
            ray.init(address="auto" if address == "local" else address, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0][:160]
        raise ServiceError(
            f"no Ray answers at {address!r} ({reason}): start one with `ray start --head`, or leave --address out"
        ) from None


def _object_store_bytes() -> int:
    """A quarter of the memory, within what a laptop and a container can bear."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    shm = os.statvfs("/dev/shm") if os.path.isdir("/dev/shm") else None  # noqa: PTH112
    free = shm.f_bavail * shm.f_frsize if shm else total
    return max(100 * 2**20, min(total // 4, int(free * 0.8), 8 * 2**30))


@contextlib.contextmanager
def connected(address: str = "local", *, dashboard: bool = False) -> Generator[None]:
    """Connected inside; disconnected afterwards if this made the connection."""
    before = ray.is_initialized()
    connect(address, dashboard=dashboard)
    try:
        yield
    finally:
        if not before:
            ray.shutdown()


def num_cpus() -> int:
    """Logical CPUs of the connected cluster."""
    return int(ray.cluster_resources().get("CPU", 1))


def num_gpus() -> int:
    """GPUs of the connected cluster."""
    return int(ray.cluster_resources().get("GPU", 0))
