"""Run, the root of the settings tree: what is trained on what, and the checks that cross its branches."""

import hashlib
import json
from typing import Literal, Self

from pydantic import Field, model_validator

from sign_dist.config.base import Settings
from sign_dist.config.data import Data, FrameFeatures
from sign_dist.config.model import LandmarkModel, Model
from sign_dist.config.train import Train

TaskName = Literal["islr", "cslr", "slt"]

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
}
# Which models can learn a task, the usual one first.
LEARNS: dict[str, tuple[str, ...]] = {
    "islr": ("landmark", "feature", "video_cnn", "signhiera", "i3d"),
    "cslr": ("temporal_i3d", "ctc_student", "cslr_head"),
    "slt": (),
}


class Decode(Settings):
    """How an answer is read out of a model that gives one step by step."""

    beam: int = Field(default=10, ge=1, le=1000)
    """Labellings that the prefix beam search keeps; 1 takes the best class of each step, which is quicker and worse."""
    merge: bool = False
    """Equal neighbours of the answer become one gloss, as published word error rates of the VAC family count."""


class Scale(Settings):
    """How many training processes; where they run is the cluster's business."""

    workers: int = Field(default=1, ge=1)
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """`auto`: one GPU per worker if the cluster has that many, else CPUs."""
    cpus_per_worker: float = Field(default=1, gt=0)
    max_failures: int = Field(default=3, ge=0)
    """How often a dead worker may be replaced before the run gives up; each time it goes on from its last checkpoint."""


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
        if isinstance(self.data.features, FrameFeatures) and self.data.features.num_frames < 2:
            raise ValueError(
                f"model.kind = {self.model.kind!r} reads a fixed number of frames, got data.features.num_frames = "
                f"{self.data.features.num_frames}: give 2 or more"
            )
        parts = self.scale.workers * self.train.accumulate
        if self.train.batch_size % parts:
            raise ValueError(
                f"train.batch_size = {self.train.batch_size} is the batch of all workers together and must be a "
                f"multiple of scale.workers x train.accumulate = {parts}"
            )
        return self

    def digest(self) -> str:
        """Twelve hex digits that name what is learned; where it runs (`scale.*`) does not count."""
        tree = self.model_dump(mode="json", exclude={"scale"})
        return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:12]


def _any_of(kinds: tuple[str, ...]) -> str:
    return " or ".join(map(repr, kinds)) or "none yet"
