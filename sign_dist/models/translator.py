"""Translator: features of a clip -> a sentence, by a text-to-text model of transformers that reads features instead of words.

As in Camgoz et al. 2020 (arXiv 2003.13830) for the projection and Rust et al. 2024 (arXiv 2402.09611) for T5 behind it: features
are projected to the model's width, made fewer by strided convolutions if asked, and stand where embeddings of words would stand.
Encoder and decoder are transformers' own, so every published T5, mBART, M2M100 or NLLB serves, with its SDPA attention.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from sign_dist.errors import DataError, SettingsError, WeightsError
from sign_dist.models.lengths import real_steps
from sign_dist.models.seq2seq import first_tokens, longest, read_seq2seq, recompute_layers

PADDING = -100
"""Stands in labels where there is no token; `cross_entropy` leaves it out."""

_KERNEL = 5
_OPTIONS, _WEIGHTS = "translator.json", "projection.safetensors"


@dataclasses.dataclass(frozen=True)
class TranslatorOptions:
    """What a translator needs beside its text model.

    `downsample`: features are made that many times fewer, a power of two. `language`: number of the language's token, which
    models of many languages write first.
    """

    feature_dim: int
    downsample: int = 1
    dropout: float = 0.1
    label_smoothing: float = 0.1
    language: int | None = None

    def __post_init__(self) -> None:
        if self.feature_dim < 1:
            raise SettingsError(f"need feature_dim >= 1, got {self.feature_dim}")
        if self.downsample < 1 or self.downsample & (self.downsample - 1):
            raise SettingsError(f"need a downsample of 1, 2, 4, 8, ..., got {self.downsample}")
        if not (0 <= self.dropout < 1 and 0 <= self.label_smoothing < 1):
            raise SettingsError(f"need dropout and label_smoothing in [0, 1), got {self.dropout} and {self.label_smoothing}")


class Sentence(NamedTuple):
    """Tokens that a search found, without start, language, end and padding, and their score; None where none was computed."""

    tokens: list[int]
    score: float | None


class Translator(nn.Module):
    """Features (B, T, D), lengths (B,) and labels (B, L) -> logits (B, L, V) of the labels.

    A step of training: `loss(model(features, lengths, labels), labels)` with `labels = model.labels(token_lists)`.
    """

    def __init__(self, seq2seq: PreTrainedModel, options: TranslatorOptions, *, recompute: bool = False) -> None:
        super().__init__()
        self.options = options
        config = seq2seq.config
        if not isinstance(getattr(config, "hidden_size", None), int):
            raise WeightsError(f"the config of {config.model_type!r} names no single width: take t5, mbart or m2m_100")
        self.projection = FeatureProjection(options.feature_dim, config.hidden_size, options.downsample, options.dropout)
        self.seq2seq = seq2seq
        self.start, self.forced = first_tokens(seq2seq, options.language)
        end, pad = config.eos_token_id, config.pad_token_id
        if end is None or pad is None:
            raise WeightsError(
                f"the config of {config.model_type!r} names no eos_token_id or no pad_token_id: it cannot end a text"
            )
        self.end, self.pad = int(end[0] if isinstance(end, list) else end), int(pad)
        if recompute:
            recompute_layers(seq2seq)

    def labels(self, sentences: Sequence[Sequence[int]]) -> Tensor:
        """Tokens of sentences, without the end -> labels (B, L): language where there is one, tokens, end, padding.

        Raises:
            DataError: a sentence has no tokens, one that is not in the vocabulary, or more than the model can write.
        """
        vocab_size, most = int(self.seq2seq.config.vocab_size), longest(self.seq2seq.get_decoder(), self.seq2seq.config)
        rows: list[Tensor] = []
        for number, tokens in enumerate(sentences):
            if not tokens:
                raise DataError(f"sentence {number} of the batch has no tokens: leave clips without a translation out")
            if not all(0 <= token < vocab_size for token in tokens):
                wrong = next(token for token in tokens if not 0 <= token < vocab_size)
                raise DataError(f"sentence {number} of the batch has the token {wrong}, the model knows 0 to {vocab_size - 1}")
            row = [*([] if self.forced is None else [self.forced]), *tokens, self.end]
            if most is not None and len(row) > most:
                raise DataError(
                    f"sentence {number} of the batch takes {len(row)} tokens, the model writes at most {most}: shorten it"
                )
            rows.append(torch.tensor(row))
        if not rows:
            raise DataError("the batch has no sentences")
        padded = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PADDING)
        return padded.to(self.seq2seq.device)

    def read(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """What the text model's encoder reads, (B, T', W), and which of it is real, (B, T').

        Raises:
            DataError: features have another width, or more steps than the encoder has positions.
            ValueError: the lengths are not those of B clips.
        """
        if features.dim() != 3 or features.shape[-1] != self.options.feature_dim:
            raise DataError(
                f"features have the shape {tuple(features.shape)}, the translator reads (B, T, {self.options.feature_dim}): "
                "take those it was made for, or set feature_dim"
            )
        x, valid = self.projection(features, real_steps(features, lengths))
        most = longest(self.seq2seq.get_encoder(), self.seq2seq.config)
        if most is not None and x.shape[1] > most:
            raise DataError(
                f"a clip has {x.shape[1]} steps behind a downsample of {self.options.downsample}, "
                f"{self.seq2seq.config.model_type} reads at most {most}: downsample more, or cut the clip"
            )
        return x, valid

    def forward(self, features: Tensor, lengths: Tensor, labels: Tensor) -> Tensor:
        return self.both(features, lengths, labels)[0]

    def both(self, features: Tensor, lengths: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, what the encoder made of the features (B, T', W), and how much of it is real (B,)."""
        x, valid = self.read(features, lengths)
        before = torch.cat([torch.full_like(labels[:, :1], self.start), labels[:, :-1]], dim=1)
        before = before.masked_fill(before == PADDING, self.pad)
        said = self.seq2seq(inputs_embeds=x, attention_mask=valid.long(), decoder_input_ids=before, use_cache=False)
        return said.logits, said.encoder_last_hidden_state, valid.sum(1)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy with smoothed labels (Szegedy et al. 2016), mean over tokens."""
        smoothing = self.options.label_smoothing
        return F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=PADDING, label_smoothing=smoothing)

    @torch.inference_mode()
    def generate(
        self, features: Tensor, lengths: Tensor, *, num_beams: int = 5, max_len: int = 128, len_penalty: float = 1.0
    ) -> list[list[int]]:
        """Tokens of the best sentence of each clip, without start, language, end and padding; otherwise as `search`."""
        found = self.search(features, lengths, num_beams=num_beams, max_len=max_len, len_penalty=len_penalty)
        return [sentences[0].tokens for sentences in found]

    @torch.inference_mode()
    def search(
        self,
        features: Tensor,
        lengths: Tensor,
        *,
        num_beams: int = 5,
        num_best: int = 1,
        max_len: int = 128,
        len_penalty: float = 1.0,
    ) -> list[list[Sentence]]:
        """The best sentences of each clip, best first; one without a score where there is one beam.

        Up to `max_len` tokens are written, language and end counted; the last possible one is the end. Dropout is for the
        caller to switch off.

        Raises:
            SettingsError: no beams or no tokens are asked for, or more sentences than beams.
            DataError: as `read`.
        """
        encoded, mask = self.encode(features, lengths)
        return self.search_encoded(encoded, mask, num_beams=num_beams, num_best=num_best, max_len=max_len, len_penalty=len_penalty)

    @torch.inference_mode()
    def encode(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """What the text model's encoder makes of clips (B, T', W), and which of it is real (B, T'), as numbers.

        Raises:
            DataError: as `read`.
        """
        x, valid = self.read(features, lengths)
        encoder: Any = self.seq2seq.get_encoder()
        return encoder(inputs_embeds=x, attention_mask=valid.long()).last_hidden_state, valid.long()

    @torch.inference_mode()
    def search_encoded(
        self, encoded: Tensor, mask: Tensor, *, num_beams: int = 5, num_best: int = 1, max_len: int = 128, len_penalty: float = 1.0
    ) -> list[list[Sentence]]:
        """`search` of clips that `encode` has read."""
        if num_beams < 1 or max_len < 1:
            raise SettingsError(f"need num_beams >= 1 and max_len >= 1, got {num_beams} and {max_len}")
        if not 1 <= num_best <= num_beams:
            raise SettingsError(f"need num_best from 1 to the {num_beams} beams, got {num_best}")
        most = longest(self.seq2seq.get_decoder(), self.seq2seq.config)
        config = GenerationConfig(
            num_beams=num_beams,
            num_return_sequences=num_best,
            max_new_tokens=max_len if most is None else min(max_len, most - 1),
            length_penalty=len_penalty,
            do_sample=False,
            return_dict_in_generate=True,
            output_scores=num_beams > 1,
            decoder_start_token_id=self.start,
            forced_bos_token_id=self.forced,
            forced_eos_token_id=self.end,
            eos_token_id=self.end,
            pad_token_id=self.pad,
        )
        text_model: Any = self.seq2seq
        written = text_model.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=encoded), attention_mask=mask, generation_config=config
        )
        rows = written.sequences[:, 1:].tolist()
        scores = written.sequences_scores.tolist() if num_beams > 1 else [None] * len(rows)
        found = [Sentence(self._plain(row), score) for row, score in zip(rows, scores, strict=True)]
        return [found[i : i + num_best] for i in range(0, len(found), num_best)]

    def _plain(self, row: list[int]) -> list[int]:
        row = row[: row.index(self.end)] if self.end in row else row
        row = row[1:] if self.forced is not None and row[:1] == [self.forced] else row
        return [token for token in row if token != self.pad]

    def layer_groups(self) -> list[tuple[str, Sequence[nn.Module | nn.Parameter]]]:
        """What is new first, then the decoder from its top down, the encoder likewise, and what both share."""
        groups: list[tuple[str, Sequence[nn.Module]]] = [("projection", [self.projection])]
        for name, stack in (("decoder", self.seq2seq.get_decoder()), ("encoder", self.seq2seq.get_encoder())):
            layers = next(part for part in stack.children() if isinstance(part, nn.ModuleList))
            groups += [(f"{name}_{i}", [layers[i]]) for i in reversed(range(len(layers)))]
        taken = {id(p) for _, parts in groups for part in parts for p in part.parameters()}
        return [*groups, ("embeddings", [p for p in self.seq2seq.parameters() if id(p) not in taken])]

    def save(self, folder: Path) -> None:
        """Write a folder that `load` reads, and transformers too, as the text model it holds."""
        self.seq2seq.save_pretrained(folder)
        save_file({name: tensor.contiguous() for name, tensor in self.projection.state_dict().items()}, folder / _WEIGHTS)
        unfinished = folder / f"{_OPTIONS}.part"
        unfinished.write_text(json.dumps(dataclasses.asdict(self.options), indent=2) + "\n", encoding="utf-8")
        unfinished.replace(folder / _OPTIONS)  # last: where it is, the rest is complete

    @classmethod
    def load(cls, folder: Path, *, recompute: bool = False) -> Self:
        """A translator that `save` wrote.

        Raises:
            WeightsError: the folder is none, is damaged, or holds parts of different models.
        """
        try:
            options = TranslatorOptions(**json.loads((folder / _OPTIONS).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, SettingsError):
            raise WeightsError(f"{str(folder)!r} is no translator's folder, it has no {_OPTIONS} that can be read") from None
        model = cls(read_seq2seq(folder), options, recompute=recompute)
        try:
            model.projection.load_state_dict(load_file(folder / _WEIGHTS))
        except (OSError, RuntimeError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:120]
            raise WeightsError(f"{str(folder / _WEIGHTS)!r} cannot be read into the translator beside it ({reason})") from None
        return model


class FeatureProjection(nn.Module):
    """Features (B, T, D), and which of them are real -> vectors (B, T', W) and which of them are, T' = ceil(T / downsample).

    What stands in the padding changes nothing, whatever it is.
    """

    def __init__(self, feature_dim: int, width: int, downsample: int, dropout: float) -> None:
        super().__init__()
        self.linear = nn.Linear(feature_dim, width)
        halvings = downsample.bit_length() - 1
        self.halve = nn.ModuleList(nn.Conv1d(width, width, _KERNEL, stride=2, padding=_KERNEL // 2) for _ in range(halvings))
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        x = self.linear(features.to(self.linear.weight.dtype).masked_fill(~valid[..., None], 0))
        for conv in self.halve:
            x = F.gelu(conv(x.masked_fill(~valid[..., None], 0).transpose(1, 2)).transpose(1, 2))
            valid = valid[:, ::2]  # step k stands for 2 k, which is real if any of what it stands for is
        return self.dropout(self.norm(x)), valid
