"""The five ways to train from pretrained weights, as sets of settings; a setting that is given as well wins over them.

Rates and lengths are where to begin, from common practice; no run of ours chose them.
"""

from typing import Any

from sign_dist.config.run import Run
from sign_dist.errors import SettingsError, did_you_mean

STRATEGIES: dict[str, dict[str, Any]] = {
    "feature-extraction": {"train.freeze.fraction": 1, "train.optim.lr": 1e-3, "train.epochs": 20},
    "top-layers": {"train.freeze.fraction": 0.8, "train.optim.lr": 5e-4, "train.epochs": 30},
    "progressive": {"train.unfreeze.stages": 4, "train.optim.lr": 1e-4, "train.epochs": 50},
    "full": {"train.optim.lr": 1e-5, "train.epochs": 50},
    "from-checkpoint": {"train.unfreeze.stages": 4, "train.optim.lr": 1e-4, "train.epochs": 30},
}


def strategy_words(name: str) -> list[str]:
    """A strategy as words `name=value`; none for no name.

    Raises:
        SettingsError: there is no such strategy.
    """
    if not name:
        return []
    if name not in STRATEGIES:
        hint = did_you_mean(name, STRATEGIES)
        raise SettingsError(f"no strategy {name!r}: there are {', '.join(STRATEGIES)};{hint}".rstrip(";"))
    return [f"{setting}={value}" for setting, value in STRATEGIES[name].items()]


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
