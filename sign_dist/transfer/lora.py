"""Low-rank adapters (Hu et al. 2021, arXiv 2106.09685) on any module here, and weights of 4 or 8 bits below them.

The only importer of peft and bitsandbytes.
"""

import collections
import contextlib
import fnmatch
import logging
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sign_dist.errors import SettingsError, WeightsError
from sign_dist.transfer.freeze import ADAPTER

NAME = "default"
BASE = ".base_layer."
SIZES = ("kernel_size", "stride", "padding", "dilation", "groups", "in_channels", "out_channels", "in_features", "out_features")
_ALONE = "keeps_adapters_only"
KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Embedding)


def targets_of(model: nn.Module, patterns: str) -> list[str]:
    """Modules that adapters can sit on and whose dotted names match a pattern; patterns are parted by blanks or commas.

    A pattern matches the whole name or its end: `qkv` and `blocks.*.attn.qkv` both name `blocks.3.attn.qkv`.

    Raises:
        SettingsError: a pattern matches none.
    """
    uses = collections.Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    names = [
        name
        for name, module in model.named_modules()
        # An adapter on one of two layers that share their weight could not be merged into the one without the other.
        if _can_sit_on(module) and uses[id(module.weight)] == 1 and not _inside_attention(model, name)
    ]
    found: list[str] = []
    for pattern in patterns.replace(",", " ").split():
        hits = [name for name in names if fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name, f"*.{pattern}")]
        if not hits:
            raise SettingsError(f"no layer {pattern!r} that an adapter can sit on: there are {', '.join(names[:12])} ...")
        found += hits
    return list(dict.fromkeys(found))


def add_adapters(
    model: nn.Module,
    patterns: str,
    *,
    rank: int = 8,
    alpha: float = 16.0,
    dropout: float = 0.0,
    dora: bool = False,
    seed: int = 0,
) -> nn.Module:
    """Put an adapter on each target, in place. The output does not change until one is trained: their second half is zero.

    All other parameters are frozen. `dora`: the length of each row of the adapted weight is learned apart from its direction
    (Liu et al. 2024, arXiv 2402.09353). Adapters are float32, whatever they sit on.

    Raises:
        SettingsError: a pattern matches no layer, or `dora` one that is not linear.
    """
    targets = targets_of(model, patterns)
    if dora and (unfit := [name for name in targets if not isinstance(model.get_submodule(name), nn.Linear)]):
        raise SettingsError(f"train.lora.dora is for linear layers, and {unfit[0]} is none: leave it out of train.lora.targets")
    if not targets:
        raise SettingsError("adapters need targets: name layers, such as qkv")
    _quiet()
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # pyright: ignore[reportArgumentType]
        lora_dropout=dropout,
        target_modules=targets,
        use_dora=dora,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, model, adapter_name=NAME)
    for target in targets:
        _show_sizes(model.get_submodule(target))
    model.requires_grad_(False)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(ADAPTER in name)
        if ADAPTER in name:
            parameter.data = parameter.data.float()
    return model


def adapters_of(model: nn.Module) -> dict[str, Tensor]:
    """The adapters alone, by their names in the state dict: all that has to be kept beside the original weights."""
    return {name: tensor for name, tensor in model.state_dict().items() if ADAPTER in name}


