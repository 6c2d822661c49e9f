"""Optimiser, schedule, augmentation, unfreezing, stopping and checkpoints."""

from typing import Literal, Self

from pydantic import Field, model_validator

from sign_dist.config.base import Settings
from sign_dist.config.distill import Distill


class Optim(Settings):
    """AdamW with linear warm-up and a half cosine down to `lr * final_lr_ratio`."""

    lr: float = Field(default=2e-3, gt=0, le=1)
    weight_decay: float = Field(default=0.05, ge=0, le=10)
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.999, ge=0, lt=1)
    warmup_fraction: float = Field(default=0.1, ge=0, lt=1)
    warmup_steps: int = Field(default=0, ge=0)
    """Steps of warm-up; 0: `warmup_fraction` of all."""
    final_lr_ratio: float = Field(default=0.01, ge=0, le=1)
    clip_norm: float = Field(default=1.0, gt=0)
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    """Each layer group below the head learns at the rate of the one above it times this; 1: all at the same."""


class Augment(Settings):
    """What a training clip may suffer; 0 switches one off. Landmarks and frames use those that apply to them."""

    mirror: float = Field(default=0.5, ge=0, le=1)
    """Probability of a left-right swap."""
    speed: float = Field(default=0.7, ge=0, lt=1)
    """Time is stretched or squeezed by up to this share."""
    crop: float = Field(default=0.3, ge=0, lt=1)
    """Up to this share of the clip is cut away, from its two ends together."""
    drop: float = Field(default=0.1, ge=0, lt=1)
    """Share of frames dropped at random."""
    rotate_deg: float = Field(default=12.0, ge=0, le=45)
    scale: float = Field(default=0.2, ge=0, lt=1)
    shear: float = Field(default=0.1, ge=0, le=1)
    shift: float = Field(default=0.1, ge=0, le=1)
    noise: float = Field(default=0.01, ge=0, le=1)
    hand_rotate_deg: float = Field(default=10.0, ge=0, le=45)
    """Each hand turns, grows and moves on its own by up to these."""
    hand_scale: float = Field(default=0.15, ge=0, lt=1)
    hand_shift: float = Field(default=0.05, ge=0, le=1)
    drop_face: float = Field(default=0.2, ge=0, le=1)
    """Probability that the face is missing."""
    drop_hand: float = Field(default=0.35, ge=0, le=1)
    """Probability that a hand is missing for a while."""
    colour: float = Field(default=0.2, ge=0, lt=1)
    """Frames only: brightness, contrast and saturation, the same over a clip."""


class Freeze(Settings):
    """Layer groups that never train. What several of these name is frozen by any of them."""

    until: str = ""
    """A layer: the ones before it, counted from the input, are frozen; it trains."""
    fraction: float = Field(default=0.0, ge=0, le=1)
    """This share of the layer groups, counted from the input; never the head."""
    groups: str = ""
    """Names of groups, parted by blanks; `*` stands for anything."""
    statistics: bool = False
    """BatchNorm keeps the statistics that the run starts with, also in layers that train: those of a few clips are poor ones."""


class Unfreeze(Settings):
    """Progressive unfreezing: stage floor(epoch * stages / epochs) trains the layers nearest the head first."""

    stages: int = Field(default=1, ge=1, le=16)
    """1: all layers train from the start."""
    plan: str = ""
    """Stages by name, such as `classifier lstm; mixed_5*; mixed_4*`, instead of `stages`: what no stage names stays frozen."""

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if self.plan and self.stages > 1:
            raise ValueError(f"unfreeze.plan says the stages, so unfreeze.stages = {self.stages} must stay 1")
        return self


class Lora(Settings):
    """Low-rank adapters in place of the weights: with targets, only adapters and the head train."""

    targets: str = ""
    """Layers that get an adapter, by name or its end, parted by blanks, such as `qkv proj`; empty: no adapters."""
    rank: int = Field(default=8, ge=1, le=1024)
    alpha: float = Field(default=16.0, gt=0)
    """An adapter's output is scaled by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    dora: bool = False
    """Learn length and direction of each weight's rows apart (Liu et al. 2024, arXiv 2402.09353)."""


