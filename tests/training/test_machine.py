"""What a training asks of the machine: devices and what they cannot do, arithmetic counted, profiles, metrics elsewhere."""

import json
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sign_dist.config.data import Data
from sign_dist.config.run import Run
from sign_dist.data.sample import Sample
from sign_dist.data.vocab import Vocab
from sign_dist.errors import ServiceError, SettingsError
from sign_dist.tasks.islr import Islr
from sign_dist.tasks.task import Example
from sign_dist.training.device import check_device, device_of, use_tf32
from sign_dist.training.meter import Meter, measure
from sign_dist.training.profiling import FIRST, Profiled
from sign_dist.training.record import Record, Trace
from sign_dist.training.run_dir import RunDir
from sign_dist.training.sinks import open_sinks
from sign_dist.training.step import StepResult

RUN = Run(data=Data(root="d"))
CPU = torch.device("cpu")
RESULT = StepResult(loss=2.0, terms={}, norm=1.0, frames=3, padded=4, skipped="", notice=False)


def accelerator(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: bool(kind))
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device(kind) if kind else None)


@pytest.mark.parametrize(
    ("asked", "own", "workers", "found"),
    [
        ("auto", "", 1, "cpu"),
        ("auto", "mps", 1, "mps"),
        ("auto", "xpu", 1, "xpu"),
        ("auto", "cuda", 1, "cpu"),  # a GPU that Ray did not give is somebody else's
        ("auto", "mps", 2, "cpu"),
        ("cpu", "mps", 1, "cpu"),
        ("mps", "mps", 1, "mps"),
        ("xpu", "xpu", 2, "xpu"),
    ],
)
def test_one_worker_takes_what_the_machine_has(
    monkeypatch: pytest.MonkeyPatch, asked: str, own: str, workers: int, found: str
) -> None:
    accelerator(monkeypatch, own)
    assert device_of(RUN.with_values({"scale.device": asked, "scale.workers": workers}), CPU).type == found


def test_what_ray_gave_is_taken_first(monkeypatch: pytest.MonkeyPatch) -> None:
    accelerator(monkeypatch, "mps")
    for asked in ("auto", "gpu"):
        assert device_of(RUN.with_values({"scale.device": asked}), torch.device("cuda:1")) == torch.device("cuda:1")


def test_directml_is_a_package_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    run = RUN.with_values({"scale.device": "directml"})
    with pytest.raises(ServiceError, match=r"pip install torch-directml"):
        device_of(run, CPU)
    package = types.ModuleType("torch_directml")
    package.device = lambda: torch.device("privateuseone")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_directml", package)
    assert device_of(run, CPU).type == "privateuseone"
    with pytest.raises(SettingsError, match=r"bf16.*DirectML: use fp32"):
        device_of(run.with_values({"train.precision": "bf16"}), CPU)


@pytest.mark.parametrize(
    ("kind", "values", "told"),
    [
        ("cpu", {"train.precision": "fp16"}, "use bf16 or fp32"),
        ("mps", {"train.precision": "fp16"}, "use bf16 or fp32"),
        ("mps", {"scale.workers": 2}, "scale.workers=1, or scale.device=cpu"),
    ],
)
def test_what_a_device_cannot_do_is_said_before_it_is_tried(kind: str, values: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingsError, match=told) as error:
        check_device(RUN.with_values(values), torch.device(kind))
    assert kind in str(error.value)
    check_device(RUN, torch.device(kind))


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    accelerator(monkeypatch, "")
    with pytest.raises(ServiceError, match=r"scale\.device = 'mps'.*use auto or cpu"):
        device_of(RUN.with_values({"scale.device": "mps"}), CPU)


def test_tf32_is_switched() -> None:
    before = torch.get_float32_matmul_precision()
    for allowed, found in ((True, "high"), (False, "highest")):
        use_tf32(allowed=allowed)
        assert torch.get_float32_matmul_precision() == found
    torch.set_float32_matmul_precision(before)


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(6, 8, bias=False), nn.Linear(8, 2, bias=False)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        return self.head(self.body(features)).mean(1)


def test_arithmetic_is_counted_as_on_paper() -> None:
    clip = Example(Sample("a", "", "A"), np.zeros((5, 6), np.float32))
    model = Linear().train()
    meter = measure(model, Islr(Vocab(("A", "B"))), clip, device=CPU, workers=2, precision="fp32")
    assert meter.flops_per_frame == 2 * (6 * 8 + 8 * 2)
    assert meter.peak == 0
    assert model.training
    assert meter(frames=100, seconds=2.0) == {"tflops_per_s": 3 * 128 * 100 / 2 / 1e12}
    assert Meter(1e9, peak=3e12)(frames=500, seconds=1.0) == {"tflops_per_s": 1.5, "mfu": 0.5}
    assert Meter(0, 0)(1, 1) == {}


def test_a_profile_is_written_once(tmp_path: Path) -> None:
    profiled = Profiled(tmp_path, num_steps=2)
    for step in range(1, FIRST + 6):
        torch.ones(8, 8) @ torch.ones(8, 8)
        profiled(step, [0], RESULT)
    trace = json.loads((tmp_path / "trace.json").read_text(encoding="utf-8"))
    multiplied = [event for event in trace["traceEvents"] if event.get("name") == "aten::mm"]
    assert len(multiplied) == 2
    assert "aten::mm" in (tmp_path / "table.txt").read_text(encoding="utf-8")


def test_a_trace_has_a_line_for_each_step(tmp_path: Path) -> None:
    clips = [Example(Sample(name, "", "A"), np.zeros((1, 1))) for name in "abc"]
    trace = Trace(RunDir(tmp_path), clips, workers=3)
    trace(1, [2, 0], RESULT)
    trace(2, [1], RESULT)
    lines = [json.loads(line) for line in (tmp_path / "steps.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(line["step"], line["clips"], line["workers"]) for line in lines] == [(1, ["c", "a"], 3), (2, ["b"], 3)]


def test_metrics_reach_every_sink_with_their_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, Any]] = []

    class Wandb:
        def log(self, metrics: Mapping[str, float], step: int) -> None:
            told.append(("wandb", (dict(metrics), step)))

    def init(**named: Any) -> Wandb:
        told.append(("init", named["id"]))
        return Wandb()

    mlflow = types.SimpleNamespace(
        start_run=lambda run_name: told.append(("run", run_name)),
        log_params=lambda params: told.append(("params", params)),
        log_metrics=lambda metrics, step: told.append(("mlflow", (metrics, step))),
    )
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    monkeypatch.setattr(Record, "_tensorboard", lambda *_: None)
    sinks = open_sinks("mlflow wandb", title="mine", settings={"train.epochs": 3})
    Record(RunDir(tmp_path), sinks).append({"epoch": 1, "step": 7, "val/wer": 12.5, "train/loss": float("nan")})
    line = {"epoch": 1, "step": 7, "val/wer": 12.5}
    assert told == [
        ("run", "mine"),
        ("params", {"train.epochs": "3"}),
        ("init", "mine"),
        ("mlflow", (line, 7)),
        ("wandb", (line, 7)),
    ]


def test_a_sink_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ServiceError, match=r"pip install mlflow"):
        open_sinks("mlflow", title="x", settings={})
    with pytest.raises(SettingsError, match=r"did you mean 'wandb'\?"):
        open_sinks("wanb", title="x", settings={})
    assert open_sinks("", title="x", settings={}) == []
