"""Hiera's trunk (Ryali et al. 2023, arXiv 2306.00989) for video: patch embedding, position embeddings, blocks.

Tokens are kept by mask unit, (B, N, S, S, C): N units, each a square of S x S tokens of one time step, S halved by every
pooling. Attention inside a unit then needs no rearranging, attention over all tokens does not care about their order, and
a masked autoencoder simply has fewer units.
"""

import dataclasses
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sign_dist.models.recompute import recomputed

LAYER_NORM_EPS = 1e-6
PATCH_STRIDE_PX = 4
FRAMES_PER_TOKEN = 2
# Attention kernels of CUDA put sequences into a grid dimension that ends at 2 ** 16 - 1; mask units can be more than that.
MAX_SEQUENCES = 2**16 - 1


@dataclasses.dataclass(frozen=True)
class HieraShape:
    """Sizes of a Hiera. `mask_unit_attn` says per stage whether attention stays inside mask units."""

    num_frames: int
    height_px: int
    width_px: int
    embed_dim: int = 96
    num_heads: int = 1
    stages: tuple[int, ...] = (2, 3, 16, 3)
    mask_unit_attn: tuple[bool, ...] = (True, True, False, False)
    mask_unit_size: int = 8
    """Side of a mask unit in tokens of the first stage."""
    mlp_ratio: float = 4.0
    q_pool: int = 3
    """How many of the steps from one stage to the next halve the grid."""

    def __post_init__(self) -> None:
        unit_px = self.mask_unit_size * PATCH_STRIDE_PX
        if self.num_frames < 1 or self.height_px % unit_px or self.width_px % unit_px or self.mask_unit_size % 2**self.q_pool:
            raise ValueError(
                f"need num_frames >= 1, sides that are multiples of {unit_px} px and a mask unit that halves q_pool times: {self}"
            )
        if not len(self.stages) == len(self.mask_unit_attn) > self.q_pool:
            raise ValueError(f"need one mask_unit_attn per stage, and more stages than q_pool: {self}")

    @property
    def dim(self) -> int:
        """Width of the last stage, and so of the features."""
        return self.embed_dim * 2 ** (len(self.stages) - 1)

    @property
    def time_steps(self) -> int:
        """Tokens in time of a clip of the full length; the convolution over time gives an odd frame at the end one of its own."""
        return -(-self.num_frames // FRAMES_PER_TOKEN)

    @property
    def grid(self) -> tuple[int, int]:
        """Tokens of the first stage, high and wide."""
        return self.height_px // PATCH_STRIDE_PX, self.width_px // PATCH_STRIDE_PX

    @property
    def units(self) -> tuple[int, int]:
        """Mask units of a time step, high and wide."""
        return self.grid[0] // self.mask_unit_size, self.grid[1] // self.mask_unit_size

    @property
    def final_unit(self) -> int:
        """Side of a mask unit in tokens of the last stage."""
        return self.mask_unit_size // 2**self.q_pool


class HieraTrunk(nn.Module):
    """Video (B, 3, T, H, W), normalised -> the output of every stage.

    `drop_path` is the chance that a block is left out for a clip, rising from 0 to this (Huang et al. 2016).
    `recompute` saves memory in training: inner values of blocks are computed again in the backward pass.
    """

    def __init__(self, shape: HieraShape, *, drop_path: float = 0.0, recompute: bool = False) -> None:
        super().__init__()
        self.shape, self.recompute = shape, recompute
        height, width = shape.grid
        dim, heads = shape.embed_dim, shape.num_heads
        self.patch_embed = PatchEmbed(dim)
        self.pos_embed_spatial = nn.Parameter(torch.zeros(1, height * width, dim))
        self.pos_embed_temporal = nn.Parameter(torch.zeros(1, shape.time_steps, dim))
        blocks: list[Block] = []
        depth = sum(shape.stages)
        for stage, num_blocks in enumerate(shape.stages):
            for i in range(num_blocks):
                first = stage > 0 and i == 0
                dim_out, heads = (dim * 2, heads * 2) if first else (dim, heads)
                blocks.append(
                    Block(
                        dim,
                        dim_out,
                        heads,
                        shape.mlp_ratio,
                        # The first block of a stage still sees what the stage before it saw.
                        local=shape.mask_unit_attn[stage - first],
                        pool=first and stage <= shape.q_pool,
                        drop_path=drop_path * len(blocks) / max(depth - 1, 1),
                    )
                )
                dim = dim_out
        self.blocks = nn.ModuleList(blocks)
        for parameter in (self.pos_embed_spatial, self.pos_embed_temporal):
            nn.init.trunc_normal_(parameter, std=0.02)

    def embed(self, video: Tensor) -> Tensor:
        """Patches and their places: (B, 3, T, H, W) -> (B, N, S, S, C), units in the order of time, height, width.

        Raises:
            ValueError: a clip of another size, or longer than the model.
        """
        shape = self.shape
        size = (shape.height_px, shape.width_px)
        if video.dim() != 5 or video.shape[1] != 3 or video.shape[3:] != size or not 1 <= video.shape[2] <= shape.num_frames:
            raise ValueError(f"need video (B, 3, 1 <= T <= {shape.num_frames}, {size[0]}, {size[1]}), got {tuple(video.shape)}")
        x = self.patch_embed(video)
        x = x + self.pos_embed_temporal[0, : x.shape[1], None, None] + self.pos_embed_spatial[0].view(*shape.grid, -1)
        return to_units(x, shape.mask_unit_size)

    def run(self, units: Tensor, attend: Tensor | None = None, *, first: int = 0) -> Iterator[Tensor]:
        """Output of each stage, by mask unit. `attend` (B, N): units that may be looked at; without it, all of them.

        With `first`, `units` are what the blocks before that one gave.
        """
        ends = {sum(self.shape.stages[: i + 1]) - 1 for i in range(len(self.shape.stages))}
        again = self.recompute and self.training and torch.is_grad_enabled()
        for i, block in list(enumerate(self.blocks))[first:]:
            inputs = (units,) if attend is None else (units, attend)
            units = recomputed(block, *inputs) if again else block(*inputs)
            if i in ends:
                yield units

    def last(self, video: Tensor) -> Tensor:
        """Output of the last stage, by time step: (B, T/2, tokens of a step, D)."""
        *_, units = self.run(self.embed(video))
        return self.by_step(units)

    def by_step(self, units: Tensor) -> Tensor:
        """Units of the last stage -> (B, T/2, tokens of a step, D)."""
        return units.reshape(units.shape[0], -1, self._tokens_per_step, units.shape[-1])

    def stages(self, video: Tensor) -> list[Tensor]:
        """Output of each stage as a grid, (B, T/2, H, W, C)."""
        return [to_grid(units, self.shape.units) for units in self.run(self.embed(video))]

    @property
    def _tokens_per_step(self) -> int:
        return self.shape.units[0] * self.shape.units[1] * self.shape.final_unit**2


class PatchEmbed(nn.Module):
    """Video (B, 3, T, H, W) -> tokens (B, T/2, H/4, W/4, C)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv3d(
            3, dim, kernel_size=(3, 7, 7), stride=(FRAMES_PER_TOKEN, PATCH_STRIDE_PX, PATCH_STRIDE_PX), padding=(1, 3, 3)
        )

    def forward(self, video: Tensor) -> Tensor:
        return self.proj(video).permute(0, 2, 3, 4, 1)


class Block(nn.Module):
    """Pre-norm attention and MLP on (B, N, S, S, C); with `pool` units are halved; where the width changes, it doubles."""

    def __init__(
        self, dim: int, dim_out: int, heads: int, mlp_ratio: float, *, local: bool, pool: bool, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        self.pool, self.drop_path = pool, drop_path
        self.norm1 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.attn = Attention(dim, dim_out, heads, local=local, pool=pool)
        self.norm2 = nn.LayerNorm(dim_out, eps=LAYER_NORM_EPS)
        self.mlp = Mlp(dim_out, int(dim_out * mlp_ratio))
        self.proj = nn.Linear(dim, dim_out) if dim != dim_out else None

    def forward(self, x: Tensor, attend: Tensor | None = None) -> Tensor:
        normed = self.norm1(x)
        if self.proj is not None:
            # The residual is the projection of the normalised input, pooled like the query.
            x = self.proj(normed)
            x = pool_units(x) if self.pool else x
        x = x + self._dropped(self.attn(normed, attend))
        return x + self._dropped(self.mlp(self.norm2(x)))

    def _dropped(self, x: Tensor) -> Tensor:
        if not (self.training and self.drop_path):
            return x
        keep = torch.rand(x.shape[0], *[1] * (x.dim() - 1), device=x.device) >= self.drop_path
        return x * keep / (1 - self.drop_path)


class Attention(nn.Module):
    """Multi-head attention inside each mask unit (`local`), or over all tokens of a clip."""

    def __init__(self, dim: int, dim_out: int, heads: int, *, local: bool, pool: bool) -> None:
        super().__init__()
        self.heads, self.local, self.pool = heads, local, pool
        self.qkv = nn.Linear(dim, 3 * dim_out)
        self.proj = nn.Linear(dim_out, dim_out)

    def forward(self, x: Tensor, attend: Tensor | None = None) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        if self.pool:
            q = pool_units(q)
        out = q.shape
        mask = None
        if attend is not None and not self.local:
            mask = attend.repeat_interleave(x.shape[2] * x.shape[3], dim=1)[:, None, None]
        y = attention(self._sequences(q), self._sequences(k), self._sequences(v), mask)
        return self.proj(y.transpose(1, 2).reshape(out))

    def _sequences(self, x: Tensor) -> Tensor:
        """(B, N, S, S, C) -> (sequences, heads, tokens, C / heads): a sequence is a mask unit, or the whole clip."""
        x = x.flatten(0, 1).flatten(1, 2) if self.local else x.flatten(1, 3)
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Mlp(nn.Module):
    """Two linear layers with the exact GELU between them."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention of (sequences, heads, tokens, width), in parts where there are very many sequences."""
    if len(q) <= MAX_SEQUENCES:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    masks = [None] * (-(-len(q) // MAX_SEQUENCES)) if mask is None else mask.split(MAX_SEQUENCES)
    parts = zip(q.split(MAX_SEQUENCES), k.split(MAX_SEQUENCES), v.split(MAX_SEQUENCES), masks, strict=True)
    return torch.cat([F.scaled_dot_product_attention(a, b, c, attn_mask=m) for a, b, c, m in parts])


def pool_units(x: Tensor) -> Tensor:
    """Maximum over squares of 2x2 tokens: (B, N, S, S, C) -> (B, N, S/2, S/2, C)."""
    rows = torch.maximum(x[:, :, 0::2], x[:, :, 1::2])
    return torch.maximum(rows[:, :, :, 0::2], rows[:, :, :, 1::2])


def to_units(grid: Tensor, size: int) -> Tensor:
    """(B, T, H, W, C) -> (B, N, size, size, C), units in the order of time, height, width."""
    batch, time, height, width, dim = grid.shape
    x = grid.reshape(batch, time, height // size, size, width // size, size, dim).transpose(3, 4)
    return x.reshape(batch, -1, size, size, dim)


def to_grid(units: Tensor, high_wide: tuple[int, int]) -> Tensor:
    """Back from `to_units`; `high_wide` counts the units of a time step."""
    batch, _, size, _, dim = units.shape
    high, wide = high_wide
    x = units.reshape(batch, -1, high, wide, size, size, dim).transpose(3, 4)
    return x.reshape(batch, -1, high * size, wide * size, dim)


def init_weights(module: nn.Module) -> None:
    """Linear layers and convolutions as Hiera begins: truncated normal, no bias."""
    if isinstance(module, nn.Linear | nn.Conv3d):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
