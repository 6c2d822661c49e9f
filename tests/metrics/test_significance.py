"""Tests between two runs: calibrated where there is no difference, exact where that can be enumerated."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sign_dist.metrics import tally
from sign_dist.metrics.significance import approximate_randomisation, mcnemar, paired_bootstrap
from sign_dist.metrics.text import bleu
from sign_dist.metrics.wer import sentence_errors

values = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=30)
TESTS = [paired_bootstrap, approximate_randomisation]


@pytest.mark.parametrize("test", TESTS)
@given(pairs=values)
def test_a_run_does_not_differ_from_itself(test, pairs):
    one = tally.of_means([a for a, _ in pairs])
    found = test(one, one, resamples=50)
    assert found.p == 1.0
    assert found.difference == 0


@pytest.mark.parametrize("test", TESTS)
@given(pairs=values)
def test_p_is_a_probability_and_scores_are_the_tallies(test, pairs):
    first, second = (tally.of_means(side) for side in zip(*pairs, strict=True))
    found = test(first, second, resamples=60)
    assert 0 < found.p <= 1
    assert (found.first, found.second, found.n) == (first.value, second.value, len(pairs))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=9))
def test_randomisation_approaches_the_enumeration(pairs):
    """All 2 ** n exchanges, against 4000 random ones."""
    first, second = (np.array(side, dtype=float) for side in zip(*pairs, strict=True))
    difference = second - first
    seen = abs(difference.mean())
    signs = np.array(list(itertools.product([1, -1], repeat=len(pairs))))
    exact = float((np.abs((signs * difference).mean(axis=1)) >= seen - 1e-12).mean())
    found = approximate_randomisation(tally.of_means(first.tolist()), tally.of_means(second.tolist()), resamples=4000)
    assert found.p == pytest.approx(exact, abs=0.045)


@pytest.mark.parametrize("test", TESTS)
def test_chance_alone_is_rarely_called_a_difference(test):
    """Two runs that are equally good: p < 0.1 about one time in ten."""
    rng = np.random.default_rng(0)
    p = []
    for _ in range(300):
        common = rng.random(80)
        runs = [(rng.random(80) < 0.5 + 0.4 * (common - 0.5)).astype(float).tolist() for _ in range(2)]
        p.append(test(*map(tally.of_means, runs), resamples=200).p)
    assert 0.04 < np.mean(np.array(p) < 0.1) < 0.17


@pytest.mark.parametrize("test", TESTS)
def test_a_plain_difference_is_found_whatever_the_score(test):
    references = ["A B C D E"] * 60
    worse, better = ["A B X Y"] * 30 + ["A B C D E"] * 30, ["A B C D E"] * 55 + ["A"] * 5
    errors = [tally.of_word_errors(sentence_errors(references, hypotheses)) for hypotheses in (worse, better)]
    found = test(*errors)
    assert found.difference < 0
    assert found.p < 0.01
    texts = [bleu(references, hypotheses)[-1].tally for hypotheses in (worse, better)]
    found = test(*texts)
    assert found.difference > 0
    assert found.p < 0.01


def test_the_interval_of_a_difference_is_narrow_where_runs_err_on_the_same_clips():
    rng = np.random.default_rng(1)
    first = (rng.random(400) < 0.7).astype(float)
    second = first.copy()
    second[:20] = 1.0
    found = paired_bootstrap(tally.of_means(first.tolist()), tally.of_means(second.tolist()))
    assert found.low <= found.difference <= found.high
    assert found.high - found.low < 0.04


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=12))
def test_mcnemar_is_the_binomial_test_of_the_clips_that_differ(pairs):
    first, second = zip(*pairs, strict=True)
    found = mcnemar(first, second)
    only = [sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)]
    outcomes = [sum(flips) for flips in itertools.product([0, 1], repeat=sum(only))]
    expected = min(1.0, 2 * sum(k <= min(only) for k in outcomes) / len(outcomes))
    assert found.p == pytest.approx(expected)
    assert found.p == mcnemar(second, first).p


def test_mcnemar_does_not_overflow():
    assert mcnemar([True] * 1500 + [False] * 1500, [False] * 1500 + [True] * 1500).p == 1.0
    assert 0 <= mcnemar([True] * 3000, [False] * 3000).p < math.ldexp(1, -1000)


def test_runs_must_fit():
    one, two = tally.of_means([1.0]), tally.of_means([1.0, 0.0])
    with pytest.raises(ValueError, match="got 1 and 2"):
        paired_bootstrap(one, two)
    with pytest.raises(ValueError, match="different scores"):
        approximate_randomisation(one, tally.of_means([1.0], higher_is_better=False))
    with pytest.raises(ValueError, match="resamples"):
        paired_bootstrap(one, one, resamples=0)
    with pytest.raises(ValueError, match="level"):
        paired_bootstrap(one, one, level=1.0)
    with pytest.raises(ValueError, match="got 0 and 0"):
        mcnemar([], [])
