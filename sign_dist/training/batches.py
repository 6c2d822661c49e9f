"""Which clips make up which step, and who computes which part of it.

An epoch is a list of steps, a step a list of parts, a part the clips of one forward pass. All of it follows from the seed, the
epoch and the clips alone. How many workers there are only decides who computes a part, so with equally many parts a run gives the
same numbers on one worker or on eight (as EasyScale's virtual workers, Li et al. 2022, arXiv 2208.14228).
"""

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np

from sign_dist.training.data import epoch_order

Step = list[int]
"""Clips of a step, by index; of like length side by side where steps are made by length."""


@dataclasses.dataclass(frozen=True)
class Sampler:
    """The steps of every epoch.

    `batch_size` clips make a step. With `by_length` > 1, clips of that many steps are brought together, put in order of length and
    cut into steps anew, so that a step holds clips of like length and little padding. With `batch_frames`, a step ends before its
    padded frames would exceed them; a longer clip stands alone.
    """

    lengths: Sequence[int]
    """Frames of each clip, or anything that grows with them."""
    batch_size: int
    seed: int = 0
    by_length: int = 1
    batch_frames: int = 0

    def steps(self, epoch: int) -> list[Step]:
        """Every clip once; the steps in random order."""
        order = epoch_order(len(self.lengths), seed=self.seed, epoch=epoch)
        if self.by_length <= 1 and not self.batch_frames:
            return [order[i : i + self.batch_size].tolist() for i in range(0, len(order), self.batch_size)]
        lengths = np.asarray(self.lengths)
        pool = self.batch_size * max(self.by_length, 1)
        found: list[Step] = []
        for start in range(0, len(order), pool):
            clips = order[start : start + pool]
            found += self._cut(clips[np.argsort(lengths[clips], kind="stable")].tolist())
        mixed = np.random.default_rng([self.seed, epoch, 1]).permutation(len(found))
        return [found[i] for i in mixed]

    def num_steps(self, epoch: int) -> int:
        if not self.batch_frames and self.by_length <= 1:
            return math.ceil(len(self.lengths) / self.batch_size)
        return len(self.steps(epoch))

    def total_steps(self, epochs: int) -> int:
        """Of a whole training."""
        return _total(self, epochs) if self.batch_frames else self.num_steps(0) * epochs

    def _cut(self, clips: list[int]) -> list[Step]:
        """Clips in order of length, shortest first, cut into steps."""
        steps: list[Step] = [[]]
        for clip in clips:
            now = steps[-1]
            too_long = self.batch_frames and now and (len(now) + 1) * self.lengths[clip] > self.batch_frames
            if len(now) >= self.batch_size or too_long:
                steps.append(now := [])
            now.append(clip)
        return steps

    def __hash__(self) -> int:
        return hash((tuple(self.lengths), self.batch_size, self.seed, self.by_length, self.batch_frames))


@functools.lru_cache(maxsize=4)
def _total(sampler: Sampler, epochs: int) -> int:
    return sum(sampler.num_steps(epoch) for epoch in range(epochs))


def parts_of(step: Step, num_parts: int) -> list[list[int]]:
    """The parts of a step, as even as can be; some are empty where it holds fewer clips.

    >>> parts_of([7, 3, 5], 2)
    [[7, 3], [5]]
    """
    return [part.tolist() for part in np.array_split(np.asarray(step, dtype=int), num_parts)]


def own_parts(num_parts: int, *, rank: int, world_size: int) -> list[int | None]:
    """Numbers of the parts that a rank computes, in order. None is a turn in which it only keeps pace with the others.

    >>> own_parts(4, rank=0, world_size=3), own_parts(4, rank=2, world_size=3)
    ([0, 1], [3, None])
    """
    shares = np.array_split(np.arange(num_parts), world_size)
    turns = max(len(share) for share in shares)
    own: list[int | None] = shares[rank].tolist()
    return own + [None] * (turns - len(own))
