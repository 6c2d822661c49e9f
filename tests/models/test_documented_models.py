"""docs/models.md against the code: every count of parameters, every published file, every kind of model."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import nn
from transformers import T5Config

from sign_dist.cli_weights import shapes_of
from sign_dist.config.model import FeatureModel, I3dModel, LandmarkModel, Model, SignHieraModel, VideoCnnModel
from sign_dist.models import signhiera, temporal_i3d
from sign_dist.models.build import build_model
from sign_dist.models.cslr import CslrHead
from sign_dist.models.i3d import InceptionI3d
from sign_dist.models.mae import MaskedAutoencoder
from sign_dist.models.seq2seq import new_seq2seq
from sign_dist.models.sonar.sign_encoder import SignEncoder, SignEncoderShape
from sign_dist.models.sonar.text_decoder import TextDecoder, TextDecoderShape
from sign_dist.models.student import CtcStudent
from sign_dist.models.translator import Translator, TranslatorOptions
from sign_dist.transfer.catalogue import CATALOGUE, Published
from sign_dist.video.landmarks import FACE, NUM_LANDMARKS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "models.md"
TEXT = PAGE.read_text(encoding="utf-8")
CLASSES = 100
T5_BASE = T5Config(
    d_model=768, d_ff=2048, num_layers=12, num_heads=12, vocab_size=32128, feed_forward_proj="gated-gelu", tie_word_embeddings=False
)


def built(settings: Model, *feature_shape: int) -> Callable[[], nn.Module]:
    return lambda: build_model(settings, num_classes=CLASSES, feature_shape=feature_shape)


SIZES: dict[str, Callable[[], nn.Module]] = {
    "landmark, four members as by default": built(LandmarkModel(), FACE.start, 4),
    "landmark, one member": built(LandmarkModel(members=1), FACE.start, 4),
    "landmark, one member, with the face": built(LandmarkModel(members=1, face=True), NUM_LANDMARKS, 4),
    "feature, 768 numbers": built(FeatureModel(), 768),
    "video_cnn": built(VideoCnnModel(), 64, 64, 3),
    "SignHiera `tiny`": built(SignHieraModel(), 64, 64, 3),
    **{
        f"SignHiera `{name}`, no head": lambda shape=shape: signhiera.SignHiera(shape)
        for name, shape in signhiera.PRESETS.items()
        if name != "tiny"
    },
    "SignHiera `base_16x224`, 400 classes": lambda: signhiera.SignHiera(signhiera.PRESETS["base_16x224"], 400),
    "masked autoencoder `base_128x224`": lambda: MaskedAutoencoder(signhiera.PRESETS["base_128x224"]),
    "masked autoencoder `base_16x224`": lambda: MaskedAutoencoder(signhiera.PRESETS["base_16x224"]),
    "I3D": built(I3dModel(), 224, 224, 3),
    "I3D, 400 classes (Kinetics)": lambda: InceptionI3d(400),
    "I3D, 2,000 classes (WLASL)": lambda: InceptionI3d(2000),
    **{
        f"temporal I3D `{name}`, 1,232 classes": lambda shape=shape: temporal_i3d.TemporalI3d(1232, shape=shape)
        for name, shape in temporal_i3d.PRESETS.items()
    },
    "temporal I3D `seed`, 973 classes": lambda: temporal_i3d.TemporalI3d(973),
    "CSLR head, 512 numbers, 1,296 classes": lambda: CslrHead(512, 1296),
    "CSLR head, 2,304 numbers, 1,296 classes": lambda: CslrHead(2304, 1296),
    "student, 1,024 numbers, 1,296 classes": lambda: CtcStudent(1024, 1296),
    "student, 6,516 numbers, 2,001 classes": lambda: CtcStudent(6516, 2001),
    "translator, 768 numbers, T5-v1.1-base from its config": lambda: Translator(new_seq2seq(T5_BASE), TranslatorOptions(768)),
    "SONAR sign encoder": lambda: SignEncoder(SignEncoderShape()),
    "SONAR text decoder": lambda: TextDecoder(TextDecoderShape()),
}


def rows_under(header: str) -> list[list[str]]:
    """The cells of the table whose header starts so."""
    lines = TEXT[TEXT.index(f"| {header} |") :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_every_size_is_told() -> None:
    assert [name for name, _ in rows_under("built as")] == list(SIZES)


@pytest.mark.long
@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_those_of_the_code(name: str) -> None:
    with torch.device("meta"):
        model = SIZES[name]()
    told = dict(rows_under("built as"))
    assert told.get(name) == f"{sum(p.numel() for p in model.parameters()):,}"


def how(entry: Published) -> str:
    return f"[fetch]({entry.url})" if entry.url else f"[browser]({entry.page})"


def test_weights_are_those_of_the_catalogue() -> None:
    wanted = [
        [f"`{e.name}`", e.what, e.licence or "not known", how(e), f"`{e.file}`" + (", BGR" if e.colour_order == "bgr" else "")]
        for e in CATALOGUE.values()
    ]
    assert [row[:5] for row in rows_under("name")] == wanted


@pytest.mark.long
def test_weights_go_into_models_that_can_be_inspected() -> None:
    """A name in the last column is one that `weights inspect --model` knows; what has none says so."""
    for row in rows_under("name"):
        assert row[5]
        for name in re.findall(r"`(\w+)`", row[5]):
            assert shapes_of(name)


def test_every_kind_of_model_is_told() -> None:
    kinds = {member.model_fields["kind"].default for member in get_args(get_args(Model)[0])}
    assert set(re.findall(r"`model\.kind=(\w+)`", TEXT[: TEXT.index("## Sizes")])) == kinds
