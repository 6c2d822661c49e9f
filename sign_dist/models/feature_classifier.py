"""One gloss per clip from stored feature vectors: the temporal trunk, attention pooling, a linear head."""

from torch import Tensor, nn

from sign_dist.models.temporal import AttentionPool, TemporalTrunk, valid_steps


class FeatureClassifier(nn.Module):
    """features (B, T, D) float and lengths (B,) -> logits (B, V)."""

    def __init__(
        self,
        num_classes: int,
        *,
        num_features: int,
        width: int = 128,
        depth: int = 3,
        kernel: int = 5,
        stride: int = 2,
        num_attention: int = 1,
        num_heads: int = 4,
        dropout: float = 0.2,
        input_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.norm = nn.LayerNorm(num_features)  # encoders differ in scale by orders of magnitude
        self.trunk = TemporalTrunk(
            num_features,
            width=width,
            depth=depth,
            kernel=kernel,
            stride=stride,
            num_attention=num_attention,
            num_heads=num_heads,
            dropout=dropout,
            input_dropout=input_dropout,
        )
        self.pool = AttentionPool(width)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(width, num_classes))

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        if features.ndim != 3 or features.shape[-1] != self.num_features:
            raise ValueError(f"need features (B, T, {self.num_features}): {tuple(features.shape)}")
        x, lengths = self.trunk(self.norm(features), lengths)
        return self.head(self.pool(x, valid_steps(lengths, x.shape[1])))

    def layer_groups(self) -> list[tuple[str, list[nn.Module]]]:
        """From the head down to the input: what progressive unfreezing trains first to last."""
        groups = self.trunk.layer_groups()
        name, modules = groups[-1]
        return [("head", [self.head, self.pool]), *groups[:-1], (name, [*modules, self.norm])]
