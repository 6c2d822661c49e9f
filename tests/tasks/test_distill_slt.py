"""The terms of a teacher around translation: real translators, whose words may be written in other tokens than the student's."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from sign_dist.config.data import Data
from sign_dist.config.model import SonarModel, TranslatorModel
from sign_dist.config.run import Run
from sign_dist.data.sample import Sample
from sign_dist.models.build import build_model
from sign_dist.models.slt import Search
from sign_dist.tasks.build import build_task
from sign_dist.tasks.distill import Distilled, Terms
from sign_dist.tasks.slt import Slt, SltOutputs
from sign_dist.tasks.task import Batch, Example, Prediction
from sign_dist.tasks.teacher import Teacher

SHAPE = (6,)


def made(model: TranslatorModel | SonarModel, seed: int) -> tuple[Slt, nn.Module]:
    run = Run(task="slt", data=Data(root="nowhere"), model=model).with_values({"decode.max_len": 6})
    task = build_task(run, None, in_training=True)
    assert isinstance(task, Slt)
    torch.manual_seed(seed)
    return task, build_model(model, num_classes=0, feature_shape=SHAPE)


def clips(*sentences: str) -> list[Example]:
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(5 + i, *SHAPE)).astype(np.float32) for i in range(len(sentences))]
    return [Example(Sample(f"clip{i}", "", translation=s), a) for i, (s, a) in enumerate(zip(sentences, arrays, strict=True))]


SMALL = TranslatorModel(width=16, depth=1, heads=2, dropout=0.0)


@pytest.mark.long
def test_a_translators_sentence_is_learned_beside_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    (task, student), (teacher_task, teacher) = made(SMALL, 0), made(SMALL, 1)
    wrapped = Distilled(task, Teacher(teacher, teacher_task), Terms({"sequence": 1.0}, alpha=0.4), reads_targets=True)
    examples = clips("a dog", "", "the cat sleeps")
    texts = ["dogs", "a bird sings", "cats"]
    written: list[int] = []

    def decode(outputs: SltOutputs, batch: Batch, k: int = 5) -> list[Prediction]:
        written.append(len(outputs.model.write(batch.features, batch.lengths, Search(beam=1, max_len=4))))
        return [Prediction(text, ()) for text in texts]

    monkeypatch.setattr(teacher_task, "decode", decode)  # what untrained weights would write is noise, or nothing
    student.train()
    found, _ = wrapped.losses(student, wrapped.collate(examples))
    assert written == [3]
    retold = [Example(dataclasses.replace(e.sample, translation=t), e.features) for e, t in zip(examples, texts, strict=True)]
    for name, share, each in (("cross_entropy", 0.6, examples), ("distill_sequence", 0.4, retold)):
        expected = share * task.losses(student, task.collate(each))[0]["cross_entropy"]
        torch.testing.assert_close(found[name], expected, atol=1e-4, rtol=1e-4)
    assert found["cross_entropy"][1] == 0, "a clip without a translation learns from the teacher alone"
    torch.stack(list(found.values())).sum().backward()
    assert all(p.grad is None for p in teacher.parameters())


@pytest.mark.long
def test_sentence_embeddings_are_drawn_together() -> None:
    small = SonarModel(dropout=0.0)
    (task, student), (teacher_task, teacher) = made(small, 0), made(small, 1)
    wrapped = Distilled(task, Teacher(teacher, teacher_task), Terms({"embedding": 1.0}, alpha=1.0), reads_targets=True)
    batch = wrapped.collate(clips("a dog", "the cat sleeps"))
    student.train()
    found, _ = wrapped.losses(student, batch)
    assert (found["distill_embedding"] > 0.01).all()
    teacher.load_state_dict(student.state_dict())
    assert wrapped.losses(student, batch)[0]["distill_embedding"].abs().max() < 1e-4
