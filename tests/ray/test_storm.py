"""A storm of kills during extraction: the store ends byte for byte like that of a calm day, and little is done twice."""

import dataclasses
import os
import random
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from sign_dist.data.layout import SPLITS, DatasetDir
from sign_dist.data.manifest import read_manifest, write_manifest
from sign_dist.features.blocks import AUDIT
from sign_dist.features.store import FeatureStore
from tests.ray.faults import finish, kill_driver, name_of, start

pytestmark = pytest.mark.ray

SETTINGS = ("--features", "frames", "size_px=256", "num_frames=64")


def files(store: Path) -> dict[str, bytes]:
    return {str(p.relative_to(store)): p.read_bytes() for p in sorted(store.rglob("*")) if p.is_file()}


def cut_spans(dataset: DatasetDir, count: int) -> None:
    """Make so many slightly different clips of each."""
    for split in SPLITS:
        samples = read_manifest(dataset, split)
        spans = [dataclasses.replace(s, id=f"{s.id}-{i}", start_s=s.start_s + i / 1000) for i in range(count) for s in samples]
        write_manifest(dataset.manifest_file(split), spans)


@pytest.mark.parametrize("kills", [4, pytest.param(100, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])])
def test_after_a_storm_the_store_equals_that_of_a_calm_day(
    kills: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from sign_dist.data.prepare import prepare
    from sign_dist.synthetic.corpus import write_corpus

    log, audit = tmp_path / "log", tmp_path / "audit"
    corpus = tmp_path / "corpus"
    write_corpus(corpus, num_signs=4, num_signers=4, clips_per_sign=2, seed=1)
    calm, stormy = (prepare("table", corpus, tmp_path / name).dataset for name in ("calm", "stormy"))
    for dataset in (calm, stormy):
        cut_spans(dataset, 1 if kills < 50 else 12)  # enough work that every kill meets some
    clips = {s.key for split in SPLITS for s in read_manifest(calm, split)}
    finish("extract", str(calm.root), *SETTINGS, log=log)
    monkeypatch.setenv(AUDIT, str(audit))
    audit.touch()
    rng = random.Random(kills)
    done: Counter[str] = Counter()
    process = start("extract", str(stormy.root), *SETTINGS, log=log)
    end = time.monotonic() + 3000
    while sum(done.values()) < kills and time.monotonic() < end:
        # The next kill comes some clips later: a kill during start-up would test Ray, not us, and kills that follow each other
        # at once would all meet the same clip, which is then given up, as it should be.
        work = len(audit.read_bytes().splitlines()) + rng.randint(1, 6)
        while process.poll() is None and len(audit.read_bytes().splitlines()) < work:
            time.sleep(0.005)
        if process.poll() is not None:
            assert process.returncode == 0, log.read_text()[-3000:]
            break
        time.sleep(rng.random() * 0.3)
        # The second is a driver, so that a short storm has both kinds.
        if sum(done.values()) == 1 or rng.random() < 0.1:
            kill_driver(process)
            done["driver"] += 1
            process = start("extract", str(stormy.root), *SETTINGS, log=log)
            continue
        workers = [p for p in psutil.Process(process.pid).children(recursive=True) if "ComputeBlocks" in name_of(p)]
        if workers:
            rng.choice(workers).kill()
            done["actor"] += 1
    assert process.wait(timeout=300) == 0, log.read_text()[-3000:]
    stores = [next(iter(dataset.features.glob("frames-*"))) for dataset in (calm, stormy)]
    store = FeatureStore(stores[1])
    assert files(stores[0]) == files(stores[1])
    assert store.errors() == dict.fromkeys(clips, "")
    assert sum(len(commit.keys) for commit in store.commits()) == len(clips)
    computed = len(audit.read_text().splitlines())
    block = max(len(commit.keys) for commit in store.commits())
    lost = (done["actor"] + done["driver"] * (os.cpu_count() or 1)) * block
    assert computed <= len(clips) + lost
    with capsys.disabled():
        print(f"\n{dict(done)} killed; {len(clips)} clips, {computed - len(clips)} computed again, bound {lost}; blocks of {block}")
    assert sum(done.values()) == kills
    assert done["actor"] >= 1
    assert done["driver"] >= 1


def test_two_extractions_at_once_share_the_work(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sign_dist.data.prepare import prepare

    audit = tmp_path / "audit"
    dataset = prepare("table", corpus, tmp_path / "d").dataset
    clips = [s.key for split in SPLITS for s in read_manifest(dataset, split)]
    monkeypatch.setenv(AUDIT, str(audit))
    words = ("extract", str(dataset.root), *SETTINGS, "--store", str(tmp_path / "shared"))
    both = [start(*words, log=tmp_path / f"log{i}") for i in range(2)]
    for i, process in enumerate(both):
        assert process.wait(timeout=300) == 0, (tmp_path / f"log{i}").read_text()[-3000:]
    computed = [line.split()[2] for line in audit.read_text().splitlines()]
    assert sorted(computed) == sorted(set(clips))
    (store,) = (tmp_path / "shared").iterdir()
    assert FeatureStore(store).errors() == dict.fromkeys(clips, "")
