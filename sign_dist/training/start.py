"""What a run starts from: its model with fresh weights, and pretrained ones copied into it."""

from pathlib import Path

from torch import nn

from sign_dist.config.run import Run
from sign_dist.models.build import build_model
from sign_dist.transfer.load import load_into, read_state_dict

# The share of a model's tensors, its head left out, that a weights file must have; below it is another model's file.
MIN_MATCH = 0.95
HEADS = ("norm.", "head.")


def start_model(run: Run, *, num_classes: int, feature_shape: tuple[int, ...]) -> nn.Module:
    """The model of a run before its first step.

    Raises:
        SettingsError: the features have a shape the model cannot read.
        WeightsError: `model.weights` names a file that is missing, damaged or another model's.
    """
    model = build_model(run.model, num_classes=num_classes, feature_shape=feature_shape)
    weights: str = getattr(run.model, "weights", "")
    if weights:
        load_into(model, read_state_dict(Path(weights)), min_match=MIN_MATCH, ignore=HEADS)
    return model
