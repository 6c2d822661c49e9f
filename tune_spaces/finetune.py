"""The everyday search: step size, regularisation, and how many stages the layers are unfrozen in."""

from typing import Any

from ray import tune


def space() -> dict[str, Any]:
    return {
        "train.optim.lr": tune.loguniform(2e-4, 5e-3),
        "train.optim.weight_decay": tune.loguniform(1e-3, 0.3),
        "model.dropout": tune.uniform(0.1, 0.5),
        "train.unfreeze.stages": tune.choice([1, 2, 3]),
    }
