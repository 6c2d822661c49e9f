"""Embeddings of sentences by the clip's id, made once by whatever knows the text: targets for SONAR's sign encoder.

A `.npz` holds one array per clip, or `ids` and `embeddings`; a `.parquet` has the columns `id` and `embedding`.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sign_dist.data.layout import written_whole
from sign_dist.errors import DataError

Embeddings = dict[str, np.ndarray]


def read_embeddings(path: Path) -> Embeddings:
    """Vectors (E,) float32 by clip.

    Raises:
        DataError: there is no such file, it cannot be read, or its vectors differ in width or are no finite numbers.
    """
    if not path.is_file():
        raise DataError(f"no target embeddings {str(path)!r}: give a .parquet or .npz file")
    try:
        found = _of_npz(path) if path.suffix == ".npz" else _of_parquet(path)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"target embeddings {str(path)!r} cannot be read ({reason}): they need ids and embeddings") from None
    widths = {vector.shape for vector in found.values()}
    if len(widths) != 1 or len(next(iter(widths))) != 1:
        shapes = ", ".join(map(str, sorted(widths)[:3])) or "none"
        raise DataError(f"target embeddings {str(path)!r} must be vectors of one width, got shapes {shapes}")
    if wrong := [id_ for id_, vector in found.items() if not np.isfinite(vector).all()]:
        raise DataError(f"target embeddings {str(path)!r}: that of {wrong[0]!r} is no finite vector")
    return found


def write_embeddings(path: Path, embeddings: Mapping[str, np.ndarray]) -> None:
    """A .parquet file that `read_embeddings` reads."""
    vectors = [np.asarray(vector, np.float32) for vector in embeddings.values()]
    table = pa.table({"id": list(embeddings), "embedding": pa.array(vectors, pa.list_(pa.float32()))})
    with written_whole(path) as temporary:
        pq.write_table(table, temporary)  # pyright: ignore[reportUnknownMemberType]


def _of_npz(path: Path) -> Embeddings:
    with np.load(path, allow_pickle=False) as arrays:
        if {"ids", "embeddings"} <= set(arrays.files):
            ids, rows = arrays["ids"], arrays["embeddings"]
            return {str(id_): row.astype(np.float32) for id_, row in zip(ids, rows, strict=True)}
        return {name: arrays[name].astype(np.float32) for name in arrays.files}


def _of_parquet(path: Path) -> Embeddings:
    table = pq.ParquetFile(path, pre_buffer=False).read(columns=["id", "embedding"], use_threads=False)
    columns = table.to_pydict()
    return {str(i): np.asarray(v, np.float32) for i, v in zip(columns["id"], columns["embedding"], strict=True)}
