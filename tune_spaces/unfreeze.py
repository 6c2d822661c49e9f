"""How pretrained layers are let go: all at once or in stages from the head down, how much slower the lower ones learn, and how many
of the lowest never move. For jobs that start from pretrained weights.

The share that stays still and the stages belong together: stages are of what is not frozen.
"""

from typing import Any


def space(trial: Any) -> None:
    trial.suggest_float("train.optim.lr", 1e-4, 1e-2, log=True)
    trial.suggest_categorical("train.freeze.fraction", [0.0, 0.25, 0.5, 0.75])
    order = trial.suggest_categorical("train.unfreeze.stages", [1, 2, 3, 4])
    if order == 1:  # in stages the lower layers learn later, which is another way to spare them
        trial.suggest_float("train.optim.layer_decay", 0.5, 1.0)
