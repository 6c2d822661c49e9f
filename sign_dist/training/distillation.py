"""What a run with a teacher adds before its first step: the teacher, its gate, the task around both, clips without labels."""

import dataclasses
import logging
import math
from pathlib import Path
from typing import Any

from torch import nn

from sign_dist.config.distill import Distill
from sign_dist.config.run import Run
from sign_dist.data.layout import DatasetDir, write_json
from sign_dist.data.manifest import read_manifest
from sign_dist.data.sample import Sample
from sign_dist.errors import DataError, RunError
from sign_dist.features.store import FeatureStore
from sign_dist.tasks.distill import Distilled, Terms
from sign_dist.tasks.task import Example, Monitor, Task
from sign_dist.tasks.teacher import Stored, Teacher
from sign_dist.training.data import Clips, ClipSource, lengths_of
from sign_dist.training.evaluate import evaluate
from sign_dist.training.run_dir import RunDir
from sign_dist.training.strategy import Strategy
from sign_dist.training.teacher import check_teacher, read_teacher, score_of, unlabelled, with_projections
from sign_dist.training.teacher_cache import samples_of, stored_answers

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Distillation:
    """What is trained in place of a run's own task, model and clips."""

    task: Task
    model: nn.Module
    clips: ClipSource


@dataclasses.dataclass(frozen=True)
class Together:
    """Clips of several sources, one after the other."""

    sources: tuple[ClipSource, ...]

    @property
    def samples(self) -> list[Sample]:
        return [sample for source in self.sources for sample in samples_of(source)]

    @property
    def lengths(self) -> list[int]:
        return [length for source in self.sources for length in lengths_of(source)]

    def __len__(self) -> int:
        return sum(map(len, self.sources))

    def __getitem__(self, index: int) -> Example:
        for source in self.sources:
            if index < len(source):
                return source[index]
            index -= len(source)
        raise IndexError(index)


def begin_distillation(
    run: Run,
    run_dir: RunDir,
    task: Task,
    model: nn.Module,
    clips: ClipSource,
    val_clips: ClipSource,
    *,
    strategy: Strategy,
    resumed: bool = False,
) -> Distillation:
    """Read the teacher of a run and let it through the gate; a run that goes on was let through before.

    Every rank calls it, before the strategy takes the model. The first one writes `teacher.json`: teacher, scores, sizes.

    Raises:
        SettingsError: the teacher has another task, vocabulary or features, or a layer is missing.
        RunError: it is worse than `train.distill.gate`, than the student is already, or than `train.distill.student_run`.
    """
    facts = check_teacher(run)
    if facts is None:
        return Distillation(task, model, clips)
    example = clips[0]
    teacher = read_teacher(facts, run, example)
    if not resumed:
        scores = pass_gate(run, task, teacher, model, val_clips, strategy=strategy)
        if strategy.rank == 0:
            sizes = {"teacher": count_parameters(teacher.model), "student": count_parameters(model)}
            write_json(
                run_dir.root / "teacher.json",
                {
                    "teacher": str(facts.where),
                    "weights": facts.weights.name,
                    "digest": facts.digest(),
                    **scores,
                    "parameters": sizes,
                },
            )
    joined = with_unlabelled(clips, run)
    stored = stored_answers(run, facts, joined) if run.train.distill.cache else None
    wrapped = distilled_task(task, teacher, run, stored=stored)
    return Distillation(wrapped, with_projections(model, teacher, run, example), joined)


def distilled_task(task: Task, teacher: Teacher, run: Run, *, stored: Stored | None = None) -> Distilled:
    """A run's task with its teacher's terms."""
    return Distilled(task, teacher, terms_of(run.train.distill), stored=stored, reads_targets=run.task == "slt")


def terms_of(settings: Distill) -> Terms:
    """The settings as the task takes them."""
    return Terms(
        told=settings.told(),
        alpha=settings.alpha,
        temperature=settings.temperature,
        reduction=settings.reduction,
        drop_blank=settings.drop_blank,
        delay=settings.delay,
        interpolate=settings.steps == "interpolate",
        embedding=settings.embedding,
    )


