"""One class per model, and their union."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from sign_dist.config.base import Settings
from sign_dist.config.data import SignHieraPreset

TimeStride = Literal[1, 2, 4]
"""Steps of a clip that become one step of the answer."""


class LandmarkModel(Settings):
    """Conv1D + attention over body and hand points."""

    kind: Literal["landmark"] = "landmark"
    width: int = Field(default=128, ge=8, le=2048)
    depth: int = Field(default=3, ge=1, le=24)
    dropout: float = Field(default=0.3, ge=0, lt=1)
    face: bool = False
    """Read the face points as well, where the features have them."""
    mirror_views: bool = True
    """Answer with the mean over a clip and its mirror image, so that left- and right-handed signers are read alike."""
    cut_rest: bool = True
    """Do not read a clip's frames before the first and after the last in which a hand was found."""
    members: int = Field(default=4, ge=1, le=32)
    """Models trained side by side and asked together: steadier answers for new signers, at so many times the cost."""


class FeatureModel(Settings):
    """The same trunk over one vector per time step, e.g. SignHiera features."""

    kind: Literal["feature"] = "feature"
    width: int = Field(default=128, ge=8, le=2048)
    depth: int = Field(default=2, ge=1, le=24)
    dropout: float = Field(default=0.3, ge=0, lt=1)


class VideoCnnModel(Settings):
    """A small convolutional network trained end to end from frames; blind to colour, quick on a laptop's processor."""

    kind: Literal["video_cnn"] = "video_cnn"
    width: int = Field(default=24, ge=4, le=512)
    depth: int = Field(default=2, ge=1, le=24)
    dropout: float = Field(default=0.3, ge=0, lt=1)


class SignHieraModel(Settings):
    """A SignHiera encoder and a linear head, trained end to end from frames."""

    kind: Literal["signhiera"] = "signhiera"
    preset: SignHieraPreset = "tiny"
    weights: str = ""
    dropout: float = Field(default=0.1, ge=0, lt=1)


class I3dModel(Settings):
    """Inception-I3D, RGB, trained end to end from frames; what Kinetics and WLASL checkpoints fill."""

    kind: Literal["i3d"] = "i3d"
    weights: str = ""
    colours: Literal["rgb", "bgr"] = "rgb"
    """Order of colours that the weights expect; those that WLASL published expect bgr."""
    over_time: Literal["max", "mean"] = "max"
    """How the answers of the steps become the clip's."""
    dropout: float = Field(default=0.5, ge=0, lt=1)
    norm_momentum: float = Field(default=0.01, gt=0, le=1)
    """How much of BatchNorm's running statistics each step replaces. With the published 0.01 they need hundreds of steps."""
    checkpointing: bool = False
    """Compute inner values again in the backward pass: less memory, more time."""


class TemporalI3dModel(Settings):
    """I3D's blocks in one dimension, a BiLSTM and a CTC head: the teacher for gloss sequences."""

    kind: Literal["temporal_i3d"] = "temporal_i3d"
    preset: Literal["seed", "i3d1d"] = "i3d1d"
    channels: float = Field(default=1.0, ge=0.05, le=4)
    """The blocks have so many times I3D's channels. Pretrained kernels fit 1 alone."""
    weights: str = ""
    """A weights file of Inception-I3D, whose kernels fill the blocks of the preset `i3d1d`, or of this model."""
    adapt: Literal["temporal_mean", "spatial_mean", "temporal_max"] = "temporal_mean"
    """How space is taken out of I3D's kernels."""
    fused_width: int = Field(default=256, ge=16, le=2048, multiple_of=4)
    """Width that features are brought to before the blocks."""
    lstm_width: int = Field(default=256, ge=8, le=2048)
    """Of each direction."""
    lstm_layers: int = Field(default=1, ge=1, le=4)
    time_stride: TimeStride = 4
    dropout: float = Field(default=0.3, ge=0, lt=1)
    face: bool = False
    """Read the face points as well, where the features are landmarks that have them."""
    checkpointing: bool = False
    """Compute inner values again in the backward pass: less memory, more time."""


class CtcStudentModel(Settings):
    """A small network that only looks back in time, so that glosses can be said while the signing goes on."""

    kind: Literal["ctc_student"] = "ctc_student"
    width: int = Field(default=256, ge=8, le=2048)
    depth: int = Field(default=4, ge=2, le=24)
    kernel: int = Field(default=5, ge=2, le=31)
    lstm_layers: int = Field(default=2, ge=1, le=4)
    time_stride: TimeStride = 4
    dropout: float = Field(default=0.2, ge=0, lt=1)
    face: bool = False
    """Read the face points as well, where the features are landmarks that have them."""


class CslrHeadModel(Settings):
    """The head of the VAC family: convolutions in time and a BiLSTM, both with a CTC loss of their own."""

    kind: Literal["cslr_head"] = "cslr_head"
    hidden: int = Field(default=1024, ge=16, le=4096, multiple_of=2)
    lstm_layers: int = Field(default=2, ge=1, le=4)
    dropout: float = Field(default=0.3, ge=0, lt=1)
    share_classifier: bool = True
    """One classifier for both, as SMKD has it."""
    alignment: bool = True
    """Draw the convolutions' answer to the BiLSTM's, too (VAC's visual alignment)."""
    face: bool = False
    """Read the face points as well, where the features are landmarks that have them."""


