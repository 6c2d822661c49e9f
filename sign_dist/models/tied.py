"""Tied weights: one tensor under several names, of which a state dict keeps the first.

Files of safetensors hold each tensor once, and so do checkpoints, averages and what is sent between processes.
"""

import functools
from collections.abc import Mapping
from typing import Any

from torch import nn


def name_once(module: nn.Module) -> None:
    """From now on the module's `state_dict` has each tied parameter under its first name, and `load_state_dict` needs no other."""
    first: dict[int, str] = {}
    others: dict[str, str] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        if (known := first.setdefault(id(parameter), name)) != name:
            others[name] = known
    if others:
        module.register_state_dict_post_hook(functools.partial(_forget, others))
        module.register_load_state_dict_pre_hook(functools.partial(_recall, others))


def _forget(others: Mapping[str, str], module: nn.Module, tensors: dict[str, Any], prefix: str, *_: Any) -> None:
    for name in others:
        tensors.pop(prefix + name, None)


def _recall(others: Mapping[str, str], module: nn.Module, tensors: dict[str, Any], prefix: str, *_: Any) -> None:
    for name, known in others.items():
        if prefix + known in tensors:
            tensors.setdefault(prefix + name, tensors[prefix + known])
