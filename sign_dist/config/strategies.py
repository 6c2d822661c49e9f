"""The five ways to train from pretrained weights, as sets of settings; a setting that is given as well wins over them.

Rates and lengths are where to begin, from common practice; no run of ours chose them.
"""

import json
from collections.abc import Sequence
from typing import Any

from sign_dist.config.run import Run
from sign_dist.errors import SettingsError, did_you_mean

# All that decides what trains when: a strategy says each of them, so that a job's own choice is not half in force.
ALL_TRAIN: dict[str, Any] = {
    "train.freeze.until": "",
    "train.freeze.fraction": 0,
    "train.freeze.groups": "",
    "train.unfreeze.stages": 1,
    "train.unfreeze.plan": "",
    "train.lora.targets": "",
}

STRATEGIES: dict[str, dict[str, Any]] = {
    "feature-extraction": ALL_TRAIN | {"train.freeze.fraction": 1, "train.optim.lr": 1e-3, "train.epochs": 20},
    "top-layers": ALL_TRAIN | {"train.freeze.fraction": 0.8, "train.optim.lr": 5e-4, "train.epochs": 30},
    "progressive": ALL_TRAIN | {"train.unfreeze.stages": 4, "train.optim.lr": 1e-4, "train.epochs": 50},
    "full": ALL_TRAIN | {"train.optim.lr": 1e-5, "train.epochs": 50},
    "from-checkpoint": ALL_TRAIN | {"train.unfreeze.stages": 4, "train.optim.lr": 1e-4, "train.epochs": 30},
}


def strategy_words(name: str, given: Sequence[str] = ()) -> list[str]:
    """A strategy as words `name=value`; none for no name. Where the words that are given plan the stages, it sets none itself.

    Raises:
        SettingsError: there is no such strategy.
    """
    if not name:
        return []
    if name not in STRATEGIES:
        hint = did_you_mean(name, STRATEGIES)
        raise SettingsError(f"no strategy {name!r}: there are {', '.join(STRATEGIES)};{hint}".rstrip(";"))
    settings = dict(STRATEGIES[name])
    if any(word.startswith("train.unfreeze.plan=") for word in given):
        settings["train.unfreeze.stages"] = 1
    return [f"{setting}={json.dumps(value)}" for setting, value in settings.items()]


def check_strategy(name: str, run: Run) -> None:
    """Refuse a strategy that lacks what it starts from.

    Raises:
        SettingsError: it trains from weights, and the run names none.
    """
    given = run.train.start_from or getattr(run.model, "weights", "")
    if name == "from-checkpoint" and not run.train.start_from:
        raise SettingsError("the strategy from-checkpoint begins with a run: say which, as train.start_from=runs/NAME")
    if name and not given:
        raise SettingsError(
            f"the strategy {name} is for pretrained weights, and this run starts from random ones: set train.start_from, "
            "or model.weights where the model has it"
        )
