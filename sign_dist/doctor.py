"""What is wrong with this machine for the work ahead, and the remedy."""

import dataclasses
import importlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sign_dist.errors import SignDistError

NEEDED = ("ray", "torch", "av", "decord", "mediapipe", "cv2", "pyarrow", "optuna", "fastapi", "safetensors", "transformers", "peft")
MIN_FREE_GB, MIN_MEMORY_GB, MIN_SHM_GB = 5, 4, 1


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing looked at: how it stands and, if it is bad, what to do."""

    what: str
    state: str
    remedy: str = ""

    @property
    def bad(self) -> bool:
        return bool(self.remedy)

    def __str__(self) -> str:
        return f"{'BAD ' if self.bad else 'ok  '} {self.what}: {self.state}" + (f" -> {self.remedy}" if self.bad else "")


def examine() -> list[Finding]:
    """Look at Python, packages, processor, memory, disk, GPU, codecs, model files and settings of the environment."""
    return [*_python(), *_packages(), *_machine(), *_gpu(), *_codecs(), *_models(), *_environment()]


def _python() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("Python", version, "" if sys.version_info >= (3, 11) else "install Python 3.11 or newer")


def _packages() -> Iterator[Finding]:
    for name in NEEDED:
        try:
            module = importlib.import_module(name)
        except (ImportError, OSError) as error:
            yield Finding(
                name, f"does not import ({str(error).splitlines()[0]})", "run `pip install -c constraints.txt -e .` again"
            )
        else:
            yield Finding(name, str(getattr(module, "__version__", "there")))


def _machine() -> Iterator[Finding]:
    yield Finding("processors", str(os.cpu_count()))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    yield Finding("memory", f"{memory:.1f} GiB", "" if memory >= MIN_MEMORY_GB else f"{MIN_MEMORY_GB} GiB are needed")
    for what, path, least in (("disk here", Path(), MIN_FREE_GB), ("temporary disk", Path(tempfile.gettempdir()), MIN_FREE_GB)):
        free = shutil.disk_usage(path).free / 2**30
        yield Finding(what, f"{free:.0f} GiB free", "" if free >= least else f"make {least} GiB free")
    shm = Path("/dev/shm")
    if shm.is_dir():
        free = shutil.disk_usage(shm).free / 2**30
        yield Finding(
            "shared memory", f"{free:.1f} GiB free", "" if free >= MIN_SHM_GB else "start the container with --shm-size=2g"
        )


def _gpu() -> Iterator[Finding]:
    try:
        import torch
    except ImportError:
        return  # said above
    if not torch.cuda.is_available():
        yield Finding("GPU", "none: training and extraction use the processor")
        return
    for index in range(torch.cuda.device_count()):
        name = torch.cuda.get_device_name(index)
        kinds = "bf16" if torch.cuda.is_bf16_supported() else "no bf16: keep train.precision=fp32"
        yield Finding(f"GPU {index}", f"{name}, {kinds}")


def _codecs() -> Iterator[Finding]:
    try:
        import av
    except ImportError:
        return
    for codec in ("h264", "hevc", "vp9", "av1"):
        yield Finding(
            f"codec {codec}", "there" if codec in av.codecs_available else "missing", _unless(codec in av.codecs_available)
        )
    yield Finding("encoder libx264", "there", _unless("libx264" in av.codecs_available))


def _unless(there: bool) -> str:
    return "" if there else "install PyAV from its wheel: `pip install --only-binary av av`"


def _models() -> Iterator[Finding]:
    from sign_dist.features.encode import models_dir
    from sign_dist.video.model_files import find_files, landmark_roles

    folder = models_dir()
    try:
        find_files(landmark_roles(), folder, download=False)
    except SignDistError as error:
        remedy = "they are downloaded at the first `extract`; without a network set SIGN_DIST_MODELS to a folder that has them"
        yield Finding("MediaPipe model files", str(error).split(":")[0], remedy)
    else:
        yield Finding("MediaPipe model files", f"found{f' in {folder}' if folder else ' in the cache'}")


def _environment() -> Iterator[Finding]:
    address = os.environ.get("RAY_ADDRESS", "")
    yield Finding("RAY_ADDRESS", address or "not set", "unset it, or use --address auto" if address else "")
    threads = os.environ.get("OMP_NUM_THREADS", "")
    yield Finding("OMP_NUM_THREADS", threads or "not set")
