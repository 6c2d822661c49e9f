"""What a trial is judged by when it has ended: scores of its evaluation, time per clip, size.

Scores are those of the checkpoint that the run stands for. The time is what one core needs from stored features to the answer,
one clip at a time, as a server that answers one person at a time would: processor time of the calling thread, so that others on
the machine are not counted. What they do to caches and clocks still is, and only ever adds time: so a clip is answered many
times and its least time holds. The median over clips is the objective.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from sign_dist.config.run import Run
from sign_dist.data.layout import DatasetDir
from sign_dist.errors import RunError, SettingsError
from sign_dist.tasks.build import build_task, vocab_of
from sign_dist.tasks.task import Example
from sign_dist.training.data import Clips
from sign_dist.training.run_dir import RunDir, progress_of
from sign_dist.training.start import trained_model

LATENCY, SIZE = "latency_ms", "size_mb"
# Clips that are timed, from the shortest to the longest at even distances, and how often each.
TIMED_CLIPS = 8
REPEATS = 25
# A large model needs no such patience: after three rounds and so much processor time it is enough.
FEWEST, ENOUGH_S = 3, 4.0
# Ends of names of scores of which less is better.
_LESS_IS_BETTER = ("loss", "wer", "cer", "substitutions", "deletions", "insertions", "empty", "too_short", "ece", "nll")


def direction(name: str) -> Literal["min", "max"]:
    """Which way an objective is better.

    >>> direction("val/wer"), direction("val/top1"), direction("latency_ms")
    ('min', 'max', 'min')

    Raises:
        SettingsError: there is no such objective.
    """
    if name in (LATENCY, SIZE):
        return "min"
    if not name.startswith("val/"):
        raise SettingsError(f"no objective {name!r}: it is a score of the val split such as 'val/wer', {LATENCY!r} or {SIZE!r}")
    return "min" if name.endswith(_LESS_IS_BETTER) else "max"


def measure(run_dir: RunDir, names: Sequence[str]) -> dict[str, float]:
    """The objectives of an ended run, by name.

    Raises:
        SettingsError: there is no such objective, or the run's task has no such score.
        RunError: the run has no checkpoint, or it was never evaluated.
    """
    chosen = run_dir.chosen()
    scores: dict[str, Any] = progress_of(chosen)["metrics"]
    found: dict[str, float] = {}
    for name in names:
        direction(name)
        match name:
            case "latency_ms":
                found[name] = latency_of(run_dir, chosen)
            case "size_mb":
                found[name] = (chosen / "model.safetensors").stat().st_size / 1e6
            case _:
                found[name] = _score(scores, name, run_dir)
    return found


def latency_of(run_dir: RunDir, checkpoint: Path) -> float:
    """Median processor time of a val clip, ms, with the weights of a checkpoint."""
    run = run_dir.run()
    clips = timed_clips(run)
    task = build_task(run, vocab_of(run.task, DatasetDir(Path(run.data.root))))
    model = trained_model(run, checkpoint, clips[0].features.shape[1:])
    return milliseconds(lambda clip: _answer(task, model, clip), clips)


def timed_clips(run: Run) -> list[Example]:
    """The val clips that times are taken of: the same for every trial of a dataset."""
    clips = Clips.of(run, run.data.val_split)
    order = sorted(range(len(clips)), key=lambda i: (clips.samples[i].n_frames, clips.samples[i].id))
    places = np.linspace(0, len(order) - 1, min(TIMED_CLIPS, len(order))).round()
    return [clips[order[int(place)]] for place in places]


def milliseconds(answer: Callable[[Example], object], clips: Sequence[Example], *, repeats: int = REPEATS) -> float:
    """Median over clips of the least processor time of `answer`, ms, on one thread and after it was called once for each clip.

    Raises:
        ValueError: no clip.
    """
    if not clips or repeats < 1:
        raise ValueError(f"need clips and repeats >= 1: got {len(clips)} clips, {repeats=}")
    least = [float("inf")] * len(clips)
    with _one_thread():
        for clip in clips:
            answer(clip)
        # Round by round, so that a slow moment of the machine does not meet one clip's repeats alone.
        spent = 0.0
        for done in range(repeats):
            if done >= FEWEST and spent > ENOUGH_S:
                break
            for i, clip in enumerate(clips):
                begun = time.thread_time()
                answer(clip)
                took = time.thread_time() - begun
                least[i] = min(least[i], took)
                spent += took
    return 1e3 * statistics.median(least)


@torch.inference_mode()
def _answer(task: Any, model: nn.Module, clip: Example) -> None:
    batch = task.collate([clip])
    _, outputs = task.losses(model.eval(), batch)
    task.decode(outputs, batch, 5)


def _score(scores: dict[str, Any], name: str, run_dir: RunDir) -> float:
    if not scores:
        raise RunError(f"{str(run_dir.root)!r} was never evaluated: train it for one epoch at least")
    if name not in scores:
        known = ", ".join(sorted(each for each in scores if each.startswith("val/")))
        raise SettingsError(f"no score {name!r} of task {run_dir.run().task!r}: there are {known}, {LATENCY} and {SIZE}")
    return float(scores[name])


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
