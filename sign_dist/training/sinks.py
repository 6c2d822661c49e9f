"""Where metrics go beside metrics.jsonl and TensorBoard, if a team keeps them elsewhere: MLflow, Weights & Biases."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from sign_dist.errors import ServiceError, SettingsError, did_you_mean

Sink = Callable[[Mapping[str, float], int], None]
"""(metrics, step)"""


def open_sinks(names: str, *, title: str, settings: Mapping[str, Any]) -> list[Sink]:
    """Sinks by name, parted by blanks. Where they write is told by their own environment: MLFLOW_TRACKING_URI, WANDB_MODE, ...

    Raises:
        SettingsError: there is no such sink.
        ServiceError: its package is not installed.
    """
    for name in names.split():
        if name not in _OPEN:
            raise SettingsError(f"no sink {name!r}: there are {', '.join(_OPEN)};{did_you_mean(name, _OPEN)}".rstrip(";"))
    return [_OPEN[name](title, settings) for name in names.split()]


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ServiceError(f"train.sinks names {name}, which is not installed: `pip install {name}`, or leave it out") from None


def _mlflow(title: str, settings: Mapping[str, Any]) -> Sink:
    mlflow = _package("mlflow")
    mlflow.start_run(run_name=title)
    mlflow.log_params({name: str(value)[:500] for name, value in settings.items()})
    return lambda metrics, step: mlflow.log_metrics(dict(metrics), step=step)


def _wandb(title: str, settings: Mapping[str, Any]) -> Sink:
    # A run that goes on is the same run there.
    run = _package("wandb").init(project="sign_dist", name=title, id=title, resume="allow", config=dict(settings))
    return lambda metrics, step: run.log(dict(metrics), step=step)


_OPEN: dict[str, Callable[[str, Mapping[str, Any]], Sink]] = {"mlflow": _mlflow, "wandb": _wandb}
