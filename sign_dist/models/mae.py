"""Masked autoencoding of video (Feichtenhofer et al. 2022, arXiv 2205.09113) with SignHiera, to pretrain on videos without labels.

Most mask units (32 x 32 px of two frames) are hidden, the encoder sees the others, a small decoder fills in the pixels.
Names are those of published checkpoints: they can be trained further here, and what is trained here loads as `SignHiera`.
"""

import dataclasses
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sign_dist.models.hiera import (
    FRAMES_PER_TOKEN,
    LAYER_NORM_EPS,
    PATCH_STRIDE_PX,
    Block,
    HieraShape,
    HieraTrunk,
    init_weights,
    to_grid,
)
from sign_dist.models.recompute import recomputed
from sign_dist.models.signhiera import normalise_frames

# Keeps the variance of a patch of one colour away from zero.
PIXEL_EPS = 1e-6
MASK_RATIO = 0.9


@dataclasses.dataclass(frozen=True)
class Reconstruction:
    """What one forward pass gives. P: tokens of the last stage, in the order of time, height, width."""

    loss: Tensor
    """Mean squared error over the pixels of tokens that were hidden and are no padding."""
    latent: Tensor
    """Visible units after fusion and norm, (B, N visible, S, S, D)."""
    pred: Tensor
    """Pixels of every token, (B, P, side * side * 3), normalised per patch."""
    labels: Tensor
    """What was hidden, (tokens in the loss, side * side * 3)."""
    visible: Tensor
    """(B, P) bool."""
    counted: Tensor
    """(B, P) bool: the tokens in the loss."""


