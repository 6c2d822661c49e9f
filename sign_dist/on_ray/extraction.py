"""Ray Data: check clips, decode on CPUs, encode on actors (GPUs where there are some), commit shards.

A row is one clip all the way. Errors are rows; a process that dies takes at most the clips it held, and those are tried
again one by one, so that the one that kills is found and named.
"""

import collections
import contextlib
import dataclasses
import functools
import logging
import math
import warnings
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.data import ActorPoolStrategy, DataContext
from ray.util.annotations import RayDeprecationWarning

from sign_dist.config.data import Features, Sampling
from sign_dist.data.layout import SPLITS, DatasetDir
from sign_dist.data.manifest import read_manifest
from sign_dist.data.sample import Sample
from sign_dist.errors import WeightsError
from sign_dist.features.encode import EncoderFiles, build_encoder, decode_row, encode_row, find_files, spec_for
from sign_dist.features.store import FeatureStore, pack
from sign_dist.on_ray.cluster import num_cpus, num_gpus
from sign_dist.video.check import Checked, check_clip

Progress = Callable[[int, int], None]
"""(clips done, clips in all)"""

# Clips per shard: what a killed run may have to do again, against the number of files.
ROWS_PER_SHARD = 16
# Shares of a logical CPU. Encoding fills the cores; decoding must fit beside it, and committing only waits for the disk.
ENCODE_CPU, DECODE_CPU, COMMIT_CPU = 0.7, 0.2, 0.05


@dataclasses.dataclass(frozen=True)
class Extracted:
    """What an extraction did."""

    folder: Path
    clips: int
    done_before: int
    failed: dict[str, int]
    """Clips without features, by reason code."""


def check_all(samples: Sequence[Sample], folder: Path, sampling: Sampling, *, progress: Progress | None = None) -> list[Checked]:
    """`prepare`'s check, spread over the cluster: one `Checked` per sample, in order."""
    rows = [
        {"index": i, "path": str((folder / s.video_path).resolve()), "start_s": s.start_s, "end_s": s.end_s}
        for i, s in enumerate(samples)
    ]
    found: dict[int, Checked] = {}
    for attempt, block in enumerate((_rows_per_block(len(rows)), 1)):
        todo = [row for row in rows if row["index"] not in found]
        if not todo or (attempt and len(found) == len(rows)):
            break
        with _retries_set():
            dataset = from_rows(todo, block).map(functools.partial(_check_row, sampling=sampling), num_cpus=1, max_retries=0)
        for row in dataset.iter_rows():
            found[int(row["index"])] = Checked(
                row["reason"], row["detail"], row["sha256"], int(row["num_frames"]), float(row["fps"])
            )
            if progress:
                progress(len(found), len(rows))
    return [found.get(i) or Checked("crashed", "the process that read this file died, twice") for i in range(len(rows))]


def extract(dataset: DatasetDir, features: Features, *, progress: Progress | None = None, retry_errors: bool = False) -> Extracted:
    """Compute the features of every clip of a dataset that has none yet. Done clips are left alone, so it can be repeated.

    Raises:
        DataError: the dataset is not prepared.
        WeightsError: a model file is missing.
    """
    samples, files, store, rows = _todo(dataset, features, retry_errors=retry_errors)
    done = len(samples) - len(rows)
    if progress:
        progress(done, len(samples))
    if rows:
        _compute(rows, features, files, store, lambda count: progress and progress(done + count, len(samples)))
    errors = [error for key, error in store.errors().items() if key in samples and error]
    tally = collections.Counter(error.split(":")[0] for error in errors)
    return Extracted(store.folder, len(samples), done, dict(tally.most_common()))


def pending(dataset: DatasetDir, features: Features) -> int:
    """Clips that `extract` would compute. Needs no Ray."""
    return len(_todo(dataset, features, retry_errors=False)[3])


def _todo(
    dataset: DatasetDir, features: Features, *, retry_errors: bool
) -> tuple[dict[str, Sample], EncoderFiles, FeatureStore, list[dict[str, Any]]]:
    """The dataset's clips by key, and a row for each that has no features yet."""
    samples = {s.key: s for split in SPLITS for s in read_manifest(dataset, split)}
    files = find_files(features)
    store = FeatureStore.create(dataset, spec_for(features, files))
    have = {key for key, error in store.errors().items() if not (error and retry_errors)}
    videos = dataset.videos_root()
    rows = [
        {"key": key, "id": s.id, "path": str(videos / s.video_path), "start_s": s.start_s, "end_s": s.end_s}
        for key, s in samples.items()
        if key not in have
    ]
    return samples, files, store, rows


