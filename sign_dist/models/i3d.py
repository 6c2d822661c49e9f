"""Inception-I3D (Carreira and Zisserman 2017, arXiv 1705.07750), RGB: isolated signs, and the source of 3-D kernels.

The network that WLASL (Li et al. 2020, arXiv 1910.11006) trained: its 344 keys and its numbers, so that checkpoints of
Kinetics, WLASL and BSL-1K load by name. 12,287,264 + 1,025 V parameters: 12,697,264 for Kinetics-400, 14,337,264 for WLASL-2000.

What a port easily gets wrong: zero padding is computed from the size of the input ("SAME" of TensorFlow) and is one-sided
where an even size is halved; both wide branches of a block have 3x3x3 kernels; BatchNorm has eps 1e-3 and momentum 0.01.
WLASL's weights expect BGR pictures, those of Kinetics RGB ones.
"""

import collections
import math
from collections.abc import Iterator
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sign_dist.models.recompute import recomputed

BATCH_NORM_EPS, BATCH_NORM_MOMENTUM = 1e-3, 0.01
NUM_FEATURES = 1024
"""Width of the last block, and so of the features."""
TIME_STRIDE = 8
"""Frames per step of the last block."""

# Channels of a block: b0, b1a, b1b, b2a, b2b, b3b (table 1 of the supplement of Szegedy et al. 2015 gives the 2-D network).
MIXED: dict[str, tuple[int, int, int, int, int, int]] = {
    "3b": (64, 96, 128, 16, 32, 32),
    "3c": (128, 128, 192, 32, 96, 64),
    "4b": (192, 96, 208, 16, 48, 64),
    "4c": (160, 112, 224, 24, 64, 64),
    "4d": (128, 128, 256, 24, 64, 64),
    "4e": (112, 144, 288, 32, 64, 64),
    "4f": (256, 160, 320, 32, 128, 128),
    "5b": (256, 160, 320, 32, 128, 128),
    "5c": (384, 192, 384, 48, 128, 128),
}

# Behind which stage a maximum stands: its name, kernel and stride over (T, H, W).
POOLS = {
    "Conv3d_1a_7x7": ("MaxPool3d_2a_3x3", (1, 3, 3), (1, 2, 2)),
    "Conv3d_2c_3x3": ("MaxPool3d_3a_3x3", (1, 3, 3), (1, 2, 2)),
    "Mixed_3c": ("MaxPool3d_4a_3x3", (3, 3, 3), (2, 2, 2)),
    "Mixed_4f": ("MaxPool3d_5a_2x2", (2, 2, 2), (2, 2, 2)),
}

Colours = Literal["rgb", "bgr"]
OverTime = Literal["max", "mean"]


