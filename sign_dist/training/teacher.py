"""A teacher from what it left on disk, and whether it may teach a run: the same task, glosses and features."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pydantic
from torch import nn

from sign_dist.config.data import Features
from sign_dist.config.model import Model
from sign_dist.config.run import Run
from sign_dist.config.train import Train
from sign_dist.data.layout import DatasetDir
from sign_dist.data.sample import Sample
from sign_dist.data.vocab import Vocab
from sign_dist.errors import DataError, RunError, SettingsError, WeightsError
from sign_dist.features.spec import FeatureSpec
from sign_dist.features.store import FeatureStore
from sign_dist.models.build import build_model
from sign_dist.models.mimicry import DistilledStudent, find_layers
from sign_dist.tasks.build import build_task, num_classes_of, vocab_of
from sign_dist.tasks.task import Example
from sign_dist.tasks.teacher import Teacher
from sign_dist.training.checkpoint import load_weights_file
from sign_dist.training.run_dir import RunDir, progress_of
from sign_dist.training.start import weights_at
from sign_dist.transfer.weights_file import file_digest

_MODEL: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(Model)


@dataclasses.dataclass(frozen=True)
class TeacherFacts:
    """What is known of a teacher without reading its weights. `None`: its dataset is gone, or was prepared anew."""

    where: Path
    weights: Path
    task: str
    model: Model
    features: Features
    glosses: tuple[str, ...] | None
    spec: FeatureSpec | None

    def digest(self) -> str:
        """Sixteen hex digits that name everything its answers depend on but the clip: weights, network, features."""
        features = self.spec.to_json() if self.spec else self.features.model_dump(mode="json")
        parts = [file_digest(self.weights), self.task, self.model.model_dump(mode="json"), features]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def find_teacher(path: Path) -> TeacherFacts:
    """What a run directory, a checkpoint in one, or a bundle says of its model.

    Raises:
        WeightsError: nothing there holds weights, or nothing says which model they belong to.
        RunError: a run without a checkpoint, or a file that is damaged.
    """
    source = weights_at(path)
    home = source.file.parent
    glosses = Vocab.read(source.vocab).glosses if source.vocab else None
    if (home / "bundle.json").is_file():
        try:
            tree = json.loads((home / "bundle.json").read_text(encoding="utf-8"))
            spec = FeatureSpec.from_tree(tree["spec"])
            model, task = _MODEL.validate_python(tree["model"]), str(tree["task"])
        except (ValueError, KeyError, TypeError, SettingsError) as error:
            reason = " ".join(str(error).split())[:160]
            raise RunError(f"{str(home / 'bundle.json')!r} cannot be read ({reason}): export the run again") from None
        return TeacherFacts(path, source.file, task, model, spec.features, glosses, spec)
    run_dir = RunDir(home.parent)
    if not run_dir.run_file.is_file():
        raise WeightsError(
            f"{str(path)!r} holds weights and does not say of which model: name a run directory, a checkpoint in one, or a bundle"
        )
    run = run_dir.run()
    try:
        spec = FeatureStore.find(DatasetDir(Path(run.data.root)), run.data.features, shared=run.data.store).spec()
    except DataError:
        spec = None
    return TeacherFacts(path, source.file, run.task, run.model, run.data.features, glosses, spec)


def check_teacher(run: Run) -> TeacherFacts | None:
    """Refuse a teacher that speaks of something else than the run, before anything starts. None: the run has no teacher.

    Raises:
        SettingsError: another task, vocabulary or other features; both are named.
        WeightsError, RunError: there is no such teacher.
    """
    if not run.train.distill.teacher:
        return None
    facts = find_teacher(Path(run.train.distill.teacher))
    name = str(facts.where)
    if facts.task != run.task:
        raise SettingsError(
            f"teacher {name!r} was trained for task {facts.task!r} and this run is for {run.task!r}: choose another"
        )
    own = FeatureStore.find(DatasetDir(Path(run.data.root)), run.data.features, shared=run.data.store).spec()
    if facts.spec is not None and facts.spec != own:
        raise SettingsError(
            f"teacher {name!r} reads features {facts.spec.name}{_first_other(facts.spec, own)} and this run reads {own.name}: "
            "train the student on the teacher's features, or choose another teacher"
        )
    if facts.features != run.data.features:
        raise SettingsError(
            f"teacher {name!r} reads other {facts.features.kind!r} features than the {run.data.features.kind!r} of this run: "
            "give data.features the same values, or choose another teacher"
        )
    if run.task == "slt":
        return facts
    if facts.glosses is None:
        raise SettingsError(
            f"nothing says any more which glosses teacher {name!r} knows, since its dataset is gone or was prepared anew: "
            "name its bundle (sign-dist export), which keeps them"
        )
    glosses = Vocab.read(DatasetDir(Path(run.data.root)).vocab_file).glosses
    if facts.glosses != glosses:
        at = next((i for i, (a, b) in enumerate(zip(facts.glosses, glosses, strict=False)) if a != b), None)
        first = f", the first that differ are {facts.glosses[at]!r} and {glosses[at]!r}" if at is not None else ""
        raise SettingsError(
            f"teacher {name!r} knows {len(facts.glosses)} glosses and this run {len(glosses)}{first}: both must have one "
            "vocabulary, in one order, so prepare both corpora with the same glosses"
        )
    return facts


def read_teacher(facts: TeacherFacts, run: Run, example: Example) -> Teacher:
    """The teacher in memory, for a run that `check_teacher` let pass. `example` is any clip of the run.

    Raises:
        WeightsError: the weights are not those of the model that the teacher says it is.
        SettingsError: `train.distill.layers` names a layer that the teacher does not have.
    """
    own = run.model_copy(update={"model": facts.model, "train": Train()})
    vocab = vocab_of(run.task, DatasetDir(Path(run.data.root)))
    model = build_model(facts.model, num_classes=num_classes_of(run.task, vocab), feature_shape=example.features.shape[1:])
    try:
        model.load_state_dict(load_weights_file(facts.weights))
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:160]
        raise WeightsError(f"the weights of teacher {str(facts.where)!r} do not fit its model ({reason}): train it again") from None
    task = build_task(own, vocab, in_training=True)
    names = [layer for _, layer in run.train.distill.pairs()]
    layers = find_layers(model, names, task.collate([example]).features) if names else []
    return Teacher(model, task, name=str(facts.where), layers=layers)


def with_projections(model: nn.Module, teacher: Teacher, run: Run, example: Example) -> nn.Module:
    """The student with a projection for each pair of layers that are compared; itself where none are.

    Raises:
        SettingsError: `train.distill.layers` names a layer that the student does not have.
    """
    names = [layer for layer, _ in run.train.distill.pairs()]
    if not names:
        return model
    layers = find_layers(model, names, teacher.task.collate([example]).features)
    return DistilledStudent(model, layers, [layer.width for layer in teacher.layers])


def with_absolute_teacher(run: Run) -> Run:
    """The same run with paths that hold wherever a worker's own folder is."""
    distill = run.train.distill
    paths = {name: getattr(distill, name) for name in ("teacher", "unlabelled", "student_run", "cache")}
    here = {f"train.distill.{n}": str(Path(p).absolute()) for n, p in paths.items() if p and "://" not in p}
    return run.with_values(here) if here else run


def unlabelled(sample: Sample) -> Sample:
    """A clip as one that nobody has labelled, under a name that no labelled one has."""
    return dataclasses.replace(sample, id=f"unlabelled:{sample.id}", gloss="", translation="")


def score_of(run_dir: RunDir, monitor: str) -> float:
    """What the checkpoint that a run stands for scored on its validation split.

    Raises:
        RunError: no run, no checkpoint, or one without that score.
    """
    value = progress_of(run_dir.chosen())["metrics"].get(monitor)
    if not isinstance(value, int | float):
        raise RunError(f"{str(run_dir.root)!r} has no {monitor}: it is no run of this task")
    return float(value)


def _first_other(one: FeatureSpec, two: FeatureSpec) -> str:
    a, b = one.flat(), two.flat()
    names = [name for name in a if a[name] != b.get(name)]
    return f" ({names[0]} = {a[names[0]]!r}, here {b.get(names[0])!r})" if names else ""
