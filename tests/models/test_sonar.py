"""SONAR: padding and batches change nothing, gradients are whole, published layouts load, and the laws of beam search."""

import dataclasses
import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import M2M100Config, M2M100ForConditionalGeneration

from sign_dist.errors import WeightsError
from sign_dist.models.sonar.beam import BeamOptions, beam_search
from sign_dist.models.sonar.sign_encoder import SignEncoder, SignEncoderShape
from sign_dist.models.sonar.text_decoder import TextDecoder, TextDecoderShape
from sign_dist.transfer.load import read_state_dict

ENCODER = SignEncoderShape(6, 10, d_model=16, d_kv=4, d_ff=20, num_layers=2, num_decoder_layers=2, num_heads=3)
DECODER = TextDecoderShape(vocab_size=13, dim=16, num_layers=2, num_heads=4, ffn_dim=20, max_len=14)
END, UNKNOWN, LANGUAGE = 3, 1, 9
PROMPT = [END, LANGUAGE]


def sign_encoder(**options: Any) -> SignEncoder:
    torch.manual_seed(0)
    model = SignEncoder(ENCODER, **options)
    for name, parameter in model.named_parameters():  # T5's own start is so small that nothing would depend on time
        if "norm" not in name and "scale" not in name:
            torch.nn.init.normal_(parameter, std=0.5)
    return model.eval()


def text_decoder(seed: int = 0, **options: Any) -> TextDecoder:
    torch.manual_seed(seed)
    model = TextDecoder(DECODER, **options)
    for name, parameter in model.named_parameters():
        if "norm" not in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def gradients(model: torch.nn.Module, output: Tensor) -> dict[str, Tensor | None]:
    output.square().sum().backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


# Sign encoder