class FrontEncoder(Settings):
    """The SignHiera that stands in front where a model over sequences reads frames; with other features it is not there."""

    preset: SignHieraPreset = "tiny"
    weights: str = ""
    fps: float = Field(default=25.0, gt=0, le=240)
    """Frames per second of the clips: a window of the encoder spans so many seconds."""
    train_fraction: float = Field(default=1.0, ge=0, le=1)
    """The last share of its blocks that trains; what is before it never does. 0: none."""


class TranslatorModel(Settings):
    """Features, projected to the width of a text-to-text model's words, and that model: T5, mBART, M2M100, NLLB."""

    kind: Literal["translator"] = "translator"
    source: str = ""
    """A folder in transformers' form, or a name in the hub's cache. Empty: a fresh T5 of the sizes below."""
    tokenizer: str = ""
    """The same for the tokenizer. Empty: the one of `source`; of a fresh T5, the bytes of the text."""
    language: str = ""
    """The token of the language that is written, as the tokenizer calls it, such as `de_DE` of mBART."""
    width: int = Field(default=256, ge=16, le=4096, multiple_of=4)
    depth: int = Field(default=3, ge=1, le=48)
    """Layers of the encoder, and as many of the decoder."""
    heads: int = Field(default=4, ge=1, le=64)
    downsample: Literal[1, 2, 4, 8] = 1
    """Steps of the features that become one step of the encoder."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    glosses: str = ""
    """A dataset directory or vocabulary file, whose glosses the encoder learns to tell beside the sentence. Empty: none."""
    gloss_loss: float = Field(default=1.0, ge=0)
    """What that counts, where clips have glosses."""
    face: bool = False
    """Read the face points as well, where the features are landmarks that have them."""
    checkpointing: bool = False
    """Compute inner values again in the backward pass: less memory, more time."""
    encoder: FrontEncoder = FrontEncoder()


class SonarLosses(Settings):
    """What the losses of a sentence count; 0 leaves one out. Those of the embedding need `target_embeddings`."""

    decoder: float = Field(default=1.0, ge=0)
    """Cross-entropy of the text."""
    mse: float = Field(default=1.0, ge=0)
    """Squared distance to the target embedding, as a share of the target's squared length."""
    cosine: float = Field(default=0.0, ge=0)
    """1 minus the cosine with the target embedding."""


class SonarModel(Settings):
    """SONAR: features -> the embedding of a sentence -> text in any of its languages."""

    kind: Literal["sonar"] = "sonar"
    preset: Literal["tiny", "published"] = "tiny"
    encoder_weights: str = ""
    """A weights file of the sign encoder."""
    decoder_weights: str = ""
    """A weights file of the text decoder."""
    tokenizer: str = ""
    """The tokenizer of NLLB: a folder in transformers' form, or a name in the hub's cache. Empty: the bytes of the text."""
    language: str = "eng_Latn"
    """The language that is written, as the tokenizer calls it; bytes know none."""
    target_embeddings: str = ""
    """A .parquet or .npz file with the embedding of each clip's sentence. Empty: only the text is learned."""
    losses: SonarLosses = SonarLosses()
    dropout: float = Field(default=0.1, ge=0, lt=1)
    face: bool = False
    """Read the face points as well, where the features are landmarks that have them."""
    checkpointing: bool = False
    """Compute inner values again in the backward pass: less memory, more time."""
    encoder: FrontEncoder = FrontEncoder()

    @model_validator(mode="after")
    def _text_is_the_decoders(self) -> Self:
        if self.decoder_weights and not self.tokenizer:
            raise ValueError("decoder_weights speak in a tokenizer's numbers: say which, as model.tokenizer=FOLDER")
        if not self.losses.decoder and not (self.target_embeddings and (self.losses.mse or self.losses.cosine)):
            raise ValueError("nothing is learned: set losses.decoder above 0, or name target_embeddings")
        return self


class VlmModel(Settings):
    """A vision-language model that is asked for the sign: frames and a question in, the gloss out."""

    kind: Literal["vlm"] = "vlm"
    source: str = ""
    """A folder in transformers' form, or a name in the hub's cache. Empty: a tiny InternVL of the sizes below, from `seed`."""
    dtype: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Of its weights. Less than fp32 is for weights that stand still below adapters."""
    quantize: Literal["none", "nf4", "int8"] = "none"
    """Its linear layers in 4 or 8 bits, below adapters."""
    prompt: str = Field(default="Which sign is this? Answer with its gloss.", min_length=1, max_length=4000)
    """The question behind the frames."""
    checkpointing: bool = False
    """Compute inner values again in the backward pass: less memory, more time."""
    width: int = Field(default=128, ge=32, le=1024, multiple_of=32)
    depth: int = Field(default=2, ge=1, le=12)
    """Layers of each half."""
    patch_px: int = Field(default=8, ge=2, le=64)
    """Side of the patches that a frame is cut into."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    seed: int = Field(default=0, ge=0, lt=2**31)


Model = Annotated[
    LandmarkModel
    | FeatureModel
    | VideoCnnModel
    | SignHieraModel
    | I3dModel
    | TemporalI3dModel
    | CtcStudentModel
    | CslrHeadModel
    | TranslatorModel
    | SonarModel
    | VlmModel,
    Field(discriminator="kind"),
]

# Settings that name files, by their dotted names in a run; a folder of transformers may also be a name of the hub.
WEIGHT_FILES = (
    "model.weights",
    "model.encoder.weights",
    "model.encoder_weights",
    "model.decoder_weights",
    "model.target_embeddings",
)
MODEL_FOLDERS = ("model.source", "model.tokenizer")
