"""Run, the root of the settings tree: what is trained on what, and the checks that cross its branches."""

import hashlib
import json
from typing import Literal, Self

from pydantic import Field, model_validator

from sign_dist.config.base import Settings
from sign_dist.config.data import Data, FrameFeatures
from sign_dist.config.model import LandmarkModel, Model
from sign_dist.config.train import Train

# Which features a model can read.
READS = {"landmark": "landmarks", "feature": "signhiera", "video_cnn": "frames", "signhiera": "frames", "i3d": "frames"}


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

    task: Literal["islr"] = "islr"
    data: Data
    model: Model = LandmarkModel()
    train: Train = Train()
    scale: Scale = Scale()

    @model_validator(mode="after")
    def _branches_agree(self) -> Self:
        needed = READS[self.model.kind]
        if self.data.features.kind != needed:
            raise ValueError(
                f"model.kind = {self.model.kind!r} reads data.features.kind = {needed!r}, "
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
