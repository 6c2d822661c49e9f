"""Ray Tune: a trial is a training run in a directory of its own; Optuna proposes, a scheduler stops.

A start of a study reads from its directory and from Optuna's database what has ended and what was begun, and asks Tune for the
rest; Tune's own files are of no use afterwards and are made anew. So a driver may die at any moment.
"""

import json
import logging
import os
import shutil
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from ray import tune

from sign_dist.config.run import Run
from sign_dist.config.search import Search
from sign_dist.errors import ServiceError, SettingsError
from sign_dist.on_ray.cluster import num_gpus
from sign_dist.on_ray.decode_trials import Decode
from sign_dist.on_ray.prefix import ensure_prefix
from sign_dist.on_ray.search import (
    Draw,
    OptunaTrials,
    Space,
    begun_of,
    check_space,
    drawing,
    ended_of,
    id_of,
    open_study,
    start_with_own,
    tell,
    warm_start,
)
from sign_dist.on_ray.stopping import Budget, replay, scheduler_of
from sign_dist.on_ray.training import begin, following
from sign_dist.on_ray.trial_records import Records, artifacts_of
from sign_dist.on_ray.trial_runners import Inside, TrialRunner, Workers, run_trial, scores_of
from sign_dist.study.end import end_study
from sign_dist.study.layout import StudyDir, domain_text
from sign_dist.study.objectives import direction
from sign_dist.study.rows import note, noted, told, trial_rows
from sign_dist.training.prefix import where_still
from sign_dist.training.run_dir import RunDir
from sign_dist.training.start import with_absolute_files
from sign_dist.training.teacher import with_absolute_teacher

# Tune's loggers would write each report into three more files; ours stand in the run directories. A trial whose thread is told to
# end may be writing a checkpoint: it has this long before its process is given up.
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_FUNCTION_THREAD_TIMEOUT_S", "20")

# What may differ from one start of a study to the next.
LOOSE = {"trials", "hours", "gpu_hours", "concurrency", "retries"}

OnTrials = Callable[[int, int, float | None], None]
"""(epochs trained over all trials, epochs if none is stopped early, best score so far)"""

logger = logging.getLogger(__name__)


def tune_run(
    run: Run,
    space: Space,
    root: Path,
    *,
    num_trials: int | None = None,
    seed: int | None = None,
    search: Search | None = None,
    on_trials: OnTrials | None = None,
) -> dict[str, Any]:
    """Search a space around a run; answers `best.json`. `num_trials` and `seed` are short for those of `search`.

    The same call goes on with an interrupted study and leaves a finished one alone.

    Raises:
        SettingsError: a name of the space is no setting, or a value of it is not allowed.
        RunError: the directory holds another study, or no trial ended well.
        ServiceError: the cluster cannot run such trials, or no database answers.
    """
    study = StudyDir(root.absolute())
    given = {"trials": num_trials, "seed": seed}
    search = (search or Search()).with_values({name: value for name, value in given.items() if value is not None})
    draws, distributions = check_space(run, space)
    runner = runner_of(search, run, study, list(distributions))
    if isinstance(runner, Inside):
        run = run.with_values({"scale.workers": 1, "scale.min_workers": 0})
    run = with_absolute_teacher(with_absolute_files(run.with_values({"data.root": str(Path(run.data.root).absolute())})))
    _check(run, search, runner)
    if _claim(study, run, space_text(space, distributions), search):
        return json.loads(study.best_file.read_text(encoding="utf-8"))
    _look_at_data(study, run, search, draws)
    budget = _budget(study, run, search, runner)
    tell_all = (lambda: on_trials(*told(study, search.trials))) if on_trials else None
    with following(tell_all, every_s=1.0):
        _search(study, run, space, search, runner, budget)
    rows = trial_rows(study, list(study.facts()["space"]), {})
    return end_study(study, rows, seconds=budget.seconds)


