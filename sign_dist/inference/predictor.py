"""Predictor: a bundle in memory. video -> features -> Prediction, by the very code of extraction and evaluation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sign_dist.data.sample import Sample
from sign_dist.errors import RunError
from sign_dist.features.encode import build_encoder, encode_clip
from sign_dist.inference.bases import Bases
from sign_dist.inference.bundle import Bundle
from sign_dist.tasks.build import build_task
from sign_dist.tasks.task import Example, Prediction
from sign_dist.tasks.vlm import VlmTask


class Predictor:
    """Answers with the sign, the glosses or the sentence of a clip. One thread at a time may ask for features; the model call may
    be shared."""

    def __init__(self, bundle: Bundle, *, device: str = "cpu", base: str = "", bases: Bases | None = None) -> None:
        facts, vocab = bundle.facts().over(base), bundle.vocab
        self.device = torch.device(device)
        self.task = facts.task
        self.model_id = f"{facts.name}-{facts.weights_sha256[:8]}"
        num_glosses = len(vocab) if vocab else 0
        if num_glosses != facts.vocab_size:
            raise RunError(
                f"bundle {str(bundle.root)!r} has {num_glosses} glosses, its model {facts.vocab_size}: export the run again"
            )
        # First of all: whoever lacks the model below adapters also lacks its tokenizer, and is told so here.
        self._model = bundle.weights(facts, device=self.device, bases=bases)
        self._task = build_task(facts.run(), vocab)
        self._settings = facts.spec.features
        if isinstance(self._task, VlmTask):
            self._task.beams = 0  # who asks for a sign wants one of the vocabulary, and not to wait for beams
        self._encoder = build_encoder(self._settings, bundle.encoder_files(facts), device=device)
        self.facts: dict[str, Any] = {
            "model": self.model_id,
            "task": facts.task,
            "num_glosses": num_glosses,
            "glosses": list(vocab.glosses) if vocab else [],
            "features": facts.spec.name,
            "max_seconds": self._settings.sampling.max_seconds,
            "metrics": facts.metrics,
            "trained_on": facts.provenance.get("dataset", {}),
        }

    @classmethod
    def load(cls, bundle: Path, *, device: str = "cpu", base: str = "", bases: Bases | None = None) -> "Predictor":
        """Read a bundle folder. `base`: where the model below adapters lies here; `bases`: those that are in memory already.

        Raises:
            RunError: it is none, or damaged, or the model below its adapters is missing or another one.
        """
        return cls(Bundle(bundle), device=device, base=base, bases=bases)

    def features(self, path: Path) -> np.ndarray:
        """Decode and encode one file.

        Raises:
            VideoError: it cannot be used.
        """
        return encode_clip(path, self._settings, self._encoder)

    @torch.inference_mode()
    def predict(self, features: Sequence[np.ndarray], k: int = 5) -> list[Prediction]:
        """One model call for a batch of clips, by the code that evaluates."""
        batch = self._task.collate([Example(Sample(str(i), ""), array) for i, array in enumerate(features)]).to(self.device)
        _, outputs = self._task.losses(self._model, batch)
        return self._task.decode(outputs, batch, k)

    def __call__(self, path: Path, k: int = 5) -> Prediction:
        return self.predict([self.features(path)], k)[0]
