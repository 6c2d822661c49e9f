"""Ray Data: spread blocks of clips over actors that decode, encode (on GPUs where there are some) and commit.

Errors are rows. A process that dies takes at most the block it held, and that is tried again; the clip that kills is found
by what the dead left behind, and named.
"""

import collections
import dataclasses
import json
import math
import time
from collections.abc import Generator
from typing import Any

from ray.data import ActorPoolStrategy

from sign_dist.config.data import Features, FrameFeatures
from sign_dist.data.layout import SPLITS, DatasetDir
from sign_dist.data.manifest import read_manifest
from sign_dist.data.privacy import settle
from sign_dist.data.sample import Sample
from sign_dist.errors import DataError, ServiceError, SignDistError, VideoError, WeightsError
from sign_dist.features.blocks import Block, Outcome, compute, plan
from sign_dist.features.encode import NO_FILES, EncoderFiles, build_encoder, error_text, find_files, spec_for
from sign_dist.features.store import FeatureStore
from sign_dist.on_ray.clips import Progress, from_rows, retries_set
from sign_dist.on_ray.cluster import num_cpus, num_gpus
from sign_dist.video.guarded import read_guarded
from sign_dist.video.tracks import is_track

# Which encoders have a use for a GPU.
ON_GPU = ("signhiera",)
# Of a logical CPU: a worker fills one, and Ray Data needs a little beside the workers.
WORKER_CPU = 0.9
# Seconds between looks at blocks that another job holds.
POLL_S = 1.0
# Passes that may end without a single committed block: more than the deaths that condemn a clip.
MAX_BARREN = 8


@dataclasses.dataclass(frozen=True)
class Extracted:
    """What an extraction did."""

    where: str
    """The store's folder or address."""
    clips: int
    done_before: int
    failed: dict[str, int]
    """Clips without features, by reason code."""


def extract(
    dataset: DatasetDir, features: Features, *, progress: Progress | None = None, retry_errors: bool = False, shared: str = ""
) -> Extracted:
    """Compute the features of every clip of a dataset that has none yet. Done clips are left alone, so it can be repeated,
    and several may run at once on one store: they share the work.

    Raises:
        DataError: the dataset is not prepared, or nothing can be written to the store.
        WeightsError: a model file is missing.
    """
    features = settle(dataset, features, "none")  # what was said of the dataset's people holds for every caller
    todo = find_todo(dataset, features, retry_errors=retry_errors, shared=shared)
    if todo.blocks:
        _compute(todo, features, progress)
        todo.store.place.sweep()
    elif progress:
        progress(todo.num_clips, todo.num_clips)
    return todo.result()


@dataclasses.dataclass(frozen=True)
class Todo:
    """What an extraction has to do. Made without Ray."""

    store: FeatureStore
    files: EncoderFiles
    keys: frozenset[str]
    """Of every clip of the dataset."""
    num_clips: int
    blocks: list[Block]
    most_bytes: int = 0
    """Of a frame cache: what the pending clips take at most, before compression. 0 for features, which are small."""

    @property
    def num_pending(self) -> int:
        """Clips to compute."""
        return sum(len(block.rows) for block in self.blocks)

    def result(self) -> "Extracted":
        """What stands in the store now."""
        errors = [error for key, error in self.store.errors().items() if key in self.keys and error]
        tally = collections.Counter(error.split(":")[0] for error in errors)
        return Extracted(self.store.uri, self.num_clips, self.num_clips - self.num_pending, dict(tally.most_common()))


def find_todo(dataset: DatasetDir, features: Features, *, retry_errors: bool = False, shared: str = "") -> Todo:
    """Which clips of a dataset have no features yet."""
    samples = [s for split in SPLITS for s in read_manifest(dataset, split)]
    tracks_only = features.kind == "landmarks" and bool(samples) and all(is_track(s.video_path) for s in samples)
    files = NO_FILES if tracks_only else find_files(features)
    store = FeatureStore.create(dataset, spec_for(features, files), shared=shared)
    videos = dataset.videos_root()
    rows = [{"key": s.key, "id": s.id, "path": str(videos / s.video_path), "start_s": s.start_s, "end_s": s.end_s} for s in samples]
    keys = frozenset(row["key"] for row in rows)
    blocks = plan(rows, store, retry_errors=retry_errors)
    pending = {row["key"] for block in blocks for row in block.rows}
    most = sum(frame_bytes(features, s) for s in samples if s.key in pending) if isinstance(features, FrameFeatures) else 0
    return Todo(store, files, keys, len(keys), blocks, most)


def frame_bytes(features: FrameFeatures, sample: Sample) -> int:
    """Bytes of a clip's frames before compression; its length is that of the check, at its sampling."""
    seconds = sample.n_frames / sample.fps if sample.fps else 0.0
    return (features.num_frames or math.ceil(seconds * features.sampling.fps)) * features.size_px**2 * 3


