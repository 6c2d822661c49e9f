"""Translation in the synthetic world, before any stage: the domain `daily` and its signers, as DailyMoth's news for How2Sign.

sign-dist synth daily --sentences 960 --signers 24 --landmarks --domain daily --seed 11
sign-dist synth lesson --sentences 960 --signers 24 --landmarks --domain lesson --seed 12
for domain in daily lesson; do
  sign-dist prepare table $domain data/synthetic_slt_$domain glosses.labels=sequence sampling.image_fps=20
  sign-dist extract data/synthetic_slt_$domain every=1 sampling.image_fps=20
done
sign-dist data tokenizer data/synthetic_slt_daily data/synthetic_slt_lesson --out data/synthetic_slt_tokens
sign-dist train jobs/synthetic/slt_pretrain.py

A T5 from scratch over landmark tracks. Its encoder learns the glosses as well (`model.glosses`): with sentences alone it has to
find out from their order in English where each sign is, and 600 of them are few for that. The stages on the other domain, from
`slt_zero_shot.py` on, read no gloss.
"""

from sign_dist.config.data import Data, LandmarkFeatures, Sampling
from sign_dist.config.model import TranslatorModel
from sign_dist.config.run import Decode, Run
from sign_dist.config.train import Augment, Optim, Train


def run() -> Run:
    return Run(
        task="slt",
        data=Data(
            root="data/synthetic_slt_daily",
            features=LandmarkFeatures(sampling=Sampling(fps=30.0, image_fps=20.0), every=1),
        ),
        model=TranslatorModel(
            tokenizer="data/synthetic_slt_tokens", glosses="data/synthetic_slt_daily", width=128, depth=2, downsample=4
        ),
        train=Train(
            epochs=32,
            batch_size=16,
            by_length=8,
            evaluate_every=4,
            optim=Optim(lr=2e-3),
            augment=Augment(speed=0.3, drop_hand=0.1),
        ),
        decode=Decode(beam=5, max_len=40),
    )
