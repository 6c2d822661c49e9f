"""Pictures of runs and studies: drawn from what real records hold, holes and torn lines included."""

import json
import math

import matplotlib.image
import pytest

from sign_dist.errors import RunError
from sign_dist.study import plot
from sign_dist.study.plot import plot_study
from sign_dist.training import curves
from sign_dist.training.curves import plot_curves, plot_side_by_side


def write(path, rows, tail=""):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + tail, encoding="utf-8")
    return path


def epochs(count):
    return [
        {
            "epoch": e,
            "step": 10 * e,
            "train/loss": 2 / (e + 1),
            "val/loss": None if e == 1 else 2.5 / (e + 1),
            "val/top1": e / count,
            "train/grad_norm": 100.0,
            "lr": 1e-3 / (e + 1),
            "stage": e // 2,
            "seconds": 6.0,
        }
        for e in range(count)
    ]


def is_picture(path):
    # By another reader than OpenCV's, whose zlib is decord's where that was imported first.
    picture = matplotlib.image.imread(path)
    # Something is drawn: more than one colour, and no blank page.
    return picture.std() > 0.02


@pytest.fixture
def drawn(monkeypatch):
    """The figure that was saved last, for a look at its axes."""
    figures = []
    save = curves.save
    for module in (curves, plot):
        monkeypatch.setattr(module, "save", lambda figure, path: (figures.append(figure), save(figure, path)))
    return figures


def labels(axes):
    return [line.get_label() for line in axes.get_lines() if not line.get_label().startswith("_")]


@pytest.mark.long
def test_the_panels_hold_what_belongs_there(tmp_path, drawn):
    plot_curves(write(tmp_path / "metrics.jsonl", epochs(6)), tmp_path / "curves.png")
    assert is_picture(tmp_path / "curves.png")
    loss, score, rate = drawn[0].axes
    assert labels(loss) == ["train/loss", "val/loss"]
    assert labels(score) == ["val/top1"]
    assert labels(rate) == ["lr"]
    assert [text.get_text() for text in loss.texts] == ["stage 0", "stage 1", "stage 2"]
    title = drawn[0].get_suptitle()
    assert "6 epochs, 0.6 minutes" in title
    assert "best val/top1 0.833 at epoch 5" in title


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "values", "best"),
    [
        ("val/wer", [90.0, 20.0, 0.9, 30.0], "best val/wer 0.9 at epoch 2"),
        ("val/bleu4", [1.0, 40.0, 12.0, 40.0], "best val/bleu4 40 at epoch 3"),
        ("val/top1", [0.1, 0.7, 0.6, 0.2], "best val/top1 0.7 at epoch 1"),
    ],
)
def test_the_best_epoch_is_that_of_the_tasks_own_score(tmp_path, drawn, name, values, best):
    rows = [{"epoch": e, "val/loss": 9.0 - e, name: value, "val/rouge": 0.5} for e, value in enumerate(values)]
    plot_curves(write(tmp_path / "metrics.jsonl", rows), tmp_path / "curves.png")
    assert best in drawn[0].get_suptitle()
    # Percent and points do not press shares flat.
    scales = [labels(panel) for panel in drawn[0].axes]
    assert [name] in scales or ["val/top1", "val/rouge"] in scales
    assert name == "val/top1" or ["val/rouge"] in scales


@pytest.mark.long
@pytest.mark.parametrize("count", [1, 2])
def test_a_short_run_and_an_epoch_told_twice(tmp_path, drawn, count):
    path = write(tmp_path / "metrics.jsonl", [*epochs(count), epochs(count)[-1] | {"val/top1": 0.9}])
    plot_curves(path, tmp_path / "curves.png")
    assert "0.9" in drawn[0].get_suptitle()
    assert ("1 epoch," if count == 1 else "2 epochs,") in drawn[0].get_suptitle()


@pytest.mark.long
def test_a_torn_last_line_is_left_out_but_no_other(tmp_path, drawn):
    plot_curves(write(tmp_path / "a.jsonl", epochs(3), tail='{"epoch": 3, "st'), tmp_path / "a.png")
    assert "3 epochs" in drawn[0].get_suptitle()
    path = tmp_path / "b.jsonl"
    path.write_text('{"epoch": 0, "st\n{"epoch": 1}\n', encoding="utf-8")
    with pytest.raises(RunError, match="line 1 is no record of an epoch"):
        plot_curves(path, tmp_path / "b.png")
    assert not (tmp_path / "b.png").exists()


def test_a_run_that_only_measured_loss_marks_its_lowest(tmp_path, drawn):
    rows = [{"epoch": e, "val/loss": v} for e, v in enumerate([2.0, 1.0, math.nan, 1.5])]
    plot_curves(write(tmp_path / "metrics.jsonl", rows), tmp_path / "curves.png")
    assert "best val/loss 1 at epoch 1" in drawn[0].get_suptitle()
    assert [text.get_text() for text in drawn[0].axes[1].texts] == ["not measured"]


