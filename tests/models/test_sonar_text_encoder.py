"""SONAR's text encoder: a sentence has one embedding, whoever shares its batch, and a training can read it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import M2M100Config, PreTrainedTokenizerFast
from transformers.models.m2m_100.modeling_m2m_100 import M2M100Encoder

from sign_dist.errors import DataError, SettingsError, WeightsError
from sign_dist.models.sonar.text_encoder import TextEncoder
from sign_dist.tasks.embeddings import read_embeddings, write_embeddings

SENTENCES = ["the bird sings", "a", "the old bird sings the song", "song"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny encoder with a tokenizer of a few words."""
    where = tmp_path_factory.mktemp("text_encoder")
    words = ["<s>", "<pad>", "</s>", "<unk>", "the", "a", "old", "bird", "sings", "song", "eng_Latn", "deu_Latn"]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.add_special_tokens([AddedToken(word, special=True) for word in words[-2:]])
    PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(where)
    torch.manual_seed(0)
    M2M100Encoder(
        M2M100Config(
            vocab_size=len(words), d_model=16, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=32, pad_token_id=1
        )
    ).save_pretrained(where)
    return where


@pytest.mark.long
def test_an_embedding_depends_on_its_own_sentence_and_language_alone(folder: Path) -> None:
    encoder = TextEncoder.read(folder, "eng_Latn")
    together = encoder.embed(SENTENCES, batch_size=3)
    alone = np.concatenate([encoder.embed([sentence]) for sentence in SENTENCES])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert together.shape == (4, 16)
    assert np.abs(together[0] - together[2]).max() > 1e-3
    assert np.abs(TextEncoder.read(folder, "deu_Latn").embed(SENTENCES) - together).max() > 1e-3


def test_it_is_the_mean_over_language_words_and_end(folder: Path) -> None:
    encoder = TextEncoder.read(folder, "eng_Latn")
    tokens = torch.tensor([[10, 4, 7, 8, 2]])
    with torch.inference_mode():
        hidden = encoder.encoder(input_ids=tokens, attention_mask=torch.ones_like(tokens)).last_hidden_state
    np.testing.assert_allclose(encoder.embed(SENTENCES[:1])[0], hidden[0].mean(0), atol=1e-5)


def test_what_is_written_is_what_a_training_reads(folder: Path, tmp_path: Path) -> None:
    found = TextEncoder.read(folder, "eng_Latn").embed(SENTENCES)
    write_embeddings(tmp_path / "targets.parquet", {f"clip {i}": vector for i, vector in enumerate(found)})
    again = read_embeddings(tmp_path / "targets.parquet")
    assert all(np.array_equal(again[f"clip {i}"], vector) for i, vector in enumerate(found))


def test_what_cannot_be_embedded_is_told(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="sentence 1 is empty"):
        TextEncoder.read(folder, "eng_Latn").embed(["a", " "])
    with pytest.raises(SettingsError, match="fra_Latn"):
        TextEncoder.read(folder, "fra_Latn")
    with pytest.raises(WeightsError, match="cannot read"):
        TextEncoder.read(tmp_path, "eng_Latn")
