"""Adapters change nothing until they are trained, train nothing else, and merge into weights that compute the same."""

import pytest
import torch
from torch import nn
from transformers import T5Config, T5ForConditionalGeneration

from sign_dist.config.model import FeatureModel, LandmarkModel, VideoCnnModel
from sign_dist.errors import SettingsError, WeightsError
from sign_dist.models.build import build_model
from sign_dist.models.cslr import CslrHead, CslrOutputs
from sign_dist.models.i3d import InceptionI3d
from sign_dist.models.mae import MaskedAutoencoder, Reconstruction
from sign_dist.models.signhiera import PRESETS, SignHiera
from sign_dist.models.sonar.sign_encoder import SignEncoder, SignEncoderShape
from sign_dist.models.sonar.text_decoder import TextDecoder, TextDecoderShape
from sign_dist.models.student import CtcStudent
from sign_dist.models.temporal_i3d import TemporalI3d
from sign_dist.models.translator import Translator, TranslatorOptions
from sign_dist.transfer.freeze import ADAPTER, keep_frozen_still, plan_of
from sign_dist.transfer.lora import (
    adapters_of,
    add_adapters,
    has_adapters,
    load_adapters,
    merged_state,
    share_of_adapters,
    targets_of,
)
from sign_dist.video.landmarks import NUM_LANDMARKS

CASES = {
    "signhiera": (lambda: SignHiera(PRESETS["tiny"], 3), "qkv mlp.fc1", (1, 3, 16, 64, 64)),
    "feature": (lambda: build_model(FeatureModel(width=16), num_classes=3, feature_shape=(8,)), "trunk.*", (2, 6, 8)),
    "landmark": (
        lambda: build_model(LandmarkModel(width=16, members=2), num_classes=3, feature_shape=(NUM_LANDMARKS, 4)),
        "members.0.trunk.*",
        (2, 6, NUM_LANDMARKS, 4),
    ),
    "video_cnn": (lambda: build_model(VideoCnnModel(), num_classes=3, feature_shape=(32, 32, 3)), "stages.*", (2, 6, 32, 32, 3)),
    "temporal_i3d": (lambda: TemporalI3d(5, modalities=(4, 8)), "conv modality_fusion.qkv", (2, 16, 12)),
    "i3d": (lambda: InceptionI3d(3), "Mixed_4*.conv3d Conv3d_1a_7x7.conv3d logits.conv3d", (1, 3, 9, 32, 32)),
    "student": (lambda: CtcStudent(8, 5, width=16), "*", (2, 12, 8)),
    "cslr": (lambda: CslrHead(8, 5, hidden=16), "conv1d.*", (2, 28, 8)),
    "mae": (
        lambda: MaskedAutoencoder(PRESETS["tiny"], decoder_dim=16, decoder_depth=1, decoder_heads=2),
        "qkv decoder_pred",
        (1, 3, 16, 64, 64),
    ),
    "sign_encoder": (
        lambda: SignEncoder(SignEncoderShape(6, 10, d_model=16, d_kv=4, d_ff=20, num_layers=2, num_decoder_layers=2, num_heads=3)),
        "v wi_0 wo feature_proj",
        (2, 5, 6),
    ),
    "text_decoder": (
        lambda: TextDecoder(TextDecoderShape(vocab_size=13, dim=16, num_layers=2, num_heads=4, ffn_dim=20, max_len=14)),
        "q_proj v_proj ffn.inner_proj",
        (2, 16),
    ),
    "translator": (
        lambda: Translator(
            T5ForConditionalGeneration(
                T5Config(d_model=16, vocab_size=30, d_kv=8, d_ff=32, num_layers=2, num_heads=2, decoder_start_token_id=0)
            ),
            TranslatorOptions(feature_dim=6),
        ),
        "q v",
        (2, 11, 6),
    ),
    "convolutions": (lambda: nn.Sequential(nn.Conv3d(3, 4, 3, padding=1), nn.BatchNorm3d(4), nn.ReLU()), "0", (1, 3, 4, 8, 8)),
}


def case(name: str) -> tuple[nn.Module, str, tuple[torch.Tensor, ...]]:
    torch.manual_seed(0)
    make, patterns, shape = CASES[name]
    model = make()
    model.eval()
    x = torch.rand(shape)
    if name == "video_cnn":
        x = (x * 255).to(torch.uint8)
    if name in ("signhiera", "i3d", "mae", "convolutions"):
        return model, patterns, (x,)
    tokens = {"text_decoder": (torch.tensor([[3, 4, 5], [6, 7, 8]]),), "translator": (torch.tensor([[3, 1], [4, 1]]),)}.get(
        name, ()
    )
    lengths = () if name == "text_decoder" else (torch.full((shape[0],), shape[1]),)
    return model, patterns, (x, *lengths, *tokens)


