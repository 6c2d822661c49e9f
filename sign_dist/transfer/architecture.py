"""Which network the tensors of a file belong to, by the names and shapes that give it away."""

import re
from collections.abc import Callable, Mapping

from torch import Tensor

Shapes = Mapping[str, tuple[int, ...]]


def guess(tensors: Mapping[str, Tensor]) -> str:
    """One line about a network: its kind and the sizes that can be read off; "" where nothing is known of it."""
    shapes: Shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for mark, describe in _KINDS:
        start = next((name.removesuffix(mark) for name in shapes if name == mark or name.endswith(f".{mark}")), None)
        if start is not None:
            inner = {name.removeprefix(start): shape for name, shape in shapes.items() if name.startswith(start)}
            if text := describe(inner):
                return f"{text}, under {start!r}" if start else text
    return _recurrent(shapes)


def _i3d(shapes: Shapes) -> str:
    head = shapes.get("logits.conv3d.weight")
    channels = shapes["Conv3d_1a_7x7.conv3d.weight"][1]
    stream = {3: "RGB", 2: "optical flow"}.get(channels, f"{channels} channels")
    return f"Inception-I3D, {stream}, {f'{head[0]} classes' if head else 'no head'}"


def _signhiera(shapes: Shapes) -> str:
    if "pos_embed_temporal" not in shapes or "patch_embed.proj.weight" not in shapes:
        return ""
    time, dim, blocks = shapes["pos_embed_temporal"][1], shapes["patch_embed.proj.weight"][0], _count(shapes, r"blocks\.(\d+)\.")
    kind = "masked autoencoder of SignHiera" if "decoder_pos_embed" in shapes else "SignHiera"
    head = shapes.get("head.projection.weight")
    return f"{kind}, {blocks} blocks from width {dim}, {time * 2} frames" + (f", {head[0]} classes" if head else "")


def _sign_encoder(shapes: Shapes) -> str:
    width = next(s[0] for n, s in shapes.items() if n.endswith("feature_proj.weight"))
    blocks = _count(shapes, r"encoder\.block\.(\d+)\.")
    return f"sign encoder of SONAR: T5, {blocks} layers each side, width {width}"


def _text_decoder(shapes: Shapes) -> str:
    vocabulary, width = shapes["decoder_frontend.embed.weight"]
    layers = _count(shapes, r"decoder\.layers\.(\d+)\.")
    return f"text decoder of SONAR, fairseq2's names, {layers} layers, {vocabulary} x {width}"


def _m2m(shapes: Shapes) -> str:
    layers = _count(shapes, r"(?:model\.)?decoder\.layers\.(\d+)\.")
    embedding = next((s for n, s in shapes.items() if n.endswith(("shared.weight", "embed_tokens.weight"))), None)
    size = f", {embedding[0]} x {embedding[1]}" if embedding else ""
    return f"transformer decoder with the names of fairseq and transformers (M2M100, mBART, NLLB), {layers} layers{size}"


def _t5(shapes: Shapes) -> str:
    vocabulary, width = shapes.get("shared.weight", (0, 0))
    layers = _count(shapes, r"encoder\.block\.(\d+)\.")
    return f"T5, {layers} layers each side, {vocabulary} x {width}"


def _teacher(shapes: Shapes) -> str:
    head = shapes.get("classifier.weight")
    return "1-D temporal I3D" + (f", {head[0]} classes" if head else "")


def _vac(shapes: Shapes) -> str:
    head = next((s for n, s in shapes.items() if n.startswith("classifier.") and len(s) == 2), None)
    return "CSLR head of VAC and its relatives: Conv1d and BiLSTM" + (f", {head[1]} classes" if head else "")


def _recurrent(shapes: Shapes) -> str:
    """A plain LSTM or GRU and the last linear layer behind it."""
    found = next((n for n in shapes if re.search(r"weight_ih_l0$", n)), None)
    if found is None:
        return ""
    start = found.removesuffix("weight_ih_l0")
    hidden = shapes[start + "weight_hh_l0"][1] if start + "weight_hh_l0" in shapes else 0
    gates = shapes[found][0] // hidden if hidden else 0
    kind = {4: "LSTM", 3: "GRU", 1: "RNN"}.get(gates, "recurrent network")
    layers = _count(shapes, re.escape(start) + r"weight_ih_l(\d+)$")
    both = "bidirectional " if found + "_reverse" in shapes else ""
    linear = [s for n, s in shapes.items() if len(s) == 2 and n.endswith(".weight") and not n.startswith(start)]
    head = f", then linear {linear[-1][1]} -> {linear[-1][0]}" if linear else ""
    return f"{both}{kind}, {shapes[found][1]} -> {hidden}, {layers} layers{head}"


def _count(shapes: Shapes, pattern: str) -> int:
    return len({found[1] for name in shapes if (found := re.match(pattern, name))})


# A name that gives a network away, the most particular first; what stands before it is a prefix.
_KINDS: tuple[tuple[str, Callable[[Shapes], str]], ...] = (
    ("Conv3d_1a_7x7.conv3d.weight", _i3d),
    ("encoder.feature_projection.feature_proj.weight", _sign_encoder),
    ("encoder.feature_proj.weight", _sign_encoder),
    ("pos_embed_spatial", _signhiera),
    ("decoder_frontend.embed.weight", _text_decoder),
    ("encoder.block.0.layer.0.SelfAttention.q.weight", _t5),
    ("decoder.layers.0.encoder_attn.q_proj.weight", _m2m),
    ("conv1d.temporal_conv.0.weight", _vac),
    ("mixed_5c.b0.conv.weight", _teacher),
)
