"""Two workers on CPUs, without Ray: BatchNorm sees the clips of both, and they train what one process trains."""

import copy
import multiprocessing
import os
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from sign_dist.config.train import Optim, Train
from sign_dist.data.sample import Sample
from sign_dist.data.vocab import Vocab
from sign_dist.tasks.islr import Islr
from sign_dist.tasks.task import Example
from sign_dist.training.checkpoint import Progress, Saved
from sign_dist.training.loop import fit
from sign_dist.training.strategy import Ddp, OneProcess, Strategy
from sign_dist.transfer.freeze import groups_of
from sign_dist.transfer.sync_bn import SharedBatchNorm, share_batch_norm

VOCAB = Vocab(("A", "B", "C"))
WIDTH, NUM_CLIPS = 6, 16
SHAPES = {"1d": (6, 4), "1d steps": (6, 4, 5), "2d": (6, 3, 4, 5), "3d": (6, 3, 2, 4, 5)}
KINDS = {"1d": nn.BatchNorm1d, "1d steps": nn.BatchNorm1d, "2d": nn.BatchNorm2d, "3d": nn.BatchNorm3d}
OWN = 4
"""Clips of the first worker; the other has the rest."""
PATIENCE_S = 240


class Net(nn.Module):
    """Three layer groups with BatchNorm in the two lower ones. No bias before it: its gradient is nothing but rounding."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv1d(WIDTH, 8, 3, padding=1, bias=False), nn.BatchNorm1d(8), nn.ReLU())
        self.middle = nn.Sequential(nn.Conv1d(8, 8, 3, padding=1, bias=False), nn.BatchNorm1d(8, momentum=None), nn.ReLU())
        self.head = nn.Linear(8, 3)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        return self.head(self.middle(self.body(features.transpose(1, 2))).mean(2))

    def layer_groups(self) -> list[tuple[str, list[nn.Module]]]:
        return [("head", [self.head]), ("middle", [self.middle]), ("body", [self.body])]


def net() -> Net:
    torch.manual_seed(0)
    return Net()


def clips(count: int, seed: int) -> list[Example]:
    rng = np.random.default_rng(seed)
    found: list[Example] = []
    for i in range(count):
        features = rng.normal(loc=3, size=(5, WIDTH)).astype(np.float32)
        features[:, i % 3] += 2
        found.append(Example(Sample(f"clip{i}", "", VOCAB.glosses[i % 3]), features))
    return found


class Kept:
    """Checkpoints in memory."""

    def __init__(self) -> None:
        self.weights: list[dict[str, Tensor]] = []

    def latest(self) -> Path | None:
        return None

    def report(self, metrics: Any, progress: Progress, saved: Saved | None) -> None:
        if saved is not None:
            self.weights.append({name: tensor.clone() for name, tensor in saved.model.items()})


def trained(strategy: Strategy, model: nn.Module, *, stages: int) -> tuple[list[dict[str, Tensor]], list[dict[str, float]]]:
    """Weights after each of four epochs, and what was measured."""
    settings = Train.model_validate(
        {"epochs": 4, "batch_size": 4, "optim": Optim(lr=0.02, layer_decay=0.5), "unfreeze": {"stages": stages}}
    )
    kept, told = Kept(), list[dict[str, float]]()
    fit(
        model,
        Islr(VOCAB),
        clips(NUM_CLIPS, 0),
        clips(7, 1),
        settings,
        strategy=strategy,
        checkpoints=kept,
        on_epoch=lambda line: told.append(
            {n: v for n, v in line.items() if n not in ("seconds", "clips_per_s", "step_ms", "data_wait_share")}
        ),
    )
    return kept.weights, told


def inputs(name: str) -> Tensor:
    """Numbers far from zero, where a careless variance has no digits left."""
    return torch.randn(SHAPES[name], generator=torch.Generator().manual_seed(7), dtype=torch.float64) * 3 + 500


def passed(norm: nn.Module, x: Tensor, part: slice) -> dict[str, Tensor]:
    """Two training passes of a norm and a gradient, which is not the same for all values."""
    x = x.clone().requires_grad_()
    norm(x * 0.5)
    y = norm(x)
    factors = torch.linspace(-1, 2, 6, dtype=x.dtype)[part].view(-1, *[1] * (x.ndim - 1))
    (y.pow(3) * factors).sum().backward()
    assert x.grad is not None
    found = {"y": y.detach(), "x.grad": x.grad}
    found |= {f"{name}.grad": p.grad for name, p in norm.named_parameters() if p.grad is not None}
    return found | {name: tensor.clone() for name, tensor in norm.state_dict().items()}


def worker(rank: int, folder: str) -> None:
    """What one of the two workers does; its findings go into a file."""
    try:
        torch.set_num_threads(1)
        dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
        part = slice(0, OWN) if rank == 0 else slice(OWN, None)
        found: dict[str, Any] = {}
        for name in SHAPES:
            for dtype in (torch.float64, torch.float32):
                norm = share_batch_norm(KINDS[name](SHAPES[name][1]), world_size=2, device_type="cpu").to(dtype)
                assert isinstance(norm, SharedBatchNorm)
                found[f"{name} {dtype}"] = passed(norm, inputs(name)[part].to(dtype), part)
        for stages in (1, 3):
            found[f"fit {stages}"] = trained(Ddp("cpu"), net(), stages=stages)
        one = nn.BatchNorm1d(3).to(torch.bfloat16)
        share_batch_norm(one, world_size=2, device_type="cpu")
        found["bf16"] = one(torch.ones(2, 3, dtype=torch.bfloat16)).dtype
        try:
            share_batch_norm(nn.BatchNorm1d(3), world_size=2, device_type="cpu")(torch.ones(1 - rank, 3))
        except ValueError as error:
            found["too few"] = str(error)
        dist.barrier()
        torch.save(found, f"{folder}/{rank}.pt")
        dist.destroy_process_group()
    except BaseException:
        Path(folder, f"{rank}.txt").write_text(traceback.format_exc())
        raise


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The findings of both workers."""
    folder = tmp_path_factory.mktemp("workers")
    context = multiprocessing.get_context("spawn")
    before = os.environ.get("GLOO_SOCKET_IFNAME")
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"  # a machine without a network has it, too
    try:
        workers = [context.Process(target=worker, args=(rank, str(folder)), daemon=True) for rank in range(2)]
        for process in workers:
            process.start()
    finally:
        os.environ.pop("GLOO_SOCKET_IFNAME")
        if before is not None:
            os.environ["GLOO_SOCKET_IFNAME"] = before
    for process in workers:
        process.join(PATIENCE_S)
        if process.is_alive():
            process.kill()
    faults = [path.read_text() for path in sorted(folder.glob("*.txt"))]
    assert not faults, faults[0]
    assert [process.exitcode for process in workers] == [0, 0]
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.mark.long
@pytest.mark.parametrize("name", SHAPES)
def test_statistics_and_gradients_are_those_of_the_whole_batch(found: list[dict[str, Any]], name: str) -> None:
    whole = passed(KINDS[name](SHAPES[name][1]).double(), inputs(name), slice(None))
    for key, wanted in whole.items():
        one, two = (worker[f"{name} torch.float64"][key] for worker in found)
        if key in ("y", "x.grad"):  # each has its own clips
            found_here = torch.cat([one, two])
        elif key.endswith(".grad"):  # of the parameters: each has what its clips add to it
            found_here = one + two
        else:
            found_here = one
            assert torch.equal(one, two), key
        torch.testing.assert_close(found_here, wanted, atol=1e-9, rtol=1e-9)


