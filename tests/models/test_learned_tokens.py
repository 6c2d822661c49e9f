"""Learned tokens: any text comes back, frequent words are one token, and the same sentences give the same tokenizer."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sign_dist.errors import DataError, SettingsError
from sign_dist.models.learned_tokens import LEAST, learn_tokens
from sign_dist.models.text_tokens import TextTokens

SENTENCES = [f"The {animal} sees the {place}." for animal in ("bird", "horse", "cat") for place in ("river", "market")]


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> TextTokens:
    folder = tmp_path_factory.mktemp("tokens")
    learn_tokens(SENTENCES, folder, 400)
    return TextTokens.read(folder)


@settings(max_examples=50)
@given(text=st.text(st.characters(exclude_categories=["Cs"])).map(str.strip))
def test_any_text_comes_back(tokens: TextTokens, text: str) -> None:
    numbers = tokens.encode(text)
    assert tokens.decode(numbers) == text
    assert all(tokens.end < number < tokens.size for number in numbers)


def test_words_of_the_corpus_are_one_token_and_its_punctuation_another(tokens: TextTokens) -> None:
    assert len(tokens.encode("The bird sees the market.")) == 6
    assert tokens.encode("the bird.")[-1] == tokens.encode(".")[0]
    assert tokens.size <= 400


def test_the_order_of_sentences_does_not_matter(tokens: TextTokens, tmp_path: Path) -> None:
    learn_tokens(reversed(SENTENCES), tmp_path, 400)
    assert TextTokens.read(tmp_path).tokenizer.get_vocab() == tokens.tokenizer.get_vocab()


def test_without_sentences_or_room_there_is_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no sentences"):
        learn_tokens(["", " "], tmp_path)
    with pytest.raises(SettingsError, match=f"at least {LEAST}"):
        learn_tokens(SENTENCES, tmp_path, LEAST - 1)
