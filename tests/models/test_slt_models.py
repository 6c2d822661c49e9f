"""Models of translation: their fronts see what extraction sees, tied weights are named once, and parts freeze as asked."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import nn

from sign_dist.config.model import FrontEncoder, SonarModel, TranslatorModel
from sign_dist.errors import SettingsError
from sign_dist.features.signhiera import SignHieraEncoder
from sign_dist.models.build import build_model
from sign_dist.models.signhiera import PRESETS, SignHiera
from sign_dist.models.slt import Search
from sign_dist.models.tied import name_once
from sign_dist.models.translator import PADDING
from sign_dist.models.windowed import WindowedSignHiera
from sign_dist.transfer.freeze import groups_of, plan_of
from sign_dist.video.decode import Clip

KINDS: dict[str, Any] = {"translator": TranslatorModel(width=32, depth=2, dropout=0), "sonar": SonarModel(dropout=0)}
FRAMES, LANDMARKS, VECTORS = (64, 64, 3), (57, 4), (6,)
TARGETS = torch.tensor([[10, 11, 12], [13, PADDING, PADDING]])


def model_of(kind: str, feature_shape: tuple[int, ...] = VECTORS, **encoder: Any) -> Any:
    torch.manual_seed(0)
    settings_ = KINDS[kind].model_copy(update={"encoder": FrontEncoder(**encoder)})
    return build_model(settings_, num_classes=0, feature_shape=feature_shape).eval()


def clips(feature_shape: tuple[int, ...], steps: int = 20) -> torch.Tensor:
    if feature_shape == FRAMES:
        return torch.randint(0, 256, (2, steps, *feature_shape), dtype=torch.uint8)
    return torch.rand(2, steps, *feature_shape)


# The encoder in front


@pytest.mark.long
@settings(max_examples=4)
@given(st.lists(st.integers(1, 45), min_size=1, max_size=3), st.sampled_from([10.0, 20.0, 25.0, 30.0]))
def test_the_front_gives_what_extraction_gives(lengths: list[int], fps: float) -> None:
    extract = SignHieraEncoder("tiny", weights=None, seed=3, device="cpu")
    torch.manual_seed(3)
    front = WindowedSignHiera(SignHiera(PRESETS["tiny"]), fps=fps).eval()
    frames = np.random.default_rng(len(lengths)).integers(0, 256, (len(lengths), max(lengths), 64, 64, 3), dtype=np.uint8)
    with torch.inference_mode():
        vectors, steps = front(torch.from_numpy(frames), torch.tensor(lengths))
    for row, length in enumerate(lengths):
        expected = extract(Clip(frames[row, :length], fps, "")).astype(np.float32)  # kept in float16
        assert steps[row] == len(expected)
        np.testing.assert_allclose(vectors[row, : steps[row]], expected, atol=2e-3)


@pytest.mark.parametrize(("fraction", "trains"), [(0.0, 0), (0.2, 1), (0.5, 3), (1.0, 5)])
def test_the_last_share_of_the_blocks_trains_and_the_rest_never(fraction: float, trains: int) -> None:
    model = model_of("translator", FRAMES, train_fraction=fraction)
    names = [f"signhiera_{i}" for i in reversed(range(5 - trains, 5))] + ["signhiera_embeddings"] * (fraction == 1)
    assert [name for name in groups_of(model) if name.startswith("signhiera")] == names
    plan_of(model).apply(model, 0)
    encoder = model.front.encoder
    assert [all(p.requires_grad for p in block.parameters()) for block in encoder.blocks] == [False] * (5 - trains) + [
        True
    ] * trains
    assert encoder.pos_embed_spatial.requires_grad == (fraction == 1)
    assert not any(p.requires_grad for p in encoder.norm.parameters())
    model.train()(clips(FRAMES), torch.tensor([20, 9]), TARGETS).logits.sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())


def test_frames_of_another_size_are_refused() -> None:
    with pytest.raises(SettingsError, match="frames of 64 px"):
        model_of("sonar", (32, 32, 3))
    with pytest.raises(ValueError, match="uint8"):
        model_of("sonar", FRAMES)(clips(FRAMES).float(), torch.tensor([20, 9]), TARGETS)


# Both kinds


@pytest.mark.parametrize("shape", [VECTORS, LANDMARKS, FRAMES])
@pytest.mark.parametrize("kind", KINDS)
def test_a_clip_alone_and_in_a_batch_gives_the_same(kind: str, shape: tuple[int, ...]) -> None:
    model, features, lengths = model_of(kind, shape), clips(shape), torch.tensor([20, 9])
    with torch.inference_mode():
        said = model(features, lengths, TARGETS)
        for row, length in enumerate(lengths.tolist()):
            tokens = TARGETS[row : row + 1][TARGETS[row : row + 1] != PADDING][None]
            alone = model(features[row : row + 1, :length], lengths[row : row + 1], tokens)
            num = alone.labels.shape[1]
            assert said.labels[row, :num].tolist() == alone.labels[0].tolist()
            assert (said.labels[row, num:] == PADDING).all()
            torch.testing.assert_close(said.logits[row, :num], alone.logits[0], atol=1e-4, rtol=1e-4)
        written = model.write(features, lengths, Search(beam=2, num_best=2, max_len=6))
        again = model.write(features[1:, :9], lengths[1:], Search(beam=2, num_best=2, max_len=6))
    assert [s.tokens for s in written[1]] == [s.tokens for s in again[0]]
    assert all(len(found) == 2 and found[0].score >= found[1].score for found in written)


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_is_told_by_what_was_before_it_only(kind: str) -> None:
    model, features, lengths = model_of(kind), clips(VECTORS), torch.tensor([20, 9])
    other = TARGETS.clone()
    other[0, 2] = 20
    with torch.inference_mode():
        said, changed = (model(features, lengths, targets).logits for targets in (TARGETS, other))
    told = 4 if kind == "sonar" else 3  # the language is told first
    torch.testing.assert_close(said[0, :told], changed[0, :told])
    assert not torch.allclose(said[0, told], changed[0, told])
    torch.testing.assert_close(said[1], changed[1])


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_writing_says_the_best_token_after_each(kind: str) -> None:
    model, features, lengths = model_of(kind), clips(VECTORS), torch.tensor([20, 9])
    with torch.inference_mode():
        written = [found[0].tokens for found in model.write(features, lengths, Search(beam=1, max_len=5))]
        targets = torch.full((2, 5), PADDING)
        for row, tokens in zip(targets, written, strict=True):
            row[: len(tokens)] = torch.tensor(tokens, dtype=torch.long)
        said = model(features, lengths, targets)
    for row, tokens in enumerate(written):
        allowed = said.logits[row].clone()
        if kind == "sonar":
            allowed = allowed[1:]  # the language is given
            allowed[:, 1] = -torch.inf  # and this is never said
        assert allowed.argmax(-1)[: len(tokens)].tolist() == tokens


@pytest.mark.parametrize("shape", [VECTORS, FRAMES])
@pytest.mark.parametrize("kind", KINDS)
def test_groups_hold_every_parameter_that_may_train_once(kind: str, shape: tuple[int, ...]) -> None:
    model = model_of(kind, shape, train_fraction=0.2)
    named = [p for _, parts in model.layer_groups() for part in parts for p in _parameters(part)]
    frozen = {id(p) for part in model.frozen_parts() for p in _parameters(part)}
    assert len({id(p) for p in named}) == len(named)
    assert {id(p) for p in named} | frozen == {id(p) for p in model.parameters()}
    assert not {id(p) for p in named} & frozen


def _parameters(part: Any) -> list[nn.Parameter]:
    return [part] if isinstance(part, nn.Parameter) else list(part.parameters())


def test_the_text_decoder_can_be_frozen_by_one_word() -> None:
    model = model_of("sonar")
    plan_of(model, groups="text_*").apply(model, 0)
    assert {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad} == {"encoder"}
    assert not any(p.requires_grad for p in model.decoder.parameters())


# Tied weights


@pytest.mark.parametrize("kind", KINDS)
def test_a_tied_weight_is_named_once_and_comes_back_tied(kind: str) -> None:
    model, fresh = model_of(kind), model_of(kind)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p))
    state = model.state_dict()
    assert sum(t.numel() for t in state.values()) == sum(t.numel() for t in (*model.parameters(), *model.buffers()))
    fresh.load_state_dict(load(save(state)))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), fresh.parameters(), strict=True))
    assert len(list(fresh.parameters())) == len(list(model.parameters()))


def test_a_module_without_ties_keeps_its_names_and_one_inside_another_too() -> None:
    plain = nn.Linear(2, 2)
    name_once(plain)
    assert list(plain.state_dict()) == ["weight", "bias"]
    inner = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)})
    inner["b"].weight = inner["a"].weight
    name_once(inner)
    outer = nn.Sequential(inner)
    assert list(outer.state_dict()) == ["0.a.weight", "0.a.bias", "0.b.bias"]
    outer.load_state_dict({name: torch.ones_like(t) for name, t in outer.state_dict().items()})
    assert inner["b"].weight is inner["a"].weight
