"""prepare -> extract -> train -> tune -> evaluate -> export -> predict, on one small corpus."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from sign_dist.config.data import Data, FrameFeatures, SignHieraFeatures
from sign_dist.config.model import VideoCnnModel
from sign_dist.config.run import Run
from sign_dist.config.train import Train
from sign_dist.data.layout import SPLITS, DatasetDir
from sign_dist.data.manifest import read_manifest, read_rejected
from sign_dist.errors import DataError, RunError, ServiceError, SettingsError, WeightsError
from sign_dist.features.store import FeatureStore

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


def small_run(dataset: Path, **train: object) -> Run:
    return Run(
        data=Data(root=str(dataset), features=FrameFeatures(num_frames=8)),
        model=VideoCnnModel(),
        train=Train(epochs=3, batch_size=8).with_values(train),
    )


@pytest.fixture(scope="module")
def finished(dataset: Path, tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Path:
    from sign_dist.on_ray.training import train

    root = tmp_path_factory.mktemp("runs") / "small"
    train(small_run(dataset).with_values({"scale.workers": 2}), root)
    return root


def test_prepare_checks_on_the_cluster_as_it_does_alone(corpus: Path, dataset: Path, tmp_path: Path) -> None:
    from sign_dist.data.prepare import prepare
    from sign_dist.on_ray.clips import check_all

    prepared = prepare("table", corpus, tmp_path / "d", check_all=check_all)
    alone = DatasetDir(dataset)
    assert prepared.dataset.facts()["digest"] == alone.facts()["digest"]
    assert len(read_rejected(prepared.dataset)) == 2
    for split in SPLITS:
        assert read_manifest(prepared.dataset, split) == read_manifest(alone, split)


def test_clips_are_compared_on_the_cluster_as_alone(dataset: Path) -> None:
    from sign_dist.data.leaks import sign_one_by_one
    from sign_dist.on_ray.clips import sign_all

    samples = [s for split in SPLITS for s in read_manifest(DatasetDir(dataset), split)][:8]
    samples.append(dataclasses.replace(samples[0], video_path="none.mp4"))
    videos = DatasetDir(dataset).videos_root()
    for mine, theirs in zip(sign_all(samples, videos, 25.0), sign_one_by_one(samples, videos, 25.0), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_extract_commits_each_clip_once_and_then_has_nothing_to_do(dataset: Path) -> None:
    from sign_dist.on_ray.extraction import extract, find_todo

    told: list[tuple[int, int]] = []
    features = SignHieraFeatures()
    done = extract(DatasetDir(dataset), features, progress=lambda n, total: told.append((n, total)))
    clips = sum(len(read_manifest(DatasetDir(dataset), split)) for split in SPLITS)
    assert (done.clips, done.done_before, done.failed) == (clips, 0, {})
    assert told[-1] == (clips, clips)
    store = FeatureStore.find(DatasetDir(dataset), features)
    keys = [key for commit in store.commits() for key in commit.keys]
    assert len(keys) == len(set(keys)) == clips
    reader = store.reader()
    assert all(reader.features(key).shape[1] == 256 and np.isfinite(reader.features(key)).all() for key in keys)
    before = tree(Path(store.uri))
    assert find_todo(DatasetDir(dataset), features).blocks == []
    assert extract(DatasetDir(dataset), features).done_before == clips
    assert tree(Path(store.uri)) == before


def tree(root: Path) -> dict[str, tuple[int, bytes]]:
    """Every file with its time and bytes."""
    return {str(p.relative_to(root)): (p.stat().st_mtime_ns, p.read_bytes()) for p in sorted(root.rglob("*")) if p.is_file()}


def test_a_run_leaves_its_record(finished: Path) -> None:
    from sign_dist.training.run_dir import RunDir

    run_dir = RunDir(finished)
    assert [line["epoch"] for line in run_dir.metrics()] == [1, 2, 3]
    assert run_dir.curves_file.read_bytes()[:4] == b"\x89PNG"
    assert any(run_dir.tensorboard.iterdir())
    assert run_dir.chosen() in run_dir.checkpoints()
    facts = json.loads(run_dir.environment_file.read_text())
    assert facts["workers"] == 2
    assert facts["packages"]["ray"]


def test_a_finished_run_is_left_alone_and_another_one_refused(finished: Path, dataset: Path) -> None:
    from sign_dist.on_ray.training import train
    from sign_dist.training.run_dir import RunDir

    before = RunDir(finished).metrics()
    assert train(small_run(dataset), finished) == before[-1]
    with pytest.raises(RunError, match=r"train\.optim\.lr"):
        train(small_run(dataset, **{"optim.lr": 5e-4}), finished)


def test_predict_on_a_file_equals_evaluation_on_the_extracted_features(finished: Path) -> None:
    from sign_dist.inference.bundle import export
    from sign_dist.inference.predictor import Predictor
    from sign_dist.on_ray.evaluation import evaluate_run
    from sign_dist.training.run_dir import RunDir

    page, report = evaluate_run(finished, "test")
    assert page.exists()
    lines = [json.loads(line) for line in (page.parent / "predictions.jsonl").read_text().splitlines()]
    assert report["clips"] == len(lines) == 8
    predictor = Predictor.load(export(RunDir(finished)).root)
    for line in lines:
        scores = dict(predictor(Path(line["video_path"]), k=4).scores)
        for gloss, score in line["scores"]:
            assert scores[gloss] == pytest.approx(score, abs=1e-6)


def test_evaluation_says_what_a_score_is_worth(finished: Path) -> None:
    from sign_dist.on_ray.evaluation import evaluate_run

    _, report = evaluate_run(finished, "val")
    assert any("chosen on these very clips" in warning for warning in report["warnings"])
    with pytest.raises(DataError, match=r"no split 'tset'.*did you mean 'test'"):
        evaluate_run(finished, "tset")


def test_more_workers_than_processors_is_a_sentence(dataset: Path, tmp_path: Path) -> None:
    from sign_dist.on_ray.training import train

    run = small_run(dataset).with_values({"train.batch_size": 64, "scale.workers": 64})
    with pytest.raises(ServiceError, match="64 CPUs, the cluster has 4"):
        train(run, tmp_path / "r")


def test_a_fault_of_the_users_making_does_not_start_again(dataset: Path, tmp_path: Path) -> None:
    """Starting the workers anew would not mend a layer that is not there, and the sentence must come through."""
    from sign_dist.on_ray.training import train

    with pytest.raises(SettingsError, match="nowhere"):
        train(small_run(dataset).with_values({"train.freeze.until": "nowhere"}), tmp_path / "r")


def test_a_weights_file_that_is_a_web_page_is_told_before_anything_starts(dataset: Path, tmp_path: Path) -> None:
    from sign_dist.on_ray.training import train

    page = tmp_path / "weights.pth"
    page.write_text("<html>404</html>")
    run = small_run(dataset).with_values({"model.kind": "signhiera", "model.weights": str(page)})
    with pytest.raises(WeightsError, match=r"weights\.pth.* it is a web page: open its address"):
        train(run, tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_a_study_finds_the_better_setting_and_is_not_done_twice(dataset: Path, tmp_path: Path) -> None:
    from ray import tune

    from sign_dist.on_ray.tuning import tune_run
    from sign_dist.study.layout import StudyDir

    space = {"train.optim.lr": tune.loguniform(1e-4, 1e-2)}
    best = tune_run(small_run(dataset), space, tmp_path / "study", num_trials=3)
    study = StudyDir(tmp_path / "study")
    facts = json.loads(study.study_file.read_text())
    values = [trial["value"] for trial in facts["trials"]]
    assert len(values) == 3
    assert best["value"] == max(values)
    assert study.picture_file.read_bytes()[:4] == b"\x89PNG"
    assert {t.root.name for t in study.trials()} == {f"trial_{t['id']}" for t in facts["trials"]}
    import optuna

    stored = optuna.load_study(study_name="study", storage=study.storage)
    assert sorted(t.params["train.optim.lr"] for t in stored.trials) == pytest.approx(
        sorted(t["settings"]["train.optim.lr"] for t in facts["trials"])
    )
    before = study.study_file.stat().st_mtime_ns
    assert tune_run(small_run(dataset), space, tmp_path / "study", num_trials=3) == best
    assert study.study_file.stat().st_mtime_ns == before
    with pytest.raises(RunError, match="num_trials"):
        tune_run(small_run(dataset), space, tmp_path / "study", num_trials=4)


def test_a_space_with_a_wrong_name_stops_before_anything_starts(dataset: Path, tmp_path: Path) -> None:
    from ray import tune

    from sign_dist.on_ray.tuning import tune_run

    with pytest.raises(SettingsError, match=r"train\.optim\.lrr.*did you mean 'lr'"):
        tune_run(small_run(dataset), {"train.optim.lrr": tune.uniform(0, 1)}, tmp_path / "study")
    assert not (tmp_path / "study").exists()
