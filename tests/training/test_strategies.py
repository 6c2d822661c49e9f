"""Which strategy settings name, what they refuse, and the parts that strategies are made of."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn

from sign_dist.config.data import Data
from sign_dist.config.run import Run, Scale
from sign_dist.config.train import Train
from sign_dist.errors import SettingsError
from sign_dist.training.fsdp import units_of
from sign_dist.training.loss_scale import LossScale
from sign_dist.training.plain_copy import PlainCopy
from sign_dist.training.strategies import build_strategy
from sign_dist.training.strategy import OneProcess
from sign_dist.training.zero import _with_tensors, _without_scalars


def a_run(**scale: Any) -> Run:
    return Run(data=Data(root="data/none"), scale=Scale(**scale))


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["auto", "none"])
def test_one_process_needs_no_others(strategy: Any) -> None:
    built = build_strategy(a_run(strategy=strategy), "cpu")
    assert isinstance(built, OneProcess)
    assert built.gather(3) == [3]


@pytest.mark.parametrize(
    ("scale", "said"),
    [
        ({"strategy": "none", "workers": 2}, "scale.workers = 2"),
        ({"strategy": "ddp", "workers": 2, "offload": True}, "scale.offload"),
        ({"offload": True}, "scale.offload"),
        ({"strategy": "deepspeed", "zero_stage": 4}, "zero_stage"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(scale: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Scale(**scale)


def test_how_workers_share_a_model_is_no_part_of_what_is_learned() -> None:
    assert a_run(workers=2, strategy="fsdp").digest() == a_run(workers=2, strategy="deepspeed", zero_stage=3, offload=True).digest()


def test_fp16_is_refused_on_a_cpu() -> None:
    with pytest.raises(SettingsError, match="fp16' needs a GPU"):
        build_strategy(Run(data=Data(root="data/none"), train=Train(precision="fp16")), "cpu")


@pytest.mark.parametrize("strategy", ["ddp", "fsdp", "deepspeed"])
def test_strategies_of_several_processes_are_refused_where_devices_are_alone(strategy: Any) -> None:
    with pytest.raises(SettingsError, match=f"'{strategy}' cannot be had on a device of kind 'mps'"):
        build_strategy(a_run(strategy=strategy), "mps")


def test_deepspeed_refuses_a_parameter_without_a_dimension() -> None:
    model = nn.Linear(2, 2)
    _without_scalars(model)
    model.scale = nn.Parameter(torch.tensor(1.0))
    with pytest.raises(SettingsError, match=r"'scale'.*scale\.strategy=fsdp"):
        _without_scalars(model)


def test_deepspeed_has_one_door() -> None:
    package = Path(__file__).resolve().parents[2] / "sign_dist"
    assert [path.name for path in package.rglob("*.py") if 'import_module("deepspeed' in path.read_text(encoding="utf-8")] == [
        "zero.py"
    ]


# --- units of FSDP ----------------------------------------------------------------------------------------------------


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Linear(10, 10)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(10, 10), nn.Linear(10, 10)) for _ in range(3))
        self.branches = nn.ModuleDict({"a": nn.ModuleList([nn.Linear(10, 10)])})
        self.tail = nn.Sequential(nn.Linear(10, 10, bias=False), nn.Linear(10, 1))
        self.tail[0].weight = self.front.weight


def test_units_are_the_outermost_large_elements_of_lists() -> None:
    model = Nested()
    assert units_of(model, 200) == [*model.blocks]
    assert units_of(model, 300) == []
    # Not the tail's first, whose weight is the front's too, and never a whole list, which nobody calls.
    small = [*model.blocks, model.branches["a"][0], model.tail[1]]
    assert units_of(model, 1) == small


# --- scale of the loss ------------------------------------------------------------------------------------------------


@given(st.lists(st.booleans(), max_size=60))
def test_the_scale_of_the_loss_follows_overflows(fits: list[bool]) -> None:
    scale = LossScale(value=1024.0, patience=3)
    for good in fits:
        before = scale.value
        scale.update(fits=good)
        assert scale.value >= 1
        assert scale.value in ((before, 2 * before) if good else (max(before / 2, 1.0),))
    assert scale.value <= 1024.0 * 2 ** (sum(fits) // 3)


def test_the_scale_of_the_loss_grows_after_its_patience() -> None:
    scale = LossScale(value=4.0, patience=2)
    values: list[float] = []
    for good in (True, True, True, False, True, True):
        scale.update(fits=good)
        values.append(scale.value)
    assert values == [4.0, 8.0, 8.0, 4.0, 4.0, 8.0]


# --- a plain copy -----------------------------------------------------------------------------------------------------


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.norm = nn.BatchNorm1d(4)
        self.lstm = nn.LSTM(4, 4, batch_first=True)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("table", torch.arange(7), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.lstm(self.embed(self.table[x]))
        return self.head(self.norm(y.transpose(1, 2)).transpose(1, 2))


def test_a_plain_copy_answers_as_its_model_does() -> None:
    model = Tied()
    model(torch.tensor([[1, 2, 3]]))  # moves the statistics
    copy = PlainCopy(model)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1)
    weights = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    with copy.asked(weights, torch.device("cpu")) as asked:
        x = torch.tensor([[6, 0]])
        assert torch.equal(asked(x), model.eval()(x))
        assert asked.head.weight is asked.embed.weight
        assert not any(p.requires_grad for p in asked.parameters())
        assert asked.embed.weight.data_ptr() == model.embed.weight.data_ptr(), "the weights are lent"


def test_a_plain_copy_holds_no_numbers_and_trains_when_filled() -> None:
    model = Tied()
    copy = PlainCopy(model)
    assert all(p.is_meta for p in copy._model.parameters())
    assert not any(p.is_meta for p in model.parameters())
    filled = copy.filled({name: tensor.clone() for name, tensor in model.state_dict().items()}, torch.device("cpu"))
    assert [name for name, _ in filled.named_parameters()] == [name for name, _ in model.named_parameters()]
    filled.train()(torch.tensor([[1, 2]])).sum().backward()
    assert filled.embed.weight.grad is not None
    assert model.embed.weight.grad is None


# --- outputs ----------------------------------------------------------------------------------------------------------


class Pair(NamedTuple):
    one: Tensor
    other: int


@dataclasses.dataclass(frozen=True)
class Outputs:
    logits: Tensor
    more: list[Tensor]
    nothing: Tensor | None = None


def test_every_tensor_of_an_answer_is_seen_once_and_in_order() -> None:
    a, b, c, d = (torch.tensor(float(i)) for i in range(4))
    answer = (Pair(a, 5), {"x": Outputs(b, [c, d])}, "text")
    seen: list[float] = []

    def change(tensor: Tensor) -> Tensor:
        seen.append(float(tensor))
        return tensor + 10

    pair, held, text = _with_tensors(answer, change)
    assert seen == [0, 1, 2, 3]
    assert pair == Pair(torch.tensor(10.0), 5)
    assert isinstance(held["x"], Outputs)
    assert (float(held["x"].logits), [float(t) for t in held["x"].more], held["x"].nothing) == (11, [12, 13], None)
    assert text == "text"
