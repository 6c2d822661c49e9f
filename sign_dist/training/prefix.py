"""Activations of layers that stand still: which they are in each stage of a run, computed once, and read in place of frames.

In stage s of unfreezing, the layers before the first one that trains have never trained: what they make of a clip follows from the
weights that the run starts with, and is the same in every epoch. Each stage has a cut of its own, "" where the lowest layer trains.
"""

import dataclasses
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sign_dist.config.run import Run
from sign_dist.data.layout import DatasetDir
from sign_dist.data.sample import Sample
from sign_dist.errors import RunError, SettingsError
from sign_dist.features.blocks import Block, Outcome, plan
from sign_dist.features.claims import claim
from sign_dist.features.prefix import TOGETHER, PrefixSpec, PrefixStore, refuse_large, rows_per_shard
from sign_dist.features.store import FeatureReader, FeatureStore, pack
from sign_dist.models.cut import Cuttable
from sign_dist.tasks.task import Example
from sign_dist.training.checkpoint import MODEL, WEIGHTS, load_weights_file
from sign_dist.training.data import Clips
from sign_dist.training.loop import plan_for
from sign_dist.training.run_dir import progress_of
from sign_dist.training.start import first_model
from sign_dist.training.strategy import evaluating
from sign_dist.transfer.schedule import stage_of
from sign_dist.transfer.still import deepest_cut, digest_of, moving_groups, still_names

# Seconds between looks at blocks that another process holds.
POLL_S = 0.2

logger = logging.getLogger(__name__)


class NothingStillError(SettingsError):
    """All layers of a run train from the start."""


def cuts_of(run: Run, model: nn.Module) -> tuple[str, ...]:
    """Behind which layer group the model is cut in each stage of a run; "" where its lowest layer trains.

    Raises:
        NothingStillError: no layer stands still in any stage.
        SettingsError: the model cannot be cut.
    """
    if not isinstance(model, Cuttable):
        raise SettingsError(f"train.cache_prefix needs a model that can be cut, and {type(model).__name__} cannot: leave it off")
    stages = moving_groups(model, plan_for(model, run.train), targets=run.train.lora.targets)
    cuts = tuple(deepest_cut(model, model.cuts(), moving) for moving in stages)
    if not any(cuts):
        raise NothingStillError(
            f"train.cache_prefix keeps what frozen layers give, and {model.cuts()[0]!r}, the lowest, trains from the start: "
            "freeze layers by train.freeze or unfreeze them by train.unfreeze, or leave it off"
        )
    return cuts


def where_still(run: Run) -> Run:
    """The same run, but without the cache where no layer of it stands still: a trial of a search may train all of them.

    Raises:
        DataError: the dataset or the features are missing.
    """
    if not run.train.cache_prefix:
        return run
    try:
        cuts_of(run, first_model(run, Clips.of(run, run.data.train_split)[0]))
    except NothingStillError:
        return run.with_values({"train.cache_prefix": False})
    return run


@dataclasses.dataclass(frozen=True)
class Cache:
    """The activations behind one cut, as far as they are there."""

    cut: str
    store: PrefixStore
    blocks: list[Block]
    """What is missing."""
    clip_bytes: int


def caches_of(run: Run, model: nn.Module, clips: Sequence[Clips], *, stages: slice = slice(None)) -> dict[str, Cache]:
    """The caches of a run's stages by their cuts. `model` has the weights that the run starts with.

    Raises:
        SettingsError: as `cuts_of`; or they would take more disk than they may, with the figure.
        DataError: the frames are missing.
    """
    cuts = [cut for cut in dict.fromkeys(cuts_of(run, model)[stages]) if cut]
    rows = [{"key": s.key, "id": s.id} for source in clips for s in source.samples]
    found: dict[str, Cache] = {}
    total = 0
    for cut in cuts:
        store = PrefixStore.of(DatasetDir(Path(run.data.root)), spec_of(run, model, cut), shared=run.data.store)
        first, known = clips[0].samples[0], store.rows()
        # All clips have one length, so the first one tells what each takes.
        stored = store.reader().features(first.key) if first.key in known else activations_of(model, cut, [clips[0][0]])[0]
        blocks = plan(rows, store, min_rows=TOGETHER, max_rows=rows_per_shard(stored.nbytes))
        pending = sum(len(block.rows) for block in blocks)
        total += pending * stored.nbytes
        refuse_large(store, total, limit_gb=run.train.cache_gb, clips=pending, cut=cut)
        found[cut] = Cache(cut, store, blocks, stored.nbytes)
    return found


def spec_of(run: Run, model: nn.Module, cut: str) -> PrefixSpec:
    """What the activations behind a cut depend on."""
    assert isinstance(model, Cuttable)
    frames = FeatureStore.find(DatasetDir(Path(run.data.root)), run.data.features, shared=run.data.store).spec()
    weights = digest_of(model.state_dict(), still_names(model, cut))
    return PrefixSpec(frames, run.model.kind, model.cut_settings(), weights, cut, run.train.precision, run.train.tf32)