@pytest.mark.long
@given(st.lists(st.integers(1, 12), min_size=1, max_size=4), st.sampled_from([0.0, 1e4, math.nan, math.inf]))
@torch.inference_mode()
def test_what_stands_behind_a_clip_is_not_seen_and_clips_do_not_mix(lengths: list[int], padding: float) -> None:
    model, features = sign_encoder(), torch.randn(len(lengths), 12, 6)
    alone = torch.cat([model(clip[None, :n]) for clip, n in zip(features, lengths, strict=True)])
    for row, length in enumerate(lengths):
        features[row, length:] = padding
    torch.testing.assert_close(model(features, torch.tensor(lengths)), alone, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_the_order_of_features_matters() -> None:
    model, features = sign_encoder(), torch.randn(1, 12, 6)
    assert not torch.allclose(model(features), model(features.flip(1)), atol=1e-2)


def test_every_parameter_has_a_gradient_and_recomputing_gives_the_same() -> None:
    features, lengths = torch.randn(2, 9, 6), torch.tensor([9, 4])
    plain, again = (gradients(model, model.train()(features, lengths)) for model in (sign_encoder(), sign_encoder(recompute=True)))
    assert all(gradient is not None for gradient in plain.values())
    torch.testing.assert_close(again, plain, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_half_precision_is_near_full_precision() -> None:
    encoder, decoder, features = sign_encoder(), text_decoder(), torch.randn(2, 9, 6)
    embeddings, tokens = torch.randn(2, 16), torch.tensor([[END, LANGUAGE, 5, 6]] * 2)
    whole = (encoder(features), decoder(embeddings, tokens))
    with torch.autocast("cpu", torch.bfloat16):
        half = (encoder(features), decoder(embeddings, tokens))
    for found, expected in zip(half, whole, strict=True):
        assert float((found.float() - expected).norm() / expected.norm()) < 0.1


def published(model: SignEncoder, projection: str) -> dict[str, Tensor]:
    """The names of the published file; its vocabulary has more rows, of which one is read."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        if name.startswith("feature_proj"):
            tensors[f"encoder.{projection}{name}"] = tensor
        elif name.endswith(("shared.weight", "embed_tokens.weight")):
            tensors[name.removeprefix("t5.")] = torch.cat([tensor, torch.randn(5, 16)])
        else:
            tensors[name.removeprefix("t5.")] = tensor
    return tensors


@pytest.mark.parametrize("projection", ["", "feature_projection."])
@pytest.mark.parametrize("without", [(), ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight"), ("shared.weight",)])
@torch.inference_mode()
def test_published_names_load_with_sizes_read_off(projection: str, without: tuple[str, ...]) -> None:
    model, features = sign_encoder(), torch.randn(2, 7, 6)
    tensors = published(model, projection)
    found = SignEncoder.from_tensors({name: tensor for name, tensor in tensors.items() if name not in without}).eval()
    assert found.shape == ENCODER
    torch.testing.assert_close(found(features), model(features))
    assert found.state_dict().keys() == model.state_dict().keys()
    assert all(parameter.requires_grad and not parameter.is_meta for parameter in found.parameters())
    own = SignEncoder.from_tensors(found.state_dict()).eval()  # and what we saved ourselves
    torch.testing.assert_close(own(features), model(features))


@torch.inference_mode()
def test_files_as_they_are_published_become_models(tmp_path: Path) -> None:
    """The sign encoder in its container `student`, the text decoder in `state_dict` with fairseq's names."""
    encoder, theirs = sign_encoder(), m2m100()
    torch.save({"student": published(encoder, ""), "epoch": 3}, tmp_path / "encoder.pth")
    torch.save({"state_dict": as_fairseq(theirs)}, tmp_path / "decoder.pt")
    features = torch.randn(2, 7, 6)
    found = SignEncoder.from_tensors(read_state_dict(tmp_path / "encoder.pth")).eval()
    torch.testing.assert_close(found(features), encoder(features))
    decoder = TextDecoder.from_tensors(read_state_dict(tmp_path / "decoder.pt"), num_heads=4, max_len=14)
    expected = TextDecoder.from_tensors(as_transformers(theirs), num_heads=4, max_len=14)
    torch.testing.assert_close(decoder.state_dict(), expected.state_dict())


def test_weights_are_in_memory_once_and_the_unread_vocabulary_is_let_go() -> None:
    tensors = published(sign_encoder(), "")
    found = SignEncoder.from_tensors(tensors)
    assert found.projection_out.weight.data_ptr() == tensors["projection_out.weight"].data_ptr()
    assert found.t5.shared.weight.untyped_storage().nbytes() == 4 * 16
    assert found.t5.shared.weight is found.t5.decoder.embed_tokens.weight


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("encoder.feature_proj.weight"), "holds no sign encoder"),
        (lambda t: t.pop("projection_out.weight"), "holds no sign encoder"),
        (lambda t: t.pop("encoder.block.1.layer.1.DenseReluDense.wo.weight"), "1 of .* missing"),
        (lambda t: t.update({"encoder.final_layer_norm.weight": torch.zeros(7)}), "another shape"),
        (lambda t: t.update({"encoder.feature_proj.weight": torch.zeros(7)}), "has a matrix there"),
        (lambda t: [t.pop(name) for name in list(t) if name.startswith("decoder.block")], "no whole sign encoder"),
        (lambda t: t.clear(), "begin with nothing"),
    ],
)
def test_other_tensors_are_no_sign_encoder(change: Any, said: str) -> None:
    tensors = published(sign_encoder(), "")
    change(tensors)
    with pytest.raises(WeightsError, match=said):
        SignEncoder.from_tensors(tensors)


@pytest.mark.parametrize("shape", [(2, 7, 5), (7, 6), (2, 0, 6)])
def test_features_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"need features \(B, T >= 1, 6\)"):
        sign_encoder()(torch.zeros(shape))


@pytest.mark.parametrize("lengths", [[7], [0, 7], [8, 7], [[7, 7]]])
def test_lengths_that_are_none_are_refused(lengths: list[Any]) -> None:
    with pytest.raises(ValueError, match="need 2 lengths from 1 to 7"):
        sign_encoder()(torch.zeros(2, 7, 6), torch.tensor(lengths))


# Text decoder


@given(st.lists(st.integers(1, 4), min_size=1, max_size=6), st.integers(1, 3))
@torch.inference_mode()
def test_tokens_read_in_parts_give_what_the_whole_gives(parts: list[int], batch: int) -> None:
    parts = [n for n, end in zip(parts, itertools.accumulate(parts), strict=True) if end <= DECODER.max_len]
    model, embeddings = text_decoder(), torch.randn(batch, 16)
    tokens = torch.randint(0, 13, (batch, sum(parts)))
    whole = model(embeddings, tokens)
    state = model.start(embeddings)
    found = torch.cat([model.logits(model.read(part, state)) for part in tokens.split(parts, dim=1)], dim=1)
    torch.testing.assert_close(found, whole, atol=1e-4, rtol=1e-4)
    alone = torch.cat([model(embeddings[i : i + 1], tokens[i : i + 1]) for i in range(batch)])
    torch.testing.assert_close(alone, whole, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_a_token_changes_nothing_before_it() -> None:
    model, embeddings = text_decoder(), torch.randn(1, 16)
    tokens = torch.tensor([[3, 9, 4, 5, 6]])
    other = tokens.clone()
    other[0, 3] = 8
    before, after = model(embeddings, tokens), model(embeddings, other)
    torch.testing.assert_close(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3:], after[:, 3:], atol=1e-2)


