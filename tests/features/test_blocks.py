"""Blocks: an interrupted, shared or repeated extraction ends like an undisturbed one."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sign_dist.config.data import FrameFeatures, LandmarkFeatures
from sign_dist.data.layout import DatasetDir
from sign_dist.features import blocks, claims
from sign_dist.features.blocks import Block, compute, plan
from sign_dist.features.claims import MAX_DEATHS, claim, is_held
from sign_dist.features.place import LocalPlace
from sign_dist.features.spec import FeatureSpec
from sign_dist.features.store import FeatureStore
from sign_dist.video.decode import Clip

FEATURES = FrameFeatures()


def rows(count: int) -> list[dict[str, Any]]:
    return [{"key": f"k{i:04d}", "id": f"clip {i}", "path": f"none/{i}.mp4", "start_s": 0.0, "end_s": 0.0} for i in range(count)]


def new_store(root: Path) -> FeatureStore:
    return FeatureStore.create(DatasetDir(root), FeatureSpec(features=LandmarkFeatures()))


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return new_store(tmp_path)


@pytest.fixture(autouse=True)
def no_decoder(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Clips are numbers here. Answers the keys that were decoded."""
    seen: list[str] = []

    def decode(row: dict[str, Any], features: Any) -> dict[str, Any]:
        seen.append(row["key"])
        error = "truncated: breaks off" if row["key"].endswith("7") else ""
        return row | {"frames": np.full((2, 4, 4, 3), int(row["key"][1:]) % 256, np.uint8), "clip_fps": 25.0, "error": error}

    monkeypatch.setattr(blocks, "decode_row", decode)
    return seen


def encoder(clip: Clip) -> np.ndarray:
    return clip.frames[:, 0, 0].astype(np.float16)


def tree(store: FeatureStore) -> dict[str, bytes]:
    root = Path(store.uri)
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


@given(st.integers(1, 3000), st.randoms())
def test_a_plan_holds_every_clip_once_in_blocks_that_do_not_depend_on_order(count: int, random: Any) -> None:
    class Empty:
        def rows(self) -> dict[str, Any]:
            return {}

    clips = rows(count)
    planned = plan(clips, Empty())  # type: ignore[arg-type]
    keys = [row["key"] for block in planned for row in block.rows]
    assert sorted(keys) == [row["key"] for row in clips]
    assert all(len(block.rows) <= blocks.MAX_ROWS for block in planned)
    assert len({block.name for block in planned}) == len(planned)
    random.shuffle(clips)
    assert [block.name for block in plan(clips + clips[:5], Empty())] == [block.name for block in planned]  # type: ignore[arg-type]


@pytest.mark.long
@given(st.randoms())
@settings(max_examples=8)
def test_however_often_it_is_interrupted_the_store_ends_the_same(random: Any) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        calm, stormy = new_store(Path(name, "calm")), new_store(Path(name, "stormy"))
        clips = rows(150)
        for block in plan(clips, calm):
            assert compute(block, calm, FEATURES, encoder).state == "committed"
        while todo := plan(clips, stormy):
            for block in random.sample(todo, random.randint(1, len(todo))):
                assert compute(block, stormy, FEATURES, encoder).state == "committed"
        assert tree(calm) == tree(stormy)
        assert len(calm.errors()) == 150


def test_errors_are_rows_and_only_retried_when_asked(store: FeatureStore, no_decoder: list[str]) -> None:
    for block in plan(rows(40), store):
        compute(block, store, FEATURES, encoder)
    failed = sorted(key for key, error in store.errors().items() if error)
    assert failed == ["k0007", "k0017", "k0027", "k0037"]
    assert plan(rows(40), store) == []
    no_decoder.clear()
    for attempt in (1, 2):
        again = plan(rows(40), store, retry_errors=True)
        assert sorted(row["key"] for block in again for row in block.rows) == failed
        assert all(block.name.endswith(f"-{attempt}") for block in again)
        assert [compute(block, store, FEATURES, encoder).state for block in again] == ["committed"] * len(again)
    assert sorted(no_decoder) == sorted(failed * 2)


@pytest.mark.long
def test_new_clips_are_computed_and_old_ones_are_not(store: FeatureStore, no_decoder: list[str]) -> None:
    for block in plan(rows(100), store):
        compute(block, store, FEATURES, encoder)
    no_decoder.clear()
    for block in plan(rows(130), store):
        compute(block, store, FEATURES, encoder)
    assert sorted(no_decoder) == [f"k{i:04d}" for i in range(100, 130)]
    assert len(store.errors()) == 130


