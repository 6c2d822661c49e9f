"""What stands still is computed by the cluster, once for all that share it; two workers learn from it what one learns without."""

import threading
from pathlib import Path

import pytest

from sign_dist.config.run import Scale
from sign_dist.data.layout import DatasetDir
from sign_dist.errors import SettingsError
from sign_dist.features.prefix import PrefixStore
from sign_dist.features.upkeep import verify
from sign_dist.training.run_dir import RunDir
from tests.training.test_prefix import run_of, train_here

pytestmark = pytest.mark.ray


def test_two_searches_at_once_share_what_stands_still_and_workers_train_on_it(ray_cluster: None, tmp_path: Path) -> None:
    from sign_dist.on_ray.prefix import ensure_prefix
    from sign_dist.on_ray.training import train

    # BatchNorm that stands still: else two workers normalise by the clips of both, and one by those of each part.
    still = {"train.freeze.until": "stage_2", "train.freeze.statistics": True}
    run = run_of(tmp_path / "data", **still, **{"train.parts": 2, "train.epochs": 2})
    dataset = DatasetDir(tmp_path / "data")
    with pytest.raises(SettingsError, match="trains from the start"):
        ensure_prefix(run.with_values({"train.freeze.until": ""}))
    assert ensure_prefix(run.with_values({"train.cache_prefix": False})) == 0
    missing: list[int] = []
    threads = [threading.Thread(target=lambda: missing.append(ensure_prefix(run))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (store,) = PrefixStore.all_of(dataset)
    keys = [key for commit in store.commits() for key in commit.keys]
    assert len(missing) == 2
    assert len(keys) == len(set(keys)) == 15, "each clip is committed once"
    assert verify(store).problems == []
    assert ensure_prefix(run) == 0
    train(run.with_values({"scale": Scale(workers=2)}), tmp_path / "with")
    train_here(run.with_values({"train.cache_prefix": False}), tmp_path / "without")
    cached, bare = RunDir(tmp_path / "with").metrics(), RunDir(tmp_path / "without").metrics()
    assert [line["step"] for line in cached] == [line["step"] for line in bare]
    for mine, theirs in zip(cached, bare, strict=True):
        assert mine["train/loss"] == pytest.approx(theirs["train/loss"], abs=1e-5)
        assert mine["val/loss"] == pytest.approx(theirs["val/loss"], abs=1e-5)
