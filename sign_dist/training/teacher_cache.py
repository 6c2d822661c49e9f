"""A teacher's answers, asked once and kept: a store of rows by the clip's key, below a folder named by the teacher's digest.

Content-addressed on both sides: the folder's name follows from weights, network and features, the row's key from the clip's
bytes and span. So a store serves any number of students and runs, is filled by any number of writers, and cannot hold an
answer of another teacher. Answers step by step hold for clips that are not augmented; a decoded answer is a label, which holds
however the clip is changed.
"""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
import torch

from sign_dist.config.distill import Distill
from sign_dist.config.run import Run
from sign_dist.data.sample import Sample
from sign_dist.errors import DataError
from sign_dist.features.place import join
from sign_dist.features.store import FeatureReader, FeatureStore, pack
from sign_dist.tasks.task import Example
from sign_dist.tasks.teacher import Teacher, answers_of
from sign_dist.training.data import ClipSource
from sign_dist.training.teacher import TeacherFacts

What = Literal["logits", "sequence"]


@dataclasses.dataclass(frozen=True)
class StoredAnswers:
    """Answers by clip id, as `tasks.distill` asks for them."""

    keys: dict[str, str]
    """Clip id -> key."""
    readers: dict[What, FeatureReader]

    def logits(self, ids: Sequence[str]) -> list[np.ndarray]:
        return [self._of("logits", clip) for clip in ids]

    def hypotheses(self, ids: Sequence[str]) -> list[str]:
        return [self._of("sequence", clip).tobytes().decode("utf-8") for clip in ids]

    def _of(self, what: What, clip: str) -> np.ndarray:
        return self.readers[what].features(self.keys[clip])


def kept_kinds(settings: Distill) -> list[What]:
    """What of a teacher is kept for these settings."""
    told = settings.told()
    kinds: tuple[What, ...] = ("logits", "sequence")
    return [what for what in kinds if what in told]


def answer_store(cache: str, facts: TeacherFacts, what: What) -> FeatureStore:
    """The store of one teacher's answers, made if it is not there."""
    digest = facts.digest()
    store = FeatureStore(join(cache, f"{what}-{digest}"))
    record = {"teacher": str(facts.where), "what": what, "digest": digest, "model": facts.model.model_dump(mode="json")}
    store.place.create("teacher.json", (json.dumps(record, indent=2) + "\n").encode())
    return store


def unasked(store: FeatureStore, keys: Iterable[str]) -> list[str]:
    """Keys that have no answer yet, each once."""
    known = store.errors()
    return [key for key in dict.fromkeys(keys) if key not in known or known[key]]


@torch.no_grad()
def answer_rows(teacher: Teacher, examples: Sequence[Example], what: What) -> list[dict[str, Any]]:
    """The rows of a batch of clips: logits (T', V) or (V,) as float32, or the decoded text as bytes."""
    batch = teacher.task.collate(examples).to(next(teacher.model.parameters()).device)
    outputs, _ = teacher.ask(batch)
    answers: list[np.ndarray]
    if what == "logits":
        logits, lengths = answers_of(outputs)
        rows = logits.float().cpu().numpy()
        answers = list(rows) if lengths is None else [row[:n] for row, n in zip(rows, lengths.tolist(), strict=True)]
    else:
        texts = [prediction.hypothesis for prediction in teacher.task.decode(outputs, batch, 1)]
        answers = [np.frombuffer(text.encode("utf-8"), dtype=np.uint8) for text in texts]
    return [
        {"key": e.sample.key, "id": e.sample.id, "fps": e.sample.fps, "error": "", **pack(answer)}
        for e, answer in zip(examples, answers, strict=True)
    ]


def stored_answers(run: Run, facts: TeacherFacts, clips: ClipSource) -> StoredAnswers:
    """The answers to all clips of a run.

    Raises:
        DataError: some clips have not been asked.
    """
    samples = samples_of(clips)
    readers: dict[What, FeatureReader]
    readers = {w: answer_store(run.train.distill.cache, facts, w).reader() for w in kept_kinds(run.train.distill)}
    for what, reader in readers.items():
        missing = [s.id for s in samples if s.key not in reader]
        if missing:
            raise DataError(
                f"{len(missing)} clips, such as {missing[0]!r}, have no answer ({what}) of teacher {str(facts.where)!r} in "
                f"{reader.store.uri!r}: begin the run again, which asks for them first"
            )
    return StoredAnswers({sample.id: sample.key for sample in samples}, readers)


def samples_of(clips: ClipSource) -> Sequence[Sample]:
    """What is known of each clip, without reading its features where that can be had."""
    known = getattr(clips, "samples", None)
    return known if known is not None else [clips[i].sample for i in range(len(clips))]
