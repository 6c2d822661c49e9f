"""One pass over clips without learning: losses, predictions, scores."""

import dataclasses
import math

import torch
from torch import nn

from sign_dist.tasks.task import Prediction, Task
from sign_dist.training.data import ClipSource
from sign_dist.training.strategy import OneProcess, Strategy


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Scores over all clips, `loss` among them, and the predictions in the clips' order."""

    scores: dict[str, float]
    predictions: list[Prediction]


@torch.inference_mode()
def evaluate(
    model: nn.Module, task: Task, clips: ClipSource, *, batch_size: int, strategy: Strategy | None = None, k: int = 5
) -> Evaluation:
    """Predict every clip once, shared out over the ranks without dropping one, and score all of them together."""
    strategy = strategy or OneProcess(next(model.parameters()).device)
    was_training = model.training
    model.eval()
    own = range(strategy.rank, len(clips), strategy.world_size)
    found: list[tuple[int, Prediction, str, float]] = []
    for start in range(0, len(own), batch_size):
        indices = own[start : start + batch_size]
        batch = task.collate([clips[i] for i in indices]).to(strategy.device)
        losses, outputs = task.losses(model, batch)
        values = torch.stack(list(losses.values())).sum(dim=0).tolist()
        found += zip(indices, task.decode(outputs, batch, k), batch.references, values, strict=True)
    model.train(was_training)
    everything = sorted((row for part in strategy.gather(found) for row in part), key=lambda row: row[0])
    predictions = [row[1] for row in everything]
    scores = task.score([row[2] for row in everything], predictions)
    scores["loss"] = math.fsum(row[3] for row in everything) / max(len(everything), 1)
    return Evaluation(scores, predictions)
