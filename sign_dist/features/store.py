"""The feature store of one spec: parquet shards of (key, features, error), each visible as a whole or not at all.

A shard is written under a temporary name and renamed; its final name is the digest of the keys in it. So a block of clips
that is computed twice (a worker died after its rename) replaces its shard with the same content, and a killed run leaves at
most temporary files. Rows hold plain Arrow types: any Parquet reader can open them.
"""

import functools
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sign_dist.config.data import Features
from sign_dist.data.layout import DatasetDir, write_json, written_whole
from sign_dist.errors import DataError, SettingsError
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


class FeatureStore:
    """Reads and writes the shards in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def create(cls, dataset: DatasetDir, spec: FeatureSpec) -> "FeatureStore":
        """The store of a spec inside a dataset, made if it is not there."""
        store = cls(dataset.features / spec.name)
        if not store.spec_file.exists():
            write_json(store.spec_file, spec.to_json())
        return store

    @classmethod
    def find(cls, dataset: DatasetDir, features: Features) -> "FeatureStore":
        """The store that these settings name.

        Raises:
            DataError: the features have not been extracted, or several weights made some.
        """
        stores = [cls(path.parent) for path in sorted(dataset.features.glob("*/spec.json"))]
        fitting = [store for store in stores if store.spec().features == features and store.spec().version == VERSION]
        if len(fitting) == 1:
            return fitting[0]
        have = ", ".join(store.folder.name for store in stores) or "none"
        if not fitting:
            raise DataError(
                f"dataset {str(dataset.root)!r} has no {features.kind!r} features with these settings (it has {have}): "
                f"run `sign-dist extract {dataset.root} --features {features.kind}` with the same values first"
            )
        raise DataError(
            f"several feature folders fit ({', '.join(store.folder.name for store in fitting)}), made with different model files: "
            "remove the ones you do not want"
        )

    @property
    def spec_file(self) -> Path:
        return self.folder / "spec.json"

    def spec(self) -> FeatureSpec:
        try:
            return FeatureSpec.from_tree(json.loads(self.spec_file.read_text(encoding="utf-8")))
        except (ValueError, SettingsError) as error:
            raise DataError(f"{str(self.spec_file)!r} is no feature spec ({error}): remove its folder and extract again") from None

    def shards(self) -> list[Path]:
        """Committed shards."""
        return sorted(self.folder.glob("part-*.parquet"))

    def commit(self, rows: Sequence[dict[str, Any]]) -> Path:
        """Make rows visible as one shard. Equal keys give an equal name, so doing it twice changes nothing."""
        keys = "\n".join(sorted(row["key"] for row in rows))
        path = self.folder / f"part-{hashlib.sha256(keys.encode()).hexdigest()[:16]}.parquet"
        table = pa.Table.from_pylist([{name: row[name] for name in SCHEMA.names} for row in rows], schema=SCHEMA)
        with written_whole(path) as temporary:
            pq.write_table(table, temporary, compression="zstd")
        return path

    def errors(self) -> dict[str, str]:
        """key -> error text of every committed clip; "" for the good ones."""
        found: dict[str, str] = {}
        for path in self.shards():
            for key, error in _keys_and_errors(path):
                if error == "" or key not in found:  # a clip that failed and was tried again may stand twice
                    found[key] = error
        return found

    def reader(self) -> "FeatureReader":
        return FeatureReader(self.folder, self.shards())


class FeatureReader:
    """Random access to features by key; decoded shards stay in memory as far as `cached_shards` allows."""

    def __init__(self, folder: Path, shards: Iterable[Path], *, cached_shards: int = 256) -> None:
        self.folder = folder
        self._place: dict[str, tuple[Path, int]] = {}
        for path in shards:
            for row, (key, error) in enumerate(_keys_and_errors(path)):
                if error == "" or key not in self._place:
                    self._place[key] = (path, row)
        self._load = functools.lru_cache(maxsize=cached_shards)(_load_shard)

    def __contains__(self, key: str) -> bool:
        return key in self._place

    def error(self, key: str) -> str:
        """Why a clip has no features, "" if it has some."""
        path, row = self._place[key]
        return self._load(path)["error"][row].as_py()

    def features(self, key: str) -> np.ndarray:
        """The array that was committed, in its shape and dtype.

        Raises:
            DataError: the clip failed to extract, or is not in the store.
        """
        if key not in self._place:
            raise DataError(f"clip {key} is not in {str(self.folder)!r}: run `sign-dist extract` again")
        path, row = self._place[key]
        table = self._load(path)
        if error := table["error"][row].as_py():
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


def _keys_and_errors(path: Path) -> list[tuple[str, str]]:
    table = pq.read_table(path, columns=["key", "error"])
    return list(zip(table["key"].to_pylist(), table["error"].to_pylist(), strict=True))


def _load_shard(path: Path) -> pa.Table:
    return pq.read_table(path)
