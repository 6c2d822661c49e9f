"""Predictor: a bundle in memory. video -> features -> Prediction, by the very code of extraction and evaluation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sign_dist.data.sample import Sample
from sign_dist.errors import RunError
from sign_dist.features.encode import build_encoder, encode_clip
from sign_dist.inference.bundle import Bundle
from sign_dist.models.build import build_model
from sign_dist.tasks.build import build_task, num_classes_of
from sign_dist.tasks.task import Example, Prediction
from sign_dist.training.checkpoint import load_weights_file


class Predictor:
    """Answers with the sign, the glosses or the sentence of a clip. One thread at a time may ask for features; the model call may
    be shared."""

    def __init__(self, bundle: Bundle, *, device: str = "cpu") -> None:
        facts, vocab = bundle.facts(), bundle.vocab
        self.device = torch.device(device)
        self.task = facts.task
        self.model_id = f"{facts.name}-{facts.weights_sha256[:8]}"
        num_glosses = len(vocab) if vocab else 0
        if num_glosses != facts.vocab_size:
            raise RunError(
                f"bundle {str(bundle.root)!r} has {num_glosses} glosses, its model {facts.vocab_size}: export the run again"
            )
        self._task = build_task(facts.run(), vocab)
        self._settings = facts.spec.features
        num_classes = num_classes_of(facts.task, vocab)
        self._model = build_model(facts.model, num_classes=num_classes, feature_shape=facts.feature_shape)
        self._model.load_state_dict(load_weights_file(bundle.weights_file))
        self._model.to(self.device).eval()
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
    def load(cls, bundle: Path, *, device: str = "cpu") -> "Predictor":
        """Read a bundle folder.

        Raises:
            RunError: it is none, or damaged.
        """
        return cls(Bundle(bundle), device=device)

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
