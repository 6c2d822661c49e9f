"""The winner of a search, held against the default settings on fresh seeds; trials as bundles that say where they come from."""

import json
import random
from pathlib import Path

import pytest

from sign_dist.config.run import Run
from sign_dist.config.source import load_run
from sign_dist.data.layout import write_json
from sign_dist.errors import RunError
from sign_dist.inference.bundle import Bundle
from sign_dist.inference.compare import compare
from sign_dist.inference.predictor import Predictor
from sign_dist.study.confirm import DEFAULT, answer, confirm, fresh_seeds, judge, plan, read_confirmation
from sign_dist.study.end import end_study
from sign_dist.study.layout import StudyDir
from sign_dist.study.objectives import latency_of, measure
from sign_dist.study.page import write_page
from sign_dist.study.promote import Promoted, promote, promote_front
from sign_dist.study.rows import note, rows_of, trial_rows
from tests.inference.pages import Page, check_page
from tests.inference.test_compare import answered, side
from tests.study.studies import write_study
from tests.worlds import extract_here, look_alike, train_here

ROOT = Path(__file__).parents[2]
NAMES = ("val/wer", "latency_ms", "size_mb")


def judged(*errors, seeds=(1, 2, 3), beats_on_val=True):
    """The judgement on two kinds of runs that answer with these shares of wrong words."""
    sides = [
        side(name, *(answered(error, seed=10 * s + 100 * i) for s in seeds))
        for i, (name, error) in enumerate(zip(("default", "trial_0001"), errors, strict=True))
    ]
    found = compare(sides, pairs="first")
    first, second = (row["scores"][0] for row in found["sides"])
    (pair,) = found["pairs"]
    return judge(
        "trial_0001", pair["scores"][0], first=first, second=second, unit="percent", title="WER", beats_on_val=beats_on_val
    )


@pytest.mark.parametrize(
    ("errors", "seeds", "on_val", "trusted", "words"),
    [
        ((0.5, 0.1), (1, 2, 3), True, True, "is better than the default settings, with each of 3 seeds"),
        ((0.1, 0.5), (1, 2, 3), True, False, "cannot tell"),
        ((0.2, 0.2), (1, 2, 3), True, False, "may be noise"),
        ((0.5, 0.1), (1,), True, False, "one seed is no sample"),
        ((0.5, 0.1), (1, 2, 3), False, False, "The win is noise"),
    ],
)
def test_a_win_is_trusted_where_it_is_one(errors, seeds, on_val, trusted, words):
    got, verdict = judged(*errors, seeds=seeds, beats_on_val=on_val)
    assert got == trusted
    assert words in verdict
    assert "% with the default settings" in verdict


@pytest.mark.long
def test_a_win_of_chance_is_rarely_trusted():
    rng = random.Random(0)
    found = [judged(0.2, 0.2, seeds=[rng.randrange(10_000) for _ in range(3)])[0] for _ in range(12)]
    assert sum(found) <= 1


