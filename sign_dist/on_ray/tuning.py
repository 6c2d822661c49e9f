"""Ray Tune: a trial is a training run in a directory of its own; Optuna proposes, ASHA stops.

Trials use one device and train inside the trial's own process: it starts in a second, where a nested TorchTrainer needs
sixteen, and a stopped one leaves nothing behind.
"""

import contextlib
import dataclasses
import functools
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
from sign_dist.data.layout import write_json
from sign_dist.errors import RunError
from sign_dist.on_ray.cluster import num_cpus, num_gpus
from sign_dist.on_ray.training import begin, facts_of, finish, fit_run, following
from sign_dist.tasks.build import monitor_of
from sign_dist.training.curves import plot_study
from sign_dist.training.record import write_environment
from sign_dist.training.run_dir import RunDir
from sign_dist.training.strategy import OneProcess

OnTrials = Callable[[int, int, float | None], None]
"""(epochs trained over all trials, epochs if none is stopped early, best score so far)"""


@dataclasses.dataclass(frozen=True)
class StudyDir:
    """A study: `study.json`, `best.json`, `optuna.db`, `study.png`, `tune/` (Ray's files) and a run directory per trial."""

    root: Path

    @property
    def study_file(self) -> Path:
        return self.root / "study.json"

    @property
    def best_file(self) -> Path:
        return self.root / "best.json"

    @property
    def picture_file(self) -> Path:
        return self.root / "study.png"

    @property
    def storage(self) -> str:
        """Address for `optuna-dashboard`."""
        return f"sqlite:///{(self.root / 'optuna.db').absolute()}"

    @property
    def tune(self) -> Path:
        return self.root / "tune"

    def trial(self, trial_id: str) -> RunDir:
        return RunDir(self.root / f"trial_{trial_id}")

    def trials(self) -> list[RunDir]:
        return [RunDir(path.parent) for path in sorted(self.root.glob("trial_*/run.json"))]


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
    tell = functools.partial(_tell, study, num_trials, on_trials) if on_trials else None
    with following(tell, every_s=1.0):
        results = tuner.fit()
    failed = {result.path: str(result.error).strip().splitlines()[-1] for result in results if result.error}
    return _end(study, space, failed, time.monotonic() - started)


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
    monitor = monitor_of(run)
    scores = [_score(line, monitor.name, monitor.mode) for line in trial_dir.metrics()]

    def report(metrics: dict[str, float]) -> None:
        scores.append(_score(metrics, monitor.name, monitor.mode))
        tune.report({**metrics, "score": max(scores)})

    torch.set_num_threads(1)
    fit_run(run, trial_dir, OneProcess("cuda" if torch.cuda.is_available() else "cpu"), on_epoch=report)
    finish(trial_dir)


def _score(metrics: Mapping[str, Any], name: str, mode: str) -> float:
    """The monitor, larger for better; the validation loss decides between equal ones, as it does not between others."""
    value = metrics[name] if mode == "max" else -metrics[name]
    return float(value) - 1e-4 * min(float(metrics["val/loss"]), 100.0)


def _begin(study: StudyDir, run: Run, space: Mapping[str, Any], num_trials: int) -> bool:
    """Claim the directory; True if this very study is finished."""
    facts = {
        "run": run.model_dump(mode="json"),
        "space": {name: _domain_text(domain) for name, domain in space.items()},
        "num_trials": num_trials,
        "storage": study.storage,
        "finished": False,
    }
    if study.study_file.exists():
        before = json.loads(study.study_file.read_text(encoding="utf-8"))
        changed = [name for name in ("run", "space", "num_trials") if before[name] != facts[name]]
        if changed:
            raise RunError(
                f"{str(study.root)!r} holds a study with another {' and '.join(changed)}: choose another --out, or remove it"
            )
        if before["finished"]:
            return True
    write_json(study.study_file, facts)
    return False


def _domain_text(domain: Any) -> str:
    """A distribution as text that is the same in every process."""
    if hasattr(domain, "categories"):
        return f"choice of {list(domain.categories)}"
    if hasattr(domain, "lower"):
        return f"{type(domain).__name__} {domain.lower} to {domain.upper}, {type(domain.get_sampler()).__name__.strip('_')}"
    return str(domain)


def _end(study: StudyDir, space: Mapping[str, Any], failed: Mapping[str, str], seconds: float) -> dict[str, Any]:
    rows = trial_rows(study, space, failed)
    ended = [row for row in rows if row["value"] is not None]
    if not ended:
        reasons = "; ".join(sorted(set(failed.values()))[:3]) or "none was started"
        raise RunError(
            f"no trial of {str(study.root)!r} ended well ({reasons}): lower the learning rates of the space, "
            "or look at the logs in tune/"
        )
    best = max(ended, key=lambda row: row["score"])
    facts = json.loads(study.study_file.read_text(encoding="utf-8"))
    epochs = facts["run"]["train"]["epochs"]
    answer = {
        "trial": best["id"],
        "run_dir": f"trial_{best['id']}",
        "value": best["value"],
        "settings": best["settings"],
        "num_trials": len(rows),
        "epochs_trained": sum(row["epochs"] for row in rows),
        "epochs_without_stopping": epochs * len(rows),
    }
    write_json(study.best_file, answer)
    monitor = monitor_of(Run.from_tree(facts["run"]))
    plot_study(rows, study.picture_file, metric=monitor.name, mode=monitor.mode)
    write_json(study.study_file, facts | {"finished": True, "seconds": round(seconds, 1), "trials": rows})
    return answer


def trial_rows(study: StudyDir, space: Mapping[str, Any], failed: Mapping[str, str]) -> list[dict[str, Any]]:
    """Each trial as a plain row: id, state, value, settings, curve."""
    reasons = {Path(path).name: reason for path, reason in failed.items()}
    rows: list[dict[str, Any]] = []
    for trial in study.trials():
        trial_id = trial.root.name.removeprefix("trial_")
        run, lines = trial.run(), trial.metrics()
        monitor = monitor_of(run)
        best = max(lines, key=lambda line: _score(line, monitor.name, monitor.mode), default=None)
        state = "failed" if trial_id in reasons else "finished" if trial.done_file.exists() else "stopped"
        flat = run.flat()
        rows.append(
            {
                "id": trial_id,
                "state": state,
                "reason": reasons.get(trial_id, ""),
                "value": best[monitor.name] if best else None,
                "score": _score(best, monitor.name, monitor.mode) if best else None,
                "epochs": int(lines[-1]["epoch"]) if lines else 0,
                "settings": {name: flat[name] for name in space},
                "curve": [(line["epoch"], line[monitor.name]) for line in lines],
            }
        )
    return rows


def _tell(study: StudyDir, num_trials: int, on_trials: OnTrials) -> None:
    name = monitor_of(study.trials()[0].run()).name if study.trials() else ""
    curves = [[line[name] for line in trial.metrics()] for trial in study.trials()]
    epochs = json.loads(study.study_file.read_text(encoding="utf-8"))["run"]["train"]["epochs"]
    best = max((max(curve) for curve in curves if curve), default=None)
    on_trials(sum(map(len, curves)), num_trials * epochs, best)
