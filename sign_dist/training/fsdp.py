"""FSDP: every worker keeps its share of weights, gradients and optimiser state, and layers are put together while they run.

Built on torch's `fully_shard` (FSDP2; Zhao et al. 2023, arXiv 2304.11277). Needs a model that is called, not asked by methods,
in training; parameters without a dimension stay whole on every worker.
"""

import contextlib
import logging
import math
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from sign_dist.training.loss_scale import LossScale
from sign_dist.training.plain_copy import PlainCopy
from sign_dist.training.strategy import Engine, MakeOptimizer, Shares, State, gather_objects, sum_over_ranks
from sign_dist.transfer.sync_bn import share_batch_norm

logger = logging.getLogger(__name__)

UNIT_NUMEL = 1_000_000
"""A block with at least so many numbers is put together on its own; smaller ones travel with the rest of the model."""


class Fsdp:
    """Weights, gradients and optimiser state are cut up over the workers of a process group that is already up."""

    def __init__(self, device: torch.device | str = "cpu", *, offload: bool = False, unit_numel: int = UNIT_NUMEL) -> None:
        self.device = torch.device(device)
        self.rank = dist.get_rank()
        self.world_size = dist.get_world_size()
        self._offload = offload and self.device.type != "cpu"
        self._unit_numel = unit_numel

    def start(self, model: nn.Module, make_optimizer: MakeOptimizer, *, precision: str = "fp32") -> Engine:
        model = share_batch_norm(model.to(self.device), world_size=self.world_size, device_type=self.device.type)
        plain = PlainCopy(model)
        # It warns of changing such an output in place, which no task here does.
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module", category=UserWarning)
        mesh = init_device_mesh(self.device.type, (self.world_size,))
        policy = CPUOffloadPolicy() if self._offload else OffloadPolicy()
        loose = {p for p in model.parameters() if p.ndim == 0}
        units = units_of(model, self._unit_numel)
        for unit in [*units, model]:
            fully_shard(unit, mesh=mesh, offload_policy=policy, ignored_params=loose)
        logger.info("the model is cut up over %d workers in %d units", self.world_size, len(units) + 1)
        scale = LossScale() if precision == "fp16" else None
        return FsdpEngine(model, make_optimizer(model), plain, mesh, self.device, scale=scale)

    def gather(self, value: Any) -> list[Any]:
        return gather_objects(value, self.world_size)

    def sum(self, values: Tensor) -> Tensor:
        return sum_over_ranks(values, self.world_size, self.device)


def units_of(model: nn.Module, numel: int) -> list[nn.Module]:
    """Blocks to be put together one at a time: the outermost elements of lists and sequences of layers that are large enough.

    Such elements are called, whereas other children may have their weights read by their parent. A block whose parameter
    stands in the model a second time, outside of it, is none.
    """
    places: dict[int, list[str]] = {}
    for name, p in model.named_parameters(remove_duplicate=False):
        places.setdefault(id(p), []).append(name)
    found: list[nn.Module] = []

    def look(module: nn.Module, path: str) -> None:
        for name, child in module.named_children():
            inner = f"{path}{name}."
            listed = isinstance(module, nn.ModuleList | nn.Sequential)
            own = list(child.parameters())
            large = sum(p.numel() for p in own) >= numel
            closed = all(where.startswith(inner) for p in own for where in places[id(p)])
            if listed and large and closed and not isinstance(child, nn.ModuleList | nn.ModuleDict):
                found.append(child)
            else:
                look(child, inner)

    look(model, "")
    return found