@pytest.mark.long
@pytest.mark.parametrize("name", SHAPES)
def test_float32_loses_no_more_digits_than_torch_does(found: list[dict[str, Any]], name: str) -> None:
    exact = passed(KINDS[name](SHAPES[name][1]).double(), inputs(name), slice(None))["y"]
    torchs = passed(KINDS[name](SHAPES[name][1]), inputs(name).float(), slice(None))["y"]
    ours = torch.cat([worker[f"{name} torch.float32"]["y"] for worker in found])
    assert ours.dtype == torch.float32
    assert float((ours - exact).abs().max()) <= 3 * float((torchs - exact).abs().max()) + 1e-6


@pytest.mark.long
def test_without_sharing_statistics_are_other_ones(found: list[dict[str, Any]]) -> None:
    alone = passed(nn.BatchNorm2d(3).double(), inputs("2d")[:OWN], slice(0, OWN))
    assert not torch.allclose(alone["running_mean"], found[0]["2d torch.float64"]["running_mean"], atol=1e-3)
    assert not torch.allclose(alone["y"], found[0]["2d torch.float64"]["y"], atol=1e-3)


@pytest.mark.long
@pytest.mark.parametrize("stages", [1, 3])
def test_two_workers_train_what_one_process_trains(found: list[dict[str, Any]], stages: int) -> None:
    """The loop, the strategy, DDP, BatchNorm and freezing together; also that nothing frozen moves under DDP."""
    wanted, measured = trained(OneProcess(), net(), stages=stages)
    weights, told = found[0][f"fit {stages}"]
    assert len(weights) == len(wanted) == 4
    for epoch, (one, two) in enumerate(zip(wanted, weights, strict=True)):
        assert one.keys() == two.keys()
        for name in one:
            torch.testing.assert_close(two[name], one[name], atol=2e-4, rtol=2e-3, msg=lambda m, e=epoch, n=name: f"{e} {n}: {m}")
    for one, two in zip(measured, told, strict=True):
        assert two == pytest.approx(one, rel=2e-3, abs=2e-4)
    assert found[1][f"fit {stages}"][1] == told, "every rank knows the same scores"
    if stages == 3:
        start = {name: tensor.clone() for name, tensor in net().state_dict().items()}
        moved = [{n.split(".")[0] for n, t in state.items() if not torch.equal(t, start[n])} for state in weights]
        assert moved == [{"head"}, {"head"}, {"head", "middle"}, {"head", "middle", "body"}]


@pytest.mark.long
def test_too_few_values_are_refused_and_number_types_kept(found: list[dict[str, Any]]) -> None:
    assert all(worker["bf16"] == torch.bfloat16 for worker in found)
    assert all("all workers together have 1" in worker["too few"] for worker in found)


def test_alone_and_in_eval_it_is_the_batch_norm_it_was() -> None:
    plain = nn.Sequential(nn.Conv1d(3, 4, 1), nn.BatchNorm1d(4), nn.ReLU(), nn.BatchNorm1d(4, affine=False))
    shared = copy.deepcopy(plain)
    parameters, norm = list(map(id, shared.parameters())), shared[1]
    assert share_batch_norm(shared, world_size=2, device_type="cpu") is shared
    assert shared[1] is norm
    assert isinstance(norm, SharedBatchNorm)
    assert list(map(id, shared.parameters())) == parameters
    assert list(shared.state_dict()) == list(plain.state_dict())
    x = torch.randn(5, 3, 7)
    for _ in range(2):
        torch.testing.assert_close(shared(x), plain(x))
    plain.eval(), shared.eval()
    assert torch.equal(shared(x), plain(x))
    assert all(torch.equal(t, plain.state_dict()[n]) for n, t in shared.state_dict().items())
    share_batch_norm(shared, world_size=2, device_type="cpu")
    assert list(groups_of(shared)) == ["1", "0"]
