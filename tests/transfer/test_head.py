"""A head for another vocabulary: what both have is kept to the bit, what is new starts afresh."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sign_dist.errors import WeightsError
from sign_dist.models.i3d import InceptionI3d
from sign_dist.transfer.head import carry_rows, is_head, replace_head

GLOSSES = st.lists(st.sampled_from([f"G{i}" for i in range(12)]), min_size=1, max_size=12, unique=True)


@given(GLOSSES, GLOSSES, st.integers(0, 2), st.sampled_from([0, 1, -1]), st.sampled_from([(), (3,), (3, 1, 1)]))
def test_shared_glosses_keep_their_rows_and_all_else_stays_fresh(
    old: list[str], new: list[str], special: int, axis: int, rest: tuple[int, ...]
) -> None:
    if axis and not rest:
        axis = 0
    torch.manual_seed(0)
    before = torch.randn(special + len(old), *rest).movedim(0, axis)
    fresh = torch.randn(special + len(new), *rest).movedim(0, axis)
    untouched = fresh.clone()
    made = carry_rows(before, fresh, old, new, special=special, axis=axis)
    assert torch.equal(fresh, untouched), "the model's own tensor is not written to"
    assert made.shape == fresh.shape
    rows, old_rows, new_rows = made.movedim(axis, 0), before.movedim(axis, 0), fresh.movedim(axis, 0)
    assert torch.equal(rows[:special], old_rows[:special])
    for i, gloss in enumerate(new):
        wanted = old_rows[special + old.index(gloss)] if gloss in old else new_rows[special + i]
        assert torch.equal(rows[special + i], wanted)


@given(GLOSSES, st.permutations(range(12)))
def test_there_and_back_again_changes_nothing(old: list[str], order: list[int]) -> None:
    wider = sorted({*old, "X", "Y"}, key=lambda gloss: order[hash(gloss) % 12])
    weight = torch.randn(len(old), 4)
    there = carry_rows(weight, torch.randn(len(wider), 4), old, wider)
    assert torch.equal(carry_rows(there, torch.randn(len(old), 4), wider, old), weight)
    assert torch.equal(carry_rows(weight, torch.randn(len(old), 4), old, old), weight)


@given(GLOSSES, GLOSSES)
def test_each_gloss_is_kept_fresh_or_dropped(old: list[str], new: list[str]) -> None:
    net = nn.ModuleDict({"body": nn.Linear(4, 4), "head": nn.Sequential(nn.Dropout(), nn.Linear(4, len(old)))})
    into = nn.ModuleDict({"body": nn.Linear(4, 4), "head": nn.Sequential(nn.Dropout(), nn.Linear(4, len(new)))})
    tensors, report = replace_head(net.state_dict(), into.state_dict(), old, new)
    assert sorted([*report.kept, *report.fresh]) == sorted(new)
    assert sorted([*report.kept, *report.dropped]) == sorted(old)
    assert report.tensors == ("head.1.weight", "head.1.bias")
    into.load_state_dict(tensors)
    x = torch.randn(3, 4)
    net.eval(), into.eval()
    for gloss in report.kept:
        one, two = net["head"](x)[:, old.index(gloss)], into["head"](x)[:, new.index(gloss)]
        torch.testing.assert_close(one, two)


def test_a_convolution_as_head_and_a_classifier_with_a_blank_and_columns_as_classes() -> None:
    old, new = [f"A{i}" for i in range(10)], ["A3", "B", "A7"]
    with torch.device("cpu"):
        i3d = InceptionI3d(10)
        smaller = InceptionI3d(3)
    tensors, report = replace_head(i3d.state_dict(), smaller.state_dict(), old, new)
    assert report.tensors == ("logits.conv3d.weight", "logits.conv3d.bias")
    assert torch.equal(tensors["logits.conv3d.weight"][2], i3d.logits.conv3d.weight[7])
    blank = {"classifier.weight": torch.randn(6, 11)}
    tensors, report = replace_head(blank, {"classifier.weight": torch.zeros(6, 4)}, old, new, special=1)
    assert torch.equal(
        tensors["classifier.weight"],
        torch.stack([*blank["classifier.weight"].T[[0, 4]], torch.zeros(6), blank["classifier.weight"].T[8]]).T,
    )


@pytest.mark.parametrize("name", ["head.weight", "members.3.head.1.bias", "logits.conv3d.weight", "fc.weight", "classifier.bias"])
def test_heads_are_told_by_their_names(name: str) -> None:
    assert is_head(name)
    assert not is_head(name.replace("head", "heads").replace("logits", "logit").replace("fc", "fc1").replace("classifier", "class"))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((torch.ones(3, 2), torch.ones(2, 2), ["A", "B"], ["A", "C"]), "the weights has 3 rows, its vocabulary 2 glosses"),
        ((torch.ones(2, 2), torch.ones(3, 2), ["A", "B"], ["A", "C"]), "the model has 3 rows"),
        ((torch.ones(2, 5), torch.ones(2, 2), ["A", "B"], ["A", "C"]), "read different widths"),
    ],
)
def test_what_does_not_belong_together_is_refused(arguments: Any, text: str) -> None:
    with pytest.raises(WeightsError, match=text):
        carry_rows(*arguments)


def test_a_vocabulary_of_other_weights_is_refused() -> None:
    with pytest.raises(WeightsError, match="the vocabulary beside the weights is not theirs"):
        replace_head({"head.weight": torch.ones(5, 2)}, {"head.weight": torch.ones(3, 2)}, ["A", "B"], ["A", "B", "C"])
