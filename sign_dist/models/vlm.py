"""Vision-language model that answers with the sign: frames and a question in, the gloss out, word piece by word piece.

The model is one of transformers' image-text-to-text models. What differs between their families stands in an adapter: InternVL's
is `models.internvl`, the general one `models.pictures`.
"""

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel

from sign_dist.errors import DataError
from sign_dist.models.tied import name_once
from sign_dist.models.vlm_tokens import VlmTokens


@dataclasses.dataclass(frozen=True)
class Prefilled:
    """What a model remembers of the prompts of B clips, pictures and all."""

    cache: Any
    """Keys and values of every layer, as transformers keeps them."""
    log_probs: Tensor
    """(B, V), float32: of the first token of the answer."""
    num_tokens: int
    """Of each prompt."""


class SignVlm(nn.Module):
    """An image-text-to-text model of transformers, asked for the sign of a clip.

    `prompt` and answer are in `tokens`; rows of `ids` are `tokens.prompt_ids(T)`, then an answer, and any padding behind. Nothing
    looks ahead, so what stands in the padding changes no logit before it.
    """

    adapters_alone = True
    """With adapters, nothing beside them trains: the model has no head of its own."""
    base_elsewhere = True
    """The weights below adapters are those of a source that can be read again: checkpoints need not hold them."""

    def __init__(self, vlm: PreTrainedModel, tokens: VlmTokens) -> None:
        super().__init__()
        self.vlm: Any = vlm
        self.tokens = tokens
        name_once(self)

    def forward(self, frames: Tensor, lengths: Tensor, ids: Tensor, keep: int = 0) -> Tensor:
        """Frames uint8 (B, T, H, W, 3), lengths (B,), ids (B, L) -> logits (B, L, V), or only those of the last `keep` places.

        Row i of the logits is about token i + 1.

        Raises:
            DataError: clips of a batch have different numbers of frames.
        """
        if not bool((lengths == frames.shape[1]).all()):
            raise DataError("clips of a batch must have equally many frames: set data.features.num_frames above 0")
        said = self.vlm(input_ids=ids, **self._seen(frames), use_cache=False, logits_to_keep=keep)
        return said.logits[:, -keep:] if keep else said.logits

    @torch.no_grad()
    def prefill(self, frames: Tensor) -> Prefilled:
        """The prompts of B clips, read once: frames uint8 (B, T, H, W, 3)."""
        ids = self._prompts(frames)
        said = self.vlm(input_ids=ids, **self._seen(frames), use_cache=True, logits_to_keep=1)
        return Prefilled(said.past_key_values, said.logits[:, -1].float().log_softmax(-1), ids.shape[1])

    @torch.no_grad()
    def extend(self, prefilled: Prefilled, rows: Tensor, ids: Tensor) -> Tensor:
        """Log-probabilities (R, L, V), float32, behind each of `ids` (R, L), which follow the prompt of clip `rows` (R,).

        `prefilled` stays as it is. Padding behind an answer changes nothing before it.
        """
        said = self.vlm(input_ids=ids, past_key_values=rows_of(prefilled.cache, rows), use_cache=True)
        return said.logits.float().log_softmax(-1)

    @torch.no_grad()
    def generate(self, frames: Tensor, beams: int = 1, max_new: int = 16) -> list[list[tuple[list[int], float]]]:
        """The `beams` best answers of each clip, best first: tokens with the end, where it was reached, and their score.

        A score is the mean log-probability of the tokens. Dropout is for the caller to switch off.
        """
        ids = self._prompts(frames)
        config = GenerationConfig(
            num_beams=beams,
            num_return_sequences=beams,
            max_new_tokens=max_new,
            do_sample=False,
            length_penalty=1.0,
            return_dict_in_generate=True,
            output_scores=True,
            eos_token_id=self.tokens.end,
            pad_token_id=self.tokens.pad,
        )
        seen = self._seen(frames)
        written = self.vlm.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **seen, generation_config=config)
        answers = [self._ended(row) for row in written.sequences[:, ids.shape[1] :].tolist()]
        if beams > 1:
            scores = written.sequences_scores.tolist()
        else:
            each = self.vlm.compute_transition_scores(written.sequences, written.scores, normalize_logits=True).tolist()
            scores = [sum(row[: len(answer)]) / max(1, len(answer)) for row, answer in zip(each, answers, strict=True)]
        found = list(zip(answers, scores, strict=True))
        return [found[i : i + beams] for i in range(0, len(found), beams)]

    def layer_groups(self) -> list[tuple[str, Sequence[nn.Module | nn.Parameter]]]:
        """The language model from its end down, what joins it to the pictures, the vision model likewise, and the embeddings."""
        base = getattr(self.vlm, "model", self.vlm)
        head = [m for m in (getattr(self.vlm, "lm_head", None),) if m is not None]
        parts = dict(base.named_children())
        text = parts.pop("language_model", None)
        groups: list[tuple[str, Sequence[nn.Module | nn.Parameter]]] = [("lm_head", head)] if head else []
        if text is not None:
            groups += _layers("language", text)
        towers = [(name, part) for name, part in parts.items() if _stack(part) is not None]
        groups += [("projector", [part for _, part in parts.items() if _stack(part) is None])]
        for _, tower in towers:
            groups += _layers("vision", tower)
        return [(name, members) for name, members in groups if members]

    def _prompts(self, frames: Tensor) -> Tensor:
        prompt = self.tokens.prompt_ids(frames.shape[1])
        return torch.tensor(prompt, device=frames.device).expand(len(frames), -1)

    def _seen(self, frames: Tensor) -> dict[str, Tensor]:
        dtype = next(p.dtype for p in self.vlm.parameters() if p.is_floating_point())
        found = self.tokens.pictures.inputs(frames)
        return {name: t.to(frames.device, dtype if t.is_floating_point() else t.dtype) for name, t in found.items()}

    def _ended(self, row: list[int]) -> list[int]:
        return row[: row.index(self.tokens.end) + 1] if self.tokens.end in row else row


def rows_of(cache: Any, rows: Tensor) -> Any:
    """A cache with these rows of another's, which it leaves as it is: every layer takes new tensors when it grows."""
    taken = copy.copy(cache)
    taken.layers = [copy.copy(layer) for layer in cache.layers]
    taken.batch_select_indices(rows)
    return taken


def _stack(part: nn.Module) -> nn.ModuleList | None:
    """The layers of a transformer, wherever it keeps them."""
    lists = [module for module in part.modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=len, default=None)


def _layers(name: str, part: nn.Module) -> list[tuple[str, Sequence[nn.Module | nn.Parameter]]]:
    stack = _stack(part)
    if stack is None:
        return [(name, [part])]
    inside = {id(p) for layer in stack for p in layer.parameters()}
    loose = [p for p in part.parameters() if id(p) not in inside]
    return [*((f"{name}_{i}", [stack[i]]) for i in reversed(range(len(stack)))), (f"{name}_inputs", loose)]
