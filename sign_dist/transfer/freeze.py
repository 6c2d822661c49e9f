"""Which layers train in which epoch: frozen for good by name, share or group, and unfrozen stage by stage."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Protocol

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from sign_dist.errors import SettingsError, did_you_mean
from sign_dist.transfer.schedule import Stages, matching, planned, spread, stage_of

Groups = Sequence[tuple[str, Sequence[nn.Module | nn.Parameter]]]

ADAPTER = "lora_"
"""Parts of names of the adapters that `sign_dist.transfer.lora` adds."""


class Layered(Protocol):
    """A model that names its layers from the head, which trains first, down to the input."""

    def layer_groups(self) -> Groups: ...


def groups_of(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Parameters by layer group, the head first. A model that names none has those of its children, the last one first.

    Names keep to one word: blanks become `_`. A parameter that stands in two groups belongs to the first. What is in no
    group belongs to the last one, which trains last; but what the model's `frozen_parts` name is in none and never trains.
    """
    named = getattr(model, "layer_groups", None)
    groups: Groups = named() if named else [(name, [child]) for name, child in reversed(list(model.named_children()))]
    seen: set[int] = {id(p) for part in getattr(model, "frozen_parts", list)() for p in _parameters(part)}
    found: dict[str, list[nn.Parameter]] = {}
    for name, parts in groups:
        own = [p for part in parts for p in _parameters(part)]
        fresh = {id(p): p for p in own if id(p) not in seen}
        seen |= fresh.keys()
        found.setdefault(name.replace(" ", "_"), []).extend(fresh.values())
    loose = [p for p in model.parameters() if id(p) not in seen]
    if loose:
        found.setdefault(next(reversed(found), "all"), []).extend(loose)
    return {name: parameters for name, parameters in found.items() if parameters}


def _parameters(part: nn.Module | nn.Parameter) -> list[nn.Parameter]:
    return [part] if isinstance(part, nn.Parameter) else list(part.parameters())


@dataclasses.dataclass(frozen=True)
class Plan:
    """Groups that train, stage by stage. `adapters`: in a group only what `lora` added trains, but the head trains whole."""

    stages: Stages
    adapters: bool = False

    def stage(self, epoch: int, epochs: int) -> int:
        return stage_of(epoch, epochs, len(self.stages))

    def apply(self, model: nn.Module, stage: int) -> list[str]:
        """Let exactly the groups of a stage train; answers their names."""
        groups = groups_of(model)
        adapters = {id(p) for name, p in model.named_parameters() if ADAPTER in name}
        # A model whose answers are words has no head that would be new.
        head = "" if getattr(model, "adapters_alone", False) else next(iter(groups))
        for name, parameters in groups.items():
            for parameter in parameters:
                part = not self.adapters or id(parameter) in adapters or (name == head and not _adapted(adapters, parameters))
                parameter.requires_grad_(name in self.stages[stage] and part)
        return list(self.stages[stage])


def _adapted(adapters: set[int], parameters: Sequence[nn.Parameter]) -> bool:
    return any(id(parameter) in adapters for parameter in parameters)


def plan_of(
    model: nn.Module,
    *,
    until: str = "",
    fraction: float = 0.0,
    groups: str = "",
    stages: int = 1,
    plan: str = "",
    adapters: bool = False,
) -> Plan:
    """What trains when. `until`, `fraction` and `groups` freeze for good; the rest is unfrozen over the stages, or as planned.

    Raises:
        SettingsError: a group that the model does not have, or nothing is left to train.
    """
    names = list(groups_of(model))
    frozen = frozen_until(model, until) if until else []
    frozen += frozen_share(names, fraction)
    frozen += matching(names, groups)
    free = [name for name in names if name not in frozen]
    if not free:
        raise SettingsError(f"everything is frozen: leave at least one of the layer groups {', '.join(names)} to train")
    return Plan(planned(free, plan) if plan else spread(free, stages), adapters)


def frozen_until(model: nn.Module, layer: str) -> list[str]:
    """The groups before a layer, counted from the input; the layer itself and what follows it train.

    `layer` is a group's name, or the dotted name of a module that is one of a group's parts.

    Raises:
        SettingsError: there is no such layer.
    """
    names = list(groups_of(model))
    name = layer if layer in names else _group_of_module(model, layer)
    if name not in names:
        raise SettingsError(f"no layer group {layer!r}: this model has {', '.join(names)};{did_you_mean(layer, names)}".rstrip(";"))
    return names[names.index(name) + 1 :]


def frozen_share(names: Sequence[str], fraction: float) -> list[str]:
    """The first share of the groups, counted from the input and rounded down, never the head.

    >>> frozen_share(["head", "e", "d", "c", "b"], 0.8)
    ['e', 'd', 'c', 'b']
    """
    count = min(math.floor(round(fraction * len(names), 9)), len(names) - 1)
    return list(names[len(names) - count :])


def keep_frozen_still(model: nn.Module, *, statistics: bool = False) -> None:
    """Put modules all of whose parameters are frozen into eval mode: no dropout, and BatchNorm keeps its statistics.

    A BatchNorm without parameters of its own follows the module that holds it. `statistics`: every BatchNorm keeps them, and what
    comes out of it is computed with them, while its own weights may train.
    """
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            module.eval()
        elif any(p.requires_grad for p in parameters) and all(
            ADAPTER in n for n, p in module.named_parameters() if p.requires_grad
        ):
            # Only adapters train inside: what they sit on stands still, statistics included.
            _stop_norms(module)
    if statistics:
        _stop_norms(model)


def _stop_norms(module: nn.Module) -> None:
    for child in module.modules():
        if isinstance(child, _BatchNorm):
            child.eval()


def _group_of_module(model: nn.Module, path: str) -> str:
    modules = dict(model.named_modules())
    named = getattr(model, "layer_groups", None)
    if path not in modules or not named:
        return ""
    groups: Groups = named()
    return next((name.replace(" ", "_") for name, parts in groups if any(part is modules[path] for part in parts)), "")
