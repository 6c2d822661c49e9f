"""The run of `slt_pretrain.py` in the domain `lesson`, stage 1: only what looks at the signer learns, at a low rate.

Of landmark tracks that is the projection and T5's encoder; of frames it would be the last blocks of SignHiera, as in
`how2sign_stage1.py`. The text decoder still knows the words of `daily` alone.
"""

from pathlib import Path

from sign_dist.config.run import Run
from sign_dist.config.source import load_run


def run() -> Run:
    return load_run(Path(__file__).with_name("slt_zero_shot.py")).with_values(
        {
            "train.epochs": 8,
            "train.optim.lr": 5e-4,
            "train.freeze.groups": "decoder_* embeddings",
            "decode.beam_in_training": 1,
        }
    )
