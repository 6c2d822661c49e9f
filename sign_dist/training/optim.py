"""Parameter groups and the learning rate of a step."""

import math
from typing import Any

import torch
from torch import nn

from sign_dist.config.train import Optim
from sign_dist.transfer.freeze import groups_of


def build_optimizer(model: nn.Module, settings: Optim) -> torch.optim.AdamW:
    """AdamW over all parameters; biases, norms and other vectors are not decayed. Frozen ones get no gradient and stay.

    With `layer_decay` below 1 the n-th layer group from the head learns at `lr * layer_decay ** n` (Howard and Ruder 2018,
    arXiv 1801.06146, take 1 / 2.6). All parameters are in it from the start, so that unfreezing disturbs no running mean.
    """
    layers = list(groups_of(model).values()) if settings.layer_decay < 1 else [list(model.parameters())]
    groups: list[dict[str, Any]] = []
    for depth, parameters in enumerate(layers):
        scale = settings.layer_decay**depth
        decayed = [p for p in parameters if p.ndim > 1]
        plain = [p for p in parameters if p.ndim <= 1]
        groups.append({"params": decayed, "weight_decay": settings.weight_decay, "lr_scale": scale})
        groups.append({"params": plain, "weight_decay": 0.0, "lr_scale": scale})
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=settings.lr, betas=(settings.beta1, settings.beta2))


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every parameter group its share of a learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)


def lr_at(step: int, total_steps: int, settings: Optim) -> float:
    """Learning rate of a step: linear warm-up, then half a cosine down to `lr * final_lr_ratio`.

    >>> round(lr_at(0, 100, Optim(lr=1.0, warmup_fraction=0.1)), 3), lr_at(10, 100, Optim(lr=1.0, warmup_fraction=0.1))
    (0.1, 1.0)
    """
    warmup = min(settings.warmup_steps, total_steps) or round(total_steps * settings.warmup_fraction)
    if step < warmup:
        return settings.lr * (step + 1) / warmup
    done = (step - warmup) / max(total_steps - warmup, 1)
    low = settings.final_lr_ratio
    return settings.lr * (low + (1 - low) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))