def runner_of(search: Search, run: Run, study: StudyDir, names: Collection[str]) -> TrialRunner:
    """The way that the settings name, or that the job and the space ask for.

    Raises:
        SettingsError: answers shall be read out anew, and of which run is not said.
    """
    decodes = bool(names) and all(name.startswith("decode.") for name in names)
    if search.runner == "decode" or (search.runner == "auto" and decodes and search.of):
        if not search.of or not decodes:
            raise SettingsError(
                f"search.runner = 'decode' reads a finished run's answers out anew, got search.of = {search.of!r} and a space of "
                f"{', '.join(names)}: name the run with search.of=RUN, and a space of decode.* alone"
            )
        return Decode(str(Path(search.of).absolute()), str(study.root / "encoded.safetensors"))
    return Workers() if search.wants_workers(run.scale.workers) else Inside()


def small_space() -> dict[str, Any]:
    """What matters most, for a search of a few trials."""
    return {"train.optim.lr": tune.loguniform(3e-4, 5e-3), "model.dropout": tune.uniform(0.1, 0.5)}


def _check(run: Run, search: Search, runner: TrialRunner) -> None:
    runner.check(run)
    for name in search.names():
        direction(name)
    if search.gpu_hours and not num_gpus():
        raise ServiceError(
            f"search.gpu_hours = {search.gpu_hours:g}, and the cluster has no GPU: give search.hours or search.trials"
        )
    for values in search.rungs():
        run.with_values(values)


def _claim(study: StudyDir, run: Run, space: Mapping[str, str], search: Search) -> bool:
    """Claim the directory; True if this very study is finished."""
    before = study.facts() if study.study_file.exists() else {}
    facts = {
        "run": run.model_dump(mode="json"),
        "space": dict(space),
        "num_trials": search.trials,
        "search": search.model_dump(mode="json", exclude=LOOSE),
        "objectives": search.names(),
        "study_name": study.root.name if not search.storage else f"{study.root.name}-{run.digest()}",
        "storage": search.storage or study.storage,
        "seconds": before.get("seconds", 0.0),
        "finished": False,
    }
    return study.claim(facts, same=("run", "space", "num_trials", "search"))


def _look_at_data(study: StudyDir, run: Run, search: Search, draws: Sequence[Run]) -> None:
    """A missing dataset, or features that a rung of fidelity needs, is one sentence here, not a failure of every trial."""
    check = RunDir(study.root / "trial_check")
    try:
        for values in search.rungs():
            begin(where_still(run.with_values(values)), check.root)
            shutil.rmtree(check.root)
    finally:
        shutil.rmtree(check.root, ignore_errors=True)
    # Trials that freeze the same layers share what these make of the clips: it is computed once, before they start.
    caching = [each for each in draws if each.train.cache_prefix]
    frozen = {json.dumps([each.train.freeze.flat(), each.train.unfreeze.flat()]): each for each in caching}
    for each in frozen.values():
        ensure_prefix(where_still(each))


def _budget(study: StudyDir, run: Run, search: Search, runner: TrialRunner) -> Budget:
    gpus = runner.needs(run).get("gpu", 0.0) or (run.scale.workers if num_gpus() and run.scale.workers > 1 else 0)
    budget = Budget(search.hours, search.gpu_hours, float(gpus), spent_s=float(study.facts().get("seconds", 0.0)))
    for trial in study.trials():
        budget.ran(trial.root.name.removeprefix("trial_"), float(noted(trial).get("seconds", 0.0)))
    return budget


