"""What stands before a model over sequences: whatever features a clip has become vectors (B, T, D)."""

from torch import Tensor, nn

from sign_dist.models.landmark import LandmarkInputs


class Vectors(nn.Module):
    """Vectors (B, T, D) stay as they are."""

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.num_outputs = num_outputs

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        return features


def build_front(feature_shape: tuple[int, ...], *, face: bool = False) -> Vectors | LandmarkInputs:
    """(features (B, T, ...), lengths (B,)) -> (B, T, D); D is its `num_outputs`. It has no parameters.

    Args:
        feature_shape: what follows T: (D,) of vectors, (K, 4) of landmarks.
        face: read the face points too, where landmarks have them.

    Raises:
        ValueError: features of another shape.
    """
    match feature_shape:
        case (num_outputs,):
            return Vectors(num_outputs)
        case (num_landmarks, 4):
            return LandmarkInputs(num_landmarks, use_face=face)
        case _:
            raise ValueError(f"need vectors (T, D) or landmarks (T, K, 4), got features (T, {', '.join(map(str, feature_shape))})")
