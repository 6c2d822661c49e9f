"""Checkpoints: all that resuming needs, in one folder that is there as a whole or not at all.

`model.safetensors` holds the weights to evaluate and export (the moving average, where one is kept), `state.pt` what only
training needs, `progress.json` says how far it is.
"""

import dataclasses
import json
import math
import random
import shutil
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from sign_dist.data.layout import write_json
from sign_dist.errors import RunError
from sign_dist.tasks.task import Monitor
from sign_dist.training.record import Record
from sign_dist.training.run_dir import RunDir, progress_of


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a training is, and what it measured last."""

    epoch: int
    """Epochs that are finished."""
    step: int
    metrics: dict[str, float]
    best: float | None
    stale: int
    """Evaluations since the monitor was last improved."""


class Checkpoints(Protocol):
    """Where checkpoints and metrics go; a test brings a list."""

    def latest(self) -> Path | None:
        """The newest complete checkpoint to go on from."""
        ...

    def report(
        self,
        metrics: dict[str, float],
        progress: Progress,
        state: dict[str, Any] | None,
        weights: dict[str, Tensor] | None,
    ) -> None:
        """Called by every rank after an epoch; only the first rank brings state and weights."""
        ...


class LocalCheckpoints:
    """Checkpoints straight into a run directory: the best `keep` by the monitor, and the newest two. Keeps the record, too."""

    def __init__(self, run_dir: RunDir, monitor: Monitor, *, keep: int = 1) -> None:
        self.run_dir = run_dir
        self.monitor = monitor
        self.keep = keep
        self._record = Record(run_dir)

    def latest(self) -> Path | None:
        found = self.run_dir.checkpoints()
        return found[-1] if found else None

    def report(
        self,
        metrics: dict[str, float],
        progress: Progress,
        state: dict[str, Any] | None,
        weights: dict[str, Tensor] | None,
    ) -> None:
        if state is None or weights is None:
            return
        # The record first: a run that dies in between trains the epoch again and replaces its line.
        self._record.append(metrics)
        write_checkpoint(self.run_dir.checkpoint(progress.epoch), progress, state, weights, self.monitor)
        self._thin_out()

    def _thin_out(self) -> None:
        found = self.run_dir.checkpoints()
        best = sorted(found, key=lambda path: progress_of(path)["rank"], reverse=True)[: self.keep]
        for path in found[:-2]:
            if path not in best:
                # First what makes it complete: a kill in the middle must not leave half a checkpoint that looks whole.
                (path / "progress.json").unlink()
                shutil.rmtree(path)


def write_checkpoint(folder: Path, progress: Progress, state: dict[str, Any], weights: dict[str, Tensor], monitor: Monitor) -> None:
    """Write a checkpoint under a temporary name, then rename the folder: it is there as a whole or not at all."""
    fresh = folder.with_name(f".{folder.name}")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, fresh / "model.safetensors")
    torch.save(state, fresh / "state.pt")
    write_json(fresh / "progress.json", dataclasses.asdict(progress) | {"rank": rank_of(progress, monitor)})
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)


def rank_of(progress: Progress, monitor: Monitor) -> float:
    """The monitor as a number that is larger for better; of equal ones the later epoch is better by a hair."""
    value = progress.metrics.get(monitor.name, math.nan)
    if not math.isfinite(value):
        return -1e12 + progress.epoch
    return (value if monitor.mode == "max" else -value) + progress.epoch * 1e-9


def read_state(folder: Path) -> tuple[Progress, dict[str, Any]]:
    """Progress and training state of a checkpoint.

    Raises:
        RunError: it is damaged.
    """
    try:
        facts = json.loads((folder / "progress.json").read_text(encoding="utf-8"))
        facts.pop("rank")
        return Progress(**facts), torch.load(folder / "state.pt", weights_only=True)
    except Exception as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise RunError(f"checkpoint {str(folder)!r} is damaged ({reason}): remove it, the one before will be used") from error


def read_weights(checkpoint: Path) -> dict[str, Tensor]:
    """The weights to evaluate and export of a checkpoint folder.

    Raises:
        RunError: the file is missing or damaged.
    """
    return load_weights_file(checkpoint / "model.safetensors")


def load_weights_file(path: Path) -> dict[str, Tensor]:
    """The tensors of our own safetensors file.

    Raises:
        RunError: the file is missing or damaged.
    """
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise RunError(f"weights {str(path)!r} cannot be read ({error}): use another checkpoint, or train again") from error


def rng_state() -> dict[str, Any]:
    """Python's and torch's generators, as `weights_only` loading accepts them. numpy's global one is never used here."""
    version, keys, gauss = random.getstate()
    return {
        "python": [version, list(keys), gauss],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Put generators back to where `rng_state` found them."""
    version, keys, gauss = state["python"]
    random.setstate((version, tuple(keys), gauss))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
