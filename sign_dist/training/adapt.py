"""Adapters as a run's settings ask for them, and what they cost."""

import dataclasses

from torch import nn

from sign_dist.config.train import Lora
from sign_dist.transfer.lora import add_adapters, keep_adapters_only


def adapt(model: nn.Module, lora: Lora, *, seed: int = 0, alone: bool = True) -> None:
    """Add the adapters that settings ask for. A model whose other weights are elsewhere keeps nothing but them from then on; not
    so without `alone`, for strategies that take a model apart and put it together by its state dict.

    Raises:
        SettingsError: they name layers that the model does not have.
    """
    add_adapters(model, lora.targets, rank=lora.rank, alpha=lora.alpha, dropout=lora.dropout, dora=lora.dora, seed=seed)
    if alone and getattr(model, "base_elsewhere", False):
        keep_adapters_only(model)


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much of a model trains, and how much of it a checkpoint keeps."""

    parameters: int
    """Numbers in weights, as many as they stand for: those of 4 bits lie two in a byte."""
    trained: int
    weights_bytes: int
    """Of the model in memory."""

    @property
    def share(self) -> float:
        return self.trained / self.parameters if self.parameters else 0.0

    def __str__(self) -> str:
        part = f"{self.trained:,} of {self.parameters:,} numbers train ({100 * self.share:.3g} %)"
        return f"{part}, weights take {self.weights_bytes / 1e6:.3g} MB"

    def facts(self) -> dict[str, float]:
        return {**dataclasses.asdict(self), "trained_share": self.share}


def sizes_of(model: nn.Module) -> Sizes:
    """Of a model as it trains now."""
    parameters = list(model.parameters())
    return Sizes(
        parameters=sum(2 * p.numel() if type(p).__name__ == "Params4bit" else _count(p) for p in parameters),
        trained=sum(_count(p) for p in parameters if p.requires_grad),
        weights_bytes=sum(_count(p) * p.element_size() for p in parameters),
    )


def _count(parameter: nn.Parameter) -> int:
    """Its numbers, also where DeepSpeed has cut it up over workers."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))