def test_seeds_are_fresh_and_candidates_differ_from_the_default(tmp_path):
    study = write_study(tmp_path, 8)
    with pytest.raises(RunError, match="has not ended"):
        plan(study, top=2, seeds=2)
    rows = [row.to_dict() for row in trial_rows(study, [], {})]
    write_json(study.study_file, study.facts() | {"finished": True, "trials": rows})
    found = plan(study, top=2, seeds=3)
    used = {trial.run().train.seed for trial in study.trials()}
    assert not used & {repeat.seed for repeat in found}
    assert fresh_seeds(study, 3) == sorted({repeat.seed for repeat in found})
    ranked = sorted((row for row in rows_of(study) if row.score is not None), key=lambda row: -(row.score or 0))
    names = list(dict.fromkeys(repeat.name for repeat in found))
    assert names == [DEFAULT, *(f"trial_{row.number:04d}" for row in ranked[:2])]
    assert len({repeat.run_dir.root for repeat in found}) == len(found) == 9
    base = Run.from_tree(study.facts()["run"])
    for repeat in found:
        settings = {} if repeat.name == DEFAULT else ranked[names.index(repeat.name) - 1].settings
        assert repeat.run == base.with_values({**settings, "train.seed": repeat.seed})
    with pytest.raises(RunError, match="9 runs are not done, such as default with seed 4"):
        confirm(study, found)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A study of three small trials that were really trained, and what they were trained on."""
    root = tmp_path_factory.mktemp("trained")
    dataset = look_alike(root, "sentences")
    base = load_run(ROOT / "jobs" / "synthetic" / "cslr_student.py").with_values(
        {"data.root": str(dataset.root), "train.epochs": 1, "model.width": 16, "model.depth": 2, "model.lstm_layers": 1}
    )
    extract_here(dataset, base.data.features)
    study = StudyDir(root / "study")
    facts = {"run": base.model_dump(mode="json"), "space": {"model.width": "choice"}, "num_trials": 3, "storage": study.storage}
    write_json(study.study_file, facts | {"finished": False})
    for number, width in enumerate((16, 24, 32)):
        trial = study.trial(f"{number:04d}")
        train_here(base.with_values({"model.width": width}), trial.root)
        note(trial, number=number, settings={"model.width": width}, seconds=1.0, objectives=measure(trial, NAMES))
    end_study(study, trial_rows(study, [], {}), seconds=3.0)
    return study


@pytest.mark.long
def test_objectives_are_those_of_the_weights_that_serve(trained):
    for row in rows_of(trained):
        trial = trained.trial(row.id)
        assert row.objectives["size_mb"] == (trial.chosen() / "model.safetensors").stat().st_size / 1e6
        assert row.objectives["val/wer"] == pytest.approx(trial.metrics()[-1]["val/wer"], rel=1e-5)
        assert row.objectives["latency_ms"] == pytest.approx(latency_of(trial, trial.chosen()), rel=0.5)
    sizes = [row.objectives["size_mb"] for row in rows_of(trained)]
    assert sizes == sorted(sizes)


@pytest.mark.long
def test_every_point_of_the_front_is_a_bundle_that_says_how_it_was_found(trained):
    done = promote_front(trained)
    assert done
    for each in done:
        facts = each.bundle.facts()
        search = facts.provenance["search"]
        assert search["trial"] == each.row.number
        assert search["settings"] == each.row.settings
        assert search["of_trials"] == 3
        assert search["seed"] == trained.trial(each.row.id).run().train.seed
        assert search["latency_ms_again"] == pytest.approx(each.again_ms, abs=1e-3)
        assert facts.provenance["dataset"]["digest"]
        card = each.bundle.card_file.read_text()
        assert "## Search" in card
        assert "too good" in card
        assert Predictor.load(each.bundle.root).model_id.startswith(f"study_trial_{each.row.number:04d}")
    page = Page(write_page(trained).read_text())
    check_page(page)
    assert page.text.count("not exported") == 0


@pytest.mark.long
def test_a_confirmation_is_of_runs_that_are_done_and_is_not_done_twice(trained, tmp_path):
    repeats = plan(trained, top=1, seeds=2)
    for repeat in repeats:
        train_here(repeat.run, repeat.run_dir.root)
        answer(repeat.run_dir)
        assert repeat.is_done
    found = confirm(trained, repeats)
    assert found == read_confirmation(trained) == confirm(trained, plan(trained, top=1, seeds=2))
    assert [each["name"] for each in found["candidates"]] == [DEFAULT, found["winner"]]
    for each in found["candidates"]:
        assert len(each["on_val"]) == len(each["test"]["runs"]) == 2
    page = Page(write_page(trained).read_text())
    check_page(page)
    assert found["verdict"] in page.text
    done = promote(trained, out=tmp_path / "bundle")
    assert done.bundle == Bundle(tmp_path / "bundle")
    assert f"trial_{done.row.number:04d}" == found["winner"]
    assert json.loads(done.bundle.facts_file.read_text())["provenance"]["search"]["confirmed"] == found["verdict"]


def test_a_trial_that_is_not_there_cannot_be_promoted(tmp_path):
    study = write_study(tmp_path, 4)
    with pytest.raises(RunError, match=r"no trial 9 of .* it has 0, 1, 2, 3"):
        promote(study, number=9)
    with pytest.raises(RunError, match="has no Pareto front"):
        promote_front(study)


@pytest.mark.parametrize(("again", "agrees"), [(1.0, True), (1.19, True), (0.81, True), (1.21, False), (0.7, False)])
def test_a_time_that_differs_by_more_than_a_fifth_is_told(tmp_path, again, agrees):
    row = trial_rows(write_study(tmp_path, 1), [], {})[0]
    promoted = Promoted(row, Bundle(tmp_path), 1.0, again)
    assert promoted.agrees == agrees
    assert ("differs by more than 20%" in str(promoted)) != agrees
    assert Promoted(row, Bundle(tmp_path)).agrees