def _search(study: StudyDir, run: Run, space: Space, search: Search, runner: TrialRunner, budget: Budget) -> None:
    """Ask Tune for the trials that are left."""
    facts, draw, names = study.facts(), drawing(space), search.names()
    proposals = open_study(facts["study_name"], facts["storage"], search)
    _reconcile(study, proposals, draw, names)
    if not proposals.get_trials(deepcopy=False):
        known, queued = warm_start(proposals, draw, run, search.warm_start.split(), search)
        if known or queued:
            logger.info("%d trials of earlier studies count as known, %d are tried first", known, queued)
        if search.own_first:
            start_with_own(proposals, draw, run)
    ended = ended_of(proposals)
    left = search.trials - len(ended) if search.trials else None
    if left is not None and left <= 0:
        return
    scheduler = scheduler_of(search, epochs=run.train.epochs, space=space, study=study, budget=budget, stops=runner)
    replay(scheduler, _curves(study, proposals, search, [trial.number for trial in ended]))
    unfinished = [
        (number, noted(study.trial(id_of(number))).get("settings", values)) for number, values in begun_of(proposals, draw)
    ]
    trials = OptunaTrials(
        proposals,
        draw,
        names=names,
        unfinished=unfinished,
        left=left,
        open_=lambda: not budget.over(),
        on_new=lambda number, values: note(_made(study, number), number=number, settings=dict(values)),
    )
    shutil.rmtree(study.tune, ignore_errors=True)  # of a start that died
    for name in ("optuna", "ray.tune"):
        logging.getLogger(name).setLevel(logging.ERROR)
    function = tune.with_parameters(run_trial, run=run, root=str(study.root), search=search, runner=runner)
    records = Records(study, run, budget)
    tuner = tune.Tuner(
        tune.with_resources(function, runner.needs(run)),
        tune_config=tune.TuneConfig(
            num_samples=-1 if left is None else left,
            search_alg=trials,
            scheduler=scheduler,
            max_concurrent_trials=search.concurrency or runner.at_once(run),
            # A process that has trained one trial trains the next: starting one costs more than many a trial does.
            reuse_actors=search.stops_by != "pbt",
            trial_dirname_creator=lambda trial: trial.config["id"],
        ),
        run_config=tune.RunConfig(
            name=study.tune.name,
            storage_path=str(study.root),
            verbose=0,
            callbacks=[records],
            failure_config=tune.FailureConfig(max_failures=search.retries),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=4),
        ),
    )
    before = set(artifacts_of())
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Consider boosting PBT", UserWarning)
            tuner.fit()
    finally:
        for folder in set(artifacts_of()) - before:
            shutil.rmtree(folder, ignore_errors=True)
    if search.trials and len(ended_of(proposals)) < search.trials and not budget.over():
        raise KeyboardInterrupt  # Tune ends quietly when it is told to by Ctrl-C


def _reconcile(study: StudyDir, proposals: optuna.Study, draw: Draw, names: Collection[str]) -> None:
    """A driver may die between a trial's last words and their place in the database: write those that are missing there."""
    for number, _ in begun_of(proposals, draw):
        trial = study.trial(id_of(number))
        own = noted(trial)
        if own.get("state") in ("stopped", "failed"):
            tell(proposals, number, list(names), {}, error=own["state"] == "failed")


def _curves(study: StudyDir, proposals: optuna.Study, search: Search, numbers: Collection[int]) -> Mapping[str, Any]:
    """What trials reported that have ended."""
    trials = proposals.get_trials(deepcopy=False)
    curves: dict[str, list[tuple[float, float]]] = {}
    for number in numbers:
        trial = study.trial(id_of(number))
        if len(search.rungs()) > 1:
            curves[id_of(number)] = [(float(at), value) for at, value in sorted(trials[number].intermediate_values.items())]
        elif trial.run_file.exists():
            scored = scores_of(trial.run(), search)
            curves[id_of(number)] = [(float(line["epoch"]), scored(line)) for line in trial.metrics()]
    return curves


def _made(study: StudyDir, number: int) -> RunDir:
    trial = study.trial(id_of(number))
    trial.root.mkdir(parents=True, exist_ok=True)
    return trial


def space_text(space: Space, distributions: Mapping[str, Any]) -> dict[str, str]:
    """What a space holds, the same in every process; of a function, what was drawn from it."""
    if callable(space):
        return {name: str(one) for name, one in sorted(distributions.items())}
    return {name: domain_text(domain) for name, domain in space.items()}
