"""A model's own copy without weights, for strategies that cut the weights up: each rank may call it on its own."""

import contextlib
import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sign_dist.training.strategy import evaluating


class PlainCopy:
    """The structure of a model, taken before a strategy changes it; weights are lent to it while it is asked something."""

    def __init__(self, model: nn.Module) -> None:
        self._model = _without_weights(model)

    def filled(self, weights: Mapping[str, Tensor], device: torch.device) -> nn.Module:
        """A model of its own with these weights, which it may share with whoever gave them."""
        # In a deep copy a tensor on the device `meta` costs nothing.
        model = copy.deepcopy(self._model)
        tied = _tied(model)
        model.load_state_dict(dict(weights), assign=True)
        for first, *others in tied:  # each name was given a parameter of its own
            for name in others:
                path, _, last = name.rpartition(".")
                setattr(model.get_submodule(path), last, model.get_parameter(first))
        return model.to(device)

    @contextlib.contextmanager
    def asked(self, weights: Mapping[str, Tensor], device: torch.device) -> Iterator[nn.Module]:
        """In eval mode, without gradients."""
        model = self.filled(weights, device)
        model.requires_grad_(False)
        for module in model.modules():
            if isinstance(module, nn.RNNBase):
                module.flatten_parameters()
        with evaluating(model):
            yield model


def _tied(model: nn.Module) -> list[list[str]]:
    """Names of one and the same parameter, where it has several."""
    names: dict[int, list[str]] = {}
    for name, p in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(p), []).append(name)
    return [found for found in names.values() if len(found) > 1]


def _without_weights(model: nn.Module) -> nn.Module:
    """A deep copy whose parameters hold no numbers. Buffers are copied: what is not in the state dict must come from them.

    Tied parameters stay tied: a deep copy asks its memo for each object once.
    """
    memo: dict[int, Any] = {
        id(p): nn.Parameter(torch.empty_like(p, device="meta"), requires_grad=p.requires_grad) for p in model.parameters()
    }
    return copy.deepcopy(model, memo)
