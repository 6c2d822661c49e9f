"""What of a network stays as it is while it trains: the layers before a cut, their tensors, and the digest of these."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from sign_dist.transfer.freeze import ADAPTER, Groups, Plan, groups_of
from sign_dist.transfer.lora import BASE, targets_of

_UNREAD = "num_batches_tracked"
"""Counted by BatchNorm and read by nobody in eval mode."""


def moving_groups(model: nn.Module, plan: Plan, *, targets: str = "") -> list[set[str]]:
    """Layer groups of which anything trains, stage by stage. `targets`: where adapters (`Plan.adapters`) will sit."""
    if not plan.adapters:
        return [set(stage) for stage in plan.stages]
    groups = groups_of(model)
    adapted = {id(p) for name in targets_of(model, targets) for p in model.get_submodule(name).parameters()}
    able = {name for name, parameters in groups.items() if any(id(p) in adapted for p in parameters)}
    return [set(stage) & (able | {next(iter(groups))}) for stage in plan.stages]


def deepest_cut(model: nn.Module, cuts: Sequence[str], moving: Collection[str]) -> str:
    """The last of the cuts before which no group moves, "" if there is none. `cuts`: groups from the input up."""
    found = ""
    for name in reversed(groups_of(model)):
        if name in moving:
            break
        found = name if name in cuts else found
    return found


def still_names(model: nn.Module, cut: str) -> list[str]:
    """Names in the state dict of what lies before a cut, the cut's own group included."""
    groups = cast(Groups, model.layer_groups())  # pyright: ignore[reportCallIssue]
    names = [name.replace(" ", "_") for name, _ in groups]
    parts = [part for _, parts in groups[names.index(cut) :] for part in parts]
    inside = {id(tensor) for part in parts for tensor in ([part] if isinstance(part, nn.Parameter) else _tensors(part))}
    return [name for name, tensor in model.state_dict(keep_vars=True).items() if id(tensor) in inside]


def digest_of(state: Mapping[str, Tensor], names: Sequence[str]) -> str:
    """Sixteen hex digits of tensors by name, wherever they lie. Adapters have not moved where nothing does, and do not count.

    Raises:
        KeyError: one of them is not there.
    """
    plain = {name.replace(BASE, "."): tensor for name, tensor in state.items() if ADAPTER not in name}
    digest = hashlib.sha256()
    for name in sorted(names):
        if name.endswith(_UNREAD):
            continue
        tensor = plain[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]
