"""A frozen teacher beside the references: what it tells a student, how loudly, and when it is refused."""

import math
from collections.abc import Mapping
from typing import Literal, Self

from pydantic import Field, model_validator

from sign_dist.config.base import Settings
from sign_dist.errors import did_you_mean

KINDS = ("logits", "features", "embedding", "sequence")


class Distill(Settings):
    """Learning from a teacher (Hinton et al. 2015, arXiv 1503.02531). Without `teacher` nothing of this is read."""

    teacher: str = ""
    """A run directory, checkpoint or bundle whose model teaches; empty: no teacher."""
    kinds: str = "logits"
    """What the teacher tells, parted by blanks, each with its weight behind a colon where that is not 1: `logits features:0.1`."""
    alpha: float = Field(default=0.7, ge=0, le=1)
    """The teacher's share of the loss; the references have the rest."""
    temperature: float = Field(default=4.0, gt=0, le=100)
    """Answers are softened by it."""
    reduction: Literal["valid_frames", "all_frames", "seed", "per_clip"] = "valid_frames"
    """Of a clip's steps: mean over those inside the clips of a batch, over padding too, as the seed summed, or over its own."""
    drop_blank: bool = False
    """Leave the blank out of the comparison."""
    delay: int = Field(default=0, ge=0, le=64)
    """The student says it so many steps after the teacher: what looks back only cannot know as early as what looks ahead."""
    steps: Literal["same", "interpolate"] = "same"
    """`interpolate`: a teacher whose answers have another number of steps is stretched to the student's."""
    layers: str = ""
    """For `features`: pairs of layers student=teacher by their names, parted by blanks."""
    embedding: Literal["relative", "mse", "cosine"] = "relative"
    """How sentence embeddings are compared; `relative`: squared distance as a share of the teacher's squared length."""
    unlabelled: str = ""
    """Another dataset directory, whose training clips are learned from the teacher alone; its labels are not read."""
    cache: str = ""
    """A folder or address that keeps the teacher's answers, so that each clip is asked once; empty: asked in every epoch."""
    gate: str = ""
    """The worst score on the validation split with which a teacher may teach; empty: any that is no worse than the student's."""
    student_run: str = ""
    """A finished run of the same student without a teacher: the teacher must be no worse than that."""

    @model_validator(mode="after")
    def _words_are_sound(self) -> Self:
        told = self.told()
        for pair in self.layers.split():
            student, sign, teacher = pair.partition("=")
            if not (student and sign and teacher) or "=" in teacher:
                raise ValueError(f"layers = {self.layers!r} is not allowed: need pairs STUDENT=TEACHER, got {pair!r}")
        if ("features" in told) != bool(self.layers.split()):
            raise ValueError(
                f"layers = {self.layers!r} and kinds = {self.kinds!r} belong together: `features` compares the layers that "
                "`layers` names, so give both or neither"
            )
        if self.cache and not told.keys() <= {"logits", "sequence"}:
            raise ValueError(f"cache keeps answers only, and kinds = {self.kinds!r} ask for more: leave one of the two out")
        if self.gate and self.bound() is None:
            raise ValueError(f"gate = {self.gate!r} is not allowed: should be a number, or empty")
        return self

    def told(self) -> dict[str, float]:
        """Kind -> weight.

        >>> Distill(kinds="logits sequence:0.5").told()
        {'logits': 1.0, 'sequence': 0.5}
        """
        found: dict[str, float] = {}
        for word in self.kinds.split():
            kind, sign, weight = word.partition(":")
            if kind not in KINDS:
                hint = did_you_mean(kind, KINDS)
                raise ValueError(f"no kind {kind!r} of target: there are {', '.join(KINDS)};{hint}".rstrip(";"))
            number = _number(weight) if sign else 1.0
            if number is None or number <= 0 or kind in found:
                raise ValueError(f"kinds = {self.kinds!r} is not allowed: each kind once, with a weight above 0 behind its colon")
            found[kind] = number
        if not found:
            raise ValueError(f"kinds is empty: name some of {', '.join(KINDS)}")
        return found

    def pairs(self) -> list[tuple[str, str]]:
        """Layers of the student and of the teacher that are compared."""
        return [(student, teacher) for student, _, teacher in (pair.partition("=") for pair in self.layers.split())]

    def bound(self) -> float | None:
        """`gate` as a number; None: it is empty."""
        return _number(self.gate)


def check_distill(settings: Distill, *, task: str, changes: Mapping[str, float]) -> None:
    """Refuse what contradicts the rest of a run. `changes`: how much each setting changes training clips.

    Raises:
        ValueError: this task has no such answers, or the teacher's answers would not be to the clip that the student sees.
    """
    if not settings.teacher:
        if settings.unlabelled:
            raise ValueError("train.distill.unlabelled needs a teacher: set train.distill.teacher as well")
        return
    told = settings.told()
    if task == "slt" and (unfit := told.keys() & {"logits", "features"}):
        raise ValueError(
            f"train.distill.kinds = {settings.kinds!r}: a translation has no steps to compare {min(unfit)} at; "
            "choose sequence, or embedding where the model makes one"
        )
    if task != "slt" and "embedding" in told:
        raise ValueError(f"train.distill.kinds = {settings.kinds!r}: task {task!r} makes no sentence embedding; choose logits")
    if settings.delay and task != "cslr":
        raise ValueError(f"train.distill.delay = {settings.delay} counts steps of task 'cslr', got task {task!r}: set it to 0")
    if settings.unlabelled and changes.get("train.mixup"):
        raise ValueError(
            "train.distill.unlabelled brings clips without labels, which cannot be mixed with others: set train.mixup to 0"
        )
    changing = [name for name, value in changes.items() if value]
    # A label holds for a clip however it is changed; an answer step by step only for the clip that was asked.
    if settings.cache and "logits" in told and changing:
        raise ValueError(
            f"train.distill.cache holds answers to clips as they are, and {changing[0]} changes them: set all of train.augment "
            "and train.mixup to 0, or leave the cache empty so that the teacher is asked about what the student sees"
        )


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
