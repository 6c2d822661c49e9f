"""A winner trained again beside the default settings, as many runs at once as devices; what is done is not repeated."""

from pathlib import Path

import pytest

from sign_dist.config.source import load_run
from sign_dist.data.layout import write_json
from sign_dist.errors import RunError
from sign_dist.study.confirm import plan
from sign_dist.study.layout import StudyDir
from sign_dist.study.rows import note, trial_rows
from tests.worlds import extract_here, look_alike, train_here

pytestmark = pytest.mark.ray
JOB = Path(__file__).parents[2] / "jobs" / "synthetic" / "cslr_student.py"


def test_a_confirmation_goes_on_with_what_is_left(ray_cluster, tmp_path):
    from sign_dist.on_ray.confirm import confirm_study

    dataset = look_alike(tmp_path, "sentences")
    small = {"train.epochs": 1, "model.width": 16, "model.depth": 2, "model.lstm_layers": 1, "data.root": str(dataset.root)}
    base = load_run(JOB).with_values(small)
    extract_here(dataset, base.data.features)
    study = StudyDir(tmp_path / "study")
    trial = study.trial("0000")
    train_here(base.with_values({"model.width": 24}), trial.root)
    note(trial, number=0, settings={"model.width": 24})
    facts = {"run": base.model_dump(mode="json"), "space": {}, "storage": study.storage, "finished": True}
    write_json(study.study_file, facts | {"trials": []})
    write_json(study.study_file, facts | {"trials": [row.to_dict() for row in trial_rows(study, [], {})]})
    told: list[tuple[int, int]] = []
    found = confirm_study(study.root, top=1, seeds=2, on_runs=lambda done, total: told.append((done, total)))
    assert told == [(done, 4) for done in range(5)]
    assert found["winner"] == "trial_0000"
    assert not found["trusted"]  # one epoch of nine sentences teaches nothing
    repeats = plan(study, top=1, seeds=2)
    assert all(repeat.is_done for repeat in repeats)
    # What is gone is done again, and nothing else; and the same runs say the same.
    kept = {repeat.run_dir.root: repeat.run_dir.done_file.stat().st_mtime_ns for repeat in repeats[1:]}
    (repeats[0].run_dir.root / "answers" / "test.jsonl").unlink()
    assert confirm_study(study.root, top=1, seeds=2) == found
    assert kept == {root: (root / "done.json").stat().st_mtime_ns for root in kept}


def test_a_run_that_cannot_be_trained_is_named(ray_cluster, tmp_path):
    from sign_dist.on_ray.confirm import confirm_study

    dataset = look_alike(tmp_path, "sentences")
    base = load_run(JOB).with_values({"train.epochs": 1, "model.width": 16, "data.root": str(dataset.root)})
    study = StudyDir(tmp_path / "study")
    trial = study.trial("0000")
    write_json(trial.run_file, base.model_dump(mode="json"))
    trial.metrics_file.write_text('{"epoch": 1, "step": 1, "val/wer": 90.0, "val/loss": 1.0}\n')
    note(trial, number=0, settings={"model.width": 24})
    facts = {"run": base.model_dump(mode="json"), "space": {}, "storage": study.storage, "finished": True, "trials": []}
    write_json(study.study_file, facts)
    write_json(study.study_file, facts | {"trials": [row.to_dict() for row in trial_rows(study, [], {})]})
    with pytest.raises(RunError, match=r"with seed 1 failed .*extract"):
        confirm_study(study.root, top=1, seeds=1)
