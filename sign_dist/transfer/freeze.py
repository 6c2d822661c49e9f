"""Which layers train in which epoch."""

from collections.abc import Sequence
from typing import Protocol

from torch import nn

Groups = Sequence[tuple[str, Sequence[nn.Module | nn.Parameter]]]


class Layered(Protocol):
    """A model that names its layers from the head, which trains first, down to the input."""

    def layer_groups(self) -> Groups: ...


def stage_of(epoch: int, epochs: int, stages: int) -> int:
    """floor(epoch * stages / epochs): which of the stages an epoch belongs to, from 0.

    >>> [stage_of(e, epochs=50, stages=4) for e in (0, 12, 13, 24, 25, 37, 38, 49)]
    [0, 0, 1, 1, 2, 2, 3, 3]
    """
    return min(epoch * stages // epochs, stages - 1)


def train_stage(model: nn.Module, stage: int, stages: int) -> list[str]:
    """Let the part of the model train that belongs to a stage; the last stage trains all. Answers the groups that train.

    Groups are spread evenly over the stages, the head first. What is in no group trains in the last stage. A group that
    is frozen also keeps its statistics: its modules are put into eval mode by `keep_frozen_still`.
    """
    groups: Groups = model.layer_groups()  # pyright: ignore[reportCallIssue]
    count = len(groups) if stage >= stages - 1 else max(1, round(len(groups) * (stage + 1) / stages))
    model.requires_grad_(count == len(groups))
    for _, parts in groups[:count]:
        for part in parts:
            part.requires_grad_(True)
    return [name for name, _ in groups[:count]]


def keep_frozen_still(model: nn.Module) -> None:
    """Put modules all of whose parameters are frozen into eval mode: no dropout, and BatchNorm keeps its statistics."""
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            module.eval()
