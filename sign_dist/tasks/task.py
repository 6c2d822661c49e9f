"""Task: what differs between kinds of learning; the loop is the same for all."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from sign_dist.data.sample import Sample


@dataclasses.dataclass(frozen=True)
class Example:
    """One clip as a task sees it: its features, and the sample they belong to."""

    sample: Sample
    features: np.ndarray


@dataclasses.dataclass(frozen=True)
class Batch:
    """Clips padded to one length. `features` (B, T, ...), `lengths` (B,), `targets` (B, ...), `weights` (B,)."""

    ids: tuple[str, ...]
    references: tuple[str, ...]
    features: Tensor
    lengths: Tensor
    targets: Tensor
    weights: Tensor
    """How much each clip counts in the loss; 0 for a clip that only fills a rank's share."""

    def to(self, device: torch.device) -> "Batch":
        moved = {f.name: v.to(device) for f in dataclasses.fields(self) if isinstance(v := getattr(self, f.name), Tensor)}
        return dataclasses.replace(self, **moved)


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a model says of a clip. `scores` are (answer, probability), best first."""

    hypothesis: str
    scores: tuple[tuple[str, float], ...]
    measures: Mapping[str, float] = dataclasses.field(default_factory=dict[str, float])
    """What a task notes of how the answer came about, by name."""
    written: tuple[str, ...] = ()
    """Texts of a model that writes, best first, before anything holds it to a vocabulary."""


@dataclasses.dataclass(frozen=True)
class Monitor:
    """The score that chooses checkpoints and stops a run."""

    name: str
    mode: Literal["max", "min"]

    def better(self, value: float, than: float | None) -> bool:
        if math.isnan(value):
            return False
        if than is None:
            return True
        return value > than if self.mode == "max" else value < than


class Task(Protocol):
    """Turns examples into batches, a model and a batch into losses, outputs into predictions, predictions into scores."""

    monitor: Monitor

    def collate(self, examples: Sequence[Example], rngs: Sequence[np.random.Generator] | None = None) -> Batch:
        """Pad clips to a batch; with one generator per clip they are augmented first."""
        ...

    def losses(self, model: nn.Module, batch: Batch) -> tuple[dict[str, Tensor], Any]:
        """Named losses, each one value per clip (B,), their sum being what is minimised; and the model's outputs."""
        ...

    def decode(self, outputs: Any, batch: Batch, k: int = 5) -> list[Prediction]:
        """One prediction per clip."""
        ...

    def score(self, references: Sequence[str], predictions: Sequence[Prediction]) -> dict[str, float]:
        """Named scores, the monitor's among them."""
        ...
