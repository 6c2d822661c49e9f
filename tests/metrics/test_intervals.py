"""Laws of the intervals, and their coverage on simulated splits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sign_dist.metrics.accuracy import class_accuracy
from sign_dist.metrics.intervals import SMALL_N, bootstrap, share_interval, wilson

outcomes = st.lists(st.booleans(), min_size=1, max_size=60)
clips = st.lists(st.tuples(st.booleans(), st.sampled_from("abc"), st.sampled_from("ST")), min_size=1, max_size=40)


@given(outcomes)
def test_wilson_lies_in_the_unit_interval_around_the_share(values):
    interval = wilson(sum(values), len(values))
    assert 0 <= interval.low <= interval.value <= interval.high <= 1
    assert interval.low < interval.high


@given(st.integers(1, 200), st.data())
def test_wilson_mirrors_failures_and_grows_with_the_level(n, data):
    k = data.draw(st.integers(0, n))
    one, other = wilson(k, n), wilson(n - k, n)
    assert one.low == pytest.approx(1 - other.high)
    wider = wilson(k, n, level=0.99)
    assert wider.low <= one.low
    assert wider.high >= one.high


@settings(deadline=None, max_examples=40)
@given(clips, st.booleans())
def test_a_bootstrap_interval_contains_its_estimate(rows, by_class):
    values, groups, _ = zip(*rows, strict=True)
    interval = bootstrap([float(v) for v in values], groups=groups if by_class else None, resamples=200)
    expected = (
        class_accuracy(groups, [[g if v else "-"] for v, g in zip(values, groups, strict=True)]) if by_class else np.mean(values)
    )
    assert interval.value == pytest.approx(expected)
    assert 0 <= interval.low <= interval.value <= interval.high <= 1 + 1e-12


@settings(deadline=None, max_examples=40)
@given(clips, st.randoms(use_true_random=False), st.booleans(), st.booleans())
def test_the_order_of_clips_does_not_matter(rows, random, by_class, by_signer):
    if len({signer for _, _, signer in rows}) < 2:
        by_signer = False

    def interval(rows):
        values, groups, signers = zip(*rows, strict=True)
        return bootstrap(
            [float(v) for v in values],
            groups=groups if by_class else None,
            clusters=signers if by_signer else None,
            resamples=100,
        )

    one, other = interval(rows), interval(random.sample(rows, len(rows)))
    assert (one.low, one.value, one.high) == pytest.approx((other.low, other.value, other.high))


def test_one_cluster_per_clip_is_the_bootstrap_over_clips():
    values = [1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0]
    apart = bootstrap(values, clusters=[f"s{i}" for i in range(7)], resamples=20_000)
    plain = bootstrap(values, resamples=20_000)
    assert (apart.low, apart.high) == pytest.approx((plain.low, plain.high))
    assert apart.num_clusters == 7


def test_signers_that_differ_widen_the_interval():
    """Ten signers, each all right or all wrong: ten facts, not two hundred."""
    values = [float(signer % 2) for signer in range(10) for _ in range(20)]
    signers = [f"s{signer}" for signer in range(10) for _ in range(20)]
    clips, clusters = bootstrap(values), bootstrap(values, clusters=signers)
    assert clusters.high - clusters.low > 3 * (clips.high - clips.low)


def test_a_seed_names_the_resamples_and_blocks_do_not_show(monkeypatch):
    values = list(np.random.default_rng(0).random(50))
    whole = bootstrap(values, resamples=300, seed=4)
    assert whole == bootstrap(values, resamples=300, seed=4)
    assert whole != bootstrap(values, resamples=300, seed=5)
    monkeypatch.setattr("sign_dist.metrics.intervals._BLOCK", 50 * 7)
    assert whole == bootstrap(values, resamples=300, seed=4)


@pytest.mark.long
@pytest.mark.parametrize("share", [0.3, 0.7, 0.95])
def test_a_95_percent_interval_covers_the_truth_about_that_often(share):
    rng = np.random.default_rng(0)
    draws = rng.random((300, 80)) < share
    inside = [bootstrap(row.astype(float).tolist(), resamples=300, seed=i) for i, row in enumerate(draws)]
    assert 0.88 <= np.mean([i.low <= share <= i.high for i in inside]) <= 0.99
    few = rng.binomial(12, share, size=2000)
    covered = np.mean([(w := wilson(int(k), 12)).low <= share <= w.high for k in few])
    assert 0.87 <= covered <= 1


@pytest.mark.long
def test_signers_resampled_cover_the_truth_where_clips_resampled_do_not():
    """Signers of unequal skill, mean 0.6: what a new signer meets."""
    rng = np.random.default_rng(1)
    signers = [f"s{s}" for s in range(20) for _ in range(15)]
    covered = {"clips": 0, "signers": 0}
    for trial in range(150):
        skill = rng.beta(3, 2, size=20).repeat(15)
        values = (rng.random(300) < skill).astype(float).tolist()
        for name, clusters in (("clips", None), ("signers", signers)):
            interval = bootstrap(values, clusters=clusters, resamples=300, seed=trial)
            covered[name] += interval.low <= 0.6 <= interval.high
    assert covered["signers"] / 150 >= 0.85
    assert covered["clips"] < covered["signers"]


def test_few_or_equal_answers_get_wilson():
    assert share_interval([True] * SMALL_N).method == "Wilson score"
    assert share_interval([True] * 500).low < 1
    assert "bootstrap" in share_interval([True, False] * 50).method


def test_a_per_class_interval_of_many_clips_is_quick_and_small():
    """20 000 clips of 1 000 classes do not build a 20 000 x 1 000 table per resample."""
    rng = np.random.default_rng(0)
    groups = [f"g{i % 1000}" for i in range(20_000)]
    interval = bootstrap((rng.random(20_000) < 0.5).astype(float).tolist(), groups=groups, resamples=100)
    assert 0.48 < interval.low < interval.high < 0.52


def test_wrong_use_is_refused_with_the_numbers():
    with pytest.raises(ValueError, match="got none"):
        bootstrap([])
    with pytest.raises(ValueError, match="at least two of them, got 1"):
        bootstrap([1.0, 0.0], clusters=["s1", "s1"])
    with pytest.raises(ValueError, match="got 1 for 2"):
        bootstrap([1.0, 0.0], groups=["a"])
    with pytest.raises(ValueError, match="successes=3 n=2"):
        wilson(3, 2)
    with pytest.raises(ValueError, match=r"level=1\.5"):
        wilson(1, 2, level=1.5)
