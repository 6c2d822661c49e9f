"""What a run starts from: its model with fresh weights, and pretrained ones copied into it."""

import dataclasses
import json
import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from sign_dist.config.model import MODEL_FOLDERS, WEIGHT_FILES, Model, VlmModel
from sign_dist.config.run import Run
from sign_dist.config.train import Lora
from sign_dist.data.layout import DatasetDir
from sign_dist.data.vocab import Vocab
from sign_dist.errors import WeightsError
from sign_dist.models.build import build_model
from sign_dist.models.temporal_i3d import TemporalI3d
from sign_dist.models.vlm_source import DTYPES
from sign_dist.tasks.build import num_classes_of, vocab_of
from sign_dist.tasks.task import Example
from sign_dist.training.adapt import adapt
from sign_dist.training.checkpoint import read_weights as weights_of
from sign_dist.training.parts import take_parts
from sign_dist.training.run_dir import RunDir
from sign_dist.transfer.convert import tensors_for, without_space
from sign_dist.transfer.head import HeadReport, is_head, replace_head
from sign_dist.transfer.kernels import Method
from sign_dist.transfer.load import LoadReport, load_into
from sign_dist.transfer.lora import quantise
from sign_dist.transfer.weights_file import read_weights

# The share of a model's tensors, its head left out, that a weights file must have; below it is another model's file.
MIN_MATCH = 0.95

# torch's generator is the process's: two threads that draw from it at once would both get other weights than their seed's.
_drawing = threading.Lock()

logger = logging.getLogger(__name__)


def with_absolute_files(run: Run) -> Run:
    """The same run with paths of weights and text models that hold wherever a worker's own folder is.

    A name of the hub, which is no folder here, stays as it is.
    """
    tree = run.flat()
    files = {name: tree[name] for name in ("train.start_from", *WEIGHT_FILES) if tree.get(name)}
    folders = {name: tree[name] for name in MODEL_FOLDERS if tree.get(name) and Path(tree[name]).is_dir()}
    here = {name: str(Path(path).absolute()) for name, path in (files | folders).items()}
    return run.with_values(here) if here else run


@dataclasses.dataclass(frozen=True)
class Source:
    """A weights file, and what is known of it beside its bytes; None and "" are not known."""

    file: Path
    vocab: Path | None = None
    colours: str = ""
    """The order of colours that its model expects."""


@dataclasses.dataclass(frozen=True)
class Taken:
    """What a model took from weights."""

    file: Path
    report: LoadReport
    head: HeadReport | None
    """None: both vocabularies are the same, or that of the weights is not known."""
    vocab_known: bool

    def __str__(self) -> str:
        return f"starts from {self.file}: {self.report}; {self._of_head()}"

    def _of_head(self) -> str:
        if not any(map(is_head, self.report.loaded)):
            return "head: new"
        if self.head is not None:
            return str(self.head)
        return "head: taken as it is" + ("" if self.vocab_known else ", for nothing says which glosses its rows are")


def start_model(
    run: Run,
    *,
    num_classes: int,
    feature_shape: tuple[int, ...],
    vocab: Vocab | None = None,
    on_taken: Callable[[Taken], None] | None = None,
) -> nn.Module:
    """The model of a run before its first step. `on_taken` is told what it took from weights.

    Raises:
        SettingsError: the features have a shape the model cannot read.
        WeightsError: `model.weights` or `train.start_from` names a file that is missing, damaged or another model's.
    """
    glosses = vocab.glosses if vocab else ()
    model = build_model(run.model, num_classes=num_classes, feature_shape=feature_shape, glosses=glosses)
    if isinstance(run.model, VlmModel) and run.model.quantize != "none":
        quantise(model, run.model.quantize, DTYPES[run.model.dtype])
    for said in take_parts(model, run.model):
        logger.info("%s", said)
    for weights in (getattr(run.model, "weights", ""), run.train.start_from):
        if weights:
            taken = start_from(model, Path(weights), vocab, adapt=getattr(run.model, "adapt", "temporal_mean"))
            logger.info("%s", taken)
            if on_taken is not None:
                on_taken(taken)
    return model


def first_model(run: Run, clip: Example, *, on_taken: Callable[[Taken], None] | None = None) -> nn.Module:
    """The same as `start_model`, in every process with the same first weights. `clip`: any of the run's.

    Raises:
        As `start_model`; DataError: the task has classes and there is no vocabulary.
    """
    vocab = vocab_of(run.task, DatasetDir(Path(run.data.root)))
    classes, shape = num_classes_of(run.task, vocab), clip.features.shape[1:]
    with _drawing:
        torch.manual_seed(run.train.seed)
        return start_model(run, num_classes=classes, feature_shape=shape, vocab=vocab, on_taken=on_taken)


