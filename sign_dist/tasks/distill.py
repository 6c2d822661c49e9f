"""Any task plus a frozen teacher: what the teacher says of a clip is learned beside, or instead of, what the reference says.

The loss of a clip is alpha * (the teacher's terms) + (1 - alpha) * (the task's own). Kinds of terms:

- `logits`: divergence of softened answers (Hinton et al. 2015, arXiv 1503.02531), step by step where there are steps.
- `features`: inner layers drawn to the teacher's (FitNets, Romero et al. 2015, arXiv 1412.6550).
- `embedding`: sentence embeddings drawn together.
- `sequence`: the task's own loss with the teacher's answer as reference (Kim and Rush 2016, arXiv 1606.07947); with alpha 1 it
  takes the reference's place.

The teacher sees the very batch that the student sees, augmented as it is, unless its answers were asked before (`Stored`).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sign_dist.data.sample import Sample
from sign_dist.errors import SettingsError
from sign_dist.models.distillation import ClipReduction, Distance, aligned, divergence, embedding_losses, soft_losses
from sign_dist.models.mimicry import WithHints, hint_losses
from sign_dist.models.translator import PADDING
from sign_dist.tasks.task import Batch, Example, Prediction, Task
from sign_dist.tasks.teacher import Stored, Teacher, answers_of

PREFIX = "distill_"


@dataclasses.dataclass(frozen=True)
class Terms:
    """What is compared, and how; the settings of `train.distill`."""

    told: Mapping[str, float]
    """Kind -> weight."""
    alpha: float = 0.7
    temperature: float = 4.0
    reduction: ClipReduction = "valid_frames"
    drop_blank: bool = False
    delay: int = 0
    interpolate: bool = False
    embedding: Distance = "relative"


class Distilled:
    """`task` with the terms of a teacher in training; evaluated as `task` alone, so that scores and losses compare with it.

    A clip without reference is learned from the teacher alone. With alpha 0 the teacher is not asked.
    """

    def __init__(self, task: Task, teacher: Teacher, terms: Terms, *, stored: Stored | None = None, reads_targets: bool = False):
        """`reads_targets`: the models read the reference, as those that write text do: each needs a pass of its own."""
        self.task, self.teacher, self.terms, self.stored = task, teacher, terms, stored
        self.monitor = task.monitor
        self._reads_targets = reads_targets

    def collate(self, examples: Sequence[Example], rngs: Sequence[np.random.Generator] | None = None) -> Batch:
        batch = self.task.collate(examples, rngs)
        labelled = _labelled(batch)
        return batch if all(labelled) else dataclasses.replace(batch, weights=batch.weights.where(torch.tensor(labelled), 1.0))

    def losses(self, model: nn.Module, batch: Batch) -> tuple[dict[str, Tensor], Any]:
        """The task's own terms by their names, and the teacher's as `distill_KIND`; each (B,), as they enter the sum."""
        terms = self.terms
        if not model.training:
            return self.task.losses(model, batch)
        passed = _Pass(model)
        if terms.alpha == 0:
            return self.task.losses(passed, batch)  # pyright: ignore[reportArgumentType]
        told = self._told(batch)
        if told.references is not None and self._reads_targets:
            # References that the model reads go through it side by side with their clips.
            twice, outputs = self.task.losses(passed, _side_by_side(batch, told.references))  # pyright: ignore[reportArgumentType]
            own, taught = ({n: v[part] for n, v in twice.items()} for part in _halves(len(batch.ids)))
        else:
            own, outputs = self.task.losses(passed, batch)  # pyright: ignore[reportArgumentType]
            taught = {}
            if told.references is not None:
                taught, _ = self.task.losses(_Again(passed), told.references)  # pyright: ignore[reportArgumentType]
        labelled = torch.tensor(_labelled(batch), device=batch.features.device)
        share = 1 - terms.alpha
        found = {n: share * v.where(labelled, 0.0) if share else torch.zeros_like(v) for n, v in own.items()}
        for kind, value in self._compared(outputs, passed.hints, told, batch, taught).items():
            found[PREFIX + kind] = terms.alpha * terms.told[kind] * value
        return found, outputs

    def decode(self, outputs: Any, batch: Batch, k: int = 5) -> list[Prediction]:
        return self.task.decode(outputs, batch, k)

    def score(self, references: Sequence[str], predictions: Sequence[Prediction]) -> dict[str, float]:
        return self.task.score(references, predictions)

    def __getattr__(self, name: str) -> Any:
        """What else a task can do, such as counting clips that are too short."""
        if name == "task":
            raise AttributeError(name)
        return getattr(self.task, name)

    def _told(self, batch: Batch) -> "_Told":
        """Everything the teacher says of a batch."""
        kinds, device = self.terms.told.keys(), batch.features.device
        if self.stored is not None:
            answers = self.stored.logits(batch.ids) if "logits" in kinds else []
            texts = self.stored.hypotheses(batch.ids) if "sequence" in kinds else None
            logits, lengths = _padded(answers, device) if answers else (None, None)
            return _Told(None, logits, lengths, [], None if texts is None else self._with_references(batch, texts))
        asked = self._as_teacher_reads(batch) if self._reads_targets else batch
        outputs, hints = self.teacher.ask(asked)
        logits, lengths = answers_of(outputs) if kinds & {"logits", "features"} else (None, None)
        references = None
        if "sequence" in kinds:
            with torch.no_grad():
                texts = [prediction.hypothesis for prediction in self.teacher.task.decode(outputs, asked, 1)]
            references = self._with_references(batch, texts)
        return _Told(outputs, logits, lengths, hints, references)

    def _compared(
        self, outputs: Any, hints: Sequence[Tensor], told: "_Told", batch: Batch, taught: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        terms, found = self.terms, dict[str, Tensor]()
        logits, lengths = answers_of(outputs) if terms.told.keys() & {"logits", "features"} else (None, None)
        for kind in terms.told:
            match kind:
                case "logits":
                    assert logits is not None
                    assert told.logits is not None
                    found[kind] = _soft_losses(logits, lengths, told.logits, told.lengths, terms, batch.weights > 0)
                case "features":
                    found[kind] = torch.stack([
                        _hint_loss(own, other, lengths, told.lengths, batch, interpolate=terms.interpolate)
                        for own, other in zip(hints, told.hints, strict=True)
                    ]).mean(0)  # fmt: skip
                case "embedding":
                    own, other = (_embedding(each)[: len(batch.ids)] for each in (outputs, told.outputs))
                    found[kind] = embedding_losses(own, other, terms.embedding)
                case "sequence":
                    assert told.references is not None
                    fits = told.references.weights > 0  # an answer that the clip has no steps for, or that is empty, is none
                    found[kind] = torch.stack(list(taught.values())).sum(0).where(fits, 0.0)
                case _:
                    raise SettingsError(f"no kind {kind!r} of target")
        return found

    def _with_references(self, batch: Batch, texts: Sequence[str]) -> Batch:
        """The batch with other references; 0 for the weight of one that cannot be learned. Features stay as they are."""
        fresh = self.task.collate(_examples(batch, texts))
        weights = fresh.weights * torch.tensor([float(bool(text.strip())) for text in texts])
        device = batch.features.device
        return dataclasses.replace(batch, targets=fresh.targets.to(device), weights=weights.to(device), references=tuple(texts))

    def _as_teacher_reads(self, batch: Batch) -> Batch:
        """The batch with references in the teacher's own tokens."""
        return self.teacher.task.collate(_examples(batch, batch.references)).to(batch.features.device)


