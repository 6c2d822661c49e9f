"""Which settings leave a clip's activations the same in every epoch, so that they can be computed once."""

from collections.abc import Mapping

from sign_dist.config.train import Train

CUTTABLE = ("i3d", "signhiera", "video_cnn")
"""Models of `sign_dist.models.cut`, by kind."""
CHANGES_FRAMES = ("mirror", "speed", "crop", "drop", "scale", "colour")
"""What of `train.augment` changes the frames of a clip."""


def check_prefix(train: Train, *, model: str, augment: Mapping[str, float]) -> None:
    """Refuse `train.cache_prefix` where a clip's activations are not the same in every epoch. Which layers stand still is not
    looked at: that takes the model.

    Raises:
        ValueError: with what to change.
    """
    if not train.cache_prefix:
        return
    if model not in CUTTABLE:
        raise ValueError(
            f"train.cache_prefix needs a model that can be cut, model.kind = {' or '.join(CUTTABLE)}, got {model!r}: leave it off"
        )
    if changing := [name for name in CHANGES_FRAMES if augment[name]]:
        raise ValueError(
            f"train.cache_prefix keeps what layers make of clips as they are, and train.augment.{changing[0]} = "
            f"{augment[changing[0]]:g} changes them: set {', '.join(changing)} of train.augment to 0, or leave it off"
        )
    if train.mixup:
        raise ValueError(
            f"train.cache_prefix keeps what layers make of single clips, and train.mixup = {train.mixup:g} mixes them: set it to 0"
        )
    if train.distill.teacher:
        raise ValueError("train.cache_prefix gives the run no frames, which train.distill.teacher asks for: leave one of them out")
    if train.precision != "fp32":
        raise ValueError(
            f"train.cache_prefix keeps float32 numbers, and train.precision = {train.precision!r} would round them elsewhere: "
            "use fp32, or leave it off"
        )
