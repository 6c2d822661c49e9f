"""Parameter groups and the learning rate of a step."""

import math

import torch
from torch import nn

from sign_dist.config.train import Optim


def build_optimizer(model: nn.Module, settings: Optim) -> torch.optim.AdamW:
    """AdamW over all parameters; biases, norms and other vectors are not decayed. Frozen ones get no gradient and stay."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=settings.lr, betas=(settings.beta1, settings.beta2))


def lr_at(step: int, total_steps: int, settings: Optim) -> float:
    """Learning rate of a step: linear warm-up, then half a cosine down to `lr * final_lr_ratio`.

    >>> round(lr_at(0, 100, Optim(lr=1.0, warmup_fraction=0.1)), 3), lr_at(10, 100, Optim(lr=1.0, warmup_fraction=0.1))
    (0.1, 1.0)
    """
    warmup = round(total_steps * settings.warmup_fraction)
    if step < warmup:
        return settings.lr * (step + 1) / warmup
    done = (step - warmup) / max(total_steps - warmup, 1)
    low = settings.final_lr_ratio
    return settings.lr * (low + (1 - low) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))
