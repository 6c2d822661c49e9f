"""The tiny SignHiera trained end to end from frames: the recipe of the large one, at a size that a processor can bear."""

from sign_dist.config.data import Data, FrameFeatures
from sign_dist.config.model import SignHieraModel
from sign_dist.config.run import Run
from sign_dist.config.train import Augment, Optim, Train


def run() -> Run:
    return Run(
        task="islr",
        data=Data(root="data/synthetic", features=FrameFeatures(num_frames=16, size_px=64)),
        model=SignHieraModel(),
        train=Train(epochs=60, batch_size=16, optim=Optim(lr=5e-4), augment=Augment(mirror=0.3)),
    )
