"""How2Sign, stage 1: the last 20 % of SignHiera's blocks learn the new signers and scenes; SONAR behind them stands still.

    sign-dist extract data/how2sign --features frames num_frames=0 size_px=224 crop=face
    sign-dist train jobs/how2sign_stage1.py
    sign-dist weights part runs/how2sign_stage1 weights/how2sign_signhiera.safetensors

End to end from stored frames, so it wants a GPU; weights and dataset are those of `how2sign_zero_shot.py`. What comes out is an
encoder, with which stage 2 extracts its features.
"""

from pathlib import Path

from sign_dist.config.data import FrameFeatures
from sign_dist.config.model import FrontEncoder
from sign_dist.config.run import Run
from sign_dist.config.source import load_run
from sign_dist.config.train import Augment, Freeze, Optim, Train


def run() -> Run:
    return load_run(Path(__file__).with_name("how2sign_zero_shot.py")).with_values(
        {
            "data.features": FrameFeatures(num_frames=0, size_px=224, crop="face"),
            "model.encoder": FrontEncoder(
                preset="base_128x224", weights="weights/dm_70h_ub_signhiera.pth", fps=25, train_fraction=0.2
            ),
            "train": Train(
                epochs=15,
                batch_size=32,
                parts=32,
                precision="bf16",
                optim=Optim(lr=1e-5, weight_decay=0.01, warmup_steps=1000, clip_norm=1.0),
                freeze=Freeze(groups="text_* sonar_*"),
                augment=Augment(mirror=0.5, speed=0.1, drop=0.0, scale=0.1),
                evaluate_steps=500,
                patience=5,
                keep_best=5,
            ),
            "decode.beam_in_training": 1,
        }
    )
