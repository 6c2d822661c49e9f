"""Ray Tune: a trial is a training run in a directory of its own; Optuna proposes, ASHA stops.

Trials use one device and train inside the trial's own process: it starts in a second, where a nested TorchTrainer needs
sixteen, and a stopped one leaves nothing behind.
"""

import contextlib
import json
import logging
import shutil
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.storages import RDBStorage
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from sign_dist.config.run import Run
from sign_dist.on_ray.cluster import num_cpus, num_gpus
from sign_dist.on_ray.training import begin, facts_of, finish, fit_run, following
from sign_dist.study.end import end_study
from sign_dist.study.layout import StudyDir, domain_text
from sign_dist.study.rows import note, noted, score, told, trial_rows
from sign_dist.tasks.build import monitor_of
from sign_dist.training.record import write_environment
from sign_dist.training.run_dir import RunDir
from sign_dist.training.strategy import OneProcess

OnTrials = Callable[[int, int, float | None], None]
"""(epochs trained over all trials, epochs if none is stopped early, best score so far)"""


class _Search(OptunaSearch):
    """Optuna's proposals, also where a driver was killed between Optuna's note of a trial's end and Tune's own.

    Such a trial comes again, and what it says is known already.
    """

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
            super().on_trial_result(trial_id, result)


def tune_run(
    run: Run, space: Mapping[str, Any], root: Path, *, num_trials: int = 8, seed: int = 0, on_trials: OnTrials | None = None
) -> dict[str, Any]:
    """Search `space` (dotted setting name -> distribution) around a run; answers `best.json`.

    The same call goes on with an interrupted study and leaves a finished one alone.

    Raises:
        SettingsError: a name of the space is no setting, or a value of it is not allowed.
        RunError: the directory holds another study, or no trial ended well.
    """
    study = StudyDir(root.absolute())
    run = run.with_values({"data.root": str(Path(run.data.root).absolute()), "scale.workers": 1})
    check_space(run, space)
    if _begin(study, run, space, num_trials):
        return json.loads(study.best_file.read_text(encoding="utf-8"))
    begin_check = RunDir(study.root / "trial_check")
    begin(run, begin_check.root)  # a missing dataset is one sentence here, not a failure of every trial
    shutil.rmtree(begin_check.root)
    started = time.monotonic()
    tuner = _tuner(study, run, space, num_trials, seed)
    tell = (lambda: on_trials(*told(study, num_trials))) if on_trials else None
    with following(tell, every_s=1.0):
        results = tuner.fit()
    failed = {result.path: str(result.error).strip().splitlines()[-1] for result in results if result.error}
    return end_study(study, trial_rows(study, space, failed), seconds=time.monotonic() - started)


def small_space() -> dict[str, Any]:
    """What matters most, for a search of a few trials."""
    return {"train.optim.lr": tune.loguniform(3e-4, 5e-3), "model.dropout": tune.uniform(0.1, 0.5)}


def check_space(run: Run, space: Mapping[str, Any]) -> None:
    """Every name must be a setting, and sample values must be allowed, before anything starts.

    Raises:
        SettingsError: the first that is not.
    """
    for _ in range(5):
        run.with_values({name: domain.sample() if hasattr(domain, "sample") else domain for name, domain in space.items()})


def _tuner(study: StudyDir, run: Run, space: Mapping[str, Any], num_trials: int, seed: int) -> tune.Tuner:
    gpus, cpus = num_gpus(), num_cpus()
    trial = tune.with_resources(tune.with_parameters(_trial, run=run, root=str(study.root)), {"cpu": 1, "gpu": 1 if gpus else 0})
    if tune.Tuner.can_restore(str(study.tune)):
        return tune.Tuner.restore(str(study.tune), trainable=trial, resume_unfinished=True, resume_errored=True)
    for name in ("optuna", "ray.tune"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True, n_startup_trials=4)
        search = _Search(metric="score", mode="max", sampler=sampler, study_name=study.root.name, storage=RDBStorage(study.storage))
    epochs = run.train.epochs
    return tune.Tuner(
        trial,
        param_space=dict(space),
        tune_config=tune.TuneConfig(
            num_samples=num_trials,
            search_alg=search,
            scheduler=ASHAScheduler(
                time_attr="epoch",
                metric="score",
                mode="max",
                # One more than there are: the last report must return, so that the trial ends of itself and is marked done.
                max_t=epochs + 1,
                grace_period=max(1, epochs // 8),
                reduction_factor=3,
            ),
            max_concurrent_trials=max(1, gpus or cpus),
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name=study.tune.name, storage_path=str(study.root), verbose=0, failure_config=tune.FailureConfig(max_failures=1)
        ),
    )


def _trial(values: dict[str, Any], *, run: Run, root: str) -> None:
    """One run with the values that were proposed. What Tune hears is the best score so far: a trial that is stopped
    early then stands for what it reached, not for where it happened to be."""
    run = run.with_values(values)
    trial_dir, run, clips = begin(run, StudyDir(Path(root)).trial(tune.get_context().get_trial_id()).root)
    if trial_dir.done_file.exists():
        return
    write_environment(trial_dir, facts_of(run, *clips))
    before, started = noted(trial_dir).get("seconds", 0.0), time.monotonic()
    note(trial_dir, settings=values)
    monitor = monitor_of(run)
    scores = [score(line, monitor.name, monitor.mode) for line in trial_dir.metrics()]

    def report(metrics: dict[str, float]) -> None:
        scores.append(score(metrics, monitor.name, monitor.mode))
        # Before Tune hears of it: a trial that is stopped does not come back from its report.
        note(trial_dir, seconds=before + time.monotonic() - started)
        tune.report({**metrics, "score": max(scores)})

    torch.set_num_threads(1)
    fit_run(run, trial_dir, OneProcess("cuda" if torch.cuda.is_available() else "cpu"), on_epoch=report)
    finish(trial_dir)


def _begin(study: StudyDir, run: Run, space: Mapping[str, Any], num_trials: int) -> bool:
    """Claim the directory; True if this very study is finished."""
    facts = {
        "run": run.model_dump(mode="json"),
        "space": {name: domain_text(domain) for name, domain in space.items()},
        "num_trials": num_trials,
        "storage": study.storage,
        "finished": False,
    }
    return study.claim(facts, same=("run", "space", "num_trials"))
