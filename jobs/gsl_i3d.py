"""From WLASL to another sign language with fewer clips: I3D with WLASL's weights and a new head; wants a GPU.

As it stands all layers train, at a low rate. What else to try with the same job, by `--strategy`: `feature-extraction` (the head
alone, for very few clips), `progressive` (the head first, then more from top to bottom), `top-layers`. The weights expect BGR.
Where some glosses are WLASL's too, name a run or bundle in `train.start_from`: the rows of their head are carried over.
"""

from sign_dist.config.data import Data, FrameFeatures
from sign_dist.config.model import I3dModel
from sign_dist.config.run import Run
from sign_dist.config.train import Augment, Optim, Train


def run() -> Run:
    return Run(
        task="islr",
        data=Data(root="data/gsl", features=FrameFeatures(num_frames=64, size_px=224)),
        model=I3dModel(
            weights="weights/FINAL_nslt_2000_iters=5104_top1=32.48_top5=57.31_top10=66.31.pt",
            colours="bgr",
        ),
        train=Train(
            epochs=50,
            batch_size=16,
            parts=8,
            precision="bf16",
            class_weights="balanced",
            optim=Optim(lr=1e-4, layer_decay=0.9),
            augment=Augment(mirror=0.5, speed=0.2, crop=0.1, drop=0.05, scale=0.15),
            patience=8,
        ),
    )