class MaskedAutoencoder(HieraTrunk):
    """Video -> loss of filling in what was hidden."""

    def __init__(
        self,
        shape: HieraShape,
        *,
        decoder_dim: int = 512,
        decoder_depth: int = 8,
        decoder_heads: int = 8,
        drop_path: float = 0.0,
        recompute: bool = False,
    ) -> None:
        super().__init__(shape, drop_path=drop_path, recompute=recompute)
        self.encoder_norm = nn.LayerNorm(shape.dim, eps=LAYER_NORM_EPS)
        # Each stage before the last pooling is brought to the last one's grid by a convolution over its part of a unit.
        kernels = [2 ** (shape.q_pool - stage) for stage in range(shape.q_pool)]
        self.multi_scale_fusion_heads = nn.ModuleList(
            [
                nn.Conv3d(shape.embed_dim * 2**stage, shape.dim, kernel_size=(1, k, k), stride=(1, k, k))
                for stage, k in enumerate(kernels)
            ]
        )
        num_tokens = shape.time_steps * self._tokens_per_step
        self.decoder_embed = nn.Linear(shape.dim, decoder_dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_dim))
        self.decoder_pos_embed = nn.Parameter(torch.zeros(1, num_tokens, decoder_dim))
        self.decoder_blocks = nn.ModuleList(
            [Block(decoder_dim, decoder_dim, decoder_heads, shape.mlp_ratio, local=False, pool=False) for _ in range(decoder_depth)]
        )
        self.decoder_norm = nn.LayerNorm(decoder_dim, eps=LAYER_NORM_EPS)
        self.patch_px = PATCH_STRIDE_PX * 2**shape.q_pool
        self.decoder_pred = nn.Linear(decoder_dim, self.patch_px**2 * 3)
        for parameter in (self.mask_token, self.decoder_pos_embed):
            nn.init.trunc_normal_(parameter, std=0.02)
        self.apply(init_weights)

    def forward(
        self,
        video: Tensor,
        *,
        visible: Tensor | None = None,
        padding: Sequence[int] | None = None,
        mask_ratio: float = MASK_RATIO,
        generator: torch.Generator | None = None,
    ) -> Reconstruction:
        """Frames `uint8 (B, T, H, W, 3)`, or normalised video (B, 3, T, H, W), whose last `padding` frames are none.

        `visible` (B, N) bool says which mask units the encoder sees, equally many of each clip; else they are drawn.

        Raises:
            ValueError: masks or paddings of another size, or nothing left to predict.
        """
        video = normalise_frames(video) if video.dtype == torch.uint8 else video
        real = self.real_units(video, [0] * len(video) if padding is None else padding)
        if visible is None:
            visible = draw_visible(real, self._units_per_step, mask_ratio, generator)
        if visible.shape != real.shape or len(set(visible.sum(dim=1).tolist())) != 1 or not visible.any():
            raise ValueError(f"need visible {tuple(real.shape)} with equally many units of each clip, got {tuple(visible.shape)}")
        visible = visible.to(video.device)
        latent = self.encode(video, visible, real)
        pred = self.decode(latent, visible, real)
        seen, counted = self._tokens(visible), self._tokens(~visible & real)
        if not counted.any():
            raise ValueError("nothing is both hidden and no padding, so there is nothing to predict: lower mask_ratio")
        labels = self.patches(video)[counted]
        labels = (labels - labels.mean(-1, keepdim=True)) / (labels.var(-1, keepdim=True) + PIXEL_EPS).sqrt()
        loss = F.mse_loss(pred[counted].float(), labels)
        return Reconstruction(loss, latent, pred, labels, seen, counted)

    def encode(self, video: Tensor, visible: Tensor, real: Tensor) -> Tensor:
        """Visible units -> (B, N visible, S, S, D): all stages, fused and normed."""
        # Hidden pixels must not leak through the patch embedding, whose kernels overlap.
        units = self.embed(video * self._pixels(visible & real, video))
        units = units[visible].unflatten(0, (len(video), -1))
        attend = real[visible].unflatten(0, (len(video), -1))
        stages = list(self.run(units, None if bool(attend.all()) else attend))
        fused = stages[-1]
        for head, stage in zip(self.multi_scale_fusion_heads, stages, strict=False):
            x = head(stage.flatten(0, 1).permute(0, 3, 1, 2)[:, :, None])[:, :, 0]
            fused = fused + x.permute(0, 2, 3, 1).unflatten(0, stage.shape[:2])
        return self.encoder_norm(fused)

    def decode(self, latent: Tensor, visible: Tensor, real: Tensor) -> Tensor:
        """Latent units, in their places among mask tokens -> pixels (B, P, side * side * 3)."""
        x = self.decoder_embed(latent)
        side, dim = x.shape[2], x.shape[-1]
        units = self.mask_token.to(x.dtype).expand(len(x), visible.shape[1] * side**2, dim).reshape(*visible.shape, side, side, dim)
        units = units.masked_scatter(visible[:, :, None, None, None], x)
        tokens = to_grid(units, self.shape.units).flatten(1, 3)
        tokens = (tokens + self.decoder_pos_embed[:, : tokens.shape[1]])[:, :, None, None]
        attend = self._tokens(real)
        inputs = () if bool(attend.all()) else (attend,)
        for block in self.decoder_blocks:
            again = self.recompute and self.training and torch.is_grad_enabled()
            tokens = recomputed(block, tokens, *inputs) if again else block(tokens, *inputs)
        return self.decoder_pred(self.decoder_norm(tokens[:, :, 0, 0]))

    def patches(self, video: Tensor) -> Tensor:
        """Pixels of the first of the two frames of each token: (B, P, side * side * 3), colours last."""
        side = self.patch_px
        x = video[:, :, ::FRAMES_PER_TOKEN].float().unfold(3, side, side).unfold(4, side, side)
        return x.permute(0, 2, 3, 4, 5, 6, 1).flatten(1, 3).flatten(2)

    def real_units(self, video: Tensor, padding: Sequence[int]) -> Tensor:
        """(B, N) bool: units with a frame that is no padding... whole tokens of padding are none."""
        steps = -(-video.shape[2] // FRAMES_PER_TOKEN)
        if len(padding) != len(video) or not all(0 <= p < video.shape[2] for p in padding):
            raise ValueError(f"need {len(video)} paddings from 0 to {video.shape[2] - 1} frames, got {list(padding)}")
        ends = torch.tensor([steps - p // FRAMES_PER_TOKEN for p in padding], device=video.device)
        real = torch.arange(steps, device=video.device) < ends[:, None]
        return real.repeat_interleave(self._units_per_step, dim=1)

    @property
    def _units_per_step(self) -> int:
        return self.shape.units[0] * self.shape.units[1]

    def _tokens(self, units: Tensor) -> Tensor:
        """(B, N) bool of units -> (B, P) of tokens of the last stage."""
        side = self.shape.final_unit
        return to_grid(units[:, :, None, None, None].expand(-1, -1, side, side, 1), self.shape.units).flatten(1)

    def _pixels(self, units: Tensor, video: Tensor) -> Tensor:
        """(B, N) bool of units -> (B, 1, T, H, W) in the video's type."""
        unit_px = self.shape.mask_unit_size * PATCH_STRIDE_PX
        x = units.unflatten(1, (-1, *self.shape.units))[:, None].to(video.dtype)
        x = x.repeat_interleave(FRAMES_PER_TOKEN, 2)[:, :, : video.shape[2]]
        return x.repeat_interleave(unit_px, 3).repeat_interleave(unit_px, 4)


def draw_visible(
    real: Tensor, units_per_step: int, mask_ratio: float = MASK_RATIO, generator: torch.Generator | None = None
) -> Tensor:
    """Which units stay visible, (B, N) bool, equally many of each clip; padding only where nothing else is left.

    One unit of the first time step is always visible, and one unit that is no padding always hidden: no clip is empty on
    either side.

    Raises:
        ValueError: mask_ratio hides nothing or everything, or a clip has a single unit.
    """
    num_units = real.shape[1]
    keep = int(num_units * (1 - mask_ratio))
    if not 1 <= keep < num_units or int(real.sum(dim=1).min()) < 2:
        raise ValueError(
            f"need a mask_ratio that hides some of {num_units} units, and two units that are no padding: {mask_ratio=}"
        )
    device = generator.device if generator else real.device
    order = torch.rand(real.shape, generator=generator, device=device).to(real.device) + 2.0 * ~real
    first = torch.rand(len(real), units_per_step, generator=generator, device=device).to(real.device).argmax(dim=1)
    rows = torch.arange(len(real), device=real.device)
    order[rows, first] = -1.0
    # The last of the real units in the order drawn.
    order[rows, order.masked_fill(~real, -2.0).argmax(dim=1)] = 4.0
    visible = torch.zeros_like(real)
    return visible.scatter_(1, order.argsort(dim=1)[:, :keep], value=True)
