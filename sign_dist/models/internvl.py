"""InternVL (Wang et al. 2025, arXiv 2508.18265) as transformers has it, and a tiny one for tests and demonstrations.

The one place that knows InternVL: how its frames are normalised, how many tokens one takes, and how they stand in the chat.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import (
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLVisionConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from sign_dist.errors import SettingsError, WeightsError

MODEL_TYPE = "internvl"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet, in 0..1: what InternVL's vision model was trained on."""

_PAD, _START, _END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
_IMAGE = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>"}
_CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_MERGES = 64
"""Tokens of the tiny tokenizer beside bytes and the special ones."""


class InternVlPictures:
    """Frames as InternVL's own processor for videos takes them in, without it: that one needs torchvision."""

    counts_one_by_one = True
    """Positions are counted token by token, pictures or not, and a mask given as a whole is obeyed (see `models.vlm_tree`)."""

    def __init__(self, config: Any, tokenizer: PreTrainedTokenizerBase) -> None:
        vision = config.vision_config
        self.image_token = int(config.image_token_id)
        self.size_px = int(vision.image_size[0])
        side = self.size_px // int(vision.patch_size[0]) * float(config.downsample_ratio)
        self.per_frame = round(side * side)
        names = [getattr(tokenizer, name, None) or usual for name, usual in _IMAGE.items()]
        self._start, self._stop, self._place = names
        known = tokenizer.convert_tokens_to_ids(self._place)
        if known != self.image_token:
            raise WeightsError(
                f"the model puts pictures at token {self.image_token}, its tokenizer has {self._place!r} at {known}: "
                "they belong to different models"
            )

    def inputs(self, frames: Tensor) -> dict[str, Tensor]:
        """`pixel_values` (B * T, 3, S, S), float32, as InternVLVideoProcessor makes them to 2.4e-7."""
        x = frames.flatten(0, 1).permute(0, 3, 1, 2)
        if x.shape[2:] != (self.size_px, self.size_px):
            x = F.interpolate(x, size=(self.size_px, self.size_px), mode="bicubic", antialias=True)
        mean, std = (torch.tensor(values, device=x.device)[:, None, None] for values in (MEAN, STD))
        return {"pixel_values": (x.float() / 255 - mean) / std}

    def content(self, num_frames: int, prompt: str) -> str:
        """`Frame1: <img>...</img>`, one a line, as InternVL was trained on videos."""
        places = self._start + self._place * self.per_frame + self._stop
        return "".join(f"Frame{i + 1}: {places}\n" for i in range(num_frames)) + prompt

    def spread(self, ids: Sequence[int]) -> list[int]:
        return list(ids)


def tiny_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A tokenizer of InternVL's form, learned from a few texts: bytes, and some frequent pairs of them.

    Equal texts in any order give the same one.
    """
    special = [_PAD, _START, _END, *_IMAGE.values()]
    tokenizer: Any = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=len(special) + 256 + _MERGES,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in special],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sorted(texts), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=_PAD, eos_token=_END, extra_special_tokens=_IMAGE, chat_template=_CHAT
    )


def tiny_config(
    tokenizer: PreTrainedTokenizerBase, *, size_px: int, patch_px: int = 8, width: int = 128, depth: int = 2, dropout: float = 0.0
) -> InternVLConfig:
    """An InternVL of `depth` layers for each of pictures and text, which reads frames of `size_px`.

    Raises:
        SettingsError: patches do not divide the picture into an even number, or the width is no multiple of 32.
    """
    if size_px % (2 * patch_px):
        raise SettingsError(f"need model.patch_px of which twice divides the {size_px} px of a frame, got {patch_px}")
    if width % 32:
        raise SettingsError(f"need model.width as a multiple of 32, got {width}")
    heads = width // 32
    known: Any = tokenizer
    return InternVLConfig(
        vision_config=InternVLVisionConfig(
            hidden_size=width,
            num_hidden_layers=depth,
            num_attention_heads=heads,
            intermediate_size=2 * width,
            image_size=size_px,  # pyright: ignore[reportArgumentType]
            patch_size=patch_px,  # pyright: ignore[reportArgumentType]
            hidden_dropout_prob=dropout,
        ),
        text_config=Qwen2Config(
            vocab_size=len(known),
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=depth,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            max_position_embeddings=8192,
            attention_dropout=dropout,
            tie_word_embeddings=False,
            pad_token_id=known.pad_token_id,
            eos_token_id=known.eos_token_id,
            bos_token_id=None,
        ),
        image_token_id=known.context_image_token_id,
        image_seq_length=(size_px // patch_px // 2) ** 2,
        downsample_ratio=0.5,
        tie_word_embeddings=False,
    )


def tiny_internvl(config: InternVLConfig, *, seed: int = 0) -> InternVLForConditionalGeneration:
    """It with random weights, which anyone can draw again from the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return InternVLForConditionalGeneration(config).float()
