"""Scores of a closed label set equal the product over each label alone."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sign_dist.tasks.trie import LabelTrie, score_labels

END, VOCABULARY = 0, 7
token_lists = st.lists(
    st.lists(st.integers(1, VOCABULARY - 1), min_size=1, max_size=5).map(tuple), min_size=1, max_size=12, unique=True
)


class Model:
    """Any distribution over the next token that depends on the whole prefix."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.asked: list[tuple[int, ...]] = []

    def __call__(self, prefixes):
        assert len({len(prefix) for prefix in prefixes}) == 1
        self.asked += prefixes
        return np.stack([self.row(prefix) for prefix in prefixes])

    def row(self, prefix):
        logits = np.random.default_rng([self.seed, *prefix]).standard_normal(VOCABULARY) * 2
        return logits - np.logaddexp.reduce(logits)


@given(token_lists, st.integers(0, 10**6), st.floats(0.0, 2.0), st.integers(1, 5))
def test_scores_equal_brute_force(lists, seed, penalty, batch_size):
    model = Model(seed)
    labels = {f"label {i}": tokens for i, tokens in enumerate(lists)}
    found = score_labels(LabelTrie(labels, end=END), model, length_penalty=penalty, batch_size=batch_size)
    assert {score.label for score in found} == set(labels)
    for score in found:
        tokens = (*labels[score.label], END)
        expected = math.fsum(model.row(tokens[:depth])[token] for depth, token in enumerate(tokens))
        assert score.log_prob == pytest.approx(expected, abs=1e-9)
        assert score.score == pytest.approx(expected / len(tokens) ** penalty, abs=1e-9)
    assert [s.score for s in found] == sorted((s.score for s in found), reverse=True)


@given(token_lists, st.integers(0, 10**6))
def test_each_prefix_is_asked_once(lists, seed):
    model = Model(seed)
    score_labels(LabelTrie({str(t): t for t in lists}, end=END), model)
    assert sorted(model.asked) == sorted({t[:depth] for t in lists for depth in range(len(t) + 1)})


@given(token_lists, st.integers(0, 10**6))
def test_shares_among_labels_sum_to_one(lists, seed):
    trie = LabelTrie({str(t): t for t in lists}, end=END)
    found = score_labels(trie, Model(seed), among_labels=True, length_penalty=0)
    assert math.fsum(math.exp(s.log_prob) for s in found) == pytest.approx(1.0)
    plain = {s.label: s.log_prob for s in score_labels(trie, Model(seed))}
    assert all(s.log_prob >= plain[s.label] - 1e-12 for s in found)


@given(token_lists)
def test_walking_what_is_allowed_spells_the_labels(lists):
    trie = LabelTrie({str(t): t for t in lists}, end=END)
    spelled, open_ = set(), [()]
    while open_:
        prefix = open_.pop()
        for token in trie.allowed(prefix):
            (spelled.add(prefix) if token == END else open_.append((*prefix, token)))
    assert spelled == set(lists)
    assert trie.allowed((99,)) == []


def test_an_impossible_label_is_last():
    def model(prefixes):
        rows = np.full((len(prefixes), 3), -np.inf)
        rows[:, 1] = math.log(0.5)
        rows[:, 0] = math.log(0.5)
        return rows

    found = score_labels(LabelTrie({"yes": [1], "no": [2]}, end=END), model, among_labels=True)
    assert [(s.label, s.log_prob) for s in found] == [("yes", 0.0), ("no", -math.inf)]


@pytest.mark.parametrize(
    ("labels", "words"), [({}, "none"), ({"a": []}, "tokens"), ({"a": [1, 0]}, "end token"), ({"a": [1], "b": [1]}, "same tokens")]
)
def test_unfit_labels_are_refused(labels, words):
    with pytest.raises(ValueError, match=words):
        LabelTrie(labels, end=END)


@pytest.mark.parametrize(
    ("shape", "words"), [((2, 7), "one row per prefix"), ((7,), "one row per prefix"), ((1, 3), "another tokenizer")]
)
def test_an_answer_of_another_shape_is_refused(shape, words):
    with pytest.raises(ValueError, match=words):
        score_labels(LabelTrie({"a": [5]}, end=END), lambda _prefixes: np.zeros(shape))