def answer(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
    torch.manual_seed(0)  # what is masked is drawn
    out = model(*inputs)
    if isinstance(out, Reconstruction):
        return out.pred
    return out.logits if isinstance(out, CslrOutputs) else out[0] if isinstance(out, tuple) else out


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_adapters_start_as_nothing_learn_alone_and_merge_exactly(name: str) -> None:
    model, patterns, inputs = case(name)
    before, names = answer(model, inputs).detach(), list(model.state_dict())
    original = {n: t.clone() for n, t in model.state_dict().items()}
    targets = targets_of(model, patterns)
    add_adapters(model, patterns, rank=2, alpha=4)
    torch.testing.assert_close(answer(model, inputs), before)
    assert {n for n, p in model.named_parameters() if p.requires_grad} == set(adapters_of(model))
    assert len(adapters_of(model)) == 2 * len(targets)
    assert 0 < share_of_adapters(model) < 0.5
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        answer(model, inputs).square().sum().backward()
        optimizer.step()
    after = answer(model, inputs).detach()
    assert not torch.allclose(after, before, atol=1e-4)
    merged = merged_state(model)
    assert list(merged) == names
    changed = {n for n, t in merged.items() if not torch.equal(t, original[n])}
    assert changed == {f"{target}.weight" for target in targets}
    plain = case(name)[0]
    plain.load_state_dict(merged)
    torch.testing.assert_close(answer(plain, inputs), after, atol=2e-4, rtol=2e-4)
    other = add_adapters(case(name)[0], patterns, rank=2, alpha=4, seed=9)
    load_adapters(other, adapters_of(model))
    torch.testing.assert_close(answer(other, inputs), after)


def test_a_model_without_adapters_merges_into_itself() -> None:
    model = case("signhiera")[0]
    assert not has_adapters(model)
    assert all(torch.equal(t, model.state_dict()[n]) for n, t in merged_state(model).items())


def test_a_plan_with_adapters_trains_them_and_the_head() -> None:
    model = SignHiera(PRESETS["tiny"], 3)
    add_adapters(model, "qkv", rank=2)
    plan = plan_of(model, stages=2, adapters=True)
    for stage in range(2):
        groups = plan.apply(model, stage)
        trained = {n for n, p in model.named_parameters() if p.requires_grad}
        assert {n for n in trained if ADAPTER not in n} == {
            n for n, _ in model.named_parameters() if n.startswith(("head.", "norm."))
        }
        wanted = {i for i in range(5) if f"block_{i}" in groups}
        assert {int(n.split(".")[1]) for n in trained if ADAPTER in n} == wanted
    assert wanted == set(range(5))


def test_what_adapters_sit_on_keeps_its_statistics() -> None:
    model = nn.Sequential(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Conv1d(4, 2, 1))
    add_adapters(model, "0 3", rank=2)
    model.train()
    keep_frozen_still(model)
    before = {n: t.clone() for n, t in model[1].state_dict().items()}
    model(torch.randn(5, 3, 9)).sum().backward()
    assert all(torch.equal(t, before[n]) for n, t in model[1].state_dict().items())
    assert model[2].training, "dropout still drops"


def test_wrong_targets_and_foreign_adapters_are_refused() -> None:
    model = SignHiera(PRESETS["tiny"], 3)
    with pytest.raises(SettingsError, match="no layer 'q_proj' that an adapter can sit on: there are patch_embed"):
        add_adapters(model, "qkv q_proj")
    with pytest.raises(SettingsError, match="need targets"):
        add_adapters(model, " ")
    assert not has_adapters(model)
    add_adapters(model, "qkv", rank=2)
    other = add_adapters(SignHiera(PRESETS["tiny"], 3), "qkv", rank=4)
    with pytest.raises(WeightsError, match="10 adapters do not fit"):
        load_adapters(model, adapters_of(other))


def test_attention_of_torch_offers_no_target_that_would_be_passed_by() -> None:
    model = nn.ModuleDict({"attention": nn.MultiheadAttention(4, 2), "linear": nn.Linear(4, 4)})
    assert targets_of(model, "*") == ["linear"]


def test_a_weight_that_two_layers_share_offers_no_target() -> None:
    """Merged into one of the two, an adapter would change the other as well, or be lost."""
    model = nn.ModuleDict({"embed": nn.Embedding(5, 4), "inner": nn.Linear(4, 4), "out": nn.Linear(4, 5, bias=False)})
    assert targets_of(model, "*") == ["embed", "inner", "out"]
    model["out"].weight = model["embed"].weight
    assert targets_of(model, "*") == ["inner"]


def test_convolutions_whose_adapters_could_not_be_merged_offer_no_target() -> None:
    model = nn.Sequential(nn.Conv1d(4, 4, 3, groups=4), nn.Conv1d(4, 4, 3, dilation=2), nn.Conv1d(4, 4, 3))
    assert targets_of(model, "*") == ["2"]
