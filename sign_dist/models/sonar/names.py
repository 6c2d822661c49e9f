"""Tensors of a published checkpoint into a module of ours that holds no memory yet."""

import logging
from collections.abc import Mapping

from torch import Tensor, nn

from sign_dist.errors import WeightsError

log = logging.getLogger(__name__)


def adopt(module: nn.Module, tensors: Mapping[str, Tensor], *, known: tuple[str, ...] = ()) -> None:
    """Give a module made on torch's `meta` device these tensors themselves, so that weights are in memory once.

    Names that start with one of `known` may be there without a place; others without one are logged.

    Raises:
        WeightsError: a tensor is missing or has another shape.
    """
    wanted = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    wrong = [f"{name} {wanted[name]}" for name in wanted if name not in tensors or tuple(tensors[name].shape) != wanted[name]]
    if wrong:
        raise WeightsError(
            f"{len(wrong)} of {len(wanted)} tensors are missing or have another shape, such as {', '.join(wrong[:3])}: "
            f"the weights belong to another model than {type(module).__name__}"
        )
    extra = [name for name in tensors if name not in wanted and not name.startswith(known)]
    if extra:
        log.warning("%d tensors have no place in %s: %s", len(extra), type(module).__name__, ", ".join(extra[:5]))
    module.load_state_dict({name: tensors[name] for name in wanted}, assign=True)
    for parameter in module.parameters():  # a tensor of a file asks for no gradient
        parameter.requires_grad_(parameter.is_floating_point())


def find(tensors: Mapping[str, Tensor], name: str, kind: str) -> Tensor:
    """A matrix that sizes are read off.

    Raises:
        WeightsError: there is none of that name, or it is no matrix.
    """
    if name not in tensors:
        raise WeightsError(
            f"the file has no tensor {name!r}: it holds no {kind}; its names begin with {', '.join(list(tensors)[:3]) or 'nothing'}"
        )
    if tensors[name].dim() != 2:
        raise WeightsError(f"the file's tensor {name!r} has the shape {tuple(tensors[name].shape)}: a {kind} has a matrix there")
    return tensors[name]


def count(tensors: Mapping[str, Tensor], start: str, kind: str) -> int:
    """Numbered parts below a name: `layers.` -> 24 for layers.0 to layers.23.

    Raises:
        WeightsError: there is none.
    """
    numbers = [name.removeprefix(start).split(".")[0] for name in tensors if name.startswith(start)]
    found = 1 + max((int(number) for number in numbers if number.isdecimal()), default=-1)
    if not found:
        raise WeightsError(f"the file has no tensor {start + '0'!r}: it holds no whole {kind}")
    return found
