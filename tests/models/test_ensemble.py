"""An ensemble answers with the mean probability of its members, and each member learns as if it were alone."""

import pytest
import torch
from torch import Tensor, nn

from sign_dist.models.ensemble import Ensemble


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(3, 4), nn.Linear(4, 5)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        return self.head(self.body(features).relu())

    def layer_groups(self) -> list[tuple[str, list[nn.Module]]]:
        return [("head", [self.head]), ("body", [self.body])]


def test_it_answers_with_the_mean_probability() -> None:
    torch.manual_seed(0)
    model = Ensemble([Toy() for _ in range(3)]).eval()
    x, lengths = torch.randn(7, 3), torch.ones(7)
    alone = torch.stack([member(x, lengths).softmax(-1) for member in model.members]).mean(0)
    torch.testing.assert_close(model(x, lengths).exp(), alone)
    torch.testing.assert_close(model(x, lengths).softmax(-1), alone)


def test_members_do_not_see_each_other_in_training() -> None:
    torch.manual_seed(0)
    model = Ensemble([Toy() for _ in range(2)]).train()
    logits = model(torch.randn(7, 3), torch.ones(7))
    assert logits.shape == (2, 7, 5)
    logits[0].sum().backward()
    first, second = model.members
    assert all(p.grad is not None and p.grad.any() for p in first.head.parameters())
    assert not any(p.grad is not None and p.grad.any() for p in second.parameters())


def test_groups_join_the_members_and_cover_every_parameter_once() -> None:
    model = Ensemble([Toy() for _ in range(3)])
    groups = model.layer_groups()
    assert [name for name, _ in groups] == ["head", "body"]
    named = [id(p) for _, modules in groups for module in modules for p in module.parameters()]
    assert sorted(named) == sorted(id(p) for p in model.parameters())


def test_none_is_no_ensemble() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Ensemble([])
