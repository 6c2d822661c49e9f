"""The runs that confirm a study's winner: as many at once as there are devices."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
import torch
from ray.exceptions import RayError

from sign_dist.errors import RunError, SignDistError
from sign_dist.on_ray.cluster import num_gpus
from sign_dist.on_ray.training import begin, facts_of, finish, fit_run, train
from sign_dist.study.confirm import Repeat, answer, confirm, plan
from sign_dist.study.layout import StudyDir
from sign_dist.training.prefix import where_still
from sign_dist.training.record import write_environment
from sign_dist.training.strategy import OneProcess

OnRuns = Callable[[int, int], None]
"""(runs done, runs in all)"""
# A process that dies is started again; it goes on from its last checkpoint.
RETRIES = 2


def confirm_study(root: Path, *, top: int = 3, seeds: int = 3, on_runs: OnRuns | None = None) -> dict[str, Any]:
    """Train the best trials and the default settings again on fresh seeds, and say whether the winner is better.

    Runs that are done are not repeated, and one that was cut off goes on. Answers confirm.json.

    Raises:
        RunError: no study that has ended, or a run cannot be trained.
    """
    study = StudyDir(root.absolute())
    repeats = plan(study, top=top, seeds=seeds)
    left = [repeat for repeat in repeats if not repeat.is_done]
    done = len(repeats) - len(left)
    tell = on_runs or (lambda *_: None)
    tell(done, len(repeats))
    of_several = [repeat for repeat in left if repeat.run.scale.workers > 1]
    for repeat in of_several:
        train(repeat.run, repeat.run_dir.root)
        answer(repeat.run_dir)
        done += 1
        tell(done, len(repeats))
    alone = [repeat for repeat in left if repeat.run.scale.workers <= 1]
    if alone:
        gpus = 1 if num_gpus() else 0
        task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=RETRIES)(_one)
        waiting = {task.remote(repeat): repeat for repeat in alone}
        while waiting:
            (ended,), _ = ray.wait(list(waiting), num_returns=1)
            repeat = waiting.pop(ended)
            _raise_for(repeat, ended)
            done += 1
            tell(done, len(repeats))
    return confirm(study, repeats)


def _one(repeat: Repeat) -> str:
    """Train and answer; what is wrong, as text, where a user can mend it."""
    try:
        torch.set_num_threads(1)
        run_dir, run, clips = begin(where_still(repeat.run), repeat.run_dir.root)
        if not run_dir.done_file.exists():
            write_environment(run_dir, facts_of(run, *clips))
            fit_run(run, run_dir, OneProcess("cuda" if torch.cuda.is_available() else "cpu"))
            finish(run_dir)
        answer(run_dir)
    except SignDistError as error:
        return str(error)
    return ""


def _raise_for(repeat: Repeat, ended: Any) -> None:
    try:
        wrong = ray.get(ended)
    except RayError as error:
        wrong = str(error).strip().splitlines()[-1][:200]
    if wrong:
        raise RunError(
            f"the run of {repeat.name} with seed {repeat.seed} failed ({wrong}): the same command goes on with what is left"
        )