def test_no_record_is_a_sentence(tmp_path):
    with pytest.raises(RunError, match="no metrics"):
        plot_curves(tmp_path / "none.jsonl", tmp_path / "curves.png")
    with pytest.raises(RunError, match="is empty"):
        plot_curves(write(tmp_path / "empty.jsonl", []), tmp_path / "curves.png")


def trial(i, value, state="finished", **settings):
    curve = [] if value is None else [(e, value * (e + 1) / 4) for e in range(4 if state == "finished" else 2)]
    return {"id": f"t{i}", "state": state, "value": value, "epochs": len(curve), "settings": settings, "curve": curve}


def trials():
    return [
        trial(0, 0.5, **{"train.optim.lr": 1e-5, "model.kind": "landmark", "model.depth": 2}),
        trial(1, 0.3, "stopped", **{"train.optim.lr": 1e-3, "model.kind": "feature", "model.depth": 2}),
        trial(2, None, "failed", **{"train.optim.lr": 1e-4, "model.kind": "feature", "model.depth": 2}),
        trial(3, 0.8, **{"train.optim.lr": 3e-4, "model.kind": "landmark", "model.depth": 2}),
    ]


@pytest.mark.long
def test_a_study_shows_history_curves_and_what_was_searched(tmp_path, drawn):
    plot_study(trials(), tmp_path / "study.png", metric="val/top1", mode="max")
    assert is_picture(tmp_path / "study.png")
    history, learning, rate, kind = drawn[0].axes
    running = next(line for line in history.get_lines() if line.get_label() == "best so far")
    assert list(running.get_ydata()) == [0.5, 0.5, 0.8]
    assert len({line.get_linestyle() for line in learning.get_lines() if line.get_linestyle() != "None"}) == 2
    assert rate.get_xscale() == "log"
    assert rate.get_xlabel() == "train.optim.lr (n = 3)"
    assert [text.get_text() for text in kind.get_xticklabels()] == ["feature", "landmark"]
    assert drawn[0].get_suptitle() == "Study: 4 trials (2 finished, 1 stopped early, 1 failed)"


@pytest.mark.long
def test_the_best_is_the_lowest_where_lower_is_better(tmp_path, drawn):
    plot_study(trials(), tmp_path / "study.png", metric="val/loss", mode="min")
    assert "best: 0.3" in labels(drawn[0].axes[0])


@pytest.mark.long
@pytest.mark.parametrize("some", [trials()[:1], trials()[2:3], [trial(0, float("nan"), "running")]])
def test_a_study_of_one_trial_with_or_without_value(tmp_path, drawn, some):
    plot_study(some, tmp_path / "study.png", metric="val/top1", mode="max")
    assert len(drawn[0].axes) == 2
    assert drawn[0].get_suptitle().startswith("Study: 1 trial (")


@pytest.mark.long
def test_more_settings_than_fit_are_said_so(tmp_path, drawn):
    many = [trial(i, 0.1 * (i + 1), **{f"a.b{k}": i * k for k in range(1, 16)}) for i in range(3)]
    plot_study(many, tmp_path / "study.png", metric="val/top1", mode="max")
    assert drawn[0].get_suptitle().endswith("3 more settings not drawn")


@pytest.mark.long
def test_kinds_of_runs_stand_beside_each_other_on_the_same_axes(tmp_path, drawn):
    plain = [[{**row, "stage": 0} for row in epochs(6)] for _ in range(2)]
    staged = [epochs(6)]
    plot_side_by_side({"scratch": plain, "progressive": staged}, tmp_path / "both.png", title="two")
    assert is_picture(tmp_path / "both.png")
    above, other, _, last = drawn[0].axes
    assert [above.get_title(), other.get_title()] == ["scratch", "progressive"]
    assert labels(above) == ["run 1", "run 2"]
    assert labels(other) == ["scratch, mean", "run 1"]
    assert list(other.get_lines()[0].get_ydata()) == pytest.approx([e / 6 for e in range(6)])
    assert not above.texts
    assert [text.get_text() for text in other.texts] == ["stage 0", "stage 1", "stage 2"]
    assert above.get_ylim() == other.get_ylim()
    assert labels(last) == ["val/loss", "train/loss"]
    with pytest.raises(RunError, match="no run to draw"):
        plot_side_by_side({"scratch": []}, tmp_path / "none.png")


def test_wrong_use_is_refused(tmp_path):
    with pytest.raises(RunError, match="no trial to draw"):
        plot_study([], tmp_path / "study.png", metric="x", mode="max")
    with pytest.raises(ValueError, match="got 'best'"):
        plot_study(trials(), tmp_path / "study.png", metric="x", mode="best")


@pytest.mark.long
def test_no_figure_stays_in_memory(tmp_path):
    plot_study(trials(), tmp_path / "study.png", metric="val/top1", mode="max")
    import matplotlib._pylab_helpers as helpers

    assert helpers.Gcf.get_all_fig_managers() == []
