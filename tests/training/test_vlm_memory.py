"""The plan of memory against models that are really built, quantised and run."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sign_dist.config.data import Data, FrameFeatures
from sign_dist.config.model import VlmModel
from sign_dist.config.run import Run
from sign_dist.config.train import Lora, Train
from sign_dist.errors import SettingsError, WeightsError
from sign_dist.models.internvl import tiny_config, tiny_internvl, tiny_tokenizer
from sign_dist.training.vlm_memory import (
    SIZES,
    TABLES,
    Asked,
    adapter_numbers,
    internvl_config,
    layer_numbers,
    lines,
    nf4_bytes,
    plan,
    plan_of_run,
    weights_bytes,
    without_weights,
)
from sign_dist.transfer.lora import add_adapters, quantise

TARGETS = "language_model.*.q_proj language_model.*.v_proj"
PUBLISHED = {"1b": 1.1e9, "2b": 2.3e9, "4b": 4.7e9, "8b": 8.5e9}


def tiny(width=64, depth=2):
    return tiny_config(tiny_tokenizer(["BOOK"]), size_px=32, width=width, depth=depth)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.long
def test_published_sizes_have_the_published_number_of_parameters(size):
    found = plan(internvl_config(size), Asked(targets=TARGETS))
    assert found.parameters == pytest.approx(PUBLISHED[size], rel=0.04)
    assert found.weights == 2 * found.parameters
    assert found.tokens == 8 * 256 + 64 + 8
    small = plan(internvl_config(size), Asked(targets=TARGETS, quantize="nf4"))
    assert small.weights_small < 0.52 * found.weights / 2
    assert small.training < found.training


@given(st.integers(1, 10**7))
def test_nf4_takes_at_least_half_a_byte_a_number_and_hardly_more(numbers):
    assert numbers / 2 <= nf4_bytes(numbers) <= numbers * 0.517 + TABLES + 7


@pytest.mark.parametrize(("width", "depth"), [(32, 1), (64, 2), (128, 2)])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_weights_are_those_of_a_model_that_is_built(width, depth, dtype):
    config = tiny(width, depth)
    model = tiny_internvl(config).to({"fp32": torch.float32, "bf16": torch.bfloat16}[dtype])
    real = sum(p.numel() * p.element_size() for p in model.parameters())
    assert weights_bytes(without_weights(config), "none", dtype) == (real, 0)


@pytest.mark.parametrize(("width", "depth"), [(32, 1), (64, 2), (128, 2), (256, 1)])
@pytest.mark.long
def test_four_bits_are_those_of_layers_that_are_really_quantised(width, depth):
    config = tiny(width, depth)
    model = tiny_internvl(config)
    quantise(model, "nf4", torch.bfloat16)
    real = small = 0
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        own = parameter.numel() * parameter.element_size()
        if state is not None:
            inner = state.state2
            held = (state.absmax, state.code, state.offset, inner.absmax, inner.code)
            own += sum(tensor.numel() * tensor.element_size() for tensor in held)
            small += own
        real += own
    assert weights_bytes(without_weights(config), "nf4", "bf16") == (real, small)


@pytest.mark.parametrize("rank", [1, 16])
def test_adapters_are_as_many_as_are_really_added(rank):
    model = tiny_internvl(tiny())
    planned = adapter_numbers(model, TARGETS, rank)
    add_adapters(model, TARGETS, rank=rank)
    assert planned == sum(p.numel() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize(("width", "depth"), [(64, 2), (64, 4), (128, 2)])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable:FutureWarning")
def test_what_layers_hold_is_estimated_within_a_third(width, depth, checkpointing):
    model = tiny_internvl(tiny(width, depth))
    text = model.model.language_model
    add_adapters(text, "q_proj v_proj", rank=1)
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    held: dict[int, int] = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    text.train()
    if checkpointing:
        text.gradient_checkpointing_enable({"use_reentrant": False})
    given = torch.randn(2, 64, width, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        said = text(inputs_embeds=given, use_cache=False).last_hidden_state
    each = sum(held.values()) / (2 * 64 * 4)
    planned = (depth + 1) * width if checkpointing else depth * layer_numbers(width, width, width, 2 * width)
    assert said.requires_grad
    assert planned == pytest.approx(each, rel=0.34)


def test_more_of_anything_takes_more_memory_and_checkpointing_less():
    config = tiny()
    base = Asked(targets=TARGETS, clips=2)
    for change in ({"clips": 4}, {"frames": 16}, {"rank": 64}, {"answer": 200}, {"checkpointing": False}, {"targets": ""}):
        more = plan(config, Asked(**{**base.__dict__, **change}))
        assert more.training > plan(config, base).training, change


def test_a_run_is_planned_as_its_settings_say():
    features = FrameFeatures(num_frames=4, size_px=448)
    model = VlmModel(source="nowhere/at-all", quantize="nf4", dtype="bf16", checkpointing=True)
    train = Train(batch_size=16, parts=8, precision="bf16", lora=Lora(targets=TARGETS, rank=4))
    run = Run(task="vlm", data=Data(root="x", features=features), model=model, train=train)
    asked = Asked(quantize="nf4", targets=TARGETS, rank=4, frames=4, clips=2, beams=run.decode.beam)
    assert plan_of_run(run, like="1b") == plan(internvl_config("1b"), asked)
    assert any("in few bits" in line for line in lines(plan_of_run(run, like="1b")))
    with pytest.raises(WeightsError, match="nowhere/at-all"):
        plan_of_run(run)
    with pytest.raises(SettingsError, match="--like 2b"):
        plan_of_run(run.with_values({"model.source": "", "model.quantize": "none"}))
    with pytest.raises(SettingsError, match="'landmark'"):
        plan_of_run(Run(data=Data(root="x")))


def test_unknown_names_are_refused_with_what_there_is():
    with pytest.raises(WeightsError, match="1b, 2b, 4b, 8b"):
        internvl_config("3b")
    with pytest.raises(SettingsError, match="no layer"):
        plan(tiny(), Asked(targets="nowhere"))
