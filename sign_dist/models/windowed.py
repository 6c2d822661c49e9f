"""SignHiera in front of a model over sequences: whole clips of frames -> the vectors that extraction makes of them.

Windows, their overlap and their order are those of `features.signhiera`, so that a model trained behind this one reads features
extracted with its weights.
"""

import math
from collections import defaultdict

import torch
from torch import Tensor, nn

from sign_dist.models.signhiera import SignHiera, normalise_frames
from sign_dist.video.windows import Window, signhiera_windows

Parts = list[nn.Module | nn.Parameter]


class WindowedSignHiera(nn.Module):
    """Frames `uint8 (B, T, H, W, 3)` and lengths (B,) -> vectors (B, T', D) and lengths (B,).

    Args:
        encoder: SignHiera without a head.
        fps: frames per second of the clips; a window spans so many seconds, not so many frames.
        train_fraction: the last share of the blocks that trains, rounded up; what is before it never does, and costs no memory
            for gradients. The embedding of patches and places trains only with 1.
    """

    def __init__(self, encoder: SignHiera, *, fps: float = 25.0, train_fraction: float = 1.0) -> None:
        super().__init__()
        if not (0 < fps < math.inf and 0 <= train_fraction <= 1):
            raise ValueError(f"need fps > 0 and train_fraction in 0..1: {fps=} {train_fraction=}")
        self.encoder, self.fps = encoder, fps
        self.num_outputs = encoder.shape.dim
        blocks = len(encoder.blocks)
        self.num_still = math.floor(round((1 - train_fraction) * blocks, 9))
        self.embedding_trains = train_fraction == 1
        for part in self.frozen_parts():
            part.requires_grad_(False)

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        size = (self.encoder.shape.height_px, self.encoder.shape.width_px, 3)
        if frames.dtype != torch.uint8 or frames.dim() != 5 or frames.shape[2:] != size:
            raise ValueError(f"need frames uint8 (B, T, {size[0]}, {size[1]}, 3), got {frames.dtype} {tuple(frames.shape)}")
        window = self.encoder.shape.num_frames
        windows: list[tuple[int, Window]] = [
            (row, part)
            for row, length in enumerate(lengths.tolist())
            for part in signhiera_windows(length, self.fps, window=window, stride=window // 2)
        ]
        # Those of one length run together; what is padding of a window is not computed at all.
        groups: dict[int, list[int]] = defaultdict(list)
        for i, (_, part) in enumerate(windows):
            groups[min(2 * part.num_features, len(part.indices))].append(i)
        found: dict[int, Tensor] = {}
        for num_frames, members in groups.items():
            taken = [_frames_of(frames, *windows[i], num_frames) for i in members]
            vectors = self.encoder.features(normalise_frames(torch.stack(taken)))
            found |= dict(zip(members, vectors, strict=True))
        clips: list[list[Tensor]] = [[] for _ in frames]
        for i, (row, _) in enumerate(windows):
            clips[row].append(found[i])
        vectors = [torch.cat(parts) for parts in clips]
        return nn.utils.rnn.pad_sequence(vectors, batch_first=True), torch.tensor([len(v) for v in vectors], device=frames.device)

    def frozen_parts(self) -> Parts:
        """What never trains. The final norm is among it: features are taken before it."""
        still: Parts = [self.encoder.norm, *self.encoder.blocks[: self.num_still]]
        return still if self.embedding_trains else [*still, *self._embeddings()]

    def layer_groups(self) -> list[tuple[str, Parts]]:
        """The blocks that train, from the last to the first, then the embeddings if they do."""
        numbers = reversed(range(self.num_still, len(self.encoder.blocks)))
        groups: list[tuple[str, Parts]] = [(f"signhiera_{i}", [self.encoder.blocks[i]]) for i in numbers]
        return [*groups, ("signhiera_embeddings", self._embeddings())] if self.embedding_trains else groups

    def _embeddings(self) -> Parts:
        return [self.encoder.patch_embed, self.encoder.pos_embed_spatial, self.encoder.pos_embed_temporal]


def _frames_of(frames: Tensor, row: int, window: Window, num_frames: int) -> Tensor:
    return frames[row, torch.from_numpy(window.indices[:num_frames]).to(frames.device)]
