"""The parts of training that stand alone: learning rates, parameter groups, clips of a dataset, strategies."""

import datetime
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sign_dist.config.data import Data
from sign_dist.config.run import Run
from sign_dist.config.train import Optim
from sign_dist.data.layout import DatasetDir, write_json
from sign_dist.data.manifest import write_manifest
from sign_dist.data.sample import Sample
from sign_dist.errors import DataError
from sign_dist.features.spec import FeatureSpec
from sign_dist.features.store import FeatureStore, pack
from sign_dist.training.data import Clips, epoch_order
from sign_dist.training.optim import build_optimizer, lr_at
from sign_dist.training.strategy import Ddp, DdpEngine, Engine, OneProcess

OPTIMS = st.builds(
    Optim,
    lr=st.floats(min_value=1e-6, max_value=1),
    warmup_fraction=st.floats(min_value=0, max_value=0.99),
    final_lr_ratio=st.floats(min_value=0, max_value=1),
)


@given(OPTIMS, st.integers(1, 300))
def test_the_learning_rate_rises_to_its_height_and_falls_to_its_end(settings: Optim, steps: int) -> None:
    rates = [lr_at(step, steps, settings) for step in range(steps)]
    top = max(range(steps), key=rates.__getitem__)
    assert all(0 <= rate <= settings.lr * (1 + 1e-9) for rate in rates)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert all(later <= earlier * (1 + 1e-9) for earlier, later in zip(rates[top:], rates[top + 1 :], strict=False))
    assert rates[0] > 0
    assert rates[top] == pytest.approx(settings.lr)
    low = settings.lr * settings.final_lr_ratio
    if round(steps * settings.warmup_fraction) < steps:  # else nothing is left to fall in
        assert lr_at(steps, steps, settings) == pytest.approx(low, abs=1e-12)
    assert lr_at(steps + 50, steps, settings) == pytest.approx(low, abs=1e-12), "a longer run stays low"


def test_only_matrices_are_decayed_and_every_parameter_is_in_one_group() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Conv1d(4, 2, 3))
    optimizer = build_optimizer(model, Optim(weight_decay=0.3, lr=0.1, beta1=0.5, beta2=0.6))
    decayed, plain = optimizer.param_groups
    assert {p.ndim > 1 for p in decayed["params"]} == {True}
    assert {p.ndim > 1 for p in plain["params"]} == {False}
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.3, 0.0)
    assert decayed["betas"] == (0.5, 0.6)
    together = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(together) == sorted(id(p) for p in model.parameters())
    assert len(build_optimizer(nn.LayerNorm(3), Optim()).param_groups) == 1


@given(st.integers(1, 50), st.integers(0, 9), st.integers(0, 9))
def test_every_epoch_has_an_order_of_its_own(num_clips: int, seed: int, epoch: int) -> None:
    order = epoch_order(num_clips, seed=seed, epoch=epoch)
    assert sorted(order.tolist()) == list(range(num_clips))
    assert (order == epoch_order(num_clips, seed=seed, epoch=epoch)).all()
    if num_clips > 20:
        assert (order != epoch_order(num_clips, seed=seed, epoch=epoch + 1)).any()
        assert (order != epoch_order(num_clips, seed=seed + 1, epoch=epoch)).any()


# --- clips ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def dataset(tmp_path: Path) -> DatasetDir:
    dataset = DatasetDir(tmp_path)
    write_json(dataset.facts_file, {"videos_root": "."})
    samples = [Sample(f"c{i}", f"{i}.mp4", "A", sha256=f"{i:064d}") for i in range(4)]
    write_manifest(dataset.manifest_file("train"), samples)
    write_manifest(dataset.manifest_file("val"), [])
    return dataset


def extract(dataset: DatasetDir, run: Run, errors: dict[int, str], count: int = 4) -> None:
    rows = [
        {"key": Sample("", "", sha256=f"{i:064d}").key, "id": f"c{i}", "fps": 25.0, "error": errors.get(i, "")}
        | pack(np.full((3, 2), i, np.float16))
        for i in range(count)
    ]
    FeatureStore.create(dataset, FeatureSpec(features=run.data.features)).commit("b-0", rows)


