"""A task around another one and a teacher: what it adds, what it leaves alone, and what it refuses."""

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sign_dist.data.sample import Sample
from sign_dist.data.vocab import Vocab
from sign_dist.errors import SettingsError
from sign_dist.models.distillation import aligned
from sign_dist.models.mimicry import DistilledStudent, Layer, WithHints, find_layers, without_projections
from sign_dist.models.slt import Said
from sign_dist.models.student import CtcStudent
from sign_dist.models.temporal_i3d import TemporalI3d
from sign_dist.tasks.cslr import Cslr
from sign_dist.tasks.distill import Distilled, Terms
from sign_dist.tasks.islr import Islr
from sign_dist.tasks.slt import SltOutputs
from sign_dist.tasks.task import Batch, Example, Prediction, Task
from sign_dist.tasks.teacher import Teacher

VOCAB = Vocab(("A", "B", "C", "D"))
WIDTH = 5


class Steps(nn.Module):
    """Gloss sequences: a step for every `stride` frames; what stands behind a clip is never read."""

    def __init__(self, seed: int, *, stride: int = 2, num_classes: int = 5, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.stride = stride
        self.body = nn.Linear(WIDTH, 6)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(6, num_classes)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.body(features[:, :: self.stride]).tanh()
        return self.head(self.dropout(hidden)), -(-lengths // self.stride)


class Signs(nn.Module):
    """Single signs: one answer a clip."""

    def __init__(self, seed: int, *, members: int = 1) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.body = nn.Linear(WIDTH, 6)
        self.heads = nn.ModuleList(nn.Linear(6, 4) for _ in range(members))

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        hidden = self.body(features.sum(1) / lengths[:, None]).tanh()
        answers = torch.stack([head(hidden) for head in self.heads])
        return answers if self.training and len(self.heads) > 1 else answers.mean(0)


def example(name: str, label: str, num_frames: int, seed: int = 0) -> Example:
    rng = np.random.default_rng([seed, num_frames])
    return Example(Sample(name, "", label), rng.normal(size=(num_frames, WIDTH)).astype(np.float32))


SENTENCES = [example("one", "A B", 12), example("two", "C", 8), example("three", "D A C", 17)]
CLIPS = [example("one", "A", 12), example("two", "C", 8), example("three", "D", 17)]


def cslr() -> Cslr:
    return Cslr(VOCAB, time_stride=2, beam=1)


def wrap(
    task: Task, teacher: nn.Module, kinds: Sequence[str] = ("logits",), *, teacher_task: Task | None = None, **given: Any
) -> Distilled:
    reads, layers = given.pop("reads_targets", False), given.pop("layers", ())
    terms = Terms(told=dict.fromkeys(kinds, 1.0), **given)
    return Distilled(task, Teacher(teacher, teacher_task or task, layers=layers), terms, reads_targets=reads)


CASES = [
    pytest.param(cslr, Steps, SENTENCES, id="cslr"),
    pytest.param(lambda: Islr(VOCAB, label_smoothing=0.1), Signs, CLIPS, id="islr"),
]


def total(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(losses.values())).sum(0)


# --- laws -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("make", "model", "clips"), CASES)
def test_alpha_0_is_the_task_itself_and_asks_no_teacher(make: Any, model: Any, clips: list[Example]) -> None:
    class Silent(nn.Module):
        def forward(self, *_: Any) -> Any:
            pytest.fail("the teacher was asked")

    task, student = make(), model(0)
    batch = task.collate(clips)
    own, outputs = task.losses(student, batch)
    found, again = wrap(task, Silent(), ("logits", "sequence"), alpha=0.0).losses(student, batch)
    assert found.keys() == own.keys()
    assert all(torch.equal(found[name], own[name]) for name in own)
    assert all(torch.equal(a, b) for a, b in zip(outputs, again, strict=True))


@pytest.mark.parametrize(("make", "model", "clips"), CASES)
def test_evaluation_is_the_tasks_own(make: Any, model: Any, clips: list[Example]) -> None:
    task, student = make(), model(0).eval()
    wrapped = wrap(task, model(1))
    batch = wrapped.collate(clips)
    own, outputs = task.losses(student, batch)
    found, again = wrapped.losses(student, batch)
    assert {n: v.tolist() for n, v in found.items()} == {n: v.tolist() for n, v in own.items()}
    predictions = wrapped.decode(again, batch)
    assert predictions == task.decode(outputs, batch)
    assert wrapped.score(batch.references, predictions) == task.score(batch.references, predictions)
    assert wrapped.monitor == task.monitor


@pytest.mark.parametrize("reduction", ["valid_frames", "all_frames", "seed", "per_clip"])
@pytest.mark.parametrize(("make", "model", "clips"), CASES)
def test_a_teacher_that_says_the_same_adds_nothing(make: Any, model: Any, clips: list[Example], reduction: Any) -> None:
    task, student = make(), model(0)
    batch = task.collate(clips)
    found, _ = wrap(task, copy.deepcopy(student), alpha=1.0, reduction=reduction).losses(student, batch)
    assert found["distill_logits"].abs().max() < 1e-6
    other, _ = wrap(task, model(1), alpha=1.0, reduction=reduction).losses(student, batch)
    assert (other["distill_logits"] > 1e-3).all()
    assert all(not value.any() for name, value in other.items() if not name.startswith("distill"))


@pytest.mark.parametrize("kinds", [("logits",), ("sequence",), ("logits", "sequence")])
@pytest.mark.parametrize(("make", "model", "clips"), CASES)
def test_no_gradient_reaches_the_teacher_and_it_stands_still(make: Any, model: Any, clips: list[Example], kinds: Any) -> None:
    task, student, teacher = make(), model(0), model(1)
    wrapped = wrap(task, teacher.train(), kinds)
    before = copy.deepcopy(teacher.state_dict())
    losses, _ = wrapped.losses(student, wrapped.collate(clips))
    total(losses).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in student.parameters())
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    assert not teacher.training
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())


