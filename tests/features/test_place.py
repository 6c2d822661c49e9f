"""Places: a folder and a bucket keep the same promises, and a store works in either."""

import os
import pickle
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sign_dist.config.data import LandmarkFeatures
from sign_dist.data.layout import DatasetDir
from sign_dist.errors import DataError
from sign_dist.features.claims import claim
from sign_dist.features.place import LocalPlace, Place, RemotePlace, join, place_at, started
from sign_dist.features.spec import FeatureSpec
from sign_dist.features.store import FeatureStore, pack
from sign_dist.features.upkeep import gc, verify


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The address of a bucket of an S3-compatible server that lives as long as these tests."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}
    before = {name: os.environ.get(name) for name in keys}
    os.environ.update(keys)
    yield f"s3://store?endpoint_override={host}:{port}&scheme=http&region=us-east-1&allow_bucket_creation=true"
    server.stop()
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})


@pytest.fixture(params=["folder", "bucket"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh folder or a fresh prefix in the bucket."""
    return str(tmp_path / "p") if request.param == "folder" else join(request.getfixturevalue("bucket"), uuid.uuid4().hex)


@pytest.fixture
def place(root: str) -> Place:
    return place_at(root)


@pytest.mark.long
def test_files_are_written_read_listed_and_removed(place: Place) -> None:
    assert place.names("a") == []
    assert place.folders() == []
    place.write("a/one", b"1")
    place.write("a/two", b"22")
    place.write("a/one", b"111")
    assert place.names("a") == ["one", "two"]
    assert [name for name in place.folders() if name != "staging"] == ["a"]
    assert (place.read("a/one"), place.size_bytes("a/one")) == (b"111", 3)
    assert place.exists("a/two")
    assert not place.exists("a")
    assert -2 < place.age_s("a/two") < 60
    place.remove("a/one")
    place.remove("a/one")
    assert place.names("a") == ["two"]
    for missing in (place.read, place.age_s, place.size_bytes):
        with pytest.raises(FileNotFoundError):
            missing("a/one")


def test_what_is_created_once_is_not_created_again(place: Place) -> None:
    assert place.create("c/x", b"first")
    assert not place.create("c/x", b"second")
    assert place.read("c/x") == b"first"


def test_a_place_goes_to_another_process(place: Place) -> None:
    place.write("a/one", b"1")
    assert pickle.loads(pickle.dumps(place)).read("a/one") == b"1"


@pytest.mark.long
def test_a_store_works_in_either(root: str, tmp_path: Path) -> None:
    dataset = DatasetDir(tmp_path / "d")
    spec = FeatureSpec(features=LandmarkFeatures())
    store = FeatureStore.create(dataset, spec, shared=root)
    FeatureStore.create(dataset, spec, shared=root)
    features = np.arange(6, dtype=np.float16).reshape(2, 3)
    rows = [{"key": k, "id": k, "fps": 25.0, "error": "", **pack(features)} for k in "ab"]
    held = claim(store.place, "b-0")
    assert held is not None
    assert claim(store.place, "b-0") is None
    assert store.commit("b-0", rows)
    assert not store.commit("b-0", rows)
    held.release()
    found = FeatureStore.find(dataset, LandmarkFeatures(), shared=root)
    assert found.name == spec.name
    np.testing.assert_array_equal(found.reader().features("b"), features)
    store.place.write("shards/0.parquet", b"orphan")
    assert gc(found).shards == 1
    assert verify(found).problems == []
    found.place.write(f"shards/{found.commits()[0].shard}", b"PAR1")
    assert len(verify(found, repair=True).problems) == 1
    assert FeatureStore(found.uri).errors() == {}
    with pytest.raises(DataError, match=r"--store"):
        FeatureStore.find(DatasetDir(tmp_path / "d"), LandmarkFeatures(face=True), shared=root)


def test_addresses_are_told_from_paths() -> None:
    assert isinstance(place_at("/tmp/x"), LocalPlace)
    assert isinstance(place_at("file:///tmp/x"), LocalPlace)
    assert place_at("file:///tmp/x").uri == "/tmp/x"
    assert isinstance(place_at("s3://bucket/x"), RemotePlace)
    assert join("s3://b/p/?region=x", "q") == "s3://b/p/q?region=x"
    assert join(Path("/a"), "q") == "/a/q"
    with pytest.raises(DataError, match="no storage can be opened at 'nowhere://x'"):
        place_at("nowhere://x").exists("a")


def test_files_older_than_a_moment_say_so(tmp_path: Path) -> None:
    place = LocalPlace(tmp_path)
    place.write("a", b"")
    os.utime(tmp_path / "a", (time.time() - 100,) * 2)
    assert 99 < place.age_s("a") < 160


def test_what_a_process_of_this_machine_wrote_when_it_died_is_swept_and_nothing_else(tmp_path):
    place = LocalPlace(tmp_path)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        host, start = socket.gethostname(), started(child.pid)
        mine = f"{os.getpid()}-{started(os.getpid())}-0-{host}"
        theirs, earlier, far = f"{child.pid}-{start}-1-{host}", f"{child.pid}-1-2-{host}", f"{child.pid}-{start}-3-elsewhere.{host}"
        for name in (mine, theirs, earlier, far):
            place.write(f"staging/{name}", b"a part")
        place.sweep()
        assert place.names("staging") == sorted([mine, theirs, far]), "of a process with that number before, a part was left"
    finally:
        child.kill()
        child.wait()
    place.sweep()
    assert place.names("staging") == sorted([mine, far])
