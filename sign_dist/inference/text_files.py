"""What a model that writes text needs beside its weights: a tokenizer, and the shape of a pretrained text model.

A bundle holds both, so that it works where the folders and the hub's cache of the training are not. The weights of the text model
are among the bundle's own; of a pretrained one only its config is taken along. Byte tokens need no files.
"""

import contextlib
from pathlib import Path
from typing import Any

from transformers import AutoImageProcessor

from sign_dist.config.model import Model, SonarModel, TranslatorModel, VlmModel
from sign_dist.errors import WeightsError
from sign_dist.models.seq2seq import read_pretrained, read_tokenizer, write_shape

TOKENIZER, SHAPE = "tokenizer", "model"
# Files that a training started from: what is in them is in the weights now.
STARTS = ("encoder_weights", "decoder_weights", "target_embeddings", "encoder.weights")


def pack_text_files(model: Model, folder: Path) -> Model:
    """Write tokenizer and config into a bundle's folder; the settings that name them there, and no file of the training.

    Raises:
        WeightsError: they are not on this machine any more.
    """
    if isinstance(model, VlmModel):
        return _pack_vlm(model, folder)
    if not isinstance(model, TranslatorModel | SonarModel):
        return model
    changed: dict[str, Any] = {name: "" for name in STARTS if name in model.flat()}
    source = model.source if isinstance(model, TranslatorModel) else ""
    if model.tokenizer or source:
        read_tokenizer(model.tokenizer or source).save_pretrained(str(folder / TOKENIZER))
        changed["tokenizer"] = TOKENIZER
    if source:
        write_shape(source, folder / SHAPE)
        changed["source"] = SHAPE
    return model.with_values(changed)


def unpack_text_files(model: Model, folder: Path) -> Model:
    """The settings with the full names of what `pack_text_files` wrote."""
    if isinstance(model, VlmModel):
        return model.with_values({"source": str(folder / SHAPE)}) if (folder / SHAPE).is_dir() else model
    if not isinstance(model, TranslatorModel | SonarModel):
        return model
    changed = {"tokenizer": str(folder / TOKENIZER)} if model.tokenizer else {}
    if isinstance(model, TranslatorModel) and model.source:
        changed["source"] = str(folder / SHAPE)
    return model.with_values(changed)


def _pack_vlm(model: VlmModel, folder: Path) -> VlmModel:
    """Config, tokenizer and how pictures are taken in, of a vision-language model whose weights are all in the bundle."""
    if not model.source:
        return model
    write_shape(model.source, folder / SHAPE)
    read_tokenizer(model.source).save_pretrained(str(folder / SHAPE))
    with contextlib.suppress(WeightsError):  # of families whose pictures are prepared here
        read_pretrained(AutoImageProcessor, model.source, False).save_pretrained(str(folder / SHAPE))
    return model.with_values({"source": SHAPE, "quantize": "none"})
