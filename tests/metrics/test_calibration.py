"""What calibration promises, against definitions written out and models whose calibration is known."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sign_dist.metrics.calibration import (
    at_temperature,
    calibration,
    calibration_error,
    expected_errors,
    fit_temperature,
    likelihood,
    reliability,
)

logits = hnp.arrays(np.float64, st.tuples(st.integers(1, 30), st.integers(2, 6)), elements=st.floats(-8, 8))
outcomes = st.lists(st.tuples(st.sampled_from([0.1, 0.3, 0.5, 0.70001, 0.9, 1.0]), st.booleans()), min_size=1, max_size=60)


def draw(num: int, classes: int, seed: int, sharpness: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities that are true: targets are drawn from them."""
    rng = np.random.default_rng(seed)
    rows = at_temperature(rng.standard_normal((num, classes)) * sharpness, 1.0)
    return rows, np.array([rng.choice(classes, p=np.exp(row)) for row in rows])


@given(outcomes, st.integers(1, 20), st.randoms(use_true_random=False))
def test_every_clip_is_in_one_bin_and_the_order_of_clips_does_not_matter(pairs, bins, random):
    found = reliability([c for c, _ in pairs], [r for _, r in pairs], bins=bins)
    assert sum(b.count for b in found) == len(pairs)
    assert math.fsum(b.count * b.accuracy for b in found) == pytest.approx(sum(r for _, r in pairs))
    assert all(a.high < b.low for a, b in itertools.pairwise(found))
    assert len(found) <= bins
    random.shuffle(pairs)
    again = reliability([c for c, _ in pairs], [r for _, r in pairs], bins=bins)
    assert [(b.count, b.low, b.high) for b in again] == [(b.count, b.low, b.high) for b in found]
    assert calibration_error(again) == pytest.approx(calibration_error(found))


@given(st.integers(1, 200), st.integers(1, 20))
def test_distinct_confidences_fill_bins_evenly(num, bins):
    counts = [b.count for b in reliability(np.linspace(0, 1, num).tolist(), [True] * num, bins=bins)]
    assert max(counts) - min(counts) <= 1
    assert len(counts) == min(num, bins)


@given(logits, st.floats(0.05, 20))
def test_a_temperature_changes_no_answer_and_keeps_a_distribution(rows, temperature):
    scaled = at_temperature(rows, temperature)
    assert np.exp(scaled).sum(axis=1) == pytest.approx(1.0)
    assert np.allclose(np.take_along_axis(scaled, rows.argmax(axis=1)[:, None], 1)[:, 0], scaled.max(axis=1))
    assert np.allclose(at_temperature(at_temperature(rows, 3.0), temperature), at_temperature(rows, 3.0 * temperature), atol=1e-9)


@given(logits, st.integers(0, 2**31))
def test_the_fitted_temperature_is_no_worse_than_any_on_a_grid(rows, seed):
    targets = np.random.default_rng(seed).integers(0, rows.shape[1], len(rows))
    best = likelihood(rows, targets, fit_temperature(rows, targets))
    assert all(best <= likelihood(rows, targets, t) + 1e-6 for t in np.geomspace(0.011, 99, 40))


@pytest.mark.parametrize("by", [0.25, 1.0, 4.0])
def test_a_model_that_is_too_sure_by_a_factor_gets_that_factor_back(by):
    rows, targets = draw(6000, 5, seed=1)
    assert fit_temperature(rows * by, targets) == pytest.approx(by, rel=0.06)


def test_true_confidences_have_the_error_that_chance_gives_and_inflated_ones_more():
    rows, targets = draw(600, 4, seed=2)
    true = calibration(rows, targets)
    assert true.ece <= true.ece_if_true_high
    inflated = calibration(rows * 4, targets)
    assert inflated.ece > 2 * inflated.ece_if_true_high
    assert inflated.nll > true.nll
    cured = calibration(rows * 4, targets, temperature=4.0)
    assert cured.ece == pytest.approx(true.ece, abs=1e-9)
    assert cured.nll == pytest.approx(true.nll, abs=1e-9)
    assert inflated.accuracy == true.accuracy


def test_the_error_that_chance_gives_falls_with_the_number_of_clips():
    means = [expected_errors(np.full(num, 0.7) + np.linspace(0, 1e-3, num)).mean() for num in (30, 300, 3000)]
    assert means[0] > 2 * means[1] > 4 * means[2]


def test_a_reference_outside_the_classes_is_wrong_and_has_no_likelihood():
    rows = np.log([[0.9, 0.1], [0.8, 0.2]])
    found = calibration(rows, [0, -1], bins=1)
    assert (found.accuracy, found.without_class, found.confidence) == (0.5, 1, pytest.approx(0.85))
    assert found.nll == pytest.approx(-math.log(0.9))
    assert math.isnan(likelihood(rows, [-1, -1]))
    with pytest.raises(ValueError, match="got none"):
        fit_temperature(rows, [-1, -1])


def test_a_probability_that_was_rounded_to_zero_does_not_end_the_sum():
    with np.errstate(divide="ignore"):
        rows = np.log([[1.0, 0.0], [0.6, 0.4]])
    assert math.isfinite(likelihood(rows, [1, 0]))
    assert math.isfinite(fit_temperature(rows, [1, 0]))


@pytest.mark.parametrize(("rows", "targets"), [([[0.0]], [1]), ([0.0], [0]), ([[0.0]], [0, 0]), (np.zeros((0, 3)), [])])
def test_shapes_that_do_not_fit_are_refused(rows, targets):
    with pytest.raises(ValueError, match="log-probabilities"):
        calibration(rows, targets)
