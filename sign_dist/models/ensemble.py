"""Several models of one kind that differ in their first weights only, trained side by side and asked together.

On small data the answer for a new signer depends much on chance; the mean of a few models depends less
(deep ensembles, Lakshminarayanan et al. 2017, arXiv 1612.01474).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Ensemble(nn.Module):
    """While training, every member's logits (M, B, V), so that each learns for itself; else log of the mean probability (B, V)."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        if not members:
            raise ValueError("need at least one member")
        self.members = nn.ModuleList(members)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        logits = torch.stack([member(features, lengths) for member in self.members])
        if self.training:
            return logits
        return logits.float().log_softmax(dim=-1).logsumexp(dim=0) - math.log(len(self.members))

    def layer_groups(self) -> list[tuple[str, list[nn.Module]]]:
        """The members' groups, joined by their place."""
        groups = [member.layer_groups() for member in self.members]  # pyright: ignore[reportCallIssue]
        return [(same[0][0], [m for _, modules in same for m in modules]) for same in zip(*groups, strict=True)]
