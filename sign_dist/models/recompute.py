"""Gradient checkpointing (Chen et al. 2016, arXiv 1604.06174) that counts a batch once in BatchNorm's running statistics."""

import contextlib
from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def recomputed(module: nn.Module, *inputs: Tensor | None) -> Tensor:
    """`module(*inputs)`, whose inner values are computed again in the backward pass.

    The second pass leaves running means, variances and counts of batches as the first one left them.
    """

    def contexts() -> tuple[contextlib.AbstractContextManager[None], contextlib.AbstractContextManager[None]]:
        return contextlib.nullcontext(), still_statistics(module)

    return checkpoint(module, *inputs, use_reentrant=False, context_fn=contexts)


@contextlib.contextmanager
def still_statistics(module: nn.Module) -> Iterator[None]:
    """While it lasts, BatchNorm normalises with what it sees, but remembers nothing of it."""
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats and m.training]
    before = [(m.momentum, None if m.num_batches_tracked is None else m.num_batches_tracked.clone()) for m in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum = momentum
            if count is not None and norm.num_batches_tracked is not None:
                norm.num_batches_tracked.copy_(count)