def compute_block(block: Block, store: PrefixStore, model: nn.Module, cut: str, clip_of: Callable[[str], Example]) -> Outcome:
    """Compute and commit a block, unless somebody has done so or is at it. `clip_of`: a clip by its key."""
    held = None if store.has(block.name) else claim(store.place, block.name)
    if held is None:
        return Outcome(block.name, "present" if store.has(block.name) else "held", len(block.rows))
    try:
        rows: list[dict[str, Any]] = []
        for start in range(0, len(block.rows), TOGETHER):
            keys = [row["key"] for row in block.rows[start : start + TOGETHER]]
            if not held.working_on(keys[0]):
                return Outcome(block.name, "held")
            clips = [clip_of(key) for key in keys]
            for clip, found in zip(clips, activations_of(model, cut, clips), strict=True):
                rows.append({"key": clip.sample.key, "id": clip.sample.id, "fps": clip.sample.fps, "error": "", **pack(found)})
        fresh = store.commit(block.name, rows)
        return Outcome(block.name, "committed" if fresh else "present", len(block.rows))
    finally:
        held.release()


def fill(cache: Cache, model: nn.Module, clips: Sequence[Clips]) -> int:
    """Compute in this process what is missing; several may do so at once and share the work. Answers how many clips it computed."""
    clip_of, left, done = by_key(clips), list(cache.blocks), 0
    while left:
        outcomes = [compute_block(block, cache.store, model, cache.cut, clip_of) for block in left]
        done += sum(outcome.num_clips for outcome in outcomes if outcome.state == "committed")
        left = [block for block, outcome in zip(left, outcomes, strict=True) if outcome.state == "held"]
        if left:
            time.sleep(POLL_S)
    return done


def by_key(clips: Sequence[Clips]) -> Callable[[str], Example]:
    """Clips of several splits by their keys."""
    places = {sample.key: (source, i) for source in clips for i, sample in enumerate(source.samples)}

    def clip_of(key: str) -> Example:
        source, index = places[key]
        return source[index]

    return clip_of


class CutClips:
    """Clips whose features are their activations behind `cut`, or their frames where that is ""."""

    def __init__(self, clips: Clips, readers: dict[str, FeatureReader]) -> None:
        self._clips, self._readers = clips, readers
        self.cut = ""

    @property
    def samples(self) -> list[Sample]:
        return self._clips.samples

    @property
    def lengths(self) -> list[int]:
        return self._clips.lengths

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, index: int) -> Example:
        if not self.cut:
            return self._clips[index]
        sample = self._clips.samples[index]
        return Example(sample, self._readers[self.cut].features(sample.key))


@dataclasses.dataclass(frozen=True)
class Prefix:
    """Clips of a run for training and validation, and what they are in each stage."""

    cuts: tuple[str, ...]
    train: CutClips
    val: CutClips

    def enter(self, stage: int, model: nn.Module) -> None:
        """From now on clips come as this stage has them, and the model reads them so."""
        cut = self.cuts[stage]
        model.starts_behind = cut  # pyright: ignore[reportArgumentType]
        self.train.cut = self.val.cut = cut


def begin_prefix(run: Run, model: nn.Module, train: Clips, val: Clips, *, device: torch.device, newest: Path | None) -> Prefix:
    """Make sure that all activations of a run are there, and read them from now on. `newest`: the checkpoint it goes on from.

    Every rank calls it, and takes its share of what is missing. Stages that are over are not looked at.

    Raises:
        SettingsError: as `caches_of`.
        RunError: the run did not begin with the weights that it would begin with now.
    """
    cuts = cuts_of(run, model)
    first = _stage_after(newest, run, len(cuts))
    caches = caches_of(run, model, (train, val), stages=slice(first, None))
    if newest is not None:
        _check_start(newest, model, caches)
    model.to(device)
    readers: dict[str, FeatureReader] = {}
    for cut, cache in caches.items():
        started = time.perf_counter()
        if done := fill(cache, model, (train, val)):
            seconds = time.perf_counter() - started
            logger.info("%d clips behind %s: %.3g GB in %.1f s", done, cut, done * cache.clip_bytes / 1e9, seconds)
        readers[cut] = cache.store.reader(cache.clip_bytes)
    prefix = Prefix(cuts, CutClips(train, readers), CutClips(val, readers))
    prefix.enter(first, model)
    return prefix


def _stage_after(newest: Path | None, run: Run, stages: int) -> int:
    """The stage in which a run goes on."""
    epoch = int(progress_of(newest)["epoch"]) if newest is not None else 0
    return stage_of(epoch, max(run.train.epochs, 1), stages)


def _check_start(newest: Path, model: nn.Module, caches: dict[str, Cache]) -> None:
    """Layers that have not trained yet are, in a checkpoint, those that the run began with."""
    state = load_weights_file(newest / (WEIGHTS if (newest / WEIGHTS).exists() else MODEL))
    for cut in caches:
        names = still_names(model, cut)
        if digest_of(state, names) != digest_of(model.state_dict(), names):
            raise RunError(
                f"checkpoint {str(newest)!r} has other weights before {cut!r} than the run would begin with now: the file of "
                "train.start_from or model.weights was changed; go on with train.cache_prefix=false"
            )


@torch.no_grad()
def activations_of(model: nn.Module, cut: str, clips: Sequence[Example]) -> list[np.ndarray]:
    """What the layers before a cut make of at most `TOGETHER` clips of one length, float32 (T', ...) each."""
    assert isinstance(model, Cuttable)
    frames = np.stack([clip.features for clip in [*clips, *[clips[-1]] * (TOGETHER - len(clips))]])
    device = next(iter(model.parameters())).device
    with evaluating(model):
        found = model.activations(torch.from_numpy(frames).to(device), cut).float().cpu()
    return [row.contiguous().numpy() for row in found[: len(clips)]]
