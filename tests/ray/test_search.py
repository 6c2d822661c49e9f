"""The Optuna side of a search, without a cluster: spaces, what is known of earlier trials, the searcher that Tune asks."""

from pathlib import Path
from typing import Any

import optuna
import pytest
from ray import cloudpickle, tune
from ray.exceptions import OutOfMemoryError
from ray.tune.search import Searcher

from sign_dist.config.data import Data
from sign_dist.config.run import Run
from sign_dist.config.search import Search
from sign_dist.errors import SettingsError
from sign_dist.on_ray import search as of
from sign_dist.on_ray.stopping import Budget, replay, scheduler_of
from sign_dist.on_ray.trial_records import Records
from sign_dist.study.layout import StudyDir
from sign_dist.study.rows import noted, trial_rows

LR, DROPOUT = "train.optim.lr", "model.dropout"
SPACE = {LR: tune.loguniform(1e-4, 1e-2), DROPOUT: tune.uniform(0.1, 0.5), "train.batch_size": tune.choice([8, 16])}
RUN = Run(data=Data(root="nowhere"))


def conditional(trial: Any) -> dict[str, Any]:
    if trial.suggest_categorical("train.unfreeze.stages", [1, 2]) == 1:
        trial.suggest_float("train.optim.layer_decay", 0.5, 1.0)
    return {"train.batch_size": 8}


def proposals(folder: Path, **values: Any) -> optuna.Study:
    return of.open_study("s", f"sqlite:///{folder / 'optuna.db'}", Search().with_values(values))


def trials_of(study: optuna.Study, space: of.Space = SPACE, *, names: tuple[str, ...] = (), **given: Any) -> of.OptunaTrials:
    told: dict[str, Any] = {"unfinished": [], "left": None, "open_": lambda: True, "on_new": lambda *_: None}
    return of.OptunaTrials(study, of.drawing(space), names=names, **(told | given))


def ended(score: float, **more: Any) -> dict[str, Any]:
    return {"score": score, "step": 3, "time": 3, "ended": True, **more}


def test_a_conditional_value_is_drawn_only_where_its_condition_holds() -> None:
    runs, distributions = of.check_space(RUN, conditional)
    assert distributions.keys() == {"train.unfreeze.stages", "train.optim.layer_decay"}
    assert {run.train.unfreeze.stages for run in runs} == {1, 2}
    for run in runs:
        assert run.train.batch_size == 8
        if run.train.unfreeze.stages == 2:
            assert run.train.optim.layer_decay == RUN.train.optim.layer_decay


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"train.optim.lrr": tune.uniform(0, 1)}, "did you mean 'lr'"),
        ({DROPOUT: tune.uniform(0.1, 1.5)}, "model.dropout"),
        ({DROPOUT: tune.grid_search([0.1, 0.2])}, r"use tune\.choice"),
        (lambda trial: {"train.epocks": trial.suggest_int("train.epochs", 1, 3)}, "did you mean 'epochs'"),
        (lambda trial: [trial.suggest_int("train.epochs", 1, 3)], "must return a dict"),
    ],
)
def test_a_space_that_does_not_fit_is_one_sentence(space: Any, said: str) -> None:
    with pytest.raises(SettingsError, match=said) as told:
        of.check_space(RUN, space)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "gp", "random"])
def test_a_study_that_starts_again_goes_on_with_what_was_begun_and_counts_what_ended(tmp_path: Path, sampler: str) -> None:
    study = proposals(tmp_path, sampler=sampler)
    first = trials_of(study, left=4)
    configs = [first.suggest(name) for name in "abcd"]
    assert first.suggest("e") == Searcher.FINISHED
    first.on_trial_result("a", {"score": 0.4, "step": 1, "time": 1})
    first.on_trial_complete("a", ended(0.5))
    first.on_trial_result("b", {"score": 0.1, "step": 1, "time": 1})
    first.on_trial_complete("b", {"score": 0.1, "step": 1, "time": 1})
    first.on_trial_complete("c", error=True)

    again = proposals(tmp_path, sampler=sampler)  # the driver died: nothing is known but the database
    assert [t.state.name for t in of.ended_of(again)] == ["COMPLETE", "PRUNED", "FAIL"]
    assert of.begun_of(again, of.drawing(SPACE)) == [(3, configs[3]["values"])]
    second = trials_of(again, unfinished=of.begun_of(again, of.drawing(SPACE)), left=2)
    assert second.suggest("x") == configs[3]
    new = second.suggest("y")
    assert new["id"] == "0004"
    assert new["values"] not in [config["values"] for config in configs]
    second.on_trial_complete("x", ended(0.2))
    second.on_trial_complete("x", ended(0.9))  # told twice: what was said first holds
    assert again.trials[3].value == 0.2
    assert again.best_trial.number == 0


