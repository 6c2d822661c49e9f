"""SONAR's sign encoder, text decoder and beam search, and the whole way from frames to sentences: the reference's numbers."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sign_dist.models.signhiera import SignHiera, normalise_frames
from sign_dist.models.sonar.beam import BeamOptions, Hypothesis, beam_search
from sign_dist.models.sonar.sign_encoder import SignEncoder
from sign_dist.models.sonar.text_decoder import TextDecoder
from sign_dist.video.windows import signhiera_windows
from tests.parity.rule import TOLERANCE, VectorSet, draw, draw_bytes, draw_weights, read_sets, relative
from tests.parity.test_signhiera import hiera_shape

LARGE_TOLERANCE = 1e-5
"""Of the large sign encoder, as the vectors' README states."""


SIZES = {
    "feature_dim": "feature_dim",
    "output_dim": "output_dim",
    "d_model": "d_model",
    "d_kv": "d_kv",
    "d_ff": "d_ff",
    "num_layers": "num_layers",
    "num_decoder_layers": "num_decoder_layers",
    "num_heads": "num_heads",
    "relative_buckets": "relative_attention_num_buckets",
    "relative_max_distance": "relative_attention_max_distance",
    "layer_norm_eps": "layer_norm_epsilon",
}
"""Our names of sizes -> those of the reference's settings."""


def sign_encoder(manifest: dict[str, Any], salt: str, config: dict[str, Any]) -> SignEncoder:
    model = SignEncoder.from_tensors(
        draw_weights(manifest, salt),
        relative_max_distance=config["relative_attention_max_distance"],
        layer_norm_eps=config["layer_norm_epsilon"],
    )
    assert {ours: getattr(model.shape, ours) for ours in SIZES} == {ours: config[theirs] for ours, theirs in SIZES.items()}
    return model.eval()


def text_decoder(manifest: dict[str, Any], salt: str, config: dict[str, Any]) -> TextDecoder:
    model = TextDecoder.from_tensors(
        draw_weights(manifest, salt),
        num_heads=config["num_heads"],
        max_len=config["max_seq_len"],
        layer_norm_eps=config["layer_norm_eps"],
    )
    found = (model.shape.vocab_size, model.shape.dim, model.shape.num_layers, model.shape.ffn_dim)
    assert found == tuple(config[key] for key in ("vocab_size", "model_dim", "num_decoder_layers", "ffn_inner_dim"))
    return model.eval()


def beam_options(config: dict[str, Any], args: dict[str, Any]) -> BeamOptions:
    return BeamOptions(end=config["eos_idx"], unknown=config["unk_idx"], forbidden=(config["pad_idx"],), **args)