def pass_gate(
    run: Run, task: Task, teacher: Teacher, student: nn.Module, val_clips: ClipSource, *, strategy: Strategy
) -> dict[str, Any]:
    """Score teacher and student on the validation clips, shared out over the ranks; answers all figures by name.

    Raises:
        RunError: the teacher is worse than it must be; the sentence has both figures.
    """
    settings, monitor = run.train.distill, task.monitor
    name = monitor.name.removeprefix("val/")
    bound = settings.bound()
    if bare := settings.student_run:
        check_same_clips(run, RunDir(Path(bare)))
    found: dict[str, float] = {}
    for who, model, its_task in (("teacher", teacher.model, teacher.task), ("student", student, task)):
        model.to(strategy.device)
        result = evaluate(model, its_task, val_clips, batch_size=run.train.batch_size, strategy=strategy, k=1)
        found[who] = result.scores[name]
    score = found["teacher"]
    limits = {"train.distill.gate asks for": bound, "the student has it before it is taught": found["student"]}
    if bare:
        limits[f"the student of train.distill.student_run = {bare!r} has it without a teacher"] = score_of(
            RunDir(Path(bare)), monitor.name
        )
    for why, limit in limits.items():
        if limit is not None and not math.isnan(limit) and (math.isnan(score) or monitor.better(limit, score)):
            raise RunError(_refusal(teacher.name, monitor, score, limit, why))
    logger.info("teacher %s: %s %.4g; the student begins with %.4g", teacher.name, monitor.name, score, found["student"])
    return {
        "monitor": monitor.name,
        "score": score,
        "student_start": found["student"],
        "gate": bound,
        "student_run": str(bare),
    }


def check_same_clips(run: Run, other: RunDir) -> None:
    """Scores are only compared where they are of the same clips.

    Raises:
        RunError: the other run was evaluated on other clips; both are named.
    """
    theirs = other.run()
    same = Path(theirs.data.root).absolute() == Path(run.data.root).absolute() and theirs.data.val_split == run.data.val_split
    if not same or theirs.task != run.task:
        raise RunError(
            f"train.distill.student_run = {str(other.root)!r} was evaluated on {theirs.data.val_split!r} of {theirs.data.root!r} "
            f"for task {theirs.task!r}, this run is on {run.data.val_split!r} of {run.data.root!r} for {run.task!r}: "
            "name a run on the same clips"
        )


def with_unlabelled(clips: ClipSource, run: Run) -> ClipSource:
    """Clips, and those of `train.distill.unlabelled` behind them."""
    return Together((clips, unlabelled_clips(run))) if run.train.distill.unlabelled else clips


def unlabelled_clips(run: Run) -> Clips:
    """The training clips of `train.distill.unlabelled`, without their labels.

    Raises:
        DataError: the dataset or its features are missing.
        RunError: its features are others than the run's.
    """
    folder = run.train.distill.unlabelled
    dataset = DatasetDir(Path(folder))
    samples = read_manifest(dataset, run.data.train_split)
    store = FeatureStore.find(dataset, run.data.features, shared=run.data.store)
    own = FeatureStore.find(DatasetDir(Path(run.data.root)), run.data.features, shared=run.data.store)
    if store.spec() != own.spec():
        raise RunError(
            f"the clips of train.distill.unlabelled = {folder!r} have features {store.name}, this run reads {own.name}: "
            "extract them with the same settings and model files"
        )
    clips = Clips([unlabelled(sample) for sample in samples], store.reader())
    if not clips.samples:
        raise DataError(f"train.distill.unlabelled = {folder!r} has no usable clip in split {run.data.train_split!r}")
    return clips


def count_parameters(model: nn.Module) -> int:
    """Numbers that a model holds."""
    return sum(parameter.numel() for parameter in model.parameters())


def _refusal(teacher: str, monitor: Monitor, score: float, limit: float, why: str) -> str:
    at = "at most" if monitor.mode == "min" else "at least"
    return (
        f"teacher {teacher!r} has {monitor.name} {score:.4g}, and must have {at} {limit:.4g}, since {why}: "
        "train a better teacher first, name another, or leave train.distill.teacher empty"
    )