def test_no_trial_begins_when_the_budget_is_spent(tmp_path: Path) -> None:
    budget = Budget(hours=1e-9, gpu_hours=0, gpus_per_trial=0)
    assert trials_of(proposals(tmp_path), open_=lambda: not budget.over()).suggest("a") == Searcher.FINISHED
    assert "hours are spent" in budget.over()
    on_gpus = Budget(hours=0, gpu_hours=1, gpus_per_trial=2)
    on_gpus.ran("0000", 900)
    on_gpus.ran("0000", 1000)  # the same trial, later
    assert not on_gpus.over()
    on_gpus.ran("0001", 900)
    assert "1 GPU-hours" in on_gpus.over()


def test_several_objectives_are_told_with_their_directions(tmp_path: Path) -> None:
    names = ("val/top1", "latency_ms")
    study = proposals(tmp_path, objectives=" ".join(names), sampler="nsga2")
    searcher = trials_of(study, names=names)
    for name, (top1, latency) in {"a": (0.9, 5.0), "b": (0.8, 2.0), "c": (0.7, 6.0)}.items():
        searcher.suggest(name)
        values = {of.OBJECTIVE + "val/top1": top1, of.OBJECTIVE + "latency_ms": latency}
        searcher.on_trial_complete(name, ended(0.0, **values))
    assert {t.number for t in study.best_trials} == {0, 1}


def test_the_jobs_own_settings_come_first_where_the_space_holds_them(tmp_path: Path) -> None:
    study = proposals(tmp_path)
    run = RUN.with_values({LR: 3e-3, DROPOUT: 0.2})
    assert of.start_with_own(study, of.drawing(SPACE), run)
    assert trials_of(study).suggest("a")["values"] == {LR: 3e-3, DROPOUT: 0.2, "train.batch_size": 16}
    assert not of.start_with_own(study, of.drawing(SPACE), run.with_values({LR: 0.5}))


def test_an_earlier_study_of_the_same_job_is_known_and_of_another_is_tried_first(tmp_path: Path) -> None:
    earlier = StudyDir(tmp_path / "earlier")
    earlier.root.mkdir()
    facts = {"run": RUN.model_dump(mode="json"), "objectives": [], "finished": True, "study_name": "s", "storage": earlier.storage}
    earlier.claim(facts, same=())
    before = proposals(earlier.root)
    searcher = trials_of(before, {LR: tune.loguniform(1e-4, 1e-1)})
    found: dict[float, float] = {}
    for i in range(12):
        lr = searcher.suggest(str(i))["values"][LR]
        searcher.on_trial_complete(str(i), ended(-lr))
        found[lr] = -lr
    narrow = of.drawing({LR: tune.loguniform(1e-4, 1e-2)})
    inside = sorted(lr for lr in found if lr <= 1e-2)
    assert 0 < len(inside) < 12
    for number, (run, counts) in enumerate({"same": (RUN, True), "other": (RUN.with_values({"train.epochs": 3}), False)}.values()):
        study = of.open_study(f"new{number}", f"sqlite:///{tmp_path / 'new.db'}", Search())
        known, queued = of.warm_start(study, narrow, run, [str(earlier.root)], Search(), best=2)
        assert (known, queued) == ((len(inside), 0) if counts else (0, min(2, len(inside))))
        assert of.ended_of(study) == []  # they are no trials of this study
        if not counts:
            assert trials_of(study, {LR: tune.loguniform(1e-4, 1e-2)}).suggest("a")["values"][LR] == pytest.approx(inside[0])


class _Trial:
    def __init__(self, number: int) -> None:
        self.trial_id, self.config = f"t{number}", {"id": f"{number:04d}"}


class _Never:
    def stop(self, trial: Path) -> bool:
        return False


class _Asks:
    def __init__(self) -> None:
        self.asked: list[str] = []

    def stop(self, trial: Path) -> bool:
        self.asked.append(trial.name)
        return True


@pytest.mark.parametrize("kind", ["asha", "median"])
def test_a_scheduler_that_is_told_the_past_decides_as_one_that_saw_it(tmp_path: Path, kind: str) -> None:
    """And says why it stopped a trial, in the trial's own directory."""
    study = StudyDir(tmp_path)
    curves = {f"{n:04d}": [(float(e), n + e / 10) for e in range(1, 10)] for n in range(5)}

    def made() -> Any:
        budget = Budget(hours=0, gpu_hours=0, gpus_per_trial=0)
        search = Search().with_values({"scheduler": kind})
        return scheduler_of(search, epochs=9, space=SPACE, study=study, budget=budget, stops=_Never())

    def decisions(scheduler: Any, trial: _Trial, base: float) -> list[str]:
        scheduler.on_trial_add(None, trial)
        return [scheduler.on_trial_result(None, trial, {"time": e, "score": base + e / 10, "ended": False}) for e in (1,)]

    seen, told = made(), made()
    for number, curve in curves.items():
        trial = _Trial(int(number))
        seen.on_trial_add(None, trial)
        for at, score in curve:
            type(seen).__mro__[2].on_trial_result(seen, None, trial, {"time": at, "score": score})
    replay(told, curves)
    for base in (-1.0, 9.0):
        (study.trial(f"{int(base) + 50:04d}").root).mkdir()
        found = decisions(seen, _Trial(int(base) + 50), base)
        assert decisions(told, _Trial(int(base) + 50), base) == found == ["STOP" if base < 0 else "CONTINUE"]
    assert noted(study.trial("0049"))["reason"].startswith(f"{kind}: ")
    assert "state" not in noted(study.trial("0059"))


