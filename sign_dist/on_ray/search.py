"""Optuna proposes: spaces, samplers, what earlier studies know, and the searcher that Tune asks.

The truth of a study is Optuna's database and the run directory of each trial, which bears the trial's number there. Whoever dies
in between, the next start reads both: what has ended counts, what has not goes on first with the settings that it had.
"""

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FixedTrial, FrozenTrial, TrialState
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch
from sqlalchemy.exc import SQLAlchemyError

from sign_dist.config.run import Run
from sign_dist.config.search import Search
from sign_dist.errors import ServiceError, SettingsError
from sign_dist.study.layout import StudyDir
from sign_dist.study.objectives import direction

Space = Mapping[str, Any] | Callable[[Any], Mapping[str, Any] | None]
"""Setting name -> distribution of ray.tune or value; or a function that asks an Optuna trial, and may answer further values."""
Draw = Callable[[Any], dict[str, Any]]
"""An Optuna trial -> the values of all settings that the space decides."""

DRAWS = 64  # that are tried out before a study starts: every branch of a space that has a few is met
VALUES = "values"
# Before an objective's name in a trial's last report: Tune makes one level of all it hears.
OBJECTIVE = "objective:"

logger = logging.getLogger(__name__)


def drawing(space: Space) -> Draw:
    """A space of either form as one function.

    Raises:
        SettingsError: something in it is no distribution that Optuna knows.
    """
    if callable(space):
        return lambda trial: {**_asked(space, trial)}
    domains = {name: domain for name, domain in space.items() if hasattr(domain, "sample")}
    grids = [name for name, domain in space.items() if isinstance(domain, Mapping) and "grid_search" in domain]
    if grids:
        raise SettingsError(f"the space gives a grid for {grids[0]!r}, and trials are proposed one by one: use tune.choice([...])")
    try:
        known: dict[str, BaseDistribution] = OptunaSearch.convert_search_space(domains) if domains else {}
    except ValueError as error:
        raise SettingsError(f"the space has a distribution that Optuna does not know: {error}") from None
    constants = {name: value for name, value in space.items() if name not in domains}
    return lambda trial: {**constants, **{name: _suggest(trial, name, one) for name, one in known.items()}}


def check_space(run: Run, space: Space, *, draws: int = DRAWS) -> tuple[list[Run], dict[str, BaseDistribution]]:
    """Every name must be a setting, and values that are drawn must be allowed, before anything starts.

    Answers the runs that were drawn, and from what.

    Raises:
        SettingsError: the first that is not.
    """
    draw = drawing(space)
    with _quiet():
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        trials = [study.ask() for _ in range(draws)]
        runs = [run.with_values(draw(trial)) for trial in trials]
    return runs, {name: one for trial in trials for name, one in trial.distributions.items()}


def sampler_of(search: Search, *, begun: int = 0) -> optuna.samplers.BaseSampler:
    """The sampler; one that starts again after `begun` trials does not draw the same ones again."""
    seed = search.seed + 7919 * begun
    with _quiet():
        match search.sampler:
            case "tpe":
                return optuna.samplers.TPESampler(
                    seed=seed, multivariate=True, group=True, constant_liar=True, n_startup_trials=search.startup
                )
            case "nsga2":
                return optuna.samplers.NSGAIISampler(seed=seed, population_size=max(2, search.startup))
            case "gp":
                return optuna.samplers.GPSampler(seed=seed, n_startup_trials=search.startup)
            case "random":
                return optuna.samplers.RandomSampler(seed=seed)


