"""DeepSpeed's ZeRO behind our protocols: what training holds is cut up over workers. The only importer of deepspeed.

Stage 1 cuts up the optimiser's state, stage 2 the gradients as well, stage 3 the weights too (Rajbhandari et al. 2020, arXiv
1910.02054). Weights and gradients stay float32, and autocast computes in less, as under every other strategy: so the numbers
are the same. torch's own AdamW moves the weights, so nothing has to be compiled, on GPUs as on CPUs.

DeepSpeed is built for a set of trained parameters that never changes. Where it does, and where a state is loaded, the engine is
built anew from full tensors. It keeps one count of steps per group of parameters, not per parameter, so those that joined later
are a group of their own.
"""

import contextlib
import dataclasses
import gc
import importlib
import logging
import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from sign_dist.errors import ServiceError, SettingsError
from sign_dist.training.loss_scale import LossScale
from sign_dist.training.plain_copy import PlainCopy
from sign_dist.training.strategy import Engine, MakeOptimizer, Moments, Shares, State, gather_objects, sum_over_ranks
from sign_dist.transfer.sync_bn import share_batch_norm

logger = logging.getLogger(__name__)

BUCKET_NUMEL = 8_000_000
"""Numbers that are sent at once, at most: 32 MB, near what DDP takes. DeepSpeed's own 500 million hold 2 GB for themselves."""

PERSIST_NUMEL = 100_000
"""In stage 3, parameters of fewer numbers stay whole on every worker as well: to send them costs more than to hold them."""


class Zero:
    """DeepSpeed in a process group that is already up. `offload`: the optimiser's state rests and moves on the CPU."""

    def __init__(
        self,
        device: torch.device | str = "cpu",
        *,
        stage: Literal[1, 2, 3] = 2,
        offload: bool = False,
        persist_numel: int = PERSIST_NUMEL,
    ) -> None:
        self.device = torch.device(device)
        self.rank = dist.get_rank()
        self.world_size = dist.get_world_size()
        self._stage: Literal[1, 2, 3] = stage
        self._offload = offload
        self._persist_numel = persist_numel
        _deepspeed(self.device)

    def start(self, model: nn.Module, make_optimizer: MakeOptimizer, *, precision: str = "fp32") -> Engine:
        model = share_batch_norm(model.to(self.device), world_size=self.world_size, device_type=self.device.type)
        return ZeroEngine(
            model,
            make_optimizer(model),
            self.device,
            stage=self._stage,
            offload=self._offload,
            persist_numel=self._persist_numel,
            scale=LossScale() if precision == "fp16" else None,
        )

    def gather(self, value: Any) -> list[Any]:
        return gather_objects(value, self.world_size)

    def sum(self, values: Tensor) -> Tensor:
        return sum_over_ranks(values, self.world_size, self.device)


