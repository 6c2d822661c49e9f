"""Isolated signs of the synthetic world, end to end from frames, for signers that were never seen; minutes on a processor."""

from pathlib import Path

from sign_dist.config.run import Run
from sign_dist.config.source import load_run


def run() -> Run:
    return load_run(Path(__file__).parents[1] / "islr_frames.py").with_values({"data.root": "data/synthetic_islr"})
