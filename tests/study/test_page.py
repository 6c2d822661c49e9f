"""study.html says what is in the study and nothing else; HParams are read back by TensorBoard's own reader."""

import json
import random
import re

import pytest

from sign_dist.data.layout import write_json
from sign_dist.study.end import end_study
from sign_dist.study.hparams import write_hparams
from sign_dist.study.importance import FEW, importances
from sign_dist.study.page import costs, render_study
from sign_dist.study.pareto import front
from sign_dist.study.pictures import curves, history, parallel, pareto
from sign_dist.study.rows import best_of, objectives_of, trial_rows
from tests.inference.pages import Page, check_page
from tests.study.studies import write_study


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    study = write_study(tmp_path_factory.mktemp("study"), 24, objectives=True)
    end_study(study, trial_rows(study, [], {}), seconds=30.0)
    return study


def test_the_page_tells_the_whole_study(study):
    text = study.page_file.read_text()
    page = Page(text)
    check_page(page)
    rows = trial_rows(study, [], {})
    best = best_of(rows)
    assert best is not None
    assert f"Best val/wer {best.value:.4g} by trial {best.number}" in page.text
    assert "24 trials: 17 finished, 6 stopped early, 1 failed" in page.text
    assert page.text.count("at epoch 2 not among the best third") == 2 * 6  # the table, and the mark in the picture
    assert "the process ran out of memory" in page.text
    for name in objectives_of(rows):
        assert name in page.text
    assert "It is not known." in page.text


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_study_of_few_trials_says_so_and_has_a_page(tmp_path, count):
    page = Page(render_study(write_study(tmp_path, count)))
    check_page(page)
    assert "Too few trials to tell" in page.text
    assert ("No trial was evaluated yet" in page.text) == (count == 0)
    assert "the study has not ended" in page.text


def test_what_is_written_by_strangers_is_text_on_the_page(tmp_path):
    study = write_study(tmp_path, 4)
    note = study.trial("0003").root / "trial.json"
    write_json(note, json.loads(note.read_text()) | {"reason": "<script>alert(1)</script>"})
    page = Page(render_study(study))
    check_page(page)
    assert "<script>alert(1)</script>" in page.text


def test_costs_add_up(study):
    rows = trial_rows(study, [], {})
    *parts, whole = costs(study, rows)
    assert whole.trials == len(rows)
    for name in ("trials", "epochs", "seconds", "gpu_hours"):
        assert sum(getattr(part, name) for part in parts) == pytest.approx(getattr(whole, name))
    write_json(study.trial("0000").environment_file, {"gpus": ["one"], "workers": 1})
    assert costs(study, rows)[-1].gpu_hours == pytest.approx(rows[0].seconds / 3600)
    study.trial("0000").environment_file.unlink()


def test_every_trial_lies_within_its_picture(study):
    rows = trial_rows(study, [], {})
    plots = [history(rows, "val/wer", "min"), curves(rows, "val/wer"), pareto(rows, "val/wer", "latency_ms")]
    for plot in plots:
        assert plot is not None
        for mark in plot.marks:
            assert plot.left <= mark.x <= plot.right
            assert plot.top <= mark.y <= plot.bottom
        for stroke in plot.strokes:
            numbers = [float(n) for n in re.findall(r"[\d.]+", stroke.path)]
            assert all(plot.left <= x <= plot.right for x in numbers[::2])
            assert all(plot.top <= y <= plot.bottom for y in numbers[1::2])
    assert plots[0] is not None
    assert len(plots[0].marks) == len(rows)
    assert sum(mark.kind == "best" for mark in plots[2].marks) == len(front(rows, ["val/wer", "latency_ms"]))  # type: ignore[union-attr]
    # Upwards is more: the best of a rate lies lowest.
    best = max(plots[0].marks, key=lambda mark: mark.y)
    assert best.kind == "best"


def test_lines_across_settings_leave_out_what_a_trial_lacks(study):
    rows = trial_rows(study, [], {})
    found = parallel(rows, ["model.width", "model.kernel", "train.seed"], "val/wer")
    assert found is not None
    assert [axis.name for axis in found.axes] == ["width", "kernel", "val/wer"]
    lengths = sorted(stroke.path.count("L") for stroke in found.strokes)
    assert lengths == sorted(1 + ("model.kernel" in row.settings) for row in rows)


def test_the_setting_that_decides_is_the_important_one():
    rng = random.Random(1)
    trials = []
    for _ in range(60):
        settings = {"lr": 10 ** rng.uniform(-4, -1), "kind": rng.choice(["a", "b"]), "same": 1, "noise": rng.random()}
        trials.append((settings, -abs(settings["lr"] - 0.01)))
    found = importances(trials)
    assert found[0].name == "lr"
    assert found[0].share > 0.7
    assert sum(each.share for each in found) == pytest.approx(1)
    assert "same" not in {each.name for each in found}
    assert importances(trials[: FEW - 1]) == []


@pytest.mark.long
def test_tensorboard_reads_the_settings_of_every_trial(study):
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from tensorboard.plugins.hparams import plugin_data_pb2

    rows = trial_rows(study, [], {})
    write_hparams(study, rows)  # again: nothing is doubled

    def events(folder):
        (file,) = folder.glob("*.hparams")
        return [value for event in EventFileLoader(str(file)).Load() for value in event.summary.value]

    (experiment,) = events(study.root / "hparams")
    plan = plugin_data_pb2.HParamsPluginData.FromString(experiment.metadata.plugin_data.content).experiment
    assert {info.name for info in plan.hparam_infos} == {name for row in rows for name in row.settings}
    assert {"val/wer", "latency_ms", "size_mb"} <= {info.name.tag for info in plan.metric_infos}
    for row in rows:
        start, end, *scalars = events(study.trial(row.id).tensorboard)
        session = plugin_data_pb2.HParamsPluginData.FromString(start.metadata.plugin_data.content).session_start_info
        assert {name: session.hparams[name].number_value for name in session.hparams} == row.settings
        assert end.metadata.plugin_data.plugin_name == "hparams"
        assert {value.tag for value in scalars} == set(row.objectives) - {"val/wer"}