@dataclasses.dataclass(frozen=True)
class _Told:
    """What a teacher says of a batch. `logits` (B, T', V) with `lengths`, or (B, V) without."""

    outputs: Any
    logits: Tensor | None
    lengths: Tensor | None
    hints: list[Tensor]
    references: Batch | None
    """The batch with the teacher's answers as references."""


class _Pass:
    """Stands in for a model in one call of `Task.losses`: keeps the layers that a `DistilledStudent` answers beside its outputs."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self.hints: tuple[Tensor, ...] = ()
        self.outputs: Any = None

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        answer = self._model(*inputs, **named)
        self.outputs, self.hints = (answer.outputs, answer.hints) if isinstance(answer, WithHints) else (answer, ())
        return self.outputs

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


class _Again:
    """Stands in for a model whose answer does not depend on the reference: gives the answer of the pass before."""

    def __init__(self, passed: _Pass) -> None:
        self._passed = passed

    def __call__(self, *_: Any, **__: Any) -> Any:
        return self._passed.outputs

    def __getattr__(self, name: str) -> Any:
        return getattr(self._passed, name)


def _soft_losses(
    student: Tensor, lengths: Tensor | None, teacher: Tensor, teacher_lengths: Tensor | None, terms: Terms, counted: Tensor
) -> Tensor:
    """The soft loss of each clip (B,). Of the members of an ensemble (M, B, V) each is told the same."""
    if student.shape[-1] != teacher.shape[-1] or (lengths is None) != (teacher_lengths is None):
        raise SettingsError(
            f"the teacher's answers have shape {tuple(teacher.shape)} and the student's {tuple(student.shape)}: "
            "both must tell the same classes apart, in the same way"
        )
    if lengths is None or teacher_lengths is None:
        apart = divergence(student, teacher.expand_as(student), temperature=terms.temperature)
        return apart.mean(0) if apart.ndim == 2 else apart
    teacher = _aligned(teacher, teacher_lengths, lengths, student.shape[1], interpolate=terms.interpolate)
    end = student.shape[1] - terms.delay
    if end < 1:
        return student.sum(dim=(1, 2)) * 0.0
    return soft_losses(
        student[:, terms.delay :],
        teacher[:, :end],
        lengths - terms.delay,
        temperature=terms.temperature,
        reduction=terms.reduction,
        drop_blank=terms.drop_blank,
        counted=counted,
    )


def _aligned(teacher: Tensor, teacher_lengths: Tensor, lengths: Tensor, num_steps: int, *, interpolate: bool) -> Tensor:
    try:
        return aligned(teacher, teacher_lengths, lengths, num_steps, interpolate=interpolate)
    except ValueError as error:
        raise SettingsError(f"{error}: choose models of the same stride in time, or set train.distill.steps=interpolate") from None


def _hint_loss(
    own: Tensor, other: Tensor, steps: Tensor | None, other_steps: Tensor | None, batch: Batch, *, interpolate: bool
) -> Tensor:
    """Steps of a layer are those of its model's answers, or those of the features."""
    if own.ndim != other.ndim:
        raise SettingsError("train.distill.layers pairs a layer of steps with one of whole clips: name two of one sort")
    if own.ndim == 2:
        return hint_losses(own, other, None)
    lengths, theirs = _steps_of(own, steps, batch), _steps_of(other, other_steps, batch)
    if lengths is None or theirs is None:
        raise SettingsError(
            f"layers of {own.shape[1]} and {other.shape[1]} steps cannot be compared where the features have "
            f"{batch.features.shape[1]}: name layers that have as many steps as the features or as the answers"
        )
    return hint_losses(own, _aligned(other, theirs, lengths, own.shape[1], interpolate=interpolate), lengths)


