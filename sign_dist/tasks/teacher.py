"""Who is asked beside the references: a model that only answers, and answers of one that were kept."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from sign_dist.errors import SettingsError
from sign_dist.models.cslr import CslrOutputs
from sign_dist.models.mimicry import Layer, listening
from sign_dist.tasks.task import Batch, Task


class Stored(Protocol):
    """Answers of a teacher that were asked before, by the clips' ids."""

    def logits(self, ids: Sequence[str]) -> list[np.ndarray]:
        """(T', V) or (V,) of each clip."""
        ...

    def hypotheses(self, ids: Sequence[str]) -> list[str]:
        """The text of each clip."""
        ...


class Teacher:
    """A model that only answers: in eval mode, without gradients, and drawing no random numbers.

    `task` is the task it was trained on, with the run's vocabulary; `layers` are those that `features` compares.
    """

    def __init__(self, model: nn.Module, task: Task, *, name: str = "teacher", layers: Sequence[Layer] = ()) -> None:
        self.model = model.eval().requires_grad_(False)
        self.task, self.name, self.layers = task, name, tuple(layers)

    @torch.no_grad()
    def ask(self, batch: Batch) -> tuple[Any, list[Tensor]]:
        """The outputs for a batch, and its layers as (B, T, W) or (B, W)."""
        self.model.to(batch.features.device)
        with listening(self.model, [layer.name for layer in self.layers]) as heard:
            _, outputs = self.task.losses(self.model, batch)
        return outputs, [layer.steps(heard[layer.name]) for layer in self.layers]


def answers_of(outputs: Any) -> tuple[Tensor, Tensor | None]:
    """Logits and lengths of what a model answers: (B, T', V) and (B,), or (B, V), of an ensemble in training (M, B, V), and None.

    Raises:
        SettingsError: these outputs have no answers to compare.
    """
    match outputs:
        case Tensor():
            return outputs, None
        case CslrOutputs():
            return outputs.logits, outputs.lengths
        case (Tensor() as logits, Tensor() as lengths):
            return logits, lengths
        case _:
            raise SettingsError(f"{type(outputs).__name__} has no answers to compare: choose other train.distill.kinds")
