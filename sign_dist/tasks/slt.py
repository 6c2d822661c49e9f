"""SLT: a sentence per clip. Label-smoothed cross-entropy, losses of the sentence's embedding, beam search, BLEU."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sign_dist.errors import DataError
from sign_dist.metrics import text
from sign_dist.models.slt import Said, Search, SentenceModel
from sign_dist.models.text_tokens import TextTokens
from sign_dist.models.translator import PADDING
from sign_dist.tasks.islr import Augmentation, pad
from sign_dist.tasks.task import Batch, Example, Monitor, Prediction


@dataclasses.dataclass(frozen=True)
class LossWeights:
    """What the losses count; those of embeddings and of glosses only where these are given."""

    decoder: float = 1.0
    mse: float = 0.0
    cosine: float = 0.0
    glosses: float = 1.0


@dataclasses.dataclass(frozen=True)
class SltOutputs:
    """What decoding needs: sentences are searched for only where somebody asks for them. `said` is of the target sentences."""

    model: SentenceModel
    said: Said


class Slt:
    """Translation of clips into sentences.

    A clip without a translation has weight 0 and loss 0, and can be translated all the same.

    Args:
        tokens: what sentences are written in.
        search: how they are searched for; of `decode(k)` at most its beams are given.
        embeddings: target embedding (E,) of the sentence of a clip, by the clip's id.
        glosses: what is signed in a clip, as classes of CTC (the gloss's place in the vocabulary + 1), likewise.
        language: whose words BLEU and ROUGE-L count.
    """

    monitor = Monitor("val/bleu4", "max")

    def __init__(
        self,
        tokens: TextTokens,
        *,
        search: Search | None = None,
        label_smoothing: float = 0.0,
        loss_weights: LossWeights | None = None,
        embeddings: Mapping[str, np.ndarray] | None = None,
        glosses: Mapping[str, Sequence[int]] | None = None,
        language: text.Language = "en",
        augment: Augmentation | None = None,
    ) -> None:
        self.tokens = tokens
        self.language: text.Language = language
        self.signatures: dict[str, str] = {}
        """How each score of the last `score` was computed, in one line."""
        self._search = search or Search()
        self._smoothing = label_smoothing
        self._weights = loss_weights or LossWeights()
        self._embeddings = embeddings
        self._glosses = glosses or {}
        self._augment = augment

    def collate(self, examples: Sequence[Example], rngs: Sequence[np.random.Generator] | None = None) -> Batch:
        """Pad clips to a batch; `targets` (B, L) are tokens without end and language, `PADDING` behind them."""
        arrays = [example.features for example in examples]
        if rngs is not None and self._augment is not None:
            arrays = [self._augment(array, rng) for array, rng in zip(arrays, rngs, strict=True)]
        features, lengths = pad(arrays)
        sentences = [example.sample.translation for example in examples]
        targets = [torch.tensor(self.tokens.encode(sentence), dtype=torch.long) for sentence in sentences]
        return Batch(
            ids=tuple(example.sample.id for example in examples),
            references=tuple(sentences),
            features=features,
            lengths=lengths,
            targets=nn.utils.rnn.pad_sequence(targets, batch_first=True, padding_value=PADDING),
            weights=torch.tensor([float(bool(sentence.strip())) for sentence in sentences]),
        )

    def losses(self, model: nn.Module, batch: Batch) -> tuple[dict[str, Tensor], SltOutputs]:
        """Cross-entropy in nats per token, the mean over a clip's tokens; and how far its embedding is from its sentence's."""
        said: Said = model(batch.features, batch.lengths, batch.targets)
        trains = batch.weights > 0
        smoothing = self._smoothing if model.training else 0.0
        found = {"cross_entropy": self._weights.decoder * token_loss(said.logits, said.labels, smoothing)}
        if self._embeddings is not None and said.embedding is not None:
            found |= self._of_embedding(said.embedding, batch.ids, self._embeddings)
        if said.gloss_logits is not None and said.gloss_lengths is not None and self._glosses:
            labels = [self._glosses.get(id_, ()) for id_ in batch.ids]
            found["gloss_ctc"] = self._weights.glosses * gloss_loss(said.gloss_logits, said.gloss_lengths, labels)
        return {name: loss * trains for name, loss in found.items()}, SltOutputs(bare(model), said)

    def decode(self, outputs: SltOutputs, batch: Batch, k: int = 5) -> list[Prediction]:
        """The best sentence of each clip and, where beams were searched, the `k` best with their scores."""
        search = dataclasses.replace(self._search, num_best=min(k, self._search.beam))
        predictions: list[Prediction] = []
        for sentences in outputs.model.write(batch.features, batch.lengths, search):
            texts = [(self.tokens.decode(sentence.tokens), sentence.score) for sentence in sentences]
            scores = tuple((words, score) for words, score in texts if score is not None)
            predictions.append(Prediction(texts[0][0] if texts else "", scores))
        return predictions

    def score(self, references: Sequence[str], predictions: Sequence[Prediction]) -> dict[str, float]:
        """BLEU-1 to BLEU-4, chrF2, both 0..100, and ROUGE-L, 0..1; of clips that have a translation."""
        pairs = [(r, p.hypothesis) for r, p in zip(references, predictions, strict=True) if r.strip()]
        if not pairs:
            return dict.fromkeys(("bleu1", "bleu2", "bleu3", "bleu4", "chrf", "rouge"), 0.0)
        refs, hyps = [r for r, _ in pairs], [h for _, h in pairs]
        scores = [
            *text.bleu(refs, hyps, language=self.language),
            text.chrf(refs, hyps),
            text.rouge_l(refs, hyps, language=self.language),
        ]
        self.signatures = {score.name: score.signature for score in scores}
        return {score.name: score.value for score in scores}

    def _of_embedding(self, embedding: Tensor, ids: Sequence[str], targets: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
        """Distances to the targets; 0 for a clip that has none."""
        known = torch.tensor([id_ in targets for id_ in ids], device=embedding.device)
        width = embedding.shape[1]
        if wrong := next((id_ for id_ in ids if id_ in targets and targets[id_].shape != (width,)), None):
            raise DataError(
                f"the target embedding of clip {wrong!r} has the shape {targets[wrong].shape}, the model makes embeddings "
                f"of {width}: take those of its own text encoder"
            )
        empty = np.zeros(width, np.float32)
        target = torch.from_numpy(np.stack([targets.get(id_, empty) for id_ in ids])).to(embedding)
        return {
            "embedding_mse": self._weights.mse * relative_distance(embedding, target) * known,
            "embedding_cosine": self._weights.cosine * (1 - F.cosine_similarity(embedding, target)) * known,
        }


def token_loss(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of each clip (B,) with smoothed labels (Szegedy et al. 2016): the mean over its tokens (B, L)."""
    losses = F.cross_entropy(
        logits.float().transpose(1, 2), labels, ignore_index=PADDING, label_smoothing=smoothing, reduction="none"
    )
    return losses.sum(1) / (labels != PADDING).sum(1)


def gloss_loss(logits: Tensor, lengths: Tensor, labels: Sequence[Sequence[int]]) -> Tensor:
    """CTC of each clip (B,) in nats per gloss; 0 for a clip without glosses, and for one with more than its steps can spell."""
    sizes = torch.tensor([len(label) for label in labels], device=logits.device)
    targets = torch.tensor([gloss for label in labels for gloss in label], dtype=torch.long, device=logits.device)
    scores = logits.float().log_softmax(-1).transpose(0, 1)
    losses = F.ctc_loss(scores, targets, lengths.to(logits.device), sizes, reduction="none", zero_infinity=True)
    return torch.where(sizes > 0, losses / sizes.clamp(min=1), torch.zeros_like(losses))


def relative_distance(embedding: Tensor, target: Tensor) -> Tensor:
    """Squared distance of each row (B, E) as a share of the target's squared length.

    SONAR is trained on the mean squared error (Duquenne et al. 2023); its embeddings are so short that the error itself is some
    1e-4, and nothing beside a cross-entropy.
    """
    return (embedding - target).square().sum(1) / target.square().sum(1).clamp(min=1e-12)


def bare(model: nn.Module) -> SentenceModel:
    """The model inside a wrapper of DistributedDataParallel, which has no other methods than the call."""
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model  # pyright: ignore[reportReturnType]
