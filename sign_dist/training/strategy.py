"""One process or several: how a model is wrapped, how its gradients become common, and how its state is gathered.

A `Strategy` knows the other processes; `start` makes of a model an `Engine`, which the loop drives. Every strategy keeps its
checkpoints in one form, `State`: full tensors by the model's own names. So a run may go on under another strategy, or with
another number of workers.
"""

import contextlib
import dataclasses
import gc
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from sign_dist.transfer.sync_bn import share_batch_norm

Moments = Mapping[str, Mapping[str, Tensor]]
"""Optimiser state: parameter name -> name of the moment (`exp_avg`, `exp_avg_sq`, `step`) -> full tensor."""

Shares = Mapping[str, Tensor]
"""One rank's part of tensors, by the model's own names; under DDP and in one process, all of them."""

MakeOptimizer = Callable[[nn.Module], torch.optim.Optimizer]


@dataclasses.dataclass(frozen=True)
class State:
    """What training moves, whole and on the CPU, whatever the strategy."""

    weights: Mapping[str, Tensor]
    moments: Moments


class Engine(Protocol):
    """A model in training. Every rank makes the same calls in the same order."""

    model: nn.Module
    """What is called in training."""
    bare: nn.Module
    """The same with the model's own names: what is frozen and asked for layer groups."""
    optimizer: torch.optim.Optimizer
    """Its groups take the learning rate of a step. May be another one after `retrain`."""

    def part(self, *, last: bool) -> contextlib.AbstractContextManager[Any]:
        """Around forward and backward of one micro-batch; gradients need to be exchanged only in the `last` of a step."""
        ...

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a micro-batch. The losses of all micro-batches of all ranks add up to the step's loss."""
        ...

    def step(self, clip_norm: float) -> float:
        """Clip to a global norm and move the weights; answers the norm before. One that is not finite moves nothing."""
        ...

    def zero_grad(self) -> None:
        """Forget the gradients of a step."""
        ...

    def retrain(self) -> None:
        """Called after `requires_grad` of parameters has changed; the optimiser's state stays."""
        ...

    def shares(self) -> Shares:
        """This rank's own share of every weight and buffer: live, so that reading it needs no exchange."""
        ...

    def whole(self, shares: Shares) -> dict[str, Tensor]:
        """Full tensors on the CPU of what every rank has a share of."""
        ...

    def cut(self, whole: Shares) -> dict[str, Tensor]:
        """The inverse of `whole`: this rank's shares of full tensors."""
        ...

    def alone(self, shares: Shares | None = None) -> contextlib.AbstractContextManager[nn.Module]:
        """The model in a form that each rank may call on its own, in eval mode; with these shares in place of its weights.

        Every rank enters and leaves it, one that has nothing to ask as well.
        """
        ...

    def state(self) -> State | None:
        """Weights and moments, on the first rank; None on the others."""
        ...

    def load(self, state: State) -> None:
        """Put back what `state` gave, under this or another strategy; every rank brings the same."""
        ...


class Strategy(Protocol):
    """What the loop needs to know of the other processes."""

    rank: int
    world_size: int
    device: torch.device

    def start(self, model: nn.Module, make_optimizer: MakeOptimizer, *, precision: str = "fp32") -> Engine:
        """Move the model to the device and bring it under the strategy."""
        ...

    def gather(self, value: Any) -> list[Any]:
        """One picklable value of every rank, in rank order, on every rank."""
        ...

    def sum(self, values: Tensor) -> Tensor:
        """Sums over ranks of a few numbers, on every rank."""
        ...


class OneProcess:
    """No other processes: a laptop, a trial, a test."""

    rank = 0
    world_size = 1

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)

    def start(self, model: nn.Module, make_optimizer: MakeOptimizer, *, precision: str = "fp32") -> Engine:
        model = model.to(self.device)
        return PlainEngine(model, make_optimizer(model), scaler=_scaler(precision, self.device))

    def gather(self, value: Any) -> list[Any]:
        return [value]

    def sum(self, values: Tensor) -> Tensor:
        return values


