"""What a vision-language model reads and writes in: the chat with its pictures, and the answer."""

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from sign_dist.errors import DataError, WeightsError

Content = str | list[dict[str, str]]
"""What a user says in a chat of transformers: text, or parts that are pictures and text."""


class Pictures(Protocol):
    """How one family of models takes frames in. All that differs between families stands behind this."""

    image_token: int
    """Number of the token in whose places the vectors of pictures are put."""
    per_frame: int
    """Such tokens of each frame."""

    def inputs(self, frames: Tensor) -> dict[str, Tensor]:
        """Frames uint8 (B, T, H, W, 3) -> what the model wants of them beside the tokens, by the names of its arguments."""
        ...

    def content(self, num_frames: int, prompt: str) -> Content:
        """What the user says: the frames, then the question."""
        ...

    def spread(self, ids: Sequence[int]) -> list[int]:
        """Tokens of the rendered chat -> the same with `per_frame` tokens for each frame."""
        ...


class VlmTokens:
    """The chat's tokens. A prompt is the same for every clip of as many frames; an answer is a gloss and the end of the turn."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, pictures: Pictures, prompt: str) -> None:
        tokenizer_: Any = tokenizer
        end, pad = tokenizer_.eos_token_id, tokenizer_.pad_token_id
        if end is None:
            raise WeightsError("the model's tokenizer names no end (eos_token): answers could not end")
        self.tokenizer: Any = tokenizer
        self.end = int(end)
        self.pad = self.end if pad is None else int(pad)
        self.prompt = prompt
        self.pictures = pictures
        self._prompts: dict[int, list[int]] = {}
        self._special = {self.end, self.pad, pictures.image_token, *map(int, tokenizer_.all_special_ids)}

    def prompt_ids(self, num_frames: int) -> list[int]:
        """The chat up to where the answer begins.

        Raises:
            WeightsError: the tokenizer has no chat template that takes pictures.
        """
        if num_frames not in self._prompts:
            self._prompts[num_frames] = self._rendered(num_frames)
        return list(self._prompts[num_frames])

    def answer(self, gloss: str) -> list[int]:
        """Tokens of a gloss with the end.

        Raises:
            DataError: a gloss without tokens, or with one that means something else to the model.
        """
        ids = [int(i) for i in self.tokenizer(gloss.strip(), add_special_tokens=False)["input_ids"]]
        if not ids or not self._special.isdisjoint(ids):
            raise DataError(f"{gloss!r} cannot be an answer: the tokenizer makes {ids} of it, which must be some plain tokens")
        return [*ids, self.end]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of an answer, up to its end."""
        ids = [int(i) for i in ids]
        ids = ids[: ids.index(self.end)] if self.end in ids else ids
        return str(self.tokenizer.decode([i for i in ids if i not in self._special])).strip()

    def _rendered(self, num_frames: int) -> list[int]:
        content = self.pictures.content(num_frames, self.prompt)
        if not self.tokenizer.chat_template:
            raise WeightsError("the model's tokenizer has no chat template: take a model that was trained to follow instructions")
        try:
            text = self.tokenizer.apply_chat_template(
                [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
            )
        except Exception as error:  # noqa: BLE001 (a template is a program of its own)
            raise WeightsError(f"the chat template of the model's tokenizer takes no pictures ({error})") from None
        ids = self.pictures.spread([int(i) for i in self.tokenizer(text, add_special_tokens=False)["input_ids"]])
        found, wanted = ids.count(self.pictures.image_token), num_frames * self.pictures.per_frame
        if found != wanted:
            raise WeightsError(f"the chat has {found} places for {num_frames} frames of {self.pictures.per_frame} tokens each")
        return ids