class FsdpEngine:
    """A model in training of which this worker holds a share. Calling it puts its layers together; all workers call together."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        plain: PlainCopy,
        mesh: DeviceMesh,
        device: torch.device,
        *,
        scale: LossScale | None = None,
    ) -> None:
        self.model = self.bare = model
        self.optimizer = optimizer
        self._plain, self._mesh, self._device, self._scale = plain, mesh, device, scale

    @contextlib.contextmanager
    def part(self, *, last: bool) -> Iterator[None]:
        assert isinstance(self.model, FSDPModule)
        # Between, gradients add up whole on each worker: more memory, no exchange.
        self.model.set_requires_gradient_sync(last)
        yield

    def backward(self, loss: Tensor) -> None:
        loss = loss * self._mesh.size()  # it takes the mean over workers, the sum is what is wanted
        (loss if self._scale is None else loss * self._scale.value).backward()

    @torch.no_grad()
    def step(self, clip_norm: float) -> float:
        grads = self._grads()
        norm = self._norm(grads) / (1.0 if self._scale is None else self._scale.value)
        if math.isfinite(norm):
            factor = min(clip_norm / (norm + 1e-6), 1.0) / (1.0 if self._scale is None else self._scale.value)
            if factor != 1.0:
                for grad in grads:
                    grad.mul_(factor)
            self.optimizer.step()
        if self._scale is not None:
            self._scale.update(fits=math.isfinite(norm))
        return norm

    def _grads(self) -> list[Tensor]:
        """This worker's share of each gradient; what no worker cut up is made common here."""
        grads: list[Tensor] = []
        for p in self.bare.parameters():
            if p.grad is None:
                continue
            if not isinstance(p.grad, DTensor):
                dist.all_reduce(p.grad)
                p.grad.div_(self._mesh.size())
            grads.append(_local(p.grad))
        return grads

    def _norm(self, grads: list[Tensor]) -> float:
        """Global norm of the gradient over all workers. Whole ones count once."""
        square = torch.zeros((), dtype=torch.float32, device=self._device)
        for p, grad in zip((p for p in self.bare.parameters() if p.grad is not None), grads, strict=True):
            if isinstance(p.grad, DTensor) or self._mesh.get_local_rank() == 0:
                square += grad.float().square().sum().to(self._device)
        dist.all_reduce(square)
        return math.sqrt(value) if (value := float(square)) >= 0 else math.nan

    def zero_grad(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)

    def retrain(self) -> None:
        """Nothing: each forward pass asks anew which weights train."""

    def shares(self) -> Shares:
        return {name: _local(tensor.detach()) for name, tensor in self.bare.state_dict().items()}

    def whole(self, shares: Shares) -> dict[str, Tensor]:
        return {name: self._full(name, share).cpu() for name, share in shares.items()}

    def cut(self, whole: Shares) -> dict[str, Tensor]:
        return {name: self._cut(name, tensor).clone() for name, tensor in whole.items()}

    @contextlib.contextmanager
    def alone(self, shares: Shares | None = None) -> Iterator[nn.Module]:
        """Each worker puts the weights together once, in a copy of its own."""
        shares = self.shares() if shares is None else shares
        weights = {name: self._full(name, share) for name, share in shares.items()}
        with self._plain.asked(weights, self._device) as model:
            yield model

    def state(self) -> State | None:
        weights = self._first(self.shares())
        moments: dict[str, dict[str, Tensor]] = {}
        for name, p in self.bare.named_parameters():
            held = self.optimizer.state.get(p, {})
            if held:
                shares = {key: _local(value) for key, value in held.items() if isinstance(value, DTensor)}
                moments[name] = self._first(shares, like=name) | {
                    key: torch.as_tensor(value).detach().cpu().clone() for key, value in held.items() if key not in shares
                }
        return State(weights, moments) if dist.get_rank() == 0 else None

    def _first(self, shares: Mapping[str, Tensor], *, like: str = "") -> dict[str, Tensor]:
        """Full tensors on the CPU, kept by the first worker only."""
        kept: dict[str, Tensor] = {}
        for name, share in shares.items():
            full = self._full(like or name, share)
            if dist.get_rank() == 0:
                kept[name] = full.to("cpu", copy=True)
        return kept

    @torch.no_grad()
    def load(self, state: State) -> None:
        own = self.shares()
        if own.keys() != state.weights.keys():
            raise ValueError(f"not this model's weights: {sorted(own.keys() ^ state.weights.keys())[:3]}")
        for name, share in own.items():
            share.copy_(self._cut(name, state.weights[name]))
        self.optimizer.state.clear()
        for name, p in self.bare.named_parameters():
            if held := state.moments.get(name):
                self.optimizer.state[p] = {key: self._moment(name, p, key, value) for key, value in held.items()}

    def _moment(self, name: str, p: Tensor, key: str, value: Tensor) -> Tensor:
        if key == "step":  # AdamW keeps its count of steps on the CPU, as a float
            return value.clone()
        if not isinstance(p, DTensor):
            return value.to(p.device, p.dtype).clone()
        local = self._cut(name, value).to(p.dtype).clone()
        return DTensor.from_local(local, p.device_mesh, p.placements, shape=p.shape, stride=p.stride(), run_check=False)

    def _full(self, name: str, share: Tensor) -> Tensor:
        """The tensor that all workers have a share of, on this worker's device."""
        like = self._tensor(name)
        share = share.detach().to(self._device)
        if not isinstance(like, DTensor):
            return share
        cut = DTensor.from_local(share, like.device_mesh, like.placements, shape=like.shape, stride=like.stride(), run_check=False)
        return cut.full_tensor()

    def _cut(self, name: str, whole: Tensor) -> Tensor:
        """This worker's share of a tensor, where the model's own lies."""
        like = self._tensor(name)
        if not isinstance(like, DTensor):
            return whole.to(like.device, like.dtype)
        whole = whole.to(self._device, like.dtype)
        # Every worker holds the whole, so nothing is sent.
        cut = distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None)
        return _local(cut).to(_local(like).device)

    def _tensor(self, name: str) -> Tensor:
        path, _, last = name.rpartition(".")
        return getattr(self.bare.get_submodule(path), last)


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
