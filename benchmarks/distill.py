"""A student with a teacher against the same student without: unseen signers, several seeds, a paired test; and its size and speed.

    python benchmarks/distill.py FOLDER [--seeds 3] [--signers 4] [--teacher RUN] [--teacher-labels all|few] [NAME=VALUE ...]

In FOLDER a synthetic world is drawn: sentences of 32 signers as landmark tracks. The student has labels of a few signers only. One
student learns from them alone, one from them and from what the teacher says of all training clips, in as many steps. The teacher
sees whole clips. It learned from the labels of all training signers, or with `--teacher-labels few` from no more than the student
has. All are scored on the signers of the test split. Runs that are there already are not repeated. One process and one thread,
without Ray. A teacher that sees whole clips says a gloss long before its end, or after it, so a student that looks back only is
told by `sequence` which glosses; `features` draw its convolutions to the teacher's, which see little more than the moment.

The test is approximate randomisation over sentences; a sentence's errors are summed over the seeds, so that it counts once.
"""

import argparse
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from sign_dist.config.data import Glosses, Sampling
from sign_dist.config.run import Run
from sign_dist.config.source import load_run, parse_override
from sign_dist.data.layout import DatasetDir
from sign_dist.data.prepare import prepare
from sign_dist.data.vocab import Vocab
from sign_dist.features.blocks import compute
from sign_dist.features.encode import build_encoder
from sign_dist.metrics.significance import Comparison, approximate_randomisation
from sign_dist.metrics.tally import of_word_errors
from sign_dist.metrics.wer import WordErrors, sentence_errors
from sign_dist.on_ray.extraction import find_todo
from sign_dist.on_ray.training import begin, finish, fit_run
from sign_dist.synthetic.like import Order, write_order
from sign_dist.tasks.build import build_task
from sign_dist.training.data import Clips
from sign_dist.training.distillation import count_parameters
from sign_dist.training.evaluate import evaluate
from sign_dist.training.run_dir import RunDir, progress_of
from sign_dist.training.start import trained_model
from sign_dist.training.strategy import OneProcess

JOBS = Path(__file__).resolve().parents[1] / "jobs" / "synthetic"


def draw(folder: Path, sentences: int, signers: int) -> dict[str, Path]:
    """Datasets that share val and test: training clips `few` with labels, `more` whose labels nobody reads, and `all` of them."""
    world = folder / "world"
    print(write_order(world, Order(sentences=sentences, signers=32, landmarks=True)), flush=True)
    header, *rows = (world / "labels.tsv").read_text(encoding="utf-8").splitlines()
    few = [f"signer{i:02d}_" for i in range(signers)]
    has_label = [row.startswith(tuple(few)) for row in rows]
    kept = {
        "few": [row for row, has in zip(rows, has_label, strict=True) if has or row.split("\t")[4] != "train"],
        "more": [row for row, has in zip(rows, has_label, strict=True) if not has],
        "all": rows,
    }
    found: dict[str, Path] = {}
    for name, lines in kept.items():
        root = folder / f"data_{name}"
        if not (root / "dataset.json").exists():
            (world / f"{name}.tsv").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
            prepare("table", world / f"{name}.tsv", root, glosses=Glosses(labels="sequence"), sampling=Sampling(image_fps=20))
        found[name] = root
    return found


def taught(teacher: Path, unlabelled: Path) -> dict[str, Any]:
    """How a student listens to the teacher, on its own clips and on those whose labels nobody reads."""
    told = {"train.distill.kinds": "features:20 logits:0.5 sequence", "train.distill.layers": "norm=conv1d"}
    return told | {"train.distill.teacher": str(teacher), "train.distill.unlabelled": str(unlabelled)}


def extract(root: Path, run: Run) -> None:
    """The features that a run reads, in this process: tracks need no detector."""
    todo = find_todo(DatasetDir(root), run.data.features)
    for block in todo.blocks:
        compute(block, todo.store, run.data.features, build_encoder(run.data.features, todo.files))


def trained(run: Run, root: Path) -> tuple[Run, RunDir]:
    """A run to its end, in this process."""
    began = time.process_time()
    run_dir, run, _ = begin(run, root)
    if not run_dir.done_file.exists():
        fit_run(run, run_dir, OneProcess())
        finish(run_dir)
        last = run_dir.metrics()[-1]
        spent = time.process_time() - began
        print(f"{root.name}: {last['step']} steps, val WER {last['val/wer']:.1f}, {spent:.0f} s of processor time", flush=True)
    return run, run_dir


def model_of(run: Run, run_dir: RunDir, clips: Clips) -> torch.nn.Module:
    """The model that a run stands for."""
    return trained_model(run, run_dir.chosen(), clips[0].features.shape[1:])


def errors_of(run: Run, run_dir: RunDir, split: str = "test") -> list[WordErrors]:
    """Word errors of each sentence of a split, decoded with beam search."""
    clips = Clips.of(run, split)
    result = evaluate(model_of(run, run_dir, clips), build_task(run, _vocab(run)), clips, batch_size=16)
    return sentence_errors([s.gloss for s in clips.samples], [p.hypothesis for p in result.predictions])


@torch.inference_mode()
def milliseconds(run: Run, run_dir: RunDir, repeat: int = 2) -> tuple[float, float]:
    """Processor time of a clip from landmarks to glosses, one clip at a time: median and 95th percentile over the test clips."""
    clips = Clips.of(run, "test")
    model, task = model_of(run, run_dir, clips), build_task(run, _vocab(run))
    taken: list[float] = []
    for i in range(len(clips)):
        batch = task.collate([clips[i]])
        spent: list[float] = []
        for _ in range(repeat):
            began = time.process_time()
            _, outputs = task.losses(model, batch)
            task.decode(outputs, batch, 1)
            spent.append(time.process_time() - began)
        taken.append(1e3 * min(spent))
    return float(np.median(taken)), float(np.quantile(taken, 0.95))


