"""Ray Data: what the still layers of a run make of its clips, computed once for all runs and trials that share them."""

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

from ray.data import ActorPoolStrategy

from sign_dist.config.run import Run
from sign_dist.errors import RunError, SignDistError
from sign_dist.features.blocks import Block, Outcome
from sign_dist.on_ray.clips import from_rows, retries_set
from sign_dist.on_ray.cluster import num_cpus, num_gpus
from sign_dist.training.data import Clips
from sign_dist.training.prefix import POLL_S, Cache, by_key, caches_of, compute_block
from sign_dist.training.start import first_model, with_absolute_files

# Passes that may end without a committed block, though nobody else held one.
MAX_BARREN = 3


def ensure_prefix(run: Run) -> int:
    """Make sure that the activations of a run with `train.cache_prefix` are there; answers how many clips were missing in all.

    It may be called for any run and as often as one likes, by several at once: they share the work.

    Raises:
        SettingsError: nothing of the run stands still, or the cache would be too large.
        RunError: workers died again and again, or could not write.
    """
    if not run.train.cache_prefix:
        return 0
    run = with_absolute_files(run.with_values({"data.root": str(Path(run.data.root).absolute())}))
    clips = _clips_of(run)
    missing = 0
    for cache in caches_of(run, first_model(run, clips[0][0]), clips).values():
        missing += sum(len(block.rows) for block in cache.blocks)
        _fill(run, cache)
    return missing


def _fill(run: Run, cache: Cache) -> None:
    """Pass after pass until every block is committed, by us or by another."""
    left, barren = list(cache.blocks), 0
    while left:
        outcomes = _pass(run, cache, left)
        if failed := next((outcome for outcome in outcomes if outcome.state == "failed"), None):
            raise RunError(f"train.cache_prefix cannot be computed into {cache.store.uri!r}: {failed.detail}")
        before, left = len(left), [block for block in left if not cache.store.has(block.name)]
        held = any(outcome.state == "held" for outcome in outcomes)
        barren = barren + 1 if len(left) == before and not held else 0
        if barren >= MAX_BARREN:
            raise RunError(
                f"{barren} times in a row every worker that computed what stands behind {cache.cut!r} died: "
                "see Ray's logs, and the machine's memory"
            )
        if left and held:
            time.sleep(POLL_S)


def _pass(run: Run, cache: Cache, blocks: list[Block]) -> list[Outcome]:
    """What became of blocks; nothing of those whose process died."""
    gpus = num_gpus()
    rows = [{"name": block.name, "rows": json.dumps(block.rows)} for block in blocks]
    with retries_set():
        answered = from_rows(rows, 1).map_batches(
            _ComputeBlocks,
            fn_constructor_kwargs={"run": run, "cut": cache.cut, "store": cache.store.name, "device": "cuda" if gpus else "cpu"},
            batch_size=1,
            compute=ActorPoolStrategy(min_size=1, max_size=max(1, min(gpus or num_cpus(), len(blocks)))),
            num_cpus=1 if gpus else 0.8,
            num_gpus=1 if gpus else 0,
            max_restarts=-1,
            max_task_retries=0,
        )
    return [Outcome(**json.loads(row["outcome"])) for row in answered.iter_rows()]


class _ComputeBlocks:
    """An actor with the model in memory. Its weights must be the driver's: the store's name says so."""

    def __init__(self, run: Run, cut: str, store: str, device: str) -> None:
        self._cut, self._fault = cut, ""
        try:
            clips = _clips_of(run)
            self._model = first_model(run, clips[0][0])
            self._store = caches_of(run, self._model, clips)[cut].store
            self._clip_of = by_key(clips)
            self._model.to(device)
            if self._store.name != store:
                self._fault = f"this worker has other frames or weights ({self._store.name}) than the driver ({store})"
        except SignDistError as error:  # an actor that cannot be built would be built again for ever
            self._fault = str(error)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        blocks = [Block(str(name), tuple(json.loads(rows))) for name, rows in zip(batch["name"], batch["rows"], strict=True)]
        return {"outcome": [json.dumps(dataclasses.asdict(self._outcome(block))) for block in blocks]}

    def _outcome(self, block: Block) -> Outcome:
        if self._fault:
            return Outcome(block.name, "failed", detail=self._fault)
        try:
            return compute_block(block, self._store, self._model, self._cut, self._clip_of)
        except (OSError, SignDistError) as error:
            return Outcome(block.name, "failed", detail=f"{type(error).__name__}: {error}")


def _clips_of(run: Run) -> tuple[Clips, Clips]:
    """All that the run trains on and is evaluated on."""
    return Clips.of(run, run.data.train_split), Clips.of(run, run.data.val_split)
