"""A finished run's answers before they are read out: computed once, so that beams and penalties can be tried without the model.

Of gloss sequences these are the logits of each step; of sentences what the encoder made of a clip, since the decoder's answer
depends on the search itself.
"""

import dataclasses
import math
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sign_dist.config.run import Run
from sign_dist.data.layout import DatasetDir
from sign_dist.errors import SettingsError
from sign_dist.models.slt import FeatureTranslator, Search
from sign_dist.tasks.build import build_task, vocab_of
from sign_dist.tasks.slt import SltOutputs
from sign_dist.tasks.task import Prediction
from sign_dist.training.data import Clips
from sign_dist.training.run_dir import RunDir
from sign_dist.training.start import trained_model


@dataclasses.dataclass(frozen=True)
class Encoded:
    """Per batch of val clips two tensors: logits and lengths, or encoder states and mask; and the loss of each clip."""

    batches: list[tuple[Tensor, Tensor]]
    losses: Tensor

    def save(self, file: Path) -> None:
        tensors = {"losses": self.losses}
        for i, (first, second) in enumerate(self.batches):
            tensors |= {f"{i}.first": first.contiguous(), f"{i}.second": second.contiguous()}
        unfinished = file.with_suffix(".part")
        save_file(tensors, unfinished)
        unfinished.replace(file)

    @classmethod
    def load(cls, file: Path) -> "Encoded":
        tensors = load_file(file)
        count = (len(tensors) - 1) // 2
        return cls([(tensors[f"{i}.first"], tensors[f"{i}.second"]) for i in range(count)], tensors["losses"])


@torch.inference_mode()
def encode(of: RunDir) -> Encoded:
    """Ask the model of a finished run about its val clips.

    Raises:
        RunError: the run has no checkpoint.
        SettingsError: answers of its task are not searched for, or its model does not part reading from writing.
    """
    run = of.run()
    model, task, clips = _model(of), build_task(run, _vocab(run)), Clips.of(run, run.data.val_split)
    if not (run.task == "cslr" or isinstance(model, FeatureTranslator)):
        raise SettingsError(
            f"answers of task {run.task!r} by model.kind = {run.model.kind!r} are not searched for behind what the model makes of "
            "a clip: this is for gloss sequences (cslr) and for sentences of model.kind = 'translator'"
        )
    batches: list[tuple[Tensor, Tensor]] = []
    losses: list[Tensor] = []
    for indices in _cut(len(clips), run.train.batch_size):
        batch = task.collate([clips[i] for i in indices])
        found, outputs = task.losses(model, batch)
        losses.append(torch.stack(list(found.values())).sum(dim=0))
        if isinstance(model, FeatureTranslator):
            batches.append(model.encode(batch.features, batch.lengths))
        else:
            both: Any = outputs
            batches.append((both.logits, both.lengths) if hasattr(both, "logits") else (both[0], both[1]))
    return Encoded(batches, torch.cat(losses).float())


@torch.inference_mode()
def read_out(of: RunDir, encoded: Encoded, run: Run) -> dict[str, float]:
    """Scores of the val clips when answers are searched for as `run.decode` says; as an evaluation names them."""
    task, clips = build_task(run, _vocab(run)), Clips.of(run, run.data.val_split)
    model = _model(of) if run.task == "slt" else None
    references: list[str] = []
    predictions: list[Prediction] = []
    for indices, (first, second) in zip(_cut(len(clips), of.run().train.batch_size), encoded.batches, strict=True):
        batch = task.collate([clips[i] for i in indices])
        outputs: Any = (first, second)
        if model is not None:
            assert isinstance(model, FeatureTranslator)
            replayed: Any = _Replayed(model, first, second)
            none: Any = None
            outputs = SltOutputs(replayed, none)
        predictions += task.decode(outputs, batch, 5)
        references += batch.references
    losses = encoded.losses.tolist()
    return task.score(references, predictions) | {"loss": math.fsum(losses) / len(losses)}


def share_checkpoint(of: RunDir, to: RunDir) -> Path:
    """Put the checkpoint that a run stands for into another run directory as well, without a second copy of its weights."""
    chosen = of.chosen()
    target = to.root / chosen.name
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(chosen, target, copy_function=_link)
    return target


@dataclasses.dataclass(frozen=True)
class _Replayed:
    """A model that has read these clips already."""

    model: FeatureTranslator
    encoded: Tensor
    mask: Tensor

    def write(self, features: Tensor, lengths: Tensor, search: Search) -> Any:
        return self.model.write_encoded(self.encoded, self.mask, search)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)


def _model(of: RunDir) -> nn.Module:
    run, checkpoint = of.run(), of.chosen()
    clips = Clips.of(run, run.data.val_split)
    return trained_model(run, checkpoint, clips[0].features.shape[1:])


def _vocab(run: Run) -> Any:
    return vocab_of(run.task, DatasetDir(Path(run.data.root)))


def _cut(count: int, size: int) -> list[range]:
    return [range(start, min(start + size, count)) for start in range(0, count, size)]
