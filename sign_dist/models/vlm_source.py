"""Where a vision-language model comes from: a folder or the hub, or a tiny one made on the spot. Both give the same `SignVlm`."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageTextToText

from sign_dist.errors import WeightsError
from sign_dist.models.internvl import MODEL_TYPE, InternVlPictures, tiny_config, tiny_internvl, tiny_tokenizer
from sign_dist.models.pictures import ProcessedPictures
from sign_dist.models.seq2seq import UNFILLED, read_pretrained, read_tokenizer
from sign_dist.models.vlm import SignVlm
from sign_dist.models.vlm_tokens import Pictures, VlmTokens

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def tiny_tokens(glosses: Iterable[str], prompt: str, *, size_px: int, patch_px: int) -> VlmTokens:
    """The tokens of a tiny InternVL: equal glosses, in any order, give equal ones."""
    tokenizer = tiny_tokenizer([*glosses, prompt])
    config = tiny_config(tokenizer, size_px=size_px, patch_px=patch_px)
    return VlmTokens(tokenizer, InternVlPictures(config, tokenizer), prompt)


def tiny_vlm(
    glosses: Iterable[str],
    prompt: str,
    *,
    size_px: int,
    patch_px: int,
    width: int,
    depth: int,
    dropout: float = 0.0,
    seed: int = 0,
    dtype: str = "fp32",
) -> SignVlm:
    """A tiny InternVL for these glosses. Equal arguments give equal weights, on every machine with the same torch."""
    tokens = tiny_tokens(glosses, prompt, size_px=size_px, patch_px=patch_px)
    config = tiny_config(tokens.tokenizer, size_px=size_px, patch_px=patch_px, width=width, depth=depth, dropout=dropout)
    model: Any = tiny_internvl(config, seed=seed)
    return SignVlm(model.to(DTYPES[dtype]), tokens)


def source_tokens(source: str | Path, prompt: str) -> VlmTokens:
    """What the model of a folder or of the hub's cache reads and writes in; its weights are not looked at.

    Raises:
        WeightsError: there is no such model, or it takes pictures in a way that is not known here.
    """
    tokenizer = read_tokenizer(source)
    config = read_pretrained(AutoConfig, source, False)
    return VlmTokens(tokenizer, _pictures(source, config, tokenizer), prompt)


def source_vlm(source: str | Path, prompt: str, *, dtype: str = "fp32") -> SignVlm:
    """An image-text-to-text model with its weights.

    Raises:
        WeightsError: there is none, its files are damaged or lack weights, or it is of a kind that is not known here.
    """
    tokens = source_tokens(source, prompt)
    if (Path(source) / UNFILLED).is_file():
        config = read_pretrained(AutoConfig, source, False)
        return SignVlm(AutoModelForImageTextToText.from_config(config).to(DTYPES[dtype]), tokens)
    model, info = read_pretrained(AutoModelForImageTextToText, source, False, dtype=DTYPES[dtype], output_loading_info=True)
    if missing := sorted(info["missing_keys"]):
        raise WeightsError(
            f"{str(source)!r} lacks {len(missing)} tensors that its config.json asks for, such as {missing[0]}: "
            "its weights belong to another model or are not complete"
        )
    return SignVlm(model, tokens)


def _pictures(source: str | Path, config: Any, tokenizer: Any) -> Pictures:
    if config.model_type == MODEL_TYPE:
        return InternVlPictures(config, tokenizer)
    return ProcessedPictures(config, read_pretrained(AutoImageProcessor, source, False))
