"""I3D from one synthetic sign language to another with few clips of each sign: from scratch against the five strategies.

    OMP_NUM_THREADS=1 python benchmarks/transfer.py [--out runs/transfer] [--seeds 0 1 2] [--only scratch full]

One process, one thread, no Ray. Corpora, settings and names are those of the stages of `jobs/recipes/synthetic_transfer.py`. The
run that all start from is trained once; each of the others once per seed. What is done is not done again. Prints a table of top-1
on clips of signers that no run saw, and draws the curves of all runs into `curves.png` of the folder. Intervals are of a bootstrap
that draws signers, all clips of one together, and seeds; differences to `scratch` are paired by clip.
"""

import argparse
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from numpy.typing import NDArray

from sign_dist.config.data import Features, FrameFeatures
from sign_dist.config.recipe import SIGN, ExtractStage, PrepareStage, Recipe, SynthStage, TrainStage, load_recipe, run_of
from sign_dist.config.run import Run
from sign_dist.data.layout import DatasetDir, write_json
from sign_dist.data.prepare import prepare
from sign_dist.data.vocab import Vocab
from sign_dist.features.blocks import compute
from sign_dist.features.encode import build_encoder
from sign_dist.on_ray.extraction import find_todo
from sign_dist.on_ray.training import begin, finish, fit_run
from sign_dist.synthetic.like import Order, write_order
from sign_dist.tasks.build import build_task
from sign_dist.training.curves import plot_side_by_side, read_metrics
from sign_dist.training.data import Clips
from sign_dist.training.evaluate import evaluate
from sign_dist.training.run_dir import RunDir
from sign_dist.training.start import trained_model
from sign_dist.training.strategy import OneProcess

RECIPE = Path(__file__).resolve().parents[1] / "jobs" / "recipes" / "synthetic_transfer.py"
PRETRAIN, BASE = "pretrain", "scratch"
DRAWS = 5000

Floats = NDArray[np.float64]


def make_dataset(root: Path, recipe: Recipe, frames_stage: str) -> tuple[DatasetDir, Features]:
    """The corpus behind a stage of features: drawn, prepared, its frames read; what is there is left as it is."""
    frames = recipe.stages[frames_stage]
    assert isinstance(frames, ExtractStage)
    assert isinstance(frames.features, FrameFeatures)
    dataset = recipe.stages[frames.dataset.removeprefix(SIGN)]
    assert isinstance(dataset, PrepareStage)
    corpus = recipe.stages[dataset.raw.removeprefix(SIGN)]
    assert isinstance(corpus, SynthStage)
    made = DatasetDir(root / "dataset")
    if not made.facts_file.exists():
        write_order(root / "corpus", Order(**corpus.model_dump(exclude={"kind"})))
        prepare(dataset.reader, root / "corpus", made.root, split=dataset.split)
    todo = find_todo(made, frames.features)
    encoder = build_encoder(frames.features, todo.files)
    for block in todo.blocks:
        compute(block, todo.store, frames.features, encoder)
    return made, frames.features


def train(run: Run, root: Path) -> float:
    """Train in this process; answers the seconds of it, of an earlier time if it is done."""
    run_dir, run, _ = begin(run, root)
    if not run_dir.done_file.exists():
        started = time.process_time()
        fit_run(run, run_dir, OneProcess())
        write_json(root / "seconds.json", time.process_time() - started)
        finish(run_dir)
    return json.loads((root / "seconds.json").read_text())


def hits(root: Path, split: str) -> tuple[list[float], list[str]]:
    """1 for each clip of a split that the run's chosen checkpoint has right, in the manifest's order, and the clips' signers."""
    run_dir = RunDir(root)
    run = run_dir.run()
    vocab = Vocab.read(DatasetDir(Path(run.data.root)).vocab_file)
    clips = Clips.of(run, split)
    model = trained_model(run, run_dir.chosen(), clips[0].features.shape[1:])
    found = evaluate(model, build_task(run, vocab), clips, batch_size=16).predictions
    samples = [clips[i].sample for i in range(len(clips))]
    return [float(s.gloss == p.hypothesis) for s, p in zip(samples, found, strict=True)], [s.signer for s in samples]