@pytest.mark.long
def test_two_writers_share_the_work_and_do_nothing_twice(store: FeatureStore, no_decoder: list[str]) -> None:
    clips = rows(400)

    def slow(clip: Clip) -> np.ndarray:
        time.sleep(0.001)
        return encoder(clip)

    def work() -> None:
        mine = FeatureStore(store.uri)
        while todo := plan(clips, mine):
            for block in todo:
                compute(block, mine, FEATURES, slow)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Threads of one process: a claim is seen by the others as held by a living writer.
    assert sorted(no_decoder) == [row["key"] for row in clips]
    keys = [key for commit in store.commits() for key in commit.keys]
    assert len(keys) == len(set(keys)) == 400


DIES = """
import os, sys
from sign_dist.features.claims import claim
from sign_dist.features.place import LocalPlace
from pathlib import Path
held = claim(LocalPlace(Path(sys.argv[1])), "b-0")
assert held is not None
held.working_on(sys.argv[2])
print(held.deaths, flush=True)
os.kill(os.getpid(), 9)
"""


def die(place: LocalPlace, key: str) -> str:
    process = subprocess.run([sys.executable, "-c", DIES, str(place.folder), key], capture_output=True, text=True, check=False)
    assert process.returncode == -9, process.stderr
    return process.stdout.strip()


@pytest.mark.long
def test_a_dead_writer_holds_nothing_and_leaves_word_of_its_death(tmp_path: Path) -> None:
    place = LocalPlace(tmp_path)
    assert [die(place, "a"), die(place, "b"), die(place, "a")] == ["{}", "{'a': 1}", "{'a': 1, 'b': 1}"]
    assert not is_held(place, "b-0")
    held = claim(place, "b-0")
    assert held is not None
    assert held.deaths == {"a": 2, "b": 1}
    assert is_held(place, "b-0")
    assert claim(place, "b-0") is None
    held.release()
    assert place.names("claims") == []


def test_a_claim_of_another_machine_lapses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = LocalPlace(tmp_path)
    place.write("claims/b-0.json", json.dumps({"writer": "elsewhere:1:2:3", "key": "", "deaths": {}}).encode())
    assert claim(place, "b-0") is None
    monkeypatch.setattr(claims, "LEASE_S", 0.0)
    taken = claim(place, "b-0")
    assert taken is not None
    monkeypatch.undo()
    other = claim(place, "b-0")
    assert other is None
    place.write("claims/b-0.json", json.dumps({"writer": "elsewhere:1:2:3", "key": "", "deaths": {}}).encode())
    assert not taken.working_on("a")  # it was taken away
    taken.release()
    assert place.names("claims") == ["b-0.json"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"writer": 1}', b'{"writer": "a", "key": "", "deaths": 3}'])
def test_a_damaged_claim_holds_nothing(tmp_path: Path, content: bytes) -> None:
    place = LocalPlace(tmp_path)
    place.write("claims/b-0.json", content)
    assert claim(place, "b-0") is not None


def test_a_clip_that_kills_is_looked_at_then_condemned(tmp_path: Path, store: FeatureStore, no_decoder: list[str]) -> None:
    (block,) = plan(rows(1), store)
    name = f"claims/{block.name}.json"
    gone = {"writer": f"{os.uname().nodename}:999999999:1:x", "key": "k0000"}
    asked: list[str] = []

    def suspect(row: dict[str, Any]) -> str:
        asked.append(row["key"])
        return ""

    store.place.write(name, json.dumps(gone | {"deaths": {"k0000": MAX_DEATHS - 1}}).encode())
    assert compute(block, store, FEATURES, encoder, suspect=suspect).state == "committed"
    assert (asked, no_decoder) == ([], [])
    assert "processes died" in store.errors()["k0000"]
    (again,) = plan(rows(1), store, retry_errors=True)
    store.place.write(f"claims/{again.name}.json", json.dumps(gone | {"deaths": {}}).encode())
    assert compute(again, store, FEATURES, encoder, suspect=suspect).state == "committed"
    assert (asked, no_decoder) == (["k0000"], ["k0000"])
    assert store.errors() == {"k0000": ""}


def test_decoding_ahead_changes_nothing(tmp_path: Path) -> None:
    stores = [new_store(tmp_path / str(threads)) for threads in (0, 1, 5)]
    for store, threads in zip(stores, (0, 1, 5), strict=True):
        compute(Block("b-0", tuple(rows(20))), store, FEATURES, encoder, decode_threads=threads)
    assert tree(stores[0]) == tree(stores[1]) == tree(stores[2])
