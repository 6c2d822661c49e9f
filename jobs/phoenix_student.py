"""Gloss sequences of Phoenix-2014 for a live stream: the small network that looks back only, taught by `phoenix_teacher.py`'s run.

    sign-dist train jobs/phoenix_teacher.py
    sign-dist train jobs/phoenix_student.py

The teacher may have a WER of 35 % at most; a student is no better than what it learns from. No figure here has been tried on
Phoenix: temperature and alpha are those of the seed documents. The sequence stands beside the softened answers because the student
looks back only, and the teacher may say a gloss before the student has seen it.
"""

from pathlib import Path

from sign_dist.config.model import CtcStudentModel
from sign_dist.config.run import Run
from sign_dist.config.source import load_run


def run() -> Run:
    return load_run(Path(__file__).with_name("phoenix_teacher.py")).with_values(
        {
            "model": CtcStudentModel(),
            "train.optim.lr": 1e-3,
            "train.unfreeze.plan": "",
            "train.distill.teacher": "runs/phoenix_teacher",
            "train.distill.kinds": "logits sequence",
            "train.distill.gate": "35",
            "train.distill.temperature": 4.0,
            "train.distill.alpha": 0.7,
        }
    )
