"""I3D from one synthetic sign language to another with few clips of each sign: from scratch against the strategies.

    OMP_NUM_THREADS=1 python benchmarks/transfer.py [--out runs/transfer] [--seeds 0 1] [--only scratch full]

One process, one thread, no Ray. The languages are those of `jobs/recipes/synthetic_transfer.py`: other signs, other signers. The
run that all of them start from is trained once; each of the others once per seed. Done runs are not done again. Prints a table:
top-1 over the clips of unseen signers, mean of the seeds, with a bootstrap interval over clips; the paired difference to `scratch`.
"""

import argparse
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from sign_dist.config.data import Features, FrameFeatures
from sign_dist.config.recipe import ExtractStage, PrepareStage, SynthStage, TrainStage, load_recipe, run_of
from sign_dist.config.run import Run
from sign_dist.config.strategies import strategy_words
from sign_dist.data.layout import DatasetDir, write_json
from sign_dist.data.prepare import prepare
from sign_dist.data.vocab import Vocab
from sign_dist.features.blocks import compute
from sign_dist.features.encode import build_encoder
from sign_dist.metrics.intervals import bootstrap
from sign_dist.metrics.significance import paired_bootstrap
from sign_dist.metrics.tally import of_means
from sign_dist.models.build import build_model
from sign_dist.on_ray.extraction import find_todo
from sign_dist.on_ray.training import begin, finish, fit_run
from sign_dist.synthetic.like import Order, write_order
from sign_dist.tasks.build import build_task
from sign_dist.training.checkpoint import read_weights
from sign_dist.training.data import Clips
from sign_dist.training.evaluate import evaluate
from sign_dist.training.run_dir import RunDir
from sign_dist.training.strategy import OneProcess

RECIPE = Path(__file__).resolve().parents[1] / "jobs" / "recipes" / "synthetic_transfer.py"

# name -> (strategy, what it starts from, its settings). The rates were set beforehand and not searched: that of pretraining where
# all layers train, ten times as much for the head alone. All have the same number of epochs.
WAYS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "scratch": ("", "", {"train.optim.lr": 3e-4}),
    "feature-extraction": ("feature-extraction", "pretrain", {"train.optim.lr": 3e-3}),
    "top-layers": ("top-layers", "pretrain", {"train.optim.lr": 1e-3}),
    "progressive": ("progressive", "pretrain", {"train.optim.lr": 3e-4}),
    "full": ("full", "pretrain", {"train.optim.lr": 3e-4}),
    # After the head alone has learned: the second of the two steps that guides to fine-tuning call progressive.
    "from-checkpoint": ("from-checkpoint", "feature-extraction", {"train.optim.lr": 1e-4}),
}


def make_dataset(root: Path, corpus: SynthStage, dataset: PrepareStage, features: Features) -> DatasetDir:
    """A synthetic corpus, prepared, with frames; what is there is left as it is."""
    made = DatasetDir(root / "dataset")
    if not made.facts_file.exists():
        write_order(root / "corpus", Order(**corpus.model_dump(exclude={"kind"})))
        prepare(dataset.reader, root / "corpus", made.root, split=dataset.split)
    todo = find_todo(made, features)
    encoder = build_encoder(features, todo.files)
    for block in todo.blocks:
        compute(block, todo.store, features, encoder)
    return made


def train(run: Run, root: Path) -> float:
    """Train in this process; answers the seconds of it, of an earlier time if it is done."""
    run_dir, run, _ = begin(run, root)
    if not run_dir.done_file.exists():
        started = time.process_time()
        fit_run(run, run_dir, OneProcess())
        write_json(root / "seconds.json", time.process_time() - started)
        finish(run_dir)
    return json.loads((root / "seconds.json").read_text())


def hits(root: Path, split: str) -> list[float]:
    """1 for each clip of a split that the run's chosen checkpoint has right, in the order of the manifest."""
    run_dir = RunDir(root)
    run = run_dir.run()
    vocab = Vocab.read(DatasetDir(Path(run.data.root)).vocab_file)
    clips = Clips.of(run, split)
    model = build_model(run.model, num_classes=len(vocab), feature_shape=clips[0].features.shape[1:])
    model.load_state_dict(read_weights(run_dir.chosen()))
    found = evaluate(model, build_task(run, vocab), clips, batch_size=8).predictions
    return [float(clips[i].sample.gloss == prediction.hypothesis) for i, prediction in enumerate(found)]


