"""How2Sign from Meta's DailyMoth weights in two stages: as they are, SignHiera adapted, features made anew, SONAR adapted.

    sign-dist prepare how2sign RAW data/how2sign
    sign-dist recipe jobs/recipes/how2sign.py "*.scale.workers=4"

`jobs/how2sign_zero_shot.py` says where the weights come from. Wants GPUs. Another dataset is named in three places: by
`features.dataset`, `frames.dataset` and `adapted.dataset`.
"""

from pathlib import Path

from sign_dist.config.recipe import CompareStage, EvaluateStage, ExportStage, ExtractStage, Recipe, SamplesStage, TrainStage
from sign_dist.config.source import load_run

JOBS = Path(__file__).resolve().parents[1]
ZERO, ONE, TWO = (str(JOBS / f"how2sign_{name}.py") for name in ("zero_shot", "stage1", "stage2"))


def recipe() -> Recipe:
    data, frames, adapted = (load_run(job).data for job in (ZERO, ONE, TWO))
    return Recipe(
        stages={
            "features": ExtractStage(dataset=data.root, features=data.features),
            "zero_shot": TrainStage(job=ZERO, reads="@features"),
            "test_zero_shot": EvaluateStage(run="@zero_shot"),
            "frames": ExtractStage(dataset=frames.root, features=frames.features),
            "stage1": TrainStage(job=ONE, reads="@frames"),
            "test_stage1": EvaluateStage(run="@stage1"),
            "adapted": ExtractStage(dataset=adapted.root, features=adapted.features.with_values({"weights": "@stage1"})),
            "stage2": TrainStage(job=TWO, reads="@adapted", start_from="@stage1"),
            "test_stage2": EvaluateStage(run="@stage2"),
            "table": CompareStage(runs=("@zero_shot", "@stage1", "@stage2")),
            "samples": SamplesStage(of="@test_stage2", each=5),
            "bundle": ExportStage(run="@stage2"),
        }
    )
