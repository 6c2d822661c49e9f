"""The feature store of one spec: rows (key, features, error), each committed exactly once, by any number of writers.

    spec.json
    shards/DIGEST.parquet      rows; named by the digest of their bytes, so equal content is one file
    commits/BLOCK.json         makes a shard visible: its digest, and every key in it with its error
    claims/BLOCK.json          who works on a block now; only saves work, nothing relies on it
    staging/                   files that are being written

A row's key is the digest of the clip's bytes and span, the folder's name is that of the spec: what is in a store depends
on nothing else, so datasets and jobs can share one. Two phases: the shard is written first and nobody looks at it; the
commit record is then created under the name of the block, which only one writer can do. A writer that comes late, however
long it slept, finds the name taken and drops what it has (the fence). Readers see committed rows only.
"""

import dataclasses
import functools
import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sign_dist.config.data import Features
from sign_dist.data.layout import DatasetDir
from sign_dist.errors import DataError, SettingsError
from sign_dist.features.place import Place, join, place_at
from sign_dist.features.spec import VERSION, FeatureSpec

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("id", pa.string()),
        ("features", pa.binary()),
        ("shape", pa.list_(pa.int32())),
        ("dtype", pa.string()),
        ("fps", pa.float32()),
        ("error", pa.string()),
    ]
)


@dataclasses.dataclass(frozen=True)
class Commit:
    """The record that makes a shard visible."""

    block: str
    shard: str
    """Its file's name."""
    sha256: str
    num_bytes: int
    keys: dict[str, str]
    """Key -> error text, "" for a good row, in the order of the shard's rows."""


def read_shard(data: bytes) -> pa.Table:
    """The rows of a shard. In this thread: a command that ends while Arrow starts threads of its own is aborted at its exit."""
    return pq.ParquetFile(pa.BufferReader(data), pre_buffer=False).read(use_threads=False)


class FeatureStore:
    """Reads and writes one spec's rows at a place."""

    again = "extract again"
    """What makes rows anew that `sign-dist store verify DATASET --repair` withdrew."""

    def __init__(self, where: str | Path | Place) -> None:
        self.place: Place = place_at(where) if isinstance(where, str | Path) else where
        self._seen: dict[str, Commit] = {}

    @property
    def name(self) -> str:
        return self.place.uri.partition("?")[0].rstrip("/").rpartition("/")[2]

    @property
    def uri(self) -> str:
        """For people and messages."""
        return self.place.uri

    @classmethod
    def create(cls, dataset: DatasetDir, spec: FeatureSpec, *, shared: str = "") -> "FeatureStore":
        """The store of a spec, made if it is not there: inside the dataset, or below the folder or address `shared`."""
        store = cls(join(shared or dataset.features, spec.name))
        store.place.create("spec.json", (json.dumps(spec.to_json(), indent=2) + "\n").encode())
        return store

    @classmethod
    def find(cls, dataset: DatasetDir, features: Features, *, shared: str = "") -> "FeatureStore":
        """The store that these settings name.

        Raises:
            DataError: the features have not been extracted, or several weights made some.
        """
        stores = cls.all_of(dataset, shared=shared)
        fitting = [store for store in stores if store.spec().features == features and store.spec().version == VERSION]
        if len(fitting) == 1:
            return fitting[0]
        have = ", ".join(store.name for store in stores) or "none"
        where = f"store {shared!r}" if shared else f"dataset {str(dataset.root)!r}"
        if not fitting:
            more = f" --store {shared}" if shared else ""
            raise DataError(
                f"{where} has no {features.kind!r} features with these settings (it has {have}): "
                f"run `sign-dist extract {dataset.root} --features {features.kind}{more}` with the same values first"
            )
        raise DataError(
            f"several feature folders fit ({', '.join(store.name for store in fitting)}), made with different model files: "
            "remove the ones you do not want"
        )

    @classmethod
    def all_of(cls, dataset: DatasetDir, *, shared: str = "") -> list["FeatureStore"]:
        """Every store of a dataset, or below `shared`."""
        root = shared or str(dataset.features)
        return [cls(join(root, name)) for name in place_at(root).folders() if place_at(join(root, name)).exists("spec.json")]

    def spec(self) -> FeatureSpec:
        where = join(self.uri, "spec.json")
        try:
            return FeatureSpec.from_tree(json.loads(self.place.read("spec.json").decode()))
        except (ValueError, SettingsError) as error:
            raise DataError(f"{where!r} is no feature spec ({error}): remove its folder and extract again") from None

    def commit(self, block: str, rows: Sequence[dict[str, Any]]) -> bool:
        """Make rows visible under the name of a block. False: another writer was first, and its rows stand.

        Equal rows give an equal shard whoever writes it, so nothing in the store tells how often it was interrupted.
        """
        if self.has(block):
            return False
        rows = sorted(rows, key=lambda row: row["key"])
        table = pa.Table.from_pylist([{name: row[name] for name in SCHEMA.names} for row in rows], schema=SCHEMA)
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        data = buffer.getvalue()
        digest = hashlib.sha256(data).hexdigest()
        shard = f"{digest[:24]}.parquet"
        self.place.write(f"shards/{shard}", data)
        keys = {row["key"]: row["error"] for row in rows}
        commit = Commit(block, shard, digest, len(data), keys)
        return self.place.create(
            f"commits/{block}.json", (json.dumps(dataclasses.asdict(commit), ensure_ascii=False) + "\n").encode()
        )

    def has(self, block: str) -> bool:
        """Has the block been committed?"""
        return self.place.exists(f"commits/{block}.json")

    def commits(self) -> list[Commit]:
        """Every commit record, by the name of its block. A record never changes, so each is read once.

        Raises:
            DataError: a record is damaged.
        """
        names = self.place.names("commits")
        for name in names:
            if name not in self._seen:
                self._seen[name] = self.read_commit(name)
        self._seen = {name: self._seen[name] for name in names}
        return [self._seen[name] for name in names]

    def errors(self) -> dict[str, str]:
        """key -> error text of every committed clip; "" for the good ones."""
        return {key: commit.keys[key] for key, commit in self.rows().items()}

    def rows(self) -> dict[str, Commit]:
        """key -> the commit whose row stands: a good row rather than a failed one, else the first by name."""
        standing: dict[str, Commit] = {}
        for commit in self.commits():
            for key, error in commit.keys.items():
                if key not in standing or (standing[key].keys[key] and not error):
                    standing[key] = commit
        return standing

    def reader(self) -> "FeatureReader":
        return FeatureReader(self)

    def load(self, shard: str) -> pa.Table:
        """The rows of a shard.

        Raises:
            DataError: the shard is gone or damaged.
        """
        try:
            return read_shard(self.place.read(f"shards/{shard}"))
        except (OSError, pa.ArrowException) as error:
            raise DataError(
                f"shard {shard!r} of {self.uri!r} cannot be read ({str(error)[:120]}): "
                f"run `sign-dist store verify DATASET --repair`, then {self.again}"
            ) from None

    def read_commit(self, name: str) -> Commit:
        """One record, by its file name.

        Raises:
            DataError: it is damaged.
        """
        try:
            return Commit(**json.loads(self.place.read(f"commits/{name}").decode()))
        except (ValueError, TypeError) as error:
            raise DataError(
                f"commit record {name!r} of {self.uri!r} is damaged ({error}): "
                f"run `sign-dist store verify DATASET --repair`, then {self.again}"
            ) from None


