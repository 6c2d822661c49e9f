"""What `wlasl_i3d.py` is to real signs: the whole I3D learns one synthetic sign language of which there are many clips."""

from sign_dist.config.data import Data, FrameFeatures
from sign_dist.config.model import I3dModel
from sign_dist.config.run import Run
from sign_dist.config.train import Augment, Optim, Train


def run() -> Run:
    return Run(
        task="islr",
        data=Data(root="data/synthetic_language_a", features=FrameFeatures(num_frames=8, size_px=32)),
        model=I3dModel(dropout=0.3),
        train=Train(
            epochs=35,
            batch_size=8,
            optim=Optim(lr=3e-4),
            label_smoothing=0,
            # A few hundred steps are all that a processor has time for: too few to learn anything against changed clips.
            augment=Augment(mirror=0, speed=0, crop=0, drop=0, scale=0, colour=0),
            evaluate_every=5,
        ),
    )
