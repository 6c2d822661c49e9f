"""Read weights files that people have, and load them tolerantly, with a report instead of silence."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from sign_dist.errors import WeightsError

# Where checkpoints keep their weights.
CONTAINERS = ("model", "model_state", "state_dict", "model_state_dict", "student")


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """What became of each tensor. Names are the model's, for `extra` the file's."""

    loaded: tuple[str, ...]
    misshaped: tuple[str, ...]
    missing: tuple[str, ...]
    extra: tuple[str, ...]

    @property
    def match(self) -> float:
        """Share of the model's tensors that were loaded."""
        total = len(self.loaded) + len(self.misshaped) + len(self.missing)
        return len(self.loaded) / total if total else 1.0


def file_digest(path: Path) -> str:
    """sha256 of a file.

    Raises:
        WeightsError: there is no such file.
    """
    if not path.is_file():
        raise WeightsError(f"no weights file {str(path)!r}: give the path of a .safetensors, .pt or .pth file")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file, out of its container and without a `module.` prefix. Never runs code of the file.

    Raises:
        WeightsError: no such file, or it holds no tensors that can be read safely.
    """
    file_digest(path)
    try:
        content: Any = load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 (damaged bytes make the readers fail in any way they can)
        reason = str(error).splitlines()[0].split(". ")[0][:160] if str(error) else type(error).__name__
        raise WeightsError(f"{str(path)!r} holds no weights that can be read safely ({reason}): download it again") from None
    for container in CONTAINERS:
        if isinstance(content, dict) and isinstance(content.get(container), dict):
            content = content[container]
            break
    tensors = (
        {str(k).removeprefix("module."): v for k, v in content.items() if isinstance(v, Tensor)}
        if isinstance(content, dict)
        else {}
    )
    if not tensors:
        raise WeightsError(f"{str(path)!r} holds no named tensors: it is no checkpoint")
    return tensors


def load_into(model: nn.Module, tensors: dict[str, Tensor], *, min_match: float = 1.0, ignore: tuple[str, ...] = ()) -> LoadReport:
    """Copy what fits into the model. Names that start with one of `ignore` are loaded where they fit, but may be missing.

    Raises:
        WeightsError: less than `min_match` of the model's tensors were found.
    """
    every = model.state_dict()
    fitting = {name: tensors[name] for name, t in every.items() if name in tensors and tensors[name].shape == t.shape}
    own = [name for name in every if not name.startswith(ignore)]
    report = LoadReport(
        loaded=tuple(name for name in own if name in fitting),
        misshaped=tuple(name for name in own if name in tensors and name not in fitting),
        missing=tuple(name for name in own if name not in tensors),
        extra=tuple(name for name in tensors if name not in every),
    )
    if report.match < min_match:
        examples = ", ".join([*report.missing, *report.misshaped][:3])
        raise WeightsError(
            f"only {len(report.loaded)} of {len(own)} tensors fit the model ({report.match:.0%}, {min_match:.0%} are needed; "
            f"without a match: {examples}): the weights belong to another model or preset"
        )
    model.load_state_dict(fitting, strict=False)
    return report
