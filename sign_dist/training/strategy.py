"""One process or several: how a model is wrapped, where its batches lie and how numbers are gathered."""

import contextlib
from collections.abc import Iterator
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import nn

from sign_dist.transfer.sync_bn import share_batch_norm


class Strategy(Protocol):
    """What the loop needs to know of the other processes."""

    rank: int
    world_size: int
    device: torch.device

    def wrap(self, model: nn.Module) -> nn.Module:
        """Move the model to the device and make gradients common."""
        ...

    def no_sync(self, model: nn.Module) -> contextlib.AbstractContextManager[Any]:
        """Gradients inside are only accumulated, not exchanged."""
        ...

    def gather(self, value: Any) -> list[Any]:
        """One picklable value of every rank, in rank order, on every rank."""
        ...


class OneProcess:
    """No other processes: a laptop, a trial, a test."""

    rank = 0
    world_size = 1

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)

    def wrap(self, model: nn.Module) -> nn.Module:
        return model.to(self.device)

    def no_sync(self, model: nn.Module) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext()

    def gather(self, value: Any) -> list[Any]:
        return [value]


class Ddp:
    """torch's DistributedDataParallel in a process group that is already up (Ray Train starts it)."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.rank = dist.get_rank()
        self.world_size = dist.get_world_size()

    def wrap(self, model: nn.Module) -> nn.Module:
        model = model.to(self.device)
        model = share_batch_norm(model, world_size=self.world_size, device_type=self.device.type)
        if self.world_size == 1:
            return model
        ids = [self.device] if self.device.type == "cuda" else None
        # Unfreezing changes which parameters get gradients from stage to stage.
        return nn.parallel.DistributedDataParallel(model, device_ids=ids, find_unused_parameters=True)

    @contextlib.contextmanager
    def no_sync(self, model: nn.Module) -> Iterator[None]:
        if isinstance(model, nn.parallel.DistributedDataParallel):
            with model.no_sync():
                yield
        else:
            yield

    def gather(self, value: Any) -> list[Any]:
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values


def bare(model: nn.Module) -> nn.Module:
    """The model inside a parallel wrapper."""
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
