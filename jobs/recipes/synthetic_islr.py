"""Isolated signs of the synthetic world from the first picture to a bundle, for signers that were never seen: a few minutes."""

from pathlib import Path

from sign_dist.config.data import FrameFeatures
from sign_dist.config.recipe import (
    EvaluateStage,
    ExportStage,
    ExtractStage,
    PrepareStage,
    Recipe,
    SamplesStage,
    SynthStage,
    TrainStage,
)

JOBS = Path(__file__).resolve().parents[1]


def recipe() -> Recipe:
    return Recipe(
        stages={
            "corpus": SynthStage(signs=12, signers=10, clips=2),
            "dataset": PrepareStage(reader="table", raw="@corpus"),
            "frames": ExtractStage(dataset="@dataset", features=FrameFeatures()),
            "train": TrainStage(job=str(JOBS / "synthetic" / "islr_frames.py"), reads="@frames"),
            "test": EvaluateStage(run="@train", split="test"),
            "samples": SamplesStage(of="@test"),
            "bundle": ExportStage(run="@train"),
        }
    )
