"""settings -> module, the one `match`."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import assert_never

from torch import nn

from sign_dist.config.model import (
    CslrHeadModel,
    CtcStudentModel,
    FeatureModel,
    I3dModel,
    LandmarkModel,
    Model,
    SignHieraModel,
    SonarModel,
    TemporalI3dModel,
    TimeStride,
    TranslatorModel,
    VideoCnnModel,
    VlmModel,
)
from sign_dist.data.layout import DatasetDir
from sign_dist.data.vocab import Vocab
from sign_dist.errors import SettingsError
from sign_dist.models.cslr import TIME_STRIDE as CSLR_STRIDE
from sign_dist.models.cslr import CslrHead
from sign_dist.models.ensemble import Ensemble
from sign_dist.models.feature_classifier import FeatureClassifier
from sign_dist.models.front import Vectors, build_front
from sign_dist.models.i3d import InceptionI3d
from sign_dist.models.landmark import LandmarkClassifier, LandmarkInputs
from sign_dist.models.seq2seq import read_seq2seq, recompute_layers, small_t5
from sign_dist.models.signhiera import PRESETS, SignHiera
from sign_dist.models.slt import FeatureTranslator, Front
from sign_dist.models.sonar.sign_encoder import SignEncoder
from sign_dist.models.sonar.text_decoder import TextDecoder
from sign_dist.models.sonar.translate import SHAPES, SonarTranslator
from sign_dist.models.student import CtcStudent
from sign_dist.models.temporal_i3d import PRESETS as TEMPORAL_PRESETS
from sign_dist.models.temporal_i3d import TemporalI3d
from sign_dist.models.text_tokens import TextTokens
from sign_dist.models.translator import Translator, TranslatorOptions
from sign_dist.models.video_cnn import VideoCnn
from sign_dist.models.vlm import SignVlm
from sign_dist.models.vlm_source import source_tokens, source_vlm, tiny_tokens, tiny_vlm
from sign_dist.models.vlm_tokens import VlmTokens
from sign_dist.models.windowed import WindowedSignHiera

# Of the stem and of two pools (see `models.temporal_i3d`).
_TEMPORAL_STRIDES: dict[TimeStride, tuple[int, int, int]] = {1: (1, 1, 1), 2: (1, 2, 1), 4: (1, 2, 2)}


def build_model(settings: Model, *, num_classes: int, feature_shape: tuple[int, ...], glosses: Sequence[str] = ()) -> nn.Module:
    """A model with fresh weights for features of shape `(T, ...)`; `feature_shape` is what follows T.

    `glosses` are the vocabulary: a tiny vision-language model learns its tokens from them.

    Raises:
        SettingsError: the features have a shape the model cannot read.
        WeightsError: `model.source` names a model that is not there.
    """
    match settings:
        case LandmarkModel():
            _need(len(feature_shape) == 2, settings.kind, "landmarks (T, K, 4)", feature_shape)
            members = [
                LandmarkClassifier(
                    num_classes,
                    num_landmarks=feature_shape[0],
                    width=settings.width,
                    depth=settings.depth,
                    dropout=settings.dropout,
                    use_face=settings.face,
                    mirror_views=settings.mirror_views,
                    cut_rest=settings.cut_rest,
                )
                for _ in range(settings.members)
            ]
            return members[0] if len(members) == 1 else Ensemble(members)
        case FeatureModel():
            _need(len(feature_shape) == 1, settings.kind, "vectors (T, D)", feature_shape)
            return FeatureClassifier(
                num_classes,
                num_features=feature_shape[0],
                width=settings.width,
                depth=settings.depth,
                dropout=settings.dropout,
            )
        case VideoCnnModel():
            _need(len(feature_shape) == 3, settings.kind, "frames (T, H, W, 3)", feature_shape)
            return VideoCnn(num_classes, width=settings.width, depth=settings.depth, dropout=settings.dropout)
        case SignHieraModel():
            shape = PRESETS[settings.preset]
            _need(
                feature_shape == (shape.height_px, shape.width_px, 3),
                settings.kind,
                f"frames of {shape.width_px} px",
                feature_shape,
            )
            return SignHiera(shape, num_classes, dropout=settings.dropout)
        case I3dModel():
            _need(len(feature_shape) == 3, settings.kind, "frames (T, H, W, 3)", feature_shape)
            return InceptionI3d(
                num_classes,
                dropout=settings.dropout,
                colours=settings.colours,
                over_time=settings.over_time,
                norm_momentum=settings.norm_momentum,
                checkpointing=settings.checkpointing,
            )
        case TemporalI3dModel():
            front = _front(settings.kind, feature_shape, settings.face)
            shape = dataclasses.replace(
                TEMPORAL_PRESETS[settings.preset],
                strides=_TEMPORAL_STRIDES[settings.time_stride],
                fused_width=settings.fused_width,
                lstm_width=settings.lstm_width,
                lstm_layers=settings.lstm_layers,
                channels=settings.channels,
            )
            return TemporalI3d(
                num_classes,
                modalities=(front.num_outputs,),
                shape=shape,
                dropout=settings.dropout,
                checkpointing=settings.checkpointing,
                front=front,
            )
        case CtcStudentModel():
            front = _front(settings.kind, feature_shape, settings.face)
            return CtcStudent(
                front.num_outputs,
                num_classes,
                width=settings.width,
                depth=settings.depth,
                kernel=settings.kernel,
                lstm_layers=settings.lstm_layers,
                dropout=settings.dropout,
                time_stride=settings.time_stride,
                front=front,
            )
        case CslrHeadModel():
            front = _front(settings.kind, feature_shape, settings.face)
            return CslrHead(
                front.num_outputs,
                num_classes,
                hidden=settings.hidden,
                lstm_layers=settings.lstm_layers,
                dropout=settings.dropout,
                share_classifier=settings.share_classifier,
                front=front,
            )
        case TranslatorModel():
            return _translator(settings, feature_shape)
        case SonarModel():
            return _sonar(settings, feature_shape)
        case VlmModel():
            return _vlm(settings, feature_shape, glosses)
        case _:
            assert_never(settings)


def text_tokens(settings: TranslatorModel | SonarModel) -> TextTokens:
    """What a model of translations writes in.

    Raises:
        WeightsError: there is no such tokenizer.
        SettingsError: it has no such language.
    """
    order = "fairseq2" if isinstance(settings, SonarModel) else "own"
    source = settings.tokenizer or (settings.source if isinstance(settings, TranslatorModel) else "")
    return TextTokens.read(source, settings.language, order) if source else TextTokens.of_bytes(order)


def gloss_vocab(settings: TranslatorModel) -> Vocab | None:
    """The glosses that a translator learns beside sentences, if it does.

    Raises:
        DataError: there is no such dataset or file, or the dataset has no glosses.
    """
    if not settings.glosses:
        return None
    place = Path(settings.glosses)
    return Vocab.read(DatasetDir(place).vocab_file if place.is_dir() else place)


def time_stride_of(settings: Model) -> int:
    """Of how many steps of a clip one step of the answer is made: T steps give ceil(T / stride). 0: one answer a clip."""
    match settings:
        case TemporalI3dModel() | CtcStudentModel():
            return settings.time_stride
        case CslrHeadModel():
            return CSLR_STRIDE
        case _:
            return 0


def vlm_tokens(settings: VlmModel, glosses: Sequence[str], size_px: int) -> VlmTokens:
    """What a vision-language model reads and writes in, for frames of `size_px`.

    Raises:
        SettingsError: frames of this size cannot be cut into its patches.
        WeightsError: `model.source` names a model that is not there.
    """
    if settings.source:
        return source_tokens(settings.source, settings.prompt)
    return tiny_tokens(glosses, settings.prompt, size_px=size_px, patch_px=settings.patch_px)


def _vlm(settings: VlmModel, feature_shape: tuple[int, ...], glosses: Sequence[str]) -> SignVlm:
    _need(len(feature_shape) == 3, settings.kind, "frames (T, H, W, 3)", feature_shape)
    if settings.source:
        model = source_vlm(settings.source, settings.prompt, dtype=settings.dtype)
    else:
        model = tiny_vlm(
            glosses,
            settings.prompt,
            size_px=feature_shape[0],
            patch_px=settings.patch_px,
            width=settings.width,
            depth=settings.depth,
            dropout=settings.dropout,
            seed=settings.seed,
            dtype=settings.dtype,
        )
    if settings.checkpointing:
        recompute_layers(model.vlm)
    return model


def _translator(settings: TranslatorModel, feature_shape: tuple[int, ...]) -> FeatureTranslator:
    front, tokens = _front_of_any(settings, feature_shape), text_tokens(settings)
    if settings.source:
        seq2seq = read_seq2seq(settings.source)
    else:
        seq2seq = small_t5(
            tokens.size,
            pad=tokens.pad,
            end=tokens.end,
            width=settings.width,
            depth=settings.depth,
            heads=settings.heads,
            dropout=settings.dropout,
        )
    options = TranslatorOptions(
        front.num_outputs, downsample=settings.downsample, dropout=settings.dropout, language=tokens.language
    )
    glosses = gloss_vocab(settings)
    return FeatureTranslator(
        front,
        Translator(seq2seq, options, recompute=settings.checkpointing),
        num_glosses=len(glosses) if glosses else 0,
    )


def _sonar(settings: SonarModel, feature_shape: tuple[int, ...]) -> SonarTranslator:
    front, tokens = _front_of_any(settings, feature_shape), text_tokens(settings)
    assert tokens.language is not None
    encoder, decoder = SHAPES[settings.preset]
    encoder = dataclasses.replace(encoder, feature_dim=front.num_outputs)
    decoder = dataclasses.replace(decoder, vocab_size=tokens.size)
    return SonarTranslator(
        front,
        SignEncoder(encoder, dropout=settings.dropout, recompute=settings.checkpointing),
        TextDecoder(decoder, dropout=settings.dropout, recompute=settings.checkpointing),
        language=tokens.language,
    )


def _front_of_any(settings: TranslatorModel | SonarModel, feature_shape: tuple[int, ...]) -> Front:
    """Vectors, landmarks, or frames through a SignHiera."""
    if len(feature_shape) != 3:
        return _front(settings.kind, feature_shape, settings.face)
    encoder = settings.encoder
    shape = PRESETS[encoder.preset]
    square = (shape.height_px, shape.width_px, 3)
    _need(feature_shape == square, settings.kind, f"through {encoder.preset!r} frames of {shape.width_px} px", feature_shape)
    hiera = SignHiera(shape, recompute=settings.checkpointing)
    return WindowedSignHiera(hiera, fps=encoder.fps, train_fraction=encoder.train_fraction)


def _front(kind: str, feature_shape: tuple[int, ...], face: bool) -> Vectors | LandmarkInputs:
    fits = len(feature_shape) == 1 or (len(feature_shape) == 2 and feature_shape[1] == 4)
    _need(fits, kind, "vectors (T, D) or landmarks (T, K, 4)", feature_shape)
    return build_front(feature_shape, face=face)


def _need(fits: bool, kind: str, wanted: str, got: tuple[int, ...]) -> None:
    if not fits:
        raise SettingsError(f"model.kind = {kind!r} reads {wanted}, the features have shape (T, {', '.join(map(str, got))})")
