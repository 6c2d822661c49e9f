"""I3D from one synthetic sign language to another: many clips of one, three of each sign of the other, by three signers.

`scratch` is what the few clips give alone; the others are the five strategies, each from the other language. All see the same clips
equally often, but for `from_checkpoint`, which goes on where `frozen` ended. They are compared on signers that none of them saw.
Its parts sum to about 20 minutes of a processor, of which drawing and reading the clips takes six.
"""

from pathlib import Path
from typing import Any

from sign_dist.config.data import FrameFeatures, SplitSettings
from sign_dist.config.recipe import CompareStage, EvaluateStage, ExtractStage, PrepareStage, Recipe, SynthStage, TrainStage

JOBS = Path(__file__).resolve().parents[1] / "synthetic"
FRAMES = FrameFeatures(num_frames=8, size_px=32)
FEW = str(JOBS / "islr_i3d_transfer.py")

# Run -> strategy, what it starts from, its settings. Rates were set beforehand; docs/benchmarks.md says what was tried on val.
WAYS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "scratch": ("", "", {"train.optim.lr": 1e-3}),
    "frozen": ("feature-extraction", "@pretrain", {"train.optim.lr": 3e-3}),
    "top_layers": ("top-layers", "@pretrain", {"train.optim.lr": 1e-3}),
    "progressive": ("progressive", "@pretrain", {"train.optim.lr": 1e-3}),
    "full": ("full", "@pretrain", {"train.optim.lr": 3e-4}),
    "from_checkpoint": ("from-checkpoint", "@frozen", {"train.optim.lr": 5e-4}),
}
EPOCHS = {"train.epochs": 60}  # a strategy has a number of its own


def recipe() -> Recipe:
    return Recipe(
        stages={
            "corpus_a": SynthStage(signs=16, signers=12, clips=2, seed=1),
            "dataset_a": PrepareStage(reader="table", raw="@corpus_a", split=SplitSettings(by="signer", val=0.16, test=0.16)),
            "frames_a": ExtractStage(dataset="@dataset_a", features=FRAMES),
            "pretrain": TrainStage(job=str(JOBS / "islr_i3d_pretrain.py"), reads="@frames_a"),
            "test_pretrain": EvaluateStage(run="@pretrain"),
            "corpus_b": SynthStage(signs=8, first_sign=20, signers=32, clips=1, seed=2),
            # Three signers to learn from, 13 to choose by, 16 that none of the runs sees.
            "dataset_b": PrepareStage(reader="table", raw="@corpus_b", split=SplitSettings(by="signer", val=0.4, test=0.49)),
            "frames_b": ExtractStage(dataset="@dataset_b", features=FRAMES),
            **{
                name: TrainStage(job=FEW, reads="@frames_b", strategy=strategy, start_from=start, values=EPOCHS | values)
                for name, (strategy, start, values) in WAYS.items()
            },
            **{f"test_{name}": EvaluateStage(run=f"@{name}") for name in WAYS},
            "table": CompareStage(runs=tuple(f"@{name}" for name in WAYS)),
        }
    )
