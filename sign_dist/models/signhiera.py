"""SignHiera: the hierarchical video transformer Hiera as used for sign language (Rust et al. 2024, arXiv 2402.09611).

Keys and numbers are those of the published encoder. A clip shorter than the model's length is run as it is, with the
temporal embedding sliced: this equals padding it and masking the padding, and keeps the fast attention kernels usable.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sign_dist.models.hiera import LAYER_NORM_EPS, HieraShape, HieraTrunk, init_weights

# Mean and standard deviation of every colour channel that the published weights expect.
PIXEL_MEAN, PIXEL_STD = 0.45, 0.225

PRESETS: dict[str, HieraShape] = {
    # As published: the sign language encoder sees 128 frames, Hiera's own video encoder 16.
    "base_128x224": HieraShape(128, 224, 224),
    "base_16x224": HieraShape(16, 224, 224),
    # Hiera's smaller trunks; published for pictures, so there are no video weights for them.
    "small_128x224": HieraShape(128, 224, 224, stages=(1, 2, 11, 2)),
    "small_16x224": HieraShape(16, 224, 224, stages=(1, 2, 11, 2)),
    # Ours: small enough for a laptop's CPU, same structure.
    "tiny": HieraShape(16, 64, 64, embed_dim=32, stages=(1, 1, 2, 1)),
}


class SignHiera(HieraTrunk):
    """Video (B, 3, T, H, W), normalised -> features (B, ceil(T/2), D), or logits when it has a head."""

    starts_behind = ""

    def __init__(
        self, shape: HieraShape, num_classes: int = 0, *, dropout: float = 0.0, drop_path: float = 0.0, recompute: bool = False
    ) -> None:
        super().__init__(shape, drop_path=drop_path, recompute=recompute)
        self.norm = nn.LayerNorm(shape.dim, eps=LAYER_NORM_EPS)
        self.head = Head(shape.dim, num_classes, dropout) if num_classes else None
        self.apply(init_weights)

    def features(self, video: Tensor) -> Tensor:
        """The last stage before the final norm, mean over space: (B, ceil(T/2), D)."""
        return self.last(video).mean(dim=2)

    def features_of(self, video: Tensor, lengths: Sequence[int]) -> list[Tensor]:
        """Features of clips (B, 3, T, H, W) that are padded behind `lengths` frames: per clip (ceil(length/2), D).

        Clips of one length run together; nothing is computed for the padding.
        """
        out: dict[int, Tensor] = {}
        for length, rows in by_length(lengths, video).items():
            out |= dict(zip(rows, self.features(video[rows, :, :length]), strict=True))
        return [out[i] for i in range(len(lengths))]

    def forward(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Frames `uint8 (B, T, H, W, 3)`, or normalised video (B, 3, T, H, W), -> logits (B, V).

        With `lengths` (B,), frames behind a clip's length are not seen. With `starts_behind`, activations are read in place of
        frames, and `lengths` counts their steps.
        """
        if self.head is None:
            raise ValueError("this SignHiera was built without classes: it has features, but no logits")
        if self.starts_behind:
            clips, ask = features.movedim(1, 2), self._logits_behind  # time is the third axis, as in video
        else:
            clips, ask = normalise_frames(features) if features.dtype == torch.uint8 else features, self._logits
        if lengths is None:
            return ask(clips)
        groups = by_length(lengths.tolist(), clips)
        logits = torch.cat([ask(clips[rows, :, :length]) for length, rows in groups.items()])
        order = torch.tensor([row for rows in groups.values() for row in rows], device=logits.device)
        return logits[order.argsort()]

    def _logits(self, video: Tensor) -> Tensor:
        assert self.head is not None
        return self.head(self.norm(self.last(video).mean(dim=(1, 2))))

    def cuts(self) -> list[str]:
        """The embedding of patches and places, and the blocks: behind each the network can be cut."""
        return ["patch_embedding", *(f"block_{i}" for i in range(len(self.blocks)))]

    def cut_settings(self) -> dict[str, Any]:
        return dataclasses.asdict(self.shape)

    def activations(self, features: Tensor, cut: str) -> Tensor:
        """Frames -> what a block gives, by time step: (B, T/2, units, S, S, C); of the last the mean over all, (B, 1, D)."""
        units = self.embed(normalise_frames(features) if features.dtype == torch.uint8 else features)
        for block in self.blocks[: self.cuts().index(cut)]:
            units = block(units)
        if cut == self.cuts()[-1]:
            return self.by_step(units).mean(dim=(1, 2))[:, None]
        return units.unflatten(1, (-1, self.shape.units[0] * self.shape.units[1]))

    def _logits_behind(self, activations: Tensor) -> Tensor:
        """What `activations` gave, but with time as the third axis."""
        assert self.head is not None
        first = self.cuts().index(self.starts_behind)
        if first == len(self.blocks):
            return self.head(self.norm(activations[:, :, 0]))
        *_, units = self.run(activations.movedim(2, 1).flatten(1, 2), first=first)
        return self.head(self.norm(self.by_step(units).mean(dim=(1, 2))))

    def layer_groups(self) -> list[tuple[str, list[nn.Module | nn.Parameter]]]:
        """From the head down: norm and head, then blocks from last to first, then patch and position embeddings."""
        head: list[nn.Module | nn.Parameter] = [self.norm, *([self.head] if self.head is not None else [])]
        blocks: list[tuple[str, list[nn.Module | nn.Parameter]]] = [(f"block {i}", [b]) for i, b in enumerate(self.blocks)]
        embeddings: list[nn.Module | nn.Parameter] = [self.patch_embed, self.pos_embed_spatial, self.pos_embed_temporal]
        return [("head", head), *reversed(blocks), ("patch embedding", embeddings)]


class Head(nn.Module):
    """Dropout and a linear layer, under the key that published classifiers use."""

    def __init__(self, dim: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.projection = nn.Linear(dim, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.projection(self.dropout(x))


def normalise_frames(frames: Tensor) -> Tensor:
    """`uint8 (B, T, H, W, 3)` -> float (B, 3, T, H, W) as SignHiera expects it."""
    return (frames.permute(0, 4, 1, 2, 3).float() / 255 - PIXEL_MEAN) / PIXEL_STD


def by_length(lengths: Sequence[int], video: Tensor) -> dict[int, list[int]]:
    """Rows of a batch by their length.

    Raises:
        ValueError: not one length per clip, or one that is none of its frames.
    """
    groups: dict[int, list[int]] = defaultdict(list)
    for row, length in enumerate(lengths):
        groups[int(length)].append(row)
    if len(lengths) != len(video) or not all(1 <= length <= video.shape[2] for length in groups):
        raise ValueError(f"need {len(video)} lengths from 1 to {video.shape[2]}, got {list(lengths)}")
    return groups


def published_name(name: str) -> str:
    """A name in a published checkpoint -> ours. Encoders trained with text keep theirs under the tower's name."""
    return name.removeprefix("visual.transformer.")


def stretched(name: str, tensor: Tensor, shape: torch.Size) -> Tensor | None:
    """The temporal embedding of an encoder of another length, interpolated; nothing for other tensors.

    Weights of 16 frames thus start a model of 128.
    """
    if name != "pos_embed_temporal" or tensor.dim() != 3 or tensor.shape[::2] != shape[::2]:
        return None
    stretch = F.interpolate(tensor.float().transpose(1, 2), size=shape[1], mode="linear", align_corners=False)
    return stretch.transpose(1, 2).to(tensor.dtype)
