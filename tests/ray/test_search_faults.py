"""Whether a study can run here, and what is said if not; what is remembered of a trial that failed."""

from pathlib import Path
from typing import Any

import pytest
from ray import tune

from sign_dist.config.data import Data, FrameFeatures
from sign_dist.config.model import VideoCnnModel
from sign_dist.config.run import Run, Scale
from sign_dist.config.search import Search
from sign_dist.config.train import Train
from sign_dist.errors import DataError, ServiceError, SettingsError
from sign_dist.on_ray.tuning import tune_run
from sign_dist.study.layout import StudyDir

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

SPACE = {"train.optim.lr": tune.loguniform(1e-4, 1e-2)}


def run_of(dataset: Path, **values: Any) -> Run:
    run = Run(
        data=Data(root=str(dataset), features=FrameFeatures(num_frames=8)),
        model=VideoCnnModel(width=4, depth=1),
        train=Train(epochs=2, batch_size=8),
        scale=Scale(workers=1),
    )
    return run.with_values(values)


def test_trials_of_several_workers_need_the_dashboard(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match=r"need Ray's dashboard.*--include-dashboard=true") as told:
        tune_run(run_of(dataset, **{"scale.workers": 2}), SPACE, tmp_path / "study")
    assert "\n" not in str(told.value)
    assert not (tmp_path / "study").exists()


def test_gpu_hours_need_a_gpu_and_frames_need_features(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="has no GPU"):
        tune_run(run_of(dataset), SPACE, tmp_path / "study", search=Search(gpu_hours=1))
    rungs = Search(fidelity="data.features.num_frames=4,8")
    with pytest.raises(DataError, match="extract"):
        tune_run(run_of(dataset), SPACE, tmp_path / "study", search=rungs)
    with pytest.raises(SettingsError, match="no objective"):
        tune_run(run_of(dataset), SPACE, tmp_path / "study", search=Search(objectives="speed"))


def test_a_search_of_several_objectives_over_conditions_notes_failures_and_leaves_nothing_behind(
    dataset: Path, tmp_path: Path
) -> None:
    """One kind of trial cannot start: it is a row with its reason, and the others are not held up."""

    def space(trial: Any) -> dict[str, Any]:
        if trial.suggest_categorical("model.width", [4, 8]) == 8:
            return {"train.freeze.until": "nowhere"}
        trial.suggest_float("model.dropout", 0.0, 0.5)
        return {}

    from sign_dist.on_ray.trial_records import artifacts_of

    before = list(artifacts_of())
    search = Search(trials=4, objectives="val/loss size_mb", sampler="random", seed=3, retries=0)
    root = tmp_path / "study"
    tune_run(run_of(dataset), space, root, search=search)
    rows = StudyDir(root).facts()["trials"]
    assert [row["number"] for row in rows] == [0, 1, 2, 3]
    for row in rows:
        if row["settings"]["model.width"] == 8:
            assert row["state"] == "failed"
            assert "nowhere" in row["reason"]
        else:
            assert row["state"] == "finished"
            assert row["objectives"].keys() == {"val/loss", "size_mb"}
            assert "model.dropout" in row["settings"]
    assert {row["state"] for row in rows} == {"failed", "finished"}
    assert list(artifacts_of()) == before
