"""Strategies are one: the same steps give the same numbers under each, and a run moves between them and between worker counts."""

import dataclasses
import datetime
import itertools
import json
import multiprocessing
import os
import shutil
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from sign_dist.config.train import Lora, Optim, Train, Unfreeze
from sign_dist.data.sample import Sample
from sign_dist.data.vocab import Vocab
from sign_dist.tasks.cslr import Cslr
from sign_dist.tasks.task import Example
from sign_dist.training.checkpoint import LocalCheckpoints, read_average, read_state
from sign_dist.training.loop import fit
from sign_dist.training.record import Record
from sign_dist.training.run_dir import RunDir
from sign_dist.training.strategy import Ddp, OneProcess, Strategy

CLOSE = 1e-5
PATIENCE_S = 400
STEPS, PER_EPOCH, BATCH = 50, 5, 6
VOCAB = Vocab(("A", "B", "C", "D"))
WIDTH = 5
# Imported once, before the workers are forked: they would each take seconds over it.
PRELOAD = [
    "torch._dynamo",
    "torch.distributed.tensor",
    "deepspeed.module_inject.auto_ep_layer",
    "deepspeed.ops.op_builder.all_ops",
    "deepspeed.runtime.superoffload.superoffload_stage3",
    "sign_dist.tasks.cslr",
    "sign_dist.training.loop",
    "sign_dist.training.fsdp",
    "sign_dist.training.zero",
]

Kind = Literal["none", "ddp", "fsdp", "zero1", "zero2", "zero3", "zero1-offload", "zero2-offload", "zero3-offload"]
Special = Literal["", "adapters", "batch norm", "bf16", "poison", "scalar"]
KINDS: tuple[Kind, ...] = ("none", "ddp", "fsdp", "zero1", "zero2", "zero3")


class Net(nn.Module):
    """Transformer blocks, an LSTM and a tied vector, for CTC.

    No biases in the blocks: that of attention's keys has a gradient of nothing but rounding, which Adam blows up to full steps.
    """

    def __init__(self, dropout: float, *, batch_norm: bool = False, scalar: bool = False) -> None:
        super().__init__()
        self.front = nn.Linear(WIDTH, 16)
        blocks = (nn.TransformerEncoderLayer(16, 2, 32, dropout, batch_first=True, bias=False) for _ in range(2))
        self.blocks = nn.ModuleList(blocks)
        self.lstm = nn.LSTM(16, 8, batch_first=True, bidirectional=True)
        self.norm, self.second = nn.LayerNorm(16), nn.LayerNorm(16)
        self.second.weight = self.norm.weight
        self.statistics = nn.BatchNorm1d(16) if batch_norm else None
        self.temperature = nn.Parameter(torch.ones(() if scalar else 1))
        self.head = nn.Linear(16, len(VOCAB) + 1)
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        x = self.front(features)
        behind = torch.arange(x.shape[1]) >= lengths[:, None]  # else answers would depend on who shares a batch
        for block in self.blocks:
            x = block(x, src_key_padding_mask=behind)
        packed = nn.utils.rnn.pack_padded_sequence(self.norm(x), lengths, batch_first=True, enforce_sorted=False)
        x, _ = nn.utils.rnn.pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        if self.statistics is not None:
            x = self.statistics(x.transpose(1, 2)).transpose(1, 2)
        return self.head(self.second(x)) * self.temperature, lengths

    def layer_groups(self) -> list[tuple[str, list[nn.Module | nn.Parameter]]]:
        statistics = [] if self.statistics is None else [self.statistics]
        return [("head", [self.head]), ("middle", [self.temperature, self.norm, self.lstm, *statistics, self.blocks, self.front])]


def clips(count: int, seed: int, *, poisoned: bool = False) -> list[Example]:
    """Clips of one or two glosses, each of which shows in its features; of the poisoned ones, one is no number."""
    rng = np.random.default_rng(seed)
    found: list[Example] = []
    for i in range(count):
        glosses = rng.choice(len(VOCAB), size=1 + i % 2, replace=False)
        features = rng.normal(size=(6 + i % 5, WIDTH)).astype(np.float32)
        for gloss, part in zip(glosses, np.array_split(np.arange(len(features)), len(glosses)), strict=True):
            features[part, gloss] += 2
        label = " ".join(VOCAB.glosses[g] for g in glosses)
        found.append(Example(Sample(f"clip{seed}-{i}", "", label), features))
    if poisoned:
        found[3].features[:] = np.nan
    return found


