"""Batches made ahead of the steps that learn from them, in a thread; how long the steps had to wait is counted."""

import dataclasses
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

import numpy as np
import torch

from sign_dist.tasks.task import Batch, Task
from sign_dist.training.batches import Step, own_parts, parts_of
from sign_dist.training.data import ClipSource

AHEAD = 2
"""Steps that may be made ahead: one that is ready and one in the making; each holds its clips in memory."""


@dataclasses.dataclass(frozen=True)
class Turn:
    """One micro-batch of this rank. `part` is its number in the step; None where the rank only keeps pace with the others."""

    part: int | None
    batch: Batch


class Feed:
    """For each step: its clips, and this rank's turns. As a context manager, it ends its thread when training goes no further."""

    def __init__(
        self,
        task: Task,
        clips: ClipSource,
        steps: Sequence[Step],
        *,
        parts: int,
        rank: int,
        world_size: int,
        seed: int,
        epoch: int,
    ) -> None:
        self._task, self._clips, self._steps = task, clips, steps
        self._parts, self._rank, self._world_size = parts, rank, world_size
        self._seed, self._epoch = seed, epoch
        self._made: queue.Queue[list[Turn] | BaseException] = queue.Queue(AHEAD)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._make_all, daemon=True, name="feed")
        self.waited_s = 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        while self._thread.is_alive():
            try:
                self._made.get_nowait()  # the thread may stand before a full queue
            except queue.Empty:
                self._thread.join(0.01)

    def __iter__(self) -> Iterator[tuple[Step, list[Turn]]]:
        for step in self._steps:
            started = time.perf_counter()
            turns = self._made.get()
            self.waited_s += time.perf_counter() - started
            if isinstance(turns, BaseException):
                raise turns
            yield step, turns

    def _make_all(self) -> None:
        for step in self._steps:
            try:
                made: list[Turn] | BaseException = self._turns(step)
            except BaseException as error:  # noqa: BLE001 (raised where the batch was wanted)
                made = error
            while not self._ended.is_set():
                try:
                    self._made.put(made, timeout=0.1)
                    break
                except queue.Full:
                    continue
            if self._ended.is_set() or isinstance(made, BaseException):
                return

    def _turns(self, step: Step) -> list[Turn]:
        parts = parts_of(step, self._parts)
        turns: list[Turn] = []
        for number in own_parts(self._parts, rank=self._rank, world_size=self._world_size):
            part = [] if number is None else parts[number]
            if part:
                turns.append(Turn(number, self._batch(part)))
            elif self._world_size > 1:  # who has no clip still takes part in what the ranks exchange
                batch = self._task.collate([self._clips[0]])
                turns.append(Turn(None, dataclasses.replace(batch, weights=torch.zeros_like(batch.weights))))
        return turns

    def _batch(self, part: Sequence[int]) -> Batch:
        """Clips augmented by a generator of their own each: who shares a batch changes nothing."""
        rngs = [np.random.default_rng([self._seed, self._epoch, index]) for index in part]
        return self._task.collate([self._clips[index] for index in part], rngs)
