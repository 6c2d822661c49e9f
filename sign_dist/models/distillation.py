"""What a student is told by a teacher: Kullback-Leibler divergence of softened answers (Hinton et al. 2015, arXiv 1503.02531).

The soft loss is Tmp^2 * KL(softmax(teacher / Tmp) || softmax(student / Tmp)); the factor keeps its gradient as large as the
hard loss's, whatever the temperature. All is computed in float32 at least; the teacher gets no gradient.
"""

from typing import Literal, assert_never

import torch
import torch.nn.functional as F
from torch import Tensor

from sign_dist.models.temporal import valid_steps

Reduction = Literal["valid_frames", "all_frames", "seed"]
ClipReduction = Literal["valid_frames", "all_frames", "seed", "per_clip"]
Distance = Literal["relative", "mse", "cosine"]


def divergence(student: Tensor, teacher: Tensor, *, temperature: float, drop_blank: bool = False) -> Tensor:
    """The soft loss of each frame or clip: logits (..., V) of both -> (...).

    `drop_blank` leaves out class 0 before the softmax, as VAC does (Min et al. 2021, arXiv 2104.02330): a blank that fills most
    frames else decides everything.

    Raises:
        ValueError: the shapes differ, or the temperature is not positive.
    """
    need_one_shape("logits", student, teacher)
    if not temperature > 0:
        raise ValueError(f"need a temperature above 0, got {temperature}")
    if drop_blank:
        student, teacher = student[..., 1:], teacher[..., 1:]
    dtype = torch.promote_types(torch.promote_types(student.dtype, teacher.dtype), torch.float32)
    own = (student.to(dtype) / temperature).log_softmax(-1)
    told = (teacher.detach().to(dtype) / temperature).log_softmax(-1)
    return temperature**2 * (told.exp() * (told - own)).sum(-1)


def soft_losses(
    student: Tensor,
    teacher: Tensor,
    lengths: Tensor,
    *,
    temperature: float = 4.0,
    reduction: ClipReduction = "valid_frames",
    drop_blank: bool = False,
    counted: Tensor | None = None,
) -> Tensor:
    """The soft loss of gloss sequences by clip (B,), of which the mean is that of the batch: logits (B, T, V), lengths (B,).

    `valid_frames`: the mean is one over the frames inside the clips, the default, since it depends on no padding. `all_frames`: one
    over B * T. `seed`: the sum over all frames divided by T, which the seed repository computes (`batchmean` on (T, B, V)); its
    weight grows with the batch. `per_clip`: each clip's is the mean over its own frames, whatever stands beside it in a batch.

    Args:
        counted: clips (B,) whose frames count in a mean over the frames of all clips; None: all.
    """
    frames = divergence(student, teacher, temperature=temperature, drop_blank=drop_blank)
    valid = valid_steps(lengths.to(frames.device), frames.shape[1])
    if counted is not None:
        valid = valid & counted[:, None]
    inside = frames.masked_fill(~valid, 0.0).sum(1)
    match reduction:
        case "valid_frames":
            count = len(frames) if counted is None else counted.sum()
            return inside * (count / valid.sum().clamp(min=1))
        case "per_clip":
            return inside / valid.sum(1).clamp(min=1)
        case "all_frames":
            return frames.mean(1)
        case "seed":
            return frames.mean(1) * len(frames)
        case _:
            assert_never(reduction)


def soft_frame_loss(
    student: Tensor,
    teacher: Tensor,
    lengths: Tensor,
    *,
    temperature: float = 4.0,
    reduction: Reduction = "valid_frames",
    drop_blank: bool = False,
) -> Tensor:
    """The soft loss of a batch of gloss sequences, a scalar: logits (B, T, V) of both, and lengths (B,)."""
    return soft_losses(student, teacher, lengths, temperature=temperature, reduction=reduction, drop_blank=drop_blank).mean()


def soft_clip_loss(
    student: Tensor, teacher: Tensor, lengths: Tensor, *, temperature: float = 4.0, drop_blank: bool = False
) -> Tensor:
    """The soft loss of each clip (B,): the mean over its own frames of logits (B, T, V)."""
    return soft_losses(student, teacher, lengths, temperature=temperature, reduction="per_clip", drop_blank=drop_blank)


def embedding_losses(student: Tensor, teacher: Tensor, how: Distance = "relative") -> Tensor:
    """Between embeddings (B, D), of each clip (B,): `mse` the mean squared difference, `relative` the squared distance as a share
    of the teacher's squared length (a SONAR embedding is so short that its error alone is some 1e-4), `cosine` 1 - cosine.

    Raises:
        ValueError: they have not the same shape.
    """
    need_one_shape("embeddings", student, teacher)
    student, teacher = student.float(), teacher.detach().float()
    match how:
        case "relative":
            return (student - teacher).square().sum(-1) / teacher.square().sum(-1).clamp(min=1e-12)
        case "mse":
            return (student - teacher).square().mean(-1)
        case "cosine":
            return 1 - F.cosine_similarity(student, teacher, dim=-1)
        case _:
            assert_never(how)


def aligned(teacher: Tensor, teacher_lengths: Tensor, lengths: Tensor, num_steps: int, *, interpolate: bool = False) -> Tensor:
    """A teacher's steps (B, T, W) at those of a student (B, `num_steps`, W): as they are where they are as many in each clip.

    With `interpolate` the clips are else stretched linearly, so that the middles of their steps lie on one line.

    Raises:
        ValueError: a clip has other numbers of steps, and is not to be interpolated.
    """
    lengths, teacher_lengths = lengths.to(teacher.device), teacher_lengths.to(teacher.device)
    if bool((lengths == teacher_lengths).all()):
        # Padded less far or further: what stands behind the clips is not read.
        return F.pad(teacher, (0, 0, 0, max(num_steps - teacher.shape[1], 0)))[:, :num_steps]
    if not interpolate:
        row = int((lengths != teacher_lengths).int().argmax())
        raise ValueError(f"the teacher gives {int(teacher_lengths[row])} steps where the student gives {int(lengths[row])}")
    last = (teacher_lengths - 1)[:, None]
    at = (torch.arange(num_steps, device=teacher.device)[None] + 0.5) * (teacher_lengths / lengths)[:, None] - 0.5
    at = torch.minimum(at.clamp(min=0), last.to(at.dtype))
    low = at.floor().long()
    high = torch.minimum(low + 1, last)
    low_value, high_value = (teacher.gather(1, i[..., None].expand(-1, -1, teacher.shape[2])) for i in (low, high))
    return low_value.lerp(high_value, (at - low).to(teacher.dtype)[..., None])


def need_one_shape(what: str, student: Tensor, teacher: Tensor) -> None:
    """Raise ValueError where two tensors cannot be compared."""
    if student.shape != teacher.shape:
        raise ValueError(f"need {what} of one shape: student {tuple(student.shape)}, teacher {tuple(teacher.shape)}")


def blend(soft: Tensor, hard: Tensor, alpha: float = 0.7) -> Tensor:
    """alpha * soft + (1 - alpha) * hard; the teacher's share alpha is in 0..1."""
    if not 0 <= alpha <= 1:
        raise ValueError(f"need alpha in 0..1, got {alpha}")
    return alpha * soft + (1 - alpha) * hard
