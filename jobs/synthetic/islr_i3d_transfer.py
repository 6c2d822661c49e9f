"""What `gsl_i3d.py` is to real signs: another synthetic sign language, with three clips of each sign.

As it stands it starts from random weights. With `train.start_from=RUN` it starts from `islr_i3d_pretrain.py`'s, the head
replaced; what trains then is said by `--strategy`. `recipes/synthetic_transfer.py` has the settings that were compared.
"""

from pathlib import Path

from sign_dist.config.run import Run
from sign_dist.config.source import load_run


def run() -> Run:
    return load_run(Path(__file__).with_name("islr_i3d_pretrain.py")).with_values(
        {"data.root": "data/synthetic_language_b", "train.epochs": 60, "train.batch_size": 24, "train.evaluate_every": 5}
    )
