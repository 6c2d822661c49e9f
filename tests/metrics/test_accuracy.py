"""Laws of the accuracy functions."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sign_dist.metrics.accuracy import (
    class_accuracy,
    class_table,
    confusion_counts,
    hits,
    majority_baseline,
    top_k_accuracy,
)

LABELS = ("BOOK", "EAT", "MILK", "NO")
rankings = st.permutations(LABELS)
cases = st.lists(st.tuples(st.sampled_from(LABELS), rankings), min_size=1, max_size=30)


@given(cases, st.randoms(use_true_random=False))
def test_the_order_of_clips_does_not_matter(case, random):
    shuffled = random.sample(case, len(case))
    for score in (top_k_accuracy, class_accuracy):
        assert score(*zip(*case, strict=True), 2) == pytest.approx(score(*zip(*shuffled, strict=True), 2))
    firsts = [(r, ranked[0]) for r, ranked in case]
    assert class_table(*zip(*firsts, strict=True)) == class_table(*zip(*random.sample(firsts, len(firsts)), strict=True))


@given(cases)
def test_more_answers_never_lower_a_score_and_all_answers_reach_one(case):
    references, ranked = zip(*case, strict=True)
    for score in (top_k_accuracy, class_accuracy):
        by_k = [score(references, ranked, k) for k in range(1, len(LABELS) + 1)]
        assert by_k == sorted(by_k)
        assert by_k[-1] == 1


@given(st.lists(st.lists(rankings, min_size=3, max_size=3), min_size=len(LABELS), max_size=len(LABELS)))
def test_on_balanced_classes_per_class_is_per_instance(answers):
    references = [label for label in LABELS for _ in range(3)]
    ranked = [ranking for rankings in answers for ranking in rankings]
    assert class_accuracy(references, ranked) == pytest.approx(top_k_accuracy(references, ranked))


@given(cases)
def test_the_table_adds_up_to_the_score_and_to_the_confusions(case):
    references, ranked = zip(*case, strict=True)
    hypotheses = [r[0] for r in ranked]
    table = class_table(references, hypotheses)
    counts = confusion_counts(references, hypotheses)
    assert sum(row.support for row in table) == sum(row.predicted for row in table) == sum(counts.values()) == len(case)
    assert sum(row.correct for row in table) == sum(hits(references, ranked)) == sum(n for (r, h), n in counts.items() if r == h)
    recalls = [row.recall for row in table if row.support]
    assert class_accuracy(references, ranked) == pytest.approx(math.fsum(recalls) / len(recalls))
    assert list(counts.values()) == sorted(counts.values(), reverse=True)


@given(cases)
def test_no_constant_answer_beats_the_majority(case):
    references = [r for r, _ in case]
    label, share = majority_baseline(references)
    assert share == max(top_k_accuracy(references, [[other]] * len(case)) for other in LABELS)
    assert share == top_k_accuracy(references, [[label]] * len(case))


def test_a_clip_without_answer_is_wrong_and_no_class():
    assert top_k_accuracy(["BOOK", "EAT"], [["BOOK"], []]) == 0.5
    assert [row.label for row in class_table(["BOOK", "EAT"], ["BOOK", ""])] == ["BOOK", "EAT"]
    assert confusion_counts(["EAT"], [""]) == {("EAT", ""): 1}


def test_nothing_asked_is_nan_not_zero():
    assert math.isnan(top_k_accuracy([], []))
    assert math.isnan(class_accuracy([], []))
    assert math.isnan(majority_baseline([])[1])
    (row,) = class_table([], [], labels=["NO"])
    assert math.isnan(row.recall)
    assert math.isnan(row.precision)


def test_wrong_use_is_refused_with_the_numbers():
    with pytest.raises(ValueError, match="1 references and 2 answers"):
        top_k_accuracy(["BOOK"], [["BOOK"], ["EAT"]])
    with pytest.raises(ValueError, match="got 0"):
        hits(["BOOK"], [["BOOK"]], 0)
