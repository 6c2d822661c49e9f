"""Isolated sign recognition end to end from frames, with a small network that a laptop trains in a minute or two."""

from sign_dist.config.data import Data, FrameFeatures
from sign_dist.config.model import VideoCnnModel
from sign_dist.config.run import Run
from sign_dist.config.train import Augment, Train


def run() -> Run:
    return Run(
        task="islr",
        data=Data(root="data/synthetic", features=FrameFeatures()),
        model=VideoCnnModel(),
        train=Train(epochs=30, augment=Augment(mirror=0.3, speed=0.3, crop=0.2, drop=0.05, scale=0.15)),
    )
