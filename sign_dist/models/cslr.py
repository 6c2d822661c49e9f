"""The head of continuous recognition that the VAC family shares: K5 P2 K5 P2, a BiLSTM and a weight-normalised classifier.

Min et al. 2021 (VAC, arXiv 2104.02330) and Hao et al. 2021 (SMKD, the shared normalised classifier); SEN, CorrNet, CorrNet+ and
SlowFastSign put it behind other frame encoders: 512 features a frame of ResNet-18, 2,304 of SlowFast. Names of tensors are
theirs, so that the head of such a checkpoint loads by name.

Both convolutions are unpadded. `pad_clips` adds the frames that they use up, so that n frames give ceil(n / 4) steps.
"""

import dataclasses
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sign_dist.models.distillation import divergence
from sign_dist.models.temporal_i3d import run_packed

TIME_STRIDE = 4
FRONT_FRAMES = 6
"""Copies of the first frame: half of what the convolutions and pools use up, (5 - 1) * (1 + 2) = 12."""
ALIGNMENT_TEMPERATURE, ALIGNMENT_WEIGHT = 8.0, 25.0


@dataclasses.dataclass(frozen=True)
class CslrOutputs:
    """Logits of both classifiers (B, T', V), steps behind a clip's end included, and lengths (B,)."""

    conv_logits: Tensor
    logits: Tensor
    """Of the BiLSTM: what is decoded."""
    lengths: Tensor


class CslrHead(nn.Module):
    """Frame features (B, L, C) from `pad_clips`, and their lengths (B,) -> `CslrOutputs`; class 0 is the CTC blank.

    With a `front` it takes clips as they are, (B, T, ...) padded behind their lengths with anything: the front makes features of
    them (B, T, C), and `pad_batch` pads those.

    7.9 million parameters in the convolutions for C = 512 and hidden 1024, 12.6 in the BiLSTM, hidden * V in the classifier.
    """

    num_special = 1
    """Classes before those of the vocabulary: the blank."""

    def __init__(
        self,
        num_inputs: int,
        num_classes: int,
        *,
        hidden: int = 1024,
        lstm_layers: int = 2,
        dropout: float = 0.3,
        share_classifier: bool = True,
        front: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.front = front
        if hidden % 2 or num_classes < 2:
            raise ValueError(f"need an even hidden width and a class beside the blank: {hidden=} {num_classes=}")
        self.conv1d = TemporalConv(num_inputs, hidden)
        self.temporal_model = SequenceModel(hidden, lstm_layers, dropout if lstm_layers > 1 else 0.0)
        self.classifier = NormLinear(hidden, num_classes)
        self.conv_classifier = None if share_classifier else NormLinear(hidden, num_classes)

    def forward(self, features: Tensor, lengths: Tensor) -> CslrOutputs:
        if self.front is not None:
            features, lengths = pad_batch(self.front(features, lengths), lengths)
        lengths = num_steps(lengths)
        visual = self.conv1d(features)
        conv_logits = (self.conv_classifier or self.classifier)(visual)
        return CslrOutputs(conv_logits, self.classifier(self.temporal_model(visual, lengths)), lengths)

    def layer_groups(self) -> list[tuple[str, list[nn.Module]]]:
        """From the classifiers down."""
        heads: list[nn.Module] = [self.classifier, *([self.conv_classifier] if self.conv_classifier is not None else [])]
        return [("classifier", heads), ("temporal_model", [self.temporal_model]), ("conv1d", [self.conv1d])]


class TemporalConv(nn.Module):
    """Two times: convolution over 5 steps without padding, BatchNorm, ReLU, maximum of 2. (B, L, C) -> (B, T', hidden)."""

    def __init__(self, num_inputs: int, hidden: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for size in (num_inputs, hidden):
            layers += [nn.Conv1d(size, hidden, 5), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True), nn.MaxPool1d(2)]
        self.temporal_conv = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        if int(num_steps(torch.tensor(x.shape[1]))) < 1:
            raise ValueError(f"need 16 frames or more, got {x.shape[1]}: pad clips with pad_clips first")
        return self.temporal_conv(x.transpose(1, 2)).transpose(1, 2)


class SequenceModel(nn.Module):
    """A BiLSTM that starts and ends with each clip: (B, T', hidden) -> the same shape, zero behind a clip's end."""

    def __init__(self, hidden: int, num_layers: int, dropout: float) -> None:
        super().__init__()
        self.rnn = nn.LSTM(hidden, hidden // 2, num_layers, batch_first=True, bidirectional=True, dropout=dropout)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return run_packed(self.rnn, x, lengths)


class NormLinear(nn.Module):
    """Logits x @ W, each column of W (width, classes) brought to length 1; no bias."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, num_classes))
        nn.init.xavier_uniform_(self.weight, gain=nn.init.calculate_gain("relu"))

    def forward(self, x: Tensor) -> Tensor:
        return x @ F.normalize(self.weight, dim=0)


def num_steps(lengths: Tensor) -> Tensor:
    """Steps that padded lengths give: each round loses 4 frames and halves the rest."""
    for _ in range(2):
        lengths = torch.div(lengths - 4, 2, rounding_mode="floor")
    return lengths


def padded_length(num_frames: int) -> int:
    """Length of a clip with its padding, of which ceil(n / 4) steps remain.

    >>> padded_length(16), padded_length(17)
    (28, 32)
    """
    return -(-num_frames // TIME_STRIDE) * TIME_STRIDE + 2 * FRONT_FRAMES


def pad_clips(clips: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Clips (n, ...) -> (B, L, ...) and lengths (B,), as VAC pads frames.

    In front stand copies of the first frame, behind copies of the last one, up to the longest clip's padded length. Frames or
    their features may be padded: frame encoders see one frame at a time.

    Raises:
        ValueError: no clip, or one without frames.
    """
    if not clips or min(len(clip) for clip in clips) < 1:
        raise ValueError(f"need clips of one frame or more, got lengths {[len(clip) for clip in clips]}")
    lengths = [padded_length(len(clip)) for clip in clips]
    rows: list[Tensor] = []
    for clip in clips:
        at = torch.arange(max(lengths), device=clip.device) - FRONT_FRAMES
        rows.append(clip[at.clamp(0, len(clip) - 1)])
    return torch.stack(rows), torch.tensor(lengths, device=clips[0].device)


def pad_batch(features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """`pad_clips` for clips that lie in one tensor (B, T, C) already, whatever stands behind their `lengths` (B,)."""
    padded = torch.div(lengths + TIME_STRIDE - 1, TIME_STRIDE, rounding_mode="floor") * TIME_STRIDE + 2 * FRONT_FRAMES
    at = torch.arange(int(padded.max()), device=features.device) - FRONT_FRAMES
    at = torch.minimum(at.clamp(min=0), lengths[:, None] - 1)
    return features[torch.arange(len(features), device=features.device)[:, None], at], padded


def alignment_loss(outputs: CslrOutputs) -> Tensor:
    """VAC's visual alignment loss, one value per clip (B,) whose mean over the batch is VAC's.

    25 times the soft loss by which the convolutions' answer is drawn to the BiLSTM's: temperature 8, without the blank, over all
    steps, padding included. It is added to the CTC losses of both classifiers.
    """
    apart = divergence(outputs.conv_logits, outputs.logits, temperature=ALIGNMENT_TEMPERATURE, drop_blank=True)
    return ALIGNMENT_WEIGHT * apart.mean(1)
