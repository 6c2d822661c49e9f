"""Gloss sequences of Phoenix-2014: temporal I3D over landmarks, its blocks filled with Kinetics kernels, in four stages.

    sign-dist weights fetch i3d_kinetics400
    sign-dist extract data/phoenix2014 every=1
    sign-dist train jobs/phoenix_teacher.py

What I3D does not have (the layers that read landmarks, the BiLSTM and the classifier) starts afresh, so it trains from the first
epoch; then mixed_5, mixed_4 and what is below follow, 12 or 13 epochs apart. `--strategy` puts one of the five others in place;
where one of them freezes layers, keep the fresh ones out of it, for example by `train.freeze.fraction=0
train.freeze.groups="mixed_3* mixed_4b mixed_4c mixed_4d mixed_4e conv_2*"` for all that is below mixed_4f. For other features
set `data.features.kind=signhiera`.
"""

from sign_dist.config.data import Data, LandmarkFeatures
from sign_dist.config.model import TemporalI3dModel
from sign_dist.config.run import Run
from sign_dist.config.train import Augment, Optim, Train, Unfreeze


def run() -> Run:
    return Run(
        task="cslr",
        data=Data(root="data/phoenix2014", features=LandmarkFeatures(every=1)),
        model=TemporalI3dModel(weights="weights/rgb_imagenet.pt"),
        train=Train(
            epochs=50,
            batch_size=16,
            optim=Optim(lr=1e-4),
            augment=Augment(mirror=0.0, speed=0.2, scale=0.1),
            unfreeze=Unfreeze(plan="classifier lstm stem modality_fusion; mixed_5*; mixed_4*; mixed_3* conv_2*"),
        ),
    )
