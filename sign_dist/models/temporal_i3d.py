"""Temporal I3D: Inception blocks of 1-D convolutions over features, a BiLSTM and a CTC head. The teacher for gloss sequences.

The channel table is I3D's (`i3d.MIXED`, Carreira and Zisserman 2017, arXiv 1705.07750) with the two axes of space left out.
Two presets:

- `seed`: the teacher of the seed documents. Their printed counts determine it: four groups of landmarks (6,516 numbers a frame)
  fused to 256, a stem of 64 channels, branch kernels 1, 3, 5 and a pooled 1, one BiLSTM layer of 2 x 256. 7,420,448 parameters
  with 1,232 classes, 7,287,581 with 973.
- `i3d1d`: I3D's own stages, the two convolutions behind the stem and kernels of 3 in both wide branches included, so that adapted
  3-D kernels fill every block (`transfer.kernels`). Only the stem's convolution reads something else than pixels.

The counts do not fix strides. Both presets halve time at two pools (a step per 4 frames, as the VAC family), and leave the
stem's stride, which I3D uses to reach 8 frames a step, at 1: eight frames are often longer than a gloss. Set `strides` for others.
"""

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from sign_dist.models.i3d import BATCH_NORM_EPS, BATCH_NORM_MOMENTUM, MIXED
from sign_dist.models.recompute import recomputed
from sign_dist.models.temporal import valid_steps

SEED_MODALITIES = (99, 126, 1404, 4887)
"""Numbers a frame of the seed's features: pose, hands, face, and their speeds and accelerations."""


@dataclasses.dataclass(frozen=True)
class TemporalShape:
    """What differs between the presets."""

    b2b_kernel: int
    """Kernel of the second wide branch."""
    inner_convs: bool
    """I3D's Conv3d_2b_1x1 and Conv3d_2c_3x3 between stem and blocks."""
    bias: bool
    """Convolutions have a bias in front of BatchNorm."""
    strides: tuple[int, int, int] = (1, 2, 2)
    """Of the stem, the pool before mixed_4b and the pool before mixed_5b."""
    fused_width: int = 256
    stem_width: int = 64
    lstm_width: int = 256
    """Per direction."""
    lstm_layers: int = 1
    channels: float = 1.0
    """Times I3D's numbers of channels, in every block and the two convolutions behind the stem."""

    def widths(self, *counts: int) -> tuple[int, ...]:
        """I3D's numbers of channels as this shape has them."""
        return tuple(max(4, round(count * self.channels)) for count in counts)


PRESETS = {
    "seed": TemporalShape(b2b_kernel=5, inner_convs=False, bias=True),
    "i3d1d": TemporalShape(b2b_kernel=3, inner_convs=True, bias=False),
}


