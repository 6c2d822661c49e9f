"""The clips of a split with their features."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from sign_dist.config.run import Run
from sign_dist.data.layout import DatasetDir
from sign_dist.data.manifest import read_manifest
from sign_dist.data.sample import Sample
from sign_dist.errors import DataError
from sign_dist.features.store import FeatureReader, FeatureStore
from sign_dist.tasks.build import unusable
from sign_dist.tasks.task import Example


class ClipSource(Protocol):
    """Clips by index, as `Clips` or a list of examples gives them."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Example: ...


class Clips:
    """The usable clips of a split; indexing reads the features. `failed` are (sample, reason) without features."""

    def __init__(self, samples: Sequence[Sample], reader: FeatureReader, *, task: str = "islr") -> None:
        self._reader = reader
        self.failed: list[tuple[Sample, str]] = []
        self.samples: list[Sample] = []
        for sample in samples:
            if sample.key not in reader:
                raise DataError(
                    f"clip {sample.id!r} has not been extracted into {reader.store.uri!r}: run `sign-dist extract` again"
                )
            if error := unusable(task, sample) or reader.error(sample.key):
                self.failed.append((sample, error))
            else:
                self.samples.append(sample)

    @classmethod
    def of(cls, run: Run, split: str) -> "Clips":
        """The clips of a run's dataset.

        Raises:
            DataError: dataset, split or features are missing, or every clip failed.
        """
        dataset = DatasetDir(Path(run.data.root))
        samples = read_manifest(dataset, split)
        clips = cls(samples, FeatureStore.find(dataset, run.data.features, shared=run.data.store).reader(), task=run.task)
        if not clips.samples:
            reason = f"all {len(samples)} failed to extract" if samples else "its manifest is empty"
            raise DataError(f"split {split!r} of {run.data.root!r} has no usable clip: {reason}")
        if split == run.data.train_split:
            clips.samples = share_of(clips.samples, run.data.share)
        return clips

    @property
    def lengths(self) -> list[int]:
        """Frames of each clip when it was prepared; features of it may be fewer in proportion."""
        return [sample.n_frames for sample in self.samples]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Example:
        sample = self.samples[index]
        return Example(sample, self._reader.features(sample.key))


def share_of(samples: Sequence[Sample], share: float) -> list[Sample]:
    """A share of samples in their order, at least one, taken from all glosses in turn; a smaller share is part of a larger."""
    if share == 1:
        return list(samples)
    order = np.random.default_rng(0).permutation(len(samples))
    taken: Counter[str] = Counter()
    turns: list[tuple[int, int, int]] = []
    for place, i in enumerate(order.tolist()):
        turns.append((taken[samples[i].gloss], place, i))
        taken[samples[i].gloss] += 1
    kept = sorted(i for _, _, i in sorted(turns)[: max(1, round(share * len(samples)))])
    return [samples[i] for i in kept]


def lengths_of(clips: ClipSource) -> Sequence[int]:
    """Frames of each clip: as the manifest has them, or counted."""
    known = getattr(clips, "lengths", None)
    return known if known is not None else [len(clips[i].features) for i in range(len(clips))]


def epoch_order(num_clips: int, *, seed: int, epoch: int) -> np.ndarray:
    """The order of an epoch: the same on every rank and for every number of ranks."""
    return np.random.default_rng([seed, epoch]).permutation(num_clips)
