"""ISLR by a model that writes: a chat with the clip's frames, whose answer is the gloss. Cross-entropy of the answer's tokens."""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from sign_dist.data.vocab import Vocab
from sign_dist.models.translator import PADDING
from sign_dist.models.vlm import SignVlm
from sign_dist.models.vlm_tokens import VlmTokens
from sign_dist.tasks import closed_set
from sign_dist.tasks.answers import write
from sign_dist.tasks.islr import Augmentation, pad, top_scores
from sign_dist.tasks.slt import token_loss
from sign_dist.tasks.task import Batch, Example, Monitor, Prediction

SPARE_TOKENS = 4
"""That a text may have beyond the longest gloss: enough to see that it is none."""


@dataclasses.dataclass(frozen=True)
class VlmOutputs:
    """What decoding needs: glosses are ranked only where somebody asks for them. `logits` (B, L, V) are of the answers."""

    model: SignVlm
    logits: Tensor


class VlmTask:
    """Isolated signs as answers of a vision-language model.

    `class_weights` (V,) weighs each gloss in the loss. `weighing` says how labels of several tokens are scored
    (`tasks.closed_set`); `beams` above 0 lets the model also write freely, `max_new` tokens at most. A clip without a gloss has
    weight 0, and can be answered all the same.
    """

    monitor = Monitor("val/loss", "min")

    def __init__(
        self,
        vocab: Vocab,
        tokens: VlmTokens,
        *,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
        augment: Augmentation | None = None,
        weighing: closed_set.Weighing = "mean",
        beams: int = 0,
        max_new: int = 128,
    ) -> None:
        self.vocab = vocab
        self.tokens = tokens
        self.weighing: closed_set.Weighing = weighing
        self.beams = beams
        self._max_new = max_new
        self._smoothing = label_smoothing
        self._weights = dict(zip(vocab.glosses, class_weights or [1.0] * len(vocab), strict=True))
        self._augment = augment

    @functools.cached_property
    def labels(self) -> closed_set.ClosedSet:
        """The vocabulary as answers.

        Raises:
            DataError: two glosses are the same to the tokenizer, or one has no tokens.
        """
        return closed_set.ClosedSet({gloss: self.tokens.answer(gloss) for gloss in self.vocab.glosses}, end=self.tokens.end)

    def collate(self, examples: Sequence[Example], rngs: Sequence[np.random.Generator] | None = None) -> Batch:
        """`targets` (B, 2, L): the tokens of prompt and answer, and their labels."""
        arrays = [example.features for example in examples]
        if rngs is not None and self._augment is not None:
            arrays = [self._augment(array, rng) for array, rng in zip(arrays, rngs, strict=True)]
        frames, lengths = pad(arrays)
        glosses = [example.sample.gloss for example in examples]
        ids, labels = chat(self.tokens, glosses, frames.shape[1])
        return Batch(
            ids=tuple(example.sample.id for example in examples),
            references=tuple(glosses),
            features=frames,
            lengths=lengths,
            targets=torch.stack([ids, labels], dim=1),
            weights=torch.tensor([self._weights.get(gloss, 1.0) if gloss.strip() else 0.0 for gloss in glosses]),
        )

    def losses(self, model: nn.Module, batch: Batch) -> tuple[dict[str, Tensor], VlmOutputs]:
        """Cross-entropy in nats per token, the mean over a clip's answer with its end."""
        ids, labels = batch.targets.unbind(1)
        first = len(self.tokens.prompt_ids(batch.features.shape[1]))
        # Only answers need logits: those of a prompt of thousands of tokens would take more memory than the model.
        logits = model(batch.features, batch.lengths, ids, ids.shape[1] - first + 1)[:, :-1]
        loss = token_loss(logits, labels[:, first:], self._smoothing if model.training else 0.0)
        return {"cross_entropy": loss * (batch.weights > 0)}, VlmOutputs(bare(model), logits)

    def decode(self, outputs: VlmOutputs, batch: Batch, k: int = 5) -> list[Prediction]:
        """The best of the vocabulary's glosses for each clip; with `beams`, also what the model writes when nothing holds it."""
        best = closed_set.rank(outputs.model, batch.features, self.labels, k, weighing=self.weighing)
        if not self.beams:
            return best
        # A text that goes on longer than any gloss is none, however it ends.
        most = min(self._max_new, self.labels.longest + SPARE_TOKENS)
        texts = write(outputs.model, batch.features, beams=self.beams, max_new=most)
        return [dataclasses.replace(p, written=written) for p, written in zip(best, texts, strict=True)]

    def score(self, references: Sequence[str], predictions: Sequence[Prediction]) -> dict[str, float]:
        return top_scores(references, predictions)


def chat(tokens: VlmTokens, glosses: Sequence[str], num_frames: int) -> tuple[Tensor, Tensor]:
    """Tokens (B, L) of chats about clips of `num_frames` frames, and their labels, which are `PADDING` but at the answer's tokens
    and its end. Behind the end stands padding.

    Raises:
        DataError: a gloss cannot be an answer.
    """
    prompt = tokens.prompt_ids(num_frames)
    answers = [tokens.answer(gloss) if gloss.strip() else [tokens.end] for gloss in glosses]
    longest = max(map(len, answers), default=0)
    ids = torch.tensor([[*prompt, *answer, *[tokens.pad] * (longest - len(answer))] for answer in answers])
    labels = torch.tensor([[*[PADDING] * len(prompt), *answer, *[PADDING] * (longest - len(answer))] for answer in answers])
    return ids, labels


def bare(model: nn.Module) -> SignVlm:
    """The model inside a wrapper of DistributedDataParallel, which has no other methods than the call."""
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model  # pyright: ignore[reportReturnType]
