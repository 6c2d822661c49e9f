"""Isolated sign recognition from SignHiera features, extracted once; only the small model on top of them trains."""

from sign_dist.config.data import Data, SignHieraFeatures
from sign_dist.config.model import FeatureModel
from sign_dist.config.run import Run
from sign_dist.config.train import Train


def run() -> Run:
    return Run(
        task="islr",
        data=Data(root="data/synthetic", features=SignHieraFeatures()),
        model=FeatureModel(),
        train=Train(epochs=40, batch_size=32),
    )
