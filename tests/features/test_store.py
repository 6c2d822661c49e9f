"""The feature store: shards that are there as a whole or not at all, keys that find what was stored."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sign_dist.config.data import Features, FrameFeatures, LandmarkFeatures, Sampling, SignHieraFeatures
from sign_dist.data.layout import DatasetDir
from sign_dist.errors import DataError
from sign_dist.features.spec import FeatureSpec
from sign_dist.features.store import SCHEMA, FeatureStore, pack, unpack


def row(key: str, features: np.ndarray | None = None, error: str = "") -> dict[str, Any]:
    features = np.zeros((2, 3), np.float16) if features is None else features
    return {"key": key, "id": f"id {key}", "fps": 25.0, "error": error} | pack(features)


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore.create(DatasetDir(tmp_path), FeatureSpec(features=LandmarkFeatures()))


ARRAYS = hnp.arrays(
    st.sampled_from(["float16", "float32", "uint8", "int64", "bool", ">f4", "<i2"]),
    hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
)


@given(ARRAYS, st.booleans())
def test_an_array_comes_back_in_shape_type_and_value(array: np.ndarray, turned: bool) -> None:
    array = array.T if turned else array
    packed = pack(array)
    found = unpack(packed["features"], packed["shape"], packed["dtype"])
    assert found.shape == array.shape
    assert found.dtype == array.dtype.newbyteorder("=")
    np.testing.assert_array_equal(found, array)
    found[...] = 0  # whoever augments may write


def test_what_is_committed_is_read_and_doing_it_twice_changes_nothing(store: FeatureStore) -> None:
    rng = np.random.default_rng(0)
    arrays = {f"k{i}": rng.normal(size=(i + 1, 5)).astype(np.float16) for i in range(4)}
    rows = [row(key, array) for key, array in arrays.items()]
    path = store.commit(rows)
    content = path.read_bytes()
    for again in (rows, rows[::-1]):
        assert store.commit(again) == path
    assert store.commit(rows).read_bytes() == content
    assert store.shards() == [path]
    other = store.commit([row("bad", np.zeros(0), "truncated: it breaks off")])
    assert sorted(store.shards()) == sorted([path, other])
    reader = store.reader()
    assert sorted(reader.keys) == ["bad", *arrays]
    for key, array in arrays.items():
        np.testing.assert_array_equal(reader.features(key), array)
        assert reader.error(key) == ""
        assert key in reader
    assert "none" not in reader
    assert store.errors() == dict.fromkeys(arrays, "") | {"bad": "truncated: it breaks off"}
    with pytest.raises(DataError, match="'id bad' has no features: truncated: it breaks off"):
        reader.features("bad")
    with pytest.raises(DataError, match=r"none is not in .*sign-dist extract"):
        reader.features("none")
    assert pq.read_schema(path).equals(SCHEMA)


def test_a_failed_commit_leaves_nothing(store: FeatureStore) -> None:
    with pytest.raises(KeyError):
        store.commit([row("a"), {"key": "b"}])
    with pytest.raises((TypeError, ValueError)):
        store.commit([row("a") | {"fps": "fast"}])
    assert store.shards() == []
    assert [p.name for p in store.folder.iterdir()] == ["spec.json"]


KILLED = """
import sys
from pathlib import Path
import numpy as np
from sign_dist.features.store import FeatureStore, pack
store = FeatureStore(Path(sys.argv[1]))
array = pack(np.random.default_rng(0).normal(size=(200, 300)).astype(np.float16))
for i in range(10_000):
    store.commit([{"key": f"{i % 30}-{j}", "id": str(i % 30), "fps": 25.0, "error": "", **array} for j in range(4)])
    print(i, flush=True)
"""


def test_a_writer_that_is_killed_leaves_only_whole_shards(store: FeatureStore) -> None:
    writer = subprocess.Popen([sys.executable, "-c", KILLED, str(store.folder)], stdout=subprocess.PIPE)
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline()
        end = time.monotonic() + 0.5
        while time.monotonic() < end:  # who reads meanwhile sees whole shards only
            check_whole(store)
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
    assert writer.returncode == -signal.SIGKILL
    assert check_whole(store) >= 1
    (store.folder / ".part-00.parquet.abc").write_bytes(b"PAR1 half")  # what a kill leaves behind
    assert check_whole(store) >= 1


def check_whole(store: FeatureStore) -> int:
    reader = store.reader()
    groups = {key.split("-")[0] for key in reader.keys}
    assert sorted(reader.keys) == sorted(f"{group}-{j}" for group in groups for j in range(4))
    assert len(store.shards()) >= len(groups)
    return len(groups)


def test_features_are_found_by_their_settings(tmp_path: Path) -> None:
    dataset = DatasetDir(tmp_path)
    with pytest.raises(DataError, match=r"no 'landmarks' features .*it has none.*sign-dist extract"):
        FeatureStore.find(dataset, LandmarkFeatures())
    made = {kind: FeatureStore.create(dataset, FeatureSpec(features=kind())) for kind in (LandmarkFeatures, FrameFeatures)}
    for kind, store in made.items():
        assert FeatureStore.find(dataset, kind()).folder == store.folder
        assert store.spec().name == store.folder.name
        assert FeatureStore.create(dataset, store.spec()).folder == store.folder
    with pytest.raises(DataError, match="with these settings") as error:
        FeatureStore.find(dataset, LandmarkFeatures(face=not LandmarkFeatures().face))
    assert all(store.folder.name in str(error.value) for store in made.values())
    FeatureStore.create(dataset, FeatureSpec(features=LandmarkFeatures(), weights="ab" * 32))
    with pytest.raises(DataError, match="several feature folders fit"):
        FeatureStore.find(dataset, LandmarkFeatures())


@pytest.mark.parametrize("content", ["", "{", "[]", '{"features": {"kind": "landmarks", "unknown": 1}}', '{"features": 3}'])
def test_a_damaged_spec_is_named(store: FeatureStore, content: str) -> None:
    store.spec_file.write_text(content)
    with pytest.raises(DataError, match=r"spec\.json"):
        FeatureStore.find(DatasetDir(store.folder.parent.parent), LandmarkFeatures())


def another(name: str, value: Any) -> Any:
    """Another value that the setting allows."""
    match value:
        case bool():
            return not value
        case str():
            return "w"
        case float():
            return value / 2
        case _:
            return value + (32 if name.endswith("size_px") else 1)


@pytest.mark.parametrize("features", [LandmarkFeatures(), SignHieraFeatures(), FrameFeatures()])
def test_every_setting_changes_the_name_of_the_folder(features: Features) -> None:
    spec = FeatureSpec(features=features)
    names = {spec.name}
    settings = [n for n in features.flat() if n not in ("kind", "preset")]
    for name in settings:
        names.add(FeatureSpec(features=features.with_values({name: another(name, features.flat()[name])})).name)
    for other in ({"weights": "ab"}, {"dtype": "float32"}, {"version": 2}):
        names.add(spec.with_values(other).name)
    assert len(names) == 1 + len(settings) + 3
    assert all(name.startswith(f"{features.kind}-") for name in names)
    assert FeatureSpec.from_tree(json.loads(json.dumps(spec.to_json()))).name == spec.name


def test_a_digest_is_the_same_in_another_process() -> None:
    spec = FeatureSpec(features=LandmarkFeatures(sampling=Sampling(fps=12)), weights="ab")
    code = f"from sign_dist.features.spec import FeatureSpec; print(FeatureSpec.from_tree({spec.to_json()!r}).digest())"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert found.stdout.strip() == spec.digest()
