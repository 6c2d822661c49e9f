"""SONAR's text decoder: a sentence embedding (B, E) and the tokens so far -> what comes next.

The layout is that of M2M100 and NLLB (Fan et al. 2020, Costa-jussa et al. 2022): pre-norm layers, ReLU, fixed sinusoidal
positions, output tied to the embedding. The embedding of the sentence is all that cross attention can look at, one single
place: its weight is 1 whatever the query, so it adds the same vector at every token. It is computed once; queries, keys and
their norm, 50 million parameters of the published decoder, are left out.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sign_dist.models.recompute import recomputed
from sign_dist.models.sonar.names import adopt, count, find

# Positions are counted from here, behind those of the padding.
FIRST_POSITION = 2
# Names of fairseq and transformers -> ours, which are fairseq2's, and the names of the embedding that are not ours.
_RENAMED = {
    "self_attn.out_proj.": "self_attn.output_proj.",
    "encoder_attn.": "encoder_decoder_attn.",
    "encoder_attn_layer_norm.": "encoder_decoder_attn_layer_norm.",
    "encoder_decoder_attn.out_proj.": "encoder_decoder_attn.output_proj.",
    "fc1.": "ffn.inner_proj.",
    "fc2.": "ffn.output_proj.",
    "final_layer_norm.": "ffn_layer_norm.",
}
_EMBEDDING = ("embed_tokens.weight", "shared.weight", "lm_head.weight", "output_projection.weight", "final_proj.weight")
# Rows 0 to 3 of the embedding there are (bos, pad, eos, unk), here (pad, unk, bos, eos).
_ROWS = (1, 3, 0, 2)


@dataclasses.dataclass(frozen=True)
class TextDecoderShape:
    """Sizes of a text decoder; the defaults are the published one's. `max_len` counts tokens with the prompt."""

    vocab_size: int = 256206
    dim: int = 1024
    num_layers: int = 24
    num_heads: int = 16
    ffn_dim: int = 8192
    max_len: int = 512
    layer_norm_eps: float = 1e-5


@dataclasses.dataclass
class DecoderState:
    """What the decoder remembers of R sequences: per layer the sentence's part, keys and values; how many tokens were read."""

    sentence: list[Tensor]
    keys: list[Tensor]
    values: list[Tensor]
    num_tokens: int = 0

    def take(self, rows: Tensor) -> "DecoderState":
        """Of these sequences, in this order; one may be taken more than once."""
        sentence, keys, values = ([x.index_select(0, rows) for x in xs] for xs in (self.sentence, self.keys, self.values))
        return DecoderState(sentence, keys, values, self.num_tokens)