def test_recomputing_the_decoder_gives_equal_gradients() -> None:
    embeddings, tokens = torch.randn(2, 16), torch.randint(0, 13, (2, 6))
    plain, again = (gradients(model, model.train()(embeddings, tokens)) for model in (text_decoder(), text_decoder(recompute=True)))
    assert all(gradient is not None for gradient in plain.values())
    torch.testing.assert_close(again, plain, atol=1e-4, rtol=1e-4)


def m2m100() -> M2M100ForConditionalGeneration:
    """A decoder of our sizes as transformers has it; the order of its first four tokens is (bos, pad, eos, unk)."""
    config = M2M100Config(
        vocab_size=13, d_model=16, encoder_layers=1, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
        decoder_ffn_dim=20, encoder_ffn_dim=20, scale_embedding=True, activation_function="relu", dropout=0.0,
        pad_token_id=1, bos_token_id=0, eos_token_id=2, decoder_start_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    model = M2M100ForConditionalGeneration(config)
    for name, parameter in model.named_parameters():
        if "norm" not in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def as_transformers(model: M2M100ForConditionalGeneration) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in model.state_dict().items() if "encoder.layer" not in name}


def as_fairseq(model: M2M100ForConditionalGeneration) -> dict[str, Tensor]:
    tensors = {name.removeprefix("model."): t for name, t in model.state_dict().items() if name.startswith("model.decoder")}
    extra = {"decoder.version": torch.tensor([3.0]), "decoder.embed_positions._float_tensor": torch.zeros(1)}
    return tensors | extra | {"decoder.output_projection.weight": tensors["decoder.embed_tokens.weight"]}


def as_saved(model: M2M100ForConditionalGeneration) -> dict[str, Tensor]:
    """One of the tied names alone, as a safetensors file holds it."""
    return {n: t for n, t in as_transformers(model).items() if not n.endswith(("embed_tokens.weight", "shared.weight"))}


def as_fairseq2(model: M2M100ForConditionalGeneration) -> dict[str, Tensor]:
    own = TextDecoder.from_tensors(as_fairseq(model), num_heads=4).state_dict()
    embedding = own.pop("embed.weight")
    tensors = {f"decoder.{name}": tensor for name, tensor in own.items()}
    return tensors | {"decoder_frontend.embed.weight": embedding, "final_proj.weight": embedding}


@pytest.mark.parametrize("layout", [as_transformers, as_fairseq, as_saved, as_fairseq2])
@torch.inference_mode()
def test_every_published_layout_loads_and_gives_what_transformers_gives(layout: Any) -> None:
    theirs = m2m100()
    model = TextDecoder.from_tensors(layout(theirs), num_heads=4, max_len=14).eval()
    assert model.shape == DECODER
    tokens, embeddings = torch.tensor([[3, 9, 4, 0, 1, 2], [3, 10, 12, 5, 2, 3]]), torch.randn(2, 16)
    order = torch.arange(13)
    order[:4] = torch.tensor([1, 3, 0, 2])  # our number -> theirs
    # Their positions skip padding, which is said in the first row: there they are compared up to it.
    read = theirs.model.decoder(order[tokens], encoder_hidden_states=embeddings[:, None]).last_hidden_state
    expected, found = theirs.lm_head(read)[..., order], model(embeddings, tokens)
    torch.testing.assert_close(found[0, :3], expected[0, :3], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found[1], expected[1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("model.decoder.layers.0.fc1.weight"), "holds no text decoder"),
        (lambda t: t.pop("model.decoder.layers.1.fc2.bias"), "1 of .* missing"),
        (lambda t: t.update({"model.decoder.layer_norm.weight": torch.zeros(3)}), "another shape"),
        (lambda t: [t.pop(name) for name in list(t) if "embed" in name or "shared" in name or "lm_head" in name], "embed.weight"),
        (lambda t: t.clear(), "begin with nothing"),
    ],
)
def test_other_tensors_are_no_text_decoder(change: Any, said: str) -> None:
    tensors = as_transformers(m2m100())
    change(tensors)
    with pytest.raises(WeightsError, match=said):
        TextDecoder.from_tensors(tensors, num_heads=4)