class TemporalI3d(nn.Module):
    """Features (B, T, D) and lengths (B,) -> logits (B, T', V) and lengths (B,); class 0 is the CTC blank.

    `modalities` are the widths of the groups of which D is the sum, in order. T' is T divided by each stride, rounded up.
    `front` makes these features of something else, such as landmarks.
    Padding is never read, nor counted in BatchNorm: a clip gives equal logits alone and in a batch of longer ones.
    """

    num_special = 1
    """Classes before those of the vocabulary: the blank."""

    def __init__(
        self,
        num_classes: int,
        *,
        modalities: tuple[int, ...] = SEED_MODALITIES,
        shape: TemporalShape = PRESETS["seed"],
        num_heads: int = 4,
        dropout: float = 0.3,
        checkpointing: bool = False,
        front: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.shape, self.checkpointing, self.front = shape, checkpointing, front
        self.modality_fusion = ModalityFusion(modalities, shape.fused_width, num_heads)
        self.stem = Unit1d(shape.fused_width, shape.stem_width, 7, stride=shape.strides[0], bias=shape.bias)
        channels = shape.stem_width
        if shape.inner_convs:
            inner, outer = shape.widths(64, 192)
            self.conv_2b = Unit1d(channels, inner, 1, bias=shape.bias)
            self.conv_2c = Unit1d(inner, outer, 3, bias=shape.bias)
            channels = outer
        for name, widths in MIXED.items():
            block = Mixed1d(channels, shape.widths(*widths), b2b_kernel=shape.b2b_kernel, bias=shape.bias)
            self.add_module(f"mixed_{name}", block)
            channels = block.num_outputs
        self.dropout = nn.Dropout(dropout)
        self.lstm = nn.LSTM(channels, shape.lstm_width, shape.lstm_layers, batch_first=True, bidirectional=True)
        self.classifier = nn.Linear(2 * shape.lstm_width, num_classes)

    def stages(self) -> list[tuple[str, "Unit1d | Mixed1d"]]:
        """Stem and blocks, from the input up."""
        inner = ["conv_2b", "conv_2c"] if self.shape.inner_convs else []
        names = ["stem", *inner, *(f"mixed_{name}" for name in MIXED)]
        return [(name, self.get_submodule(name)) for name in names]  # pyright: ignore[reportReturnType]

    def visual(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The blocks' output: (B, 1024 * channels, T'), zero behind a clip's end, and lengths (B,)."""
        if features.ndim != 3 or features.shape[2] != sum(self.modality_fusion.modalities):
            wanted = " + ".join(map(str, self.modality_fusion.modalities))
            raise ValueError(f"need features (B, T, {wanted}), got {tuple(features.shape)}")
        padded = bool((lengths < features.shape[1]).any())  # asked once: each question waits for the GPU
        x = self.modality_fusion(features, valid_steps(lengths, features.shape[1]) if padded else None).transpose(1, 2)
        for name, stage in self.stages():
            stride = {"mixed_4b": self.shape.strides[1], "mixed_5b": self.shape.strides[2]}.get(name, 1)
            if stride > 1:
                x, lengths = pool_time(x, 3 if name == "mixed_4b" else 2, stride), strided(lengths, stride)
            lengths = strided(lengths, stage.stride)
            valid = valid_steps(lengths, strided_size(x.shape[2], stage.stride)) if padded else None
            x = recomputed(stage, x, valid) if self.checkpointing and torch.is_grad_enabled() else stage(x, valid)
        return x, lengths

    def forward(self, features: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if lengths is None:
            lengths = torch.full((len(features),), features.shape[1], device=features.device)
        x, lengths = self.visual(features if self.front is None else self.front(features, lengths), lengths)
        x = run_packed(self.lstm, self.dropout(x.transpose(1, 2)), lengths)
        return self.classifier(self.dropout(x)), lengths

    def layer_groups(self) -> list[tuple[str, list[nn.Module]]]:
        """From the head down to the fusion, under the names that the seed documents freeze by."""
        stages: list[tuple[str, list[nn.Module]]] = [(name, [stage]) for name, stage in self.stages()]
        ends: list[tuple[str, list[nn.Module]]] = [("classifier", [self.classifier]), ("lstm", [self.lstm])]
        return [*ends, *reversed(stages), ("modality_fusion", [self.modality_fusion])]


class ModalityFusion(nn.Module):
    """Groups of features (B, T, D), each brought to an equal share of the width, and attention over time -> (B, T, W).

    The shares add up to W: the first groups take one number more where the width does not divide.
    """

    def __init__(self, modalities: tuple[int, ...], width: int, num_heads: int) -> None:
        super().__init__()
        if not modalities or min(modalities) < 1 or width < len(modalities) or width % num_heads:
            raise ValueError(f"need modalities of 1 and more, a width for each, and heads that divide it: {modalities=} {width=}")
        self.modalities, self.num_heads = modalities, num_heads
        shares = [width // len(modalities) + (i < width % len(modalities)) for i in range(len(modalities))]
        self.inputs = nn.ModuleList(
            nn.Sequential(nn.Linear(size, share), nn.LayerNorm(share)) for size, share in zip(modalities, shares, strict=True)
        )
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, valid: Tensor | None) -> Tensor:
        """`valid` (B, T) says which steps belong to clips; None: all."""
        parts = [group(part) for group, part in zip(self.inputs, x.split(self.modalities, dim=2), strict=True)]
        x = torch.cat(parts, dim=2)
        q, k, v = self.qkv(x).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        mask = None if valid is None else valid[:, None, None, :]  # None leaves the fastest kernels to choose from
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
        x = self.norm(x + self.out(y))
        return x if valid is None else x * valid[..., None]


class Unit1d(nn.Module):
    """Convolution in time, BatchNorm, ReLU: (B, C, T) -> (B, C', T'), T' = ceil(T / stride), zero where `valid` (B, T') is not."""

    def __init__(self, num_inputs: int, num_outputs: int, kernel: int, *, stride: int = 1, bias: bool) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv1d(num_inputs, num_outputs, kernel, stride=stride, bias=bias)
        self.bn = nn.BatchNorm1d(num_outputs, eps=BATCH_NORM_EPS, momentum=BATCH_NORM_MOMENTUM)
        nn.init.kaiming_normal_(self.conv.weight, nonlinearity="relu")

    def forward(self, x: Tensor, valid: Tensor | None) -> Tensor:
        x = self.conv(pad_time(x, self.conv.kernel_size[0], self.stride))
        if valid is None:
            return F.relu(self.bn(x))
        if not self.bn.training:
            return F.relu(self.bn(x)) * valid[:, None]
        kept = F.relu(self.bn(x.transpose(1, 2)[valid]))
        return kept.new_zeros(*valid.shape, kept.shape[1]).masked_scatter(valid[..., None], kept).transpose(1, 2)


class Mixed1d(nn.Module):
    """An Inception block in time; a maximum over 3 steps stands before the last branch."""

    stride = 1

    def __init__(self, num_inputs: int, widths: tuple[int, ...], *, b2b_kernel: int, bias: bool) -> None:
        super().__init__()
        b0, b1a, b1b, b2a, b2b, b3b = widths
        self.b0 = Unit1d(num_inputs, b0, 1, bias=bias)
        self.b1a = Unit1d(num_inputs, b1a, 1, bias=bias)
        self.b1b = Unit1d(b1a, b1b, 3, bias=bias)
        self.b2a = Unit1d(num_inputs, b2a, 1, bias=bias)
        self.b2b = Unit1d(b2a, b2b, b2b_kernel, bias=bias)
        self.b3b = Unit1d(num_inputs, b3b, 1, bias=bias)
        self.num_outputs = b0 + b1b + b2b + b3b

    def forward(self, x: Tensor, valid: Tensor | None) -> Tensor:
        wide = self.b1b(self.b1a(x, valid), valid)
        wider = self.b2b(self.b2a(x, valid), valid)
        return torch.cat([self.b0(x, valid), wide, wider, self.b3b(pool_time(x, 3, 1), valid)], dim=1)


def pad_time(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Zeros around x (B, C, T) for ceil(T / stride) windows.

    In front stand as many as I3D puts before an even number of frames, whatever T is: where a window lies must not depend on
    how far a clip was padded.
    """
    front = max(kernel - stride, 0) // 2
    back = max((strided_size(x.shape[2], stride) - 1) * stride + kernel - x.shape[2] - front, 0)
    return F.pad(x, (front, back))


def pool_time(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Maximum over time of x (B, C, T), which may hold no negative numbers."""
    return F.max_pool1d(pad_time(x, kernel, stride), kernel, stride)


def strided(lengths: Tensor, stride: int) -> Tensor:
    return torch.div(lengths + stride - 1, stride, rounding_mode="floor")


def strided_size(size: int, stride: int) -> int:
    return -(-size // stride)


def run_packed(lstm: nn.LSTM, x: Tensor, lengths: Tensor) -> Tensor:
    """An LSTM over clips x (B, T, C) of `lengths` (B,), so that its backward direction starts at a clip's own end.

    Steps behind the end are zero. Raises ValueError where a clip has no step.
    """
    counts = lengths.cpu()
    if int(counts.min()) < 1:
        raise ValueError(f"need at least one step a clip, got lengths {counts.tolist()}")
    packed = pack_padded_sequence(x, counts, batch_first=True, enforce_sorted=False)
    return pad_packed_sequence(lstm(packed)[0], batch_first=True, total_length=x.shape[1])[0]
