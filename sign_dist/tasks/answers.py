"""What a model writes freely, and which label it means: none, where the text is no label after clean-up."""

import re
import unicodedata
from collections.abc import Iterable
from typing import Protocol

from torch import Tensor

MOST_BEAMS = 8
"""Beams of all clips that are written together; each holds a copy of its prompt's keys and values."""


class Answers:
    """Labels by their cleaned-up text.

    Clean-up forgives what says nothing about the sign: case, accents composed or not, blanks, hyphens and underscores between
    words, quotation marks and points around them. A sentence about the sign is no label: to guess which word of it is meant would
    reward guessing. Where two labels are the same after clean-up, only their exact text means one of them.
    """

    def __init__(self, labels: Iterable[str]) -> None:
        self._exact = set(labels)
        clean: dict[str, set[str]] = {}
        for label in self._exact:
            clean.setdefault(cleaned(label), set()).add(label)
        self._clean = {text: min(found) for text, found in clean.items() if len(found) == 1}

    def label_of(self, text: str) -> str:
        """The label that a text means, "" for none.

        >>> Answers(["BOOK", "THANK-YOU"]).label_of(' "Thank you." ')
        'THANK-YOU'
        >>> Answers(["BOOK"]).label_of("The sign is BOOK")
        ''
        """
        return text if text in self._exact else self._clean.get(cleaned(text), "")


def cleaned(text: str) -> str:
    """A text without what says nothing about the sign.

    >>> cleaned("  THANK_you!")
    'thank you'
    """
    text = unicodedata.normalize("NFC", text).casefold()
    words = re.sub(r"[\s_\-\u2010-\u2015]+", " ", text)
    return words.strip(" \t\n.,;:!?\"'`*\u2018\u2019\u201c\u201d\u00ab\u00bb()[]")


class Tokens(Protocol):
    def decode(self, ids: list[int]) -> str: ...


class Generates(Protocol):
    """The part of a model that writing asks."""

    @property
    def tokens(self) -> Tokens: ...

    def generate(self, frames: Tensor, beams: int = 1, max_new: int = 16) -> list[list[tuple[list[int], float]]]: ...


def write(model: Generates, frames: Tensor, *, beams: int, max_new: int) -> list[tuple[str, ...]]:
    """The best `beams` texts of each clip of frames (B, T, H, W, 3), best first, by beam search; with one beam, greedily."""
    found: list[tuple[str, ...]] = []
    for some in frames.split(max(1, MOST_BEAMS // beams)):
        for answers in model.generate(some, beams=beams, max_new=max_new):
            best = sorted(answers, key=lambda pair: -pair[1])
            found.append(tuple(model.tokens.decode(ids) for ids, _ in best))
    return found
