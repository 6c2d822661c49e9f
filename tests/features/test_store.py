"""The feature store: shards that are there as a whole or not at all, keys that find what was stored."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import typing
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
    assert store.commit("b-0", rows)
    content = tree(store)
    for again in (rows, rows[::-1], [row("k0")]):
        assert not store.commit("b-0", again)  # whoever comes late is dropped, whatever it has
    assert tree(store) == content
    assert store.commit("c-0", [row("bad", np.zeros(0), "truncated: it breaks off")])
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
    assert all(pq.read_schema(path).equals(SCHEMA) for path in (folder(store) / "shards").iterdir())


@pytest.mark.long
@given(st.permutations(range(6)))
def test_a_store_does_not_tell_the_order_in_which_it_was_filled(order: list[int]) -> None:
    with tempfile.TemporaryDirectory() as name:
        stores = [FeatureStore.create(DatasetDir(Path(name, str(i))), FeatureSpec(features=LandmarkFeatures())) for i in range(2)]
        for i in range(6):
            stores[0].commit(f"b{i}-0", [row(f"{i}a"), row(f"{i}b")])
        for i in order:
            stores[1].commit(f"b{i}-0", [row(f"{i}b"), row(f"{i}a")])
        assert tree(stores[0]) == tree(stores[1])


def test_a_good_row_replaces_a_failed_one_and_never_the_other_way(store: FeatureStore) -> None:
    good = np.ones((3, 2), np.float16)
    store.commit("m-0", [row("a", np.zeros(0), "timed_out: slow disk"), row("b", good)])
    store.commit("a-1", [row("a", good * 2)])
    store.commit("z-1", [row("b", np.zeros(0), "timed_out: slow disk"), row("a", good * 3)])
    assert store.errors() == {"a": "", "b": ""}
    np.testing.assert_array_equal(store.reader().features("a"), good * 2)
    np.testing.assert_array_equal(store.reader().features("b"), good)


def test_a_failed_commit_leaves_nothing(store: FeatureStore) -> None:
    with pytest.raises(KeyError):
        store.commit("b-0", [row("a"), {"key": "b"}])
    with pytest.raises((TypeError, ValueError)):
        store.commit("b-0", [row("a") | {"fps": "fast"}])
    assert store.commits() == []
    assert list(tree(store)) == ["spec.json"]


KILLED = """
import sys
from pathlib import Path
import numpy as np
from sign_dist.features.store import FeatureStore, pack
store = FeatureStore(Path(sys.argv[1]))
array = pack(np.random.default_rng(0).normal(size=(200, 300)).astype(np.float16))
for i in range(10_000):
    store.commit(f"{i}-0", [{"key": f"{i}-{j}", "id": str(i), "fps": 25.0, "error": "", **array} for j in range(4)])
    print(i, flush=True)
"""


@pytest.mark.long
def test_a_writer_that_is_killed_leaves_only_whole_blocks(store: FeatureStore) -> None:
    writer = subprocess.Popen([sys.executable, "-c", KILLED, str(folder(store))], stdout=subprocess.PIPE)
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline()
        end = time.monotonic() + 0.5
        while time.monotonic() < end:  # who reads meanwhile sees whole blocks only
            check_whole(store)
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
    assert writer.returncode == -signal.SIGKILL
    assert check_whole(store) >= 1
    (folder(store) / "staging" / "half").write_bytes(b"PAR1 half")  # what a kill leaves behind
    assert check_whole(store) >= 1


def check_whole(store: FeatureStore) -> int:
    reader = store.reader()
    groups = {key.split("-")[0] for key in reader.keys}
    assert sorted(reader.keys) == sorted(f"{group}-{j}" for group in groups for j in range(4))
    for key in reader.keys[-2:]:
        assert reader.features(key).shape == (200, 300)
    return len(groups)


def folder(store: FeatureStore) -> Path:
    return Path(store.uri)


def tree(store: FeatureStore) -> dict[str, bytes]:
    """Every file of a store with its bytes."""
    root = folder(store)
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_damaged_records_and_shards_are_named(store: FeatureStore) -> None:
    store.commit("b-0", [row("a")])
    shard = next((folder(store) / "shards").iterdir())
    shard.write_bytes(shard.read_bytes()[:40])
    with pytest.raises(DataError, match="store verify"):
        FeatureStore(store.uri).reader().features("a")
    shard.unlink()
    with pytest.raises(DataError, match="store verify"):
        FeatureStore(store.uri).reader().features("a")
    for text in ("", "{}", "[1]", '{"block": 1}'):
        (folder(store) / "commits" / "b-0.json").write_text(text)
        with pytest.raises(DataError, match=r"commit record .*damaged.*store verify"):
            FeatureStore(store.uri).commits()


def test_features_are_found_by_their_settings(tmp_path: Path) -> None:
    dataset = DatasetDir(tmp_path)
    with pytest.raises(DataError, match=r"no 'landmarks' features .*it has none.*sign-dist extract"):
        FeatureStore.find(dataset, LandmarkFeatures())
    made = {kind: FeatureStore.create(dataset, FeatureSpec(features=kind())) for kind in (LandmarkFeatures, FrameFeatures)}
    for kind, store in made.items():
        assert FeatureStore.find(dataset, kind()).uri == store.uri
        assert store.spec().name == store.name
        assert FeatureStore.create(dataset, store.spec()).uri == store.uri
    with pytest.raises(DataError, match="with these settings") as error:
        FeatureStore.find(dataset, LandmarkFeatures(face=not LandmarkFeatures().face))
    assert all(store.name in str(error.value) for store in made.values())
    FeatureStore.create(dataset, FeatureSpec(features=LandmarkFeatures(), weights="ab" * 32))
    with pytest.raises(DataError, match="several feature folders fit"):
        FeatureStore.find(dataset, LandmarkFeatures())


@pytest.mark.parametrize("content", ["", "{", "[]", '{"features": {"kind": "landmarks", "unknown": 1}}', '{"features": 3}'])
def test_a_damaged_spec_is_named(store: FeatureStore, content: str) -> None:
    (folder(store) / "spec.json").write_text(content)
    with pytest.raises(DataError, match=r"spec\.json"):
        FeatureStore.find(DatasetDir(folder(store).parent.parent), LandmarkFeatures())


def another(features: Features, name: str) -> Any:
    """Another value that the setting allows."""
    value = features.flat()[name]
    field = type(features).model_fields.get(name)
    if field is not None and typing.get_origin(field.annotation) is typing.Literal:
        return next(choice for choice in typing.get_args(field.annotation) if choice != value)
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
        names.add(FeatureSpec(features=features.with_values({name: another(features, name)})).name)
    for other in ({"weights": "ab"}, {"dtype": "float32"}, {"version": spec.version + 1}):
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
