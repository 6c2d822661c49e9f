"""What `wlasl_i3d.py` is to real signs: the whole I3D learns one synthetic sign language of which there are many clips."""

from sign_dist.config.data import Data, FrameFeatures
from sign_dist.config.model import I3dModel
from sign_dist.config.run import Run
from sign_dist.config.train import Augment, Optim, Train


def run() -> Run:
    return Run(
        task="islr",
        data=Data(root="data/synthetic_language_a", features=FrameFeatures(num_frames=8, size_px=32)),
        # A few hundred steps are all that a processor has time for: with the published 0.01 statistics would lag behind.
        model=I3dModel(dropout=0.2, norm_momentum=0.1),
        train=Train(
            epochs=45,
            # A step of 32 clips takes twice as long as one of 8, and BatchNorm sees enough of them.
            batch_size=32,
            optim=Optim(lr=4e-4),
            label_smoothing=0,
            augment=Augment(mirror=0.2, speed=0.1, crop=0.1, drop=0, scale=0.15, colour=0.2),
            evaluate_every=5,
        ),
    )
