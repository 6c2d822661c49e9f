"""How2Sign without training: SignHiera and SONAR as Meta released them for DailyMoth's news, asked on How2Sign's lessons.

    sign-dist weights fetch signhiera_dm70h --out weights --accept-licence
    sign-dist weights fetch sonar_sign_encoder_dm70h --out weights --accept-licence
    sign-dist weights fetch sonar_text_decoder --out weights --accept-licence
    hf download facebook/nllb-200-distilled-600M --include "*token*" --local-dir weights/nllb
    sign-dist prepare how2sign RAW data/how2sign
    sign-dist extract data/how2sign --features signhiera preset=base_128x224 weights=weights/dm_70h_ub_signhiera.pth crop=face
    sign-dist train jobs/how2sign_zero_shot.py
    sign-dist evaluate runs/how2sign_zero_shot test

With 0 epochs the weights are evaluated and saved as they are; that run is what the others are compared with. The released weights
may not be used commercially.
"""

from sign_dist.config.data import Data, SignHieraFeatures
from sign_dist.config.model import SonarModel
from sign_dist.config.run import Decode, Run
from sign_dist.config.train import Train


def run() -> Run:
    return Run(
        task="slt",
        data=Data(
            root="data/how2sign",
            features=SignHieraFeatures(preset="base_128x224", weights="weights/dm_70h_ub_signhiera.pth", crop="face"),
        ),
        model=SonarModel(
            preset="published",
            encoder_weights="weights/dm_70h_ub_sonar_encoder.pth",
            decoder_weights="weights/sonar_text_decoder.pt",
            tokenizer="weights/nllb",
            language="eng_Latn",
        ),
        train=Train(epochs=0, batch_size=16),
        decode=Decode(beam=5, beam_in_training=5),
    )
