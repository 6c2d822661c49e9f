"""What each worker holds under each strategy, and what a step takes: `python benchmarks/strategies.py [--device cuda]`.

A transformer of 25 million parameters and next to no activations, so that weights, gradients and moments are what is measured:
memory of the process on CPUs, of the device on GPUs, between the backward pass and the optimiser's step.
"""

import argparse
import datetime
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from sign_dist.training.strategy import Ddp, Strategy

STRATEGIES = ("ddp", "fsdp", "zero1", "zero2", "zero3")
LAYERS, WIDTH, STEPS = 8, 512, 6


def strategy_of(name: str, device: torch.device) -> Strategy:
    from sign_dist.training.fsdp import Fsdp
    from sign_dist.training.zero import Zero

    if name == "ddp":
        return Ddp(device)
    if name == "fsdp":
        return Fsdp(device)
    return Zero(device, stage=int(name[-1]))  # pyright: ignore[reportArgumentType]


def adamw(model: nn.Module) -> torch.optim.AdamW:
    return torch.optim.AdamW(model.parameters(), lr=1e-4)


def held(device: torch.device) -> int:
    """Bytes that this process holds now."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def worker(rank: int, workers: int, name: str, device_type: str, folder: str) -> None:
    torch.set_num_threads(1)
    device = torch.device(device_type, rank) if device_type == "cuda" else torch.device("cpu")
    backend = "nccl" if device_type == "cuda" else "gloo"
    patience = datetime.timedelta(seconds=120)
    dist.init_process_group(backend, init_method=f"file://{folder}/meet-{name}", rank=rank, world_size=workers, timeout=patience)
    strategy = strategy_of(name, device)
    strategy.start(nn.Linear(4, 4), adamw)  # whatever is imported only now
    dist.barrier()
    before = held(device)
    layers = [nn.TransformerEncoderLayer(WIDTH, 8, 4 * WIDTH, 0.0, batch_first=True) for _ in range(LAYERS)]
    model = nn.Sequential(*layers)
    numel = sum(p.numel() for p in model.parameters())
    engine = strategy.start(model, adamw)
    del model, layers
    seconds: list[float] = []
    bytes_held = 0
    for step in range(STEPS):
        x = torch.randn(1, 4, WIDTH, generator=torch.Generator().manual_seed(step * workers + rank)).to(device)
        dist.barrier()
        started = time.perf_counter()
        engine.zero_grad()
        with engine.part(last=True):
            engine.backward(engine.model(x).square().mean())
        bytes_held = held(device) - before
        engine.step(1.0)
        seconds.append(time.perf_counter() - started)
    if rank == 0:
        found = {"bytes_per_parameter": bytes_held / numel, "step_ms": 1000 * statistics.median(seconds[2:])}
        Path(folder, f"{name}.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=STRATEGIES)
    arguments = parser.parse_args()
    # Freed memory goes back to the system at once, so that what a process holds can be seen from outside.
    os.environ.update({"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "DS_ACCELERATOR": arguments.device})
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        print("| strategy | bytes per parameter and worker | step, ms |\n|---|---|---|")
        for name in arguments.strategies:
            processes = [
                context.Process(target=worker, args=(rank, arguments.workers, name, arguments.device, folder))
                for rank in range(arguments.workers)
            ]
            for process in processes:
                process.start()
            for process in processes:
                process.join()
            found = json.loads(Path(folder, f"{name}.json").read_text())
            print(f"| {name} | {found['bytes_per_parameter']:.1f} | {found['step_ms']:.0f} |", flush=True)


if __name__ == "__main__":
    main()
