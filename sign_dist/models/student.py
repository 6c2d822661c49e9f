"""A small CTC model that reads a live stream: every layer looks back only, so a gloss can be said while the signing goes on.

Our own design of known parts: depthwise-separable convolutions in time (Howard et al. 2017, arXiv 1704.04861) that see the past
only (as WaveNet's, arXiv 1609.03499), LayerNorm, which unlike BatchNorm knows no batch, and an LSTM in one direction. A step is
given for every fourth frame, at that frame, which makes ceil(T / 4) of them: as many as the teacher `temporal_i3d` gives.

Parameters with the default widths: 256 D + 256 V + 2.0 million. With 1,024 features and 1,296 classes 2.6 million, 10 MB in
float32; with the 6,516 landmark numbers of the seed documents and 2,001 classes 17 MB.
"""

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TIME_STRIDE = 4


@dataclasses.dataclass(frozen=True)
class StudentState:
    """What a stream left behind: the last inputs of every convolution (B, W, n), and the LSTM's two states (layers, B, W)."""

    convolutions: tuple[Tensor, ...]
    hidden: Tensor
    cell: Tensor


class CtcStudent(nn.Module):
    """Features (B, T, D) and lengths (B,) -> logits (B, T', V) and lengths (B,), T' = ceil(T / 4); class 0 is the CTC blank.

    For a stream: `state = model.start()`, then `logits, state = model.step(chunk, state)` with chunks (B, t, D) of any t, 0 too;
    the logits of all chunks together are those of the whole. At most one step is held back, so the delay is 3 frames.
    `front` makes the features of something else, such as landmarks; `step` takes what it gives. Another `time_stride`, 1 or 2,
    takes the place of 4 everywhere.
    """

    num_special = 1
    """Classes before those of the vocabulary: the blank."""

    def __init__(
        self,
        num_inputs: int,
        num_classes: int,
        *,
        width: int = 256,
        depth: int = 4,
        kernel: int = 5,
        lstm_layers: int = 2,
        dropout: float = 0.2,
        time_stride: int = TIME_STRIDE,
        front: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if num_classes < 2 or kernel < 2 or time_stride not in (1, 2, 4):
            raise ValueError(
                "need a class beside the blank, a kernel of 2 or more and a time stride of 1, 2 or 4: "
                f"{num_classes=} {kernel=} {time_stride=}"
            )
        self.num_inputs, self.time_stride, self.front = num_inputs, time_stride, front
        self.input = nn.Sequential(nn.Linear(num_inputs, width), nn.LayerNorm(width), nn.GELU(), nn.Dropout(dropout))
        halvings = time_stride.bit_length() - 1  # at the first blocks
        self.blocks = nn.ModuleList(CausalBlock(width, kernel, 2 if i < halvings else 1, dropout) for i in range(max(depth, 2)))
        self.norm = nn.LayerNorm(width)
        self.lstm = nn.LSTM(width, width, lstm_layers, batch_first=True, dropout=dropout if lstm_layers > 1 else 0.0)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(width, num_classes)

    def start(self, batch: int = 1) -> StudentState:
        """The state before the first frame."""
        weight = self.classifier.weight
        rest = weight.new_zeros(self.lstm.num_layers, batch, self.lstm.hidden_size)
        buffers = tuple(block.start(weight.new_zeros(batch, 1, self.lstm.hidden_size)) for block in self.blocks)  # type: ignore[operator]
        return StudentState(buffers, rest, rest)

    def step(self, chunk: Tensor, state: StudentState) -> tuple[Tensor, StudentState]:
        """The next frames (B, t, D) -> logits (B, t', V) of the steps that are due, t' about t / 4, and the state behind them.

        Raises:
            ValueError: the chunk has another number of features or of streams than the state.
        """
        if chunk.ndim != 3 or chunk.shape[2] != self.num_inputs or chunk.shape[0] != state.hidden.shape[1]:
            raise ValueError(f"need features ({state.hidden.shape[1]}, t, {self.num_inputs}), got {tuple(chunk.shape)}")
        x = self.input(chunk)
        buffers: list[Tensor] = []
        for block, buffer in zip(self.blocks, state.convolutions, strict=True):
            x, left = block(x, buffer)
            buffers.append(left)
        hidden, cell = state.hidden, state.cell
        if x.shape[1]:
            x, (hidden, cell) = self.lstm(self.norm(x), (hidden.to(x.dtype), cell.to(x.dtype)))
        return self.classifier(self.dropout(x)), StudentState(tuple(buffers), hidden, cell)

    def forward(self, features: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Nothing looks ahead, so what stands behind a clip's end changes none of its logits."""
        if lengths is None:
            lengths = torch.full((len(features),), features.shape[1], device=features.device)
        if self.front is not None:
            features = self.front(features, lengths)
        logits, _ = self.step(features, self.start(len(features)))
        return logits, torch.div(lengths + self.time_stride - 1, self.time_stride, rounding_mode="floor")

    def layer_groups(self) -> list[tuple[str, list[nn.Module]]]:
        """From the head down."""
        blocks: list[tuple[str, list[nn.Module]]] = [(f"block_{i}", [block]) for i, block in enumerate(self.blocks)]
        return [("classifier", [self.classifier]), ("lstm", [self.norm, self.lstm]), *reversed(blocks), ("input", [self.input])]


class CausalBlock(nn.Module):
    """Pre-norm depthwise convolution over the last `kernel` steps and a feed-forward layer, with a way around both.

    A step out stands for every `stride`-th step in, beginning with the first, and is given as soon as that one is there.
    """

    def __init__(self, width: int, kernel: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.norm = nn.LayerNorm(width)
        self.depthwise = nn.Conv1d(width, width, kernel, stride=stride, groups=width)
        self.expand = nn.Linear(width, 2 * width)
        self.project = nn.Linear(2 * width, width)
        self.dropout = nn.Dropout(dropout)

    def start(self, like: Tensor) -> Tensor:
        """Zeros for the steps before the first (B, kernel - 1, W), in the form that the buffer keeps."""
        return like.new_zeros(like.shape[0], self.kernel - 1, like.shape[2])

    def forward(self, x: Tensor, buffer: Tensor) -> tuple[Tensor, Tensor]:
        """Steps (B, t, W) behind those of the buffer (B, n, W) -> steps out, and the buffer for what follows.

        The buffer holds steps before the norm, since the way around takes them as they are.
        """
        x = torch.cat([buffer.to(x.dtype), x], dim=1)
        due = max((x.shape[1] - self.kernel) // self.stride + 1, 0)
        rest = x[:, due * self.stride :]
        if not due:
            return x[:, :0], rest
        x = x[:, : (due - 1) * self.stride + self.kernel]
        y = self.depthwise(self.norm(x).transpose(1, 2)).transpose(1, 2)
        y = self.dropout(self.project(F.gelu(self.expand(y))))
        return x[:, self.kernel - 1 :: self.stride] + y, rest
