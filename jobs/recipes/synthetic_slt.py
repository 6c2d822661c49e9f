"""What `how2sign.py` is to real sentences: learned in one synthetic domain, then brought to another in two stages.

The domains share half of their signs; the signers, and what is said, differ. Landmark tracks in place of videos, so nothing is
drawn or detected, and what stage 1 adapts is the part of the translator that looks at the signer.
"""

from pathlib import Path

from sign_dist.config.data import Glosses, Sampling
from sign_dist.config.recipe import (
    CompareStage,
    EvaluateStage,
    ExportStage,
    ExtractStage,
    PrepareStage,
    Recipe,
    SamplesStage,
    SynthStage,
    TokenizerStage,
    TrainStage,
)
from sign_dist.config.source import load_run

JOBS = Path(__file__).resolve().parents[1] / "synthetic"
STEPS = {"zero_shot": "@pretrain", "stage1": "@pretrain", "stage2": "@stage1"}


def job(name: str) -> str:
    return str(JOBS / f"slt_{name}.py")


def recipe() -> Recipe:
    features = load_run(job("pretrain")).data.features
    tokens = {"model.tokenizer": "@tokens"}
    worlds = {
        "daily": SynthStage(sentences=960, signers=24, landmarks=True, domain="daily", seed=11),
        "lesson": SynthStage(sentences=960, signers=24, landmarks=True, domain="lesson", seed=12),
    }
    datasets = {
        f"{name}_dataset": PrepareStage(
            reader="table", raw=f"@{name}", glosses=Glosses(labels="sequence"), sampling=Sampling(image_fps=20.0)
        )
        for name in worlds
    }
    return Recipe(
        stages={
            **worlds,
            **datasets,
            **{f"{name}_tracks": ExtractStage(dataset=f"@{name}_dataset", features=features) for name in worlds},
            "tokens": TokenizerStage(of=tuple(f"@{name}" for name in datasets)),
            "pretrain": TrainStage(job=job("pretrain"), reads="@daily_tracks", values=tokens | {"model.glosses": "@daily_dataset"}),
            "test_pretrain": EvaluateStage(run="@pretrain"),
            **{
                name: TrainStage(job=job(name), reads="@lesson_tracks", start_from=start, values=tokens)
                for name, start in STEPS.items()
            },
            **{f"test_{name}": EvaluateStage(run=f"@{name}") for name in STEPS},
            "table": CompareStage(runs=tuple(f"@{name}" for name in STEPS)),
            "samples": SamplesStage(of="@test_stage2"),
            "bundle": ExportStage(run="@stage2"),
        }
    )
