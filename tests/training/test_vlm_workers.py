"""Two workers train a vision-language model with adapters as one does, under every strategy, and its checkpoints hold adapters."""

import multiprocessing
import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from sign_dist.config.run import Run
from sign_dist.tasks.build import build_task
from sign_dist.training.checkpoint import LocalCheckpoints, read_weights
from sign_dist.training.loop import fit
from sign_dist.training.run_dir import RunDir
from sign_dist.training.strategy import Ddp, OneProcess, Strategy
from tests.training.test_vlm import TARGETS, VOCAB, clips, run_of, start

PATIENCE_S = 300


def run_for(kind: str, epochs: int) -> Run:
    """Whole weights for strategies that cut them up. Two parts in any case: so one worker and two have the same numbers."""
    quantize = "nf4" if kind in ("none", "ddp") else "none"
    return run_of({"targets": TARGETS, "rank": 2}, {"quantize": quantize}, parts=2, epochs=epochs)


def strategy_of(kind: str) -> Strategy:
    if kind == "ddp":
        return Ddp("cpu")
    if kind == "fsdp":
        from sign_dist.training.fsdp import Fsdp

        return Fsdp("cpu")
    from sign_dist.training.zero import Zero

    return Zero("cpu", stage=2)


def train(run: Run, root: Path, strategy: Strategy) -> None:
    root.mkdir(exist_ok=True)
    task = build_task(run, VOCAB)
    checkpoints = LocalCheckpoints(RunDir(root), task.monitor)
    fit(start(run), task, clips(24), clips(6, 1), run.train, strategy=strategy, checkpoints=checkpoints)


def work(rank: int, kind: str, root: Path) -> None:
    """One of two workers: an epoch, and after a new start another one."""
    os.environ.update({"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": "0"})
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{root}.rendezvous", rank=rank, world_size=2)
    for epochs in (1, 2):
        train(run_for(kind, epochs), root, strategy_of(kind))
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp", "zero2"])
def test_two_workers_learn_what_one_learns(kind: str, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=work, args=(rank, kind, tmp_path / "two")) for rank in (0, 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(PATIENCE_S)
    assert [worker.exitcode for worker in workers] == [0, 0]
    for epochs in (1, 2):  # the schedule of rates is that of the epochs that a run is asked for
        train(run_for("ddp" if kind == "ddp" else "fsdp", epochs), tmp_path / "one", OneProcess())
    one, two = (read_weights(RunDir(tmp_path / name).checkpoints()[-1]) for name in ("one", "two"))
    assert one.keys() == two.keys()
    assert all("lora_" in name for name in two)
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, atol=2e-5, rtol=0, msg=name)
