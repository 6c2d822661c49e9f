"""Which dataset, how its clips are sampled, and which features are made of them."""

from typing import Annotated, Literal

from pydantic import Field

from sign_dist.config.base import Settings
from sign_dist.errors import SettingsError, did_you_mean

Person = Literal["moving", "largest", "central"]
"""Among several people: who moves most, fills most of the picture, or is nearest to its middle."""
Privacy = Literal["none", "blur"]
Crop = Literal["none", "centre", "face"]


class Sampling(Settings):
    """How frames are taken from a clip: by time, so that a 60 fps recording and a 25 fps one look alike."""

    fps: float = Field(default=25.0, gt=0, le=240)
    """Frames per second to take. A clip with fewer gives every frame it has."""
    max_side_px: int = Field(default=640, ge=32, le=4096)
    """Longer side after decoding; larger pictures are scaled down, smaller ones left as they are."""
    max_seconds: float = Field(default=30.0, gt=0)
    """A clip longer than this is refused with the reason `too_long`: it would not be one sign."""
    image_fps: float = Field(default=25.0, gt=0, le=240)
    """Frames per second of a clip that is a folder of pictures, which cannot say so itself."""


SignHieraPreset = Literal["tiny", "base_16x224", "base_128x224", "small_16x224", "small_128x224"]


class LandmarkFeatures(Settings):
    """MediaPipe body, hand and face points, normalised to the shoulders: `(T, K, 4)` = x, y, z, confidence."""

    kind: Literal["landmarks"] = "landmarks"
    sampling: Sampling = Sampling(fps=30.0)
    every: int = Field(default=2, ge=1, le=10)
    """Detection tracks better through every frame; every so many of them is kept, 15 a second by default."""
    face: bool = False
    """Also find the face points (brows, eyes, lips, chin)."""
    person: Person = "moving"
    """Whose points, where several people are seen in most of a clip."""


class SignHieraFeatures(Settings):
    """Windows of frames through a SignHiera video encoder: `(T', D)`."""

    kind: Literal["signhiera"] = "signhiera"
    sampling: Sampling = Sampling(max_side_px=320)
    preset: SignHieraPreset = "tiny"
    """Which encoder: `base_128x224` is the published one of SSVP-SLT, `tiny` ours for a laptop."""
    weights: str = ""
    """A weights file. Empty: random weights from `seed`, a baseline that needs no download."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    crop: Crop = "none"
    """`none`: the middle square of the whole height; `centre`: cut without scaling; `face`: the square around the signer."""
    detector: Literal["mediapipe", "dlib"] = "mediapipe"
    """What finds faces."""
    person: Person = "moving"
    """Whose square, where several people are seen."""
    privacy: Privacy = "none"
    """`blur`: the encoder sees no face."""


class FrameFeatures(Settings):
    """Decoded, resized frames themselves, for models that train end to end: `uint8 (T, size, size, 3)`."""

    kind: Literal["frames"] = "frames"
    sampling: Sampling = Sampling(max_side_px=320)
    num_frames: int = Field(default=16, ge=0, le=512)
    """Frames per clip, spread over it; 0 keeps every sampled frame."""
    pick: Literal["even", "motion"] = "even"
    """`motion`: frames at equal shares of all that changes in the pictures, so that a still signer takes few of them."""
    size_px: int = Field(default=64, ge=32, le=512, multiple_of=32)
    crop: Crop = "none"
    """`none`: the middle square of the whole height; `centre`: cut without scaling; `face`: the square around the signer."""
    person: Person = "moving"
    """Whose square, where several people are seen."""
    privacy: Privacy = "none"
    """`blur`: faces are hidden before anything is stored."""


Features = Annotated[LandmarkFeatures | SignHieraFeatures | FrameFeatures, Field(discriminator="kind")]

# What the command line calls them: each class by its kind.
FEATURES: dict[str, type[LandmarkFeatures | SignHieraFeatures | FrameFeatures]] = {
    "landmarks": LandmarkFeatures,
    "signhiera": SignHieraFeatures,
    "frames": FrameFeatures,
}


def features_named(kind: str) -> Features:
    """The features of a kind, with its defaults.

    Raises:
        SettingsError: there is no such kind.
    """
    if kind not in FEATURES:
        raise SettingsError(f"no features {kind!r}: there are {', '.join(FEATURES)};{did_you_mean(kind, FEATURES)}".rstrip(";"))
    return FEATURES[kind]()


class Data(Settings):
    """A dataset directory and the features of it that a run reads."""

    root: str
    features: Features = LandmarkFeatures()
    store: str = ""
    """Folder or address (`s3://bucket/path`) of a feature store that datasets share. Empty: inside the dataset."""
    train_split: str = "train"
    val_split: str = "val"
    share: float = Field(default=1.0, gt=0, le=1)
    """Share of the training clips that are learned from, the same in every gloss as far as that goes; each share holds the
    smaller ones."""
    allow_leaks: bool = False
    """Train although test shares signers, recordings or clips with training; every report says so."""


class SplitSettings(Settings):
    """How clips are divided into train, val and test."""

    by: Literal["auto", "given", "gloss", "signer", "source"] = "auto"
    """`auto`: as the corpus gives it, else by signer or by recording if at least three are known, else by gloss."""
    val: float = Field(default=0.15, gt=0, lt=0.5)
    test: float = Field(default=0.15, gt=0, lt=0.5)
    seed: int = Field(default=0, ge=0, lt=2**31)


class Glosses(Settings):
    """Which glosses a dataset has, of those that the corpus annotates."""

    labels: Literal["auto", "gloss", "sequence"] = "auto"
    """What a label is: one gloss, which may hold blanks, or glosses with blanks between them. `auto`: as the corpus has it."""
    clean: bool = False
    """Apply the clean-up of the corpus's own evaluation, where it has one."""
    numbers: Literal["keep", "merge"] = "keep"
    """`merge`: a number at the end names a variant, so BOOK2 and BOOK (2) become BOOK."""
    merge: str = ""
    """A file of variants to merge. Empty: none."""
    keep: str = ""
    """A text file with the glosses to keep, one a line. Empty: all."""
    min_clips: int = Field(default=1, ge=1)
    """Leave out glosses with fewer usable clips."""
