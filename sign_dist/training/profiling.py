"""A few steps under torch's profiler: where the time of a step goes, as a trace that a browser shows."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from sign_dist.training.step import StepResult

FIRST = 3
"""Steps that are let pass: memory is reserved and kernels are chosen in them."""


class Profiled:
    """Called after each step. Writes `trace.json` for chrome://tracing or ui.perfetto.dev, and `table.txt`, once."""

    def __init__(self, folder: Path, num_steps: int) -> None:
        self._folder, self._num_steps, self._seen = folder, num_steps, 0
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
        self._profile = profile(activities=activities, record_shapes=True)

    def __call__(self, step: int, indices: Sequence[int], result: StepResult) -> None:
        self._seen += 1
        if self._seen == FIRST:
            self._profile.start()
        elif self._seen == FIRST + self._num_steps:
            self._profile.stop()
            self._folder.mkdir(parents=True, exist_ok=True)
            self._profile.export_chrome_trace(str(self._folder / "trace.json"))
            table = self._profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=40)
            (self._folder / "table.txt").write_text(table, encoding="utf-8")
