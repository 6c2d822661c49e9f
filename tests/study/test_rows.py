"""Trials as rows: what a directory says of a trial, whatever became of it."""

import dataclasses

import pytest

from sign_dist.data.layout import write_json
from sign_dist.errors import RunError, SettingsError
from sign_dist.study.end import end_study
from sign_dist.study.layout import StudyDir
from sign_dist.study.objectives import direction, milliseconds
from sign_dist.study.rows import TrialRow, best_of, note, noted, rows_of, told, trial_rows
from sign_dist.tasks.task import Example
from tests.study.studies import EPOCHS, write_study


def test_a_row_says_how_its_trial_ended_and_what_it_tried(tmp_path):
    study = write_study(tmp_path, 8)
    rows = trial_rows(study, [], {})
    assert [row.number for row in rows] == list(range(8))
    assert [row.state for row in rows] == ["finished"] * 3 + ["stopped"] + ["finished", "failed", "finished", "stopped"]
    for row in rows:
        flat = study.trial(row.id).run().flat()
        assert row.settings == {name: flat[name] for name in row.settings}
        assert ("model.kernel" in row.settings) == (row.settings["model.width"] > 32)
        assert row.value == min(value for _, value in row.curve)
        assert row.epochs == len(row.curve) == (2 if row.state == "stopped" else EPOCHS)
        assert row.seconds == 1.5 * row.epochs
        assert bool(row.reason) == (row.state != "finished")
        assert TrialRow.of(row.to_dict()) == row
    best = best_of(rows)
    assert best is not None
    assert best.value == min(row.value for row in rows if row.value is not None)


def test_a_trial_that_could_not_begin_has_a_row_too(tmp_path):
    study = write_study(tmp_path, 3)
    note(study.trial("0003"), number=3, settings={"model.width": 9}, state="failed", reason="no such split")
    row = trial_rows(study, [], {})[-1]
    assert (row.number, row.state, row.reason, row.value, row.epochs) == (3, "failed", "no such split", None, 0)
    assert row.settings == {"model.width": 9}


def test_what_failed_or_runs_is_told_by_the_caller_where_nothing_was_noted(tmp_path):
    study = write_study(tmp_path, 3)
    (study.trial("0000").root / "trial.json").unlink()
    study.trial("0000").done_file.unlink()
    assert trial_rows(study, ["model.width"], {})[0].state == "stopped"
    assert trial_rows(study, [], {}, running=["0000"])[0].state == "running"
    row = trial_rows(study, ["model.width"], {"tune/0000": "died"})[0]
    assert (row.state, row.reason) == ("failed", "died")
    assert row.settings == {"model.width": study.trial("0000").run().flat()["model.width"]}


def test_notes_add_up_and_know_their_words(tmp_path):
    trial = StudyDir(tmp_path).trial("0000")
    trial.root.mkdir()
    note(trial, number=0, seconds=1.0)
    note(trial, seconds=2.0)
    assert noted(trial) == {"number": 0, "seconds": 2.0}
    with pytest.raises(ValueError, match="its state one of"):
        note(trial, state="lost")
    with pytest.raises(ValueError, match="holds some of"):
        note(trial, colour="red")


def test_a_study_ends_with_its_best_and_stays_as_it_is(tmp_path):
    study = write_study(tmp_path, 8)
    rows = trial_rows(study, [], {})
    answer = end_study(study, rows, seconds=12.0)
    best = best_of(rows)
    assert best is not None
    assert answer["run_dir"] == f"trial_{best.id}"
    assert answer["epochs_trained"] == sum(row.epochs for row in rows) == 6 * EPOCHS + 2 * 2
    assert rows_of(study) == rows
    assert told(study, 8)[2] == best.value
    for file in (study.page_file, study.picture_file, study.best_file):
        assert file.stat().st_size


def test_no_trial_that_ended_well_is_one_sentence(tmp_path):
    study = write_study(tmp_path, 1)
    study.trial("0000").metrics_file.write_text("")
    with pytest.raises(RunError, match=r"no trial of .* ended well"):
        end_study(study, trial_rows(study, [], {"0000": "it burned"}), seconds=1.0)


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_damaged_record_and_a_missing_one_are_told(tmp_path, content):
    study = StudyDir(tmp_path)
    with pytest.raises(RunError, match="is no study"):
        study.facts()
    study.study_file.write_text(content)
    with pytest.raises(RunError, match="damaged"):
        study.facts()
    write_json(study.study_file, {"finished": False, "run": 1})
    with pytest.raises(RunError, match="another run"):
        study.claim({"run": 2}, same=("run",))
    assert not study.claim({"run": 1, "finished": False}, same=("run",))


@pytest.mark.parametrize(("name", "way"), [("val/wer", "min"), ("val/loss", "min"), ("val/bleu4", "max"), ("size_mb", "min")])
def test_objectives_know_which_way_is_better(name, way):
    assert direction(name) == way
    with pytest.raises(SettingsError, match=r"no objective 'wer'"):
        direction("wer")


def test_the_time_of_a_clip_is_the_least_of_its_rounds_and_their_median_counts(monkeypatch):
    clips = [Example(sample=None, features=size) for size in (1, 40, 400)]  # type: ignore[arg-type]
    clock = {"s": 0.0, "calls": 0}

    def answer(clip):
        clock["calls"] += 1
        # The first round is for warming up; a moment of the second is disturbed.
        clock["s"] += clip.features * (100 if clock["calls"] <= len(clips) or clock["calls"] == 5 else 1) / 1000

    monkeypatch.setattr("sign_dist.study.objectives.time.thread_time", lambda: clock["s"])
    assert milliseconds(answer, clips, repeats=3) == pytest.approx(40)
    assert clock["calls"] == 4 * len(clips)
    with pytest.raises(ValueError, match="need clips"):
        milliseconds(answer, [])


def test_the_best_is_that_of_the_only_objective_and_of_the_score_where_there_are_several(tmp_path):
    rows = trial_rows(write_study(tmp_path, 6), [], {})
    fast = [dataclasses.replace(row, objectives={"latency_ms": 9.0 - row.number} if row.number < 4 else {}) for row in rows]
    best = best_of(fast)
    assert best is not None
    assert best.number == max(row.number for row in fast if row.objectives and row.score is not None)
    shares = [dataclasses.replace(row, objectives={"val/top1": 0.1 * row.number}) for row in rows]
    best = best_of(shares)
    assert best is not None
    assert best.number == max(row.number for row in rows if row.score is not None)
    both = [dataclasses.replace(row, objectives={"val/wer": 1.0, "latency_ms": 9.0 - row.number}) for row in rows]
    assert best_of(both) == max((row for row in both if row.score is not None), key=lambda row: row.score or 0.0)
