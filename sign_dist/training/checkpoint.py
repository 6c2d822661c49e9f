"""Checkpoints: all that resuming needs, in one folder that is there as a whole or not at all, and whose bytes are proved.

`model.safetensors` holds the weights to evaluate and export (the moving average, where one is kept, with adapters merged);
`weights.safetensors` those that train, where they are not the same, `average.safetensors` the moving average with adapters apart;
`optimizer.safetensors` the moments by parameter name;
`progress.json` says how far it is, and the digest of each of the others. Nothing in it depends on the strategy or the number of
workers.
"""

import dataclasses
import hashlib
import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from sign_dist.data.layout import write_json
from sign_dist.errors import RunError
from sign_dist.tasks.task import Monitor
from sign_dist.training.record import Record
from sign_dist.training.run_dir import RunDir, progress_of
from sign_dist.training.sinks import Sink
from sign_dist.training.strategy import State

MODEL, WEIGHTS, OPTIMIZER = "model.safetensors", "weights.safetensors", "optimizer.safetensors"
AVERAGE = "average.safetensors"

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a training is, and what it measured last."""

    epoch: int
    """Epochs that are finished."""
    step: int
    """Steps, over all epochs."""
    metrics: dict[str, float]
    best: float | None
    stale: int
    """Evaluations since the monitor was last improved."""
    done_steps: int = 0
    """Steps of the epoch that is not finished; 0 between epochs."""
    seen: dict[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    """Sums of what was measured since the last evaluation."""
    recent: list[float] = dataclasses.field(default_factory=list[float])
    """Losses of the last steps, by which a leap is known."""


@dataclasses.dataclass(frozen=True)
class Saved:
    """What a checkpoint holds beside its progress. `model` is what is evaluated and exported, `state` what trains."""

    model: Mapping[str, Tensor]
    state: State
    same: bool
    """Whether the weights of both are one and the same, so that they need to be written once only."""
    average: Mapping[str, Tensor] | None = None
    """The moving average, where `model` does not tell it."""


class Checkpoints(Protocol):
    """Where checkpoints and metrics go; a test brings a list."""

    def latest(self) -> Path | None:
        """The newest complete and sound checkpoint to go on from."""
        ...

    def report(self, metrics: dict[str, float] | None, progress: Progress, saved: Saved | None) -> None:
        """Called by every rank with each checkpoint; only the first rank brings what to save. Metrics: of an evaluation."""
        ...


class LocalCheckpoints:
    """Checkpoints straight into a run directory: the best `keep` by the monitor, and the newest two. Keeps the record, too."""

    def __init__(self, run_dir: RunDir, monitor: Monitor, *, keep: int = 1, sinks: Sequence[Sink] = ()) -> None:
        self.run_dir = run_dir
        self.monitor = monitor
        self.keep = keep
        self._record = Record(run_dir, sinks)

    def latest(self) -> Path | None:
        for folder in reversed(self.run_dir.checkpoints()):
            try:
                check(folder)
            except RunError as error:
                logger.warning("%s; the one before is used", error)
            else:
                return folder
        return None

    def report(self, metrics: dict[str, float] | None, progress: Progress, saved: Saved | None) -> None:
        if saved is None:
            return
        # The record first: a run that dies in between trains the same steps again and replaces its line.
        if metrics is not None:
            self._record.append(metrics)
        folder = self.run_dir.checkpoint(progress.epoch, progress.done_steps)
        write_checkpoint(folder, progress, saved, self.monitor, evaluated=metrics is not None)
        self._thin_out()

    def _thin_out(self) -> None:
        found = self.run_dir.checkpoints()
        ranks = {path: progress_of(path)["rank"] for path in found}
        evaluated = [path for path in found if ranks[path] is not None]
        best = sorted(evaluated, key=lambda path: ranks[path], reverse=True)[: self.keep]
        for path in found[:-2]:
            if path not in best:
                # First what makes it complete: a kill in the middle must not leave half a checkpoint that looks whole.
                (path / "progress.json").unlink()
                shutil.rmtree(path)


def write_checkpoint(folder: Path, progress: Progress, saved: Saved, monitor: Monitor, *, evaluated: bool = True) -> None:
    """Write a checkpoint under a temporary name, then rename the folder: it is there as a whole or not at all."""
    fresh = folder.with_name(f".{folder.name}")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    _save(saved.model, fresh / MODEL)
    if not saved.same:
        _save(saved.state.weights, fresh / WEIGHTS)
    if saved.average is not None:
        _save(saved.average, fresh / AVERAGE)
    moments = {f"{key}/{name}": tensor for name, held in saved.state.moments.items() for key, tensor in held.items()}
    _save(moments, fresh / OPTIMIZER)
    facts = dataclasses.asdict(progress) | {
        "rank": rank_of(progress, monitor) if evaluated else None,
        "sha256": {path.name: _digest(path) for path in sorted(fresh.iterdir())},
    }
    write_json(fresh / "progress.json", facts)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)


def rank_of(progress: Progress, monitor: Monitor) -> float:
    """The monitor as a number that is larger for better; of equal ones the later is better by a hair."""
    value = progress.metrics.get(monitor.name, math.nan)
    if not math.isfinite(value):
        return -1e12 + progress.step
    return (value if monitor.mode == "max" else -value) + progress.epoch * 1e-9


def check(folder: Path) -> None:
    """Whether a checkpoint has the very bytes that were written.

    Raises:
        RunError: a file is missing, torn or changed.
    """
    digests = progress_of(folder).get("sha256")
    if not isinstance(digests, dict):
        raise RunError(f"checkpoint {str(folder)!r} was written by an older version and cannot be gone on from: remove it")
    for name, digest in digests.items():
        path = folder / str(name)
        if not path.is_file() or _digest(path) != digest:
            raise RunError(
                f"checkpoint {str(folder)!r} is damaged ({name} is {'changed' if path.is_file() else 'missing'}): remove it"
            )


def read_state(folder: Path) -> tuple[Progress, State]:
    """Progress and training state of a checkpoint.

    Raises:
        RunError: it is damaged.
    """
    check(folder)
    try:
        facts = progress_of(folder)
        fields = {field.name for field in dataclasses.fields(Progress)}
        weights = load_file(folder / (WEIGHTS if (folder / WEIGHTS).exists() else MODEL))
        moments: dict[str, dict[str, Tensor]] = {}
        for full, tensor in load_file(folder / OPTIMIZER).items():
            key, _, name = full.partition("/")
            moments.setdefault(name, {})[key] = tensor
        return Progress(**{name: value for name, value in facts.items() if name in fields}), State(weights, moments)
    except RunError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise RunError(f"checkpoint {str(folder)!r} is damaged ({reason}): remove it, the one before will be used") from error


def read_average(checkpoint: Path) -> dict[str, Tensor]:
    """The moving average of a checkpoint of a run that keeps one, with adapters apart.

    Raises:
        RunError: it is damaged.
    """
    kept = checkpoint / AVERAGE
    return load_weights_file(kept) if kept.exists() else read_weights(checkpoint)


def read_weights(checkpoint: Path) -> dict[str, Tensor]:
    """The weights to evaluate and export of a checkpoint folder.

    Raises:
        RunError: the file is missing or damaged.
    """
    return load_weights_file(checkpoint / MODEL)


def load_weights_file(path: Path) -> dict[str, Tensor]:
    """The tensors of our own safetensors file.

    Raises:
        RunError: the file is missing or damaged.
    """
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise RunError(f"weights {str(path)!r} cannot be read ({error}): use another checkpoint, or train again") from error


def save_weights_file(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors as our own safetensors file, which `load_weights_file` reads."""
    _save(tensors, path)


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in _apart(tensors).items()}, path)


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that share memory, as tied weights do, each with memory of its own: safetensors refuses the others."""
    seen: set[int] = set()
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        found[name] = tensor.clone() if place in seen else tensor
        seen.add(place)
    return found


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