def with_weights(
    settings: Model,
    lora: Lora,
    tensors: Mapping[str, Tensor],
    *,
    num_classes: int,
    feature_shape: tuple[int, ...],
    vocab: Vocab | None = None,
    whole: bool = False,
) -> nn.Module:
    """The model of a run with the weights of one of its checkpoints, to be asked. `lora` are the run's `train.lora`.

    Of a vision-language model with adapters, checkpoints hold these alone: it is built anew, in as few bits as it was trained
    with or, with `whole`, in all of them, and they are put into it.

    Raises:
        WeightsError: the weights are not those of such a model, or the model that they belong to is not there.
    """
    glosses = vocab.glosses if vocab else ()
    if isinstance(settings, VlmModel) and whole:
        settings = settings.model_copy(update={"quantize": "none"})
    model = build_model(settings, num_classes=num_classes, feature_shape=feature_shape, glosses=glosses)
    if isinstance(settings, VlmModel) and lora.targets:
        if settings.quantize != "none":
            quantise(model, settings.quantize, DTYPES[settings.dtype])
        adapt(model, lora)
    try:
        model.load_state_dict(dict(tensors))
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:160]
        raise WeightsError(f"the weights do not fit a model of kind {settings.kind!r} ({reason})") from None
    return model


def trained_model(run: Run, checkpoint: Path, feature_shape: tuple[int, ...]) -> nn.Module:
    """The model of a run as one of its checkpoints has it, in eval mode, for features of shape `(T, *feature_shape)`.

    Raises:
        WeightsError: the checkpoint is not one of such a run.
    """
    vocab = vocab_of(run.task, DatasetDir(Path(run.data.root)))
    return with_weights(
        run.model,
        run.train.lora,
        weights_of(checkpoint),
        num_classes=num_classes_of(run.task, vocab),
        feature_shape=feature_shape,
        vocab=vocab,
    ).eval()


def start_from(model: nn.Module, path: Path, vocab: Vocab | None = None, *, adapt: Method = "temporal_mean") -> Taken:
    """Copy the weights of a run, checkpoint, bundle or file into a model. Of the head it takes what fits.

    `adapt` says how kernels of Inception-I3D, which see space too, become those of the temporal one. That has layers which I3D
    lacks: they start afresh.

    Where the vocabulary of the weights is known and is another than `vocab`, rows of glosses that both have are carried over.

    Raises:
        WeightsError: there are no weights, or less than `MIN_MATCH` of what is below the head fits.
    """
    source = weights_at(path)
    tensors = tensors_for(read_weights(source.file), getattr(model, "colours", "rgb"), known=source.colours)
    fresh = model.state_dict()
    own: tuple[str, ...] = ()
    if isinstance(model, TemporalI3d) and any(tensor.ndim == 5 for tensor in tensors.values()):
        tensors, own = without_space(tensors, adapt), ("modality_fusion.", "stem.conv.", "lstm.")
    head: HeadReport | None = None
    if vocab is not None and source.vocab is not None and (old := Vocab.read(source.vocab)).glosses != vocab.glosses:
        tensors, head = replace_head(tensors, fresh, old.glosses, vocab.glosses, special=getattr(model, "num_special", 0))
    # What turns frames into vectors may come from a file of its own, and is not in a run that read vectors.
    spared = tuple(name for name in fresh if is_head(name) or name.startswith(("norm.", "front.")))
    report = load_into(model, tensors, min_match=MIN_MATCH, ignore=(*spared, *own))
    return Taken(source.file, report, head, source.vocab is not None)


def weights_at(path: Path) -> Source:
    """The weights file that a path stands for, the vocabulary of its head and its order of colours where they are known.

    Raises:
        WeightsError: nothing there holds weights.
        RunError: a run that has no checkpoint yet.
    """
    if path.is_file() and path.name in ("weights.safetensors", "model.safetensors"):
        beside = [path.parent / name for name in ("bundle.json", "progress.json")]
        path = path.parent if any(file.is_file() for file in beside) else path
    if (path / "bundle.json").is_file():
        return Source(path / "weights.safetensors", _there(path / "vocab.txt"), _colours_of_bundle(path / "bundle.json"))
    if (path / "run.json").is_file():
        return _of_run(RunDir(path), RunDir(path).chosen())
    if (path / "model.safetensors").is_file():
        return _of_run(RunDir(path.parent), path)
    if path.is_file():
        return Source(path, _there(path.parent / "vocab.txt"))
    raise WeightsError(f"{str(path)!r} holds no weights: name a run directory, a checkpoint, a bundle or a weights file")


def _of_run(run_dir: RunDir, checkpoint: Path) -> Source:
    file = checkpoint / "model.safetensors"
    if not run_dir.run_file.is_file():
        return Source(file)
    run = run_dir.run()
    dataset = DatasetDir(Path(run.data.root))
    vocab = _there(dataset.vocab_file) if _is_the_same(dataset, run_dir) else None
    return Source(file, vocab, getattr(run.model, "colours", ""))


def _is_the_same(dataset: DatasetDir, run_dir: RunDir) -> bool:
    """Whether a dataset is, as far as is known, the one that the run learned: it may have been prepared anew since."""
    try:
        then = json.loads(run_dir.environment_file.read_text(encoding="utf-8")).get("dataset", "")
        now = json.loads(dataset.facts_file.read_text(encoding="utf-8")).get("digest", "")
    except (OSError, ValueError, AttributeError):
        return True
    return then == now or not then or not now


def _colours_of_bundle(facts_file: Path) -> str:
    try:
        return str(json.loads(facts_file.read_text(encoding="utf-8"))["model"].get("colours", ""))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{str(facts_file)!r} cannot be read ({error}): export the run again") from None


def _there(path: Path) -> Path | None:
    return path if path.is_file() else None
