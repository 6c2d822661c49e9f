"""What a search saves, survives and leaves behind, on a synthetic world of isolated signs.

    python benchmarks/search.py FOLDER [compare] [kills] [stopped] [--trials 40] [--epochs 9] [--stopped 200]

In FOLDER a world is drawn: 24 signs, 12 signers; frames of 32 pixels, a small network, trials of seconds. What is there already is
not repeated.

compare  the same proposals (the job's own settings, then by chance) with halving and without: epochs trained, the winner, minutes;
         then either winner against the job's own settings, on fresh seeds and the test signers.
kills    a study whose driver and Ray are killed at five seeded moments: trials that ended, twice-told or lost ones.
stopped  trials of three epochs until so many were stopped: what is left of actors, placement groups and temporary folders.
"""

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import optuna
import psutil
import ray
from ray import tune
from ray._private.state import actors
from ray.util import placement_group_table

from sign_dist.config.data import FrameFeatures
from sign_dist.config.run import Run
from sign_dist.config.search import Search
from sign_dist.config.source import load_run
from sign_dist.data.layout import DatasetDir, write_json
from sign_dist.data.prepare import prepare
from sign_dist.features.blocks import compute
from sign_dist.features.encode import build_encoder
from sign_dist.on_ray.cluster import connected
from sign_dist.on_ray.confirm import confirm_study
from sign_dist.on_ray.extraction import find_todo
from sign_dist.on_ray.trial_records import artifacts_of
from sign_dist.on_ray.tuning import tune_run
from sign_dist.synthetic.corpus import write_corpus

JOBS = Path(__file__).resolve().parents[1] / "jobs"
SPACE_FILE = """
from ray import tune


def space():
    return {"train.optim.lr": tune.loguniform(1e-4, 3e-2), "model.dropout": tune.uniform(0.0, 0.5)}
"""


def space() -> dict[str, Any]:
    """Wide enough that most of it is bad."""
    return {
        "train.optim.lr": tune.loguniform(1e-4, 3e-2),
        "train.optim.weight_decay": tune.loguniform(1e-3, 0.3),
        "train.batch_size": tune.choice([8, 16, 32]),
        "train.label_smoothing": tune.uniform(0.0, 0.3),
        "model.dropout": tune.uniform(0.0, 0.5),
        "model.width": tune.choice([12, 24, 48]),
    }


def job(folder: Path, epochs: int) -> Run:
    """The world, drawn and prepared, and the run around which is searched."""
    data = folder / "data"
    run = load_run(JOBS / "islr_frames.py").with_values(
        {"data.root": str(data), "data.features": FrameFeatures(num_frames=8, size_px=32), "train.epochs": epochs}
    )
    if not (data / "dataset.json").exists():
        write_corpus(folder / "world", num_signs=24, num_signers=12, clips_per_sign=2)
        prepare("table", folder / "world", data)
    todo = find_todo(DatasetDir(data), run.data.features)
    for block in todo.blocks:
        compute(block, todo.store, run.data.features, build_encoder(run.data.features, todo.files))
    return run


def compare(folder: Path, run: Run, trials: int) -> None:
    found: dict[str, Any] = {}
    for scheduler in ("asha", "none"):
        root, begun = folder / f"study_{scheduler}", time.monotonic()
        search = Search(trials=trials, sampler="random", scheduler=scheduler, seed=1)
        best = tune_run(run, space(), root, search=search)
        facts = json.loads((root / "study.json").read_text(encoding="utf-8"))
        found[scheduler] = best
        print(
            f"{scheduler}: {best['num_trials']} trials, {best['epochs_trained']} of {best['epochs_without_stopping']} epochs, "
            f"{facts['seconds'] / 60:.1f} min, best {best['value']:.4f} of trial {best['trial']} "
            f"({time.monotonic() - begun:.0f} s now)",
            flush=True,
        )
    saved = 1 - found["asha"]["epochs_trained"] / found["none"]["epochs_trained"]
    ends = json.loads((folder / "study_none" / "study.json").read_text(encoding="utf-8"))["trials"]
    value = next(row["value"] for row in ends if row["id"] == found["asha"]["trial"].removeprefix("trial_"))
    rank = 1 + sum(row["value"] > value for row in ends)
    same = found["asha"]["trial"] == found["none"]["trial"]
    print(
        f"halving saved {saved:.0%} of the epochs; the winner is {'the same' if same else 'another'}: "
        f"trained to the end without halving it has {value:.4f}, place {rank} of {len(ends)}",
        flush=True,
    )
    for scheduler in found:
        told = confirm_study(folder / f"study_{scheduler}", top=1, seeds=3)
        print(f"{scheduler}: {told['verdict']} {json.dumps(told['test'])}", flush=True)


