"""How much memory a vision-language model takes, by its parts, before anything is loaded.

The model is built from its config without weights, so that what is counted are its very layers. Weights, adapters, gradients,
moments of the optimiser, and keys and values are counted; what layers hold between forward and backward is estimated by the shape
of a transformer of Llama's kind, as Qwen's are. What the driver, the allocator's gaps and kernels' own buffers take is not in it.
"""

import dataclasses
import math
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText, InternVLConfig, InternVLVisionConfig, Qwen3Config

from sign_dist.config.data import FrameFeatures
from sign_dist.config.model import VlmModel
from sign_dist.config.run import Run
from sign_dist.errors import SettingsError, WeightsError, did_you_mean
from sign_dist.models.seq2seq import read_pretrained
from sign_dist.tasks.answers import MOST_BEAMS
from sign_dist.tasks.closed_set import MOST_CLIPS, MOST_NODES
from sign_dist.transfer.lora import targets_of

BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
BLOCK, NESTED = 64, 256
"""NF4: weights that share a scale, and scales that share one of their own (double quantisation)."""
TABLES = 4 * (16 + 256 + 1)
"""Of each NF4 layer: the 16 values of a weight, the 256 of a scale, and the scales' mean, in float32."""

# InternVL3.5's published sizes: Qwen3 behind a vision model of 0.3 B, embeddings and output layer apart.
_TEXT: dict[str, dict[str, Any]] = {
    "1b": {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16},
    "2b": {"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16},
    "4b": {"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32},
    "8b": {"hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "num_attention_heads": 32},
}
SIZES = tuple(_TEXT)


def internvl_config(size: str) -> InternVLConfig:
    """The config of an InternVL3.5 of a published size: 1b, 2b, 4b or 8b.

    Raises:
        WeightsError: there is no such size here.
    """
    if size.lower() not in _TEXT:
        raise WeightsError(f"no size {size!r}: there are {', '.join(SIZES)};{did_you_mean(size, SIZES)}".rstrip(";"))
    text = Qwen3Config(
        **_TEXT[size.lower()],
        vocab_size=151936,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=40960,
        tie_word_embeddings=False,
    )
    return InternVLConfig(
        vision_config=InternVLVisionConfig(attention_bias=True), text_config=text, image_token_id=151671, tie_word_embeddings=False
    )


def without_weights(config: Any) -> nn.Module:
    """The model of a config, its tensors with shapes and without memory."""
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(config)


@dataclasses.dataclass(frozen=True)
class Asked:
    """What is to be done. `clips` are those of one micro-batch; `answer` is the longest answer's tokens, `prompt` those of the
    question beside the frames."""

    quantize: str = "none"
    dtype: str = "bf16"
    precision: str = "bf16"
    targets: str = ""
    rank: int = 16
    checkpointing: bool = True
    frames: int = 8
    clips: int = 1
    answer: int = 8
    prompt: int = 64
    beams: int = 5


@dataclasses.dataclass(frozen=True)
class Plan:
    """Bytes by part. `exact` parts are counted, the others estimated."""

    weights: int
    weights_small: int
    """Of `weights`, what lies in 4 or 8 bits with its scales."""
    adapters: int
    gradients: int
    moments: int
    activations: int
    logits: int
    vision: int
    cache: int
    nodes: int
    beams: int
    clips: int
    parameters: int
    trained: int
    tokens: int
    """Of a prompt with its answer."""

    @property
    def training(self) -> int:
        """All that a training step has in memory at its peak."""
        fixed = self.weights + self.adapters + self.gradients + self.moments
        return fixed + max(self.activations + self.logits, self.vision)

    @property
    def scoring(self) -> int:
        """All that scoring a closed set has in memory: the prompt's keys and values are held once a clip."""
        return self.weights + self.adapters + max(self.cache + self.nodes, MOST_CLIPS * self.vision // self.clips)

    @property
    def writing(self) -> int:
        """The same with beam search, whose beams hold a copy each."""
        return self.weights + self.adapters + max(self.beams, MOST_CLIPS * self.vision // self.clips)


def plan_of_run(run: Run, *, like: str = "", answer: int = 8) -> Plan:
    """The memory of a run on one device. `like`: a size of InternVL3.5, in place of the model that it names.

    Raises:
        SettingsError: the run is of another kind of model.
        WeightsError: its model is not on this machine, and no size is given.
    """
    model, features = run.model, run.data.features
    if not isinstance(model, VlmModel) or not isinstance(features, FrameFeatures):
        raise SettingsError(f"memory is counted for model.kind = 'vlm', got {run.model.kind!r}")
    if not like and not model.source:
        raise SettingsError("a tiny model fits anywhere: name a model.source, or a size with --like 2b")
    config = internvl_config(like) if like else read_pretrained(AutoConfig, model.source, False)
    asked = Asked(
        quantize=model.quantize,
        dtype=model.dtype,
        precision=run.train.precision,
        targets=run.train.lora.targets,
        rank=run.train.lora.rank,
        checkpointing=model.checkpointing,
        frames=features.num_frames,
        clips=-(-run.train.batch_size // run.parts),
        answer=answer,
        beams=run.decode.beam,
    )
    return plan(config, asked)


def lines(found: Plan) -> list[str]:
    """A plan as a person reads it: GiB by part."""
    rows = [
        ("weights", found.weights, f"{found.parameters / 1e9:.2f} B numbers" + _in_bits(found)),
        ("adapters", found.adapters, f"{found.trained / 1e6:.2f} M numbers that train, float32"),
        ("gradients", found.gradients, "4 bytes for each of them"),
        ("moments of AdamW", found.moments, "8 bytes for each of them"),
        ("activations", found.activations, f"estimate; {found.tokens} tokens a clip"),
        ("logits", found.logits, "of the answer's tokens alone"),
        ("vision", found.vision, "estimate; one layer at its peak, before the language model runs"),
        ("keys and values", found.cache, f"scoring: of {MOST_CLIPS} clips, once each"),
        ("logits of labels", found.nodes, f"scoring: of {MOST_NODES} tokens at a time"),
        ("beams", found.beams, "writing freely: keys and values for each beam"),
        ("training in sum", found.training, "the driver, gaps and kernels' buffers come on top: about 1 GiB"),
        ("scoring in sum", found.scoring, "held to the vocabulary"),
        ("writing in sum", found.writing, "beam search"),
    ]
    return [f"{name:<18}{size / 2**30:7.2f} GiB  {said}" for name, size, said in rows]


def _in_bits(found: Plan) -> str:
    if not found.weights_small:
        return ""
    return f", of which {found.weights_small / 2**30:.2f} GiB in few bits and the rest in float32"


def plan(config: Any, asked: Asked) -> Plan:
    """The memory of a model of transformers' image-text-to-text kind, of whose config the parts are `text_config` and
    `vision_config`.

    Raises:
        SettingsError: the targets of adapters name no layer.
    """
    model = without_weights(config)
    text, vision = config.get_text_config(), config.vision_config
    weights, small = weights_bytes(model, asked.quantize, asked.dtype)
    trained = adapter_numbers(model, asked.targets, asked.rank) if asked.targets else num_parameters(model)
    per_frame = _image_tokens(config)
    tokens = asked.prompt + asked.frames * per_frame + asked.answer
    act = BYTES[asked.precision]
    width, heads = text.hidden_size, text.num_attention_heads
    head = getattr(text, "head_dim", None) or width // heads
    keys = text.num_key_value_heads * head
    inside = layer_numbers(width, heads * head, keys, text.intermediate_size)
    rows = asked.clips * tokens
    layers = text.num_hidden_layers
    held = rows * act * (((layers + 1) * width + inside) if asked.checkpointing else layers * inside)
    patches = (vision.image_size[0] // vision.patch_size[0]) ** 2 + 1
    seen = asked.clips * asked.frames * patches * act
    # Without adapters in it nothing of it is kept; its peak is one layer: the sum, its norm, and the inner values twice.
    in_vision = 2 * (vision.hidden_size + vision.intermediate_size)
    cache_token = 2 * layers * keys * BYTES[asked.dtype]
    said = asked.clips * asked.answer * text.vocab_size
    return Plan(
        weights=weights,
        weights_small=small,
        adapters=4 * trained if asked.targets else 0,
        gradients=4 * trained,
        moments=8 * trained,
        activations=held,
        logits=said * (act + 4 + 4),
        vision=seen * in_vision,
        cache=MOST_CLIPS * tokens * cache_token,
        nodes=MOST_NODES * text.vocab_size * (BYTES[asked.dtype] + 4),
        beams=max(asked.beams, MOST_BEAMS) * tokens * cache_token,
        clips=asked.clips,
        parameters=num_parameters(model),
        trained=trained,
        tokens=tokens,
    )


def weights_bytes(model: nn.Module, quantize: str, dtype: str) -> tuple[int, int]:
    """Bytes of a model's parameters, and of them those of layers in 4 or 8 bits.

    In few bits are its linear layers without the output layer; then all else is float32, as training below adapters wants it.
    """
    if quantize == "none":
        return num_parameters(model) * BYTES[dtype], 0
    output = model.get_output_embeddings()  # pyright: ignore[reportCallIssue]
    linear = {id(m.weight): m for m in model.modules() if isinstance(m, nn.Linear) and m is not output}
    small = sum(nf4_bytes(m.weight.numel()) if quantize == "nf4" else int8_bytes(m) for m in linear.values())
    rest = sum(p.numel() for p in model.parameters() if id(p) not in linear)
    return small + 4 * rest, small


def nf4_bytes(numbers: int) -> int:
    """A weight in NF4 with double quantisation: half a byte a number, a byte for each block's scale, four for each group of scales.

    >>> nf4_bytes(2048 * 2048) / (2048 * 2048)
    0.5161380767822266
    """
    blocks = math.ceil(numbers / BLOCK)
    return math.ceil(numbers / 2) + blocks + 4 * math.ceil(blocks / NESTED) + TABLES


def int8_bytes(layer: nn.Linear) -> int:
    """A weight in int8: a byte a number and four for each row's scale."""
    return layer.weight.numel() + 4 * layer.out_features


def adapter_numbers(model: nn.Module, targets: str, rank: int) -> int:
    """Numbers in the adapters of these targets: rank * (in + out) for each linear layer.

    Raises:
        SettingsError: a pattern matches no layer.
    """
    found = (model.get_submodule(name) for name in targets_of(model, targets))
    return sum(rank * (m.in_features + m.out_features) for m in found if isinstance(m, nn.Linear))


def layer_numbers(width: int, queries: int, keys: int, inner: int) -> int:
    """Numbers that a layer of Llama's kind with frozen weights holds for its backward pass, for each token.

    Inputs of its two norms, and what comes out of them where adapters read it (4 widths); queries, keys, values and the attention's
    output (2 queries, 2 keys); gate, activated gate and up (3 inner widths).
    """
    return 4 * width + 2 * queries + 2 * keys + 3 * inner


def num_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def _image_tokens(config: Any) -> int:
    vision = config.vision_config
    ratio = float(getattr(config, "downsample_ratio", 1.0))
    return round((vision.image_size[0] // vision.patch_size[0] * ratio) * (vision.image_size[1] // vision.patch_size[1] * ratio))
