"""fit(): the one training loop. It knows a Task, a Strategy and where checkpoints go; neither Ray nor files of data."""

import contextlib
import copy
import dataclasses
import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sign_dist.config.train import Train
from sign_dist.errors import RunError, SettingsError
from sign_dist.tasks.task import Batch, Task
from sign_dist.training.checkpoint import Checkpoints, Progress, read_state, read_weights, rng_state, set_rng_state
from sign_dist.training.data import ClipSource, micro_batches
from sign_dist.training.evaluate import evaluate
from sign_dist.training.optim import build_optimizer, lr_at, set_lr
from sign_dist.training.strategy import Strategy, bare
from sign_dist.transfer.freeze import Plan, keep_frozen_still, plan_of
from sign_dist.transfer.lora import add_adapters, has_adapters, merged_state, unused_adapters

logger = logging.getLogger(__name__)


@dataclasses.dataclass
class _State:
    """What moves while training; everything in it is saved and restored."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: nn.Module | None
    epoch: int = 0
    step: int = 0
    best: float | None = None
    stale: int = 0


def fit(
    model: nn.Module,
    task: Task,
    train_clips: ClipSource,
    val_clips: ClipSource,
    settings: Train,
    *,
    strategy: Strategy,
    checkpoints: Checkpoints,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
) -> dict[str, float]:
    """Train to the end, or go on from the newest checkpoint; answers the last evaluation's metrics.

    Every rank calls it with the same arguments. `on_epoch` is called on every rank after each evaluation, and may raise
    to end the training early.

    Raises:
        RunError: the loss is no finite number any more; the clips of that step are named.
        SettingsError: `freeze`, `unfreeze` or `lora` name layers that the model does not have.
    """
    plan = _prepare(model, settings)
    model = strategy.wrap(model)
    average = copy.deepcopy(bare(model)).requires_grad_(False) if settings.ema else None
    state = _State(model, build_optimizer(bare(model), settings.optim), average)
    metrics = _resume(state, checkpoints, strategy.device)
    steps_per_epoch = math.ceil(len(train_clips) / settings.batch_size)
    while state.epoch < settings.epochs and not _patience_ended(state, settings, plan):
        stage = plan.stage(state.epoch, settings.epochs)
        if state.epoch and plan.stage(state.epoch - 1, settings.epochs) != stage:
            state.stale = 0
        names = plan.apply(bare(model), stage)
        logger.info("epoch %d, stage %d: %s train", state.epoch + 1, stage, ", ".join(names))
        started = time.perf_counter()
        seen = _train_epoch(state, task, train_clips, settings, strategy, steps_per_epoch * settings.epochs)
        seconds = time.perf_counter() - started
        state.epoch += 1
        if state.epoch % settings.evaluate_every and state.epoch < settings.epochs:
            continue
        result = evaluate(state.average or bare(model), task, val_clips, batch_size=settings.batch_size, strategy=strategy)
        metrics = {
            "epoch": state.epoch,
            "step": state.step,
            "train/loss": seen["loss"],
            "train/grad_norm": seen["grad_norm"],
            **{f"val/{name}": value for name, value in result.scores.items()},
            "lr": seen["lr"],
            "stage": stage,
            "seconds": seconds,
            "clips_per_s": len(train_clips) / seconds,
        }
        value = metrics[task.monitor.name]
        if task.monitor.better(value, state.best):
            state.best, state.stale = value, 0
        else:
            state.stale += 1
        _save(state, metrics, checkpoints, strategy)
        if on_epoch is not None:
            on_epoch(metrics)
    return metrics


def _prepare(model: nn.Module, settings: Train) -> Plan:
    """Add adapters where settings ask for them, and let train what will train in the end: the rest is not exchanged by DDP."""
    lora, freeze, unfreeze = settings.lora, settings.freeze, settings.unfreeze
    if lora.targets:
        add_adapters(model, lora.targets, rank=lora.rank, alpha=lora.alpha, dropout=lora.dropout, seed=settings.seed)
    plan = plan_of(
        model,
        until=freeze.until,
        fraction=freeze.fraction,
        groups=freeze.groups,
        stages=unfreeze.stages,
        plan=unfreeze.plan,
        adapters=bool(lora.targets),
    )
    plan.apply(model, len(plan.stages) - 1)
    return plan


def _patience_ended(state: _State, settings: Train, plan: Plan) -> bool:
    """Only in the last stage: where an earlier one gets no better, the layers of the next are what it lacks."""
    in_last = state.epoch > 0 and plan.stage(state.epoch - 1, settings.epochs) == len(plan.stages) - 1
    return bool(settings.patience) and in_last and state.stale >= settings.patience


def _train_epoch(
    state: _State, task: Task, clips: ClipSource, settings: Train, strategy: Strategy, total_steps: int
) -> dict[str, float]:
    """One pass over the clips; answers the mean loss, the last learning rate and the mean gradient norm."""
    state.model.train()
    keep_frozen_still(state.model)
    losses: list[float] = []
    norms: list[float] = []
    lr = settings.optim.lr
    for num_clips, parts in micro_batches(
        len(clips),
        batch_size=settings.batch_size,
        accumulate=settings.accumulate,
        rank=strategy.rank,
        world_size=strategy.world_size,
        seed=settings.seed,
        epoch=state.epoch,
    ):
        lr = lr_at(state.step, total_steps, settings.optim)
        set_lr(state.optimizer, lr)
        state.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=strategy.device)
        for i, part in enumerate(parts):
            if not part and strategy.world_size == 1:
                continue  # a short last step fills fewer parts, and nobody waits for the others
            batch = _batch(task, clips, part, settings.seed, state.epoch).to(strategy.device)
            last = i == len(parts) - 1
            with contextlib.nullcontext() if last else strategy.no_sync(state.model):
                loss = _loss(state.model, task, batch, settings) / num_clips
                # DDP averages gradients over ranks; the sum over all clips is what is wanted.
                (loss * strategy.world_size).backward()
            total += loss.detach()
        if not losses and (unused := unused_adapters(state.model)):  # asked once an epoch: a stage may bring others
            raise SettingsError(f"the model passes by the adapter of {unused[0]}: choose other train.lora.targets")
        norm = nn.utils.clip_grad_norm_(state.model.parameters(), settings.optim.clip_norm)
        step_loss = math.fsum(strategy.gather(float(total)))
        if not math.isfinite(step_loss) or not math.isfinite(float(norm)):
            names = [clips[j].sample.id for part in parts for j in part]
            raise RunError(
                f"the loss is {step_loss} at epoch {state.epoch + 1}, step {state.step + 1} (clips {', '.join(names[:4])}): "
                "lower train.optim.lr, or use train.precision=fp32"
            )
        state.optimizer.step()
        state.step += 1
        _move_average(state, settings.ema)
        losses.append(step_loss * num_clips)
        norms.append(float(norm))
    return {"loss": math.fsum(losses) / len(clips), "lr": lr, "grad_norm": math.fsum(norms) / len(norms)}


def _batch(task: Task, clips: ClipSource, part: Sequence[int], seed: int, epoch: int) -> Batch:
    """The clips of a micro-batch, augmented by a generator of their own each: who shares a batch changes nothing."""
    if not part:  # a rank that has no clip left still takes part in the exchange of gradients
        batch = task.collate([clips[0]])
        return dataclasses.replace(batch, weights=torch.zeros_like(batch.weights))
    rngs = [np.random.default_rng([seed, epoch, index]) for index in part]
    return task.collate([clips[index] for index in part], rngs)


def _loss(model: nn.Module, task: Task, batch: Batch, settings: Train) -> Tensor:
    """Sum over the clips of a batch, each times its weight."""
    device_type = batch.features.device.type
    with torch.autocast(device_type, dtype=torch.bfloat16, enabled=settings.precision == "bf16"):
        named, _ = task.losses(model, batch)
    per_clip = torch.stack(list(named.values())).sum(dim=0)
    return (per_clip * batch.weights).sum()


@torch.no_grad()
def _move_average(state: _State, decay: float) -> None:
    """Exponential moving average, with the warm-up of Tensor2Tensor: young averages forget faster."""
    if state.average is None:
        return
    decay = min(decay, (1 + state.step) / (10 + state.step))
    for mean, now in zip(state.average.state_dict().values(), bare(state.model).state_dict().values(), strict=True):
        if mean.dtype.is_floating_point:
            mean.lerp_(now, 1 - decay)
        else:
            mean.copy_(now)


def _save(state: _State, metrics: dict[str, float], checkpoints: Checkpoints, strategy: Strategy) -> None:
    """Hand a checkpoint over. Generators are saved per rank, so that each goes on with its own."""
    generators = strategy.gather(rng_state())
    progress = Progress(state.epoch, state.step, metrics, state.best, state.stale)
    if strategy.rank != 0:
        checkpoints.report(metrics, progress, None, None)
        return
    saved: dict[str, Any] = {
        "model": bare(state.model).state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "generators": generators,
    }
    # Adapters are merged into what is evaluated elsewhere and exported; then the average cannot be read back from it.
    weights = merged_state(state.average or bare(state.model))
    if state.average is not None and has_adapters(state.average):
        saved["average"] = state.average.state_dict()
    checkpoints.report(metrics, progress, saved, weights)


def _resume(state: _State, checkpoints: Checkpoints, device: torch.device) -> dict[str, float]:
    """Put everything back to where the newest checkpoint has it; answers its metrics."""
    folder = checkpoints.latest()
    if folder is None:
        return {}
    progress, saved = read_state(folder)
    bare(state.model).load_state_dict(saved["model"])
    state.optimizer.load_state_dict(saved["optimizer"])
    if state.average is not None:
        average = saved.get("average") or read_weights(folder)
        state.average.load_state_dict({name: tensor.to(device) for name, tensor in average.items()})
    generators = saved["generators"]
    set_rng_state(generators[min(_rank(), len(generators) - 1)])
    state.epoch, state.step, state.best, state.stale = progress.epoch, progress.step, progress.best, progress.stale
    logger.info("going on after epoch %d from %s", progress.epoch, folder.name)
    return dict(progress.metrics)


def _rank() -> int:
    return torch.distributed.get_rank() if torch.distributed.is_available() and torch.distributed.is_initialized() else 0
