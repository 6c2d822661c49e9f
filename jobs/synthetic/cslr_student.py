"""Gloss sequences of the synthetic world by the small network that looks back only, without a teacher.

The corpus is that of `cslr_teacher.py`.
"""

from sign_dist.config.data import Data, LandmarkFeatures, Sampling
from sign_dist.config.model import CtcStudentModel
from sign_dist.config.run import Run
from sign_dist.config.train import Augment, Optim, Train


def run() -> Run:
    return Run(
        task="cslr",
        data=Data(root="data/synthetic_cslr", features=LandmarkFeatures(sampling=Sampling(fps=30.0, image_fps=20.0), every=1)),
        model=CtcStudentModel(width=128, time_stride=2),
        train=Train(
            epochs=30,
            batch_size=16,
            evaluate_every=5,
            optim=Optim(lr=2e-3),
            augment=Augment(speed=0.3, drop_hand=0.2),
        ),
    )
