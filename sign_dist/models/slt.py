"""From features of any kind to sentences: what the task of translation asks of a model, and the translator behind a front.

The text model may be a translator (`models.translator`) or SONAR's two halves (`models.sonar.translate`).
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from sign_dist.models.front import Vectors
from sign_dist.models.landmark import LandmarkInputs
from sign_dist.models.tied import name_once
from sign_dist.models.translator import PADDING, Sentence, Translator
from sign_dist.models.windowed import Parts, WindowedSignHiera

Front = Vectors | LandmarkInputs | WindowedSignHiera


class Said(NamedTuple):
    """What a model says of target sentences. A tuple, since that is what wrappers for many processes look into."""

    logits: Tensor
    """(B, L, V), of the labels."""
    labels: Tensor
    """(B, L): tokens with the end, and the language where the model writes it; `PADDING` behind."""
    embedding: Tensor | None = None
    """(B, E), where the model makes one of a whole sentence."""
    gloss_logits: Tensor | None = None
    """(B, T', V + 1), where it tells glosses as well; class 0 is the CTC blank."""
    gloss_lengths: Tensor | None = None
    """(B,): how many of those steps are real."""


@dataclasses.dataclass(frozen=True)
class Search:
    """How sentences are searched for: beams, and how much the length counts (scores are divided by length ** len_penalty)."""

    beam: int = 5
    max_len: int = 128
    """Tokens at most, with language and end."""
    len_penalty: float = 1.0
    num_best: int = 1
    """Sentences to give; not more than beams."""


class SentenceModel(Protocol):
    """What the task of translation asks of a model."""

    def __call__(self, features: Tensor, lengths: Tensor, targets: Tensor) -> Said:
        """`targets` (B, L): tokens of sentences without end and language, `PADDING` behind them."""
        ...

    def write(self, features: Tensor, lengths: Tensor, search: Search) -> list[list[Sentence]]:
        """The best sentences of each clip, best first."""
        ...


class FeatureTranslator(nn.Module):
    """A front that makes vectors of what a clip has, and a translator that reads them.

    With `num_glosses`, a linear layer on the translator's encoder tells them by CTC (Camgoz et al. 2020, arXiv 2003.13830): the
    encoder finds the signs long before the decoder could tell it where they are.
    """

    def __init__(self, front: Front, translator: Translator, *, num_glosses: int = 0) -> None:
        super().__init__()
        self.front = front
        self.translator = translator
        self.head = nn.Linear(translator.projection.norm.normalized_shape[0], num_glosses + 1) if num_glosses else None
        name_once(self)

    def forward(self, features: Tensor, lengths: Tensor, targets: Tensor) -> Said:
        vectors, lengths = through(self.front, features, lengths)
        labels = self.translator.labels([tokens or [self.translator.end] for tokens in sentences_of(targets)])
        logits, encoded, steps = self.translator.both(vectors, lengths, labels)
        if self.head is None:
            return Said(logits, labels)
        return Said(logits, labels, gloss_logits=self.head(encoded), gloss_lengths=steps)

    def write(self, features: Tensor, lengths: Tensor, search: Search) -> list[list[Sentence]]:
        return self.write_encoded(*self.encode(features, lengths), search)

    @torch.inference_mode()
    def encode(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """What the encoder makes of clips (B, T', W), and which of it is real (B, T')."""
        return self.translator.encode(*through(self.front, features, lengths))

    def write_encoded(self, encoded: Tensor, mask: Tensor, search: Search) -> list[list[Sentence]]:
        """The best sentences of clips that `encode` has read."""
        return self.translator.search_encoded(
            encoded,
            mask,
            num_beams=search.beam,
            num_best=min(search.num_best, search.beam),
            max_len=search.max_len,
            len_penalty=search.len_penalty,
        )

    def layer_groups(self) -> list[tuple[str, Sequence[nn.Module | nn.Parameter]]]:
        """Those of the translator, then those of the front from its end to its input."""
        groups = self.translator.layer_groups()
        if self.head is not None:
            (name, parts), *rest = groups
            groups = [(name, [*parts, self.head]), *rest]
        return [*groups, *front_groups(self.front)]

    def frozen_parts(self) -> Parts:
        """What never trains."""
        return self.front.frozen_parts() if isinstance(self.front, WindowedSignHiera) else []


def through(front: Front, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Features (B, T, ...) -> vectors (B, T', D) and their lengths; only frames become fewer."""
    if isinstance(front, WindowedSignHiera):
        return front(features, lengths)
    return front(features, lengths), lengths


def front_groups(front: Front) -> list[tuple[str, Parts]]:
    """Layer groups of a front; only SignHiera has any."""
    return front.layer_groups() if isinstance(front, WindowedSignHiera) else []


def sentences_of(targets: Tensor) -> list[list[int]]:
    """Rows of targets (B, L) without their padding. A clip of which no sentence is known, as when it is only to be translated,
    has an empty one; a model says something of it all the same, which weighs nothing.
    """
    return [[token for token in row if token != PADDING] for row in targets.tolist()]
