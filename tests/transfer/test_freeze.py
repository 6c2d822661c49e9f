"""Progressive unfreezing: which layers train when, and that a frozen one does not move at all."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sign_dist.config.model import FeatureModel, LandmarkModel, Model, VideoCnnModel
from sign_dist.models.build import build_model
from sign_dist.models.signhiera import PRESETS, SignHiera
from sign_dist.transfer.freeze import keep_frozen_still, stage_of, train_stage


class Tower(nn.Module):
    """`depth` layers over each other, the last one nearest the head."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout(0.5)) for _ in range(depth))
        self.loose = nn.Parameter(torch.ones(2))

    def layer_groups(self) -> list[tuple[str, list[nn.Module]]]:
        return [(str(i), [self.layers[i]]) for i in reversed(range(len(self.layers)))]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x * self.loose
        for layer in self.layers:
            x = layer(x)
        return x


@given(st.integers(1, 200), st.integers(1, 16))
def test_stages_begin_with_the_first_end_with_the_last_and_never_go_back(epochs: int, stages: int) -> None:
    found = [stage_of(epoch, epochs, stages) for epoch in range(epochs)]
    assert found == [epoch * stages // epochs for epoch in range(epochs)]
    assert found[0] == 0
    assert found == sorted(found)
    if epochs >= stages:
        assert set(found) == set(range(stages))


@given(st.integers(1, 8), st.integers(1, 16))
def test_each_stage_trains_the_groups_nearest_the_head_and_the_last_stage_all(depth: int, stages: int) -> None:
    model = Tower(depth)
    order = [name for name, _ in model.layer_groups()]
    before: list[str] = []
    for stage in range(stages):
        names = train_stage(model, stage, stages)
        assert names == order[: len(names)]
        assert len(names) >= max(1, len(before))
        before = names
        for name, parts in model.layer_groups():
            assert all(p.requires_grad == (name in names) for part in parts for p in part.parameters())
        assert model.loose.requires_grad == (len(names) == depth)
    assert before == order
    train_stage(model, 0, 1)
    assert all(p.requires_grad for p in model.parameters())


def test_frozen_layers_keep_their_statistics_and_drop_nothing() -> None:
    model = Tower(3)
    train_stage(model, 0, 3)
    model.train()
    keep_frozen_still(model)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    model(torch.randn(8, 2)).sum().backward()
    for name, tensor in model.state_dict().items():
        moved = name.startswith("layers.2.1.") and ("running" in name or "num_batches" in name)
        assert torch.equal(tensor, before[name]) != moved, name
    assert [layer.training for layer in model.layers] == [False, False, True]
    assert not any(m.training for layer in list(model.layers)[:2] for m in layer.modules())
    assert {n for n, p in model.named_parameters() if p.grad is not None} == {
        n for n, _ in model.named_parameters() if "layers.2" in n
    }


MODELS: list[tuple[Model, tuple[int, ...]]] = [
    (LandmarkModel(width=8, depth=2), (87, 4)),
    (FeatureModel(width=8, depth=2), (16,)),
    (VideoCnnModel(), (64, 64, 3)),
]


@pytest.mark.parametrize(("settings", "shape"), MODELS, ids=lambda x: getattr(x, "kind", ""))
def test_the_groups_of_every_model_hold_each_parameter_once(settings: Model, shape: tuple[int, ...]) -> None:
    if settings.kind == "landmark":
        from sign_dist.video.landmarks import NUM_LANDMARKS

        shape = (NUM_LANDMARKS, 4)
    check_groups(build_model(settings, num_classes=5, feature_shape=shape))


def test_the_groups_of_signhiera_hold_each_parameter_once() -> None:
    check_groups(SignHiera(PRESETS["tiny"], 5))


def check_groups(model: nn.Module) -> None:
    groups = model.layer_groups()  # pyright: ignore[reportCallIssue]
    counted = [
        p for _, parts in groups for part in parts for p in ([part] if isinstance(part, nn.Parameter) else part.parameters())
    ]
    assert sorted(map(id, counted)) == sorted(map(id, model.parameters()))
    stages = len(groups)
    for stage in range(stages):
        train_stage(model, stage, stages)
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        assert trained == sum(p.numel() for _, parts in groups[: stage + 1] for part in parts for p in _parameters(part))


def _parameters(part: nn.Module | nn.Parameter) -> list[nn.Parameter]:
    return [part] if isinstance(part, nn.Parameter) else list(part.parameters())