@dataclasses.dataclass(frozen=True)
class Job:
    """A training of 50 steps by some workers into a folder; one that is there goes on."""

    kind: Kind
    workers: int
    folder: Path
    dropout: float = 0.1
    stages: int = 1
    ema: float = 0.0
    special: Special = ""

    def train(self, strategy: Strategy) -> None:
        torch.manual_seed(3)
        model = Net(self.dropout, batch_norm=self.special == "batch norm", scalar=self.special == "scalar")
        settings = Train(
            epochs=STEPS // PER_EPOCH,
            batch_size=BATCH,
            parts=BATCH,
            evaluate_every=STEPS // PER_EPOCH // 2,
            ema=self.ema,
            unfreeze=Unfreeze(stages=self.stages),
            optim=Optim(lr=3e-3, layer_decay=0.5),
            lora=Lora(targets="front linear1" if self.special == "adapters" else "", rank=2),
            precision="bf16" if self.special == "bf16" else "fp32",
        )
        task = Cslr(VOCAB, time_stride=1, beam=1)
        checkpoints = LocalCheckpoints(RunDir(self.folder), task.monitor, keep=settings.keep_best)
        examples = clips(BATCH * PER_EPOCH, 0, poisoned=self.special == "poison")
        fit(model, task, examples, clips(7, 1), settings, strategy=strategy, checkpoints=checkpoints)


def strategy_of(kind: Kind) -> Strategy:
    """Small bounds, so that the little model is cut up as a large one is."""
    from sign_dist.training.fsdp import Fsdp
    from sign_dist.training.zero import Zero

    match kind:
        case "none":
            return OneProcess()
        case "ddp":
            return Ddp()
        case "fsdp":
            return Fsdp(unit_numel=500)
        case _:
            stage: Any = int(kind[4])
            return Zero(stage=stage, offload=kind.endswith("-offload"), persist_numel=300)


def worker(rank: int, job: Job, meet: str) -> None:
    """What one worker does; a fault goes into a file."""
    try:
        torch.set_num_threads(1)
        Record._tensorboard = lambda *_: None  # type: ignore[method-assign]
        patience = datetime.timedelta(seconds=PATIENCE_S)
        dist.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=job.workers, timeout=patience)
        job.train(strategy_of(job.kind))
        dist.barrier()
        dist.destroy_process_group()
    except BaseException:
        (job.folder / f"fault{rank}.txt").write_text(traceback.format_exc())
        raise


def run(job: Job) -> Job:
    """Train in processes of their own, forked from one that has imported everything."""
    job.folder.mkdir(exist_ok=True)
    meet = job.folder / "meet"
    meet.unlink(missing_ok=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    workers = [context.Process(target=worker, args=(rank, job, str(meet)), daemon=True) for rank in range(job.workers)]
    for process in workers:
        process.start()
    for process in workers:
        process.join(PATIENCE_S)
        if process.is_alive():
            process.kill()
    faults = [path.read_text() for path in sorted(job.folder.glob("fault*.txt"))]
    assert not faults, faults[0]
    assert [process.exitcode for process in workers] == [0] * job.workers
    return job


@pytest.fixture(scope="module", autouse=True)
def _environment() -> Iterator[None]:
    """For the process that all workers are forked from: a machine without a network has `lo`, and CPUs are what is tested."""
    given = {"GLOO_SOCKET_IFNAME": "lo", "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    yield
    for name, value in before.items():
        os.environ.pop(name)
        if value is not None:
            os.environ[name] = value


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("strategies")


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> dict[Any, Job]:
    """Trainings that several tests look at, each done when it is first asked for."""
    return _Trainings(folder)


class _Trainings(dict[Any, Job]):
    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def __missing__(self, key: tuple[Any, ...]) -> Job:
        """Of the key (kind, dropout, stages, ema, special), or less of it."""
        kind, *rest = key
        self[key] = run(Job(kind, 1 if kind == "none" else 2, self._folder / "-".join(map(str, key)), *rest))
        return self[key]


def losses(job: Job) -> list[float]:
    """Loss per clip of each of the 50 steps, but for those that were left out."""
    facts = json.loads((RunDir(job.folder).checkpoints()[-1] / "progress.json").read_text())
    assert facts["step"] == STEPS
    assert len(facts["recent"]) == STEPS - (STEPS // PER_EPOCH if job.special == "poison" else 0)
    return facts["recent"]


def evaluated(job: Job) -> dict[str, float]:
    line = json.loads((job.folder / "metrics.jsonl").read_text().splitlines()[-1])
    return {name: value for name, value in line.items() if name.startswith("val/") or name in ("train/loss", "train/grad_norm")}


def assert_alike(one: Job, two: Job) -> None:
    """Losses, weights, moments, averages and scores are the same to rounding."""
    assert np.abs(np.subtract(losses(one), losses(two))).max() < CLOSE
    (_, a), (_, b) = (read_state(RunDir(job.folder).checkpoints()[-1]) for job in (one, two))
    assert a.weights.keys() == b.weights.keys()
    for name, tensor in a.weights.items():
        torch.testing.assert_close(b.weights[name], tensor, atol=CLOSE, rtol=0, msg=name)
    assert a.moments.keys() == b.moments.keys()
    for name, held in a.moments.items():
        assert b.moments[name].keys() == held.keys() == {"step", "exp_avg", "exp_avg_sq"}
        assert b.moments[name]["step"] == held["step"], name
        for key in ("exp_avg", "exp_avg_sq"):
            assert b.moments[name][key].shape == a.weights[name].shape
            torch.testing.assert_close(b.moments[name][key], held[key], atol=CLOSE, rtol=0, msg=f"{name} {key}")
    mean, other = (read_average(RunDir(job.folder).checkpoints()[-1]) for job in (one, two))
    for name, tensor in mean.items():
        torch.testing.assert_close(other[name], tensor, atol=CLOSE, rtol=0, msg=name)
    assert evaluated(one) == pytest.approx(evaluated(two), abs=CLOSE)


def goes_on(source: Job, kind: Kind, workers: int, folder: Path) -> Job:
    """The second half of a training under another strategy, from the checkpoint in its middle."""
    half = RunDir(source.folder).checkpoints()[0]
    assert json.loads((half / "progress.json").read_text())["step"] == STEPS // 2
    job = dataclasses.replace(source, kind=kind, workers=workers, folder=folder)
    shutil.copytree(half, folder / half.name)
    return run(job)


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS[1:])
def test_the_same_fifty_steps(undisturbed: dict[Any, Job], kind: Kind) -> None:
    one = undisturbed["none", 0.1]
    assert losses(one)[-1] < 0.5 * losses(one)[0], "what learns nothing shows nothing"
    assert_alike(one, undisturbed[kind, 0.1])


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS[1:])
def test_the_same_fifty_steps_without_dropout(undisturbed: dict[Any, Job], kind: Kind) -> None:
    assert_alike(undisturbed["none", 0.0], undisturbed[kind, 0.0])


@pytest.mark.long
@pytest.mark.parametrize("kind", ["fsdp", "zero2-offload", "zero3"])
def test_unfreezing_in_stages_and_a_moving_average(undisturbed: dict[Any, Job], kind: Kind) -> None:
    assert_alike(undisturbed["none", 0.1, 2, 0.8], undisturbed[kind, 0.1, 2, 0.8])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "zero1", "zero2", "zero1-offload", "zero3-offload"])
