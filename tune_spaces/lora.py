"""Adapters or all weights; with adapters also which layers get one, their rank and scale, and whether what lies below is in 4 bits.

For jobs whose model is a vision-language model. What only adapters have is asked for only where there are any.
"""

from typing import Any

FEW = "language_model.*.q_proj language_model.*.v_proj"
MORE = f"{FEW} language_model.*.k_proj language_model.*.o_proj"


def space(trial: Any) -> dict[str, Any]:
    targets = trial.suggest_categorical("train.lora.targets", ["", FEW, MORE])
    if not targets:
        trial.suggest_float("train.optim.lr", 1e-5, 1e-3, log=True)
        return {"model.quantize": "none", "model.dtype": "fp32"}  # weights that train
    trial.suggest_float("train.optim.lr", 1e-5, 1e-2, log=True)
    trial.suggest_int("train.lora.rank", 2, 64, log=True)
    trial.suggest_float("train.lora.alpha", 4.0, 128.0, log=True)
    trial.suggest_float("train.lora.dropout", 0.0, 0.3)
    trial.suggest_categorical("model.quantize", ["none", "nf4"])
    return {}
