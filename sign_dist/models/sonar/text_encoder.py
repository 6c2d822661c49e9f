"""SONAR's text encoder: sentences -> embeddings (B, E), what the sign encoder is drawn to.

The encoder half of NLLB (Costa-jussa et al. 2022) in transformers' form, as the community has ported the published one; the mean
over a sentence's tokens, its language and its end among them, is the embedding (Duquenne et al. 2023, arXiv 2308.11466).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import M2M100Config, PreTrainedTokenizerBase
from transformers.models.m2m_100.modeling_m2m_100 import M2M100Encoder

from sign_dist.errors import DataError, WeightsError
from sign_dist.models.seq2seq import language_token, read_tokenizer


class TextEncoder:
    """Sentences of one language -> embeddings."""

    def __init__(self, encoder: M2M100Encoder, tokenizer: PreTrainedTokenizerBase, language: str) -> None:
        self.encoder: Any = encoder.eval()
        self.tokenizer = tokenizer
        self.language = language_token(tokenizer, language)

    @classmethod
    def read(cls, folder: str | Path, language: str, tokenizer: str | Path = "") -> "TextEncoder":
        """From a folder in transformers' form, or a name in the hub's cache, with its tokenizer there or elsewhere.

        Raises:
            WeightsError: there is no such model, or it lacks weights.
            SettingsError: the tokenizer has no such language.
        """
        try:
            kind: Any = M2M100Encoder
            encoder, info = kind.from_pretrained(str(folder), local_files_only=True, dtype=torch.float32, output_loading_info=True)
        except Exception as error:  # noqa: BLE001 (damaged files make the reader fail in any way they can)
            reason = (" ".join(str(error).split()).split(". ")[0] or type(error).__name__)[:160]
            raise WeightsError(f"cannot read {str(folder)!r} as a text encoder ({reason})") from None
        if not isinstance(encoder.config, M2M100Config) or info["missing_keys"]:
            raise WeightsError(f"{str(folder)!r} lacks tensors of a text encoder, such as {sorted(info['missing_keys'])[:1]}")
        return cls(encoder, read_tokenizer(tokenizer or folder), language)

    @torch.inference_mode()
    def embed(self, sentences: Sequence[str], *, batch_size: int = 32) -> np.ndarray:
        """Embeddings (N, E) float32, in the sentences' order.

        Raises:
            DataError: a sentence is empty.
        """
        if empty := [i for i, sentence in enumerate(sentences) if not sentence.strip()]:
            raise DataError(f"sentence {empty[0]} is empty, and has no embedding: leave clips without a translation out")
        end = self.tokenizer.eos_token_id
        plain: Any = self.tokenizer(list(sentences), add_special_tokens=False)["input_ids"]
        rows = [torch.tensor([self.language, *tokens, end]) for tokens in plain]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))  # of one length together: little padding
        found = np.zeros((len(rows), int(self.encoder.config.d_model)), np.float32)
        for start in range(0, len(order), batch_size):
            members = order[start : start + batch_size]
            lengths = torch.tensor([len(rows[i]) for i in members])
            padding = int(self.encoder.config.pad_token_id)
            tokens = torch.nn.utils.rnn.pad_sequence([rows[i] for i in members], batch_first=True, padding_value=padding)
            real = torch.arange(tokens.shape[1]) < lengths[:, None]
            hidden = self.encoder(input_ids=tokens, attention_mask=real.long()).last_hidden_state
            found[members] = ((hidden * real[..., None]).sum(1) / lengths[:, None]).float().numpy()
        return found
