"""What becomes of each trial, written into its directory while Tune runs, and what Tune leaves in temporary folders."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ray import cloudpickle, tune
from ray._private import worker
from ray.exceptions import OutOfMemoryError

from sign_dist.config.run import Run
from sign_dist.data.layout import write_json
from sign_dist.errors import RunError
from sign_dist.on_ray.stopping import Budget
from sign_dist.study.layout import StudyDir
from sign_dist.study.rows import note, noted
from sign_dist.training.run_dir import RunDir


class Records(tune.Callback):
    """Told by Tune, in the driver."""

    def __init__(self, study: StudyDir, run: Run, budget: Budget) -> None:
        self._study, self._run, self._budget = study, run, budget

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        note(self._dir(trial), state="running")

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        trial_dir = self._dir(trial)
        if trial_dir.done_file.exists():
            note(trial_dir, state="finished", reason="")
        elif noted(trial_dir).get("state") != "stopped":
            note(trial_dir, state="stopped", reason="it ended before its last epoch")
        self._spent()

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A process died and the trial starts again. Where memory ran out, each step is computed in more parts from now on."""
        trial_dir, error = self._dir(trial), _error_of(trial)
        note(trial_dir, reason=f"started again: {reason_of(error)}")
        if is_memory(error) and trial_dir.run_file.exists():
            run = trial_dir.run()
            try:
                trial_dir.more_parts(run, trial_dir.parts(run))
            except RunError as none_left:
                note(trial_dir, reason=str(none_left))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        trial_dir = self._dir(trial)
        if not trial_dir.run_file.exists():  # it failed before it had claimed its directory
            write_json(trial_dir.run_file, self._run.with_values(trial.config["values"]).model_dump(mode="json"))
        note(trial_dir, state="failed", reason=reason_of(_error_of(trial)))
        self._spent()

    def _dir(self, trial: Any) -> RunDir:
        return self._study.trial(trial.config["id"])

    def _spent(self) -> None:
        """So that the next start of a study knows what this one took."""
        write_json(self._study.study_file, self._study.facts() | {"seconds": round(self._budget.seconds, 1)})


def reason_of(error: BaseException | None) -> str:
    """An error of a trial as one line."""
    if error is None:
        return "its process died without a word"
    if is_memory(error):
        return "the machine ran out of memory: use fewer trials at a time (search.concurrency), smaller models or more train.parts"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__


def is_memory(error: BaseException | None) -> bool:
    """Whether memory ran out, as Ray says it of a process that it ended, or torch of a device."""
    return isinstance(error, OutOfMemoryError) or any(word in str(error) for word in ("OutOfMemoryError", "low on memory"))


def artifacts_of() -> Iterator[Path]:
    """Folders that Tune makes for its trials under Ray's temporary directory on this machine, one for each study."""
    node: Any = worker.global_worker.node
    folder = Path(node.get_session_dir_path()) / "artifacts" if node is not None else None
    yield from (folder.iterdir() if folder is not None and folder.is_dir() else ())


def _error_of(trial: Any) -> BaseException | None:
    """Of its latest failure. Tune's own `get_error` looks where the file is copied to later."""
    with contextlib.suppress(OSError, ValueError, TypeError, EOFError, ImportError, AttributeError):
        return cloudpickle.loads(Path(trial.pickled_error_file).read_bytes())
    with contextlib.suppress(OSError, TypeError):
        return RuntimeError(Path(trial.error_file).read_text(encoding="utf-8"))
    return None
