"""Text tokens: what is written is what was read, and numbers are those that each model was trained on."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from sign_dist.errors import SettingsError, WeightsError
from sign_dist.models.text_tokens import BEGIN, END, PAD, UNKNOWN, Order, TextTokens

BYTES: dict[Order, TextTokens] = {"own": TextTokens.of_bytes(), "fairseq2": TextTokens.of_bytes("fairseq2")}
LANGUAGES = ["ace_Arab", "eng_Latn", "deu_Latn"]


@pytest.fixture(scope="session")
def nllb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer whose first numbers and languages lie as NLLB's do, of three words."""
    names = ["<s>", "<pad>", "</s>", "<unk>", "the", "bird", "sings", *LANGUAGES]
    inner = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.add_special_tokens([AddedToken(name, special=True) for name in LANGUAGES])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    folder = tmp_path_factory.mktemp("nllb")
    wrapped.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("order", BYTES)
@settings(max_examples=40)
@given(st.text(st.characters(exclude_categories=["Cs"])).map(str.strip))
def test_any_text_comes_back_from_its_bytes(order: Order, text: str) -> None:
    tokens = BYTES[order]
    numbers = tokens.encode(text)
    assert tokens.decode(numbers) == text
    assert len(numbers) == len(text.encode())
    assert all(UNKNOWN < number < tokens.size for number in numbers)
    assert tokens.language not in numbers


@pytest.mark.parametrize("order", BYTES)
def test_what_is_no_text_is_not_said(order: Order) -> None:
    tokens = BYTES[order]
    special = [tokens.pad, tokens.end, *([tokens.language] if tokens.language else [])]
    assert tokens.decode([*special, *tokens.encode("a"), *special, *tokens.encode("b")]) == "ab"


def test_bytes_have_the_numbers_of_both_orders() -> None:
    assert (BYTES["own"].pad, BYTES["own"].end, BYTES["own"].language) == (0, 1, None)
    assert BYTES["own"].encode("A") == [ord("A") + 3]
    fairseq2 = BYTES["fairseq2"]
    assert (fairseq2.pad, fairseq2.end, fairseq2.language) == (PAD, END, fairseq2.size - 1)
    assert fairseq2.encode("A") == [ord("A") + 4]


def test_the_first_four_numbers_of_nllb_change_places_and_all_others_stay(nllb: Path) -> None:
    own, fairseq2 = TextTokens.read(nllb), TextTokens.read(nllb, "eng_Latn", "fairseq2")
    assert own.encode("the bird flies") == [4, 5, 3]
    assert fairseq2.encode("the bird flies") == [4, 5, UNKNOWN]
    assert (fairseq2.pad, fairseq2.end, fairseq2.language) == (PAD, END, 8)
    assert fairseq2.decode([BEGIN, END, 8, 4, 5, 6, END, PAD]) == "the bird sings"
    assert fairseq2.size == len(own.tokenizer) + 2


def test_a_language_or_folder_that_is_not_there_is_told(nllb: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="eng_Latin"):
        TextTokens.read(nllb, "eng_Latin", "fairseq2")
    with pytest.raises(SettingsError, match=r"model\.language"):
        TextTokens.read(nllb, order="fairseq2")
    with pytest.raises(WeightsError, match="elsewhere"):
        TextTokens.read(tmp_path / "elsewhere")
