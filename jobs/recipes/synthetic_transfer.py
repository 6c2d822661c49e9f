"""I3D from one synthetic sign language to another: many clips of one, a clip or two of each sign of the other.

`scratch` is what the few clips give alone; `frozen`, `progressive` and `full` start from the other language. All four see the
same clips equally often, and are compared on signers that none of them saw. About ten minutes on one core.
"""

from pathlib import Path

from sign_dist.config.data import FrameFeatures, SplitSettings
from sign_dist.config.recipe import CompareStage, EvaluateStage, ExtractStage, PrepareStage, Recipe, SynthStage, TrainStage

JOBS = Path(__file__).resolve().parents[1] / "synthetic"
FRAMES = FrameFeatures(num_frames=8, size_px=32)
FEW = str(JOBS / "islr_i3d_transfer.py")


def recipe() -> Recipe:
    return Recipe(
        stages={
            "corpus_a": SynthStage(signs=8, signers=7, clips=2, seed=1),
            "dataset_a": PrepareStage(reader="table", raw="@corpus_a"),
            "frames_a": ExtractStage(dataset="@dataset_a", features=FRAMES),
            "pretrain": TrainStage(job=str(JOBS / "islr_i3d_pretrain.py"), reads="@frames_a"),
            "corpus_b": SynthStage(signs=6, first_sign=20, signers=12, clips=1, seed=2),
            # Three signers to learn from, a clip each of every sign; six that none of the runs sees.
            "dataset_b": PrepareStage(reader="table", raw="@corpus_b", split=SplitSettings(by="signer", val=0.25, test=0.49)),
            "frames_b": ExtractStage(dataset="@dataset_b", features=FRAMES),
            "scratch": TrainStage(job=FEW, reads="@frames_b"),
            "frozen": TrainStage(
                job=FEW,
                reads="@frames_b",
                start_from="@pretrain",
                values={"train.freeze.fraction": 1, "train.optim.lr": 3e-3},
            ),
            "progressive": TrainStage(
                job=FEW, reads="@frames_b", start_from="@pretrain", values={"train.unfreeze.stages": 4, "train.optim.lr": 3e-4}
            ),
            "full": TrainStage(job=FEW, reads="@frames_b", start_from="@pretrain", values={"train.optim.lr": 3e-4}),
            **{f"test_{name}": EvaluateStage(run=f"@{name}") for name in ("scratch", "frozen", "progressive", "full")},
            "table": CompareStage(runs=("@scratch", "@frozen", "@progressive", "@full")),
        }
    )
