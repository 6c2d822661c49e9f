"""settings -> task, the one `match`."""

import collections
import functools
from collections.abc import Sequence

import numpy as np

from sign_dist.config.model import CslrHeadModel
from sign_dist.config.run import Run
from sign_dist.config.train import Augment
from sign_dist.data.sample import Sample
from sign_dist.data.vocab import Vocab
from sign_dist.errors import SettingsError
from sign_dist.models.build import time_stride_of
from sign_dist.tasks.cslr import Cslr
from sign_dist.tasks.islr import Augmentation, Islr
from sign_dist.tasks.task import Monitor, Task
from sign_dist.video import transform
from sign_dist.video.frames import spread

LONGEST_GAP = 4
"""Landmark steps that a hand may be missing for in a clip of several signs: shorter than a sign."""


def build_task(run: Run, vocab: Vocab, train_samples: Sequence[Sample] = ()) -> Task:
    """The task of a run; `train_samples` are only counted, for class weights."""
    match run.task:
        case "islr":
            return Islr(
                vocab,
                label_smoothing=run.train.label_smoothing,
                class_weights=_balanced(vocab, train_samples) if run.train.class_weights == "balanced" else None,
                mixup=run.train.mixup,
                augment=_augmentation(run),
            )
        case "cslr":
            return Cslr(
                vocab,
                time_stride=time_stride_of(run.model),
                beam=run.decode.beam,
                merge=run.decode.merge,
                alignment=isinstance(run.model, CslrHeadModel) and run.model.alignment,
                augment=_augmentation(run),
            )
        case "slt":
            raise SettingsError("task = 'slt' cannot be trained yet: use 'islr' or 'cslr'")


def num_classes_of(task: str, vocab: Vocab) -> int:
    """How many classes a model of this task tells apart: the glosses, and in continuous recognition the CTC blank."""
    return len(vocab) + 1 if task == "cslr" else len(vocab)


def monitor_of(run: Run) -> Monitor:
    """The score that chooses the run's checkpoints."""
    match run.task:
        case "islr":
            return Islr.monitor
        case "cslr":
            return Cslr.monitor
        case "slt":
            raise SettingsError("task = 'slt' cannot be trained yet: use 'islr' or 'cslr'")


def _balanced(vocab: Vocab, samples: Sequence[Sample]) -> list[float]:
    """n / (V * n_gloss), so that every gloss has the same weight in sum; 1 for a gloss without clips."""
    counts = collections.Counter(s.gloss for s in samples)
    return [len(samples) / (len(vocab) * counts[g]) if counts[g] else 1.0 for g in vocab.glosses]


def _augmentation(run: Run) -> Augmentation | None:
    settings = run.train.augment
    if run.task != "islr":  # a label of several signs: none of them may be cut away
        settings = settings.model_copy(update={"crop": 0.0})
    match run.data.features.kind:
        case "landmarks":
            longest = None if run.task == "islr" else LONGEST_GAP
            return functools.partial(_landmarks, settings=settings, longest_gap=longest)
        case "frames":
            return functools.partial(_frames, settings=settings)
        case "signhiera":
            return functools.partial(_vectors, settings=settings)


def _landmarks(points: np.ndarray, rng: np.random.Generator, *, settings: Augment, longest_gap: int | None = None) -> np.ndarray:
    return transform.augment_landmarks(
        points.astype(np.float32),
        rng,
        mirror_probability=settings.mirror,
        speed=settings.speed,
        crop=settings.crop,
        frame_drop=settings.drop,
        rotate_deg=settings.rotate_deg,
        scale=settings.scale,
        shear=settings.shear,
        shift=settings.shift,
        hand_rotate_deg=settings.hand_rotate_deg,
        hand_scale=settings.hand_scale,
        hand_shift=settings.hand_shift,
        face_dropout=settings.drop_face,
        hand_dropout=settings.drop_hand,
        longest_gap=longest_gap,
        noise=settings.noise,
    )


def _frames(frames: np.ndarray, rng: np.random.Generator, *, settings: Augment) -> np.ndarray:
    """Time is warped over the clip, but as many frames as before come out: a frame model has one length."""
    changed = transform.augment_frames(
        frames,
        rng,
        mirror_probability=settings.mirror,
        speed=settings.speed,
        crop=settings.crop,
        frame_drop=settings.drop,
        zoom=settings.scale,
        brightness=settings.colour,
        contrast=settings.colour,
        saturation=settings.colour,
    )
    return spread(changed, len(frames))


def _vectors(features: np.ndarray, rng: np.random.Generator, *, settings: Augment) -> np.ndarray:
    """Time only: what a feature means in space is the encoder's secret."""
    features = transform.crop_time(features.astype(np.float32), rng, settings.crop)
    return transform.drop_frames(features, rng, settings.drop)
