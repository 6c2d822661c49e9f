"""The run of `slt_pretrain.py` asked in the domain `lesson`, by signers and about things that it never saw; nothing is trained."""

from pathlib import Path

from sign_dist.config.run import Run
from sign_dist.config.source import load_run


def run() -> Run:
    return load_run(Path(__file__).with_name("slt_pretrain.py")).with_values(
        {
            "data.root": "data/synthetic_slt_lesson",
            "model.glosses": "",
            "train.start_from": "runs/slt_pretrain",
            "train.epochs": 0,
            "decode.beam_in_training": 5,
        }
    )
