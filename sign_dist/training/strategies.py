"""Settings -> Strategy: how the workers of a run share its model."""

from typing import assert_never

import torch
import torch.distributed as dist

from sign_dist.config.run import Run
from sign_dist.errors import SettingsError
from sign_dist.training.device import check_device
from sign_dist.training.strategy import Ddp, OneProcess, Strategy


def build_strategy(run: Run, device: torch.device | str) -> Strategy:
    """The strategy that `scale` names, for one of the workers of a process group that is already up.

    Only `none` and `auto` do without a process group, in one process.

    Raises:
        SettingsError: what this device cannot do.
        ServiceError: deepspeed is not there.
    """
    scale, device = run.scale, torch.device(device)
    check_device(run, device)
    if scale.strategy in ("ddp", "fsdp", "deepspeed") and device.type not in ("cpu", "cuda", "xpu"):
        raise SettingsError(
            f"scale.strategy = {scale.strategy!r} cannot be had on a device of kind {device.type!r}: use none, or scale.device=cpu"
        )
    match scale.strategy:
        case "none":
            return OneProcess(device)
        case "auto":
            return Ddp(device) if dist.is_available() and dist.is_initialized() else OneProcess(device)
        case "ddp":
            return Ddp(device)
        case "fsdp":
            from sign_dist.training.fsdp import Fsdp

            return Fsdp(device, offload=scale.offload)
        case "deepspeed":
            from sign_dist.training.zero import Zero  # it takes seconds to import, so only where it is asked for

            return Zero(device, stage=scale.zero_stage, offload=scale.offload)
        case _:
            assert_never(scale.strategy)
