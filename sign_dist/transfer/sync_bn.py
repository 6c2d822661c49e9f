"""BatchNorm over the batches of all workers: without it results depend on how many of them there are."""

import logging
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

logger = logging.getLogger(__name__)


class SharedBatchNorm(_BatchNorm):
    """BatchNorm of x (B, C, ...) whose training statistics are those of the clips of all workers, on CPUs too.

    torch's SyncBatchNorm runs on GPUs only. Workers may hold different numbers of clips and steps: each value counts once.
    Every worker must call it equally often. In eval mode, and where there are no other workers, it is torch's BatchNorm.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or not dist.is_initialized() or dist.get_world_size() < 2:
            return super().forward(input)
        self._check_input_dim(input)
        x = input if input.dtype == torch.float64 else input.float()  # a sum in bfloat16 would lose all digits
        axes = [0, *range(2, x.ndim)]
        shape = (1, -1, *[1] * (x.ndim - 2))
        own = x.new_full((1,), x.numel() // x.shape[1])
        total = _SumOfAll.apply(torch.cat([x.sum(axes), own]))
        count = float(total[-1].detach())
        if count < 2:
            raise ValueError(f"need more than one value per channel to train with, all workers together have {count:.0f}")
        mean = total[:-1] / count
        # Not the mean of squares less the square of the mean: their difference may have no digits left.
        centred = x - mean.view(shape)
        variance = _SumOfAll.apply(centred.square().sum(axes)) / count
        self._remember(mean.detach(), variance.detach() * (count / (count - 1)))
        y = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(input.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        if not self.track_running_stats or self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(variance.to(self.running_var.dtype), share)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"need (B, C, ...), got {tuple(input.shape)}")


class _SumOfAll(torch.autograd.Function):
    """Sum over all workers. What each of them makes of it has a gradient, so the gradients are summed as well."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _summed(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _summed(gradients[0])


def _summed(x: Tensor) -> Tensor:
    x = x.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(x)
    return x


def share_batch_norm(model: nn.Module, *, world_size: int, device_type: str) -> nn.Module:
    """The model with shared statistics in each BatchNorm, where several workers train: torch's own on GPUs, ours on CPUs.

    Names, parameters and statistics stay as they are.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and not isinstance(m, nn.SyncBatchNorm | SharedBatchNorm)]
    if not norms or world_size < 2:
        return model
    logger.info("%d BatchNorm layers share their statistics between %d workers", len(norms), world_size)
    if device_type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for norm in norms:
        norm.__class__ = SharedBatchNorm  # the same object: whoever holds it sees the change, and its state stays
    return model
