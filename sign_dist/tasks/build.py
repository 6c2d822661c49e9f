"""settings -> task, the one `match`."""

import collections
import functools
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sign_dist.config.data import FrameFeatures
from sign_dist.config.model import CslrHeadModel, SonarModel, TranslatorModel, VlmModel
from sign_dist.config.run import Run
from sign_dist.config.train import Augment
from sign_dist.data.layout import DatasetDir
from sign_dist.data.sample import Sample
from sign_dist.data.vocab import Vocab
from sign_dist.errors import DataError
from sign_dist.metrics.text import Language
from sign_dist.models.build import gloss_vocab, text_tokens, time_stride_of, vlm_tokens
from sign_dist.models.slt import Search
from sign_dist.tasks.cslr import Cslr
from sign_dist.tasks.embeddings import Embeddings, read_embeddings
from sign_dist.tasks.islr import Augmentation, Islr
from sign_dist.tasks.slt import LossWeights, Slt
from sign_dist.tasks.task import Monitor, Task
from sign_dist.tasks.vlm import VlmTask
from sign_dist.video import transform
from sign_dist.video.frames import spread

logger = logging.getLogger(__name__)

LANGUAGES: dict[str, Language] = {"": "en", "eng": "en", "deu": "de", "zho": "zh"}

LONGEST_GAP = 4
"""Landmark steps that a hand may be missing for in a clip of several signs: shorter than a sign."""


def build_task(run: Run, vocab: Vocab | None, train_samples: Sequence[Sample] = (), *, in_training: bool = False) -> Task:
    """The task of a run; `train_samples` are only counted, for class weights. `in_training`: answers are decoded quickly.

    Raises:
        DataError: the task has classes and there is no vocabulary, or target embeddings cannot be read.
        WeightsError: there is no such tokenizer.
    """
    match run.task:
        case "islr":
            vocab = _needed(vocab)
            return Islr(
                vocab,
                label_smoothing=run.train.label_smoothing,
                class_weights=_balanced(vocab, train_samples) if run.train.class_weights == "balanced" else None,
                mixup=run.train.mixup,
                augment=_augmentation(run),
            )
        case "cslr":
            return Cslr(
                _needed(vocab),
                time_stride=time_stride_of(run.model),
                beam=run.decode.beam_in_training if in_training else run.decode.beam,
                merge=run.decode.merge,
                alignment=isinstance(run.model, CslrHeadModel) and run.model.alignment,
                augment=_augmentation(run),
            )
        case "slt":
            return _slt(run, train_samples, in_training=in_training)
        case "vlm":
            model, vocab = run.model, _needed(vocab)
            assert isinstance(model, VlmModel)
            assert isinstance(run.data.features, FrameFeatures)
            return VlmTask(
                vocab,
                vlm_tokens(model, vocab.glosses, run.data.features.size_px),
                label_smoothing=run.train.label_smoothing,
                class_weights=_balanced(vocab, train_samples) if run.train.class_weights == "balanced" else None,
                augment=_augmentation(run),
                weighing=run.decode.weigh,
                beams=0 if in_training else run.decode.beam,
                max_new=run.decode.max_len,
            )


def num_classes_of(task: str, vocab: Vocab | None) -> int:
    """How many classes a model of this task tells apart: the glosses, and in continuous recognition the CTC blank.

    Raises:
        DataError: the task has classes and there is no vocabulary.
    """
    if task == "slt":
        return 0  # its model writes text
    return len(_needed(vocab)) + (task == "cslr")


def vocab_of(task: str, dataset: DatasetDir) -> Vocab | None:
    """The glosses that a task tells apart; None for translations, whose corpora may have none.

    Raises:
        DataError: the task needs them, and the dataset has none.
    """
    return None if task == "slt" else Vocab.read(dataset.vocab_file)


def reference_of(task: str, sample: Sample) -> str:
    """What a clip should be answered with; "" where nobody has said so."""
    return sample.translation.strip() if task == "slt" else sample.gloss


