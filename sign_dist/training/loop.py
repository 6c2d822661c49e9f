"""fit(): the one training loop. It knows a Task, a Strategy and where checkpoints go; neither Ray nor files of data."""

import dataclasses
import logging
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from sign_dist.config.train import Train
from sign_dist.errors import InterruptedRunError, RunError
from sign_dist.models.mimicry import without_projections
from sign_dist.tasks.task import Task
from sign_dist.training.adapt import adapt
from sign_dist.training.batches import Sampler, Step
from sign_dist.training.checkpoint import Checkpoints, Progress, Saved, read_average, read_state
from sign_dist.training.data import ClipSource, lengths_of
from sign_dist.training.evaluate import Evaluation, evaluate
from sign_dist.training.feed import Feed
from sign_dist.training.optim import build_optimizer, lr_at, set_lr
from sign_dist.training.step import SPIKE_STEPS, Seen, StepResult, train_step
from sign_dist.training.strategy import Ddp, Engine, OneProcess, Strategy
from sign_dist.transfer.freeze import ADAPTER, Plan, keep_frozen_still, plan_of
from sign_dist.transfer.lora import has_adapters, merged_state

logger = logging.getLogger(__name__)

OnEpoch = Callable[[dict[str, float]], None]
OnStage = Callable[[int, nn.Module], None]
"""(stage of unfreezing from 0, a model that trains or is evaluated in it)"""
OnStep = Callable[[int, Step, StepResult], None]
"""(number of the step from 1, its clips by index, what was seen)"""


@dataclasses.dataclass
class _State:
    """What moves while training; everything in it is saved and restored."""

    engine: Engine
    average: dict[str, Tensor] | None
    epoch: int = 0
    step: int = 0
    done_steps: int = 0
    """Steps of the epoch that is under way."""
    best: float | None = None
    stale: int = 0
    seen: Seen = dataclasses.field(default_factory=Seen)
    recent: deque[float] = dataclasses.field(default_factory=lambda: deque[float](maxlen=SPIKE_STEPS))
    """Losses per clip of the last steps."""
    metrics: dict[str, float] = dataclasses.field(default_factory=dict[str, float])


def fit(
    model: nn.Module,
    task: Task,
    train_clips: ClipSource,
    val_clips: ClipSource,
    settings: Train,
    *,
    strategy: Strategy,
    checkpoints: Checkpoints,
    on_epoch: OnEpoch | None = None,
    on_step: OnStep | None = None,
    on_stage: OnStage | None = None,
    notice: Callable[[], bool] | None = None,
    meter: Callable[[float, float], dict[str, float]] | None = None,
) -> dict[str, float]:
    """Train to the end, or go on from the newest checkpoint; answers the last evaluation's metrics.

    Every rank calls it with the same arguments. `on_epoch` is called on every rank after each evaluation, and may raise
    to end the training early; so is `on_step` after each step. `on_stage` is called before clips of a stage are
    read, with each model that will read them. `notice` is asked in each step whether this process is about to be taken away; if any
    rank's is, all write a checkpoint and stop. `meter` turns (frames, seconds) into more metrics.

    With the same seed and `train.parts`, the numbers are the same for every number of ranks, and for every way in which the
    training was interrupted; but for BatchNorm, whose statistics are of the clips that all ranks see at once.

    Raises:
        RunError: steps had no finite loss more often than `train.max_skips` allows; clips are named.
        SettingsError: `freeze`, `unfreeze` or `lora` name layers that the model does not have.
        InterruptedRunError: a notice came, and a checkpoint was written.
    """
    plan = _prepare(model, settings, alone=isinstance(strategy, OneProcess | Ddp))
    engine = strategy.start(model, lambda bare: build_optimizer(bare, settings.optim), precision=settings.precision)
    average = {name: t.detach().clone() for name, t in engine.shares().items()} if settings.ema else None
    state = _State(engine, average)
    _resume(state, checkpoints, strategy)
    loop = _Loop(
        state, plan, task, train_clips, val_clips, settings, strategy, checkpoints, on_epoch, on_step, on_stage, notice, meter
    )
    return loop.run()


