"""SignHiera: the hierarchical video transformer Hiera (Ryali et al. 2023, arXiv 2306.00989) as used for sign language
(Rust et al. 2024, arXiv 2402.09611). Keys and numbers are those of the published encoder.

Written with tokens kept as a grid (B, T, H, W, C): a mask unit is then a square of the grid, and pooling the query is a
2x2 maximum. A clip shorter than the model's length is run as it is, with the temporal embedding sliced: this equals
padding it and masking the padding, and keeps the fast attention kernels usable.
"""

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LAYER_NORM_EPS = 1e-6
# Mean and standard deviation of every colour channel that the published weights expect.
PIXEL_MEAN, PIXEL_STD = 0.45, 0.225


@dataclasses.dataclass(frozen=True)
class HieraShape:
    """Sizes of a SignHiera. `mask_unit_attn` says per stage whether attention stays inside mask units."""

    num_frames: int
    height_px: int
    width_px: int
    embed_dim: int = 96
    num_heads: int = 1
    stages: tuple[int, ...] = (2, 3, 16, 3)
    mask_unit_attn: tuple[bool, ...] = (True, True, False, False)
    mask_unit_px: int = 8
    """Side of a mask unit in tokens of the first stage."""
    mlp_ratio: float = 4.0

    @property
    def dim(self) -> int:
        """Width of the last stage, and so of the features."""
        return self.embed_dim * 2 ** (len(self.stages) - 1)

    @property
    def grid(self) -> tuple[int, int]:
        """Tokens of the first stage, high and wide."""
        return self.height_px // 4, self.width_px // 4


PRESETS: dict[str, HieraShape] = {
    "base_128x224": HieraShape(128, 224, 224),
    "base_16x224": HieraShape(16, 224, 224),
    # Ours: small enough for a laptop's CPU, same structure.
    "tiny": HieraShape(16, 64, 64, embed_dim=32, stages=(1, 1, 2, 1)),
}