class ZeroEngine:
    """A model in training under DeepSpeed.

    `optimizer` is never stepped: it holds the groups that the loop gives learning rates, which each step hands on.
    """

    model: nn.Module
    bare: nn.Module

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        device: torch.device,
        *,
        stage: Literal[1, 2, 3],
        offload: bool = False,
        persist_numel: int = PERSIST_NUMEL,
        scale: LossScale | None = None,
    ) -> None:
        self.optimizer = optimizer
        self._persist_numel = persist_numel
        self._device, self._stage, self._offload, self._scale = device, stage, offload, scale
        _without_scalars(model)
        self._plain = PlainCopy(model)
        names = {id(p): name for name, p in model.named_parameters()}
        self._groups = [[names[id(p)] for p in group["params"]] for group in optimizer.param_groups]
        self._pending = False
        self._build(model, {})

    def part(self, *, last: bool) -> contextlib.AbstractContextManager[Any]:
        """Stage 1 exchanges in `step`; the others must after each backward pass, since they keep no whole gradient."""
        return contextlib.nullcontext()

    def backward(self, loss: Tensor) -> None:
        self._pending = True
        self._deepspeed.backward(loss * dist.get_world_size())  # it takes the mean over workers, the sum is what is wanted

    def step(self, clip_norm: float) -> float:
        self._deepspeed.optimizer.clip_grad = clip_norm
        for group in self._inner.param_groups:
            given = self.optimizer.param_groups[group["origin"]]
            group.update({key: value for key, value in given.items() if key != "params"})  # learning rates above all
        if self._scale is not None:
            self._deepspeed.optimizer.override_loss_scale(self._scale.value)
        self._deepspeed.step()
        self._pending = False
        norm = float(self._deepspeed.get_global_grad_norm() or 0.0)
        for group in self._inner.param_groups:
            group["count"] += math.isfinite(norm)
        if self._scale is not None:
            self._scale.update(fits=math.isfinite(norm))
            self._deepspeed.optimizer.override_loss_scale(self._scale.value)
        return norm

    def zero_grad(self) -> None:
        """DeepSpeed cannot forget half a step, so it is built anew if there is one."""
        if self._pending:
            self._rebuild(self._trained)

    def retrain(self) -> None:
        trained = {name for name, p in self.bare.named_parameters() if p.requires_grad}
        if trained != self._trained:
            self._rebuild(trained)

    def shares(self) -> Shares:
        live: dict[str, Tensor] = self.bare.state_dict()
        live |= {name: _share(p) for name, p in self.bare.named_parameters(remove_duplicate=False)}
        return {name: tensor.detach() for name, tensor in live.items()}

    def whole(self, shares: Shares) -> dict[str, Tensor]:
        return {name: self._full(name, share).to("cpu", copy=True) for name, share in shares.items()}

    def cut(self, whole: Shares) -> dict[str, Tensor]:
        return {name: self._cut(name, tensor) for name, tensor in whole.items()}

    @contextlib.contextmanager
    def alone(self, shares: Shares | None = None) -> Iterator[nn.Module]:
        """A copy without DeepSpeed's hooks. It shares the weights; stage 3 puts them together once."""
        weights = {name: self._full(name, share) for name, share in (self.shares() if shares is None else shares).items()}
        with self._plain.asked(weights, self._device) as model:
            yield model

    def state(self) -> State | None:
        weights, moments = self._everything(keep=dist.get_rank() == 0)
        return State(weights, moments) if dist.get_rank() == 0 else None

    def load(self, state: State) -> None:
        if (own := self.bare.state_dict().keys()) != state.weights.keys():
            raise ValueError(f"not this model's weights: {sorted(own ^ state.weights.keys())[:3]}")
        self._renew(state.weights, state.moments, self._trained)

    def _rebuild(self, trained: set[str]) -> None:
        """Another set of trained parameters, or none of the gradients so far; weights and moments stay."""
        weights, moments = self._everything(keep=True)
        self._renew(weights, moments, trained)

    def _renew(self, weights: Mapping[str, Tensor], moments: Moments, trained: set[str]) -> None:
        modes = {name: module.training for name, module in self.bare.named_modules()}
        self._tear_down()
        model = self._plain.filled({name: tensor.clone() for name, tensor in weights.items()}, self._device)
        for name, p in model.named_parameters():
            p.requires_grad_(name in trained)
        for name, module in model.named_modules():
            module.training = modes[name]
        self._build(model, moments)

    def _build(self, model: nn.Module, moments: Moments) -> None:
        parameters = dict(model.named_parameters())
        self._trained = {name for name, p in parameters.items() if p.requires_grad}
        self._resting = {name: dict(held) for name, held in moments.items() if name not in self._trained}
        self._place: dict[str, int] = {}  # trained parameter -> its group inside
        groups: list[dict[str, Any]] = []
        for origin, names in enumerate(self._groups):
            by_count: dict[float, list[str]] = {}
            for name in names:
                if name in self._trained:
                    by_count.setdefault(float(moments.get(name, {}).get("step", 0.0)), []).append(name)
            settings = {key: value for key, value in self.optimizer.param_groups[origin].items() if key != "params"}
            for count, own in by_count.items():
                self._place |= dict.fromkeys(own, len(groups))
                groups.append(settings | {"params": [parameters[name] for name in own], "origin": origin, "count": count})
        self.bare = model
        kind: Any = type(self.optimizer)
        self._inner: torch.optim.Optimizer = kind(groups)  # with every setting in each group
        numel = sum(p.numel() for p in parameters.values())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # meant for those who wrote the deprecated calls
            self._deepspeed, *_ = _deepspeed(self._device).initialize(
                model=_Flat(model), optimizer=self._inner, dist_init_required=False, config=self._config(numel)
            )
        # Else it would switch off the autocast around it, on GPUs.
        kind = self._device.type
        self._deepspeed.torch_autocast_enabled = lambda: torch.is_autocast_enabled(kind)
        self._deepspeed.torch_autocast_dtype = lambda: torch.get_autocast_dtype(kind)
        if self._scale is not None:
            self._deepspeed.optimizer.override_loss_scale(self._scale.value)
        self.model = _Called(model, self._deepspeed)
        self._pending = False
        self._put_moments(moments)

    def _config(self, numel: int) -> dict[str, Any]:
        bucket = max(min(numel, BUCKET_NUMEL), 1024)
        zero: dict[str, Any] = {
            "stage": self._stage,
            "overlap_comm": self._stage == 2 and self._device.type == "cuda",
            "reduce_bucket_size": bucket,
            "allgather_bucket_size": bucket + bucket % 2,
        }
        if self._stage == 3:
            zero |= {
                "stage3_prefetch_bucket_size": bucket,
                "stage3_max_live_parameters": max(numel // 4, bucket),  # of one layer and those fetched ahead
                "stage3_max_reuse_distance": max(numel // 4, bucket),
                "stage3_param_persistence_threshold": self._persist_numel,
            }
        if self._offload:
            zero["offload_optimizer"] = {"device": "cpu", "pin_memory": self._device.type == "cuda"}
        return {
            "train_micro_batch_size_per_gpu": 1,  # only counted with
            "managed_gradient_accumulation": False,  # a step is where we call one
            "zero_optimization": zero,
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,  # its own would have to be compiled
            "gradient_clipping": 1.0,
            "steps_per_print": None,
        }

    def _tear_down(self) -> None:
        self._deepspeed.destroy()
        del self._deepspeed, self._inner, self.model, self.bare
        gc.collect()  # its hooks hold it in circles

    def _put_moments(self, moments: Moments) -> None:
        """Give DeepSpeed's flat tensors their moments, which it would make itself in the first step, from zero."""
        for index, group in enumerate(self._inner.param_groups):
            if not group["count"]:
                continue
            names = [name for name, place in self._place.items() if place == index]
            keys = [key for key in moments[names[0]] if key != "step"]
            for flat in self._flats(index):
                zeros = {key: torch.zeros_like(flat, requires_grad=False) for key in keys}
                self._inner.state[flat] = {"step": torch.tensor(float(group["count"])), **zeros}
            for name in names:
                for piece in self._pieces(name):
                    for key in keys:
                        own = moments[name][key].flatten()[piece.start : piece.start + piece.numel]
                        piece.of(self._inner.state[piece.flat][key]).copy_(own)

    def _everything(self, *, keep: bool) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]]]:
        """Full weights and moments on the CPU. Every worker takes part, and those keep it who want to."""
        weights: dict[str, Tensor] = {}
        for name, share in self.shares().items():
            full = self._full(name, share)
            if keep:
                weights[name] = full.to("cpu", copy=True)
        moments = {name: dict(held) for name, held in self._resting.items()} if keep else {}
        parameters = dict(self.bare.named_parameters())
        for name, index in self._place.items():
            count = self._inner.param_groups[index]["count"]
            if not count:
                continue
            shape = _shape(parameters[name])
            found = {"step": torch.tensor(float(count))}
            for key in (key for key in self._inner.state[self._flats(index)[0]] if key != "step"):
                full = torch.zeros(shape.numel(), device=self._device)
                for piece in self._pieces(name):
                    full[piece.start : piece.start + piece.numel] = piece.of(self._inner.state[piece.flat][key]).to(self._device)
                dist.all_reduce(full)  # every worker's pieces, each in its place
                found[key] = full.view(shape).cpu()
            if keep:
                moments[name] = found
        return weights, moments

    def _flats(self, index: int) -> list[Tensor]:
        """This worker's flat tensors of a group of parameters, which the optimiser moves."""
        inside = self._deepspeed.optimizer
        if self._stage < 3:
            return [inside.single_partition_of_fp32_groups[index]]
        return [flat for i, flat in enumerate(inside.fp32_partitioned_groups_flat) if inside.sub_group_to_group_id[i] == index]

    def _pieces(self, name: str) -> list["_Piece"]:
        """What of a trained parameter lies in this worker's flat tensors: nothing, or one piece."""
        inside, p = self._deepspeed.optimizer, self._tensor(name)
        if self._stage < 3:
            if (link := p._hp_mapping) is None:
                return []
            flat = inside.single_partition_of_fp32_groups[self._place[name]]
            whole, own = link.lp_fragment_address, link.hp_fragment_address
            return [_Piece(flat, own.start, whole.start, own.numel)]
        index, place, numel = inside.grad_position[inside.get_param_id(p)]
        start = numel * dist.get_rank()
        numel = min(numel, p.ds_numel - start)  # the last worker's may be padded
        return [_Piece(inside.fp32_partitioned_groups_flat[index], place, start, numel)] if numel > 0 else []

    def _full(self, name: str, share: Tensor) -> Tensor:
        """The tensor that all workers have a share of, on this worker's device."""
        like, share = self._tensor(name), share.detach().to(self._device)
        if not _is_cut(like):
            return share
        pieces = [torch.empty_like(share) for _ in range(dist.get_world_size())]
        dist.all_gather(pieces, share.contiguous())
        return torch.cat(pieces)[: like.ds_numel].view(like.ds_shape)

    def _cut(self, name: str, whole: Tensor) -> Tensor:
        """This worker's share of a tensor, in storage of its own."""
        like = self._tensor(name)
        if not _is_cut(like):
            return whole.to(self._device, copy=True)
        share = torch.zeros_like(like.ds_tensor)
        own = whole.flatten()[share.numel() * dist.get_rank() :][: share.numel()]
        share[: own.numel()] = own
        return share

    def _tensor(self, name: str) -> Any:
        path, _, last = name.rpartition(".")
        return getattr(self.bare.get_submodule(path), last)


