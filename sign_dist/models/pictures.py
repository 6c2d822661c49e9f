"""How vision-language models other than InternVL take frames in: each as a picture, through the model's own image processor.

Nothing here knows a family. How many tokens a picture takes is found out by asking the model, whose weights need not be there;
models whose chat marks the place of a picture by one token (LLaVA, Qwen2-VL and their likes) fit.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText

from sign_dist.errors import WeightsError


class ProcessedPictures:
    """Frames through an image processor of transformers, picture by picture."""

    def __init__(self, config: Any, processor: Any) -> None:
        token = getattr(config, "image_token_id", None)
        token = getattr(config, "image_token_index", None) if token is None else token
        if token is None:
            raise WeightsError(f"the config of {config.model_type!r} names no image_token_id: it has no place for pictures")
        self.image_token = int(token)
        self._processor = processor
        self.per_frame = self._tokens_of_one(config)

    def inputs(self, frames: Tensor) -> dict[str, Tensor]:
        pictures = list(frames.flatten(0, 1).cpu().numpy())
        return dict(self._processor(images=pictures, return_tensors="pt", input_data_format="channels_last"))

    def content(self, num_frames: int, prompt: str) -> list[dict[str, str]]:
        return [*({"type": "image"} for _ in range(num_frames)), {"type": "text", "text": prompt}]

    def spread(self, ids: Sequence[int]) -> list[int]:
        return [same for token in ids for same in [token] * (self.per_frame if token == self.image_token else 1)]

    def _tokens_of_one(self, config: Any) -> int:
        """Vectors that the model puts in the place of a picture, from their shape alone."""
        try:
            one = {name: tensor.to("meta") for name, tensor in self.inputs(torch.zeros(1, 1, 64, 64, 3, dtype=torch.uint8)).items()}
            with torch.device("meta"):
                model: Any = AutoModelForImageTextToText.from_config(config)
            found = model.get_image_features(**one)
        except Exception as error:  # noqa: BLE001 (any part of a family's code)
            reason = " ".join(str(error).split())[:160]
            raise WeightsError(f"{config.model_type!r} takes pictures in a way that is not known here ({reason})") from None
        vectors = getattr(found, "pooler_output", found)
        vectors = [vectors] if isinstance(vectors, Tensor) else list(vectors)
        return sum(v.flatten(0, -2).shape[0] for v in vectors)