def kills(folder: Path, run: Run, trials: int = 20) -> None:
    """The study is a command in a process of its own; its Ray dies with it, as when a machine goes down."""
    root, words = folder / "study_killed", ["--trials", str(trials), "--seed", "1"]
    write_json(folder / "job.json", run.model_dump(mode="json"))
    (folder / "space.py").write_text(SPACE_FILE, encoding="utf-8")
    command = [sys.executable, "-m", "sign_dist", "tune", str(folder / "job.json"), str(folder / "space.py"), *words]
    rng = random.Random(0)
    for number in range(5):
        goal, moment = _epochs(root) + rng.randint(1, 6), rng.uniform(0, 2)
        with (folder / "killed.log").open("ab") as log:
            process = subprocess.Popen([*command, "--out", str(root)], stdout=log, stderr=log)
        while process.poll() is None and _epochs(root) < goal:
            time.sleep(0.1)
        time.sleep(moment)
        if process.poll() is not None:
            print(f"kill {number}: the study had ended before epoch {goal}", flush=True)
            break
        for each in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        process.wait()
        print(f"kill {number}: {moment:.1f} s after epoch {goal}; {_epochs(root)} epochs of trials so far", flush=True)
    subprocess.run([*command, "--out", str(root)], check=True)
    facts = json.loads((root / "study.json").read_text(encoding="utf-8"))
    stored = optuna.load_study(study_name=facts["study_name"], storage=facts["storage"])
    ended = [trial.number for trial in stored.trials if trial.state.is_finished()]
    states = sorted(row["state"] for row in facts["trials"])
    print(
        f"killed study: {len(facts['trials'])} rows and {len(ended)} ended trials of {trials}; "
        f"{len(stored.trials) - len(ended)} not ended; { ({state: states.count(state) for state in set(states)}) }",
        flush=True,
    )


def _epochs(root: Path) -> int:
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in root.glob("trial_*/metrics.jsonl"))


def stopped(folder: Path, run: Run, want: int) -> None:
    small = run.with_values({"train.epochs": 3, "data.share": 0.2, "model.width": 4, "model.depth": 1})
    before = leftovers()
    begun = time.monotonic()
    root = folder / "study_stopped"
    search = Search(trials=int(want * 1.5), sampler="random", scheduler="asha", reduction=4, seed=1)
    tune_run(small, space() | {"model.width": 4}, root, search=search)
    seconds = time.monotonic() - begun
    rows = json.loads((root / "study.json").read_text(encoding="utf-8"))["trials"]
    count = sum(row["state"] == "stopped" for row in rows)
    time.sleep(5)
    after = leftovers()
    print(f"{count} of {len(rows)} trials were stopped in {seconds / 60:.1f} min; left before {before}, after {after}", flush=True)


def leftovers() -> dict[str, int]:
    """What is alive in the cluster, and what lies in temporary folders."""
    return {
        "actors": sum(actor["State"] not in ("DEAD", 4) for actor in actors().values()),
        "placement_groups": sum(group["state"] != "REMOVED" for group in placement_group_table().values()),
        "artifact_folders": len(list(artifacts_of())),
        "temporary_folders": len(list(Path(tempfile.gettempdir()).glob("sign_dist_*"))),
        "cpus_taken": int(ray.cluster_resources().get("CPU", 0) - ray.available_resources().get("CPU", 0)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("parts", nargs="*", default=[], help="compare, kills, stopped; all without any")
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--stopped", type=int, default=200)
    given = parser.parse_args()
    folder = given.folder.absolute()
    parts = given.parts or ["compare", "kills", "stopped"]
    run = job(folder, given.epochs)
    if "kills" in parts:
        kills(folder, run)
    with connected("local"):
        if "compare" in parts:
            compare(folder, run, given.trials)
        if "stopped" in parts:
            stopped(folder, run, given.stopped)


if __name__ == "__main__":
    main()
