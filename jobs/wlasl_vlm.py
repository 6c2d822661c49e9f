"""InternVL 3.5 (2B) in 4 bits with LoRA on the 320 most useful signs of WLASL; one card of 8 GB.

The dataset: glosses of a keep-list with at least five clips each, split 70/15/15 by gloss, or for signers never seen by signer.

    sign-dist prepare wlasl CORPUS data/wlasl320 glosses.keep=320.txt glosses.min_clips=5 split.by=gloss
    sign-dist extract data/wlasl320 --features frames num_frames=8 size_px=448

Steps of 16 clips in 8 parts of 2. A card of 24 GB takes `model.quantize=none` (LoRA over bfloat16); `model.source` may be a folder.
"""

from sign_dist.config.data import Data, FrameFeatures
from sign_dist.config.model import VlmModel
from sign_dist.config.run import Run
from sign_dist.config.train import Augment, Lora, Optim, Train

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj")


def run() -> Run:
    return Run(
        task="vlm",
        data=Data(root="data/wlasl320", features=FrameFeatures(num_frames=8, size_px=448)),
        model=VlmModel(
            source="OpenGVLab/InternVL3_5-2B-HF",
            dtype="bf16",
            quantize="nf4",
            checkpointing=True,
            prompt="You are an expert sign-language recognition model. Identify the sign in the video and respond with its gloss "
            "and nothing else.",
        ),
        train=Train(
            epochs=10,
            batch_size=16,
            parts=8,
            precision="bf16",
            optim=Optim(lr=2e-4, weight_decay=0.01, warmup_steps=50, final_lr_ratio=0.0),
            lora=Lora(targets=" ".join(f"language_model.*.{name}" for name in PROJECTIONS), rank=16, alpha=32.0, dropout=0.1),
            label_smoothing=0.1,
            # Small changes of place and of colour, the same over a clip. A mirrored signer signs with the other hand.
            augment=Augment(mirror=0.0, speed=0.0, crop=0.1, drop=0.0, scale=0.15, colour=0.2),
            patience=3,
        ),
    )
