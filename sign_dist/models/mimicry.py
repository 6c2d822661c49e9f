"""Inner layers of a student drawn to those of a teacher: hints (FitNets, Romero et al. 2015, arXiv 1412.6550).

A student that is trained so sits in a `DistilledStudent` with one linear projection for each pair of layers, which brings the
student's width to the teacher's. The projections train and are saved like the rest of the model, but are no part of what is
evaluated elsewhere or exported: `without_projections` leaves the student's own weights, under its own names.
"""

import contextlib
import dataclasses
from collections.abc import Generator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from sign_dist.errors import SettingsError, did_you_mean
from sign_dist.models.distillation import need_one_shape
from sign_dist.models.temporal import valid_steps

STUDENT, PROJECTIONS = "student.", "hint_projections."


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer by its name, and where its output has time: 1 or 2 of (B, ., .), or 0 of vectors (B, W). `width` is W."""

    name: str
    time_axis: int
    width: int

    def steps(self, output: Any) -> Tensor:
        """What the layer gave, as (B, T, W) or (B, W)."""
        found = _tensor(output)
        return found.transpose(1, 2) if self.time_axis == 2 else found


class WithHints(NamedTuple):
    """What a student answers in training: its own outputs, and each of its layers in the teacher's width.

    A tuple, since that is what wrappers for many processes look into.
    """

    outputs: Any
    hints: tuple[Tensor, ...]


class DistilledStudent(nn.Module):
    """A student and a projection for each layer that mimics. In training it answers `WithHints`, else as the student does."""

    def __init__(self, student: nn.Module, layers: Sequence[Layer], widths: Sequence[int]) -> None:
        super().__init__()
        self.student = student
        self.layers = tuple(layers)
        pairs = zip(layers, widths, strict=True)
        self.hint_projections = nn.ModuleList(nn.Linear(layer.width, width) for layer, width in pairs)

    def forward(self, *inputs: Any) -> Any:
        if not self.training:
            return self.student(*inputs)
        with listening(self.student, [layer.name for layer in self.layers]) as heard:
            outputs = self.student(*inputs)
        steps = [layer.steps(heard[layer.name]) for layer in self.layers]
        projected = [project(step) for project, step in zip(self.hint_projections, steps, strict=True)]
        return WithHints(outputs, tuple(projected))

    def layer_groups(self) -> list[tuple[str, list[Any]]]:
        """The student's; projections train whenever its head does."""
        named = getattr(self.student, "layer_groups", None)
        groups = named() if named else [(name, [child]) for name, child in reversed(list(self.student.named_children()))]
        (head, parts), *rest = groups
        return [(head, [*parts, self.hint_projections]), *rest]


def without_projections(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The student's weights of a `DistilledStudent`, under the student's names; any other model's as they are."""
    if not any(name.startswith(PROJECTIONS) for name in state):
        return dict(state)
    return {name.removeprefix(STUDENT): tensor for name, tensor in state.items() if name.startswith(STUDENT)}


@contextlib.contextmanager
def listening(model: nn.Module, names: Sequence[str]) -> Generator[dict[str, Any]]:
    """While inside, what layers of a model put out is kept by their names.

    Raises:
        SettingsError: there is no such layer, or in one pass it was not asked exactly once.
    """
    modules = dict(model.named_modules())
    heard: dict[str, list[Any]] = {name: [] for name in names}
    handles: list[Any] = []
    answers: dict[str, Any] = {}
    for name in heard:
        if name not in modules or not name:
            known = [known for known in modules if known.count(".") <= name.count(".") and known]
            raise SettingsError(f"no layer {name!r}: this model has {_some(known)};{did_you_mean(name, modules)}".rstrip(";"))
        handles.append(modules[name].register_forward_hook(lambda _m, _i, output, kept=heard[name]: kept.append(output)))
    try:
        yield answers
        for name, outputs in heard.items():
            if len(outputs) != 1:
                raise SettingsError(f"layer {name!r} is asked {len(outputs)} times in one pass: name one that is asked once")
            answers[name] = outputs[0]
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def find_layers(model: nn.Module, names: Sequence[str], features: Tensor) -> list[Layer]:
    """Where the outputs of layers have time, seen by asking the model about a clip (1, T, ...) and about half of it.

    Raises:
        SettingsError: there is no such layer, or its output is neither one vector per clip nor one per step.
    """
    halves = [features[:, : -(-features.shape[1] // 2)], features]
    seen: list[dict[str, Any]] = []
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        for part in halves:
            with listening(model, list(dict.fromkeys(names))) as heard:
                model(part, torch.tensor([part.shape[1]], device=part.device))
            seen.append({name: _tensor(output, name) for name, output in heard.items()})
    finally:
        for module, mode in modes.items():
            module.training = mode
    return [_layer(name, seen[0][name], seen[1][name]) for name in names]


def hint_losses(student: Tensor, teacher: Tensor, lengths: Tensor | None) -> Tensor:
    """Mean squared difference of each clip (B,): vectors (B, W), or steps (B, T, W) of which `lengths` (B,) are the clip's.

    Raises:
        ValueError: the two have not the same shape.
    """
    need_one_shape("layers", student, teacher)
    apart = (student.float() - teacher.detach().float()).square().mean(-1)
    if apart.ndim == 1:
        return apart
    if lengths is None:
        return apart.mean(1)
    valid = valid_steps(lengths.to(apart.device), apart.shape[1])
    return apart.masked_fill(~valid, 0.0).sum(1) / valid.sum(1).clamp(min=1)


def _layer(name: str, half: Tensor, whole: Tensor) -> Layer:
    if half.ndim == whole.ndim == 2 and half.shape == whole.shape:
        return Layer(name, 0, whole.shape[1])
    if half.ndim == whole.ndim == 3:
        changed = [axis for axis in (1, 2) if half.shape[axis] != whole.shape[axis]]
        if len(changed) == 1:
            return Layer(name, changed[0], whole.shape[3 - changed[0]])
    raise SettingsError(
        f"layer {name!r} puts out {tuple(whole.shape)} for a whole clip and {tuple(half.shape)} for half of it: "
        "name one that has a vector for each clip or each step"
    )


def _tensor(output: Any, name: str = "") -> Tensor:
    """The first tensor of what a layer put out; packed sequences are padded again."""
    while isinstance(output, tuple | list) and not isinstance(output, PackedSequence) and output:
        output = output[0]
    if isinstance(output, PackedSequence):
        output = pad_packed_sequence(output, batch_first=True)[0]
    if not isinstance(output, Tensor):
        raise SettingsError(f"layer {name!r} puts out {type(output).__name__}, no tensor: name another")
    return output


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
