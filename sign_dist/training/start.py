"""What a run starts from: its model with fresh weights, and pretrained ones copied into it."""

import logging
from pathlib import Path

from torch import nn

from sign_dist.config.run import Run
from sign_dist.data.layout import DatasetDir
from sign_dist.data.vocab import Vocab
from sign_dist.errors import WeightsError
from sign_dist.models.build import build_model
from sign_dist.training.run_dir import RunDir
from sign_dist.transfer.convert import tensors_for
from sign_dist.transfer.head import is_head, replace_head
from sign_dist.transfer.load import LoadReport, load_into
from sign_dist.transfer.weights_file import read_weights

# The share of a model's tensors, its head left out, that a weights file must have; below it is another model's file.
MIN_MATCH = 0.95

logger = logging.getLogger(__name__)


def start_model(run: Run, *, num_classes: int, feature_shape: tuple[int, ...], vocab: Vocab | None = None) -> nn.Module:
    """The model of a run before its first step.

    Raises:
        SettingsError: the features have a shape the model cannot read.
        WeightsError: `model.weights` or `train.start_from` names a file that is missing, damaged or another model's.
    """
    model = build_model(run.model, num_classes=num_classes, feature_shape=feature_shape)
    for weights in (getattr(run.model, "weights", ""), run.train.start_from):
        if weights:
            start_from(model, Path(weights), vocab)
    return model


def start_from(model: nn.Module, path: Path, vocab: Vocab | None = None) -> LoadReport:
    """Copy the weights of a run, checkpoint, bundle or file into a model. Of the head it takes what fits.

    Where the vocabulary of the weights is known and is another than `vocab`, rows of glosses that both have are carried over.

    Raises:
        WeightsError: there are no weights, or less than `MIN_MATCH` of what is below the head fits.
    """
    file, vocab_file = weights_at(path)
    tensors = tensors_for(read_weights(file), getattr(model, "colours", "rgb"))
    fresh = model.state_dict()
    if vocab is not None and vocab_file is not None and (old := Vocab.read(vocab_file)).glosses != vocab.glosses:
        tensors, said = replace_head(tensors, fresh, old.glosses, vocab.glosses)
        logger.info("%s: %s", path, said)
    spared = tuple(name for name in fresh if is_head(name) or name.startswith("norm."))
    report = load_into(model, tensors, min_match=MIN_MATCH, ignore=spared)
    logger.info("%s: %s", path, report)
    return report


def weights_at(path: Path) -> tuple[Path, Path | None]:
    """The weights file that a path stands for, and the vocabulary of its head where that is known.

    Raises:
        WeightsError: nothing there holds weights.
        RunError: a run that has no checkpoint yet.
    """
    if (path / "bundle.json").is_file():
        return path / "weights.safetensors", _there(path / "vocab.txt")
    if (path / "run.json").is_file():
        return RunDir(path).chosen() / "model.safetensors", _vocab_of(RunDir(path))
    if (path / "model.safetensors").is_file():
        return path / "model.safetensors", _vocab_of(RunDir(path.parent))
    if path.is_file():
        return path, _there(path.parent / "vocab.txt")
    raise WeightsError(f"{str(path)!r} holds no weights: name a run directory, a checkpoint, a bundle or a weights file")


def _vocab_of(run_dir: RunDir) -> Path | None:
    return _there(DatasetDir(Path(run_dir.run().data.root)).vocab_file) if run_dir.run_file.is_file() else None


def _there(path: Path) -> Path | None:
    return path if path.is_file() else None