class TextDecoder(nn.Module):
    """Embeddings (B, E) and tokens (B, L) -> logits (B, L, V) of the token after each."""

    def __init__(self, shape: TextDecoderShape, *, dropout: float = 0.0, recompute: bool = False) -> None:
        super().__init__()
        self.shape, self.dropout, self.recompute = shape, dropout, recompute
        self.embed = nn.Embedding(shape.vocab_size, shape.dim)
        self.layers = nn.ModuleList([DecoderLayer(shape, dropout) for _ in range(shape.num_layers)])
        self.layer_norm = nn.LayerNorm(shape.dim, eps=shape.layer_norm_eps)
        if not self.embed.weight.is_meta:
            nn.init.normal_(self.embed.weight, std=shape.dim**-0.5)

    def start(self, embeddings: Tensor) -> DecoderState:
        """Nothing read yet: one sequence of each embedding (B, E)."""
        if embeddings.dim() != 2 or embeddings.shape[-1] != self.shape.dim:
            raise ValueError(f"need embeddings (B, {self.shape.dim}), got {tuple(embeddings.shape)}")
        embeddings = embeddings.to(self.embed.weight.dtype)
        sentence = [layer.sentence(embeddings) for layer in self._stack()]
        empty = embeddings.new_zeros(len(embeddings), self.shape.num_heads, 0, self.shape.dim // self.shape.num_heads)
        return DecoderState(sentence, [empty] * len(sentence), [empty] * len(sentence))

    def read(self, tokens: Tensor, state: DecoderState) -> Tensor:
        """Hidden vectors (R, L, E) of the next tokens (R, L); `state` then knows them too.

        Raises:
            ValueError: more tokens than the decoder has positions.
        """
        past = state.num_tokens
        if past + tokens.shape[1] > self.shape.max_len:
            raise ValueError(f"need at most {self.shape.max_len} tokens, got {past + tokens.shape[1]}")
        x = self.embed(tokens) * math.sqrt(self.shape.dim)
        x = x + positions(past, tokens.shape[1], self.shape.dim, x.device).to(x.dtype)
        x = F.dropout(x, self.dropout, self.training)
        again = self.recompute and self.training and torch.is_grad_enabled()
        for i, layer in enumerate(self._stack()):
            inputs = (x, state.sentence[i], state.keys[i], state.values[i])
            x, state.keys[i], state.values[i] = recomputed(layer, *inputs) if again else layer(*inputs)
        state.num_tokens = past + tokens.shape[1]
        return self.layer_norm(x)

    def _stack(self) -> "list[DecoderLayer]":
        return cast("list[DecoderLayer]", list(self.layers))

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden vectors -> scores of the whole vocabulary."""
        return F.linear(hidden, self.embed.weight)

    def forward(self, embeddings: Tensor, tokens: Tensor) -> Tensor:
        return self.logits(self.read(tokens, self.start(embeddings)))

    @classmethod
    def from_tensors(
        cls,
        tensors: Mapping[str, Tensor],
        *,
        num_heads: int = 16,
        max_len: int = 512,
        layer_norm_eps: float = 1e-5,
        dropout: float = 0.0,
        recompute: bool = False,
    ) -> Self:
        """The decoder of a published checkpoint with the names of fairseq2, fairseq or transformers; ids are fairseq2's.

        The number of heads, the longest text and the epsilon are what tensors do not show.

        Raises:
            WeightsError: tensors are missing or have shapes that do not belong together.
        """
        named = _ours(tensors)
        kind = "text decoder"
        vocab_size, dim = find(named, "embed.weight", kind).shape
        shape = TextDecoderShape(
            vocab_size=vocab_size,
            dim=dim,
            num_layers=count(named, "layers.", kind),
            num_heads=num_heads,
            ffn_dim=len(find(named, "layers.0.ffn.inner_proj.weight", kind)),
            max_len=max_len,
            layer_norm_eps=layer_norm_eps,
        )
        with torch.device("meta"):
            model = cls(shape, dropout=dropout, recompute=recompute)
        adopt(model, {name: tensor for name, tensor in named.items() if not _never_matters(name)})
        return model

    def take(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy the tensors of a checkpoint of these sizes, published or of ours.

        Raises:
            WeightsError: tensors are missing or have other shapes.
        """
        adopt(self, {name: tensor.float() for name, tensor in _ours(tensors).items() if not _never_matters(name)})


class DecoderLayer(nn.Module):
    """Self attention, the sentence, feed-forward."""

    def __init__(self, shape: TextDecoderShape, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.self_attn_layer_norm = nn.LayerNorm(shape.dim, eps=shape.layer_norm_eps)
        self.self_attn = CausalAttention(shape.dim, shape.num_heads)
        self.encoder_decoder_attn = SingleAttention(shape.dim)
        self.ffn_layer_norm = nn.LayerNorm(shape.dim, eps=shape.layer_norm_eps)
        self.ffn = FeedForward(shape.dim, shape.ffn_dim)

    def sentence(self, embeddings: Tensor) -> Tensor:
        """What embeddings (B, E) add at every token, (B, 1, E)."""
        return self.encoder_decoder_attn(embeddings)[:, None]

    def forward(self, x: Tensor, sentence: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, keys, values = self.self_attn(self.self_attn_layer_norm(x), keys, values)
        x = x + self._drop(y)
        x = x + self._drop(sentence)
        return x + self._drop(self.ffn(self.ffn_layer_norm(x))), keys, values

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


class CausalAttention(nn.Module):
    """Each token looks at itself and what was before it."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"need a width that {num_heads} heads divide, got {dim}")
        self.num_heads = num_heads
        self.q_proj, self.k_proj = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.v_proj, self.output_proj = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = (f(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for f in (self.q_proj, self.k_proj, self.v_proj))
        past, new = keys.shape[2], x.shape[1]
        keys, values = torch.cat([keys, k], 2), torch.cat([values, v], 2)
        mask = None
        if past and new > 1:
            mask = torch.ones(new, past + new, dtype=torch.bool, device=x.device).tril(past)
        y = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask, is_causal=not past and new > 1)
        return self.output_proj(y.transpose(1, 2).flatten(2)), keys, values


class SingleAttention(nn.Module):
    """Attention to a single vector: its value, projected."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.v_proj, self.output_proj = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.output_proj(self.v_proj(x))


class FeedForward(nn.Module):
    """Two linear layers with ReLU between them."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.inner_proj, self.output_proj = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.output_proj(F.relu(self.inner_proj(x)))


def positions(first: int, num: int, dim: int, device: torch.device) -> Tensor:
    """Sines, then cosines, of `num` positions (L, dim), in fp32."""
    half = dim // 2
    rates = torch.exp(torch.arange(half, device=device) * -(math.log(10000) / (half - 1)))
    angles = (torch.arange(first, first + num, device=device) + FIRST_POSITION)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def _ours(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published names -> ours; of the names of the embedding one is left."""
    native = not {"decoder_frontend.embed.weight", "model.decoder_frontend.embed.weight", "embed.weight"}.isdisjoint(tensors)
    named: dict[str, Tensor] = {}
    embedding: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        short = name.removeprefix("model.").removeprefix("decoder_frontend.").removeprefix("decoder.")
        if not native:
            for theirs, ours in _RENAMED.items():
                short = short.replace(f".{theirs}", f".{ours}")
        if short in _EMBEDDING:
            embedding.setdefault(short, tensor)
        else:
            named[short] = tensor
    if embedding and not native:  # the output is tied: a file may hold but one of the names
        tensor = next(iter(embedding.values()))
        whole = tensor.dim() == 2 and len(tensor) >= len(_ROWS)
        named["embed.weight"] = torch.cat([tensor[list(_ROWS)], tensor[len(_ROWS) :]]) if whole else tensor
    return named


def _never_matters(name: str) -> bool:
    parts = ("encoder_decoder_attn.q_proj", "encoder_decoder_attn.k_proj", "encoder_decoder_attn_layer_norm")
    return any(part in name for part in parts) or name == "version" or name.startswith("embed_positions")
