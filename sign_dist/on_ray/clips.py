"""Ray Data: one answer per clip, spread over the cluster. What `prepare` and `leaks` ask of every clip."""

import contextlib
import dataclasses
import functools
import logging
import math
import threading
import warnings
from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.data import DataContext
from ray.util.annotations import RayDeprecationWarning

from sign_dist.config.data import Sampling
from sign_dist.data.leaks import Signed, sign
from sign_dist.data.sample import Sample
from sign_dist.features.store import pack, unpack
from sign_dist.on_ray.cluster import num_cpus
from sign_dist.video.check import Checked
from sign_dist.video.guarded import check_guarded

Progress = Callable[[int, int], None]
"""(clips done, clips in all)"""
Row = dict[str, Any]
_quiet = threading.Lock()


def check_all(samples: Sequence[Sample], folder: Path, sampling: Sampling, *, progress: Progress | None = None) -> list[Checked]:
    """`prepare`'s check: one `Checked` per sample, in order."""
    found = {
        row["index"]: Checked(row["reason"], row["detail"], row["sha256"], int(row["num_frames"]), float(row["fps"]))
        for row in _each(samples, folder, functools.partial(_check_row, sampling=sampling), progress)
    }
    return [found.get(i) or Checked("crashed", "the process that read this file died, twice") for i in range(len(samples))]


def sign_all(samples: Sequence[Sample], folder: Path, image_fps: float, *, progress: Progress | None = None) -> list[Signed]:
    """The signatures that `leaks` compares, in order."""
    found: dict[int, Signed] = {
        row["index"]: row["error"] or unpack(row["features"], row["shape"], row["dtype"])
        for row in _each(samples, folder, functools.partial(_sign_row, image_fps=image_fps), progress)
    }
    return [found.get(i, "crashed: the process that read this file died, twice") for i in range(len(samples))]


def _check_row(row: Row, sampling: Sampling) -> Row:
    # A stranger's file: in a child process, which it may crash or keep busy at its own cost.
    checked = check_guarded(row["path"], start_s=row["start_s"], end_s=row["end_s"], sampling=sampling)
    return {"index": row["index"], **dataclasses.asdict(checked)}


def _sign_row(row: Row, image_fps: float) -> Row:
    signed = sign(Path(row["path"]), row["start_s"], row["end_s"], image_fps)
    error, signature = (signed, np.zeros(0, np.float16)) if isinstance(signed, str) else ("", signed)
    return {"index": row["index"], "error": error, **pack(signature)}


def _each(samples: Sequence[Sample], folder: Path, ask: Callable[[Row], Row], progress: Progress | None) -> Iterable[Row]:
    """The answer to every clip. What a dying process held is asked once more, alone; then it has no answer."""
    rows = [
        {"index": i, "path": str((folder / s.video_path).resolve()), "start_s": s.start_s, "end_s": s.end_s}
        for i, s in enumerate(samples)
    ]
    answered: set[int] = set()
    for block in (_rows_per_block(len(rows)), 1):
        todo = [row for row in rows if row["index"] not in answered]
        if not todo:
            return
        with retries_set():
            answers = from_rows(todo, block).map(ask, num_cpus=1, max_retries=0)
        for row in answers.iter_rows():
            answered.add(int(row["index"]))
            yield row
            if progress:
                progress(len(answered), len(rows))


def from_rows(rows: Sequence[Row], block: int) -> ray.data.Dataset:
    """A Ray dataset in blocks of so many rows: what is scheduled, retried and lost together."""
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.issue_detectors_config.detectors = []  # it advises memory numbers; decoding is bounded by our own limits
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context.print_on_execution_start = False
    context.max_errored_blocks = -1  # what a dying process held is found again by comparing with what was asked
    return ray.data.from_items(list(rows), override_num_blocks=max(1, math.ceil(len(rows) / block)))


@contextlib.contextmanager
def retries_set() -> Generator[None]:
    """Ray 2.60 warns of retry settings given by keyword, and has no other place for them yet."""
    # Warnings are the process's: of two threads in here at once, the first to leave would bring them back for the other.
    with _quiet, warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=RayDeprecationWarning)
        yield


def _rows_per_block(num_rows: int) -> int:
    """Small enough to spread over the cluster and to lose little, large enough not to drown in blocks."""
    return max(1, min(16, num_rows // (64 * max(num_cpus(), 1))))