def _compute(todo: Todo, features: Features, progress: Progress | None) -> None:
    """Pass after pass over the blocks until every one is committed, by us or by another job."""
    done = todo.num_clips - todo.num_pending
    left = {block.name: block for block in todo.blocks}
    barren = 0
    while left:
        if progress:
            progress(done, todo.num_clips)
        before = len(left)
        held = False
        for outcome in _run(list(left.values()), features, todo):
            if outcome.state == "failed":
                raise DataError(f"extraction into {todo.store.uri!r} cannot go on: {outcome.detail}")
            held = held or outcome.state == "held"
            if outcome.state in ("committed", "present") and left.pop(outcome.block, None):
                done += outcome.num_clips
                if progress:
                    progress(done, todo.num_clips)
        # What is left was held by another job, or lost with the process that held it.
        left = {name: block for name, block in left.items() if not todo.store.has(name)}
        done = todo.num_clips - sum(len(block.rows) for block in left.values())
        barren = barren + 1 if len(left) == before and not held else 0
        if barren > MAX_BARREN:
            raise ServiceError(
                f"{barren} times in a row every worker died before it had done anything; the last tries were on "
                f"{', '.join(row['id'] for row in next(iter(left.values())).rows[:3])}: see Ray's logs, and the machine's memory"
            )
        if left and held:
            time.sleep(POLL_S)


def _run(blocks: list[Block], features: Features, todo: Todo) -> Generator[Outcome]:
    """One pass: every block to an actor that decodes, encodes and commits it. What dies with its actor is not answered.

    Decoding and encoding share a process: frames are a hundred times larger than features, and sending them from task to
    task costs more than a GPU's machine gains from another's CPUs.
    """
    gpus = num_gpus() if features.kind in ON_GPU else 0
    workers = min(gpus or num_cpus(), len(blocks))
    threads = max(1, num_cpus() // gpus) if gpus else 0
    rows = [{"name": block.name, "rows": json.dumps(block.rows)} for block in blocks]
    # A block that kills its process is not run again by Ray, which would do so for ever; an actor that dies is replaced.
    with retries_set():
        answered = from_rows(rows, 1).map_batches(
            _ComputeBlocks,
            fn_constructor_kwargs={
                "features": features,
                "files": todo.files,
                "store": todo.store,
                "device": "cuda" if gpus else "cpu",
                "decode_threads": threads,
            },
            batch_size=1,
            # One waits at each actor, which would else idle for about 0.15 s between blocks. What waits at an actor that
            # dies comes again in the next pass.
            compute=ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=2),
            num_cpus=threads or WORKER_CPU,
            num_gpus=1 if gpus else 0,
            max_restarts=-1,
            max_task_retries=0,
        )
    for row in answered.iter_rows():
        yield Outcome(**json.loads(row["outcome"]))


class _ComputeBlocks:
    """An actor with an encoder in memory."""

    def __init__(self, features: Features, files: EncoderFiles, store: FeatureStore, device: str, decode_threads: int) -> None:
        self._features, self._store, self._threads = features, store, decode_threads
        self._fault = ""
        try:
            self._encoder = build_encoder(features, _here(features, files), device=device)
        except SignDistError as error:  # an actor that cannot be built would be built again for ever
            self._fault = str(error)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {
            "outcome": [self._outcome(str(name), json.loads(rows)) for name, rows in zip(batch["name"], batch["rows"], strict=True)]
        }

    def _outcome(self, name: str, rows: list[dict[str, Any]]) -> str:
        block = Block(name, tuple(rows))
        if self._fault:
            return json.dumps(dataclasses.asdict(Outcome(name, "failed", detail=self._fault)))
        try:
            outcome = compute(
                block, self._store, self._features, self._encoder, decode_threads=self._threads, suspect=self._suspect
            )
        except (OSError, SignDistError) as error:  # the disk is full, the bucket is gone: no other block would fare better
            outcome = Outcome(name, "failed", detail=f"{type(error).__name__}: {error}")
        return json.dumps(dataclasses.asdict(outcome))

    def _suspect(self, row: dict[str, Any]) -> str:
        """Decode a clip that a process died of in a child process; "" if that goes well."""
        if is_track(row["path"]):  # no decoder that could crash
            return ""
        try:
            read_guarded(row["path"], start_s=row["start_s"], end_s=row["end_s"], **self._features.sampling.model_dump())
        except VideoError as error:
            return error_text(error)
        return ""


def _here(features: Features, files: EncoderFiles) -> EncoderFiles:
    """The driver's model files as this machine finds them."""
    if all(path.exists() for path in files.paths.values()):
        return files
    here = find_files(features)
    if here.digest != files.digest:
        raise WeightsError(
            f"the model files of this worker ({here.digest[:8]}) are not those of the driver ({files.digest[:8]}): "
            "set SIGN_DIST_MODELS to a folder that all machines share"
        )
    return here