def _steps_of(layer: Tensor, answers: Tensor | None, batch: Batch) -> Tensor | None:
    known = (n for n in (answers, batch.lengths) if n is not None)
    return next((n for n in known if int(n.max()) == layer.shape[1]), None)


def _embedding(outputs: Any) -> Tensor:
    found = getattr(getattr(outputs, "said", outputs), "embedding", None)
    if not isinstance(found, Tensor):
        raise SettingsError("this model makes no sentence embedding: take embedding out of train.distill.kinds")
    return found


def _labelled(batch: Batch) -> list[bool]:
    return [bool(reference.strip()) for reference in batch.references]


def _examples(batch: Batch, texts: Sequence[str]) -> list[Example]:
    """The clips of a batch again, as they are in it, with other references."""
    arrays = [row[:n].detach().cpu().numpy() for row, n in zip(batch.features, batch.lengths.tolist(), strict=True)]
    samples = [Sample(i, "", gloss=text, translation=text) for i, text in zip(batch.ids, texts, strict=True)]
    return [Example(sample, array) for sample, array in zip(samples, arrays, strict=True)]


def _side_by_side(batch: Batch, other: Batch) -> Batch:
    """2B clips: each with its own reference, then each with the other one."""
    width = max(batch.targets.shape[1], other.targets.shape[1])
    targets = [F.pad(b.targets, (0, width - b.targets.shape[1]), value=PADDING) for b in (batch, other)]
    return Batch(
        ids=batch.ids * 2,
        references=batch.references + other.references,
        features=batch.features.repeat(2, *[1] * (batch.features.ndim - 1)),
        lengths=batch.lengths.repeat(2),
        targets=torch.cat(targets),
        weights=torch.cat([batch.weights, other.weights]),
    )


def _halves(size: int) -> tuple[slice, slice]:
    return slice(0, size), slice(size, 2 * size)


def _padded(answers: Sequence[np.ndarray], device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Stored answers as a batch: (B, T', V) and lengths, or (B, V) and None."""
    tensors = [torch.from_numpy(answer).to(device) for answer in answers]
    if tensors[0].ndim == 1:
        return torch.stack(tensors), None
    lengths = torch.tensor([len(tensor) for tensor in tensors], device=device)
    return nn.utils.rnn.pad_sequence(tensors, batch_first=True), lengths
