"""Step time of `sign-dist train` against a plain torch DDP script: the same model, clips, batches, augmentation and optimiser.

    OMP_NUM_THREADS=1 python -m benchmarks.train --workers 2

One run, side by side: the plain script, then ours under Ray Train and ours without Ray, then the plain script again. Medians of the
steps behind the first epoch, without evaluations. The plain script reads its batches through torch's DataLoader with one loading
process a worker, ours through its loading thread. Then padding: the share of padded steps with and without `train.by_length`.
"""

import argparse
import itertools
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_worker_niceness", "0")

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.utils.data import DataLoader, Dataset

from sign_dist.config.data import Data, Glosses, LandmarkFeatures, Sampling
from sign_dist.config.model import CtcStudentModel
from sign_dist.config.run import Run
from sign_dist.config.train import Augment, Train
from sign_dist.data.layout import DatasetDir
from sign_dist.data.prepare import prepare
from sign_dist.synthetic.like import Order, write_order
from sign_dist.tasks.build import build_task, num_classes_of, vocab_of
from sign_dist.tasks.task import Batch
from sign_dist.training.batches import Sampler, parts_of
from sign_dist.training.data import Clips
from sign_dist.training.optim import build_optimizer, lr_at, set_lr
from sign_dist.training.run_dir import RunDir
from sign_dist.training.start import start_model
from sign_dist.training.strategy import Ddp
from sign_dist.transfer.sync_bn import share_batch_norm

FEATURES = LandmarkFeatures(sampling=Sampling(fps=30, image_fps=20), every=1)
EPOCHS = 12


class _Batches(Dataset[Batch]):
    """One rank's batches of all epochs, made when they are asked for."""

    def __init__(self, run: Run, rank: int, world: int) -> None:
        self.clips = Clips.of(run, "train")
        self.task = build_task(run, vocab_of(run.task, DatasetDir(Path(run.data.root))), self.clips.samples, in_training=True)
        sampler = Sampler(self.clips.lengths, run.train.batch_size, seed=run.train.seed)
        self.steps = [(epoch, step) for epoch in range(EPOCHS) for step in sampler.steps(epoch)]
        self._rank, self._world, self._seed = rank, world, run.train.seed

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, index: int) -> Batch:
        epoch, step = self.steps[index]
        part = parts_of(step, self._world)[self._rank]
        rngs = [np.random.default_rng([self._seed, epoch, clip]) for clip in part]
        return self.task.collate([self.clips[clip] for clip in part], rngs)


def _plain(rank: int, tree: dict[str, Any], world: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    run = Run.from_tree(tree)
    batches = _Batches(run, rank, world)
    vocab = vocab_of(run.task, DatasetDir(Path(run.data.root)))
    torch.manual_seed(run.train.seed)
    shape = batches.clips[0].features.shape[1:]
    model = start_model(run, num_classes=num_classes_of(run.task, vocab), feature_shape=shape, vocab=vocab)
    # Statistics over the clips of all workers, as ours have them; torch's own SyncBatchNorm runs on GPUs only.
    model = share_batch_norm(model, world_size=world, device_type="cpu")
    wrapped = nn.parallel.DistributedDataParallel(model) if world > 1 else model
    optimizer = build_optimizer(model, run.train.optim)
    times: list[float] = []
    loader = DataLoader(batches, batch_size=None, num_workers=1, prefetch_factor=2, multiprocessing_context="fork")
    wrapped.train()
    started = time.perf_counter()
    for index, batch in enumerate(loader):
        set_lr(optimizer, lr_at(index, len(batches), run.train.optim))
        optimizer.zero_grad(set_to_none=True)
        named, _ = batches.task.losses(wrapped, batch)
        loss = (torch.stack(list(named.values())).sum(0) * batch.weights).sum() / len(batch.ids)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), run.train.optim.clip_norm)
        optimizer.step()
        float(loss.detach())
        now = time.perf_counter()
        times.append(now - started)
        started = now
    if rank == 0:
        Path(folder, "times.json").write_text(json.dumps(times), encoding="utf-8")
    dist.destroy_process_group()


