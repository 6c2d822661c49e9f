"""Sentences <-> the numbers that text models write: bytes, which need no files, or a tokenizer of transformers.

Byte tokens (Xue et al. 2022, arXiv 2105.13626) know every language and every corpus alike; a sentence is some five times as long
in them as in words.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self, cast

from transformers import ByT5Tokenizer, PreTrainedTokenizerBase

from sign_dist.errors import SettingsError
from sign_dist.models.seq2seq import language_token, read_tokenizer

Order = Literal["own", "fairseq2"]
"""`own`: numbers as the tokenizer gives them. `fairseq2`: as SONAR's text decoder reads them."""

# What fairseq2 calls the first four tokens: padding, unknown, begin, end.
PAD, UNKNOWN, BEGIN, END = range(4)
# Numbers of padding, end and unknown in ByT5; its bytes begin behind them.
_BYTES = {0: PAD, 1: END, 2: UNKNOWN}
# Those of begin, padding, end and unknown in NLLB's tokenizer of transformers; all others are the same.
_NLLB = {0: BEGIN, 1: PAD, 2: END, 3: UNKNOWN}
# Of fairseq2's vocabulary: control symbols of the training, which transformers' tokenizer has but one of.
_CONTROLS = 2


@dataclasses.dataclass(frozen=True)
class TextTokens:
    """A tokenizer and, where numbers differ, how they are exchanged. `size` is the model's vocabulary.

    >>> tokens = TextTokens.of_bytes()
    >>> tokens.encode("hé"), tokens.decode(tokens.encode("hé"))
    ([107, 198, 172], 'hé')
    """

    tokenizer: PreTrainedTokenizerBase
    size: int
    language: int | None = None
    """The token of the language that is written, for models of many languages."""
    exchanged: tuple[tuple[int, int], ...] = ()
    """(number of the tokenizer, number of the model) of the first tokens."""
    shift: int = 0
    """What is added to the numbers of all others."""

    @classmethod
    def of_bytes(cls, order: Order = "own") -> Self:
        """UTF-8 bytes. In fairseq2's order one token stands behind them for the language, whichever it is."""
        tokenizer = ByT5Tokenizer(extra_ids=0)
        size = len(tokenizer)
        if order == "own":
            return cls(tokenizer, size)
        return cls(tokenizer, size + 2, size + 1, tuple(_BYTES.items()), 1)

    @classmethod
    def read(cls, source: str | Path, language: str = "", order: Order = "own", *, download: bool = False) -> Self:
        """Those of a folder in transformers' form or of a name in the hub's cache on this machine.

        Raises:
            WeightsError: there is none.
            SettingsError: it has no such language, or the order needs one and none is named.
        """
        tokenizer = read_tokenizer(source, download=download)
        number = language_token(tokenizer, language) if language else None
        if order == "own":
            return cls(tokenizer, len(tokenizer), number)
        if number is None:
            raise SettingsError("SONAR's text decoder writes many languages: say which, such as model.language=eng_Latn")
        return cls(tokenizer, len(tokenizer) + _CONTROLS, number, tuple(_NLLB.items()))

    @property
    def pad(self) -> int:
        """The number of padding, as a text model of its own vocabulary has it."""
        return self._special("pad_token_id")

    @property
    def end(self) -> int:
        """The number of the end, likewise."""
        return self._special("eos_token_id")

    def encode(self, text: str) -> list[int]:
        """Numbers of a sentence, without its language and its end."""
        numbers = cast("list[int]", self.tokenizer(text, add_special_tokens=False)["input_ids"])
        return [self._ours(number) for number in numbers]

    def decode(self, numbers: Sequence[int]) -> str:
        """The text of numbers; what is no text, such as a language or an end, is left out."""
        back = {ours: theirs for theirs, ours in self.exchanged}
        theirs = [back.get(number, number - self.shift) for number in numbers]
        known = [number for number in theirs if 0 <= number < len(self.tokenizer)]
        return str(self.tokenizer.decode(known, skip_special_tokens=True)).strip()

    def _ours(self, number: int) -> int:
        return dict(self.exchanged).get(number, number + self.shift)

    def _special(self, name: str) -> int:
        number: int | None = getattr(self.tokenizer, name, None)
        if number is None:
            raise SettingsError(f"the tokenizer has no {name}, which a fresh text model needs: choose another model.tokenizer")
        return self._ours(number)