class SignHiera(nn.Module):
    """Video (B, 3, T, H, W), normalised -> features (B, T/2, D), or logits when it has a head."""

    def __init__(self, shape: HieraShape, num_classes: int = 0, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.shape = shape
        height, width = shape.grid
        dim, heads = shape.embed_dim, shape.num_heads
        self.patch_embed = PatchEmbed(dim)
        self.pos_embed_spatial = nn.Parameter(torch.zeros(1, height * width, dim))
        self.pos_embed_temporal = nn.Parameter(torch.zeros(1, shape.num_frames // 2, dim))
        blocks: list[Block] = []
        unit = shape.mask_unit_px
        for stage, depth in enumerate(shape.stages):
            for i in range(depth):
                first = stage > 0 and i == 0
                # The first block of a stage still sees what the stage before it saw.
                local = shape.mask_unit_attn[stage - first]
                dim_out, heads = (dim * 2, heads * 2) if first else (dim, heads)
                blocks.append(Block(dim, dim_out, heads, shape.mlp_ratio, unit=unit if local else 0, pool=first))
                dim = dim_out
                unit = unit // 2 if first else unit
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.head = Head(dim, num_classes, dropout) if num_classes else None
        for parameter in (self.pos_embed_spatial, self.pos_embed_temporal):
            nn.init.trunc_normal_(parameter, std=0.02)
        self.apply(_init)

    def stages(self, video: Tensor) -> list[Tensor]:
        """Output of each stage, (B, T/2, H, W, C)."""
        x = self.patch_embed(video)
        if x.shape[2:4] != self.shape.grid or x.shape[1] > self.pos_embed_temporal.shape[1]:
            raise ValueError(
                f"need video (B, 3, T <= {self.shape.num_frames}, {self.shape.height_px}, {self.shape.width_px}), "
                f"got {tuple(video.shape)}"
            )
        x = x + self.pos_embed_temporal[0, : x.shape[1], None, None] + self.pos_embed_spatial[0].view(*self.shape.grid, -1)
        outputs: list[Tensor] = []
        ends = [sum(self.shape.stages[: i + 1]) - 1 for i in range(len(self.shape.stages))]
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in ends:
                outputs.append(x)
        return outputs

    def features(self, video: Tensor) -> Tensor:
        """The last stage before the final norm, mean over space: (B, ceil(T/2), D)."""
        return self.stages(video)[-1].mean(dim=(2, 3))

    def forward(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Frames `uint8 (B, T, H, W, 3)`, or normalised video (B, 3, T, H, W), -> logits (B, V).

        `lengths` is ignored where all clips of a batch have the model's own length.
        """
        if self.head is None:
            raise ValueError("this SignHiera was built without classes: it has features, but no logits")
        video = normalise_frames(features) if features.dtype == torch.uint8 else features
        return self.head(self.norm(self.stages(video)[-1].mean(dim=(1, 2, 3))))

    def layer_groups(self) -> list[tuple[str, list[nn.Module | nn.Parameter]]]:
        """From the head down: norm and head, then blocks from last to first, then patch and position embeddings."""
        head: list[nn.Module | nn.Parameter] = [self.norm, *([self.head] if self.head is not None else [])]
        blocks: list[tuple[str, list[nn.Module | nn.Parameter]]] = [(f"block {i}", [b]) for i, b in enumerate(self.blocks)]
        embeddings: list[nn.Module | nn.Parameter] = [self.patch_embed, self.pos_embed_spatial, self.pos_embed_temporal]
        return [("head", head), *reversed(blocks), ("patch embedding", embeddings)]


class PatchEmbed(nn.Module):
    """Video (B, 3, T, H, W) -> tokens (B, T/2, H/4, W/4, C)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv3d(3, dim, kernel_size=(3, 7, 7), stride=(2, 4, 4), padding=(1, 3, 3))

    def forward(self, video: Tensor) -> Tensor:
        return self.proj(video).permute(0, 2, 3, 4, 1)


class Block(nn.Module):
    """Pre-norm attention and MLP; with `pool` the grid is halved and the width doubled."""

    def __init__(self, dim: int, dim_out: int, heads: int, mlp_ratio: float, *, unit: int, pool: bool) -> None:
        super().__init__()
        self.pool = pool
        self.norm1 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.attn = Attention(dim, dim_out, heads, unit=unit, pool=pool)
        self.norm2 = nn.LayerNorm(dim_out, eps=LAYER_NORM_EPS)
        self.mlp = Mlp(dim_out, int(dim_out * mlp_ratio))
        if dim != dim_out:
            self.proj = nn.Linear(dim, dim_out)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm1(x)
        if self.pool:
            # The residual is the projection of the normalised input, pooled like the query.
            x = pool_grid(self.proj(normed))
        x = x + self.attn(normed)
        return x + self.mlp(self.norm2(x))


class Attention(nn.Module):
    """Multi-head attention over the whole grid, or inside squares of `unit` tokens a side in each time step."""

    def __init__(self, dim: int, dim_out: int, heads: int, *, unit: int, pool: bool) -> None:
        super().__init__()
        self.heads, self.unit, self.pool = heads, unit, pool
        self.qkv = nn.Linear(dim, 3 * dim_out)
        self.proj = nn.Linear(dim_out, dim_out)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        if self.pool:
            q = pool_grid(q)
        batch, time, height, width, dim = q.shape
        unit = self.unit // 2 if self.pool else self.unit
        q, k, v = self._sequences(q, unit), self._sequences(k, self.unit), self._sequences(v, self.unit)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        if unit:
            y = y.view(batch, time, height // unit, width // unit, unit, unit, dim).transpose(3, 4)
        return self.proj(y.reshape(batch, time, height, width, dim))

    def _sequences(self, x: Tensor, unit: int) -> Tensor:
        """(B, T, H, W, C) -> (sequences, heads, tokens, C / heads): a sequence is a mask unit, or the whole clip."""
        batch, time, height, width, dim = x.shape
        if unit:
            x = x.view(batch, time, height // unit, unit, width // unit, unit, dim).transpose(3, 4)
            x = x.reshape(batch * time * (height // unit) * (width // unit), unit * unit, self.heads, dim // self.heads)
        else:
            x = x.reshape(batch, time * height * width, self.heads, dim // self.heads)
        return x.transpose(1, 2)


class Mlp(nn.Module):
    """Two linear layers with the exact GELU between them."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Head(nn.Module):
    """Dropout and a linear layer, under the key that published classifiers use."""

    def __init__(self, dim: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.projection = nn.Linear(dim, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.projection(self.dropout(x))


def pool_grid(x: Tensor) -> Tensor:
    """Maximum over squares of 2x2 tokens: (B, T, H, W, C) -> (B, T, H/2, W/2, C)."""
    batch, time, height, width, dim = x.shape
    return x.view(batch, time, height // 2, 2, width // 2, 2, dim).amax(dim=(3, 5))


def normalise_frames(frames: Tensor) -> Tensor:
    """`uint8 (B, T, H, W, 3)` -> float (B, 3, T, H, W) as SignHiera expects it."""
    return (frames.permute(0, 4, 1, 2, 3).float() / 255 - PIXEL_MEAN) / PIXEL_STD


def _init(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Conv3d):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