def way(name: str, job: str, dataset: DatasetDir, features: Features, start: Path, values: Mapping[str, Any]) -> Run:
    """The run of a strategy. Its own rate and epochs give way to those of the comparison."""
    strategy, _, settings = WAYS[name]
    given = [f"{setting}={json.dumps(value)}" for setting, value in (settings | dict(values)).items()]
    own = [word.partition("=")[0] for word in strategy_words(strategy, given)]
    epochs = {"train.epochs": run_of(TrainStage(job=job)).train.epochs} if "train.epochs" in own else {}
    stage = TrainStage(
        job=job, strategy=strategy, start_from=str(start) if strategy else "", values=epochs | settings | dict(values)
    )
    return run_of(stage, reads=(str(dataset.root), features, ""))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/transfer"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--only", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--split", default="test")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings of every run on the second language")
    args = parser.parse_args()
    torch.set_num_threads(1)
    stages = load_recipe(RECIPE).stages
    (corpus_a, dataset_a, frames, pretrain), (corpus_b, dataset_b, few) = (
        [stages[name] for name in names]
        for names in (("corpus_a", "dataset_a", "frames_a", "pretrain"), ("corpus_b", "dataset_b", "scratch"))
    )
    assert isinstance(corpus_a, SynthStage)
    assert isinstance(corpus_b, SynthStage)
    assert isinstance(dataset_a, PrepareStage)
    assert isinstance(dataset_b, PrepareStage)
    assert isinstance(frames, ExtractStage)
    assert isinstance(frames.features, FrameFeatures)
    assert isinstance(pretrain, TrainStage)
    assert isinstance(few, TrainStage)

    started = time.process_time()
    a = make_dataset(args.out / "a", corpus_a, dataset_a, frames.features)
    b = make_dataset(args.out / "b", corpus_b, dataset_b, frames.features)
    print(f"data: {time.process_time() - started:.0f} s; {a.facts()['counts']} and {b.facts()['counts']} clips")
    begun = args.out / "pretrain"
    seconds = train(run_of(TrainStage(job=pretrain.job), reads=(str(a.root), frames.features, "")), begun)
    first = hits(begun, "test")
    print(f"pretrain: top-1 {np.mean(first):.3f} on {len(first)} clips of its own test split, {seconds:.0f} s", flush=True)

    found: dict[str, list[list[float]]] = {}
    took: dict[str, list[float]] = {}
    values = {word.partition("=")[0]: json.loads(word.partition("=")[2]) for word in args.set}
    for seed in args.seeds:
        for name in args.only:
            start = begun if WAYS[name][1] == "pretrain" else args.out / f"{WAYS[name][1]}-{seed}"
            run = way(name, few.job, b, frames.features, start, values | {"train.seed": seed})
            root = args.out / f"{name}-{seed}"
            took.setdefault(name, []).append(train(run, root))
            found.setdefault(name, []).append(hits(root, args.split))
            print(f"seed {seed} {name}: top-1 {np.mean(found[name][-1]):.3f}, {took[name][-1]:.0f} s", flush=True)
    show(found, took)


def show(found: Mapping[str, Sequence[Sequence[float]]], took: Mapping[str, Sequence[float]]) -> None:
    """The table, in Markdown."""
    per_clip = {name: np.mean(np.array(rows), axis=0).tolist() for name, rows in found.items()}
    base = per_clip.get("scratch")
    print("\n| from | top-1 | 95 % over clips | seeds | against scratch, 95 % | s a run |\n|---|---|---|---|---|---|")
    for name, values in per_clip.items():
        interval = bootstrap(values)
        gain = "-"
        if base is not None and name != "scratch":
            test = paired_bootstrap(of_means(base), of_means(values))
            gain = f"{test.difference:+.3f} ({test.low:+.3f} to {test.high:+.3f})"
        seeds = ", ".join(f"{np.mean(row):.3f}" for row in found[name])
        row = (
            name,
            f"{np.mean(values):.3f}",
            f"{interval.low:.3f} to {interval.high:.3f}",
            seeds,
            gain,
            f"{np.mean(took[name]):.0f}",
        )
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
