"""Which device a worker computes on, and what that kind of device cannot do: CUDA and ROCm, XPU, MPS, DirectML, CPU."""

import importlib
from typing import Any

import torch

from sign_dist.config.run import Run
from sign_dist.errors import ServiceError, SettingsError


def device_of(run: Run, given: torch.device) -> torch.device:
    """The device that `scale.device` names. `given` is what Ray gave the worker: one of its GPUs, or the CPU.

    Ray hands out what torch calls `cuda`, NVIDIA's and AMD's alike. A single worker may take another accelerator of its machine.

    Raises:
        ServiceError: the machine has no such device.
        SettingsError: the run asks for what such a device cannot do.
    """
    match run.scale.device:
        case "cpu" | "gpu":
            device = given
        case "auto":
            device = given if given.type != "cpu" or run.scale.workers > 1 else _own() or given
        case "directml":
            device = _directml()
        case kind:
            device = torch.device(kind)
            if not _has(kind):
                raise ServiceError(f"scale.device = {kind!r}, and torch finds no such device here: use auto or cpu")
    check_device(run, device)
    return device


def check_device(run: Run, device: torch.device) -> None:
    """Refuse what a kind of device cannot do.

    Raises:
        SettingsError: with what to set instead.
    """
    kind, precision = device.type, run.train.precision
    if precision == "fp16" and kind not in ("cuda", "xpu"):
        raise SettingsError(f"train.precision = 'fp16' needs a GPU of CUDA, ROCm or XPU, training is on {kind!r}: use bf16 or fp32")
    if precision == "bf16" and kind == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise SettingsError(
            f"train.precision = 'bf16' and {torch.cuda.get_device_name(device)} does not compute with it: use fp16 or fp32"
        )
    if precision == "bf16" and kind == "privateuseone":
        raise SettingsError("train.precision = 'bf16' cannot be had with DirectML: use fp32")
    if kind in ("mps", "privateuseone") and run.scale.workers > 1:
        raise SettingsError(
            f"scale.workers = {run.scale.workers} cannot share a device of kind {kind!r}, which speaks to no other process: "
            "use scale.workers=1, or scale.device=cpu"
        )


def use_tf32(*, allowed: bool) -> None:
    """Let matrix products of float32 be computed with 10 bits of mantissa, where a GPU can: faster, and other numbers."""
    torch.set_float32_matmul_precision("high" if allowed else "highest")


def _own() -> torch.device | None:
    """An accelerator of this machine that Ray does not hand out."""
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found if found is not None and found.type in ("mps", "xpu") else None


def _has(kind: str) -> bool:
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found is not None and found.type == kind


def _directml() -> torch.device:
    try:
        package: Any = importlib.import_module("torch_directml")
    except ImportError:
        raise ServiceError(
            "scale.device = 'directml' needs torch_directml, which is not installed: `pip install torch-directml` on Windows "
            "or WSL, or use auto"
        ) from None
    return package.device()
