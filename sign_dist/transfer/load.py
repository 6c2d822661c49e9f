"""Load weights tolerantly, with a report instead of silence: what was loaded, adapted, skipped, missing, mis-shaped."""

import collections
import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from sign_dist.errors import WeightsError
from sign_dist.transfer.weights_file import CONTAINERS, file_digest, read_weights

__all__ = ["CONTAINERS", "Fit", "LoadReport", "file_digest", "fit_to", "load_into", "read_state_dict"]

Rename = Callable[[str], str]
"""The name of a tensor in a file -> the name it has in the model."""

Adapt = Callable[[str, Tensor, torch.Size], Tensor | None]
"""(name in the model, tensor of another shape, shape in the model) -> a tensor of that shape, or None."""

COUNTER = ".num_batches_tracked"
MAX_PREFIX_PARTS = 4


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """What became of each tensor. Names are the model's, in `skipped` the file's: those for which the model has no place."""

    loaded: tuple[str, ...] = ()
    adapted: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    misshaped: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    """Beginnings of names that do not count: a head, say, that belongs to another vocabulary."""
    prefix: str = ""
    """`-x.`: taken off the file's names; `+x.`: put before them."""

    @property
    def match(self) -> float:
        """Share of the model's tensors, optional ones left out, that were loaded or adapted."""
        found, total = self.counts
        return found / total if total else 1.0

    @property
    def counts(self) -> tuple[int, int]:
        """Tensors that were loaded or adapted, and all that were wanted; optional ones left out."""
        found = self._needed(self.loaded + self.adapted)
        return len(found), len(found) + len(self.lacking)

    @property
    def lacking(self) -> tuple[str, ...]:
        """What the model needs and did not get."""
        return self._needed(self.missing + self.misshaped)

    def require(self, min_match: float) -> None:
        """Refuse weights of which too little fits.

        Raises:
            WeightsError: less than `min_match` of the model's tensors were found, or none at all.
        """
        found, total = self.counts
        if self.match < min_match or (total and not found):
            raise WeightsError(
                f"only {found} of {total} tensors fit the model ({percent(self.match)}, {percent(min_match)} are needed; "
                f"without a match: {', '.join(self.lacking[:3])}): the weights belong to another model or preset"
            )

    def _needed(self, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name for name in names if not name.startswith(self.optional)) if self.optional else names

    def __str__(self) -> str:
        kinds = ("loaded", "adapted", "skipped", "missing", "misshaped")
        text = ", ".join(f"{len(getattr(self, kind))} {kind}" for kind in kinds)
        return f"{text} ({percent(self.match)} of what the model needs)"


@dataclasses.dataclass(frozen=True)
class Fit:
    """Tensors by the model's names, what became of each, and the shapes of all that the file has, by the model's names."""

    tensors: dict[str, Tensor]
    report: LoadReport
    given: dict[str, torch.Size]


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file, out of its container and without a `module.` prefix. Never runs code of the file.

    Raises:
        WeightsError: no such file, or it holds no tensors that can be read safely.
    """
    return read_weights(path).tensors


def fit_to(
    shapes: Mapping[str, torch.Size],
    tensors: Mapping[str, Tensor],
    *,
    ignore: tuple[str, ...] = (),
    rename: Rename | None = None,
    adapt: Adapt | None = None,
) -> Fit:
    """Which tensor of a file goes where in a model with these shapes. Nothing is loaded.

    A prefix that all names of the file, or of the model, have more than those of the other is found and reported. Counters of
    BatchNorm that the whole file lacks do not count as missing: torch before 0.4.1 did not write them.
    """
    given = {rename(name): tensor for name, tensor in tensors.items()} if rename else dict(tensors)
    prefix = _prefix(shapes, given)
    given = _moved(given, prefix)
    fitting: dict[str, Tensor] = {}
    adapted: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        if name not in given:
            continue
        if given[name].shape == shape:
            fitting[name] = given[name]
        elif adapt and (made := adapt(name, given[name], shape)) is not None and made.shape == shape:
            adapted[name] = made
    no_counters = not any(name.endswith(COUNTER) for name in given)
    report = LoadReport(
        loaded=tuple(fitting),
        adapted=tuple(adapted),
        skipped=tuple(name for name in given if name not in shapes),
        missing=tuple(name for name in shapes if name not in given and not (no_counters and name.endswith(COUNTER))),
        misshaped=tuple(name for name in shapes if name in given and name not in fitting and name not in adapted),
        optional=ignore,
        prefix=prefix,
    )
    return Fit(fitting | adapted, report, {name: tensor.shape for name, tensor in given.items()})


def load_into(
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    *,
    min_match: float = 1.0,
    ignore: tuple[str, ...] = (),
    rename: Rename | None = None,
    adapt: Adapt | None = None,
) -> LoadReport:
    """Copy what fits into the model. Names that start with one of `ignore` are loaded where they fit, but may be missing.

    Raises:
        WeightsError: less than `min_match` of the model's tensors were found, or none at all; the model is as it was.
    """
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    fit = fit_to(shapes, tensors, ignore=ignore, rename=rename, adapt=adapt)
    fit.report.require(min_match)
    model.load_state_dict(fit.tensors, strict=False)
    return fit.report


def percent(share: float) -> str:
    """Rounded down: what lacks anything is not 100 %.

    >>> percent(297 / 298), percent(1.0)
    ('99%', '100%')
    """
    return f"{math.floor(round(share * 100, 9))}%"


def _prefix(shapes: Mapping[str, torch.Size], given: Mapping[str, Tensor]) -> str:
    """The prefix whose removal from the file's names, or from the model's, makes most tensors fit; "" if none helps."""
    counts: collections.Counter[str] = collections.Counter()
    plain = sum(name in shapes and shapes[name] == tensor.shape for name, tensor in given.items())
    for name, tensor in given.items():
        for start, rest in _beginnings(name):
            if rest in shapes and shapes[rest] == tensor.shape:
                counts[f"-{start}"] += 1
    for name, shape in shapes.items():
        for start, rest in _beginnings(name):
            if rest in given and given[rest].shape == shape:
                counts[f"+{start}"] += 1
    best, count = max(counts.items(), key=lambda item: item[1], default=("", 0))
    return best if count > plain else ""


def _beginnings(name: str) -> list[tuple[str, str]]:
    parts = name.split(".")
    return [(".".join(parts[:i]) + ".", ".".join(parts[i:])) for i in range(1, min(len(parts) - 1, MAX_PREFIX_PARTS) + 1)]


def _moved(given: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Names without or with a prefix. A name that lacks it stays; two that become one are the one that had the prefix."""
    if not prefix:
        return given
    sign, start = prefix[0], prefix[1:]
    if sign == "+":
        return {start + name: tensor for name, tensor in given.items()}
    others = {name: tensor for name, tensor in given.items() if not name.startswith(start)}
    return others | {name.removeprefix(start): tensor for name, tensor in given.items() if name.startswith(start)}
