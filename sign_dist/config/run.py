"""Run, the root of the settings tree: what is trained on what, and the checks that cross its branches."""

import hashlib
import json
from typing import Literal, Self

from pydantic import Field, model_validator

from sign_dist.config.base import Settings
from sign_dist.config.data import Data, FrameFeatures
from sign_dist.config.distill import check_distill
from sign_dist.config.model import LandmarkModel, Model, VlmModel
from sign_dist.config.prefix import check_prefix
from sign_dist.config.train import Lora, Train

TaskName = Literal["islr", "cslr", "slt", "vlm"]

# Which kinds of features a model can read, the usual one first.
READS: dict[str, tuple[str, ...]] = {
    "landmark": ("landmarks",),
    "feature": ("signhiera",),
    "video_cnn": ("frames",),
    "signhiera": ("frames",),
    "i3d": ("frames",),
    "temporal_i3d": ("landmarks", "signhiera"),
    "ctc_student": ("landmarks", "signhiera"),
    "cslr_head": ("landmarks", "signhiera"),
    "translator": ("signhiera", "landmarks", "frames"),
    "sonar": ("signhiera", "landmarks", "frames"),
    "vlm": ("frames",),
}
# Which models can learn a task, the usual one first.
LEARNS: dict[str, tuple[str, ...]] = {
    "islr": ("landmark", "feature", "video_cnn", "signhiera", "i3d"),
    "cslr": ("temporal_i3d", "ctc_student", "cslr_head"),
    "slt": ("translator", "sonar"),
    "vlm": ("vlm",),
}


class Decode(Settings):
    """How an answer is read out of a model that gives one step by step."""

    beam: int = Field(default=10, ge=1, le=1000)
    """Labellings or sentences that beam search keeps; 1 takes the best class of each step, which is quicker and worse."""
    beam_in_training: int = Field(default=1, ge=1, le=1000)
    """The same while a model trains: translations are said word by word, and that takes time."""
    max_len: int = Field(default=128, ge=1, le=4096)
    """Tokens of a translation at most."""
    len_penalty: float = Field(default=1.0, ge=-10, le=10)
    """A translation's score is divided by its length to the power of this: above 0, longer ones gain."""
    weigh: Literal["mean", "sum", "choices"] = "mean"
    """How a gloss that a vision-language model writes in several tokens is scored: the mean of their log-probabilities, their sum,
    or the sum of their shares among the tokens that lead to a gloss."""
    merge: bool = False
    """Equal neighbours of the answer become one gloss, as published word error rates of the VAC family count."""


class Scale(Settings):
    """How many training processes; where they run is the cluster's business."""

    workers: int = Field(default=1, ge=1)
    min_workers: int = Field(default=0, ge=0)
    """Above 0, a run goes on with as few workers where a cluster shrinks, and takes more, up to `workers`, when it grows again."""
    resize_s: float = Field(default=60, gt=0)
    """Seconds from one look at whether the cluster has grown to the next."""
    device: Literal["auto", "cpu", "gpu", "xpu", "mps", "directml"] = "auto"
    """`auto`: one GPU per worker if the cluster has that many, else for one worker the machine's own accelerator, else CPUs."""
    cpus_per_worker: float = Field(default=1, gt=0)
    max_failures: int = Field(default=3, ge=0)
    """How often a dead worker may be replaced before the run gives up; each time it goes on from its last checkpoint."""
    strategy: Literal["auto", "none", "ddp", "fsdp", "deepspeed"] = "auto"
    """How workers share the model; `auto`: `none` for one worker, else `ddp`."""
    zero_stage: Literal[1, 2, 3] = 2
    """What `deepspeed` cuts up over the workers: 1 the optimiser's state, 2 gradients as well, 3 weights as well."""
    offload: bool = False
    """`fsdp` and `deepspeed` on GPUs: the optimiser's state rests in the CPU's memory, and the weights move there."""

    @model_validator(mode="after")
    def _strategy_fits(self) -> Self:
        if self.min_workers > self.workers:
            raise ValueError(f"scale.min_workers = {self.min_workers} is more than scale.workers = {self.workers}: lower it")
        if self.strategy == "none" and self.workers > 1:
            raise ValueError(
                f"scale.strategy = 'none' is for one worker, got scale.workers = {self.workers}: use ddp, fsdp or deepspeed"
            )
        if self.offload and self.strategy not in ("fsdp", "deepspeed"):
            raise ValueError(f"scale.offload needs scale.strategy = fsdp or deepspeed, got {self.strategy!r}: set one of them")
        return self