@torch.inference_mode()
def check_sign_encoder(vectors: VectorSet, tolerance: float) -> float:
    """The largest relative difference."""
    model = sign_encoder(vectors.manifest, vectors.case["salt"], vectors.case["config"])
    assert vectors.case["cases"]
    misses: list[float] = []
    for case in vectors.case["cases"]:
        features, name = draw(case["input_key"], case["input_shape"]), case["name"]
        lengths = torch.tensor(case["lengths"]) if "lengths" in case else None
        misses.append(relative(model(features, lengths), vectors.expected[f"{name}_embedding"]))
        assert misses[-1] < tolerance, name
        if f"{name}_encoded" not in vectors.expected:
            continue
        encoded, expected = model.encode(features, lengths), vectors.expected[f"{name}_encoded"]
        assert float(encoded.norm()) == pytest.approx(float(vectors.expected[f"{name}_encoded_l2"]), rel=tolerance)
        if encoded.shape != expected.shape:
            encoded = encoded[:, :: max(1, encoded.shape[1] // 4), ::64]
        misses.append(relative(encoded, expected))
        assert misses[-1] < tolerance, name
    return max(misses)


def test_small_sign_encoders_are_the_reference(parity_folder: Path) -> None:
    for vectors in read_sets(parity_folder, "sonar_sign_encoder_tiny*"):
        check_sign_encoder(vectors, TOLERANCE)


@pytest.mark.slow
def test_the_published_sign_encoder_is_the_reference(parity_folder: Path) -> None:
    for vectors in read_sets(parity_folder, "sonar_sign_encoder_large*"):
        check_sign_encoder(vectors, LARGE_TOLERANCE)


@torch.inference_mode()
def check_text_decoder(vectors: VectorSet) -> float:
    """The largest relative difference."""
    case, expected = vectors.case, vectors.expected
    model = text_decoder(vectors.manifest, case["salt"], case["config"])
    embedding, tokens = draw(case["embedding_key"], case["embedding_shape"]), torch.from_numpy(expected["tokens"])
    hidden = model.read(tokens, model.start(embedding))
    logits = model.logits(hidden)
    found = {"hidden": hidden, "logits": logits, "logits_slice": logits[..., ::4099], "logits_first16": logits[..., :16]}
    if "top10_ids" in expected:
        found["top10_logits"], ids = logits.topk(10, dim=-1)
        assert (ids.numpy() == expected["top10_ids"]).all()
    if "target_logprobs" in expected:
        found["target_logprobs"] = logits.log_softmax(-1)[:, :-1].gather(-1, tokens[:, 1:, None])[..., 0]
    misses = {name: relative(tensor, expected[name]) for name, tensor in found.items() if name in expected}
    assert {"hidden", "logits"} <= misses.keys() or {"hidden", "logits_slice", "target_logprobs"} <= misses.keys()
    assert max(misses.values()) < TOLERANCE, misses
    return max(misses.values())


def test_small_text_decoders_are_the_reference(parity_folder: Path) -> None:
    for vectors in read_sets(parity_folder, "sonar_text_decoder_tiny*"):
        check_text_decoder(vectors)


@pytest.mark.slow
def test_the_published_text_decoder_is_the_reference(parity_folder: Path) -> None:
    for vectors in read_sets(parity_folder, "sonar_text_decoder_basic*"):
        check_text_decoder(vectors)


def assert_hypotheses(found: list[Hypothesis], expected: list[dict[str, Any]]) -> None:
    assert [list(h.tokens) for h in found] == [h["tokens"] for h in expected]
    assert [h.score for h in found] == pytest.approx([h["score"] for h in expected], abs=1e-4)
    for mine, theirs in zip(found, expected, strict=True):
        if "step_scores" in theirs:
            assert mine.step_scores == pytest.approx(theirs["step_scores"], abs=1e-4)


def test_beams_are_those_of_the_reference(parity_folder: Path) -> None:
    for vectors in read_sets(parity_folder, "sonar_text_decoder_beam*"):
        case = vectors.case
        model = text_decoder(vectors.manifest, case["salt"], case["config"])
        embeddings = draw(case["embedding_key"], case["embedding_shape"])
        runs = json.loads((vectors.folder / "beams.json").read_text())["runs"]
        assert runs
        for run in runs:
            found = beam_search(model, embeddings, run["prompt"], beam_options(case["config"], run["generator_args"]))
            for mine, theirs in zip(found, run["hypotheses"], strict=True):
                assert_hypotheses(mine, theirs)


@torch.inference_mode()
def test_the_whole_way_is_the_reference(parity_folder: Path) -> None:
    for vectors in read_sets(parity_folder, "e2e_tiny*"):
        case, expected, manifest = vectors.case, vectors.expected, vectors.manifest
        hiera, encoder = case["signhiera"], case["sign_encoder"]
        model = SignHiera(hiera_shape(hiera["config"]), hiera["config"]["num_classes"]).eval()
        model.load_state_dict(draw_weights(manifest["signhiera"], hiera["salt"]), strict=True)
        frames = draw_bytes(case["video_key"], case["video_shape"])
        rule = dict(case["windows"])
        windows = signhiera_windows(len(frames), case["fps"], window=rule.pop("num_frames"), **rule)
        assert [w.padding for w in windows] == expected["padding"].tolist()
        features: list[torch.Tensor] = []
        for window in windows:
            real = torch.from_numpy(frames[window.indices[: 2 * window.num_features]])
            features.append(model.features(normalise_frames(real[None]))[0])
        assert relative(torch.cat(features), expected["features"]) < TOLERANCE
        embedding = sign_encoder(manifest["sign_encoder"], encoder["salt"], encoder["config"])(torch.cat(features)[None])
        assert relative(embedding, expected["embedding"]) < TOLERANCE


@torch.inference_mode()
def stated_scores_hold(model: TextDecoder, embedding: torch.Tensor, run: dict[str, Any]) -> bool:
    """Whether the decoder, reading the set's own sentences whole, gives them the set's own scores."""
    for h in run["hypotheses"]:
        tokens = torch.tensor([*run["prompt"], *h["tokens"]])
        scores = model(embedding, tokens[None, :-1])[0].log_softmax(-1).gather(-1, tokens[1:, None])
        if abs(float(scores.mean()) - h["score"]) > 1e-4:
            return False
    return True


def test_the_sentences_at_the_end_of_the_whole_way_are_those_of_the_reference(parity_folder: Path) -> None:
    for vectors in read_sets(parity_folder, "e2e_tiny*"):
        decoder, embedding = vectors.case["text_decoder"], torch.from_numpy(vectors.expected["embedding"])
        model = text_decoder(vectors.manifest["text_decoder"], decoder["salt"], decoder["config"])
        for run in json.loads((vectors.folder / "beams.json").read_text())["runs"]:
            args = run.get("generator_args", {})
            if not args and not stated_scores_hold(model, embedding, run):
                pytest.xfail(
                    f"the sentences of {vectors.folder.name} are not those of the decoder that its files state: read whole by it, "
                    "without any search, they have other scores, and M2M100 of transformers has the same ones under these weights"
                )
            assert_hypotheses(
                beam_search(model, embedding, run["prompt"], beam_options(decoder["config"], args))[0], run["hypotheses"]
            )