def test_embeddings_and_tokens_of_another_shape_are_refused() -> None:
    model = text_decoder()
    with pytest.raises(ValueError, match=r"need embeddings \(B, 16\), got \(2, 15\)"):
        model.start(torch.zeros(2, 15))
    with pytest.raises(ValueError, match="need at most 14 tokens, got 15"):
        model(torch.zeros(1, 16), torch.zeros(1, 15, dtype=torch.long))
    with pytest.raises(ValueError, match="3 heads"):
        TextDecoder(dataclasses.replace(DECODER, num_heads=3))


# Beam search


@torch.inference_mode()
def score(model: TextDecoder, embedding: Tensor, tokens: list[int], options: BeamOptions) -> float:
    """Of a sentence, by reading it whole."""
    logits = model(embedding[None], torch.tensor([tokens[:-1]]))[0] / options.temperature
    total = float(logits.log_softmax(-1).gather(-1, torch.tensor(tokens[1:])[:, None]).sum())
    total -= options.unk_penalty * tokens[len(PROMPT) :].count(options.unknown)
    return total / (len(tokens) - 1) ** options.len_penalty if options.normalize_scores else total


SEARCHES = st.builds(
    BeamOptions,
    beam_size=st.integers(1, 6),
    min_gen_len=st.integers(1, 5),
    max_seq_len=st.none() | st.integers(3, 14),
    len_penalty=st.sampled_from([0.0, 0.6, 1.0, 1.5]),
    unk_penalty=st.sampled_from([0.0, 0.7]),
    temperature=st.sampled_from([0.5, 1.0, 1.7]),
    normalize_scores=st.booleans(),
    forbidden=st.sampled_from([(1,), (0,), (0, 1, 5), ()]),
)


@given(SEARCHES, st.integers(0, 20), st.integers(1, 3))
def test_what_a_search_finds_is_what_its_options_allow(options: BeamOptions, seed: int, batch: int) -> None:
    model, embeddings = text_decoder(seed), torch.randn(batch, 16)
    found = beam_search(model, embeddings, PROMPT, options)
    assert len(found) == batch
    longest = min(options.max_seq_len or DECODER.max_len, DECODER.max_len) - len(PROMPT)
    for embedding, hypotheses in zip(embeddings, found, strict=True):
        assert 1 <= len(hypotheses) <= options.beam_size
        assert len({h.tokens for h in hypotheses}) == len(hypotheses)
        assert [h.score for h in hypotheses] == sorted((h.score for h in hypotheses), reverse=True)
        for h in hypotheses:
            assert h.tokens[-1] == END
            assert END not in h.tokens[:-1]
            assert not set(options.forbidden) & set(h.tokens)
            assert min(options.min_gen_len, longest) <= len(h.tokens) <= longest
            assert h.score == pytest.approx(score(model, embedding, [*PROMPT, *h.tokens], options), abs=1e-4)
            assert len(h.step_scores) == len(h.tokens)
            length = len(PROMPT) + len(h.tokens)
            whole = h.score * (length - 1) ** options.len_penalty if options.normalize_scores else h.score
            assert sum(h.step_scores) == pytest.approx(whole, abs=1e-4)


@pytest.mark.long
@given(SEARCHES, st.integers(0, 20))
def test_a_batch_gives_what_each_input_gives_alone(options: BeamOptions, seed: int) -> None:
    model, embeddings = text_decoder(seed), torch.randn(3, 16)
    together = beam_search(model, embeddings, PROMPT, options)
    for row, hypotheses in enumerate(together):
        (alone,) = beam_search(model, embeddings[row : row + 1], PROMPT, options)
        assert [h.tokens for h in alone] == [h.tokens for h in hypotheses]
        assert [h.score for h in alone] == pytest.approx([h.score for h in hypotheses], abs=1e-5)


@given(st.integers(0, 30))
def test_one_beam_is_greedy(seed: int) -> None:
    """With scores that are sums: of the two best words the better one is taken, the end as well as any other."""
    model, embedding = text_decoder(seed), torch.randn(1, 16)
    tokens = list(PROMPT)
    with torch.inference_mode():
        while tokens[-1] != END or len(tokens) == len(PROMPT):
            logits = model(embedding, torch.tensor([tokens]))[0, -1]
            logits[UNKNOWN] = -math.inf
            tokens.append(END if len(tokens) == DECODER.max_len - 1 else int(logits.argmax()))
    ((found,),) = beam_search(model, embedding, PROMPT, BeamOptions(beam_size=1))
    assert list(found.tokens) == tokens[len(PROMPT) :]


