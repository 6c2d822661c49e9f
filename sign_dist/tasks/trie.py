"""Score every label of a closed set under a model that writes tokens: exact, and each shared beginning is asked for once.

A model that generates text (a vision-language model, a translator) can answer outside the vocabulary. Held to a closed set of
labels it cannot: each label's tokens, and the end behind them, have a probability, and the best label is the answer. Labels
share beginnings, so a trie of their tokens needs far fewer questions than labels times tokens, and those of one depth go to the
model together.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Prefix = tuple[int, ...]
NextLogProbs = Callable[[Sequence[Prefix]], NDArray[np.floating]]
"""Prefixes of one length -> natural log-probabilities (N, V) of the token that follows each."""


@dataclasses.dataclass(frozen=True)
class LabelScore:
    """`log_prob` of all `num_tokens` tokens, the end included, and the score that ranks: log_prob / num_tokens ** penalty."""

    label: str
    log_prob: float
    num_tokens: int
    score: float


class LabelTrie:
    """A closed set of labels as token sequences; `end` is the token that says that a label is complete.

    Raises:
        ValueError: no label, a label without tokens or with the end inside, or two labels of the same tokens.
    """

    def __init__(self, labels: Mapping[str, Sequence[int]], *, end: int) -> None:
        if not labels:
            raise ValueError("a trie needs at least one label, got none")
        self.end = end
        self.tokens: dict[str, Prefix] = {}
        owners: dict[Prefix, str] = {}
        for label, tokens in labels.items():
            sequence = tuple(map(int, tokens))
            if not sequence or end in sequence:
                raise ValueError(f"label {label!r} needs tokens without the end token {end}, got {list(sequence)}")
            if sequence in owners:
                raise ValueError(f"labels {owners[sequence]!r} and {label!r} have the same tokens {list(sequence)}")
            owners[sequence] = label
            self.tokens[label] = sequence

    @property
    def levels(self) -> list[list[Prefix]]:
        """Distinct prefixes by length, sorted: all that a model must be asked about."""
        longest = max(map(len, self.tokens.values()))
        return [sorted({t[:depth] for t in self.tokens.values() if len(t) >= depth}) for depth in range(longest + 1)]

    def allowed(self, prefix: Prefix) -> list[int]:
        """Tokens that may follow, sorted; the end where the prefix is a label. Empty for a prefix of no label."""
        depth = len(prefix)
        return sorted({(*t, self.end)[depth] for t in self.tokens.values() if t[:depth] == prefix})


def score_labels(
    trie: LabelTrie,
    next_log_probs: NextLogProbs,
    *,
    length_penalty: float = 1.0,
    batch_size: int = 256,
    among_labels: bool = False,
) -> list[LabelScore]:
    """Every label's score, best first, ties by name.

    Args:
        next_log_probs: asked at most once about a prefix, with at most `batch_size` prefixes of one length at a time.
        length_penalty: 0 ranks by probability, which favours short labels; 1 by the mean per token.
        among_labels: share out the probability of each step among the tokens that lead to a label. All labels' probabilities then
            sum to 1; without it, some goes to texts outside the set.

    Raises:
        ValueError: the model's answer has another shape, or lacks a token of a label.
    """
    if batch_size < 1:
        raise ValueError(f"need batch_size >= 1: {batch_size=}")
    totals: dict[Prefix, float] = {(): 0.0}
    complete: dict[Prefix, float] = {}
    followers: dict[Prefix, set[int]] = {}
    for tokens in trie.tokens.values():
        for depth, token in enumerate((*tokens, trie.end)):
            followers.setdefault(tokens[:depth], set()).add(token)
    for prefixes in trie.levels:
        for start in range(0, len(prefixes), batch_size):
            chunk = prefixes[start : start + batch_size]
            rows = np.asarray(next_log_probs(chunk), dtype=np.float64)
            for prefix, row in zip(chunk, _checked(rows, chunk, followers), strict=True):
                tokens = sorted(followers[prefix])
                steps = row[tokens]
                if among_labels:
                    # Where no label is possible the shares are unknown, and nothing is.
                    all_of_them = np.logaddexp.reduce(steps)
                    steps = steps - all_of_them if all_of_them > -np.inf else steps
                for token, step in zip(tokens, steps.tolist(), strict=True):
                    if token == trie.end:
                        complete[prefix] = totals[prefix] + step
                    else:
                        totals[*prefix, token] = totals[prefix] + step
    found: list[LabelScore] = []
    for label, tokens in trie.tokens.items():
        count = len(tokens) + 1
        found.append(LabelScore(label, complete[tokens], count, complete[tokens] / count**length_penalty))
    return sorted(found, key=lambda s: (-s.score, s.label))


def _checked(rows: NDArray[np.float64], prefixes: Sequence[Prefix], followers: Mapping[Prefix, set[int]]) -> NDArray[np.float64]:
    if rows.ndim != 2 or len(rows) != len(prefixes):
        raise ValueError(f"need log-probabilities ({len(prefixes)}, V), one row per prefix: got {rows.shape}")
    highest = max(max(followers[prefix]) for prefix in prefixes)
    if highest >= rows.shape[1]:
        raise ValueError(f"a label has the token {highest}, and the model has {rows.shape[1]}: is it another tokenizer's?")
    return rows