def open_study(name: str, storage: str, search: Search) -> optuna.Study:
    """The study in Optuna's database, new or as it was left. Without objectives, the largest score is the best.

    Raises:
        ServiceError: no database answers.
    """
    directions: list[StudyDirection] = [StudyDirection.MAXIMIZE]
    if many(search):
        ways = {"min": StudyDirection.MINIMIZE, "max": StudyDirection.MAXIMIZE}
        directions = [ways[direction(each)] for each in search.names()]
    try:
        with _quiet():
            study = optuna.create_study(storage=RDBStorage(storage), study_name=name, directions=directions, load_if_exists=True)
            study.sampler = sampler_of(search, begun=len(study.get_trials(deepcopy=False)))
    except (SQLAlchemyError, ImportError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ServiceError(f"search.storage = {storage!r} cannot be opened ({reason}): give another address") from None
    if many(search):
        with _quiet():
            study.set_metric_names(search.names())
    return study


def many(search: Search) -> bool:
    """Whether trials are compared by several numbers."""
    return len(search.names()) > 1


def start_with_own(study: optuna.Study, draw: Draw, run: Run) -> bool:
    """Try the run's own settings first; False where the space does not hold them."""
    params = _held(draw, run.flat())
    if params is not None:
        study.enqueue_trial(params, user_attrs={"origin": "the job's own settings"}, skip_if_exists=True)
    return params is not None


def warm_start(
    study: optuna.Study, draw: Draw, run: Run, folders: Sequence[str], search: Search, *, best: int = 4
) -> tuple[int, int]:
    """Take over what earlier studies found: (trials that count as known, trials to try first).

    Numbers are comparable only of the same job with the same objectives; of another job, its best settings are tried first.

    Raises:
        RunError: there is no such study.
    """
    known = queued = 0
    for folder in folders:
        earlier = StudyDir(Path(folder).absolute())
        facts = earlier.facts()
        before = optuna.load_study(
            study_name=facts.get("study_name", earlier.root.name), storage=str(facts.get("storage", earlier.storage))
        )
        same = facts["run"] == run.model_dump(mode="json") and facts.get("objectives", []) == search.names()
        ended = [trial for trial in before.get_trials(deepcopy=False) if trial.state == TrialState.COMPLETE]
        held = [(trial, params) for trial in ended if (params := _held(draw, trial.params)) is not None]
        if not same and len(before.directions) == 1:
            held.sort(key=lambda pair: pair[0].value or 0.0, reverse=before.direction.name == "MAXIMIZE")
        attrs = {"origin": str(earlier.root)}
        for trial, params in held if same else held[:best]:
            if not same:
                study.enqueue_trial(params, user_attrs=attrs, skip_if_exists=True)
                queued += 1
                continue
            fixed = FixedTrial(params)
            draw(fixed)
            study.add_trial(
                optuna.trial.create_trial(
                    params=params, distributions=dict(fixed.distributions), values=trial.values, user_attrs=attrs
                )
            )
            known += 1
    return known, queued


class OptunaTrials(Searcher):
    """What Tune asks for trials. A config is `{"id": "0007", "values": {dotted name: value}}`.

    Args:
        unfinished: trials that an earlier start began: they come first.
        left: how many may still begin, those counted; None: as long as `open_` says so.
        open_: whether another trial may begin at all.
    """

    def __init__(
        self,
        study: optuna.Study,
        draw: Draw,
        *,
        names: Sequence[str],
        unfinished: Sequence[tuple[int, Mapping[str, Any]]],
        left: int | None,
        open_: Callable[[], bool],
        on_new: Callable[[int, Mapping[str, Any]], None],
    ) -> None:
        super().__init__(metric="score", mode="max")
        self._study, self._draw, self._names, self._open, self._on_new = study, draw, list(names), open_, on_new
        self._waiting = list(unfinished)
        self._left = left
        self._numbers: dict[str, int] = {}

    def suggest(self, trial_id: str) -> Any:
        if self._left == 0 or not self._open():
            return Searcher.FINISHED
        if self._left is not None:
            self._left -= 1
        if self._waiting:
            number, values = self._waiting.pop(0)
        else:
            with _quiet():
                trial = self._study.ask()
                number, values = trial.number, _drawn(trial, self._draw)
        self._on_new(number, values)
        self._numbers[trial_id] = number
        return {"id": id_of(number), "values": dict(values)}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        number = self._numbers[trial_id]
        if len(self._names) > 1 or result.get("ended"):
            return
        with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
            # As `Trial.report` does it; a Trial that is made anew of a number would draw its parameters again.
            trial_id_there = self._study.get_trials(deepcopy=False)[number]._trial_id
            self._study._storage.set_trial_intermediate_value(trial_id_there, int(result["step"]), float(result["score"]))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Ended by itself: its values. Stopped: `pruned`, which samplers weigh by how far it came. Failed: neither."""
        tell(self._study, self._numbers[trial_id], self._names, result or {}, error=error)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the database has it."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("a study starts from its directory, never from Tune's files")


def tell(study: optuna.Study, number: int, names: Sequence[str], result: Mapping[str, Any], *, error: bool) -> None:
    """Write the end of a trial into Optuna's database, once."""
    if study.get_trials(deepcopy=False)[number].state.is_finished():
        return
    values: list[float] | None = None
    state = TrialState.FAIL if error else TrialState.PRUNED
    if result.get("ended") and not error:
        values = [float(result[OBJECTIVE + name]) for name in names] if len(names) > 1 else [float(result["score"])]
        state = TrialState.COMPLETE
    elif state is TrialState.PRUNED and len(names) > 1:
        state = TrialState.FAIL  # Optuna prunes trials of one objective only
    with _quiet():
        study.tell(number, values, state=state, skip_if_finished=True)


def ended_of(study: optuna.Study) -> list[FrozenTrial]:
    """Trials of this study that ended, those that earlier studies brought not counted."""
    return [t for t in study.get_trials(deepcopy=False) if t.state.is_finished() and VALUES in t.user_attrs]


def begun_of(study: optuna.Study, draw: Draw) -> list[tuple[int, dict[str, Any]]]:
    """Number and values of trials that were proposed and did not end. What died before its values were kept is drawn to the end."""
    found: list[tuple[int, dict[str, Any]]] = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if VALUES not in trial.user_attrs:
            found.append((trial.number, _drawn(optuna.Trial(study, trial._trial_id), draw)))
        else:
            found.append((trial.number, dict(trial.user_attrs[VALUES])))
    return found


def _drawn(trial: optuna.Trial, draw: Draw) -> dict[str, Any]:
    """The values of a trial, kept with it: constants and what a function answers are no parameters of Optuna's."""
    values = draw(trial)  # of parameters that it has already, those are what it answers
    trial.set_user_attr(VALUES, values)
    return values


def id_of(number: int) -> str:
    """The trial's number in Optuna, as its directory has it."""
    return f"{number:04d}"


def _asked(space: Callable[[Any], Mapping[str, Any] | None], trial: Any) -> dict[str, Any]:
    answer = space(trial)
    if answer is not None and not isinstance(answer, Mapping):
        raise SettingsError(f"space(trial) must return a dict of settings or nothing, got {type(answer).__name__}")
    return {**trial.params, **(answer or {})}


def _suggest(trial: Any, name: str, one: BaseDistribution) -> Any:
    match one:
        case FloatDistribution():
            return trial.suggest_float(name, one.low, one.high, step=one.step, log=one.log)
        case IntDistribution():
            return trial.suggest_int(name, one.low, one.high, step=one.step, log=one.log)
        case CategoricalDistribution():
            return trial.suggest_categorical(name, one.choices)
        case _:
            raise SettingsError(f"the space has for {name!r} a {type(one).__name__}, which is not known here")


def _held(draw: Draw, values: Mapping[str, Any]) -> dict[str, Any] | None:
    """The parameters of the space with these values; None where one is missing, or outside of what the space allows."""
    fixed = FixedTrial(dict(values))
    try:
        with _quiet():
            draw(fixed)
            inside = all(one._contains(one.to_internal_repr(values[name])) for name, one in fixed.distributions.items())
    except (ValueError, TypeError, KeyError):
        return None
    return dict(fixed.params) if inside else None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Optuna tells each trial and each younger feature; the study tells what matters."""
    logging.getLogger("optuna").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        warnings.simplefilter("ignore", UserWarning)
        yield