def test_clips_have_the_features_of_their_own_key_and_failed_ones_are_told(dataset: DatasetDir) -> None:
    run = Run(data=Data(root=str(dataset.root)))
    with pytest.raises(DataError, match="sign-dist extract"):
        Clips.of(run, "train")
    extract(dataset, run, {1: "no_signer: nobody"})
    clips = Clips.of(run, "train")
    assert [clips[i].sample.id for i in range(len(clips))] == ["c0", "c2", "c3"]
    assert [int(clips[i].features[0, 0]) for i in range(len(clips))] == [0, 2, 3]
    assert [(s.id, why) for s, why in clips.failed] == [("c1", "no_signer: nobody")]
    with pytest.raises(IndexError):
        clips[3]
    with pytest.raises(DataError, match=r"split 'val' .* its manifest is empty"):
        Clips.of(run, "val")
    with pytest.raises(DataError, match="no split 'holdout'"):
        Clips.of(run, "holdout")


def test_a_split_without_one_good_clip_and_one_half_extracted_are_refused(dataset: DatasetDir) -> None:
    run = Run(data=Data(root=str(dataset.root)))
    extract(dataset, run, {}, count=3)
    with pytest.raises(DataError, match=r"'c3' has not been extracted .*sign-dist extract"):
        Clips.of(run, "train")
    failed = DatasetDir(dataset.root / "failed")
    write_json(failed.facts_file, {"videos_root": "."})
    write_manifest(failed.manifest_file("train"), [Sample("c0", "0.mp4", "A", sha256="0" * 64)])
    run = Run(data=Data(root=str(failed.root)))
    extract(failed, run, {0: "truncated: x"}, count=1)
    with pytest.raises(DataError, match="all 1 failed to extract"):
        Clips.of(run, "train")


# --- strategies -------------------------------------------------------------------------------------------------------


@pytest.fixture
def process_group() -> Iterator[None]:
    store = dist.HashStore()
    dist.init_process_group("gloo", store=store, rank=0, world_size=1, timeout=datetime.timedelta(seconds=20))
    yield
    dist.destroy_process_group()


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    return build_optimizer(model, Optim(lr=0.1))


def moved(engine: Engine, x: torch.Tensor) -> None:
    for last in (False, True):
        with engine.part(last=last):
            engine.backward(engine.model(x).square().sum())
    assert engine.step(1.0) > 0
    engine.zero_grad()


def test_one_process_gathers_and_adds_itself() -> None:
    strategy = OneProcess()
    model = nn.Linear(2, 2)
    engine = strategy.start(model, optimizer_of)
    assert engine.model is engine.bare is model
    assert strategy.gather({"a": 1}) == [{"a": 1}]
    assert strategy.sum(torch.ones(2)).tolist() == [1, 1]


@pytest.mark.usefixtures("process_group")
def test_a_group_of_one_needs_no_wrapper() -> None:
    strategy = Ddp("cpu")
    assert (strategy.rank, strategy.world_size) == (0, 1)
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    assert strategy.start(model, optimizer_of).model is model
    assert strategy.gather(3) == [3]
    assert strategy.sum(torch.ones(1)).tolist() == [1]


@pytest.mark.long
@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("wrapped", [False, True])
def test_an_engine_goes_on_where_its_state_was_taken(wrapped: bool) -> None:
    def make() -> Engine:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
        if wrapped:
            return DdpEngine(model, optimizer_of(model), torch.device("cpu"), 1, 0)
        return OneProcess().start(model, optimizer_of)

    x = torch.randn(5, 2)
    one = make()
    moved(one, x)
    state = one.state()
    assert state is not None
    moved(one, x * 2)
    other = make()
    other.load(state)
    moved(other, x * 2)
    for (name, a), b in zip(one.bare.state_dict().items(), other.bare.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_other_weights_are_evaluated_and_the_own_ones_come_back() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    engine = OneProcess().start(model, optimizer_of)
    own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    other = {name: tensor + 1 for name, tensor in own.items()}
    model.train()
    with engine.alone(other) as alone:
        assert not alone.training
        assert all(torch.equal(tensor, other[name]) for name, tensor in alone.state_dict().items())
        assert all(torch.equal(tensor, other[name]) for name, tensor in engine.whole(alone.state_dict()).items())
    assert model.training
    assert all(torch.equal(tensor, own[name]) for name, tensor in model.state_dict().items())


def test_a_norm_that_is_no_number_moves_nothing() -> None:
    model = nn.Linear(2, 1)
    engine = OneProcess().start(model, optimizer_of)
    before = model.weight.detach().clone()
    engine.backward(engine.model(torch.tensor([[float("inf"), 1.0]])).sum())
    assert not np.isfinite(engine.step(1.0))
    assert torch.equal(model.weight, before)
