"""verify finds every damaged byte, gc removes only what nobody needs, explain tells where a clip stands."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sign_dist.config.data import LandmarkFeatures
from sign_dist.data.layout import DatasetDir
from sign_dist.features.claims import claim
from sign_dist.features.spec import FeatureSpec
from sign_dist.features.store import FeatureStore, pack
from sign_dist.features.upkeep import explain, gc, verify


def row(key: str, features: np.ndarray | None = None, error: str = "") -> dict[str, object]:
    features = np.ones((2, 3), np.float16) if features is None else features
    return {"key": key, "id": f"id {key}", "fps": 25.0, "error": error} | pack(features)


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    store = FeatureStore.create(DatasetDir(tmp_path), FeatureSpec(features=LandmarkFeatures()))
    store.commit("b-0", [row("a"), row("b", np.zeros(0), "truncated: it breaks off")])
    store.commit("c-0", [row("c", np.full((4, 3), 2, np.float16))])
    return store


def test_a_sound_store_verifies(store: FeatureStore) -> None:
    seen = verify(store)
    assert (seen.num_commits, seen.num_rows, seen.num_errors, seen.problems) == (2, 3, 1, [])
    assert seen.num_bytes == sum(p.stat().st_size for p in (Path(store.uri) / "shards").iterdir())


@pytest.mark.long
@given(st.data())
@settings(max_examples=60)
def test_any_changed_byte_is_found(data: st.DataObject) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        store = FeatureStore.create(DatasetDir(Path(name)), FeatureSpec(features=LandmarkFeatures()))
        store.commit("b-0", [row("a"), row("b")])
        store.commit("c-0", [row("c", np.full((4, 3), 2, np.float16))])
        shard = Path(store.uri) / "shards" / store.commits()[0].shard
        content = bytearray(shard.read_bytes())
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        shard.write_bytes(content[: data.draw(st.integers(len(content) - 3, len(content)))])
        problems = verify(store).problems
        assert [p.record for p in problems] == ["b-0.json"]
        assert len(verify(store, repair=True).problems) == 1
        assert verify(store).problems == []
        assert list(store.errors()) == ["c"]
        assert store.commit("b-0", [row("a"), row("b")])
        assert verify(store).problems == []


def test_a_missing_shard_and_a_damaged_record_are_found(store: FeatureStore) -> None:
    (Path(store.uri) / "shards" / store.commits()[1].shard).unlink()
    record = Path(store.uri) / "commits" / "b-0.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"keys": {"a": ""}}))
    fresh = FeatureStore(store.uri)
    assert {p.record: p.text.split()[0] for p in verify(fresh).problems} == {"b-0.json": "the", "c-0.json": "shard"}
    record.write_text("{")
    assert "damaged" in verify(fresh).problems[0].text
    verify(fresh, repair=True)
    assert FeatureStore(store.uri).commits() == []


def test_gc_removes_leftovers_and_what_is_superseded_only(store: FeatureStore) -> None:
    before = dict(store.errors())
    assert gc(store) == type(gc(store))(0, 0, 0, 0)
    store.commit("b-1", [row("b")])
    (Path(store.uri) / "staging" / "left").write_bytes(b"x")
    (Path(store.uri) / "shards" / "0000.parquet").write_bytes(b"orphan")
    held = claim(store.place, "z-0")
    assert held is not None
    kept = gc(store)
    assert (kept.commits, kept.shards, kept.leftovers) == (0, 0, 0)  # somebody is at work: nothing uncertain goes
    held.release()
    gone = gc(store)
    assert (gone.commits, gone.shards, gone.leftovers, gone.num_bytes) == (0, 1, 1, 6)
    assert store.errors() == before | {"b": ""}
    store.commit("c-1", [row("c", np.zeros(0), "late: failed")])  # never stands: "c" is good already
    assert gc(store).commits == 1
    assert gc(store, keep={"a", "b"}).commits == 1
    assert sorted(store.errors()) == ["a", "b"]
    assert verify(store).problems == []


def test_explain_tells_where_a_clip_stands(store: FeatureStore) -> None:
    assert "extract` will compute it" in explain(store, "zz")[-1]
    assert "--retry-errors" in explain(store, "b")[-1]
    store.commit("b-1", [row("b")])
    text = "\n".join(explain(store, "b"))
    assert "block b-0" in text
    assert "truncated: it breaks off (superseded)" in text
    assert "block b-1" in text
    assert "good (stands)" in text