@pytest.mark.parametrize(("make", "model", "clips"), CASES)
def test_the_sum_is_linear_in_alpha(make: Any, model: Any, clips: list[Example]) -> None:
    task, student, teacher = make(), model(0), model(1)
    batch = task.collate(clips)
    hard, soft, half = (total(wrap(task, teacher, alpha=a).losses(student, batch)[0]) for a in (0.0, 1.0, 0.25))
    torch.testing.assert_close(half, 0.25 * soft + 0.75 * hard)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(2, 20), min_size=1, max_size=4), st.integers(0, 6))
def test_a_clips_own_loss_knows_neither_padding_nor_batch(lengths: list[int], padding: int) -> None:
    task, student, teacher = cslr(), Steps(0), Steps(1)
    wrapped = wrap(task, teacher, alpha=1.0, reduction="per_clip")
    clips = [example(f"clip{i}", "A", n, i) for i, n in enumerate(lengths)]
    batch = wrapped.collate(clips)
    more = dataclasses.replace(batch, features=torch.nn.functional.pad(batch.features, (0, 0, 0, padding), value=7.0))
    together = wrapped.losses(student, more)[0]["distill_logits"]
    alone = [wrapped.losses(student, wrapped.collate([clip]))[0]["distill_logits"] for clip in clips]
    torch.testing.assert_close(together, torch.cat(alone))
    # The default is the mean over all steps inside the clips, so padding changes nothing and the batch's mean is theirs.
    frames = wrap(task, teacher, alpha=1.0).losses(student, more)[0]["distill_logits"]
    steps = torch.tensor([float(-(-n // 2)) for n in lengths])
    torch.testing.assert_close(frames.mean(), (together * steps).sum() / steps.sum())


def test_a_clip_that_counts_nothing_takes_no_part_in_the_mean_of_the_others() -> None:
    task, student, teacher = cslr(), Steps(0), Steps(1)
    wrapped = wrap(task, teacher, alpha=1.0)
    alone = wrapped.losses(student, wrapped.collate(SENTENCES[:2]))[0]["distill_logits"]
    batch = wrapped.collate(SENTENCES)
    batch = dataclasses.replace(batch, weights=torch.tensor([1.0, 1.0, 0.0]))
    beside = wrapped.losses(student, batch)[0]["distill_logits"]
    torch.testing.assert_close(beside[:2], alone)
    assert beside[2] == 0


# --- clips without labels, sequences ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("make", "model", "clips"), CASES)
def test_a_clip_without_label_is_learned_from_the_teacher_alone(make: Any, model: Any, clips: list[Example]) -> None:
    task, student = make(), model(0)
    bare = [*clips[:2], Example(dataclasses.replace(clips[2].sample, gloss=""), clips[2].features)]
    wrapped = wrap(task, model(1), alpha=0.5, reduction="per_clip")
    batch = wrapped.collate(bare)
    assert batch.weights.tolist() == [1, 1, 1]
    found, _ = wrapped.losses(student, batch)
    with_label, _ = wrapped.losses(student, wrapped.collate(clips))
    for name, value in found.items():
        torch.testing.assert_close(value[:2], with_label[name][:2])
        assert (value[2] == 0) is not name.startswith("distill"), name
    torch.testing.assert_close(found["distill_logits"][2], with_label["distill_logits"][2])


def test_a_gloss_that_is_in_no_vocabulary_still_has_no_weight() -> None:
    task = Islr(VOCAB)
    batch = wrap(task, Signs(1)).collate([*CLIPS, example("odd", "NEVER SEEN", 9)])
    assert batch.weights.tolist() == [1, 1, 1, 0]


@pytest.mark.parametrize(("make", "model", "clips"), CASES)
def test_the_teachers_answer_takes_the_references_place(make: Any, model: Any, clips: list[Example]) -> None:
    task, student, teacher = make(), model(0), model(3)
    batch = task.collate(clips)
    _, outputs = task.losses(teacher.eval(), batch)
    texts = [prediction.hypothesis for prediction in task.decode(outputs, batch, 1)]
    assert all(texts)
    renamed = [Example(dataclasses.replace(c.sample, gloss=t), c.features) for c, t in zip(clips, texts, strict=True)]
    expected = total(task.losses(student, task.collate(renamed))[0])
    found, _ = wrap(task, teacher, ("sequence",), alpha=1.0).losses(student, batch)
    torch.testing.assert_close(total(found), expected)
    joined, _ = wrap(task, teacher, ("sequence",), alpha=0.3).losses(student, batch)
    torch.testing.assert_close(total(joined), 0.3 * expected + 0.7 * total(task.losses(student, batch)[0]))


def test_a_teacher_that_says_nothing_of_a_clip_teaches_nothing_of_it() -> None:
    task, teacher = cslr(), Steps(1)
    with torch.no_grad():
        teacher.head.bias.copy_(torch.tensor([50.0, 0, 0, 0, 0]))  # all blank
    found, _ = wrap(task, teacher, ("sequence",), alpha=0.5).losses(Steps(0), task.collate(SENTENCES))
    assert not found["distill_sequence"].any()
    assert (found["ctc"] > 0).all()


class Writer(nn.Module):
    """Stands for a translator: reads the reference, and has an embedding of the clip."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.body, self.tokens, self.head = nn.Linear(WIDTH, 6), nn.Embedding(4, 6), nn.Linear(6, 4)
        self.calls = 0

    def forward(self, features: Tensor, lengths: Tensor, targets: Tensor) -> Said:
        self.calls += 1
        embedding = self.body(features.sum(1) / lengths[:, None])
        logits = self.head(embedding[:, None] + self.tokens(targets.clamp(min=0)))
        return Said(logits, targets, embedding)


class Words:
    """A task whose references are words w0 to w3, which its model reads; as translation is."""

    monitor = Islr.monitor

    def __init__(self, answer: str = "w1 w2") -> None:
        self.answer = answer

    def collate(self, examples: Sequence[Example], rngs: Any = None) -> Batch:
        rows = [torch.tensor([int(w[1:]) for w in e.sample.translation.split()]) for e in examples]
        targets = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-100)
        arrays = [torch.from_numpy(e.features) for e in examples]
        texts = tuple(e.sample.translation for e in examples)
        features = nn.utils.rnn.pad_sequence(arrays, batch_first=True)
        lengths = torch.tensor([len(a) for a in arrays])
        return Batch(tuple(e.sample.id for e in examples), texts, features, lengths, targets, torch.ones(len(rows)))

    def losses(self, model: Any, batch: Batch) -> Any:
        said = model(batch.features, batch.lengths, batch.targets)
        loss = nn.functional.cross_entropy(said.logits.transpose(1, 2), said.labels, ignore_index=-100, reduction="none")
        return {"cross_entropy": loss.sum(1)}, SltOutputs(model, said)

    def decode(self, outputs: Any, batch: Batch, k: int = 5) -> list[Prediction]:
        return [Prediction(self.answer, ()) for _ in batch.ids]

    def score(self, references: Any, predictions: Any) -> dict[str, float]:
        return {"top1": 0.0}


TRANSLATED = [
    Example(Sample(f"clip{i}", "", translation=t), example("", "", 4 + i).features) for i, t in enumerate(["w0 w1 w3", "w2"])
]


@pytest.mark.parametrize("alpha", [0.4, 1.0])
def test_references_that_the_model_reads_go_through_it_side_by_side_in_one_pass(alpha: float) -> None:
    task, student = Words(), Writer(0)
    batch = task.collate(TRANSLATED)
    found, _ = wrap(task, Writer(1), ("sequence",), alpha=alpha, reads_targets=True).losses(student, batch)
    assert student.calls == 1, "two passes before one backward are more than DDP can follow"
    retold = [Example(dataclasses.replace(e.sample, translation="w1 w2"), e.features) for e in TRANSLATED]
    own, taught = (total(task.losses(student, task.collate(each))[0]) for each in (TRANSLATED, retold))
    torch.testing.assert_close(total(found), alpha * taught + (1 - alpha) * own)


@pytest.mark.parametrize("kinds", [("embedding",), ("embedding", "sequence")])
@pytest.mark.parametrize("how", ["relative", "mse", "cosine"])
def test_embeddings_are_drawn_together(kinds: tuple[str, ...], how: Any) -> None:
    task, student = Words(), Writer(0)
    batch = task.collate(TRANSLATED)
    same = wrap(task, copy.deepcopy(student), kinds, alpha=1.0, embedding=how, reads_targets=True)
    assert same.losses(student, batch)[0]["distill_embedding"].abs().max() < 1e-6
    other = wrap(task, Writer(1), kinds, alpha=1.0, embedding=how, reads_targets=True)
    found = other.losses(student, batch)[0]["distill_embedding"]
    assert found.shape == (2,)
    assert (found > 1e-3).all()


# --- ensembles, delays, other strides ---------------------------------------------------------------------------------


def test_every_member_of_an_ensemble_is_told_the_same() -> None:
    task, student, teacher = Islr(VOCAB), Signs(0, members=3), Signs(1, members=2)
    batch = task.collate(CLIPS)
    found, _ = wrap(task, teacher, alpha=1.0).losses(student, batch)
    each: list[Tensor] = []
    for head in student.heads:
        alone = Signs(0)
        alone.body, alone.heads = student.body, nn.ModuleList([head])
        each.append(wrap(task, teacher, alpha=1.0).losses(alone, batch)[0]["distill_logits"])
    torch.testing.assert_close(found["distill_logits"], torch.stack(each).mean(0))


def test_a_student_may_say_it_later() -> None:
    class Later(nn.Module):
        def __init__(self, model: nn.Module, steps: int) -> None:
            super().__init__()
            self.model, self.steps = model, steps

        def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
            logits, lengths = self.model(features, lengths)
            return logits.roll(self.steps, dims=1), lengths

    task, teacher = cslr(), Steps(1)
    batch = task.collate(SENTENCES)
    late = Later(copy.deepcopy(teacher), 2)
    found, _ = wrap(task, teacher, alpha=1.0, delay=2).losses(late, batch)
    assert found["distill_logits"].abs().max() < 1e-6
    assert wrap(task, teacher, alpha=1.0).losses(late, batch)[0]["distill_logits"].max() > 1e-3
    short = task.collate([example("short", "A", 3)])
    none = wrap(task, teacher, alpha=1.0, delay=9).losses(late, short)[0]["distill_logits"]
    assert none.tolist() == [0.0]


def test_another_stride_is_refused_with_both_numbers_or_stretched() -> None:
    task, student, teacher = cslr(), Steps(0), Steps(1, stride=3)
    batch = task.collate(SENTENCES)
    with pytest.raises(SettingsError, match=r"teacher gives 4 steps where the student gives 6.*train\.distill\.steps=interpolate"):
        wrap(task, teacher).losses(student, batch)
    found, _ = wrap(task, teacher, alpha=1.0, interpolate=True).losses(student, batch)
    assert torch.isfinite(found["distill_logits"]).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 3))
def test_stretching_keeps_ends_and_means_of_a_line(theirs: int, own: int, padding: int) -> None:
    line = torch.arange(theirs, dtype=torch.float64)[None, :, None] + 0.5
    given = torch.nn.functional.pad(line, (0, 0, 0, padding), value=99.0)
    found = aligned(given, torch.tensor([theirs]), torch.tensor([own]), own + padding, interpolate=True)[0, :own, 0]
    middles = (torch.arange(own, dtype=torch.float64) + 0.5) * theirs / own
    torch.testing.assert_close(found, middles.clamp(0.5, theirs - 0.5), atol=1e-5, rtol=0)  # within half a step of both ends


def test_other_classes_are_refused() -> None:
    task = cslr()
    batch = task.collate(SENTENCES)
    with pytest.raises(SettingsError, match=r"shape \(3, 9, 7\) and the student's \(3, 9, 5\)"):
        wrap(task, Steps(1, num_classes=7), teacher_task=Cslr(Vocab(tuple("ABCDEF")), time_stride=2, beam=1)).losses(
            Steps(0), batch
        )


# --- layers -----------------------------------------------------------------------------------------------------------


def mimicking(student: nn.Module, teacher: nn.Module, pairs: Sequence[tuple[str, str]]) -> tuple[DistilledStudent, list[Layer]]:
    clip = torch.randn(1, 12, WIDTH)
    own, theirs = (find_layers(m, [pair[i] for pair in pairs], clip) for i, m in enumerate((student, teacher)))
    return DistilledStudent(student, own, [layer.width for layer in theirs]), theirs


def test_a_layer_is_drawn_to_the_teachers_and_the_projection_learns() -> None:
    task, teacher = cslr(), Steps(1)
    student, layers = mimicking(Steps(0), teacher, [("body", "body")])
    wrapped = wrap(task, teacher, ("features",), alpha=0.5, layers=layers)
    batch = wrapped.collate(SENTENCES)
    optimizer = torch.optim.Adam(student.parameters(), lr=0.02)
    seen: list[float] = []
    for _ in range(60):
        losses, _ = wrapped.losses(student, batch)
        seen.append(losses["distill_features"].detach().mean().item())
        optimizer.zero_grad()
        losses["distill_features"].sum().backward()
        assert student.hint_projections[0].weight.grad is not None
        optimizer.step()
    assert seen[-1] < 0.2 * seen[0]


def test_what_mimics_answers_as_the_student_does_and_leaves_its_weights_alone() -> None:
    plain = Steps(0, dropout=0.5)
    student, _ = mimicking(copy.deepcopy(plain), Steps(1), [("body", "head")])
    features, lengths = torch.randn(2, 8, WIDTH), torch.tensor([8, 5])
    torch.manual_seed(3)
    expected = plain(features, lengths)
    torch.manual_seed(3)
    answer = student(features, lengths)
    assert isinstance(answer, WithHints)
    assert all(torch.equal(a, b) for a, b in zip(answer.outputs, expected, strict=True))
    assert [hint.shape for hint in answer.hints] == [(2, 4, 5)]
    assert all(torch.equal(a, b) for a, b in zip(student.eval()(features, lengths), plain.eval()(features, lengths), strict=True))
    stripped = without_projections(student.state_dict())
    assert stripped.keys() == plain.state_dict().keys()
    Steps(5).load_state_dict(stripped)
    assert without_projections(plain.state_dict()).keys() == plain.state_dict().keys()


def test_projections_train_whenever_the_head_does() -> None:
    from sign_dist.transfer.freeze import groups_of, plan_of

    student, _ = mimicking(CtcStudent(WIDTH, 5, width=8), Steps(1), [("lstm", "body")])
    names = list(groups_of(student.student))
    assert list(groups_of(student)) == names
    plan_of(student, fraction=1.0).apply(student, 0)
    trains = {name for name, p in student.named_parameters() if p.requires_grad}
    assert trains == {
        "student.classifier.weight",
        "student.classifier.bias",
        "hint_projections.0.weight",
        "hint_projections.0.bias",
    }


def test_time_is_found_wherever_a_layer_has_it() -> None:
    teacher = TemporalI3d(5, modalities=(WIDTH,), dropout=0.0)
    student = CtcStudent(WIDTH, 5, width=8)
    clip = torch.randn(1, 40, WIDTH)
    found = find_layers(teacher, ["lstm", "mixed_5c", "classifier"], clip)
    assert [(layer.time_axis, layer.width) for layer in found] == [(1, 512), (2, 1024), (1, 5)]
    assert [(layer.time_axis, layer.width) for layer in find_layers(student, ["lstm", "norm"], clip)] == [(1, 8), (1, 8)]
    task = Cslr(VOCAB, time_stride=4, beam=1)
    mimic = DistilledStudent(student, find_layers(student, ["lstm"], clip), [512])
    wrapped = wrap(task, teacher, ("features", "logits"), layers=found[:1])
    clips = [example(f"clip{i}", "A B", 12 + 5 * i, i) for i in range(3)]
    together = wrapped.losses(mimic.train(), wrapped.collate(clips))[0]
    assert all(v.shape == (3,) and torch.isfinite(v).all() for v in together.values())
    student.eval()  # no dropout, but hints
    features = wrapped.losses(mimic, wrapped.collate(clips))[0]["distill_features"]
    alone = torch.cat([wrapped.losses(mimic, wrapped.collate([clip]))[0]["distill_features"] for clip in clips])
    torch.testing.assert_close(features, alone, atol=1e-5, rtol=1e-4)


def test_layers_that_cannot_be_compared_are_refused() -> None:
    clip = torch.randn(1, 12, WIDTH)
    with pytest.raises(SettingsError, match=r"no layer 'bodie'.*did you mean 'body'"):
        find_layers(Steps(0), ["bodie"], clip)

    class Odd(Steps):
        def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
            super().forward(features, lengths)
            return super().forward(features, lengths)

    with pytest.raises(SettingsError, match=r"'body' is asked 2 times"):
        find_layers(Odd(0), ["body"], clip)

    class Pooled(Steps):
        def __init__(self) -> None:
            super().__init__(1)
            self.pooled = nn.Linear(WIDTH, 3)

        def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
            self.pooled(features.mean(1))
            return super().forward(features, lengths)

    task, teacher = cslr(), Pooled()
    student, layers = mimicking(Steps(0), teacher, [("body", "pooled")])
    assert layers == [Layer("pooled", 0, 3)]
    with pytest.raises(SettingsError, match="a layer of steps with one of whole clips"):
        wrap(task, teacher, ("features",), layers=layers).losses(student, task.collate(SENTENCES))