class Ddp:
    """torch's DistributedDataParallel in a process group that is already up (Ray Train starts it)."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.rank = dist.get_rank()
        self.world_size = dist.get_world_size()

    def start(self, model: nn.Module, make_optimizer: MakeOptimizer, *, precision: str = "fp32") -> Engine:
        model = model.to(self.device)
        model = share_batch_norm(model, world_size=self.world_size, device_type=self.device.type)
        scaler = _scaler(precision, self.device)
        if self.world_size == 1:
            return PlainEngine(model, make_optimizer(model), scaler=scaler)
        return DdpEngine(model, make_optimizer(model), self.device, self.world_size, self.rank, scaler=scaler)

    def gather(self, value: Any) -> list[Any]:
        return gather_objects(value, self.world_size)

    def sum(self, values: Tensor) -> Tensor:
        return sum_over_ranks(values, self.world_size, self.device)


def gather_objects(value: Any, world_size: int) -> list[Any]:
    """One picklable value of every rank of the process group, in rank order."""
    if world_size == 1:
        return [value]
    values: list[Any] = [None] * world_size
    dist.all_gather_object(values, value)
    return values


def sum_over_ranks(values: Tensor, world_size: int, device: torch.device) -> Tensor:
    """Sums over the process group, on the device that its backend speaks for."""
    if world_size == 1:
        return values
    summed = values.to(device)
    dist.all_reduce(summed)
    return summed.to(values.device)


class PlainEngine:
    """A model that one process holds whole."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, *, scaler: torch.amp.GradScaler | None = None) -> None:
        self.model = self.bare = model
        self.optimizer = optimizer
        self.scaler = scaler

    def part(self, *, last: bool) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext()

    def backward(self, loss: Tensor) -> None:
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def step(self, clip_norm: float) -> float:
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        norm = float(nn.utils.clip_grad_norm_(self.bare.parameters(), clip_norm))
        if self.scaler is not None:
            self.scaler.step(self.optimizer)  # leaves out a step whose gradients overflowed
            self.scaler.update()
        elif torch.isfinite(torch.tensor(norm)):
            self.optimizer.step()
        return norm

    def zero_grad(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)

    def retrain(self) -> None:
        pass

    def shares(self) -> Shares:
        return self.bare.state_dict()

    def whole(self, shares: Shares) -> dict[str, Tensor]:
        return {name: tensor.detach().cpu().clone() for name, tensor in shares.items()}

    def cut(self, whole: Shares) -> dict[str, Tensor]:
        now = self.bare.state_dict()
        return {name: tensor.to(now[name].device).clone() for name, tensor in whole.items()}

    @contextlib.contextmanager
    def alone(self, shares: Shares | None = None) -> Iterator[nn.Module]:
        with evaluating(self.bare), exchanged(self.bare, shares):
            yield self.bare

    def state(self) -> State | None:
        return whole_state(self.bare, self.optimizer)

    def load(self, state: State) -> None:
        load_whole(self.bare, self.optimizer, state)


class DdpEngine(PlainEngine):
    """A model of which every rank holds a copy; gradients are exchanged while the last backward pass of a step goes on."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        device: torch.device,
        world_size: int,
        rank: int,
        *,
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        super().__init__(model, optimizer, scaler=scaler)
        self.model: nn.Module
        self._world_size, self._rank = world_size, rank
        self._device = device
        # Layers that are left out by chance (Fan et al. 2019, arXiv 1909.11556) are others in each step.
        self._skips = any(getattr(module, "layerdrop", 0) for module in model.modules())
        self._wrap(looks=True)

    def _wrap(self, *, looks: bool) -> None:
        """`looks`: search in each step for parameters without a gradient, some per cent of a small model's step."""
        self.model = self.bare
        gc.collect()  # the wrapper before holds itself in circles, and its hooks with it
        ids = [self._device] if self._device.type == "cuda" else None
        self.model = nn.parallel.DistributedDataParallel(self.bare, device_ids=ids, find_unused_parameters=looks)
        self._looks = looks

    def step(self, clip_norm: float) -> float:
        """Where a step found a gradient for everything, the next ones need not look. All ranks find the same."""
        all_used = all(p.grad is not None for p in self.bare.parameters() if p.requires_grad)
        norm = super().step(clip_norm)
        if self._looks and all_used and not self._skips:
            self._wrap(looks=False)
        return norm

    def retrain(self) -> None:
        if not self._looks:
            self._wrap(looks=True)

    @contextlib.contextmanager
    def part(self, *, last: bool) -> Iterator[None]:
        assert isinstance(self.model, nn.parallel.DistributedDataParallel)
        with contextlib.nullcontext() if last else self.model.no_sync():
            yield

    def backward(self, loss: Tensor) -> None:
        super().backward(loss * self._world_size)  # DDP takes the mean over ranks, the sum is what is wanted

    def state(self) -> State | None:
        return super().state() if self._rank == 0 else None


@contextlib.contextmanager
@torch.no_grad()
def exchanged(model: nn.Module, shares: Shares | None) -> Iterator[None]:
    """Other weights in a model for a while, and its own again, to the bit."""
    own = {} if shares is None else {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    live = model.state_dict()
    for name in own:
        live[name].copy_((shares or {})[name])
    try:
        yield
    finally:
        for name, tensor in own.items():
            live[name].copy_(tensor)


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """The model in eval mode; afterwards each of its modules is in the mode it was in."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield model
    finally:
        for module, mode in modes.items():
            module.training = mode


def whole_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> State:
    """Copies on the CPU of a model's weights and of its optimiser's moments, by parameter name."""
    names = {id(p): name for name, p in model.named_parameters()}
    moments = {
        names[id(p)]: {key: torch.as_tensor(value).detach().cpu().clone() for key, value in held.items()}
        for p, held in optimizer.state.items()
    }
    return State({name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}, moments)


def load_whole(model: nn.Module, optimizer: torch.optim.Optimizer, state: State) -> None:
    """Put weights and moments back; a parameter without moments has not been moved yet."""
    model.load_state_dict(dict(state.weights))
    optimizer.state.clear()
    for name, p in model.named_parameters():
        if held := state.moments.get(name):
            # AdamW keeps its count of steps on the CPU, as a float.
            optimizer.state[p] = {k: v.clone() if k == "step" else v.to(p.device, p.dtype).clone() for k, v in held.items()}


def _scaler(precision: str, device: torch.device) -> torch.amp.GradScaler | None:
    """fp16 loses small gradients unless the loss is scaled up (Micikevicius et al. 2018, arXiv 1710.03740)."""
    return torch.amp.GradScaler(device.type) if precision == "fp16" else None
