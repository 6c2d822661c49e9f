"""Progressive unfreezing: which layers train when, and that a frozen one does not move at all."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sign_dist.config.model import FeatureModel, LandmarkModel, Model, VideoCnnModel
from sign_dist.config.train import Optim
from sign_dist.errors import SettingsError
from sign_dist.models.build import build_model
from sign_dist.models.cslr import CslrHead
from sign_dist.models.i3d import InceptionI3d
from sign_dist.models.signhiera import PRESETS, SignHiera
from sign_dist.models.student import CtcStudent
from sign_dist.models.temporal_i3d import TemporalI3d
from sign_dist.training.optim import build_optimizer, set_lr
from sign_dist.transfer.freeze import frozen_share, groups_of, keep_frozen_still, plan_of
from sign_dist.transfer.schedule import spread, stage_of
from sign_dist.transfer.sync_bn import SharedBatchNorm, share_batch_norm
from tests.parity.vectors import parity_json


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


@given(st.integers(1, 30), st.integers(1, 16))
def test_spread_stages_grow_from_the_head_and_end_with_all(count: int, stages: int) -> None:
    names = [f"g{i}" for i in range(count)]
    found = spread(names, stages)
    assert len(found) == stages
    assert found[-1] == tuple(names)
    for before, after in itertools.pairwise(found):
        assert before
        assert after[: len(before)] == before
    sizes = [len(stage) for stage in found]
    steps = [b - a for a, b in itertools.pairwise([0, *sizes])]
    assert max(steps) - min(steps) <= 1 or count < stages, "evenly"


@given(st.integers(1, 40), st.floats(0, 1))
def test_a_share_is_counted_from_the_input_and_spares_the_head(count: int, fraction: float) -> None:
    names = [f"g{i}" for i in range(count)]
    frozen = frozen_share(names, fraction)
    assert frozen == names[count - len(frozen) :]
    assert "g0" not in frozen
    assert len(frozen) <= fraction * count + 1e-6
    assert len(frozen) in (count - 1, math.floor(round(fraction * count, 9)))


def trained(model: nn.Module) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


@given(st.integers(1, 8), st.integers(1, 16))
def test_each_stage_trains_the_groups_nearest_the_head_and_the_last_stage_all(depth: int, stages: int) -> None:
    model = Tower(depth)
    order = list(groups_of(model))
    plan = plan_of(model, stages=stages)
    before: list[str] = []
    for stage in range(stages):
        names = plan.apply(model, stage)
        assert names == order[: len(names)]
        assert len(names) >= max(1, len(before))
        before = names
        for name, parameters in groups_of(model).items():
            assert all(p.requires_grad == (name in names) for p in parameters)
        assert model.loose.requires_grad == (len(names) == depth), "what is in no group trains last"
    assert before == order
    plan_of(model).apply(model, 0)
    assert all(p.requires_grad for p in model.parameters())


@given(st.integers(2, 8), st.data())
def test_freezing_up_to_a_layer_freezes_what_comes_before_it(depth: int, data: st.DataObject) -> None:
    model, layer = Tower(depth), data.draw(st.integers(0, depth - 1))
    plan = plan_of(model, until=data.draw(st.sampled_from([str(layer), f"layers.{layer}"])))
    plan.apply(model, 0)
    wanted = {n for n, _ in model.named_parameters() if n.startswith("layers.") and int(n.split(".")[1]) >= layer}
    assert trained(model) == wanted | ({"loose"} if layer == 0 else set())


def test_what_is_frozen_stays_so_in_every_stage() -> None:
    model = Tower(5)
    plan = plan_of(model, until="1", groups="3", stages=3)
    assert plan.stages[-1] == ("4", "2", "1")
    for stage in range(3):
        assert set(plan.apply(model, stage)) <= {"4", "2", "1"}
    assert {name.split(".")[1] for name in trained(model)} == {"1", "2", "4"}
    with pytest.raises(SettingsError, match="everything is frozen"):
        plan_of(model, groups="*")
    with pytest.raises(SettingsError, match="no layer group 'layer4': this model has 4, 3, 2, 1, 0"):
        plan_of(model, until="layer4")
    with pytest.raises(SettingsError, match="no layer group 'x\\*'"):
        plan_of(model, groups="x*")
    with pytest.raises(SettingsError, match="empty stage"):
        plan_of(model, plan="4;;3")


def test_a_model_without_groups_has_those_of_its_children() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 3))
    assert list(groups_of(model)) == ["2", "0"]
    plan_of(model, until="2").apply(model, 0)
    assert trained(model) == {"2.weight", "2.bias"}


# --- the published counts ---------------------------------------------------------------------------------------------


class Counted(nn.Module):
    """Blocks of the published sizes, without anything to compute."""

    def __init__(self, sizes: dict[str, int]) -> None:
        super().__init__()
        self.order = list(sizes)  # a ParameterDict sorts its names
        self.blocks = nn.ParameterDict({name: nn.Parameter(torch.empty(size, device="meta")) for name, size in sizes.items()})

    def layer_groups(self) -> list[tuple[str, list[nn.Parameter]]]:
        return [(name, [self.blocks[name]]) for name in reversed(self.order)]


@pytest.fixture(params=["stand-in", "model"])
def teacher(request: pytest.FixtureRequest) -> tuple[nn.Module, dict[str, Any]]:
    """Blocks of the sizes in the file, and the model that has them."""
    published = parity_json("i3d/seed_teacher_counts.json")
    sizes = published["parameters_per_block"]
    if request.param == "stand-in":
        return Counted(sizes), published
    vocabulary = {count: int(name.rpartition("_")[2]) for name, count in published.items() if name.startswith("total_at_vocab_")}
    with torch.device("meta"):
        return TemporalI3d(vocabulary[sum(sizes.values())]), published


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_freezing_up_to_each_layer_leaves_the_published_numbers(teacher: tuple[nn.Module, dict[str, Any]]) -> None:
    model, published = teacher
    assert count(model) == sum(published["parameters_per_block"].values())
    for layer, number in published["trainable_after_freeze_until"].items():
        plan_of(model, until=layer).apply(model, 0)
        assert count(model) == number, layer


def test_the_planned_stages_train_the_published_numbers(teacher: tuple[nn.Module, dict[str, Any]]) -> None:
    model, published = teacher
    stages = published["progressive_stages"]
    plan = plan_of(model, plan="; ".join(" ".join(stage["adds"]) for stage in stages))
    for i, stage in enumerate(stages):
        plan.apply(model, i)
        assert count(model) == stage["trainable"]
    (rule,) = [spans for name, spans in published["stage_rule"].items() if name.startswith("epochs_")]
    epochs = rule[-1][1] + 1
    assert [[e for e in range(epochs) if plan.stage(e, epochs) == i] for i in range(len(rule))] == [
        list(range(a, b + 1)) for a, b in rule
    ]
    whole = plan_of(model, stages=len(stages))
    whole.apply(model, len(stages) - 1)
    assert count(model) == sum(published["parameters_per_block"].values()), "without a plan the last stage trains everything"


@pytest.mark.long
def test_in_each_planned_stage_exactly_so_many_numbers_get_gradients() -> None:
    """The same counts, by a backward pass through the real network; what is frozen does not change, statistics included."""
    published = parity_json("i3d/seed_teacher_counts.json")
    torch.manual_seed(0)
    model = TemporalI3d(1232)
    plan = plan_of(model, plan="; ".join(" ".join(stage["adds"]) for stage in published["progressive_stages"]))
    optimizer = build_optimizer(model, Optim(lr=0.01))
    x, lengths = torch.randn(2, 12, 6516), torch.tensor([12, 9])
    trained_before: set[str] = set()
    for i, stage in enumerate(published["progressive_stages"]):
        names = plan.apply(model, i)
        model.train()
        keep_frozen_still(model)
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        momenta = {id(p): state["exp_avg"].clone() for p, state in optimizer.state.items()}
        optimizer.zero_grad(set_to_none=True)
        logits, _ = model(x, lengths)
        logits.square().mean().backward()
        with_gradient = {name for name, p in model.named_parameters() if p.grad is not None}
        assert {name.split(".")[0] for name in with_gradient} == set(names)
        assert sum(p.numel() for p in model.parameters() if p.grad is not None) == stage["trainable"]
        assert trained_before < with_gradient
        assert {id(p) for n, p in model.named_parameters() if n in trained_before} == momenta.keys(), "none is lost, none is made"
        optimizer.step()
        moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
        assert {name.split(".")[0] for name in moved} == set(names)
        assert {name for name in before if "running_" in name and name.split(".")[0] in names} <= moved
        assert all(float(optimizer.state[p]["step"]) == i + 1 for n, p in model.named_parameters() if n.startswith("classifier"))
        trained_before = with_gradient


# --- frozen means still -----------------------------------------------------------------------------------------------


def test_frozen_layers_keep_their_statistics_and_drop_nothing() -> None:
    model = Tower(3)
    plan_of(model, stages=3).apply(model, 0)
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


@given(st.integers(2, 5), st.integers(1, 6))
def test_after_each_stage_exactly_its_parameters_have_gradients(depth: int, stages: int) -> None:
    model = Tower(depth)
    plan = plan_of(model, stages=stages)
    for stage in range(stages):
        names = plan.apply(model, stage)
        model.train()
        keep_frozen_still(model)
        model.zero_grad()
        model(torch.randn(8, 2)).square().sum().backward()
        wanted = {id(p) for name, parameters in groups_of(model).items() if name in names for p in parameters}
        assert {id(p) for p in model.parameters() if p.grad is not None} == wanted


def test_the_optimiser_keeps_its_state_when_layers_are_unfrozen() -> None:
    torch.manual_seed(0)
    model = Tower(3)
    optimizer = build_optimizer(model, Optim(lr=0.1, layer_decay=0.5))
    plan = plan_of(model, stages=3)

    def step(stage: int) -> None:
        plan.apply(model, stage)
        optimizer.zero_grad(set_to_none=True)
        model(torch.randn(8, 2)).square().sum().backward()
        optimizer.step()

    for _ in range(3):
        step(0)
    head = model.layers[2][0].weight
    mean = optimizer.state[head]["exp_avg"].clone()
    lower = model.layers[0][0].weight
    assert lower not in optimizer.state
    before = lower.detach().clone()
    plan.apply(model, 2)
    assert torch.equal(optimizer.state[head]["exp_avg"], mean)
    assert torch.equal(lower, before), "no decay either while a layer is frozen"
    step(2)
    assert float(optimizer.state[head]["step"]) == 4
    assert float(optimizer.state[lower]["step"]) == 1
    assert not torch.equal(lower, before)


@given(st.integers(1, 6), st.floats(0.1, 0.99), st.floats(1e-4, 1.0))
def test_rates_fall_by_the_decay_from_group_to_group_and_hold_every_parameter_once(depth: int, decay: float, lr: float) -> None:
    model = Tower(depth)
    optimizer = build_optimizer(model, Optim(lr=lr, layer_decay=decay))
    set_lr(optimizer, lr)
    rate = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rate.keys() == {id(p) for p in model.parameters()}
    for i, parameters in enumerate(groups_of(model).values()):
        assert all(rate[id(p)] == pytest.approx(lr * decay**i) for p in parameters)
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0, Optim().weight_decay}


@pytest.mark.parametrize(
    ("world_size", "device_type", "kind"), [(1, "cuda", nn.BatchNorm1d), (2, "cpu", SharedBatchNorm), (2, "cuda", nn.SyncBatchNorm)]
)
def test_batch_norm_is_shared_between_workers(world_size: int, device_type: str, kind: type[nn.Module]) -> None:
    """What it computes on CPUs is tested in test_sync_bn.py; on GPUs it is torch's own."""
    model = Tower(3)
    plan_of(model, stages=3).apply(model, 0)
    before, wanted = {n: t.clone() for n, t in model.state_dict().items()}, trained(model)
    model = share_batch_norm(model, world_size=world_size, device_type=device_type)
    assert sum(type(m) is kind for m in model.modules()) == 3
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert trained(model) == wanted


