"""ISLR: one gloss per clip. Cross-entropy, top-k."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sign_dist.data.vocab import Vocab
from sign_dist.tasks.task import Batch, Example, Monitor, Prediction

Augmentation = Callable[[np.ndarray, np.random.Generator], np.ndarray]


class Islr:
    """Isolated sign recognition over a closed vocabulary.

    `class_weights` (V,) weighs each gloss in the loss; `mixup` is the alpha of Beta(alpha, alpha) (Zhang et al. 2018,
    arXiv 1710.09412), drawn from the first clip's generator of a batch.
    """

    monitor = Monitor("val/top1", "max")

    def __init__(
        self,
        vocab: Vocab,
        *,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
        mixup: float = 0.0,
        augment: Augmentation | None = None,
    ) -> None:
        self.vocab = vocab
        self._id = {gloss: i for i, gloss in enumerate(vocab.glosses)}
        self._smoothing = label_smoothing
        self._mixup = mixup
        self._augment = augment
        self._class_weights = torch.ones(len(vocab)) if class_weights is None else torch.tensor(class_weights)

    def collate(self, examples: Sequence[Example], rngs: Sequence[np.random.Generator] | None = None) -> Batch:
        arrays = [example.features for example in examples]
        if rngs is not None and self._augment is not None:
            arrays = [self._augment(array, rng) for array, rng in zip(arrays, rngs, strict=True)]
        features, lengths = pad(arrays)
        # A gloss that was never trained has no class: its clip is scored (as wrong) but has no loss.
        ids = [self._id.get(example.sample.gloss, -1) for example in examples]
        targets = F.one_hot(torch.tensor(ids).clamp(min=0), len(self.vocab)).float()
        targets[torch.tensor(ids) < 0] = 0.0
        weights = targets @ self._class_weights
        batch = Batch(
            ids=tuple(example.sample.id for example in examples),
            references=tuple(example.sample.gloss for example in examples),
            features=features,
            lengths=lengths,
            targets=targets,
            weights=weights,
        )
        return self._mixed(batch, rngs[0]) if rngs is not None and self._mixup else batch

    def losses(self, model: nn.Module, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        logits = model(batch.features, batch.lengths).float()
        targets = batch.targets
        if model.training and self._smoothing:
            targets = targets * (1 - self._smoothing) + self._smoothing / targets.shape[1]
        per_clip = -(targets * F.log_softmax(logits, dim=-1)).sum(dim=-1)
        if per_clip.ndim == 2:  # of an ensemble in training, (M, B): each member learns for itself
            per_clip = per_clip.mean(dim=0)
        return {"cross_entropy": per_clip}, logits

    def decode(self, outputs: Tensor, batch: Batch, k: int = 5) -> list[Prediction]:
        return self.predictions(outputs, k)

    def predictions(self, logits: Tensor, k: int) -> list[Prediction]:
        """The k most probable glosses of each row of `logits` (B, V)."""
        best = logits.float().softmax(dim=1).topk(min(k, len(self.vocab)), dim=1)
        return [
            Prediction(
                self.vocab.glosses[ids[0]],
                tuple((self.vocab.glosses[i], p) for i, p in zip(ids, values, strict=True)),
            )
            for ids, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]

    def score(self, references: Sequence[str], predictions: Sequence[Prediction]) -> dict[str, float]:
        return top_scores(references, predictions)

    def _mixed(self, batch: Batch, rng: np.random.Generator) -> Batch:
        """Clips blended with a permutation of the batch; the longer of two lengths holds."""
        share = float(rng.beta(self._mixup, self._mixup))
        other = torch.from_numpy(rng.permutation(len(batch.ids)))
        features = share * batch.features + (1 - share) * batch.features[other]
        return dataclasses.replace(
            batch,
            # Frames stay bytes: that is how a model knows that they are not normalised yet.
            features=features.round().to(torch.uint8) if batch.features.dtype == torch.uint8 else features,
            lengths=torch.maximum(batch.lengths, batch.lengths[other]),
            targets=share * batch.targets + (1 - share) * batch.targets[other],
            weights=share * batch.weights + (1 - share) * batch.weights[other],
        )


def top_scores(references: Sequence[str], predictions: Sequence[Prediction]) -> dict[str, float]:
    """Shares of clips whose gloss is the first, or among the first five, of what was answered."""
    if not references:
        return {"top1": 0.0, "top5": 0.0}
    pairs = list(zip(references, predictions, strict=True))
    return {f"top{k}": sum(ref in [g for g, _ in p.scores[:k]] for ref, p in pairs) / len(pairs) for k in (1, 5)}


def pad(arrays: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Arrays (T_i, ...) -> zeros-padded float32 (B, max T, ...) and lengths (B,); uint8 frames stay uint8."""
    lengths = torch.tensor([len(array) for array in arrays])
    dtype = torch.uint8 if arrays[0].dtype == np.uint8 else torch.float32
    padded = torch.zeros((len(arrays), int(lengths.max()), *arrays[0].shape[1:]), dtype=dtype)
    for row, array in zip(padded, arrays, strict=True):
        row[: len(array)] = torch.from_numpy(np.ascontiguousarray(array)).to(dtype)
    return padded, lengths