def main() -> None:
    recipe = load_recipe(RECIPE)
    ways = {name: s for name, s in recipe.stages.items() if isinstance(s, TrainStage) and name != PRETRAIN}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/transfer"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=list(ways), default=list(ways))
    parser.add_argument("--split", default="test", choices=["val", "test"])
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings of every run on the second language")
    args = parser.parse_args()
    torch.set_num_threads(1)

    started = time.process_time()
    first = recipe.stages[PRETRAIN]
    assert isinstance(first, TrainStage)
    a, features = make_dataset(args.out / "a", recipe, first.reads.removeprefix(SIGN))
    b, _ = make_dataset(args.out / "b", recipe, ways[BASE].reads.removeprefix(SIGN))
    print(f"data: {time.process_time() - started:.0f} s; {a.facts()['counts']} and {b.facts()['counts']} clips", flush=True)
    seconds = train(run_of(first, reads=(str(a.root), features, "")), args.out / PRETRAIN)
    own, _ = hits(args.out / PRETRAIN, args.split)
    print(f"{PRETRAIN}: top-1 {np.mean(own):.3f} on {len(own)} clips of its own {args.split} split, {seconds:.0f} s", flush=True)

    changes = {word.partition("=")[0]: json.loads(word.partition("=")[2]) for word in args.set}
    found: dict[str, list[list[float]]] = {}
    took: dict[str, list[float]] = {}
    signers: list[str] = []
    for seed in args.seeds:
        for name in args.only:
            begun = ways[name].start_from.removeprefix(SIGN)
            start = str(args.out / (begun if begun == PRETRAIN else f"{begun}-{seed}")) if begun else ""
            values = ways[name].values | changes | {"train.seed": seed}
            stage = ways[name].model_copy(update={"start_from": start, "values": values})
            root = args.out / f"{name}-{seed}"
            took.setdefault(name, []).append(train(run_of(stage, reads=(str(b.root), features, "")), root))
            right, signers = hits(root, args.split)
            found.setdefault(name, []).append(right)
            print(f"seed {seed} {name}: top-1 {np.mean(right):.3f}, {took[name][-1]:.0f} s", flush=True)
    show(found, signers, took)
    curves = {name: [read_metrics(RunDir(args.out / f"{name}-{seed}").metrics_file) for seed in args.seeds] for name in args.only}
    plot_side_by_side(
        {name.replace("_", " "): rows for name, rows in curves.items()},
        args.out / "curves.png",
        title=f"Validation while {b.facts()['counts']['train']} clips of the second language are learned",
    )


def show(found: Mapping[str, Sequence[Sequence[float]]], signers: Sequence[str], took: Mapping[str, Sequence[float]]) -> None:
    """The table, in Markdown."""
    draws = {name: draw(np.array(rows), signers, number) for number, (name, rows) in enumerate(found.items())}
    print("\n| run | top-1 | 95 % | seeds | against scratch, paired, 95 % | processor s a run |\n|---|---|---|---|---|---|")
    for name, rows in found.items():
        low, high = np.quantile(draws[name], [0.025, 0.975])
        gain = "-"
        if BASE in found and name != BASE:
            worse, better = np.quantile(draws[name] - draws[BASE], [0.025, 0.975])
            gain = f"{np.mean(rows) - np.mean(found[BASE]):+.3f} ({worse:+.3f} to {better:+.3f})"
        seeds = ", ".join(f"{np.mean(row):.3f}" for row in rows)
        cells = (name, f"{np.mean(rows):.3f}", f"{low:.3f} to {high:.3f}", seeds, gain, f"{np.mean(took[name]):.0f}")
        print(f"| {' | '.join(cells)} |")


def draw(right: Floats, signers: Sequence[str], number: int) -> Floats:
    """Top-1 of `DRAWS` bootstrap draws of `right` (seeds, clips): the signers drawn are equal for all kinds of runs, seeds are not.

    That pairs the clips of two kinds of runs. A seed is no pair: one seed makes other weights in another kind of run.
    """
    names = sorted(set(signers))
    of_clip = np.array([names.index(signer) for signer in signers])
    clips = np.random.default_rng(0).multinomial(len(names), np.full(len(names), 1 / len(names)), size=DRAWS)[:, of_clip]
    seeds = np.random.default_rng([1, number]).multinomial(len(right), np.full(len(right), 1 / len(right)), size=DRAWS)
    return ((seeds @ right) * clips).sum(axis=1) / (clips.sum(axis=1) * len(right))


if __name__ == "__main__":
    main()