class FeatureReader:
    """Random access to committed features by key; decoded shards stay in memory as far as `cached_shards` allows."""

    def __init__(self, store: FeatureStore, *, cached_shards: int = 256) -> None:
        self.store = store
        self._place: dict[str, tuple[str, int, str]] = {}
        for key, commit in store.rows().items():
            self._place[key] = (commit.shard, list(commit.keys).index(key), commit.keys[key])
        self._load = functools.lru_cache(maxsize=cached_shards)(store.load)

    def __contains__(self, key: str) -> bool:
        return key in self._place

    def error(self, key: str) -> str:
        """Why a clip has no features, "" if it has some."""
        return self._place[key][2]

    def features(self, key: str) -> np.ndarray:
        """The array that was committed, in its shape and dtype.

        Raises:
            DataError: the clip failed to extract, or is not in the store.
        """
        if key not in self._place:
            raise DataError(f"clip {key} is not in {self.store.uri!r}: run `sign-dist extract` again")
        shard, row, error = self._place[key]
        table = self._load(shard)
        if error:
            raise DataError(f"clip {table['id'][row].as_py()!r} has no features: {error}")
        return unpack(table["features"][row].as_py(), table["shape"][row].as_py(), table["dtype"][row].as_py())

    @property
    def keys(self) -> list[str]:
        """Of every committed clip, failed ones included."""
        return list(self._place)


def pack(features: np.ndarray) -> dict[str, Any]:
    """An array as the columns `features`, `shape` and `dtype`, in this machine's byte order."""
    features = np.asarray(features, features.dtype.newbyteorder("="))
    return {"features": features.tobytes(), "shape": list(features.shape), "dtype": features.dtype.name}


def unpack(data: bytes, shape: Sequence[int], dtype: str) -> np.ndarray:
    """The array that `pack` was given, as a copy that can be written to."""
    return np.frombuffer(data, dtype=np.dtype(dtype)).reshape(shape).copy()


def block_name(keys: Iterable[str], generation: int = 0) -> str:
    """The name of a set of clips that are computed and committed together; `generation` counts repeated tries."""
    digest = hashlib.sha256("\n".join(sorted(keys)).encode()).hexdigest()[:16]
    return f"{digest}-{generation}"