def unusable(task: str, sample: Sample) -> str:
    """Why a clip can be neither learned from nor scored; "" if it can."""
    if task == "slt" and not reference_of(task, sample):
        return "no_translation: nobody has said what is signed in it"
    return ""


def monitor_of(run: Run) -> Monitor:
    """The score that chooses the run's checkpoints."""
    match run.task:
        case "islr":
            return Islr.monitor
        case "cslr":
            return Cslr.monitor
        case "slt":
            return Slt.monitor
        case "vlm":
            return VlmTask.monitor


def _needed(vocab: Vocab | None) -> Vocab:
    if vocab is None:
        raise DataError("this task tells glosses apart, and there is no vocabulary: prepare a corpus with glosses, or use task=slt")
    return vocab


def _slt(run: Run, train_samples: Sequence[Sample], *, in_training: bool) -> Slt:
    model, decode = run.model, run.decode
    assert isinstance(model, TranslatorModel | SonarModel)
    sonar = model if isinstance(model, SonarModel) else None
    glosses = gloss_vocab(model) if isinstance(model, TranslatorModel) and in_training else None
    weights = LossWeights(**model.losses.model_dump()) if isinstance(model, SonarModel) else LossWeights(glosses=model.gloss_loss)
    return Slt(
        text_tokens(model),
        search=Search(
            beam=decode.beam_in_training if in_training else decode.beam, max_len=decode.max_len, len_penalty=decode.len_penalty
        ),
        label_smoothing=run.train.label_smoothing,
        loss_weights=weights,
        # Only losses read them, and only in training do those matter.
        embeddings=_embeddings(sonar.target_embeddings, train_samples) if sonar and in_training else None,
        glosses={sample.id: _classes(sample, glosses) for sample in train_samples} if glosses else None,
        language=_language(run),
        augment=_augmentation(run),
    )


def _classes(sample: Sample, vocab: Vocab) -> list[int]:
    """The classes of a clip's glosses; none where one of them is not in the vocabulary."""
    place = {gloss: i + 1 for i, gloss in enumerate(vocab.glosses)}
    words = sample.gloss.split()
    return [place[word] for word in words] if all(word in place for word in words) else []


def _embeddings(file: str, train_samples: Sequence[Sample]) -> Embeddings | None:
    if not file:
        return None
    found = read_embeddings(Path(file))
    without = [sample.id for sample in train_samples if sample.id not in found]
    if without and len(without) == len(train_samples):
        raise DataError(
            f"target embeddings {file!r} have none of the {len(without)} clips, such as {without[0]!r}: whose are they?"
        )
    if without:
        logger.warning("%d of %d clips have no target embedding: %s", len(without), len(train_samples), ", ".join(without[:5]))
    return found


def _language(run: Run) -> Language:
    """Whose words scores count, as the dataset names its text's language (ISO 639-3); English where it does not."""
    try:
        written = str(DatasetDir(Path(run.data.root)).facts().get("text_language", ""))
    except DataError:  # a model that is only asked has no dataset beside it
        written = ""
    return LANGUAGES.get(written, "other")


def _balanced(vocab: Vocab, samples: Sequence[Sample]) -> list[float]:
    """n / (V * n_gloss), so that every gloss has the same weight in sum; 1 for a gloss without clips."""
    counts = collections.Counter(s.gloss for s in samples)
    return [len(samples) / (len(vocab) * counts[g]) if counts[g] else 1.0 for g in vocab.glosses]


def _augmentation(run: Run) -> Augmentation | None:
    settings = run.train.augment
    if run.train.cache_prefix:  # its settings change nothing, and clips may come as activations
        return None
    if run.task in ("cslr", "slt"):  # a label of several signs: none of them may be cut away
        settings = settings.model_copy(update={"crop": 0.0})
    match run.data.features.kind:
        case "landmarks":
            longest = LONGEST_GAP if run.task in ("cslr", "slt") else None
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
