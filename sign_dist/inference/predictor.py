"""Predictor: a bundle in memory. video -> features -> Prediction, by the very code of extraction and evaluation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sign_dist.data.vocab import Vocab
from sign_dist.errors import RunError
from sign_dist.features.encode import build_encoder, encode_clip
from sign_dist.inference.bundle import Bundle
from sign_dist.models.build import build_model
from sign_dist.tasks.build import num_classes_of
from sign_dist.tasks.islr import Islr, pad
from sign_dist.tasks.task import Prediction
from sign_dist.training.checkpoint import load_weights_file


class Predictor:
    """Answers with the sign of a clip. One thread at a time may ask for features; the model call may be shared."""

    def __init__(self, bundle: Bundle, *, device: str = "cpu") -> None:
        facts = bundle.facts()
        self.device = torch.device(device)
        self.model_id = f"{facts.name}-{facts.weights_sha256[:8]}"
        vocab = Vocab.read(bundle.vocab_file)
        if len(vocab) != facts.vocab_size:
            raise RunError(
                f"bundle {str(bundle.root)!r} has {len(vocab)} glosses, its model {facts.vocab_size}: export the run again"
            )
        self._task = Islr(vocab)
        self._settings = facts.spec.features
        self._model = build_model(facts.model, num_classes=num_classes_of(facts.task, vocab), feature_shape=facts.feature_shape)
        self._model.load_state_dict(load_weights_file(bundle.weights_file))
        self._model.to(self.device).eval()
        self._encoder = build_encoder(self._settings, bundle.encoder_files(facts), device=device)
        self.facts: dict[str, Any] = {
            "model": self.model_id,
            "task": facts.task,
            "num_glosses": len(vocab),
            "glosses": list(vocab.glosses),
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
        """One model call for a batch of clips."""
        padded, lengths = pad(features)
        return self._task.predictions(self._model(padded.to(self.device), lengths.to(self.device)), k)

    def __call__(self, path: Path, k: int = 5) -> Prediction:
        return self.predict([self.features(path)], k)[0]
