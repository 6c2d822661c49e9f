"""A student and how it listens: its width, the teacher's share of the loss, and how softly the teacher speaks.

For jobs with `train.distill.teacher` and a model that has a width. Without a share there is nothing to soften.
"""

from typing import Any


def space(trial: Any) -> None:
    trial.suggest_int("model.width", 32, 256, step=32)
    trial.suggest_float("train.optim.lr", 5e-4, 5e-3, log=True)
    if trial.suggest_categorical("train.distill.alpha", [0.0, 0.3, 0.5, 0.7, 0.9]) > 0:
        trial.suggest_float("train.distill.temperature", 1.0, 8.0, log=True)
