"""How a search goes about: how many trials, who proposes them, who stops them, what is compared."""

import json
import math
from collections.abc import Sequence
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from sign_dist.config.base import Settings

PREFIX = "search."
EPOCHS = "epochs"


class Search(Settings):
    """A study around a run. `sign-dist tune` takes these as words: `search.sampler=nsga2`."""

    trials: int = Field(default=8, ge=0)
    """Trials that end, those that were stopped early or failed counted; 0: as many as the time allows."""
    hours: float = Field(default=0.0, ge=0)
    """Wall time of the study, summed over its starts: afterwards no trial begins, running ones are stopped; 0: no bound."""
    gpu_hours: float = Field(default=0.0, ge=0)
    """The same of the GPUs that trials hold; 0: no bound."""
    sampler: Literal["tpe", "nsga2", "gp", "random"] = "tpe"
    """Who proposes: TPE; NSGA-II, for several objectives and many trials; a Gaussian process, for few trials that are dear and a
    space of numbers without conditions; chance."""
    startup: int = Field(default=4, ge=1)
    """Trials by chance before the sampler learns from them; NSGA-II: trials of a generation."""
    scheduler: Literal["auto", "asha", "median", "pbt", "none"] = "auto"
    """Who stops trials early: asynchronous halving, the rule of the median, population-based training, which lets the worst go on
    from the best with changed settings; or nobody. `auto`: asha for one objective, none for several."""
    grace: int = Field(default=0, ge=0)
    """Epochs before a trial can be stopped; 0: an eighth of all."""
    reduction: int = Field(default=3, ge=2, le=10)
    """asha: of so many trials one goes on, each time the epochs have grown as many times."""
    fidelity: str = EPOCHS
    """What is little at first where trials are compared early: `epochs`; or settings with growing values, after each of which a
    trial may be stopped, such as `data.share=0.1,0.3,1` or `data.features.num_frames=4,8,16`. The last is what the study is of."""
    objectives: str = ""
    """What is compared, parted by blanks: metrics such as `val/wer`, `latency_ms`, `size_mb`; empty: the task's monitor."""
    own_first: bool = True
    """The job's own settings are the first trial, where the space holds them: nothing worse than them is then the best."""
    warm_start: str = ""
    """Earlier studies, parted by blanks. Trials of the same job count as known; of another job, the best are tried first."""
    storage: str = ""
    """Address of Optuna's database, such as postgresql://host/studies; empty: a file in the study."""
    runner: Literal["auto", "inside", "workers", "decode"] = "auto"
    """Where a trial trains: `inside` its own process, on one device; with `workers` of Ray Train, as `scale.workers` says; or
    nothing is trained and a finished run's answers are only read out anew. `auto`: as the job and the space ask."""
    of: str = ""
    """The finished run whose answers are read out anew, for a space of `decode.*` alone; a job that is a run.json is its own."""
    concurrency: int = Field(default=0, ge=0)
    """Trials at a time; 0: as many as the cluster has room for."""
    retries: int = Field(default=1, ge=0)
    """How often a trial whose process died is started again, from its last checkpoint."""
    seed: int = Field(default=0, ge=0, lt=2**31)

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if not (self.trials or self.hours or self.gpu_hours):
            raise ValueError("a search without an end: give trials, hours or gpu_hours")
        names = self.names()
        if len(set(names)) < len(names):
            raise ValueError(f"objectives = {self.objectives!r} names one twice: name each once")
        if len(names) > 1 and self.scheduler not in ("auto", "none"):
            raise ValueError(
                f"scheduler = {self.scheduler!r} ranks trials by one number, and there are {len(names)} objectives: "
                "set scheduler=none, or give one objective"
            )
        if self.scheduler == "pbt" and self.fidelity != EPOCHS:
            raise ValueError(f"scheduler = 'pbt' goes by epochs, got fidelity = {self.fidelity!r}: leave it at {EPOCHS}")
        rungs_of(self.fidelity)
        return self

    def names(self) -> list[str]:
        """The objectives; empty: the task's monitor alone."""
        return self.objectives.split()

    @property
    def stops_by(self) -> Literal["asha", "median", "pbt", "none"]:
        """The scheduler, chosen."""
        if self.scheduler == "auto":
            return "asha" if len(self.names()) <= 1 else "none"
        return self.scheduler

    def wants_workers(self, workers: int) -> bool:
        """Whether trials of a run with so many workers are trained by Ray Train."""
        return self.runner == "workers" or (self.runner == "auto" and workers > 1)

    def rungs(self) -> list[dict[str, Any]]:
        """Settings of each rung of fidelity, the full one last; one without settings where epochs are what grows."""
        return rungs_of(self.fidelity)


def rungs_of(fidelity: str) -> list[dict[str, Any]]:
    """
    >>> rungs_of("data.share=0.1,1 train.epochs=2,6")
    [{'data.share': 0.1, 'train.epochs': 2}, {'data.share': 1, 'train.epochs': 6}]

    Raises:
        ValueError: it is neither `epochs` nor settings with as many growing numbers each.
    """
    if fidelity.strip() == EPOCHS:
        return [{}]
    columns: dict[str, list[float]] = {}
    for word in fidelity.split():
        name, _, values = word.partition("=")
        numbers = [_number(value) for value in values.split(",")]
        known = [number for number in numbers if number is not None]
        if not name or len(known) < max(2, len(numbers)) or known != sorted(set(known)):
            raise ValueError(
                f"fidelity = {fidelity!r} is not allowed: {word!r} should be a setting with two or more growing numbers, "
                f"such as data.share=0.1,0.3,1, or all of it {EPOCHS!r}"
            )
        columns[name] = known
    if not columns or len({len(numbers) for numbers in columns.values()}) > 1:
        raise ValueError(f"fidelity = {fidelity!r} is not allowed: each setting needs the same count of numbers")
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def divide(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Words of the search, without their prefix, and words of the run.

    >>> divide(["search.sampler=gp", "train.epochs=4"])
    (['sampler=gp'], ['train.epochs=4'])
    """
    of_search = [word.removeprefix(PREFIX) for word in words if word.startswith(PREFIX)]
    return of_search, [word for word in words if not word.startswith(PREFIX)]


def _number(text: str) -> float | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if is_number else None
