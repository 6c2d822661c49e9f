"""A small video network for isolated signs, trained end to end from frames in about a minute on a laptop's CPU.

It sees no colours. Each pixel becomes one number: how unusual its colour is against that pixel's mean over the clip,
measured in the clip's own spread of colours (Mahalanobis 1936). What stands still, such as the background, the face and the
shirt, fades; the arms and hands stay, and look alike whatever the skin, the clothes and the light. A few signers are then
enough to recognise others. Frame by frame, convolutions shrink the picture to a coarse grid which is flattened, not
averaged: where a hand is belongs to the sign. A trunk over time and a learned weighting of the frames follow.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sign_dist.models.temporal import AttentionPool, TemporalTrunk, valid_steps

GRID = 4
"""Cells a side of the grid that keeps where something is."""
# Share of the mean variance that every direction of colour is granted at least. Videos store hue coarsely (4:2:0), and
# whitening without such a floor would blow that noise up.
SPREAD_FLOOR = 0.02
# Variance of a colour that is the same throughout but for rounding and compression, in squared 8-bit levels.
STILL_VARIANCE = 0.65
LARGEST = 6.0


class VideoCnn(nn.Module):
    """Frames `uint8 (B, T, H, W, 3)` -> logits (B, V). Any T; H and W are multiples of 16."""

    starts_behind = ""

    def __init__(
        self, num_classes: int, *, width: int = 24, num_features: int = 96, depth: int = 2, kernel: int = 5, dropout: float = 0.3
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            [
                _conv_block(1, width, kernel=7, stride=4),
                _conv_block(width, 2 * width, kernel=3, stride=2),
                _conv_block(2 * width, 3 * width, kernel=3, stride=2),
            ]
        )
        self.trunk = TemporalTrunk(
            3 * width * GRID * GRID,
            width=num_features,
            depth=depth,
            kernel=kernel,
            stride=1,
            num_attention=0,
            dropout=dropout,
        )
        self.pool = AttentionPool(num_features)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(num_features, num_classes))

    def forward(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        """`lengths` (B,) counts the frames of each clip; those after them are not read. None: all are read.

        With `starts_behind`, activations are read in place of frames.
        """
        batch, steps = features.shape[:2]
        if lengths is None:
            lengths = torch.full((batch,), steps, device=features.device)
        x = features.flatten(0, 1) if self.starts_behind else standout(features, lengths).flatten(0, 1)[:, None]
        for stage in self.stages[self.cuts().index(self.starts_behind) + 1 if self.starts_behind else 0 :]:
            x = stage(x)
        x = F.adaptive_avg_pool2d(x, GRID).flatten(1).unflatten(0, (batch, steps))
        x, _ = self.trunk(x, lengths)
        return self.head(self.pool(x, valid_steps(lengths, steps)))

    def cuts(self) -> list[str]:
        """The stages of convolutions, from the input up: behind each the network can be cut."""
        return [f"stage_{i}" for i in range(len(self.stages))]

    def cut_settings(self) -> dict[str, Any]:
        return {}

    def activations(self, features: Tensor, cut: str) -> Tensor:
        """Frames -> what a stage gives: (B, T, C, H', W')."""
        batch, steps = features.shape[:2]
        lengths = torch.full((batch,), steps, device=features.device)
        x = standout(features, lengths).flatten(0, 1)[:, None]
        for stage in self.stages[: self.cuts().index(cut) + 1]:
            x = stage(x)
        return x.unflatten(0, (batch, steps))

    def layer_groups(self) -> list[tuple[str, list[nn.Module]]]:
        """From the head down: head and pool, the trunk over time, then the convolutions from last to first."""
        stages: list[tuple[str, list[nn.Module]]] = [(f"stage {i}", [stage]) for i, stage in enumerate(self.stages)][::-1]
        return [("head", [self.head, self.pool]), *self.trunk.layer_groups(), *stages]


@torch.no_grad()
def standout(frames: Tensor, lengths: Tensor) -> Tensor:
    """How much each pixel differs from its mean over the clip: frames (B, T, H, W, 3) in 0..255 -> (B, T, H, W) in 0..6.

    The distance sqrt(d' S^-1 d) of a colour's deviation d under the clip's own covariance S of such deviations. Other
    brightness or contrast, and any rotation or exchange of the colour axes, leave it as it is, where nothing is clipped.
    Frames from `lengths` (B,) on give 0 and count for nothing.
    """
    batch, steps, height, width, channels = frames.shape
    valid = valid_steps(lengths, steps)
    padded = not bool(valid.all())
    count = valid.sum(1)
    with torch.autocast(frames.device.type, enabled=False):
        x = frames.float()
        if padded:
            x = x * valid[:, :, None, None, None]
        x = x - x.sum(1, keepdim=True) / count[:, None, None, None, None]
        if padded:
            x = x * valid[:, :, None, None, None]
        x = x.flatten(1, 3)
        spread = x.mT @ x / (count * height * width)[:, None, None]
        floor = SPREAD_FLOOR * spread.diagonal(dim1=1, dim2=2).mean(1) + STILL_VARIANCE
        inverse = torch.linalg.inv(spread + floor[:, None, None] * torch.eye(channels, device=x.device))
        squared = ((x @ inverse) * x).sum(-1)
        return squared.clamp_(min=0.0).sqrt_().clamp_(max=LARGEST).view(batch, steps, height, width)


def _conv_block(num_in: int, num_out: int, *, kernel: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(num_in, num_out, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(num_out), nn.ReLU(inplace=True)
    )
