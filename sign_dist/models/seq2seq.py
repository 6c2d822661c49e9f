"""Text-to-text models of transformers (T5, mBART, M2M100, NLLB) from a config, a folder or the hub, and what they write first."""

import contextlib
import difflib
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    T5Config,
)

from sign_dist.errors import SettingsError, WeightsError

# Marks a folder with the config of a model whose weights are read from another place.
UNFILLED = "weights_are_elsewhere.txt"
# Their published form writes the language's token first, whichever language it is.
_MANY_LANGUAGES = ("mbart", "m2m_100", "nllb-moe")


def new_seq2seq(config: PretrainedConfig) -> PreTrainedModel:
    """A model with random weights.

    Raises:
        WeightsError: transformers knows no such text-to-text model.
    """
    try:
        return AutoModelForSeq2SeqLM.from_config(config)
    except ValueError:
        raise WeightsError(f"{config.model_type!r} writes no text from a sequence: take t5, mbart or m2m_100") from None


def small_t5(vocab_size: int, *, pad: int, end: int, width: int, depth: int, heads: int, dropout: float = 0.1) -> PreTrainedModel:
    """A fresh T5 (version 1.1): `depth` layers on each side, feed-forward of twice the width.

    Raises:
        SettingsError: the heads do not divide the width.
    """
    if width % heads:
        raise SettingsError(f"need a width that {heads} heads divide, got {width}")
    config: Any = T5Config(
        vocab_size=vocab_size,
        d_model=width,
        d_kv=width // heads,
        d_ff=2 * width,
        num_layers=depth,
        num_heads=heads,
        dropout_rate=dropout,
        feed_forward_proj="gated-gelu",
        pad_token_id=pad,
        eos_token_id=end,
    )
    config.decoder_start_token_id = pad
    return new_seq2seq(config)


def read_seq2seq(source: str | Path, *, download: bool = False) -> PreTrainedModel:
    """A model with its weights, float32, from a folder in transformers' form or by its name on the hub.

    A name is looked up in the hub's cache on this machine; only with `download` is it fetched.

    Raises:
        WeightsError: there is no such folder or name, its files are damaged or lack weights, or it is another kind of model.
    """
    if (Path(source) / UNFILLED).is_file():
        return _unfilled(source)
    model, info = read_pretrained(AutoModelForSeq2SeqLM, source, download, dtype=torch.float32, output_loading_info=True)
    if missing := sorted(info["missing_keys"]):
        raise WeightsError(
            f"{str(source)!r} lacks {len(missing)} tensors that its config.json asks for, such as {missing[0]}: "
            "its weights belong to another model or are not complete"
        )
    return model


def write_shape(source: str | Path, folder: Path) -> None:
    """Write a model's config into a folder, without its weights; `read_seq2seq` then gives it with random ones to fill in.

    Raises:
        WeightsError: there is no such model.
    """
    read_pretrained(AutoConfig, source, False).save_pretrained(str(folder))
    with contextlib.suppress(WeightsError):  # older folders have none
        read_pretrained(GenerationConfig, source, False).save_pretrained(str(folder))
    (folder / UNFILLED).write_text("The weights of this model are in the bundle's weights.safetensors.\n", encoding="utf-8")


def read_tokenizer(source: str | Path, *, download: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer that belongs to a model, found as `read_seq2seq` finds the model.

    Raises:
        WeightsError: there is none.
    """
    return read_pretrained(AutoTokenizer, source, download)


def language_token(tokenizer: PreTrainedTokenizerBase, language: str) -> int:
    """The number of a language's token: `deu_Latn` of NLLB, `de_DE` of mBART, `de` or `__de__` of M2M100.

    Raises:
        SettingsError: the tokenizer has no such token.
    """
    vocabulary = tokenizer.get_vocab()
    for token in (language, f"__{language}__"):
        if token in vocabulary:
            return vocabulary[token]
    near = difflib.get_close_matches(language, (str(token) for token in tokenizer.all_special_tokens), n=3, cutoff=0.3)
    raise SettingsError(f"the tokenizer has no token of the language {language!r}; near it are: {', '.join(near) or 'none'}")


def first_tokens(model: PreTrainedModel, language: int | None) -> tuple[int, int | None]:
    """(what the decoder reads first, what it must write first or None), as the published models were trained.

    T5 begins with its padding. M2M100, NLLB and mBART-50 begin with the end and write the language; mBART-25 begins with the
    language itself, and its config names no start.

    Raises:
        SettingsError: the model needs a language and got none, or one that its vocabulary lacks.
    """
    vocab_size = int(model.config.vocab_size)
    if language is not None and not 0 <= language < vocab_size:
        raise SettingsError(f"need a language's token from 0 to {vocab_size - 1}, got {language}")
    start, forced = _told(model, "decoder_start_token_id"), language
    if forced is None:
        forced = _told(model, "forced_bos_token_id")
    if forced is None and model.config.model_type in _MANY_LANGUAGES and start in (None, _told(model, "eos_token_id")):
        raise SettingsError(
            f"{model.config.model_type} writes many languages: say which by its token's number, which language_token() finds"
        )
    if start is None:
        return (_told(model, "pad_token_id") or 0, None) if forced is None else (forced, None)
    return start, forced


def recompute_layers(model: PreTrainedModel) -> None:
    """Compute what is inside of layers again in the backward pass, in training: less memory, about a third more time."""
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable  # by version
    enable({"use_reentrant": False})


def longest(stack: nn.Module, config: PretrainedConfig) -> int | None:
    """Steps that an encoder or decoder can read: the rows of its table of positions; None without such a table."""
    return int(config.max_position_embeddings) if isinstance(getattr(stack, "embed_positions", None), nn.Embedding) else None


def _unfilled(source: str | Path) -> PreTrainedModel:
    model = new_seq2seq(read_pretrained(AutoConfig, source, False)).float()
    if (Path(source) / "generation_config.json").is_file():
        model.generation_config = read_pretrained(GenerationConfig, source, False)
    return model


def _told(model: PreTrainedModel, name: str) -> int | None:
    """A token's number from the model's settings of generation or, in older folders, from its config."""
    for settings in (model.generation_config, model.config):
        value = getattr(settings, name, None)
        if value is not None:
            return int(value[0] if isinstance(value, list) else value)
    return None


def read_pretrained(kind: Any, source: str | Path, download: bool, **options: Any) -> Any:
    """Whatever one of transformers' Auto classes gives for a folder or a name of the hub.

    Raises:
        WeightsError: there is no such folder or name, or it holds nothing of the kind.
    """
    is_folder = Path(source).is_dir()
    try:
        return kind.from_pretrained(str(source), local_files_only=is_folder or not download, **options)
    except Exception as error:  # noqa: BLE001 (damaged files make the reader fail in any way they can)
        reason = (" ".join(str(error).split()).split(". ")[0] or type(error).__name__)[:160]
        if is_folder:
            remedy = f"the folder holds no such model that can be read ({reason}): give one with config.json and .safetensors"
        elif download:
            remedy = f"there is no such folder, and the hub does not give it ({reason})"
        else:
            remedy = (
                "there is no such folder, and the hub's cache on this machine has no such name: give a folder, or allow download"
            )
        raise WeightsError(f"cannot read {str(source)!r} as {kind.__name__}: {remedy}") from None
