"""Isolated sign recognition from MediaPipe landmarks: the default, good on small data, trains on a laptop."""

from sign_dist.config.data import Data, LandmarkFeatures
from sign_dist.config.model import LandmarkModel
from sign_dist.config.run import Run
from sign_dist.config.train import Train


def run() -> Run:
    return Run(
        task="islr",
        data=Data(root="data/synthetic", features=LandmarkFeatures()),
        model=LandmarkModel(),
        train=Train(epochs=60, mixup=0.2),
    )
