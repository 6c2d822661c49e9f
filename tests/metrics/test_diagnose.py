"""Diagnosis: each fault is found, with its number, and sound results are not accused."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sign_dist.metrics import diagnose

IDS = [f"clip{i}" for i in range(20)]
labels = st.lists(st.sampled_from("AB"), min_size=1, max_size=5)


def codes(findings):
    return [finding.code for finding in findings]


@given(labels, st.integers(1, 9))
def test_a_label_fits_where_its_loss_is_finite(label, steps):
    """The rule T' >= L + repeats against torch's own loss."""
    targets = torch.tensor([["-AB".index(gloss) for gloss in label]])
    loss = torch.nn.functional.ctc_loss(
        torch.zeros(steps, 1, 3).log_softmax(-1), targets, torch.tensor([steps]), torch.tensor([len(label)]), reduction="none"
    )
    short = diagnose.too_short(["clip"], [steps], [label])
    assert bool(short) == math.isinf(float(loss[0]))
    assert all(finding.names == ("clip",) for finding in short)


def test_features_that_are_too_few_are_counted_and_named():
    (found,) = diagnose.too_short(["a", "b", "c"], [9, 2, 3], [["X"] * 3, ["X", "Y", "Z"], ["X"] * 4])
    assert (found.code, found.count, found.total, found.names) == ("too_short", 2, 3, ("b", "c"))
    assert "up to 4 too few" in str(found)


def test_a_collapse_to_the_blank():
    (found,) = diagnose.blank_collapse(IDS, [1.0] * 18 + [0.6] * 2)
    assert (found.count, found.total) == (18, 20)
    assert "wins 96.0%" in found.text
    assert not diagnose.blank_collapse(IDS, [0.9] * 20)
    assert not diagnose.blank_collapse(IDS, [1.0] * 3 + [0.8] * 17)


def test_empty_hypotheses_of_clips_that_show_something():
    references = ["A"] * 18 + [""] * 2
    (found,) = diagnose.empty_hypotheses(IDS, references, ["A"] * 12 + [""] * 8)
    assert (found.count, found.total) == (6, 18)
    assert str(found).startswith("6 of 18 clips have an empty hypothesis (clip12, clip13, clip14, clip15, clip16, ...): ")
    assert not diagnose.empty_hypotheses(IDS, references, ["A"] * 18 + [""] * 2)


def test_one_answer_to_everything_unless_it_is_right():
    references = [f"SIGN{i % 7}" for i in range(20)]
    (found,) = diagnose.one_answer(IDS, references, ["SIGN0"] * 19 + ["SIGN1"])
    assert (found.count, found.total) == (19, 20)
    assert "right for 3" in found.text
    assert not diagnose.one_answer(IDS, references, references)
    assert not diagnose.one_answer(IDS, ["SIGN0"] * 20, ["SIGN0"] * 20)


def test_classes_that_are_missing():
    found = diagnose.missing_classes(["A", "B", "C", "HOW MANY"], ["A B X", "HOW MANY"], ["A A", "A"], trained={"A": 3, "B": 1})
    assert codes(found) == ["outside_vocabulary", "no_training_clips", "never_answered"]
    assert [f.names for f in found] == [("X",), ("C", "HOW MANY"), ("B", "HOW MANY")]
    assert [(f.count, f.total) for f in found] == [(1, 4), (2, 4), (2, 3)]
    assert not diagnose.missing_classes(["A", "B"], ["A B"], ["B A"], trained={"A": 1, "B": 1})


def test_one_value_per_clip():
    with pytest.raises(ValueError, match="got 2 clips and 1 values"):
        diagnose.blank_collapse(["a", "b"], [1.0])
