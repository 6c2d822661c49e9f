"""Gloss sequences of the synthetic world by a temporal I3D over landmark tracks, for signers that were never seen.

sign-dist synth world --sentences 960 --signers 32 --landmarks
sign-dist prepare table world data/synthetic_cslr glosses.labels=sequence sampling.image_fps=20
sign-dist extract data/synthetic_cslr every=1 sampling.image_fps=20
sign-dist train jobs/synthetic/cslr_teacher.py
"""

from sign_dist.config.data import Data, LandmarkFeatures, Sampling
from sign_dist.config.model import TemporalI3dModel
from sign_dist.config.run import Run
from sign_dist.config.train import Augment, Optim, Train


def run() -> Run:
    return Run(
        task="cslr",
        data=Data(root="data/synthetic_cslr", features=LandmarkFeatures(sampling=Sampling(fps=30.0, image_fps=20.0), every=1)),
        model=TemporalI3dModel(channels=0.25, time_stride=2),
        train=Train(
            epochs=30,
            batch_size=16,
            evaluate_every=5,
            optim=Optim(lr=2e-3),
            augment=Augment(speed=0.3, drop_hand=0.2),
        ),
    )
