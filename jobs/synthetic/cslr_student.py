"""Gloss sequences of the synthetic world by the small network that looks back only, without a teacher.

Corpus and training are those of `cslr_teacher.py`; a step is given for every fourth frame, as by that teacher.
"""

from pathlib import Path

from sign_dist.config.model import CtcStudentModel
from sign_dist.config.run import Run
from sign_dist.config.source import load_run


def run() -> Run:
    return load_run(Path(__file__).with_name("cslr_teacher.py")).with_values({"model": CtcStudentModel(width=128)})