@dataclasses.dataclass(frozen=True)
class _Piece:
    """`numel` numbers from `place` of a flat tensor on, which are those of a parameter from `start` on."""

    flat: Tensor
    place: int
    start: int
    numel: int

    def of(self, flat: Tensor) -> Tensor:
        return flat.detach().narrow(0, self.place, self.numel)


class _Flat(nn.Module):
    """The model for DeepSpeed, which looks for tensors in tuples and dicts, not in dataclasses: its tensors alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.outputs: Any = None

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        self.outputs = self.model(*args, **kwargs)
        tensors: list[Tensor] = []
        _with_tensors(self.outputs, lambda tensor: tensors.append(tensor) or tensor)
        return tuple(tensors)


class _Called(nn.Module):
    """What the loop calls: the model by way of DeepSpeed, in the modes of the model itself."""

    def __init__(self, model: nn.Module, engine: Any) -> None:
        super().__init__()
        self.model = model
        self._engine = [engine]  # in a list, so that its parameters are not counted a second time

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        tensors = iter(self._engine[0](*args, **kwargs))
        flat: _Flat = self._engine[0].module
        # Those that DeepSpeed gave back, in the places of the model's own.
        outputs, flat.outputs = _with_tensors(flat.outputs, lambda _: next(tensors)), None
        return outputs


def _with_tensors(outputs: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same tuples, dicts and dataclasses with changed tensors, taken in order."""
    if isinstance(outputs, Tensor):
        return change(outputs)
    if isinstance(outputs, Mapping):
        return type(outputs)(**{key: _with_tensors(value, change) for key, value in outputs.items()})  # pyright: ignore[reportCallIssue]
    if isinstance(outputs, tuple | list):
        values = [_with_tensors(value, change) for value in outputs]
        return type(outputs)(*values) if hasattr(outputs, "_fields") else type(outputs)(values)
    if dataclasses.is_dataclass(outputs) and not isinstance(outputs, type):
        values = {f.name: _with_tensors(getattr(outputs, f.name), change) for f in dataclasses.fields(outputs)}
        return type(outputs)(**values)
    return outputs


