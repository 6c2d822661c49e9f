"""BatchNorm over the batches of all workers: without it results depend on how many of them there are."""

import logging

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

logger = logging.getLogger(__name__)


def share_batch_norm(model: nn.Module, *, world_size: int, device_type: str) -> nn.Module:
    """The model with SyncBatchNorm in place of each BatchNorm, where several workers train on GPUs.

    torch has it on GPUs only: on CPUs each worker normalises by its own clips, which is said in the log.
    """
    count = sum(isinstance(module, _BatchNorm) and not isinstance(module, nn.SyncBatchNorm) for module in model.modules())
    if not count or world_size < 2:
        return model
    if device_type != "cuda":
        logger.warning("%d BatchNorm layers see only the clips of their own worker: torch shares them between GPUs only", count)
        return model
    logger.info("%d BatchNorm layers share their statistics between %d workers", count, world_size)
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)