class InceptionI3d(nn.Module):
    """Frames `uint8 (B, T, H, W, 3)` RGB -> logits (B, V); or normalised video (B, 3, T, H, W).

    `colours` is the order that the weights expect; frames are given as RGB either way. `over_time` says how the logits of
    the steps become the clip's: the maximum, as WLASL tests, or the mean. `norm_momentum` is the share of BatchNorm's running
    statistics that a step replaces: with the published one hundreds of steps go by until they are those of other data.
    """

    starts_behind = ""

    def __init__(
        self,
        num_classes: int,
        *,
        in_channels: int = 3,
        dropout: float = 0.5,
        colours: Colours = "rgb",
        over_time: OverTime = "max",
        norm_momentum: float = BATCH_NORM_MOMENTUM,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.colours: Colours = colours
        self.over_time: OverTime = over_time
        self.checkpointing = checkpointing
        self.logits = Head(num_classes)
        self.dropout = nn.Dropout(dropout)
        self.Conv3d_1a_7x7 = Unit3d(in_channels, 64, 7, stride=2)
        self.Conv3d_2b_1x1 = Unit3d(64, 64, 1)
        self.Conv3d_2c_3x3 = Unit3d(64, 192, 3)
        channels = 192
        for name, widths in MIXED.items():
            block = Mixed(channels, widths)
            self.add_module(f"Mixed_{name}", block)
            channels = block.num_outputs
        for module in self.modules():
            if isinstance(module, nn.BatchNorm3d):
                module.momentum = norm_momentum

    def endpoints(self, video: Tensor, *, behind: str = "") -> Iterator[tuple[str, Tensor]]:
        """(name, output) of every stage from `Conv3d_1a_7x7` to `Mixed_5c`, in order: normalised video -> (B, C, T, H, W).

        T and H, W of the last are a 32nd, or for T an 8th, of the video's, rounded up. With `behind`, `video` is what
        that stage and the maximum after it gave, and the stages that follow are run.
        """
        # Pooling is many times faster, and tensor cores are used, where channels lie beside each other.
        x = video.contiguous(memory_format=torch.channels_last_3d)
        for name, stage in self.stages()[self.cuts().index(behind) + 1 if behind else 0 :]:
            x = recomputed(stage, x) if self.checkpointing and torch.is_grad_enabled() else stage(x)
            yield name, x
            if name in POOLS:
                pool, kernel, stride = POOLS[name]
                x = max_pool_same(x, kernel, stride)
                yield pool, x

    def stages(self) -> list[tuple[str, nn.Module]]:
        """The stages with weights below the head, from the input up."""
        names = ["Conv3d_1a_7x7", "Conv3d_2b_1x1", "Conv3d_2c_3x3", *(f"Mixed_{name}" for name in MIXED)]
        return [(name, self.get_submodule(name)) for name in names]

    def features(self, video: Tensor) -> Tensor:
        """Normalised video (B, 3, T, H, W) -> pooled features (B, 1024, T'), T' = max(ceil(T/8) - 1, 1).

        The mean over space and two steps of time. For sides of 193 to 224 px it is the published average over 2x7x7;
        other sides and clips of 8 frames and fewer, which that refuses or answers with a map, are averaged over what there is.

        Raises:
            ValueError: no video of such a shape.
        """
        if video.ndim != 5 or video.shape[1] != self.Conv3d_1a_7x7.conv3d.in_channels or 0 in video.shape:
            wanted = self.Conv3d_1a_7x7.conv3d.in_channels
            raise ValueError(f"need video (B, {wanted}, T, H, W) with at least one frame, got {tuple(video.shape)}")
        last = collections.deque(self.endpoints(video), maxlen=1)[0][1]
        return _over_two_steps(last.mean(dim=(3, 4)))

    def step_logits(self, video: Tensor) -> Tensor:
        """Normalised video (B, 3, T, H, W) -> logits (B, V, T')."""
        return self.logits(self.dropout(self.features(video)))

    def cuts(self) -> list[str]:
        """The stages behind which the network can be cut, from the input up."""
        return [name for name, _ in self.stages()]

    def cut_settings(self) -> dict[str, Any]:
        return {"colours": self.colours}

    def activations(self, features: Tensor, cut: str) -> Tensor:
        """Frames -> what a stage and the maximum after it give, (B, T', H', W', C); of the last its mean over space, (B, T', C)."""
        video = normalise_frames(features, self.colours) if features.dtype == torch.uint8 else features
        last = POOLS[cut][0] if cut in POOLS else cut
        x = next(x for name, x in self.endpoints(video) if name == last)
        return x.mean(dim=(3, 4)).transpose(1, 2) if cut == self.cuts()[-1] else x.permute(0, 2, 3, 4, 1)

    def _features_behind(self, activations: Tensor) -> Tensor:
        """What `activations` gave -> features (B, 1024, T') as of the frames."""
        if self.starts_behind == self.cuts()[-1]:
            return _over_two_steps(activations.transpose(1, 2))
        x = activations.permute(0, 4, 1, 2, 3)
        last = collections.deque(self.endpoints(x, behind=self.starts_behind), maxlen=1)[0][1]
        return _over_two_steps(last.mean(dim=(3, 4)))

    def forward(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Logits of clips. `lengths` (B,) counts the frames of each clip: steps that lie wholly after them do not count.

        With `starts_behind`, activations are read in place of frames, and `lengths` counts their steps.
        """
        if self.starts_behind:
            steps = self.logits(self.dropout(self._features_behind(features)))
        else:
            steps = self.step_logits(normalise_frames(features, self.colours) if features.dtype == torch.uint8 else features)
        if lengths is None:
            return steps.amax(2) if self.over_time == "max" else steps.mean(2)
        stride = TIME_STRIDE // self._stride_before()
        counts = torch.div(lengths.to(steps.device) + stride - 1, stride, rounding_mode="floor") - 1
        valid = (torch.arange(steps.shape[2], device=steps.device) < counts.clamp(min=1)[:, None])[:, None]
        if self.over_time == "max":
            return steps.masked_fill(~valid, float("-inf")).amax(2)
        return (steps * valid).sum(2) / valid.sum(2)

    def _stride_before(self) -> int:
        """Frames per step of what is read."""
        if not self.starts_behind:
            return 1
        passed = self.cuts()[: self.cuts().index(self.starts_behind) + 1]
        return 2 * math.prod(POOLS[name][2][0] for name in passed if name in POOLS)

    def replace_logits(self, num_classes: int) -> None:
        """A fresh head for another vocabulary; all else stays."""
        old = self.logits.conv3d.weight
        self.logits = Head(num_classes).to(device=old.device, dtype=old.dtype)

    def layer_groups(self) -> list[tuple[str, list[nn.Module]]]:
        """From the head down."""
        stages: list[tuple[str, list[nn.Module]]] = [(name, [stage]) for name, stage in self.stages()]
        return [("logits", [self.logits]), *reversed(stages)]


class Unit3d(nn.Module):
    """Convolution with SAME padding and no bias, BatchNorm, ReLU."""

    def __init__(self, num_inputs: int, num_outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(num_inputs, num_outputs, kernel, stride=stride, bias=False)
        self.bn = nn.BatchNorm3d(num_outputs, eps=BATCH_NORM_EPS, momentum=BATCH_NORM_MOMENTUM)
        nn.init.kaiming_normal_(self.conv3d.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.conv3d.kernel_size, self.conv3d.stride
        pads = [same_padding(n, k, s) for n, k, s in zip(x.shape[2:], kernel, stride, strict=True)]
        # The convolution pads by itself, without a copy; an adapter in its place (transfer.lora) is called as it is.
        if isinstance(self.conv3d, nn.Conv3d) and all(front == back for front, back in pads):
            x = F.conv3d(x, self.conv3d.weight, stride=stride, padding=[front for front, _ in pads])
        else:
            x = self.conv3d(F.pad(x, [p for pad in reversed(pads) for p in pad]))
        return F.relu(self.bn(x), inplace=True)


class Mixed(nn.Module):
    """Four branches side by side: 1x1x1; 1x1x1 and 3x3x3; the same, narrower; 3x3x3 maximum and 1x1x1."""

    def __init__(self, num_inputs: int, widths: tuple[int, int, int, int, int, int]) -> None:
        super().__init__()
        b0, b1a, b1b, b2a, b2b, b3b = widths
        self.b0 = Unit3d(num_inputs, b0, 1)
        self.b1a = Unit3d(num_inputs, b1a, 1)
        self.b1b = Unit3d(b1a, b1b, 3)
        self.b2a = Unit3d(num_inputs, b2a, 1)
        self.b2b = Unit3d(b2a, b2b, 3)
        self.b3b = Unit3d(num_inputs, b3b, 1)
        self.num_outputs = b0 + b1b + b2b + b3b

    def forward(self, x: Tensor) -> Tensor:
        pooled = max_pool_same(x, (3, 3, 3), (1, 1, 1))
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(pooled)], dim=1)


class Head(nn.Module):
    """Features (B, 1024, T) -> logits (B, V, T), under the key of the published 1x1x1 convolution."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"need at least one class: {num_classes=}")
        self.conv3d = nn.Conv3d(NUM_FEATURES, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3d(x[..., None, None]).flatten(2)


def _over_two_steps(x: Tensor) -> Tensor:
    """(B, C, T) -> the mean of each two steps."""
    return F.avg_pool1d(x, min(2, x.shape[2]), stride=1)


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros in front and behind, so that ceil(size / stride) windows fit; the odd one stands behind.

    >>> same_padding(16, kernel=7, stride=2), same_padding(15, kernel=7, stride=2)
    ((2, 3), (3, 3))
    """
    total = max(kernel - (size % stride or stride), 0)
    return total // 2, total - total // 2


def max_pool_same(x: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> Tensor:
    """Maximum with SAME padding of x (B, C, T, H, W), which may hold no negative numbers.

    Zeros around such an x change no maximum, so the padding need not be written: windows reach over the front by what
    `same_padding` says, and over the back as far as they do (`ceil_mode`).
    """
    front = [same_padding(n, k, s)[0] for n, k, s in zip(x.shape[2:], kernel, stride, strict=True)]
    return F.max_pool3d(x, kernel, stride, padding=front, ceil_mode=True)


def normalise_frames(frames: Tensor, colours: Colours = "rgb") -> Tensor:
    """RGB `uint8 (B, T, H, W, 3)` -> video (B, 3, T, H, W) in -1..1, its channels in the order `colours`."""
    if colours == "bgr":
        frames = frames.flip(-1)
    # One rounding only, as x / 255 * 2 - 1 has in the float64 of the original.
    return (2 * frames.permute(0, 4, 1, 2, 3).float() - 255) / 255


def wlasl_loss(step_logits: Tensor, labels: Tensor, num_frames: int) -> tuple[Tensor, Tensor]:
    """The losses WLASL trains with: (over all frames, of the maximum over time); their mean is minimised.

    Logits (B, V, T') are stretched linearly to `num_frames`, then compared with the one-hot labels (B,) by binary cross-entropy,
    averaged over everything.
    """
    frames = stretch(step_logits.float(), num_frames)
    targets = F.one_hot(labels, step_logits.shape[1]).to(frames.dtype)
    located = F.binary_cross_entropy_with_logits(frames, targets[:, :, None].expand_as(frames))
    return located, F.binary_cross_entropy_with_logits(frames.amax(2), targets)


def stretch(step_logits: Tensor, num_frames: int) -> Tensor:
    """Logits (B, V, T') -> (B, V, num_frames), linear between the middles of steps."""
    return F.interpolate(step_logits, size=num_frames, mode="linear", align_corners=False)