def _without_scalars(model: nn.Module) -> None:
    """DeepSpeed sends parameters as bytes, and torch cannot see what has no dimension as bytes.

    Raises:
        SettingsError: the model has such a parameter.
    """
    if scalar := next((name for name, p in model.named_parameters() if p.ndim == 0), ""):
        raise SettingsError(
            f"deepspeed cannot share out the parameter {scalar!r}, which has no dimension: set scale.strategy=fsdp or ddp"
        )


def _is_cut(tensor: Any) -> bool:
    return hasattr(tensor, "ds_tensor")


def _share(tensor: Any) -> Tensor:
    return tensor.ds_tensor if _is_cut(tensor) else tensor


def _shape(tensor: Any) -> torch.Size:
    return torch.Size(tensor.ds_shape if _is_cut(tensor) else tensor.shape)


def _deepspeed(device: torch.device) -> Any:
    """The package, quiet, and without the extension that it would compile on CPUs for a start.

    Raises:
        ServiceError: it is not there, or already speaks for another kind of device.
    """
    if device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    if device.index is not None or "LOCAL_RANK" not in os.environ:
        os.environ["LOCAL_RANK"] = str(device.index or 0)  # it asks the environment, at every step, which device it may use
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            deepspeed: Any = importlib.import_module("deepspeed")
            accelerator: Any = importlib.import_module("deepspeed.accelerator").get_accelerator()
    except ImportError as error:
        raise ServiceError(
            f"scale.strategy = 'deepspeed' needs the package deepspeed ({error}): install it, or set scale.strategy=fsdp"
        ) from error
    if accelerator.device_name() != device.type:
        raise ServiceError(
            f"deepspeed speaks for {accelerator.device_name()!r} devices in this process, training is on {device.type!r}: "
            f"set DS_ACCELERATOR={device.type}, or scale.strategy=fsdp"
        )
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    # It calls torch by names that torch is about to give up.
    warnings.filterwarnings("ignore", message=r"`torch\.distributed\.\w+` is deprecated", category=FutureWarning)
    if device.type == "cpu":
        # Shared memory in place of gloo within a machine: faster, but it takes a compiler and half a minute.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed
