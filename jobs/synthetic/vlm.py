"""A tiny InternVL, trained fully, that writes the gloss of a synthetic sign, for signers that were never seen; offline.

sign-dist synth corpus --signs 8 --signers 60 --clips 2
sign-dist prepare table corpus data/synthetic_vlm
sign-dist extract data/synthetic_vlm --features frames num_frames=8
"""

from sign_dist.config.data import Data, FrameFeatures
from sign_dist.config.model import VlmModel
from sign_dist.config.run import Run
from sign_dist.config.train import Augment, Optim, Train


def run() -> Run:
    return Run(
        task="vlm",
        data=Data(root="data/synthetic_vlm", features=FrameFeatures(num_frames=8, size_px=64)),
        model=VlmModel(width=128, depth=2, patch_px=16, prompt="Which sign?"),
        train=Train(
            epochs=40,
            batch_size=16,
            evaluate_every=4,
            optim=Optim(lr=1e-3, weight_decay=0.05),
            label_smoothing=0.0,
            augment=Augment(mirror=0.0, speed=0.2, crop=0.1, drop=0.0, scale=0.15, colour=0.2),
        ),
    )