def test_population_based_training_wants_distributions(tmp_path: Path) -> None:
    budget = Budget(hours=0, gpu_hours=0, gpus_per_trial=0)
    with pytest.raises(SettingsError, match="needs a space that is a dict"):
        scheduler_of(Search(scheduler="pbt"), epochs=9, space=conditional, study=StudyDir(tmp_path), budget=budget, stops=_Never())


class _Failed:
    """As much of a trial of Tune's as is looked at when it fails."""

    def __init__(self, folder: Path, error: BaseException, values: dict[str, Any]) -> None:
        self.config = {"id": "0000", "values": values}
        self.pickled_error_file, self.error_file = str(folder / "error.pkl"), str(folder / "error.txt")
        Path(self.pickled_error_file).write_bytes(cloudpickle.dumps(error))


def test_where_memory_ran_out_a_trial_starts_again_in_more_parts_of_the_same_batch(tmp_path: Path) -> None:
    study, run = StudyDir(tmp_path), RUN.with_values({"train.batch_size": 4})
    trial = study.trial("0000")
    trial.claim(run)
    records = Records(study, run, Budget(hours=0, gpu_hours=0, gpus_per_trial=0))
    (tmp_path / "tune").mkdir()
    for parts in (2, 4, 4):
        records.on_trial_recover(0, [], _Failed(tmp_path / "tune", OutOfMemoryError("killed"), {}))
        assert trial.parts(run) == parts
    assert "memory is too short" in noted(trial)["reason"]
    assert trial.run().train.batch_size == 4
    records.on_trial_recover(0, [], _Failed(tmp_path / "tune", ValueError("a\nb is wrong\n"), {}))
    assert trial.parts(run) == 4
    assert noted(trial)["reason"] == "started again: b is wrong"


def test_a_trial_that_failed_before_it_began_is_a_row_all_the_same(tmp_path: Path) -> None:
    study = StudyDir(tmp_path)
    facts = {"run": RUN.model_dump(mode="json"), "space": {LR: ""}, "finished": False}
    study.claim(facts, same=())
    study.trial("0000").root.mkdir()
    records = Records(study, RUN, Budget(hours=0, gpu_hours=0, gpus_per_trial=0))
    records.on_trial_error(0, [], _Failed(tmp_path, ValueError("no such layer"), {LR: 5e-4}))
    (row,) = trial_rows(study, [LR], {})
    assert (row.state, row.reason, row.settings, row.value) == ("failed", "no such layer", {LR: 5e-4}, None)
    assert study.facts()["seconds"] >= 0


@pytest.mark.parametrize("kind", ["asha", "median", "none"])
def test_a_trial_that_ends_itself_is_asked_once_and_never_killed(tmp_path: Path, kind: str) -> None:
    """Also by a budget; and what it says until it has ended is listened to."""
    study, asks = StudyDir(tmp_path), _Asks()
    budget = Budget(hours=1, gpu_hours=0, gpus_per_trial=0)
    search = Search(scheduler=kind)  # pyright: ignore[reportArgumentType]
    scheduler: Any = scheduler_of(search, epochs=9, space=SPACE, study=study, budget=budget, stops=asks)
    replay(scheduler, {f"{n:04d}": [(float(e), 1.0) for e in range(1, 10)] for n in range(5)})
    for number in (7, 8):
        study.trial(f"{number:04d}").root.mkdir()
        scheduler.on_trial_add(None, _Trial(number))
    said = [scheduler.on_trial_result(None, _Trial(7), {"time": at, "score": 0.0, "ended": False}) for at in (1, 2, 3)]
    budget.spent_s = 3600
    said += [scheduler.on_trial_result(None, _Trial(8), {"time": at, "score": 2.0, "ended": False}) for at in (1, 2)]
    assert said == ["CONTINUE"] * 5
    assert asks.asked == (["trial_0008"] if kind == "none" else ["trial_0007", "trial_0008"])
    assert "hours are spent" in noted(study.trial("0008"))["reason"]


def test_a_proposal_whose_driver_died_before_its_values_were_kept_is_drawn_to_its_end(tmp_path: Path) -> None:
    draw = of.drawing(conditional)
    died = proposals(tmp_path).ask()
    stages = died.suggest_categorical("train.unfreeze.stages", [1, 2])
    again = proposals(tmp_path)
    ((number, values),) = of.begun_of(again, draw)
    assert number == 0
    assert values["train.unfreeze.stages"] == stages, "what was drawn holds"
    assert ("train.optim.layer_decay" in values) == (stages == 1)
    assert values["train.batch_size"] == 8
    assert of.begun_of(again, draw) == [(0, values)]
    noted: list[tuple[int, Any]] = []
    first = trials_of(again, conditional, unfinished=[(number, values)], left=1, on_new=lambda *told: noted.append(told))
    assert first.suggest("a") == {"id": "0000", "values": values}
    assert noted == [(0, values)]