def load_adapters(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put adapters back into a model that has places for exactly them.

    Raises:
        WeightsError: they belong to another model, other targets or another rank.
    """
    own = adapters_of(model)
    unlike = [n for n in own.keys() | tensors.keys() if n not in own or n not in tensors or own[n].shape != tensors[n].shape]
    if unlike:
        raise WeightsError(f"{len(unlike)} adapters do not fit, such as {min(unlike)}: they are for other targets or another rank")
    model.load_state_dict(dict(tensors), strict=False)


@torch.no_grad()
def merged_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict of the network without adapters that computes the same: each is added to what it sits on.

    Raises:
        WeightsError: what they sit on has 4 or 8 bits.
    """
    with _all_of_it(model):
        state = model.state_dict()
    merged = {name.replace(BASE, "."): tensor for name, tensor in state.items() if ADAPTER not in name}
    for name, module in model.named_modules():
        if any(NAME in getattr(module, place, ()) for place in ("lora_A", "lora_embedding_A")):
            base = merged[f"{name}.weight"]
            if not base.is_floating_point():
                raise WeightsError("adapters cannot be added to weights of 4 or 8 bits: put them into the model as it was before")
            merged[f"{name}.weight"] = _with_adapter(module, base)
    return merged


def _with_adapter(layer: Any, weight: Tensor) -> Tensor:
    """The weight of an adapted layer; with DoRA each row has the length that was learned for it."""
    whole = weight + _delta(layer).to(weight.dtype)
    if NAME not in layer.lora_magnitude_vector:
        return whole
    length = layer.lora_magnitude_vector[NAME].weight.to(weight.dtype)
    return whole * (length / whole.norm(dim=1))[:, None]


def _delta(layer: Any) -> Tensor:
    """What an adapter adds to the weight it sits on.

    Of convolutions it is computed here: peft's own (0.21) fails on 3-D kernels of 1 x 1 x 1, of which I3D has most.
    """
    if not isinstance(layer.base_layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return layer.get_delta_weight(NAME)
    down, up = layer.lora_A[NAME].weight, layer.lora_B[NAME].weight
    return torch.einsum("or,ri...->oi...", up.flatten(1), down) * layer.scaling[NAME]


def keep_adapters_only(model: nn.Module) -> None:
    """From now on the model's `state_dict` holds its adapters alone, and `load_state_dict` needs no more.

    For models whose other weights can be had again elsewhere: checkpoints, averages and what is sent between processes are then as
    small as what trains.
    """
    setattr(model, _ALONE, True)
    model.register_state_dict_post_hook(_only_adapters)
    model.register_load_state_dict_post_hook(_only_adapters_missing)


@contextlib.contextmanager
def _all_of_it(model: nn.Module) -> Iterator[None]:
    """While it lasts, the state dict holds what is below adapters as well."""
    alone = [module for module in model.modules() if getattr(module, _ALONE, False)]
    for module in alone:
        setattr(module, _ALONE, False)
    try:
        yield
    finally:
        for module in alone:
            setattr(module, _ALONE, True)


def _only_adapters(module: nn.Module, tensors: dict[str, Any], prefix: str, *_: Any) -> None:
    if not getattr(module, _ALONE, False):
        return
    for name in [name for name in tensors if name.startswith(prefix) and ADAPTER not in name]:
        del tensors[name]


def _only_adapters_missing(module: nn.Module, unlike: Any) -> None:
    unlike.missing_keys[:] = [name for name in unlike.missing_keys if ADAPTER in name]


def quantise(model: nn.Module, bits: Literal["nf4", "int8"], compute: torch.dtype) -> None:
    """Turn the linear layers of a model of transformers into ones of 4 or 8 bits, in place; not its output layer.

    NF4 with double quantisation (Dettmers et al. 2023, arXiv 2305.14314), int8 (Dettmers et al. 2022, arXiv 2208.07339). All
    else is frozen and made float32.

    `compute` is the type of the products of 4 bits. `model` is the model itself or holds it as `vlm`.
    """
    _quiet()
    import bitsandbytes
    from peft import prepare_model_for_kbit_training

    bnb: Any = bitsandbytes
    inner: Any = getattr(model, "vlm", model)
    output = inner.get_output_embeddings()
    for name, layer in list(inner.named_modules()):
        if not isinstance(layer, nn.Linear) or layer is output or isinstance(layer, bnb.nn.Linear4bit | bnb.nn.Linear8bitLt):
            continue
        size, biased = (layer.in_features, layer.out_features), layer.bias is not None
        small: Any
        if bits == "nf4":
            small = bnb.nn.Linear4bit(*size, bias=biased, compute_dtype=compute, compress_statistics=True, quant_type="nf4")
            small.weight = bnb.nn.Params4bit(
                layer.weight.data, requires_grad=False, compress_statistics=True, quant_type="nf4", module=small
            )
            # On CPUs with AVX512-BF16 an evaluation would repack the weights, and the next training step fail.
            small.support_avx512bf16_for_cpu = False
        else:
            small = bnb.nn.Linear8bitLt(*size, bias=biased, has_fp16_weights=False)
            small.weight = bnb.nn.Int8Params(layer.weight.data, requires_grad=False, has_fp16_weights=False)
        if biased:
            small.bias = layer.bias
        parent, _, last = name.rpartition(".")
        setattr(inner.get_submodule(parent), last, small.to(layer.weight.device))  # moving it is what makes it small
    for known in (model, inner):  # how peft knows it
        setattr(known, "is_loaded_in_4bit" if bits == "nf4" else "is_loaded_in_8bit", True)
    # Whether inner values are computed again was settled when the model was built.
    prepare_model_for_kbit_training(inner, use_gradient_checkpointing=False)


def _quiet() -> None:
    """It complains of kernels that nobody asked for, and of every product of 8 bits."""
    logging.getLogger("bitsandbytes").setLevel(logging.CRITICAL)


def share_of_adapters(model: nn.Module) -> float:
    """Numbers in adapters, of all numbers in parameters."""
    total = sum(p.numel() for p in model.parameters())
    return sum(p.numel() for n, p in model.named_parameters() if ADAPTER in n) / total if total else 0.0


def has_adapters(model: nn.Module) -> bool:
    return any(ADAPTER in name for name, _ in model.named_parameters())


def unused_adapters(model: nn.Module) -> list[str]:
    """Adapters that should have learned from a backward pass and did not: the model reads the weight below them directly."""
    return [name for name, p in model.named_parameters() if ADAPTER in name and p.requires_grad and p.grad is None]


def _show_sizes(layer: nn.Module) -> None:
    """An adapted layer answers for the sizes of what it sits on: models compute paddings from them."""
    base: nn.Module = layer.base_layer  # pyright: ignore[reportAssignmentType]
    for name in SIZES:
        if hasattr(base, name) and not hasattr(layer, name):
            setattr(layer, name, getattr(base, name))


def _can_sit_on(module: nn.Module) -> bool:
    """Not on grouped or dilated convolutions: peft can merge no adapter into the first, and leaves gaps out of the second."""
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return module.groups == 1 and set(module.dilation) == {1}
    return isinstance(module, KINDS)


def _inside_attention(model: nn.Module, name: str) -> bool:
    """torch's MultiheadAttention reads the weight of its output layer directly, past any adapter."""
    parent = name.rpartition(".")[0]
    return bool(parent) and isinstance(model.get_submodule(parent), nn.MultiheadAttention)