# --- every model ------------------------------------------------------------------------------------------------------

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


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "signhiera": lambda: SignHiera(PRESETS["tiny"], 5),
    "i3d": lambda: InceptionI3d(5),
    "temporal_i3d": lambda: TemporalI3d(5),
    "cslr": lambda: CslrHead(8, 5, hidden=16, share_classifier=False),
    "student": lambda: CtcStudent(8, 5),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_groups_of_every_network_hold_each_parameter_once(name: str) -> None:
    check_groups(NETWORKS[name]())


def check_groups(model: nn.Module) -> None:
    groups = model.layer_groups()  # pyright: ignore[reportCallIssue]
    counted = [
        p for _, parts in groups for part in parts for p in ([part] if isinstance(part, nn.Parameter) else part.parameters())
    ]
    assert sorted(map(id, counted)) == sorted(map(id, model.parameters()))
    stages = len(groups)
    plan = plan_of(model, stages=stages)
    for stage in range(stages):
        plan.apply(model, stage)
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        assert trained == sum(p.numel() for _, parts in groups[: stage + 1] for part in parts for p in _parameters(part))


def _parameters(part: nn.Module | nn.Parameter) -> list[nn.Parameter]:
    return [part] if isinstance(part, nn.Parameter) else list(part.parameters())


def test_statistics_that_are_to_stay_do_so_in_layers_that_train() -> None:
    model = Tower(3)
    for layer in model.layers:
        layer[2] = nn.Identity()  # no dropout: two answers are to be equal
    plan_of(model, stages=1).apply(model, 0)
    model.train()
    keep_frozen_still(model, statistics=True)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    x = torch.randn(8, 2)
    alone, among = model(x[:1]), model(x)
    among.sum().backward()
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert all(p.grad is not None for p in model.parameters()), "the weights of BatchNorm train as well"
    torch.testing.assert_close(alone, among[:1], msg="a clip's answer does not depend on those beside it")