def _compute(
    rows: list[dict[str, Any]], features: Features, files: EncoderFiles, store: FeatureStore, progress: Callable[[int], Any]
) -> None:
    """Commit a row of the store for each row; one whose process dies twice, the second time alone, becomes an error."""
    lost = _run(rows, features, files, store, progress, _rows_per_block(len(rows)))
    if lost:
        lost = _run(lost, features, files, store, lambda count: None, block=1)
    for row in lost:
        dead = {"key": row["key"], "id": row["id"], "fps": 0.0, "error": "crashed: the process that read this clip died, twice"}
        store.commit([dead | pack(np.zeros(0, np.float16))])


def _run(
    rows: list[dict[str, Any]],
    features: Features,
    files: EncoderFiles,
    store: FeatureStore,
    progress: Callable[[int], Any],
    block: int,
) -> list[dict[str, Any]]:
    """Decode, encode and commit rows; answers those that were lost with the process that held them."""
    gpus = num_gpus()
    # A task that kills its process is not run again by Ray, which would do so for ever and take healthy neighbours with
    # it; an actor that dies is replaced, but what it held is not given to the next one. We find what was lost.
    with _retries_set():
        decoded = from_rows(rows, block).map(
            functools.partial(decode_row, features=features), num_cpus=1 if gpus else DECODE_CPU, max_retries=0
        )
        encoded = decoded.map_batches(
            _EncodeRows,
            fn_constructor_kwargs={"features": features, "files": files, "device": "cuda" if gpus else "cpu"},
            batch_size=1,
            compute=ActorPoolStrategy(size=min(gpus or num_cpus(), len(rows)), max_tasks_in_flight_per_actor=2),
            num_cpus=1 if gpus else ENCODE_CPU,
            num_gpus=1 if gpus else 0,
            max_restarts=-1,
            max_task_retries=0,
        )
    shard_rows = max(1, min(ROWS_PER_SHARD, math.ceil(len(rows) / (2 * max(num_cpus(), 1)))))
    committed = encoded.map_batches(functools.partial(_commit, store=store), batch_size=shard_rows, num_cpus=COMMIT_CPU)
    done = 0
    for row in committed.iter_rows():
        done += int(row["rows"])
        progress(done)
    have = store.errors()
    return [row for row in rows if row["key"] not in have]


class _EncodeRows:
    """An actor with an encoder in memory."""

    def __init__(self, features: Features, files: EncoderFiles, device: str) -> None:
        if not all(path.exists() for path in files.paths.values()):  # another machine than the driver's
            here = find_files(features)
            if here.digest != files.digest:
                raise WeightsError(
                    f"the model files of this worker ({here.digest[:8]}) are not those of the driver ({files.digest[:8]}): "
                    "set SIGN_DIST_MODELS to a folder that all machines share"
                )
            files = here
        self._encoder = build_encoder(features, files, device=device)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        rows = [encode_row({name: column[i] for name, column in batch.items()}, self._encoder) for i in range(len(batch["key"]))]
        return {name: _column([row[name] for row in rows]) for name in rows[0]}


def _commit(batch: Any, store: FeatureStore) -> dict[str, Any]:
    rows = [
        {name: column[i].tolist() if name == "shape" else column[i] for name, column in batch.items()}
        for i in range(len(batch["key"]))
    ]
    store.commit([row | {"fps": float(row["fps"])} for row in rows])
    return {"rows": [len(rows)]}


def _column(values: list[Any]) -> Any:
    """Values as a column that Ray Data takes as it is: lists of different lengths stay objects."""
    if isinstance(values[0], list | bytes):
        column = np.empty(len(values), dtype=object)
        column[:] = [np.asarray(v, np.int32) if isinstance(v, list) else v for v in values]
        return column
    return values


def _check_row(row: dict[str, Any], sampling: Sampling) -> dict[str, Any]:
    checked = check_clip(row["path"], start_s=row["start_s"], end_s=row["end_s"], sampling=sampling)
    return {"index": row["index"], **dataclasses.asdict(checked)}


def from_rows(rows: Sequence[dict[str, Any]], block: int) -> ray.data.Dataset:
    """A Ray dataset in blocks of so many rows: what is scheduled, retried and lost together."""
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.issue_detectors_config.detectors = []  # it advises memory numbers; decoding is bounded by our own limits
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context.print_on_execution_start = False
    context.max_errored_blocks = -1  # what a dying process held is found again by comparing with what was asked
    return ray.data.from_items(list(rows), override_num_blocks=max(1, math.ceil(len(rows) / block)))


@contextlib.contextmanager
def _retries_set() -> Generator[None]:
    """Ray 2.60 warns of retry settings given by keyword, and has no other place for them yet."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=RayDeprecationWarning)
        yield


def _rows_per_block(num_rows: int) -> int:
    """Small enough to spread over the cluster and to lose little, large enough not to drown in blocks."""
    return max(1, min(16, num_rows // (64 * max(num_cpus(), 1))))
