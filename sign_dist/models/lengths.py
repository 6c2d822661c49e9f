"""Which steps of a padded batch are real."""

from torch import Tensor

from sign_dist.models.temporal import valid_steps


def real_steps(features: Tensor, lengths: Tensor) -> Tensor:
    """Boolean (B, T) of features (B, T, ...) that are padded behind `lengths` (B,).

    Raises:
        ValueError: the lengths are not B numbers from 1 to T.
    """
    batch, time = features.shape[:2]
    if lengths.shape != (batch,) or not bool(((lengths >= 1) & (lengths <= time)).all()):
        raise ValueError(f"need {batch} lengths from 1 to {time}, got {lengths.tolist()}")
    return valid_steps(lengths.to(features.device), time)
