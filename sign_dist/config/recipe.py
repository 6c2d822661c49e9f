"""Recipe: named stages in a row, each of which may read what an earlier one made.

A text that begins with `@` stands for a stage: `@teacher` is what the stage `teacher` wrote (a corpus, a dataset directory,
features, a run directory). It may stand wherever a stage takes text, also among the settings of a job.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, cast

from pydantic import Field

from sign_dist.config.base import Settings
from sign_dist.config.data import Features, Glosses, LandmarkFeatures, Sampling, SplitSettings
from sign_dist.config.run import Run
from sign_dist.config.source import call, load_run, parse_override
from sign_dist.config.strategies import check_strategy, strategy_words
from sign_dist.errors import SettingsError, did_you_mean

SIGN: Final = "@"
EVERY_TRAINING: Final = "*"


class SynthStage(Settings):
    """Writes a corpus of the synthetic world; what `sign-dist synth` is asked for."""

    kind: Literal["synth"] = "synth"
    like: Literal["table", "wlasl", "phoenix2014", "phoenix2014T", "how2sign"] = "table"
    signs: int = Field(default=12, ge=2)
    first_sign: int = Field(default=0, ge=0)
    """Signs of the lexicon to leave out at its beginning: corpora of other signs make another language."""
    signers: int = Field(default=8, ge=3)
    clips: int = Field(default=2, ge=1)
    """Clips per signer and sign."""
    seed: int = Field(default=0, ge=0)
    sentences: int = Field(default=0, ge=0)
    """0: isolated signs, or 40 sentences where the shape needs some."""
    domain: Literal["daily", "lesson"] = "daily"
    split_by: Literal["signer", "sentence"] = "signer"
    agreement: bool = False
    size_px: int = 128
    fps: int = 20
    landmarks: bool = False
    """Landmark tracks of sentences instead of videos."""


class PrepareStage(Settings):
    """Corpus -> dataset directory."""

    kind: Literal["prepare"] = "prepare"
    reader: str
    raw: str
    """The corpus: a folder, or a stage that writes one."""
    split: SplitSettings = SplitSettings()
    glosses: Glosses = Glosses()
    sampling: Sampling | None = None
    """None: as the corpus is sampled where nobody says otherwise."""


class ExtractStage(Settings):
    """Features of every clip of a dataset. `features.weights` may be a stage that trained the encoder."""

    kind: Literal["extract"] = "extract"
    dataset: str
    """A dataset directory, or the stage that prepares it."""
    features: Features = LandmarkFeatures()
    store: str = ""
    """Folder or address of a feature store that datasets share. Empty: inside the dataset."""


class TokenizerStage(Settings):
    """Words and parts of words, learned from the training sentences of datasets; for `model.tokenizer`."""

    kind: Literal["tokenizer"] = "tokenizer"
    of: tuple[str, ...] = Field(min_length=1)
    """Dataset directories, or the stages that prepare them."""
    size: int = Field(default=512, ge=259)
    """Tokens at most."""


class TrainStage(Settings):
    """One run of a job."""

    kind: Literal["train"] = "train"
    job: str
    reads: str = ""
    """The stage that extracted what it reads: dataset and features of the job are set to its. Empty: as the job says."""
    start_from: str = ""
    """A stage, run, checkpoint or weights file to start from. Empty: as the job says."""
    strategy: str = ""
    values: dict[str, Any] = {}
    """Settings of the job to change, by their dotted names."""


class EvaluateStage(Settings):
    """A run on a split -> predictions and report."""

    kind: Literal["evaluate"] = "evaluate"
    run: str
    split: Literal["train", "val", "test"] = "test"


class CompareStage(Settings):
    """Runs on the same split, clip by clip, with paired tests. Each of them must have been evaluated on it."""

    kind: Literal["compare"] = "compare"
    runs: tuple[str, ...] = Field(min_length=2)
    split: Literal["train", "val", "test"] = "test"


class SamplesStage(Settings):
    """Answers of an evaluated run to read: the best, those in the middle, the worst."""

    kind: Literal["samples"] = "samples"
    of: str
    """The stage that evaluated."""
    each: int = Field(default=3, ge=1, le=100)


class ExportStage(Settings):
    """A run -> the bundle that is served."""

    kind: Literal["export"] = "export"
    run: str


Stage = Annotated[
    SynthStage
    | PrepareStage
    | ExtractStage
    | TokenizerStage
    | TrainStage
    | EvaluateStage
    | CompareStage
    | SamplesStage
    | ExportStage,
    Field(discriminator="kind"),
]

# Which kinds of stages a reference may lead to, where the field says so; elsewhere it may lead to any.
LEADS_TO: Final[Mapping[tuple[str, str], tuple[str, ...]]] = {
    ("prepare", "raw"): ("synth",),
    ("extract", "dataset"): ("prepare",),
    ("extract", "features.weights"): ("train",),
    ("tokenizer", "of"): ("prepare",),
    ("train", "reads"): ("extract",),
    ("train", "start_from"): ("train",),
    ("evaluate", "run"): ("train",),
    ("compare", "runs"): ("train",),
    ("samples", "of"): ("evaluate",),
    ("export", "run"): ("train",),
}


class Recipe(Settings):
    """Stages by name, in the order in which they run."""

    stages: dict[str, Stage] = Field(min_length=1)

    def checked(self) -> "Recipe":
        """Itself, if every stage can be started once those before it are done.

        Raises:
            SettingsError: a name that cannot be a folder's, a reference that leads nowhere, to a later stage or round in a
                circle, a job that is missing or does not hold.
        """
        for name, stage in self.stages.items():
            if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
                raise SettingsError(
                    f"{name!r} is no name of a stage: use lower-case letters, digits and _, beginning with a letter"
                )
            self._check_references(name, stage)
        for name, stage in self.stages.items():
            if isinstance(stage, TrainStage):
                _checked_run(name, stage, self)
            if isinstance(stage, CompareStage):
                self._check_evaluated(name, stage)
        return self

    def with_words(self, words: list[str]) -> "Recipe":
        """A copy with `STAGE.setting=value` words set: settings of the stage, or of its job; `*.setting=value` is for all jobs.

        Raises:
            SettingsError: no such stage or setting, or a value that it does not allow.
        """
        stages: dict[str, Any] = dict(self.stages)
        for word in words:
            name, value = parse_override(word)
            stage, _, setting = name.partition(".")
            if not setting or (stage != EVERY_TRAINING and stage not in stages):
                hint = _hint(stage, stages)
                raise SettingsError(f"no setting {name!r} of this recipe: write STAGE.setting=value; {hint}")
            chosen = [stage] if stage != EVERY_TRAINING else [key for key, one in stages.items() if isinstance(one, TrainStage)]
            for key in chosen:
                stages[key] = _changed(key, stages[key], setting, value)
        return Recipe(stages=stages)

    def _check_references(self, name: str, stage: Stage) -> None:
        names = list(self.stages)
        for field, text in references(stage):
            other = text.removeprefix(SIGN)
            if other not in self.stages:
                hint = _hint(other, names)
                raise SettingsError(f"stage {name!r} reads {text!r} in {field}, and there is no such stage: {hint}")
            if circle := self._circle(name):
                raise SettingsError(
                    f"the stages {' -> '.join(circle)} wait for each other in a circle: let one of them read something else"
                )
            if names.index(other) > names.index(name):
                raise SettingsError(f"stage {name!r} reads {text!r}, which comes after it: put {other!r} before {name!r}")
            wanted = LEADS_TO.get((stage.kind, field))
            if wanted and self.stages[other].kind not in wanted:
                raise SettingsError(
                    f"{field} of stage {name!r} must lead to a stage of kind {' or '.join(wanted)}, and {other!r} is of kind "
                    f"{self.stages[other].kind!r}"
                )

    def _circle(self, start: str) -> list[str]:
        """Stages that lead from `start` back to it; none if nothing does."""
        paths = [[start]]
        seen: set[str] = set()
        while paths:
            path = paths.pop()
            for _, text in references(self.stages[path[-1]]):
                other = text.removeprefix(SIGN)
                if other == start:
                    return [*path, start]
                if other in self.stages and other not in seen:
                    seen.add(other)
                    paths.append([*path, other])
        return []

    def _check_evaluated(self, name: str, stage: CompareStage) -> None:
        earlier = list(self.stages)[: list(self.stages).index(name)]
        done = {(one.run, one.split) for key in earlier if isinstance(one := self.stages[key], EvaluateStage)}
        for run in stage.runs:
            if run.startswith(SIGN) and (run, stage.split) not in done:
                raise SettingsError(
                    f"stage {name!r} compares {run!r} on {stage.split}, which no stage before it evaluates: add one that does"
                )


def references(stage: Settings) -> Iterator[tuple[str, str]]:
    """(dotted name, `@stage`) of every reference in a stage's settings."""
    yield from _references(stage.model_dump(mode="json"), "")