@dataclasses.dataclass(frozen=True)
class _Loop:
    """What stands still while training."""

    state: _State
    plan: Plan
    task: Task
    train_clips: ClipSource
    val_clips: ClipSource
    settings: Train
    strategy: Strategy
    checkpoints: Checkpoints
    on_epoch: OnEpoch | None
    on_step: OnStep | None
    on_stage: OnStage | None
    notice: Callable[[], bool] | None
    meter: Callable[[float, float], dict[str, float]] | None

    def run(self) -> dict[str, float]:
        state, settings = self.state, self.settings
        sampler = Sampler(
            lengths_of(self.train_clips),
            settings.batch_size,
            seed=settings.seed,
            by_length=settings.by_length,
            batch_frames=settings.batch_frames,
        )
        if not settings.epochs and not state.metrics:
            self._evaluate(lr=0.0, stage=0)  # the model as it is, without learning
        total_steps = sampler.total_steps(settings.epochs)
        stage_before = None
        while state.epoch < settings.epochs and not self._patience_ended():
            stage = self.plan.stage(state.epoch, settings.epochs)
            if state.epoch and not state.done_steps and self.plan.stage(state.epoch - 1, settings.epochs) != stage:
                state.stale = 0
            names = self.plan.apply(state.engine.bare, stage)
            if stage != stage_before:
                state.engine.retrain()
            stage_before = stage
            logger.info("epoch %d, stage %d: %s train", state.epoch + 1, stage, ", ".join(names))
            self._epoch(sampler, total_steps, stage)
        return state.metrics

    def _epoch(self, sampler: Sampler, total_steps: int, stage: int) -> None:
        """The steps of an epoch that are left."""
        state, settings, strategy = self.state, self.settings, self.strategy
        steps = sampler.steps(state.epoch)
        self._to_training(stage)
        with Feed(
            self.task,
            self.train_clips,
            steps[state.done_steps :],
            parts=settings.parts or strategy.world_size,
            rank=strategy.rank,
            world_size=strategy.world_size,
            seed=settings.seed,
            epoch=state.epoch,
        ) as feed:
            started, waited_s = time.perf_counter(), 0.0
            for step, turns in feed:
                lr = lr_at(state.step, total_steps, settings.optim)
                set_lr(state.engine.optimizer, lr)
                told = self.notice is not None and self.notice()
                result = train_step(
                    state.engine,
                    self.task,
                    turns,
                    settings,
                    strategy,
                    step=state.step,
                    num_clips=len(step),
                    recent=state.recent,
                    first=state.done_steps == 0,
                    notice=told,
                )
                self._guard(result.skipped, [self.train_clips[i].sample.id for i in step] if result.skipped else [], stage)
                state.step += 1
                state.done_steps += 1
                _move_average(state, settings.ema)
                if self.on_step is not None:
                    self.on_step(state.step, step, result)
                now = time.perf_counter()
                state.seen.add(result, num_clips=len(step), seconds=now - started, waited_s=feed.waited_s - waited_s)
                started, waited_s = now, feed.waited_s
                is_end = state.done_steps == len(steps)
                if is_end:
                    state.epoch, state.done_steps = state.epoch + 1, 0
                if self._evaluates(is_end):
                    self._evaluate(lr, stage, part_of_epoch=state.done_steps / len(steps))
                    self._to_training(stage)
                    started = time.perf_counter()
                    if not is_end and self._patience_ended():
                        return
                elif result.notice or (settings.checkpoint_steps and state.step % settings.checkpoint_steps == 0):
                    self._save(None)
                if result.notice:
                    raise InterruptedRunError(
                        f"a notice came that this machine will be taken away: step {state.step} is saved, the same command goes on"
                    )

    def _to_training(self, stage: int) -> None:
        if self.on_stage is not None:
            self.on_stage(stage, self.state.engine.bare)
        self.state.engine.model.train()
        keep_frozen_still(self.state.engine.bare, statistics=self.settings.freeze.statistics)

    def _evaluates(self, is_end: bool) -> bool:
        """Whether an evaluation is due after this step."""
        state, settings = self.state, self.settings
        if is_end and state.epoch == settings.epochs:
            return True
        if settings.evaluate_steps:
            return state.step % settings.evaluate_steps == 0
        return is_end and state.epoch % settings.evaluate_every == 0

    def _evaluate(self, lr: float, stage: int, *, part_of_epoch: float = 0.0) -> None:
        """Score the validation clips, write metrics and a checkpoint, tell whoever listens."""
        state, strategy = self.state, self.strategy
        with state.engine.alone(state.average) as model:
            if self.on_stage is not None:
                self.on_stage(stage, model)
            # No more clips at a time than a step learns from: what memory lets train must not fail here.
            size = -(-self.settings.batch_size // (self.settings.parts or 1))
            result: Evaluation = evaluate(model, self.task, self.val_clips, batch_size=size, strategy=strategy)
        state.metrics = {
            "epoch": state.epoch + part_of_epoch if part_of_epoch else state.epoch,
            "step": state.step,
            **state.seen.metrics(),
            **{f"val/{name}": value for name, value in result.scores.items()},
            "lr": lr,
            "stage": stage,
        }
        if self.meter is not None:
            state.metrics |= self.meter(state.seen.padded, state.seen.seconds)
        state.seen = Seen()
        value = state.metrics[self.task.monitor.name]
        if self.task.monitor.better(value, state.best):
            state.best, state.stale = value, 0
        else:
            state.stale += 1
        self._save(state.metrics)
        if self.on_epoch is not None:
            self.on_epoch(state.metrics)

    def _save(self, metrics: dict[str, float] | None) -> None:
        """Hand a checkpoint over; every rank takes part in gathering it."""
        state = self.state
        progress = Progress(
            epoch=state.epoch,
            step=state.step,
            metrics=state.metrics,
            best=state.best,
            stale=state.stale,
            done_steps=state.done_steps,
            seen=dataclasses.asdict(state.seen),
            recent=list(state.recent),
        )
        whole = state.engine.state()
        average = None if state.average is None else state.engine.whole(state.average)
        exported = average
        if has_adapters(state.engine.bare) and not getattr(state.engine.bare, "base_elsewhere", False):
            with state.engine.alone(state.average) as model:
                # They are merged into what is evaluated elsewhere; copied, since the weights soon are others again.
                exported = {name: tensor.detach().cpu().clone() for name, tensor in merged_state(model).items()}
        if whole is None:
            self.checkpoints.report(metrics, progress, None)
            return
        exported = without_projections(exported or whole.weights)
        if has_adapters(state.engine.bare) and getattr(state.engine.bare, "base_elsewhere", False):
            exported = {name: tensor for name, tensor in exported.items() if ADAPTER in name}
        same = exported.keys() == whole.weights.keys() and all(exported[n] is t for n, t in whole.weights.items())
        told = average is not None and exported.keys() == average.keys() and all(exported[n] is t for n, t in average.items())
        self.checkpoints.report(metrics, progress, Saved(exported, whole, same=same, average=None if told else average))

    def _guard(self, skipped: str, names: list[str], stage: int) -> None:
        """A step without a finite loss, or with one that leaps, moved nothing: say so, roll back if asked, end if it goes on."""
        state, settings = self.state, self.settings
        if not skipped:
            state.seen.skipped_in_row = 0
            return
        state.seen.skipped_in_row += 1
        where = f"{skipped} at epoch {state.epoch + 1}, step {state.step + 1} (clips {', '.join(names[:4])})"
        if settings.guard == "stop" or state.seen.skipped_in_row > settings.max_skips:
            raise RunError(f"{where}: lower train.optim.lr, or use train.precision=fp32")
        logger.warning("%s: the step is left out", where)
        if settings.guard == "rollback":
            folder = _newest(self.checkpoints, self.strategy)
            if folder is not None:
                _, saved = read_state(folder)
                state.engine.load(saved)
                self._to_training(stage)  # some strategies build the model anew
                logger.warning("weights and moments are those of %s again", folder.name)

    def _patience_ended(self) -> bool:
        """Only in the last stage: where an earlier one gets no better, the layers of the next are what it lacks."""
        state, settings = self.state, self.settings
        if not settings.patience or not state.step:
            return False
        now = state.epoch if state.done_steps else state.epoch - 1
        return self.plan.stage(now, settings.epochs) == len(self.plan.stages) - 1 and state.stale >= settings.patience


def _prepare(model: nn.Module, settings: Train, *, alone: bool = True) -> Plan:
    """Add adapters where settings ask for them, and let train what will train in the end: the rest is not exchanged by DDP."""
    lora = settings.lora
    if lora.targets:
        adapt(model, lora, seed=settings.seed, alone=alone)
    plan = plan_for(model, settings)
    plan.apply(model, len(plan.stages) - 1)
    return plan


def plan_for(model: nn.Module, settings: Train) -> Plan:
    """What trains when, as the settings say it of this model.

    Raises:
        SettingsError: they name layers that the model does not have, or nothing is left to train.
    """
    freeze, unfreeze = settings.freeze, settings.unfreeze
    return plan_of(
        model,
        until=freeze.until,
        fraction=freeze.fraction,
        groups=freeze.groups,
        stages=unfreeze.stages,
        plan=unfreeze.plan,
        adapters=bool(settings.lora.targets),
    )


@torch.no_grad()
def _move_average(state: _State, decay: float) -> None:
    """Exponential moving average, with the warm-up of Tensor2Tensor: young averages forget faster."""
    if state.average is None:
        return
    decay = min(decay, (1 + state.step) / (10 + state.step))
    shares = state.engine.shares()
    for name, mean in state.average.items():
        if mean.dtype.is_floating_point:
            mean.lerp_(shares[name].detach(), 1 - decay)
        else:
            mean.copy_(shares[name])


def _newest(checkpoints: Checkpoints, strategy: Strategy) -> Path | None:
    """The first rank looks, so that all go on from the same one."""
    return strategy.gather(checkpoints.latest() if strategy.rank == 0 else None)[0]


def _resume(state: _State, checkpoints: Checkpoints, strategy: Strategy) -> None:
    """Put everything back to where the newest checkpoint has it."""
    folder = _newest(checkpoints, strategy)
    if folder is None:
        return
    progress, saved = read_state(folder)
    state.engine.load(saved)
    if state.average is not None:
        state.average = state.engine.cut(read_average(folder))
    state.epoch, state.step, state.done_steps = progress.epoch, progress.step, progress.done_steps
    state.best, state.stale, state.metrics = progress.best, progress.stale, dict(progress.metrics)
    state.seen = Seen(**progress.seen)
    state.recent.extend(progress.recent)
    logger.info("going on after epoch %d, step %d from %s", progress.epoch, progress.done_steps, folder.name)
