"""The run of `slt_stage1.py` in the domain `lesson`, stage 2: all layers learn, and the best of them by BLEU-4 is kept."""

from pathlib import Path

from sign_dist.config.run import Run
from sign_dist.config.source import load_run


def run() -> Run:
    return load_run(Path(__file__).with_name("slt_stage1.py")).with_values(
        {
            "train.start_from": "runs/slt_stage1",
            "train.epochs": 32,
            "train.optim.lr": 1e-3,
            "train.freeze.groups": "",
            "train.patience": 5,
            "train.keep_best": 5,
        }
    )
