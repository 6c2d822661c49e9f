"""settings -> module, the one `match`."""

from typing import assert_never

from torch import nn

from sign_dist.config.model import FeatureModel, I3dModel, LandmarkModel, Model, SignHieraModel, VideoCnnModel
from sign_dist.errors import SettingsError
from sign_dist.models.ensemble import Ensemble
from sign_dist.models.feature_classifier import FeatureClassifier
from sign_dist.models.i3d import InceptionI3d
from sign_dist.models.landmark import LandmarkClassifier
from sign_dist.models.signhiera import PRESETS, SignHiera
from sign_dist.models.video_cnn import VideoCnn


def build_model(settings: Model, *, num_classes: int, feature_shape: tuple[int, ...]) -> nn.Module:
    """A model with fresh weights for features of shape `(T, ...)`; `feature_shape` is what follows T.

    Raises:
        SettingsError: the features have a shape the model cannot read.
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
                checkpointing=settings.checkpointing,
            )
        case _:
            assert_never(settings)


def _need(fits: bool, kind: str, wanted: str, got: tuple[int, ...]) -> None:
    if not fits:
        raise SettingsError(f"model.kind = {kind!r} reads {wanted}, the features have shape (T, {', '.join(map(str, got))})")
