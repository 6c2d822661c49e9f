"""Inception-I3D on WLASL's 2,000 signs, starting from Kinetics-400, as Li et al. trained it (arXiv 1910.11006); wants a GPU.

64 frames of 224 px. WLASL trained with binary cross-entropy of every frame; here it is cross-entropy of the clip. The
published weights of this step are `sign-dist weights fetch wlasl2000_i3d`, and what follows is `gsl_i3d.py`.
"""

from sign_dist.config.data import Data, FrameFeatures
from sign_dist.config.model import I3dModel
from sign_dist.config.run import Run
from sign_dist.config.train import Augment, Optim, Train


def run() -> Run:
    return Run(
        task="islr",
        data=Data(root="data/wlasl2000", features=FrameFeatures(num_frames=64, size_px=224)),
        model=I3dModel(weights="weights/rgb_imagenet.pt"),
        train=Train(
            epochs=50,
            batch_size=24,
            parts=8,
            precision="bf16",
            optim=Optim(lr=1e-4, weight_decay=1e-4),
            augment=Augment(mirror=0.5, speed=0.2, crop=0.1, drop=0.05, scale=0.15),
        ),
    )