def test_unfreezing_in_stages_and_a_moving_average_under_the_others(undisturbed: dict[Any, Job], kind: Kind) -> None:
    assert_alike(undisturbed["none", 0.1, 2, 0.8], undisturbed[kind, 0.1, 2, 0.8])


@pytest.mark.long
@pytest.mark.parametrize(
    ("source", "kind", "workers"),
    [
        ("none", "fsdp", 3),
        ("ddp", "zero3", 3),
        ("fsdp", "zero1", 2),
        ("zero1", "none", 1),
        ("zero2", "ddp", 3),
        ("zero3", "zero2", 1),
    ],
)
def test_a_run_moves_between_strategies_and_numbers_of_workers(
    undisturbed: dict[Any, Job], tmp_path: Path, source: Kind, kind: Kind, workers: int
) -> None:
    assert_alike(undisturbed["none", 0.1], goes_on(undisturbed[source, 0.1], kind, workers, tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize("special", ["adapters", "poison"])
def test_adapters_and_steps_without_a_finite_loss(undisturbed: dict[Any, Job], kind: Kind, special: Special) -> None:
    assert_alike(undisturbed["none", 0.1, 1, 0.0, special], undisturbed[kind, 0.1, 1, 0.0, special])


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS[2:])
def test_statistics_of_batches_are_those_of_ddp(undisturbed: dict[Any, Job], kind: Kind) -> None:
    """Not those of one worker, who sees other clips at once."""
    assert_alike(undisturbed["ddp", 0.1, 1, 0.0, "batch norm"], undisturbed[kind, 0.1, 1, 0.0, "batch norm"])


@pytest.mark.slow
def test_fsdp_leaves_a_parameter_without_a_dimension_whole(undisturbed: dict[Any, Job]) -> None:
    assert_alike(undisturbed["none", 0.1, 1, 0.0, "scalar"], undisturbed["fsdp", 0.1, 1, 0.0, "scalar"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS[1:])
def test_bf16_is_the_same_but_for_its_digits(undisturbed: dict[Any, Job], kind: Kind) -> None:
    one, two = (losses(undisturbed[k, 0.1, 1, 0.0, "bf16"]) for k in ("none", kind))
    # Stage 3 brings a linear layer of its own, which rounds before it adds the bias; the others round alike in the first step.
    assert one[0] == pytest.approx(two[0], abs=0.02 if kind == "zero3" else CLOSE)
    assert one == pytest.approx(two, rel=0.05)
    assert one[0] != losses(undisturbed["none", 0.1])[0], "bf16 computes in bf16"


@pytest.mark.slow
@pytest.mark.parametrize(("source", "kind"), [*itertools.product(KINDS, KINDS)])
def test_a_run_moves_from_each_strategy_to_each(undisturbed: dict[Any, Job], tmp_path: Path, source: Kind, kind: Kind) -> None:
    workers = 1 if kind == "none" else 3 if source in ("none", "fsdp", "zero3") else 2
    assert_alike(undisturbed["none", 0.1], goes_on(undisturbed[source, 0.1], kind, workers, tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_run_in_stages_moves_in_the_middle_of_unfreezing(undisturbed: dict[Any, Job], tmp_path: Path, kind: Kind) -> None:
    """Its parameters have taken different numbers of steps."""
    goes = goes_on(undisturbed["none", 0.1, 2, 0.8], kind, 1 if kind == "zero3" else 2, tmp_path)
    assert_alike(undisturbed["none", 0.1, 2, 0.8], goes)
