"""A search over how deep to unfreeze I3D, each trial with and without the cache of what stands still: its cost and its losses.

    python benchmarks/prefix.py FOLDER [--model i3d|signhiera] [--signs 12] [--signers 8] [--clips 2] [--epochs 3] [--size 64]
        [--depths LAYER ...] [--rates RATE ...]

In FOLDER a synthetic world of isolated signs is drawn and its frames are extracted. A trial is what a study runs: it begins,
trains, evaluates and writes a checkpoint after each epoch, and ends. Trials are the depths of `DEPTHS` times two learning rates;
each is run without the cache and right after it with it, in this process, on one thread. The activations are computed before, once
for each depth, and that is told apart. Weights are random: what is measured is work, and whether the losses agree, not what is
learned.
"""

import argparse
import itertools
import os
import platform
import shutil
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from sign_dist.config.data import Data, FrameFeatures, Sampling
from sign_dist.config.model import I3dModel, SignHieraModel
from sign_dist.config.prefix import CHANGES_FRAMES
from sign_dist.config.run import Run
from sign_dist.config.train import Augment, Optim, Train
from sign_dist.data.layout import DatasetDir
from sign_dist.data.prepare import prepare
from sign_dist.features.blocks import compute
from sign_dist.features.encode import build_encoder
from sign_dist.on_ray.extraction import find_todo
from sign_dist.on_ray.training import begin, finish, fit_run
from sign_dist.synthetic.corpus import write_corpus
from sign_dist.training.data import Clips
from sign_dist.training.prefix import caches_of, fill
from sign_dist.training.run_dir import RunDir
from sign_dist.training.start import first_model
from sign_dist.training.strategy import OneProcess

DEPTHS = {"i3d": ("logits", "Mixed_5c", "Mixed_5b"), "signhiera": ("head", "block_4", "block_3")}
"""`train.freeze.until`: the lowest layer that trains."""
RATES = (1e-3, 3e-4)
LOSSES = ("train/loss", "val/loss")


def draw(folder: Path, features: FrameFeatures, *, signs: int, signers: int, clips: int) -> DatasetDir:
    """The world, prepared, its frames extracted in this process."""
    dataset = DatasetDir(folder / "data")
    if not dataset.facts_file.exists():
        write_corpus(folder / "corpus", num_signs=signs, num_signers=signers, clips_per_sign=clips)
        prepare("table", folder / "corpus", dataset.root, sampling=Sampling(fps=25))
    todo = find_todo(dataset, features)
    encoder = build_encoder(features, todo.files)
    for block in todo.blocks:
        compute(block, todo.store, features, encoder)
    return dataset


def fill_all(run: Run, depths: tuple[str, ...]) -> tuple[float, float, float]:
    """Compute what every depth needs; (seconds, processor seconds, GB before compression)."""
    clips = Clips.of(run, run.data.train_split), Clips.of(run, run.data.val_split)
    started, used, gb = time.perf_counter(), time.process_time(), 0.0
    for depth in depths:
        deep = run.with_values({"train.freeze.until": depth})
        model = first_model(deep, clips[0][0])
        for cache in caches_of(deep, model, clips).values():
            gb += fill(cache, model, clips) * cache.clip_bytes / 1e9
    return time.perf_counter() - started, time.process_time() - used, gb


def trial(run: Run, root: Path) -> tuple[float, float, list[dict[str, Any]]]:
    """(seconds, processor seconds, metrics by epoch) of one trial, from its first look at the data to its curves."""
    shutil.rmtree(root, ignore_errors=True)
    started, used = time.perf_counter(), time.process_time()
    run_dir, run, _ = begin(run, root)
    fit_run(run, run_dir, OneProcess())
    finish(run_dir)
    return time.perf_counter() - started, time.process_time() - used, RunDir(root).metrics()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", choices=tuple(DEPTHS), default="i3d")
    for name, default in (("signs", 12), ("signers", 8), ("clips", 2), ("epochs", 3), ("size", 64), ("frames", 16), ("batch", 8)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--depths", nargs="+", help="the lowest layers that train, instead of those of DEPTHS")
    parser.add_argument("--rates", nargs="+", type=float, default=RATES)
    args = parser.parse_args()
    torch.set_num_threads(1)
    features = FrameFeatures(num_frames=args.frames, size_px=args.size)
    dataset = draw(args.folder, features, signs=args.signs, signers=args.signers, clips=args.clips)
    still = Augment(**dict.fromkeys(CHANGES_FRAMES, 0.0))
    base = Run(
        data=Data(root=str(dataset.root), features=features),
        model=I3dModel() if args.model == "i3d" else SignHieraModel(),
        train=Train(epochs=args.epochs, batch_size=args.batch, augment=still, optim=Optim(), cache_prefix=True),
    )
    counts = dataset.facts()["counts"]
    print(f"{platform.processor() or platform.machine()}, one thread, torch {torch.__version__}")
    print(f"{args.model}: {counts['train']} training and {counts['val']} validation clips of {args.frames} x {args.size} px")
    depths = tuple(args.depths or DEPTHS[args.model])
    first, first_used, gb = fill_all(base, depths)
    print(f"computed once: {first:.1f} s ({first_used:.1f} s of processor), {gb:.4f} GB before compression", flush=True)
    print("| lowest layer that trains | rate | without, s | with, s | share | of processor | largest difference of a loss |")
    print("|---|---|---|---|---|---|---|")
    sums, worst = [0.0] * 4, 0.0
    for depth, rate in itertools.product(depths, args.rates):
        run = base.with_values({"train.freeze.until": depth, "train.optim.lr": rate})
        seconds, used, bare = trial(run.with_values({"train.cache_prefix": False}), args.folder / "without")
        quick, quick_used, cached = trial(run, args.folder / "with")
        apart = max(abs(a[name] - b[name]) for a, b in zip(bare, cached, strict=True) for name in LOSSES)
        worst = max(worst, apart)
        sums = [a + b for a, b in zip(sums, (seconds, used, quick, quick_used), strict=True)]
        shares = f"{quick / seconds:.3f} | {quick_used / used:.3f}"
        print(f"| `{depth}` | {rate:g} | {seconds:.1f} | {quick:.1f} | {shares} | {apart:.1e} |", flush=True)
    whole, whole_used, short, short_used = sums
    trials = len(depths) * len(args.rates)
    print(f"| all {trials} | | {whole:.1f} | {short:.1f} | {short / whole:.3f} | {short_used / whole_used:.3f} | {worst:.1e} |")
    print(f"with what was computed once: {(first + short) / whole:.3f}, of processor {(first_used + short_used) / whole_used:.3f}")


if __name__ == "__main__":
    main()