def plain(run: Run, world: int) -> list[float]:
    """Seconds of each step behind the first epoch."""
    with tempfile.TemporaryDirectory(prefix="sd_plain_") as folder:
        mp.spawn(_plain, (run.model_dump(mode="json"), world, folder), nprocs=world)
        times = json.loads(Path(folder, "times.json").read_text(encoding="utf-8"))
    return times[len(times) // EPOCHS :]


def ours(run: Run, root: Path) -> tuple[list[float], dict[str, Any]]:
    """The same of `sign-dist train`, and what it measured itself."""
    from sign_dist.on_ray.cluster import connected
    from sign_dist.on_ray.training import train

    with connected("local"):
        metrics = train(run, root)
    return _steps(RunDir(root)), metrics


def _without_ray(rank: int, world: int, folder: str, root: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    from sign_dist.on_ray.training import fit_run

    run_dir = RunDir(Path(root))
    fit_run(run_dir.run(), run_dir, Ddp())
    dist.destroy_process_group()


def bare(run: Run, root: Path, world: int) -> list[float]:
    """The same of the loop alone, in processes that no Ray has started."""
    from sign_dist.on_ray.training import begin

    run_dir, _, _ = begin(run, root)
    with tempfile.TemporaryDirectory(prefix="sd_bare_") as folder:
        mp.spawn(_without_ray, (world, folder, str(root)), nprocs=world)
    return _steps(run_dir)


def _steps(run_dir: RunDir) -> list[float]:
    """Seconds of each step behind the first epoch, as the trace has them."""
    lines = [json.loads(line) for line in run_dir.steps_file.read_text(encoding="utf-8").splitlines()]
    per_epoch = len(lines) // EPOCHS
    between = [b["at_s"] - a["at_s"] for a, b in itertools.pairwise(lines)]
    # The first step of an epoch follows the end of another, where a feed starts anew.
    return [t for i, t in enumerate(between, start=1) if i >= per_epoch and i % per_epoch]


def padding(run: Run, by_length: int) -> float:
    """Share of a batch's steps that are padding, over an epoch."""
    clips = Clips.of(run, "train")
    lengths = clips.lengths
    steps = Sampler(lengths, run.train.batch_size, by_length=by_length).steps(0)
    parts = [part for step in steps for part in parts_of(step, run.parts) if part]
    return 1 - sum(lengths) / sum(len(part) * max(lengths[i] for i in part) for part in parts)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--workers", type=int, default=2)
    arguments.add_argument("--model", default="ctc_student", choices=["ctc_student", "temporal_i3d", "cslr_head"])
    arguments.add_argument("--sentences", type=int, default=240)
    options = arguments.parse_args()
    from tests.worlds import extract_here

    with tempfile.TemporaryDirectory(prefix="sd_bench_") as name:
        folder = Path(name)
        write_order(folder / "raw", Order(signers=8, sentences=options.sentences, landmarks=True))
        labels = Glosses(labels="sequence")
        prepared = prepare("table", folder / "raw", folder / "d", glosses=labels, sampling=FEATURES.sampling)
        extract_here(prepared.dataset, FEATURES)
        run = Run(
            task="cslr",
            data=Data(root=str(folder / "d"), features=FEATURES),
            model=CtcStudentModel(),
            train=Train(epochs=EPOCHS, batch_size=16, evaluate_every=EPOCHS, augment=Augment(speed=0.3), trace=True),
        ).with_values({"model.kind": options.model, "scale.workers": options.workers, "scale.device": "cpu"})
        before = plain(run, options.workers)
        mine, metrics = ours(run, folder / "run")
        alone = bare(run, folder / "bare", options.workers)
        after = plain(run, options.workers)
        theirs = statistics.median(before + after)
        for title, times in (("plain, before", before), ("under Ray", mine), ("without Ray", alone), ("plain, after", after)):
            middle = statistics.median(times)
            print(f"{title:14} {len(times)} steps, median {middle * 1000:.1f} ms, {middle / theirs:.3f} of both plain ones")
        print(f"waiting for clips: {metrics['data_wait_share']:.2%} of the time, {metrics['step_ms']:.1f} ms a step in the mean")
        for by_length in (1, 8, 16):
            print(f"padding with train.by_length={by_length}: {padding(run, by_length):.1%}")


if __name__ == "__main__":
    main()
