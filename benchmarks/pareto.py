"""A search with two objectives: word error rate and time per clip of the small network that looks back only; its front as bundles.

    python -m benchmarks.pareto FOLDER [--trials 16] [--epochs 14] [--teacher RUN] [NAME=VALUE ...]

FOLDER is one of `benchmarks/distill.py`, or becomes one: sentences of 32 signers as landmark tracks, and a teacher, without which
such a student learns nothing in minutes. NSGA-II proposes depth, width, steps per answer and recurrent layers of the student; a
kernel where an answer is given for every fourth frame, and a step size either way. Every trial trains to its end; then its word
error rate on val and the processor time of a clip are what it is judged by, both with the same decoding. Every point of the Pareto
front becomes a bundle, which is loaded, and timed again. What is there is not repeated.
"""

import argparse
import os
import platform
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from benchmarks import distill
from sign_dist.config.run import Run
from sign_dist.config.search import PREFIX, Search, divide
from sign_dist.config.source import apply, load_run, parse_override
from sign_dist.on_ray.cluster import connected
from sign_dist.on_ray.tuning import tune_run
from sign_dist.study.layout import StudyDir
from sign_dist.study.page import write_page
from sign_dist.study.pareto import front, hypervolume
from sign_dist.study.promote import TOLERANCE, promote_front
from sign_dist.study.rows import rows_of

NAMES = ("val/wer", "latency_ms")


def space(trial: Any) -> dict[str, Any]:
    """A kernel is asked for only where the student has halved its steps twice: there it decides how much a step sees."""
    trial.suggest_int("model.depth", 2, 5)
    trial.suggest_categorical("model.width", [32, 48, 64, 96, 128])
    trial.suggest_int("model.lstm_layers", 1, 2)
    trial.suggest_float("train.optim.lr", 5e-4, 5e-3, log=True)
    if trial.suggest_categorical("model.time_stride", [2, 4]) == 4:
        trial.suggest_int("model.kernel", 3, 9, step=2)
    return {}


def student(folder: Path, sentences: int, teacher: Path | None, epochs: int) -> Run:
    """The world and the teacher; the run that is searched around."""
    data = distill.draw(folder, sentences, signers=4)
    # The time is of what the word error rate is of.
    run = load_run(distill.JOBS / "cslr_student.py").with_values({"decode.beam": 1, "decode.beam_in_training": 1})
    for root in data.values():
        distill.extract(root, run)
    if teacher is None:
        teacher = folder / "runs" / "teacher_all"
        job = load_run(distill.JOBS / "cslr_teacher.py").with_values({"data.root": str(data["all"])})
        distill.trained(job.with_values({"train.epochs": 30, "train.evaluate_every": 7}), teacher)
    told = distill.taught(teacher, data["more"]) | {"train.distill.steps": "interpolate", "data.root": str(data["few"])}
    return run.with_values({**told, "train.epochs": epochs, "train.evaluate_every": max(1, epochs // 2), "train.keep_best": 1})


def report(study: StudyDir, minutes: float) -> None:
    """The table of docs/benchmarks.md, and whether every point is what the study says."""
    rows = rows_of(study)
    points = front(rows, NAMES)
    states = {state: sum(row.state == state for row in rows) for state in ("finished", "stopped", "failed")}
    print(f"\n{platform.machine()}, torch {torch.__version__}; {len(rows)} trials {states}, {minutes:.1f} minutes")
    conditional = sum("model.kernel" in row.settings for row in rows)
    print(f"{conditional} trials had a kernel to choose, {len(rows) - conditional} had not\n")
    worst = tuple(max(row.objectives[name] for row in rows if name in row.objectives) for name in NAMES)
    area = hypervolume([(row.objectives[NAMES[0]], row.objectives[NAMES[1]]) for row in points], (worst[0], worst[1]))
    print(f"front of {len(points)} points, {100 * area / (worst[0] * worst[1]):.1f} % of the area below the worst values\n")
    print("| trial | val WER % | ms a clip in the study | ms of the bundle | ratio | depth | width | LSTM | stride | kernel |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    done = promote_front(study)
    for each in done:
        flat = study.trial(each.row.id).run().flat()
        shape = " | ".join(str(flat[f"model.{name}"]) for name in ("depth", "width", "lstm_layers", "time_stride", "kernel"))
        wer = each.row.objectives["val/wer"]
        print(f"| {each.row.number} | {wer:.1f} | {each.in_study_ms:.2f} | {each.again_ms:.2f} | {each.ratio:.2f} | {shape} |")
    print(f"\n{sum(each.agrees for each in done)} of {len(done)} bundles within {TOLERANCE:.0%}; page: {write_page(study)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--sentences", type=int, default=960, help="of the whole world")
    parser.add_argument("--teacher", type=Path, help="a run or checkpoint that is there already")
    parser.add_argument("words", nargs="*", metavar="NAME=VALUE", help=f"settings of the run, or of the search with {PREFIX}")
    args = parser.parse_intermixed_args()
    of_search, of_run = divide(args.words)
    run = student(args.folder, args.sentences, args.teacher, args.epochs)
    run = run.with_values(dict(map(parse_override, of_run)))
    objectives = " ".join(NAMES)
    search = apply(Search(trials=args.trials, sampler="nsga2", startup=6, objectives=objectives, scheduler="none"), of_search)
    study = StudyDir(args.folder / "study")
    began = time.monotonic()
    with connected():
        tune_run(run, space, study.root, search=search)
    report(study, (time.monotonic() - began) / 60)


if __name__ == "__main__":
    main()