def compared(first: Sequence[Sequence[WordErrors]], second: Sequence[Sequence[WordErrors]]) -> Comparison:
    """Two kinds of student, each of several seeds, on the same sentences."""
    tallies = [of_word_errors([sum(same, WordErrors()) for same in zip(*runs, strict=True)]) for runs in (first, second)]
    return approximate_randomisation(*tallies, resamples=10_000)


def percent(errors: Sequence[WordErrors]) -> float:
    return 100 * of_word_errors(errors).value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sentences", type=int, default=960, help="of the whole world")
    parser.add_argument("--signers", type=int, default=4, help="whose training clips have labels")
    parser.add_argument("--teacher", type=Path, help="a run or checkpoint that is there already")
    parser.add_argument("--teacher-labels", choices=["all", "few"], default="all", help="what the teacher learns from")
    parser.add_argument("--epochs", type=int, default=30, help="of the teacher, counted in all training clips")
    parser.add_argument("--student-epochs", type=int, default=30, help="of the students, counted likewise")
    parser.add_argument("--all-labels", type=int, default=0, help="seeds of a student that has no teacher but all labels")
    parser.add_argument("words", nargs="*", metavar="NAME=VALUE", help="settings of the students")
    args = parser.parse_intermixed_args()
    torch.set_num_threads(1)
    data = draw(args.folder, args.sentences, args.signers)
    base = load_run(JOBS / "cslr_student.py").with_values({"data.root": str(data["few"])})
    for root in data.values():
        extract(root, base)
    sizes = {name: len(Clips.of(base.with_values({"data.root": str(root)}), "train")) for name, root in data.items()}

    def epochs(of: str, passes: int) -> dict[str, int]:
        """So many passes over all clips, as epochs of fewer; evaluated four times, and the best of them stands for the run."""
        count = max(1, round(passes * sizes["all"] / sizes[of]))
        return {"train.epochs": count, "train.evaluate_every": max(1, count // 4)}

    runs: dict[str, list[tuple[Run, RunDir]]] = {}
    teacher = args.teacher or args.folder / "runs" / f"teacher_{args.teacher_labels}"
    if not args.teacher:
        job = load_run(JOBS / "cslr_teacher.py").with_values({"data.root": str(data[args.teacher_labels])})
        runs["teacher"] = [trained(job.with_values(epochs(args.teacher_labels, args.epochs)), teacher)]
    told = taught(teacher, data["more"])
    given = dict(parse_override(word) for word in args.words)
    shared = {name: value for name, value in given.items() if not name.startswith("train.distill.")}
    for seed in range(args.seeds):
        # A student with a teacher goes through all clips in an epoch.
        for kind, of, values in (("without", "few", {}), ("with", "all", told)):
            length = epochs(of, args.student_epochs)
            run = base.with_values({**values, **(given if values else shared), **length, "train.seed": seed})
            runs.setdefault(kind, []).append(trained(run, args.folder / "runs" / f"{kind}_{seed}"))
    for seed in range(args.all_labels):
        run = base.with_values({**shared, **epochs("all", args.student_epochs), "data.root": str(data["all"]), "train.seed": seed})
        runs.setdefault("with all labels", []).append(trained(run, args.folder / "runs" / f"labelled_{seed}"))
    if args.teacher:
        runs["teacher"] = [of_checkpoint(args.teacher, base)]
    report(runs, sizes)


def of_checkpoint(path: Path, base: Run) -> tuple[Run, RunDir]:
    """A run, or the one that a checkpoint lies in, read on the clips of this benchmark."""
    run_dir = RunDir(path if (path / "run.json").exists() else path.parent)
    return run_dir.run().with_values({"data.root": base.data.root}), run_dir


def report(runs: dict[str, list[tuple[Run, RunDir]]], sizes: dict[str, int]) -> None:
    """The table of docs/benchmarks.md."""
    print(f"\n{platform.machine()}, torch {torch.__version__}; {sizes['few']} clips with labels, {sizes['more']} without\n")
    print("| | test WER % (each seed) | steps | parameters | MB | ms a clip (median, 95 %) |\n|---|---|---|---|---|---|")
    errors: dict[str, list[list[WordErrors]]] = {}
    for kind, made in runs.items():
        errors[kind] = [errors_of(run, run_dir) for run, run_dir in made]
        each = [percent(e) for e in errors[kind]]
        run, run_dir = made[0]
        count = count_parameters(model_of(run, run_dir, Clips.of(run, "test")))
        median, high = milliseconds(run, run_dir)
        steps = progress_of(run_dir.checkpoints()[-1])["step"]
        seeds = ", ".join(f"{value:.1f}" for value in each)
        print(f"| {kind} | {np.mean(each):.1f} ({seeds}) | {steps} | {count:,} | {4e-6 * count:.1f} | {median:.1f}, {high:.1f} |")
    found = compared(errors["without"], errors["with"])
    change = f"{100 * found.first:.1f} -> {100 * found.second:.1f}"
    print(f"\nwith against without: {change}, p = {found.p:.4f} ({found.method}, {found.n} sentences)")
    for seed, (one, other) in enumerate(zip(errors["without"], errors["with"], strict=True)):
        print(f"seed {seed}: p = {compared([one], [other]).p:.4f}")


def _vocab(run: Run) -> Vocab:
    return Vocab.read(DatasetDir(Path(run.data.root)).vocab_file)


if __name__ == "__main__":
    main()