@pytest.mark.long
@settings(max_examples=5)
@given(st.integers(0, 10))
def test_a_beam_that_holds_everything_finds_the_best_sentence(seed: int) -> None:
    """Sentences of up to three words, all tried one by one."""
    model, embedding = text_decoder(seed), torch.randn(1, 16)
    options = BeamOptions(beam_size=200, max_seq_len=len(PROMPT) + 3, normalize_scores=False, min_gen_len=3)
    words = [token for token in range(DECODER.vocab_size) if token not in (END, UNKNOWN)]
    # Candidates are as many as the vocabulary has words: so many pairs of two words are kept, and so many are compared.
    firsts = sorted(words, key=lambda w: score(model, embedding[0], [*PROMPT, w], options), reverse=True)
    pairs = [(a, b) for a in firsts for b in words]
    pairs = sorted(pairs, key=lambda p: score(model, embedding[0], [*PROMPT, *p], options), reverse=True)[: DECODER.vocab_size]
    best = max(score(model, embedding[0], [*PROMPT, *pair, END], options) for pair in pairs)
    (found,) = beam_search(model, embedding, PROMPT, options)
    assert found[0].score == pytest.approx(best, abs=1e-4)
    assert {h.tokens[:2] for h in found} == set(pairs)


def test_a_vocabulary_smaller_than_the_beam_gives_each_sentence_once() -> None:
    torch.manual_seed(0)
    model = TextDecoder(dataclasses.replace(DECODER, vocab_size=5, max_len=7)).eval()
    (found,) = beam_search(model, torch.randn(1, 16), [END, 4], BeamOptions(beam_size=6))
    assert len({h.tokens for h in found}) == len(found) >= 3
    assert all(h.tokens.index(END) == len(h.tokens) - 1 and math.isfinite(h.score) for h in found)


def test_the_prompt_is_echoed_with_its_scores() -> None:
    model, embeddings = text_decoder(), torch.randn(2, 16)
    plain = beam_search(model, embeddings, PROMPT)
    echoed = beam_search(model, embeddings, PROMPT, BeamOptions(echo_prompt=True))
    for row, (mine, other) in enumerate(zip(plain, echoed, strict=True)):
        assert [(*PROMPT, *h.tokens) for h in mine] == [h.tokens for h in other]
        assert [h.score for h in mine] == pytest.approx([h.score for h in other])
        said = score(model, embeddings[row], PROMPT, BeamOptions(normalize_scores=False))
        for h in other:
            assert h.step_scores[:2] == pytest.approx((0, said), abs=1e-5)
            assert sum(h.step_scores) == pytest.approx(h.score * (len(h.tokens) - 1), abs=1e-4)


def test_no_inputs_have_no_sentences() -> None:
    assert beam_search(text_decoder(), torch.zeros(0, 16), PROMPT) == []


def test_a_prompt_of_the_end_alone_will_do() -> None:
    model, embedding = text_decoder(), torch.randn(1, 16)
    options = BeamOptions(normalize_scores=False)
    (found,) = beam_search(model, embedding, [END], options)
    assert found[0].score == pytest.approx(score(model, embedding[0], [END, *found[0].tokens], options), abs=1e-4)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"beam_size": 0}, "beam_size >= 1"),
        ({"min_gen_len": 0}, "min_gen_len >= 1"),
        ({"temperature": 0.0}, "temperature > 0, got 0.0"),
        ({"temperature": math.nan}, "temperature > 0"),
        ({"max_gen_len": (-1, 5)}, "max_gen_len >= "),
        ({"max_seq_len": 0}, "max_seq_len >= 1"),
        ({"forbidden": (1, 3)}, "end=3 among forbidden"),
    ],
)
def test_options_that_make_no_sense_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        BeamOptions(**wrong)


@pytest.mark.parametrize(
    ("prompt", "options", "said"),
    [
        ([], {}, "need a prompt of 1 to 13 tokens, got 0"),
        ([END] * 14, {}, "got 14"),
        (PROMPT, {"max_seq_len": 2}, "need a prompt of 1 to 1 tokens, got 2"),
        (PROMPT, {"max_gen_len": (0, 0)}, "got 2"),
        ([END, 13], {}, "need tokens from 0 to 12, got .*13"),
        (PROMPT, {"forbidden": (99,)}, "need tokens from 0 to 12"),
    ],
)
def test_a_prompt_that_cannot_be_read_is_refused(prompt: list[int], options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        beam_search(text_decoder(), torch.zeros(1, 16), prompt, BeamOptions(**options))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_embeddings_that_are_no_numbers_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="need finite embeddings"):
        beam_search(text_decoder(), torch.full((1, 16), value), PROMPT)
