"""Studies that were never run: directories as a search leaves them, from a formula and a seed."""

import random
from pathlib import Path

from sign_dist.config.data import Data, LandmarkFeatures
from sign_dist.config.model import CtcStudentModel
from sign_dist.config.run import Run
from sign_dist.config.train import Train
from sign_dist.data.layout import write_json
from sign_dist.study.layout import StudyDir
from sign_dist.study.rows import note

EPOCHS = 8
SPACE = {
    "train.optim.lr": "LogUniform 0.0001 to 0.01",
    "model.width": "choice of [32, 64, 128]",
    "model.lstm_layers": "choice of [1, 2]",
    "model.kernel": "choice of [3, 5, 7], where the width is above 32",
}


def base_run() -> Run:
    data = Data(root="data/world", features=LandmarkFeatures())
    return Run(task="cslr", data=data, model=CtcStudentModel(), train=Train(epochs=EPOCHS, seed=3))


def write_study(root: Path, trials: int = 24, *, objectives: bool = False, seed: int = 0) -> StudyDir:
    """A study whose WER follows from its learning rate and width; every fourth trial was stopped, and one failed."""
    study, rng, run = StudyDir(root), random.Random(seed), base_run()
    facts = {"run": run.model_dump(mode="json"), "space": SPACE, "num_trials": trials, "storage": study.storage, "finished": False}
    write_json(study.study_file, facts)
    for number in range(trials):
        width = rng.choice([32, 64, 128])
        settings = {"train.optim.lr": 10 ** rng.uniform(-4, -2), "model.width": width, "model.lstm_layers": rng.choice([1, 2])}
        if width > 32:
            settings["model.kernel"] = rng.choice([3, 5, 7])
        trial = study.trial(f"{number:04d}")
        write_json(trial.run_file, run.with_values(settings).model_dump(mode="json"))
        wer = 20 + 900 / width + 12 * abs(settings["train.optim.lr"] - 2e-3) / 2e-3 + rng.random()
        stopped = number % 4 == 3
        epochs = 2 if stopped else EPOCHS
        lines = [
            {"epoch": epoch, "step": 10 * epoch, "val/wer": wer + 60 / epoch, "val/loss": 3 / epoch, "seconds": 1.5}
            for epoch in range(1, epochs + 1)
        ]
        trial.metrics_file.write_text("".join(f"{line}\n".replace("'", '"') for line in lines))
        state, reason = "finished", ""
        if stopped:
            state, reason = "stopped", "at epoch 2 not among the best third"
        elif number == 5:
            state, reason = "failed", "the process ran out of memory"
        note(trial, number=number, settings=settings, state=state, reason=reason, seconds=1.5 * epochs)
        if state == "finished":
            write_json(trial.done_file, {})
            if objectives:
                note(
                    trial,
                    objectives={"val/wer": lines[-1]["val/wer"], "latency_ms": width / 20 + rng.random(), "size_mb": width / 100},
                )
    return study
