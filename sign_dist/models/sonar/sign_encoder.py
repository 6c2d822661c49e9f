"""SONAR's sign encoder: features of a clip -> one vector in the space of sentences, (B, T, D) -> (B, E).

A whole T5 (Raffel et al. 2020, version 1.1): the encoder reads projected features, and one step of the decoder, whose only
token is 0, pools them by cross attention. With its relative positions nothing else marks time.

The T5 is transformers' `T5Model`, not one of ours: published checkpoints bear its names, it gives the reference's numbers, its
attention is SDPA, and its blocks clamp what overflows in fp16. Two things differ: of the vocabulary only the row of token 0 is
kept (the published file has 32,128, 131 MB, and reads one), and the encoder's embedding, which nothing reads, is the decoder's,
so that every parameter has a gradient.
"""

import dataclasses
from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor, nn
from transformers import T5Config, T5Model

from sign_dist.models.lengths import real_steps
from sign_dist.models.seq2seq import recompute_layers
from sign_dist.models.sonar.names import adopt, count, find


@dataclasses.dataclass(frozen=True)
class SignEncoderShape:
    """Sizes of a sign encoder; the defaults are the published one's, those of T5-v1.1-large."""

    feature_dim: int = 768
    output_dim: int = 1024
    d_model: int = 1024
    d_kv: int = 64
    d_ff: int = 2816
    num_layers: int = 24
    num_decoder_layers: int = 24
    num_heads: int = 16
    relative_buckets: int = 32
    relative_max_distance: int = 128
    layer_norm_eps: float = 1e-6


class SignEncoder(nn.Module):
    """Features (B, T, D) -> embeddings (B, E), not normalised."""

    def __init__(self, shape: SignEncoderShape, *, dropout: float = 0.0, recompute: bool = False) -> None:
        super().__init__()
        self.shape = shape
        self.feature_proj = nn.Linear(shape.feature_dim, shape.d_model)
        self.feature_proj_scale = nn.Parameter(torch.ones(shape.d_model))
        config = T5Config(
            vocab_size=1,  # the pooler's token is the only one
            pad_token_id=0,
            eos_token_id=None,
            d_model=shape.d_model,
            d_kv=shape.d_kv,
            d_ff=shape.d_ff,
            num_layers=shape.num_layers,
            num_decoder_layers=shape.num_decoder_layers,
            num_heads=shape.num_heads,
            relative_attention_num_buckets=shape.relative_buckets,
            relative_attention_max_distance=shape.relative_max_distance,
            layer_norm_epsilon=shape.layer_norm_eps,
            feed_forward_proj="gated-gelu",
            dropout_rate=dropout,
            use_cache=False,
        )
        self.t5 = T5Model(config)
        self.t5.set_input_embeddings(self.t5.shared)  # one module, which stays one when weights are assigned
        if recompute:
            recompute_layers(self.t5)
        self.projection_out = nn.Linear(shape.d_model, shape.output_dim, bias=False)

    def encode(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        """What the pooler reads, (B, T, d_model)."""
        if features.dim() != 3 or features.shape[-1] != self.shape.feature_dim or not features.shape[1]:
            raise ValueError(f"need features (B, T >= 1, {self.shape.feature_dim}), got {tuple(features.shape)}")
        mask = _mask(features, lengths)
        if mask is not None:  # what stands in the padding may be anything, even no number
            features = features.masked_fill(~mask[..., None], 0)
        x = self.feature_proj_scale * self.feature_proj(features)
        return self.t5.encoder(inputs_embeds=x, attention_mask=mask).last_hidden_state

    def forward(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Features padded behind `lengths` (B,) -> embeddings (B, E)."""
        encoded = self.encode(features, lengths)
        start = torch.zeros(len(features), 1, dtype=torch.long, device=features.device)
        pooled = self.t5.decoder(
            input_ids=start,
            encoder_hidden_states=encoded,
            encoder_attention_mask=_mask(features, lengths),
            use_cache=False,
        ).last_hidden_state
        return self.projection_out(pooled[:, 0])

    @classmethod
    def from_tensors(
        cls,
        tensors: Mapping[str, Tensor],
        *,
        relative_max_distance: int = 128,
        layer_norm_eps: float = 1e-6,
        dropout: float = 0.0,
        recompute: bool = False,
    ) -> Self:
        """The encoder of a published checkpoint; its sizes are read off the tensors, which are not copied.

        The largest distance and the epsilon are what tensors do not show.

        Raises:
            WeightsError: tensors are missing or have shapes that do not belong together.
        """
        named = _rows(tensors)
        kind = "sign encoder"
        width, feature_dim = find(named, "feature_proj.weight", kind).shape
        first = "t5.encoder.block.0.layer."
        buckets, heads = find(named, f"{first}0.SelfAttention.relative_attention_bias.weight", kind).shape
        shape = SignEncoderShape(
            feature_dim=feature_dim,
            output_dim=len(find(named, "projection_out.weight", kind)),
            d_model=width,
            d_kv=len(find(named, f"{first}0.SelfAttention.q.weight", kind)) // heads,
            d_ff=len(find(named, f"{first}1.DenseReluDense.wi_0.weight", kind)),
            num_layers=count(named, "t5.encoder.block.", kind),
            num_decoder_layers=count(named, "t5.decoder.block.", kind),
            num_heads=heads,
            relative_buckets=buckets,
            relative_max_distance=relative_max_distance,
            layer_norm_eps=layer_norm_eps,
        )
        with torch.device("meta"):
            model = cls(shape, dropout=dropout, recompute=recompute)
        adopt(model, _all_names(model, named))
        return model

    def take(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy the tensors of a checkpoint of these sizes, published or of ours.

        Raises:
            WeightsError: tensors are missing or have other shapes.
        """
        adopt(self, {name: tensor.float() for name, tensor in _all_names(self, _rows(tensors)).items()})


def _rows(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """By our names, the embedding without what is never read of it."""
    return {name: tensor[:1].clone() if _is_embedding(name) else tensor for name, tensor in _ours(tensors).items()}


def _all_names(model: nn.Module, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The three names of the embedding are one tensor; a file may hold but one of them."""
    held = sorted(name for name in named if _is_embedding(name))
    row = find(named, held[0] if held else "t5.shared.weight", "sign encoder")
    return {**named, **{name: row for name in model.state_dict() if _is_embedding(name)}}


def _mask(features: Tensor, lengths: Tensor | None) -> Tensor | None:
    """Without lengths there is no mask, so that attention may use its fastest kernel."""
    return None if lengths is None else real_steps(features, lengths)


def _ours(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published names -> ours. The projection has had two names in published code."""
    named: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        short = name.removeprefix("encoder.").removeprefix("feature_projection.")
        if name in ("projection_out.weight", "feature_proj_scale") or name.startswith(("feature_proj.", "t5.")):
            named[name] = tensor
        elif short.startswith("feature_proj"):
            named[short] = tensor
        else:
            named[f"t5.{name}"] = tensor
    return named


def _is_embedding(name: str) -> bool:
    return name.endswith(("shared.weight", "embed_tokens.weight"))
