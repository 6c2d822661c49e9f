"""The trunk that models over feature sequences share: convolutions in time, masked attention, one vector a clip."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def valid_steps(lengths: Tensor, num_steps: int) -> Tensor:
    """Boolean (B, T), true where a step belongs to the clip and not to the padding."""
    return torch.arange(num_steps, device=lengths.device)[None, :] < lengths[:, None]


class ConvBlock(nn.Module):
    """Residual depthwise-separable convolution in time (B, T, W) that never reads padding."""

    def __init__(self, width: int, kernel: int, dropout: float) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"need an odd kernel: {kernel=}")
        self.norm = nn.LayerNorm(width)
        self.depthwise = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.expand = nn.Linear(width, 2 * width)
        self.project = nn.Linear(2 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        y = self.norm(x) * valid[..., None]
        y = self.depthwise(y.transpose(1, 2)).transpose(1, 2)
        return x + self.dropout(self.project(F.gelu(self.expand(y))))


class AttentionBlock(nn.Module):
    """Pre-norm self-attention and feed-forward; without positions, since the convolutions before it know the order."""

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        if width % num_heads:
            raise ValueError(f"need a width that num_heads divides: {width=} {num_heads=}")
        self.num_heads = num_heads
        self.norm_attention = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm_feed = nn.LayerNorm(width)
        self.feed = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(2 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        batch, steps, width = x.shape
        qkv = self.qkv(self.norm_attention(x)).view(batch, steps, 3, self.num_heads, width // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=valid[:, None, None, :])
        x = x + self.dropout(self.out(y.transpose(1, 2).reshape(batch, steps, width)))
        return x + self.dropout(self.feed(self.norm_feed(x)))


class AttentionPool(nn.Module):
    """(B, T, W) -> (B, W): a learned weighting of the valid steps."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.score = nn.Linear(width, 1)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        x = self.norm(x)
        weight = self.score(x).squeeze(-1).masked_fill(~valid, float("-inf")).softmax(dim=-1)
        return (weight[..., None] * x).sum(dim=1)


class TemporalTrunk(nn.Module):
    """(B, T, D) and lengths (B,) -> (B, T', W) and lengths (B,); every `stride` steps become one.

    Padding is never read: a clip gives the same vectors alone and in a batch of longer ones.
    """

    def __init__(
        self,
        num_inputs: int,
        *,
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
        if stride < 1:
            raise ValueError(f"need stride >= 1: {stride=}")
        self.width = width
        self.stride = stride
        self.input = nn.Sequential(nn.Linear(num_inputs, width), nn.LayerNorm(width), nn.GELU(), nn.Dropout(input_dropout))
        self.convolutions = nn.ModuleList(ConvBlock(width, kernel, dropout) for _ in range(depth))
        self.attentions = nn.ModuleList(AttentionBlock(width, num_heads, dropout) for _ in range(num_attention))

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        valid = valid_steps(lengths, x.shape[1])
        x = self.input(x)
        for block in self.convolutions:
            x = block(x, valid)
        x, lengths = mean_over_stride(x, lengths, self.stride)
        valid = valid_steps(lengths, x.shape[1])
        for block in self.attentions:
            x = block(x, valid)
        return x * valid[..., None], lengths

    def layer_groups(self) -> list[tuple[str, list[nn.Module]]]:
        """From the output down to the input: what progressive unfreezing trains first to last."""
        groups: list[tuple[str, list[nn.Module]]] = []
        if len(self.attentions):
            groups.append(("attention", list(self.attentions)))
        groups += [(f"convolution_{i}", [self.convolutions[i]]) for i in reversed(range(len(self.convolutions)))]
        return [*groups, ("input", [self.input])]


def mean_over_stride(x: Tensor, lengths: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Means of `stride` steps each; the last mean of a clip is over the steps it has left."""
    if stride == 1:
        return x, lengths
    valid = valid_steps(lengths, x.shape[1])[..., None].to(x.dtype)
    pad = -x.shape[1] % stride
    x, valid = F.pad(x * valid, (0, 0, 0, pad)), F.pad(valid, (0, 0, 0, pad))
    batch, steps, width = x.shape
    total = x.view(batch, steps // stride, stride, width).sum(2)
    count = valid.view(batch, steps // stride, stride, 1).sum(2)
    return total / count.clamp(min=1.0), torch.div(lengths + stride - 1, stride, rounding_mode="floor")