class Train(Settings):
    """One training: how long, how large the steps, what is kept."""

    epochs: int = Field(default=60, ge=0)
    """0: nothing is learned; the model is evaluated and saved as it starts."""
    batch_size: int = Field(default=16, ge=1)
    """Clips per optimiser step, over all workers."""
    parts: int = Field(default=0, ge=0)
    """Micro-batches that a step is computed in, shared out over the workers; 0: one for each. With equally many parts a run gives
    the same numbers on any number of workers. More parts than workers need less memory."""
    by_length: int = Field(default=1, ge=1)
    """Clips of so many steps are put in order of length before they are cut into steps: less padding; 1: no order."""
    batch_frames: int = Field(default=0, ge=0)
    """A step holds fewer than `batch_size` clips where they would take more frames than this, padding counted; 0: no bound."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    guard: Literal["skip", "rollback", "stop"] = "skip"
    """A step whose loss is no finite number, or leaps: `skip` it, `rollback` to the newest checkpoint's weights, or `stop`."""
    spike: float = Field(default=0.0, ge=0)
    """A loss this many times the median of the last 50 steps is a leap; 0: none is."""
    max_skips: int = Field(default=3, ge=0)
    """So many steps in a row may be left out before the run gives up."""
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced`: a gloss weighs as the inverse of its number of clips."""
    mixup: float = Field(default=0.0, ge=0, le=1)
    """Strength alpha of mixup between clips of a batch (Zhang et al. 2018); 0 switches it off."""
    ema: float = Field(default=0.0, ge=0, lt=1)
    """Decay of the moving average of weights that is evaluated and exported; 0 uses the weights themselves."""
    augment: Augment = Augment()
    optim: Optim = Optim()
    distill: Distill = Distill()
    start_from: str = ""
    """A run directory, checkpoint, bundle or weights file whose weights this run begins with; empty: fresh ones."""
    freeze: Freeze = Freeze()
    unfreeze: Unfreeze = Unfreeze()
    lora: Lora = Lora()
    cache_prefix: bool = False
    """What layers that do not train yet, or never, make of a clip is computed once, kept beside the features, and read instead."""
    cache_gb: float = Field(default=20.0, gt=0)
    """A run whose `cache_prefix` would take more disk than this, before compression, is refused."""
    patience: int = Field(default=0, ge=0)
    """Stop after so many evaluations without a better monitor, in the last stage of unfreezing; 0 trains to the end."""
    evaluate_every: int = Field(default=1, ge=1)
    """Epochs from one evaluation and checkpoint to the next."""
    evaluate_steps: int = Field(default=0, ge=0)
    """Steps from one evaluation and checkpoint to the next, in place of epochs; 0: epochs count."""
    checkpoint_steps: int = Field(default=0, ge=0)
    """Steps from one checkpoint to the next between evaluations, for long epochs; 0: none between."""
    tf32: bool = False
    """Float32 products with 10 bits of mantissa where a GPU can: faster, and other numbers."""
    profile_steps: int = Field(default=0, ge=0)
    """So many steps run under torch's profiler, whose trace lies in `profile/`; 0: none."""
    sinks: str = ""
    """Where metrics go as well, parted by blanks: `mlflow`, `wandb`."""
    trace: bool = False
    """Write every step's clips and loss to steps.jsonl, to look into a run; a step that is trained again stands there twice."""
    keep_best: int = Field(default=2, ge=1)
    """Checkpoints kept by the monitor; the newest two are kept as well, should one of them be damaged."""
    select: Literal["best", "last"] = "best"
    """Which checkpoint the run stands for. `last` where the validation split is also the one reported."""
    seed: int = Field(default=0, ge=0, lt=2**31)
