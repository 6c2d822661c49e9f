"""Which settings matter: PED-ANOVA (Watanabe, Bansal and Hutter 2023, "PED-ANOVA: Efficiently Quantifying Hyperparameter
Importance in Arbitrary Subspaces"), as Optuna has it: how much the values of the best tenth of trials differ from all values tried.

Each setting is judged on its own, over the trials that had it, so that settings of one branch of a space have a number too.
"""

import dataclasses
import json
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.importance import PedAnovaImportanceEvaluator

# Fewer trials with a setting say nothing of it; below MANY they say little.
FEW, MANY = 10, 30


@dataclasses.dataclass(frozen=True)
class Importance:
    """`share` of all settings' importance, 0 to 1; `trials` that had the setting."""

    name: str
    share: float
    trials: int


def importances(trials: Sequence[tuple[Mapping[str, Any], float]]) -> list[Importance]:
    """Settings by importance, the greatest first, from (settings, score: larger for better) of each trial.

    Settings that fewer than `FEW` trials had, or that never changed, are left out. Shares add up to 1, unless nothing matters.
    """
    known = [(settings, score) for settings, score in trials if math.isfinite(score)]
    names = list(dict.fromkeys(name for settings, _ in known for name in settings))
    found: list[tuple[str, float, int]] = []
    for name in names:
        mine = [(settings[name], score) for settings, score in known if name in settings]
        if len(mine) >= FEW and (one := distribution_of([value for value, _ in mine])) is not None:
            found.append((name, _one(one, mine), len(mine)))
    total = sum(value for _, value, _ in found)
    shares = [Importance(name, value / total if total else 0.0, count) for name, value, count in found]
    return sorted(shares, key=lambda each: -each.share)


def distribution_of(values: Sequence[Any]) -> BaseDistribution | None:
    """What values may have been drawn from; None where all are equal. Numbers over more than a power of ten: by exponent."""
    if len({as_text(value) for value in values}) < 2:
        return None
    if is_number(values):
        low, high = float(min(values)), float(max(values))
        return FloatDistribution(low, high, log=low > 0 and high / low > 10)
    return CategoricalDistribution(sorted({as_text(value) for value in values}))


def is_number(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)


def _one(one: BaseDistribution, trials: Sequence[tuple[Any, float]]) -> float:
    """The importance of one setting, not normalised."""
    logging.getLogger("optuna").setLevel(logging.WARNING)
    study = optuna.create_study(direction="maximize")
    of_text = isinstance(one, CategoricalDistribution)
    for value, score in trials:
        params = {"x": as_text(value) if of_text else float(value)}
        study.add_trial(optuna.trial.create_trial(params=params, distributions={"x": one}, value=score))
    return max(0.0, float(PedAnovaImportanceEvaluator().evaluate(study, params=["x"])["x"]))
