"""Read a tree of continuations behind one prompt at once: each token sees the prompt and its own ancestors alone.

The prompt's keys and values, thousands of tokens per clip, are held once for all continuations, where a batch of continuations
would hold a copy for each: of a 2B model with 8 frames of 256 tokens that is 0.24 GB for each.
"""

import copy
from typing import Any

import torch
from torch import Tensor

from sign_dist.models.vlm import Prefilled, SignVlm

OBEYING = ("eager", "sdpa")
"""Kinds of attention that take a mask given as a whole; flash attention knows only ones that look back."""


def can_branch(model: object) -> bool:
    """Whether a model counts positions one by one and obeys a mask given as a whole, as its family's adapter promises."""
    if not isinstance(model, SignVlm) or not getattr(model.tokens.pictures, "counts_one_by_one", False):
        return False
    text = model.vlm.config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ["full_attention"])
    return text._attn_implementation in OBEYING and kinds == {"full_attention"}


@torch.no_grad()
def branch_log_probs(
    model: SignVlm, prefilled: Prefilled, tokens: Tensor, depths: Tensor, sees: Tensor, *, node: Tensor, token: Tensor
) -> Tensor:
    """Log-probabilities (B, n), float32, that `token` (n,) follows nodes `node` (n,).

    Nodes are `tokens` (N,) at `depths` (N,) behind the prompt, 0 for the first; `sees` (N, N) bool says which of the nodes each of
    them sees. All B clips get the same tree; `prefilled` stays as it is.
    """
    clips, device, dtype = len(prefilled.log_probs), prefilled.log_probs.device, model.vlm.dtype
    mask = torch.zeros((len(tokens), prefilled.num_tokens + len(tokens)), dtype=dtype, device=device)
    mask[:, prefilled.num_tokens :].masked_fill_(~sees.to(device), torch.finfo(dtype).min)
    said = model.vlm(
        input_ids=tokens.to(device).expand(clips, -1),
        attention_mask=mask.expand(clips, 1, -1, -1),
        position_ids=(prefilled.num_tokens + depths.to(device)).expand(clips, -1),
        past_key_values=_fork(prefilled.cache),
        use_cache=True,
    )
    logits = said.logits.float()
    node = node.to(device)
    return logits[:, node, token.to(device)] - logits.logsumexp(-1)[:, node]


def _fork(cache: Any) -> Any:
    """The same cache, to grow: layers take new tensors when they do, so the first one does not change."""
    taken = copy.copy(cache)
    taken.layers = [copy.copy(layer) for layer in cache.layers]
    return taken