def _references(value: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        if value.startswith(SIGN):
            yield name, value
    elif isinstance(value, dict):
        for key, inner in cast("dict[str, Any]", value).items():
            yield from _references(inner, f"{name}.{key}" if name else key)
    elif isinstance(value, list):
        for inner in cast("list[Any]", value):
            yield from _references(inner, name)


def run_of(stage: TrainStage, *, reads: tuple[str, Features, str] | None = None) -> Run:
    """The run of a training stage; `reads` are the dataset directory, the features and the store that it is to read.

    Raises:
        SettingsError: no such job, or settings that do not hold.
    """
    given = [f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in stage.values.items()]
    values: dict[str, Any] = dict(map(parse_override, strategy_words(stage.strategy, given)))
    if stage.start_from:
        values["train.start_from"] = stage.start_from
    values |= stage.values
    if reads is not None:
        values |= {"data.root": reads[0], "data.features": reads[1], "data.store": reads[2]}
    run = load_run(stage.job).with_values(values)
    check_strategy(stage.strategy, run)
    return run


def planned_run(stage: TrainStage, recipe: Recipe) -> Run:
    """The run of a training stage with its references as they are written: what it would be, told before anything is done."""
    source = recipe.stages[stage.reads.removeprefix(SIGN)] if stage.reads.startswith(SIGN) else None
    return run_of(stage, reads=(source.dataset, source.features, source.store) if isinstance(source, ExtractStage) else None)


def load_recipe(source: str | Path, words: list[str] | None = None) -> Recipe:
    """The recipe of a Python file with a function `recipe()`, with `STAGE.setting=value` words set, checked.

    Raises:
        SettingsError: no such file, no recipe in it, or one that does not hold.
    """
    path = Path(source)
    if not path.is_file() or path.suffix != ".py":
        near = did_you_mean(path.name, [p.name for p in path.parent.glob("*.py")])
        raise SettingsError(f"no recipe {str(path)!r}: give a .py file, such as jobs/recipes/synthetic_islr.py;{near}".rstrip(";"))
    recipe = call(path, "recipe")
    if not isinstance(recipe, Recipe):
        raise SettingsError(f"recipe() in {str(path)!r} must return a Recipe, got {type(recipe).__name__}")
    return recipe.with_words(words or []).checked()


def _hint(word: str, stages: Iterable[str]) -> str:
    names = list(stages)
    return f"the stages are {', '.join(names)};{did_you_mean(word, names)}".rstrip(";")


def _checked_run(name: str, stage: TrainStage, recipe: Recipe) -> None:
    try:
        planned_run(stage, recipe)
    except SettingsError as error:
        raise SettingsError(f"stage {name!r}: {error}") from None


def _changed(name: str, stage: Settings, setting: str, value: Any) -> Settings:
    if isinstance(stage, TrainStage) and setting.partition(".")[0] not in (*TrainStage.model_fields, "values"):
        return stage.model_copy(update={"values": stage.values | {setting: value}})
    if setting.partition(".")[0] == "kind":
        raise SettingsError(f"the kind of stage {name!r} cannot be changed: write a recipe of your own")
    try:
        return stage.with_values({setting: value})
    except SettingsError as error:
        raise SettingsError(f"stage {name!r}: {error}") from None
