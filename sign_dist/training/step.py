"""One optimiser step: its micro-batches forward and backward, what was seen in them, and whether the weights may move."""

import dataclasses
import math
from collections import deque
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from sign_dist.config.train import Train
from sign_dist.errors import SettingsError
from sign_dist.tasks.task import Batch, Task
from sign_dist.training.feed import Turn
from sign_dist.training.strategy import Engine, PlainEngine, Strategy
from sign_dist.transfer.lora import unused_adapters

SPIKE_STEPS = 50
"""A leap of the loss is one over the median of so many steps before."""


@dataclasses.dataclass(frozen=True)
class StepResult:
    """What all ranks together saw in a step."""

    loss: float
    """Sum over clips, each times its weight."""
    terms: dict[str, float]
    """The same of each named loss."""
    norm: float
    frames: float
    """Steps of time that belong to clips, and, in `padded`, that were computed."""
    padded: float
    skipped: str
    """Why the weights did not move, "" if they did."""
    notice: bool


@dataclasses.dataclass
class Seen:
    """Sums since the last evaluation; numbers only, so that a checkpoint can hold them."""

    loss: float = 0.0
    clips: float = 0.0
    norm: float = 0.0
    steps: float = 0.0
    seconds: float = 0.0
    waited_s: float = 0.0
    frames: float = 0.0
    padded: float = 0.0
    skipped: float = 0.0
    skipped_in_row: int = 0
    terms: dict[str, float] = dataclasses.field(default_factory=dict[str, float])

    def add(self, result: StepResult, *, num_clips: int, seconds: float, waited_s: float) -> None:
        self.seconds += seconds
        self.waited_s += waited_s
        self.steps += 1
        if result.skipped:
            self.skipped += 1
            return
        self.loss += result.loss
        self.clips += num_clips
        self.norm += result.norm
        self.frames += result.frames
        self.padded += result.padded
        for name, value in result.terms.items():
            self.terms[name] = self.terms.get(name, 0.0) + value

    def metrics(self) -> dict[str, float]:
        """Means, as metrics.jsonl has them; nothing before the first step."""
        if not self.steps:
            return {}
        clips, moved = max(self.clips, 1), max(self.steps - self.skipped, 1)
        terms = {f"train/{name}": value / clips for name, value in self.terms.items()} if len(self.terms) > 1 else {}
        return {
            "train/loss": self.loss / clips,
            **terms,
            "train/grad_norm": self.norm / moved,
            "train/skipped_steps": self.skipped,
            "seconds": self.seconds,
            "clips_per_s": self.clips / max(self.seconds, 1e-9),
            "step_ms": self.seconds / self.steps * 1000,
            "data_wait_share": self.waited_s / max(self.seconds, 1e-9),
            "padding_share": 1 - self.frames / self.padded if self.padded else 0.0,
        }


def train_step(
    engine: Engine,
    task: Task,
    turns: Sequence[Turn],
    settings: Train,
    strategy: Strategy,
    *,
    step: int,
    num_clips: int,
    recent: deque[float],
    first: bool = False,
    notice: bool = False,
) -> StepResult:
    """Compute this rank's micro-batches and move the weights, unless the loss is no finite number or leaps.

    `recent` are losses per clip of the steps before, which a leap is measured by. In the `first` step of an epoch, which may be
    that of a stage, adapters that the model passes by are looked for.
    """
    engine.zero_grad()
    device = strategy.device
    sums = torch.zeros(4, dtype=torch.float64)
    sums[3] = notice
    total = torch.zeros((), device=device, dtype=torch.float64)
    terms: dict[str, Tensor] = {}
    for i, turn in enumerate(turns):
        batch = turn.batch.to(device)
        # Every micro-batch draws its dropout from a generator of its own, whoever computes it, and after every interruption.
        torch.manual_seed(_seed_of(settings.seed, step, turn.part))
        with engine.part(last=i == len(turns) - 1):
            named = _losses(engine.model, task, batch, settings)
            loss = torch.stack(list(named.values())).sum()
            engine.backward(loss / num_clips)
        total += loss.detach()
        for name, value in named.items():
            terms[name] = terms.get(name, 0.0) + value.detach().double()
        if turn.part is not None:
            sums[1] += float(turn.batch.lengths.sum())
            sums[2] += turn.batch.features.shape[0] * turn.batch.features.shape[1]
    if first and isinstance(engine, PlainEngine) and (unused := unused_adapters(engine.bare)):
        raise SettingsError(f"the model passes by the adapter of {unused[0]}: choose other train.lora.targets")
    sums[0] = float(total)
    names = sorted(terms)
    told = strategy.sum(torch.cat([sums, torch.tensor([float(terms[name]) for name in names], dtype=torch.float64)])).tolist()
    loss, frames, padded = told[:3]
    skipped = _reason(loss / num_clips, recent, settings.spike)
    norm = 0.0
    if skipped:
        engine.zero_grad()
    else:
        norm = engine.step(settings.optim.clip_norm)
        if not math.isfinite(norm):
            # Scaled fp16 gradients overflow now and then: the scale is lowered, and nothing is wrong.
            skipped = "" if settings.precision == "fp16" else f"the gradient's norm is {norm}"
            norm = 0.0 if not skipped else norm
        recent.append(loss / num_clips)
    return StepResult(loss, dict(zip(names, told[4:], strict=True)), norm, frames, padded, skipped, bool(told[3]))


def _losses(model: nn.Module, task: Task, batch: Batch, settings: Train) -> dict[str, Tensor]:
    """Each named loss, summed over the clips of a batch, each times its weight."""
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(settings.precision, torch.float32)
    with torch.autocast(batch.features.device.type, dtype=dtype, enabled=settings.precision != "fp32"):
        named, _ = task.losses(model, batch)
    return {name: (per_clip * batch.weights).sum() for name, per_clip in named.items()}


def _seed_of(seed: int, step: int, part: int | None) -> int:
    return int(np.random.SeedSequence([seed, step, 0 if part is None else part + 1]).generate_state(1, np.uint64)[0] >> 1)


def _reason(loss: float, recent: deque[float], spike: float) -> str:
    """Why a step must not move the weights, "" if it may."""
    if not math.isfinite(loss):
        return f"the loss is {loss}"
    if spike and len(recent) >= SPIKE_STEPS // 5 and loss > spike * (usual := float(np.median(recent))) > 0:
        return f"the loss leaps to {loss:.3g} from {usual:.3g}"
    return ""
