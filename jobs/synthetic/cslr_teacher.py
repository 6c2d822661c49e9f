"""Gloss sequences of the synthetic world from landmark tracks, for signers that were never seen: the head of the VAC family.

    sign-dist synth world --sentences 960 --signers 32 --landmarks
    sign-dist prepare table world data/synthetic_cslr glosses.labels=sequence sampling.image_fps=20
    sign-dist extract data/synthetic_cslr every=1 sampling.image_fps=20
    sign-dist train jobs/synthetic/cslr_teacher.py

Clips are changed less than by default: so many signers differ enough, and stronger changes only make it slower.
"""

from sign_dist.config.data import Data, LandmarkFeatures, Sampling
from sign_dist.config.model import CslrHeadModel
from sign_dist.config.run import Run
from sign_dist.config.train import Augment, Train


def run() -> Run:
    return Run(
        task="cslr",
        data=Data(root="data/synthetic_cslr", features=LandmarkFeatures(sampling=Sampling(fps=30.0, image_fps=20.0), every=1)),
        model=CslrHeadModel(hidden=256),
        train=Train(
            epochs=30,
            batch_size=8,
            by_length=64,
            ema=0.98,
            evaluate_every=3,
            augment=Augment(
                speed=0.2,
                drop=0.03,
                rotate_deg=5,
                scale=0.1,
                shear=0.05,
                shift=0.05,
                hand_rotate_deg=5,
                hand_scale=0.08,
                hand_shift=0.03,
                drop_hand=0.1,
                drop_face=0,
            ),
        ),
    )
