"""Gloss sequences of the synthetic world: a teacher, and a small network that looks back only, without it and from it.

The corpus is landmark tracks of 960 sentences, so nothing is drawn or detected; splits are by signer. The student learns from
the teacher only if that is no worse than the student that learned alone (`train.distill.student_run`); else the recipe ends
there and says so.
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
    TrainStage,
)
from sign_dist.config.source import load_run

JOBS = Path(__file__).resolve().parents[1] / "synthetic"
TEACHER, STUDENT = str(JOBS / "cslr_teacher.py"), str(JOBS / "cslr_student.py")


def recipe() -> Recipe:
    features = load_run(TEACHER).data.features
    return Recipe(
        stages={
            "corpus": SynthStage(sentences=960, signers=32, landmarks=True),
            "dataset": PrepareStage(
                reader="table", raw="@corpus", glosses=Glosses(labels="sequence"), sampling=Sampling(image_fps=20.0)
            ),
            "tracks": ExtractStage(dataset="@dataset", features=features),
            "teacher": TrainStage(job=TEACHER, reads="@tracks"),
            "alone": TrainStage(job=STUDENT, reads="@tracks"),
            "student": TrainStage(
                job=STUDENT, reads="@tracks", values={"train.distill.teacher": "@teacher", "train.distill.student_run": "@alone"}
            ),
            **{f"test_{name}": EvaluateStage(run=f"@{name}") for name in ("teacher", "alone", "student")},
            "table": CompareStage(runs=("@alone", "@student", "@teacher")),
            "samples": SamplesStage(of="@test_student"),
            "bundle": ExportStage(run="@student"),
        }
    )
