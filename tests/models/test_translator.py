"""Translator: padding changes nothing, it learns sentences by heart, and what cannot be is told in one sentence."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, M2M100Config, MBartConfig, PretrainedConfig, PreTrainedTokenizerFast, T5Config

from sign_dist.errors import DataError, SettingsError, WeightsError
from sign_dist.models.seq2seq import first_tokens, language_token, new_seq2seq, read_seq2seq, read_tokenizer
from sign_dist.models.translator import PADDING, Translator, TranslatorOptions
from sign_dist.transfer.freeze import groups_of

WIDTH, VOCABULARY, LANGUAGE = 16, 30, 25


def config(kind: str, **changes: Any) -> PretrainedConfig:
    """A small model of the kind, whose tokens are set as the published ones have them."""
    stacks = {
        "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
        "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "max_position_embeddings": 40, "dropout": 0.0, "attention_dropout": 0.0,
        "encoder_layerdrop": 0.0, "decoder_layerdrop": 0.0, "scale_embedding": True,
    }  # fmt: skip
    t5 = {"d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "dropout_rate": 0.0, "decoder_start_token_id": 0}
    shared = {"d_model": WIDTH, "vocab_size": VOCABULARY}
    match kind:
        case "t5":
            return T5Config(**shared | t5 | changes)
        case "t5_v1.1":
            return T5Config(**shared | t5 | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False} | changes)
        case "mbart_25":
            return MBartConfig(**shared | stacks | changes)
        case "mbart_50":
            return MBartConfig(**shared | stacks | {"decoder_start_token_id": 2} | changes)
        case _:
            return M2M100Config(**shared | stacks | changes)


KINDS = ["t5", "t5_v1.1", "mbart_25", "mbart_50", "m2m_100"]
LANGUAGES = {"mbart_25": LANGUAGE, "mbart_50": LANGUAGE, "m2m_100": LANGUAGE}


def translator(kind: str, *, recompute: bool = False, changes: dict[str, Any] | None = None, **options: Any) -> Translator:
    torch.manual_seed(0)
    given: dict[str, Any] = {"feature_dim": 6, "dropout": 0.0, "label_smoothing": 0.0, "language": LANGUAGES.get(kind)}
    model = Translator(new_seq2seq(config(kind, **changes or {})), TranslatorOptions(**given | options), recompute=recompute)
    return model.eval()


def clips(batch: int = 3, steps: int = 11) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(batch, steps, 6), torch.randint(1, steps + 1, (batch,))


SENTENCES = [[5, 6, 7], [8], [9, 5, 10, 11, 12]]


# Laws


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=8)
@given(
    lengths=st.lists(st.integers(1, 13), min_size=1, max_size=3),
    downsample=st.sampled_from([1, 2, 4]),
    padding=st.sampled_from([0.0, 1e4, math.nan, math.inf]),
)
@torch.inference_mode()
def test_what_stands_behind_a_clip_is_not_seen_and_clips_do_not_mix(
    kind: str, lengths: list[int], downsample: int, padding: float
) -> None:
    model, features = translator(kind, downsample=downsample), torch.randn(len(lengths), 13, 6)
    labels = model.labels(SENTENCES[: len(lengths)])
    alone = [model(features[i : i + 1, :n], torch.tensor([n]), labels[i : i + 1]) for i, n in enumerate(lengths)]
    for row, length in enumerate(lengths):
        features[row, length:] = padding
    found = model(features, torch.tensor(lengths), labels)
    assert found.shape == (len(lengths), labels.shape[1], VOCABULARY)
    torch.testing.assert_close(found, torch.cat(alone), atol=1e-4, rtol=1e-4)


@given(st.integers(1, 40), st.sampled_from([1, 2, 4, 8]))
@torch.inference_mode()
def test_features_are_made_fewer_and_the_count_is_rounded_up(length: int, downsample: int) -> None:
    x, valid = translator("t5", downsample=downsample).read(torch.randn(2, 40, 6), torch.tensor([length, 40]))
    assert x.shape == (2, -(-40 // downsample), WIDTH)
    assert valid.sum(1).tolist() == [-(-length // downsample), -(-40 // downsample)]


@pytest.mark.parametrize("kind", KINDS)
def test_labels_are_as_the_published_models_were_trained(kind: str) -> None:
    model = translator(kind)
    written = [LANGUAGE] if kind in ("mbart_50", "m2m_100") else []
    end = 1 if kind.startswith("t5") else 2
    assert model.start == {"t5": 0, "t5_v1.1": 0, "mbart_25": LANGUAGE, "mbart_50": 2, "m2m_100": 2}[kind]
    labels = model.labels(SENTENCES)
    longest = len(written) + 6
    expected = [[*written, *tokens, end] for tokens in SENTENCES]
    assert labels.tolist() == [row + [PADDING] * (longest - len(row)) for row in expected]


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_smoothed_and_leaves_padding_out(kind: str) -> None:
    model, (features, lengths) = translator(kind, label_smoothing=0.2), clips()
    labels = model.labels(SENTENCES)
    logits = model(features, lengths, labels)
    scores = logits.log_softmax(-1)
    expected: list[torch.Tensor] = []
    for row, said in zip(scores, labels, strict=True):
        for words, label in zip(row, said.tolist(), strict=True):
            if label != PADDING:
                expected.append(-(0.8 * words[label] + 0.2 * words.mean()))
    torch.testing.assert_close(model.loss(logits, labels), torch.stack(expected).mean())


@pytest.mark.parametrize("kind", KINDS)
def test_recomputing_gives_equal_gradients(kind: str) -> None:
    features, lengths = clips()
    found: list[dict[str, torch.Tensor | None]] = []
    for recompute in (False, True):
        model = translator(kind, recompute=recompute, downsample=2).train()
        labels = model.labels(SENTENCES)
        model.loss(model(features, lengths, labels), labels).backward()
        found.append({name: p.grad for name, p in model.named_parameters()})
    assert all(gradient is not None for gradient in found[0].values())
    torch.testing.assert_close(found[1], found[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_attention_is_fused(kind: str) -> None:
    assert translator(kind).seq2seq.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("kind", KINDS)
def test_groups_hold_every_parameter_once_and_what_is_new_comes_first(kind: str) -> None:
    model = translator(kind)
    groups = groups_of(model)
    found = [id(p) for parameters in groups.values() for p in parameters]
    assert sorted(found) == sorted(id(p) for p in model.parameters())
    assert list(groups) == ["projection", "decoder_1", "decoder_0", "encoder_1", "encoder_0", "embeddings"]


def learn(model: Translator, steps: int = 100) -> tuple[torch.Tensor, torch.Tensor]:
    features, lengths = clips()
    labels = model.labels(SENTENCES)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    model.train()
    for _ in range(steps):
        loss = model.loss(model(features, lengths, labels), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    return features, lengths


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_sentences_are_learned_by_heart_saved_and_said_again(kind: str, tmp_path: Path) -> None:
    model = translator(kind, downsample=2)
    features, lengths = learn(model)
    for beams in (1, 4):
        assert model.generate(features, lengths, num_beams=beams, max_len=12) == SENTENCES
    for i, sentence in enumerate(SENTENCES):
        assert model.generate(features[i : i + 1, : lengths[i]], lengths[i : i + 1], max_len=12) == [sentence]
    assert model.generate(features, lengths, num_beams=1, max_len=2)[2] == SENTENCES[2][: 1 if model.forced is None else 0]
    model.save(tmp_path / "saved")
    again = Translator.load(tmp_path / "saved").eval()
    assert again.options == model.options
    labels = model.labels(SENTENCES)
    with torch.inference_mode():
        torch.testing.assert_close(again(features, lengths, labels), model(features, lengths, labels))
    assert again.generate(features, lengths, max_len=12) == SENTENCES
    assert read_seq2seq(tmp_path / "saved").config.model_type == model.seq2seq.config.model_type


@torch.inference_mode()
def test_bfloat16_and_half_precision_features_are_near_full_precision() -> None:
    model, (features, lengths) = translator("t5_v1.1"), clips()
    labels = model.labels(SENTENCES)
    whole = model(features, lengths, labels)
    with torch.autocast("cpu", torch.bfloat16):
        half = model(features, lengths, labels)
    assert float((half.float() - whole).norm() / whole.norm()) < 0.05
    stored = model(features.half(), lengths, labels)
    assert float((stored - whole).norm() / whole.norm()) < 0.01


# What cannot be


@pytest.mark.parametrize("shape", [(3, 11, 7), (3, 66), (3, 11, 6, 1)])
def test_features_of_another_width_are_refused(shape: tuple[int, ...]) -> None:
    model = translator("t5")
    with pytest.raises(DataError, match=r"features have the shape .* the translator reads \(B, T, 6\)"):
        model(torch.zeros(shape), torch.tensor([1, 1, 1]), model.labels(SENTENCES))


@pytest.mark.parametrize(
    ("sentences", "said"),
    [
        ([[5], []], "sentence 1 of the batch has no tokens"),
        ([], "no sentences"),
        ([[5, 30]], "has the token 30, the model knows 0 to 29"),
        ([[-1]], "has the token -1"),
        ([[5] * 39], "takes 41 tokens, the model writes at most 40"),
    ],
)
def test_targets_that_cannot_be_written_are_refused(sentences: list[list[int]], said: str) -> None:
    with pytest.raises(DataError, match=said):
        translator("mbart_50").labels(sentences)


def test_a_clip_longer_than_the_table_of_positions_is_refused_where_there_is_one() -> None:
    features, lengths = torch.randn(1, 41, 6), torch.tensor([41])
    with pytest.raises(DataError, match="41 steps behind a downsample of 1, mbart reads at most 40"):
        translator("mbart_50").generate(features, lengths)
    for kind, downsample in (("mbart_50", 2), ("m2m_100", 1), ("t5", 1)):
        assert len(translator(kind, downsample=downsample).generate(features, lengths, max_len=3)) == 1


def test_generation_ends_where_positions_end() -> None:
    model = translator("mbart_50")
    with torch.no_grad():
        model.seq2seq.get_output_embeddings().weight[2].zero_()  # the end is never likely
        model.seq2seq.get_output_embeddings().weight[5] *= 50
    (written,) = model.generate(*clips(1), max_len=1000)
    assert len(written) <= 40


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"feature_dim": 0}, "feature_dim >= 1, got 0"),
        ({"downsample": 3}, "downsample of 1, 2, 4, 8, ..., got 3"),
        ({"downsample": 0}, "downsample"),
        ({"dropout": 1.0}, "dropout and label_smoothing"),
        ({"label_smoothing": -0.1}, "got .* and -0.1"),
        ({"language": 99}, "need a language's token from 0 to 29, got 99"),
        ({"language": None}, "m2m_100 writes many languages"),
    ],
)
def test_options_that_make_no_sense_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        translator("m2m_100", **wrong)


def test_no_beams_and_no_tokens_are_refused() -> None:
    for wrong in ({"num_beams": 0}, {"max_len": 0}):
        with pytest.raises(SettingsError, match="need num_beams >= 1 and max_len >= 1"):
            translator("t5").generate(*clips(), **wrong)


def test_a_model_that_names_its_own_start_and_language_keeps_them() -> None:
    """As mBART finetuned for one language has it: it begins with the language, 20."""
    assert first_tokens(new_seq2seq(config("mbart_25", decoder_start_token_id=20)), None) == (20, None)
    model = new_seq2seq(config("mbart_50"))
    model.generation_config.forced_bos_token_id = 20
    assert first_tokens(model, None) == (2, 20)
    assert first_tokens(model, 21) == (2, 21)
    with pytest.raises(SettingsError, match="mbart writes many languages"):
        first_tokens(new_seq2seq(config("mbart_25")), None)


# Folders


def test_a_folder_that_is_none_is_told_in_a_sentence_without_the_network(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"cannot read .*no/such/model.* no such folder, and the hub's cache"):
        read_seq2seq("no/such/model")
    with pytest.raises(WeightsError, match="the folder holds no such model"):
        read_seq2seq(tmp_path)
    with pytest.raises(WeightsError, match="is no translator's folder"):
        Translator.load(tmp_path)


def damage_config(folder: Path) -> None:
    (folder / "config.json").write_text("{ not json")


def cut_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:500])


def other_sizes(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"d_ff": 48}))


def more_layers(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_layers": 3}))


def cut_projection(folder: Path) -> None:
    (folder / "projection.safetensors").write_bytes(b"12345678")


def other_projection(folder: Path) -> None:
    path = folder / "translator.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"feature_dim": 7}))


def odd_options(folder: Path) -> None:
    (folder / "translator.json").write_text('{"feature_dim": "many"}')


@pytest.mark.long
@pytest.mark.parametrize(
    "harm", [damage_config, cut_weights, other_sizes, more_layers, cut_projection, other_projection, odd_options]
)
def test_a_damaged_folder_is_told_in_a_sentence(harm: Any, tmp_path: Path) -> None:
    translator("t5").save(tmp_path)
    assert Translator.load(tmp_path).options.feature_dim == 6
    harm(tmp_path)
    with pytest.raises(WeightsError) as told:
        Translator.load(tmp_path)
    assert "\n" not in str(told.value)
    assert len(str(told.value)) < 500


def test_a_model_that_writes_no_text_is_refused(tmp_path: Path) -> None:
    small = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=9)
    with pytest.raises(WeightsError, match="'bert' writes no text"):
        new_seq2seq(small)
    BertModel(small).save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match="the folder holds no such model"):
        read_seq2seq(tmp_path)


@pytest.mark.long
def test_text_goes_in_and_comes_out_by_a_tokenizer_of_the_same_folder(tmp_path: Path) -> None:
    words = ["<s>", "<pad>", "</s>", "<unk>", "__de__", "morgen", "regen", "im", "norden"]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=inner, extra_special_tokens=["__de__"], **special).save_pretrained(tmp_path)
    tokenizer: Any = read_tokenizer(tmp_path)
    with pytest.raises(SettingsError, match="no token of the language 'fr'"):
        language_token(tokenizer, "fr")
    model = translator("m2m_100", language=language_token(tokenizer, "de"))
    assert model.forced == 4
    texts = ["morgen regen", "regen im norden", "norden"]
    features, lengths = clips()
    labels = model.labels(tokenizer(texts, add_special_tokens=False).input_ids)
    optimizer = torch.optim.Adam(model.train().parameters(), lr=1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        model.loss(model(features, lengths, labels), labels).backward()
        optimizer.step()
    assert tokenizer.batch_decode(model.eval().generate(features, lengths, max_len=10)) == texts
    with pytest.raises(WeightsError, match="cannot read"):
        read_tokenizer(tmp_path / "nothing")