class Run(Settings):
    """Everything that decides a run's result. `run.json` in a run directory is one of these."""

    task: TaskName = "islr"
    data: Data
    model: Model = LandmarkModel()
    train: Train = Train()
    decode: Decode = Decode()
    scale: Scale = Scale()

    @model_validator(mode="after")
    def _branches_agree(self) -> Self:
        if self.model.kind not in LEARNS[self.task]:
            raise ValueError(
                f"task = {self.task!r} is learned by model.kind = {_any_of(LEARNS[self.task])}, "
                f"got {self.model.kind!r}: change one of the two"
            )
        if self.data.features.kind not in READS[self.model.kind]:
            raise ValueError(
                f"model.kind = {self.model.kind!r} reads data.features.kind = {_any_of(READS[self.model.kind])}, "
                f"got {self.data.features.kind!r}: change one of the two"
            )
        of_any_length = self.model.kind in LEARNS["slt"]
        if isinstance(self.data.features, FrameFeatures) and self.data.features.num_frames < 2 and not of_any_length:
            raise ValueError(
                f"model.kind = {self.model.kind!r} reads a fixed number of frames, got data.features.num_frames = "
                f"{self.data.features.num_frames}: give 2 or more"
            )
        if isinstance(self.model, VlmModel):
            check_vlm(self.model, self.train.lora, mixup=self.train.mixup, strategy=self.scale.strategy)
        if not self.scale.workers <= self.parts <= self.train.batch_size:
            raise ValueError(
                f"the {self.train.batch_size} clips of train.batch_size are computed in {self.parts} parts by {self.scale.workers} "
                "workers: need scale.workers <= train.parts <= train.batch_size"
            )
        changes = {f"train.augment.{name}": value for name, value in self.train.augment.flat().items()}
        check_prefix(self.train, model=self.model.kind, augment=self.train.augment.flat())
        check_distill(self.train.distill, task=self.task, changes=changes | {"train.mixup": self.train.mixup})
        return self

    @property
    def parts(self) -> int:
        """Micro-batches that a step is computed in."""
        return self.train.parts or self.scale.workers

    def digest(self) -> str:
        """Twelve hex digits that name what is learned; where it runs (`scale.*`) and what it keeps at hand do not count."""
        tree = self.model_dump(mode="json", exclude={"scale": True, "train": {"cache_prefix", "cache_gb"}})
        return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:12]


def check_vlm(model: VlmModel, lora: Lora, *, mixup: float, strategy: str) -> None:
    """What cannot be learned, said before anything is loaded.

    Raises:
        ValueError: with what to change.
    """
    if model.quantize != "none" and not lora.targets:
        raise ValueError(
            f"model.quantize = {model.quantize!r} leaves weights that cannot be trained: add adapters, such as "
            "train.lora.targets='language_model.*.q_proj language_model.*.v_proj'"
        )
    if model.dtype == "fp16" and not lora.targets:
        raise ValueError(
            "model.dtype = 'fp16' cannot hold small changes of weights: use fp32 or bf16, or adapters (train.lora.targets)"
        )
    if model.quantize != "none" and strategy in ("fsdp", "deepspeed"):
        raise ValueError(f"scale.strategy = {strategy!r} cannot cut up weights of 4 or 8 bits: use ddp, or model.quantize=none")
    if mixup:
        raise ValueError(f"train.mixup = {mixup:g} mixes the labels of clips, and words cannot be mixed: set it to 0")


def _any_of(kinds: tuple[str, ...]) -> str:
    return " or ".join(map(repr, kinds)) or "none yet"
