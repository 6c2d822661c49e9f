"""How2Sign, stage 2: SONAR's sign encoder and text decoder learn, from features that stage 1's SignHiera has made.

    sign-dist extract data/how2sign --features signhiera preset=base_128x224 crop=face \\
        weights=weights/how2sign_signhiera.safetensors
    sign-dist train jobs/how2sign_stage2.py
    sign-dist evaluate runs/how2sign_stage2 test

To keep the text decoder as it is, set `train.freeze.groups="text_*"`. The embeddings of SONAR's own text encoder, as
`model.target_embeddings`, add the loss that the released encoder was trained on.
"""

from pathlib import Path

from sign_dist.config.run import Run
from sign_dist.config.source import load_run
from sign_dist.config.train import Augment, Optim, Train


def run() -> Run:
    return load_run(Path(__file__).with_name("how2sign_zero_shot.py")).with_values(
        {
            "data.features.weights": "weights/how2sign_signhiera.safetensors",
            "train": Train(
                epochs=20,
                batch_size=32,
                parts=8,
                precision="bf16",
                label_smoothing=0.1,
                start_from="runs/how2sign_stage1",
                optim=Optim(lr=1e-4, weight_decay=0.01, warmup_steps=1000, clip_norm=1.0),
                augment=Augment(drop=0.05),
                evaluate_steps=500,
                patience=5,
                keep_best=5,
            ),
            "decode.beam_in_training": 1,
        }
    )
