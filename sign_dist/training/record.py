"""What a run leaves for people: metrics.jsonl, TensorBoard, environment.json, curves."""

import importlib.metadata
import json
import math
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from sign_dist import __version__
from sign_dist.data.layout import write_json, written_whole
from sign_dist.training.data import ClipSource
from sign_dist.training.run_dir import RunDir
from sign_dist.training.sinks import Sink
from sign_dist.training.step import StepResult

PACKAGES = ("ray", "torch", "numpy", "pyarrow", "mediapipe", "decord", "av", "optuna", "transformers")


class Record:
    """Appends one line per report. A run that goes on from an earlier step forgets the lines it will write again."""

    def __init__(self, run_dir: RunDir, sinks: Sequence[Sink] = ()) -> None:
        self.run_dir = run_dir
        self._sinks = sinks
        self._writer: Any = None

    def append(self, metrics: Mapping[str, float]) -> None:
        """Add the metrics of one evaluation, which must hold `epoch` and `step`."""
        line = {name: _plain(value) for name, value in metrics.items()}
        kept = [m for m in self.run_dir.metrics() if m["step"] < line["step"]]
        # Whole, not appended: who reads it meanwhile, or after a kill, never sees half a line.
        with written_whole(self.run_dir.metrics_file) as temporary:
            temporary.write_text("".join(json.dumps(m) + "\n" for m in [*kept, line]), encoding="utf-8")
        self._tensorboard(line)
        numbers = {name: value for name, value in line.items() if isinstance(value, int | float)}
        for sink in self._sinks:
            sink(numbers, int(line["step"]))

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _tensorboard(self, line: Mapping[str, Any]) -> None:
        if self._writer is None:
            from tensorboardX import SummaryWriter

            self._writer = SummaryWriter(str(self.run_dir.tensorboard), purge_step=int(line["step"]))
        for name, value in line.items():
            if isinstance(value, int | float) and name not in ("epoch", "step"):
                self._writer.add_scalar(name, value, int(line["step"]))
        self._writer.flush()


class Trace:
    """Appends a line for each step to steps.jsonl: what it held, what came of it."""

    def __init__(self, run_dir: RunDir, clips: ClipSource, *, workers: int) -> None:
        self._file, self._clips, self._workers = run_dir.steps_file, clips, workers

    def __call__(self, step: int, indices: Sequence[int], result: StepResult) -> None:
        names = [self._clips[i].sample.id for i in indices]
        line = {
            "step": step,
            "loss": result.loss,
            "norm": result.norm,
            "workers": self._workers,
            "at_s": time.time(),
            "clips": names,
        }
        if result.skipped:
            line["skipped"] = result.skipped
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def trained_share(root: Path) -> str:
    """How much of a finished run's model trained and what a checkpoint's weights take, in one line; "" where all of it did."""
    done = RunDir(root).done_file
    sizes = json.loads(done.read_text(encoding="utf-8")).get("sizes", {}) if done.exists() else {}
    if sizes.get("trained_share", 1) >= 1:
        return ""
    part = f"{sizes['trained']:,} of {sizes['parameters']:,} numbers trained ({100 * sizes['trained_share']:.3g} %)"
    return f"{part}; a checkpoint's weights take {sizes['checkpoint_bytes'] / 1e6:.3g} MB"


def write_environment(run_dir: RunDir, facts: Mapping[str, Any]) -> None:
    """Versions and machine, and what the caller knows: dataset digest, feature store, workers."""
    write_json(run_dir.environment_file, environment() | dict(facts))


def environment() -> dict[str, Any]:
    """The software and hardware that decide how a number came to be."""
    versions: dict[str, str] = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "sign_dist": __version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": versions,
        "gpus": gpus,
    }


def _plain(value: Any) -> Any:
    """Numbers as JSON knows them, to six digits; what is no finite number becomes null."""
    if isinstance(value, bool | int | str):
        return value
    value = float(value)
    return float(f"{value:.6g}") if math.isfinite(value) else None
