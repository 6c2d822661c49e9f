"""What a student is told by a teacher: Kullback-Leibler divergence of softened answers (Hinton et al. 2015, arXiv 1503.02531).

The soft loss is Tmp^2 * KL(softmax(teacher / Tmp) || softmax(student / Tmp)); the factor keeps its gradient as large as the
hard loss's, whatever the temperature. All is computed in float32 at least; the teacher gets no gradient.
"""

from typing import Literal, assert_never

import torch
from torch import Tensor

from sign_dist.models.temporal import valid_steps

Reduction = Literal["valid_frames", "all_frames", "seed"]


def divergence(student: Tensor, teacher: Tensor, *, temperature: float, drop_blank: bool = False) -> Tensor:
    """The soft loss of each frame or clip: logits (..., V) of both -> (...).

    `drop_blank` leaves out class 0 before the softmax, as VAC does (Min et al. 2021, arXiv 2104.02330): a blank that fills most
    frames else decides everything.

    Raises:
        ValueError: the shapes differ, or the temperature is not positive.
    """
    if student.shape != teacher.shape:
        raise ValueError(f"need logits of one shape: student {tuple(student.shape)}, teacher {tuple(teacher.shape)}")
    if not temperature > 0:
        raise ValueError(f"need a temperature above 0, got {temperature}")
    if drop_blank:
        student, teacher = student[..., 1:], teacher[..., 1:]
    dtype = torch.promote_types(torch.promote_types(student.dtype, teacher.dtype), torch.float32)
    own = (student.to(dtype) / temperature).log_softmax(-1)
    told = (teacher.detach().to(dtype) / temperature).log_softmax(-1)
    return temperature**2 * (told.exp() * (told - own)).sum(-1)


def soft_frame_loss(
    student: Tensor,
    teacher: Tensor,
    lengths: Tensor,
    *,
    temperature: float = 4.0,
    reduction: Reduction = "valid_frames",
    drop_blank: bool = False,
) -> Tensor:
    """The soft loss of gloss sequences, a scalar: logits (B, T, V) of both, and lengths (B,).

    `valid_frames`: mean over the frames inside the clips, the default, since it depends on neither padding nor batch.
    `all_frames`: mean over B * T. `seed`: sum over all frames divided by T, which the seed repository computes (`batchmean` on
    (T, B, V)); its weight grows with the batch.
    """
    frames = divergence(student, teacher, temperature=temperature, drop_blank=drop_blank)
    match reduction:
        case "valid_frames":
            valid = valid_steps(lengths.to(frames.device), frames.shape[1])
            return frames.masked_fill(~valid, 0.0).sum() / valid.sum()
        case "all_frames":
            return frames.mean()
        case "seed":
            return frames.sum() / frames.shape[1]
        case _:
            assert_never(reduction)


def soft_clip_loss(
    student: Tensor, teacher: Tensor, lengths: Tensor, *, temperature: float = 4.0, drop_blank: bool = False
) -> Tensor:
    """The soft loss of each clip (B,): the mean over its own frames of logits (B, T, V)."""
    frames = divergence(student, teacher, temperature=temperature, drop_blank=drop_blank)
    valid = valid_steps(lengths.to(frames.device), frames.shape[1])
    return frames.masked_fill(~valid, 0.0).sum(1) / valid.sum(1)


def blend(soft: Tensor, hard: Tensor, alpha: float = 0.7) -> Tensor:
    """alpha * soft + (1 - alpha) * hard; the teacher's share alpha is in 0..1."""
    if not 0 <= alpha <= 1:
        raise ValueError(f"need alpha in 0..1, got {alpha}")
    return alpha * soft + (1 - alpha) * hard
