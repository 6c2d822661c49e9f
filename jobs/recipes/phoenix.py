"""RWTH-PHOENIX-Weather 2014: a teacher, and the small streaming network without it and from it, side by side on the test split.

    sign-dist prepare phoenix2014 RAW data/phoenix2014
    sign-dist weights fetch i3d_kinetics400 --out weights --accept-licence
    sign-dist recipe jobs/recipes/phoenix.py "*.scale.workers=4"

A teacher with more than 35 % errors on dev, or with more than the student alone, is refused: the recipe ends at `student` and
says why.
`points.dataset=data/NAME` names another dataset for all of it.
"""

from pathlib import Path

from sign_dist.config.recipe import CompareStage, EvaluateStage, ExportStage, ExtractStage, Recipe, SamplesStage, TrainStage
from sign_dist.config.source import load_run

JOBS = Path(__file__).resolve().parents[1]
TEACHER, STUDENT = str(JOBS / "phoenix_teacher.py"), str(JOBS / "phoenix_student.py")


def recipe() -> Recipe:
    data = load_run(TEACHER).data
    return Recipe(
        stages={
            "points": ExtractStage(dataset=data.root, features=data.features),
            "teacher": TrainStage(job=TEACHER, reads="@points"),
            "test_teacher": EvaluateStage(run="@teacher"),
            "alone": TrainStage(job=STUDENT, reads="@points", values={"train.distill.teacher": "", "train.distill.gate": ""}),
            "test_alone": EvaluateStage(run="@alone"),
            "student": TrainStage(
                job=STUDENT,
                reads="@points",
                values={"train.distill.teacher": "@teacher", "train.distill.student_run": "@alone"},
            ),
            "test_student": EvaluateStage(run="@student"),
            "table": CompareStage(runs=("@alone", "@student", "@teacher")),
            "samples": SamplesStage(of="@test_student"),
            "bundle": ExportStage(run="@student"),
        }
    )
