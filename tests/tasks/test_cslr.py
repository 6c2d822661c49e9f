"""CSLR: losses that are exact, labels that do not fit, decoding, and scores that say what went wrong."""

import itertools
import logging
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from sign_dist.config.data import Data
from sign_dist.config.run import LEARNS, READS, Run
from sign_dist.data.sample import Sample
from sign_dist.data.vocab import Vocab
from sign_dist.metrics.diagnose import frames_needed
from sign_dist.metrics.wer import corpus_errors
from sign_dist.models.build import build_model
from sign_dist.models.cslr import CslrOutputs, alignment_loss
from sign_dist.tasks.build import build_task, monitor_of, num_classes_of
from sign_dist.tasks.cslr import Cslr
from sign_dist.tasks.task import Example, Prediction
from sign_dist.video.landmarks import NUM_LANDMARKS

VOCAB = Vocab.of("ABC")
GLOSSES = st.lists(st.sampled_from("ABC"), max_size=4)
SMALL = {
    "temporal_i3d": {"model.channels": 0.1, "model.fused_width": 16, "model.lstm_width": 8},
    "ctc_student": {"model.width": 16},
    "cslr_head": {"model.hidden": 16},
}
KINDS = [(kind, features) for kind in LEARNS["cslr"] for features in READS[kind]]


class Fixed(nn.Module):
    """Answers with the same logits whatever it sees; every frame is a step."""

    def __init__(self, logits: Tensor, conv_logits: Tensor | None = None) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)
        self.conv_logits = conv_logits

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor] | CslrOutputs:
        if self.conv_logits is None:
            return self.logits, lengths
        return CslrOutputs(self.conv_logits, self.logits, lengths)


def example(label: str, num_frames: int, name: str = "") -> Example:
    return Example(Sample(name or label, "", label), np.zeros((num_frames, 2), np.float32))


def run_of(kind: str, features: str = "landmarks") -> Run:
    run = Run(data=Data(root="x")).with_values({"task": "cslr", "model.kind": kind, "data.features.kind": features})
    return run.with_values(SMALL[kind])


def clip(features: str, num_frames: int, label: str = "A B", seed: int = 0) -> Example:
    rng = np.random.default_rng(seed)
    array = rng.normal(size=(num_frames, NUM_LANDMARKS, 4) if features == "landmarks" else (num_frames, 6)).astype(np.float32)
    if features == "landmarks":
        array[..., 3] = 1
    return Example(Sample(f"clip {seed}", "", label), array)


def spelled(path: Sequence[int]) -> list[str]:
    return [VOCAB.glosses[c - 1] for c, _ in itertools.groupby(path) if c]


@given(label=GLOSSES, steps=st.integers(1, 5), seed=st.integers(0, 99))
def test_the_loss_is_what_all_paths_of_the_label_are_worth(label: list[str], steps: int, seed: int) -> None:
    task = Cslr(VOCAB, time_stride=1)
    logits = torch.randn(1, steps, 4, generator=torch.Generator().manual_seed(seed))
    batch = task.collate([example(" ".join(label), steps)])
    losses, _ = task.losses(Fixed(logits), batch)
    shares = logits[0].double().softmax(-1)
    worth = sum(
        math.prod(float(shares[t, c]) for t, c in enumerate(path))
        for path in itertools.product(range(4), repeat=steps)
        if spelled(path) == label
    )
    assert losses.keys() == {"ctc"}
    if frames_needed(label) <= steps:
        assert losses["ctc"].item() == pytest.approx(-math.log(worth), rel=1e-4, abs=1e-5)
        assert batch.weights.tolist() == [1]
    else:
        assert worth == 0
        assert losses["ctc"].tolist() == [0]
        assert batch.weights.tolist() == [0]


def test_a_label_that_does_not_fit_trains_nobody_and_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    task = Cslr(VOCAB, time_stride=4)
    clips = [example("A A", 8, "short"), example("A B", 8, "long enough"), example("A X", 99, "unknown gloss")]
    with caplog.at_level(logging.WARNING):
        batch = task.collate(clips)
        task.collate(clips)
    assert [r.message.split(":")[0] for r in caplog.records] == ["clip short does not train"]
    assert batch.weights.tolist() == [0, 1, 0]
    assert batch.targets.tolist() == [[1, 1], [1, 2], [1, -1]]
    model = Fixed(torch.randn(3, 25, 4))
    batch.lengths[:] = torch.tensor([2, 2, 25])
    losses, outputs = task.losses(model, batch)
    losses["ctc"].sum().backward()
    assert model.logits.grad is not None
    assert torch.isfinite(model.logits.grad).all()
    assert not model.logits.grad[0].any()
    assert not model.logits.grad[2].any()
    assert model.logits.grad[1].any()
    (finding,) = task.findings(clips)
    assert (finding.count, finding.names) == (1, ("short",))
    assert not task.findings(clips[1:])
    assert task.score(batch.references, task.decode(outputs, batch))["too_short"] == 1


def test_two_classifiers_have_a_loss_each_and_are_drawn_together_on_request() -> None:
    logits, conv_logits = torch.randn(2, 6, 4), torch.randn(2, 6, 4)
    clips = [example("A B", 6), example("C", 4)]
    for alignment in (True, False):
        task = Cslr(VOCAB, time_stride=1, alignment=alignment)
        batch = task.collate(clips)
        losses, outputs = task.losses(Fixed(logits, conv_logits), batch)
        assert isinstance(outputs, CslrOutputs)
        for name, answer in (("ctc", logits), ("conv_ctc", conv_logits)):
            torch.testing.assert_close(losses[name], task.losses(Fixed(answer), batch)[0]["ctc"])
        assert ("alignment" in losses) == alignment
        if alignment:
            torch.testing.assert_close(losses["alignment"], alignment_loss(outputs))
        assert task.decode(outputs, batch) == task.decode((logits, batch.lengths), batch)


@given(path=st.lists(st.integers(0, 3), min_size=1, max_size=12), beam=st.sampled_from([1, 2, 10]))
def test_a_sure_path_is_read_as_its_glosses(path: list[int], beam: int) -> None:
    task = Cslr(VOCAB, time_stride=1, beam=beam)
    batch = task.collate([example("A", len(path))])
    logits = 20.0 * torch.nn.functional.one_hot(torch.tensor([path]), 4)
    (found,) = task.decode((logits, batch.lengths), batch, k=3)
    assert found.hypothesis == " ".join(spelled(path))
    assert found.scores[0][0] == found.hypothesis
    assert found.scores[0][1] == pytest.approx(1, abs=1e-4)
    assert found.measures["steps"] == len(path)
    assert found.measures["blank"] == pytest.approx(path.count(0) / len(path))
    merged = Cslr(VOCAB, time_stride=1, beam=beam, merge=True).decode((logits, batch.lengths), batch)
    assert merged[0].hypothesis.split() == [g for g, _ in itertools.groupby(spelled(path))]


def test_a_beam_finds_the_labelling_that_the_best_path_misses() -> None:
    logits = torch.tensor([[[0.4, 0.6, 1e-9, 1e-9], [0.4, 0.6, 1e-9, 1e-9]]]).log()  # graves: p("") 0.16, p(A) 0.84
    logits = torch.cat([logits, torch.tensor([[[0.6, 0.4, 1e-9, 1e-9]]]).log()], dim=1)
    batch = Cslr(VOCAB, time_stride=1).collate([example("A", 3)])
    exact = Cslr(VOCAB, time_stride=1).decode((logits, batch.lengths), batch)[0]
    assert exact.hypothesis == "A"
    assert exact.scores[0][1] > Cslr(VOCAB, time_stride=1, beam=1).decode((logits, batch.lengths), batch)[0].scores[0][1]


@given(pairs=st.lists(st.tuples(GLOSSES, GLOSSES), min_size=1, max_size=6))
def test_scores_are_shares_of_the_words_asked(pairs: list[tuple[list[str], list[str]]]) -> None:
    references = [" ".join(r) for r, _ in pairs]
    predictions = [Prediction(" ".join(h), (), {"steps": 4.0, "blank": 0.25, "fits": 1.0}) for _, h in pairs]
    scores = Cslr(VOCAB, time_stride=1).score(references, predictions)
    errors = corpus_errors(references, [p.hypothesis for p in predictions])
    assert scores["wer"] == pytest.approx(scores["substitutions"] + scores["deletions"] + scores["insertions"])
    assert scores["wer"] == pytest.approx(100 * (errors.rate if errors.num_words else errors.errors))
    assert scores["blank"] == pytest.approx(25)
    assert scores["empty"] == pytest.approx(100 * sum(bool(r) and not h for r, h in pairs) / len(pairs))
    assert scores["too_short"] == 0
    assert all(math.isfinite(value) for value in scores.values())


def test_nothing_to_score_is_no_error() -> None:
    assert set(Cslr(VOCAB, time_stride=1).score([], []).values()) == {0.0}


@pytest.mark.parametrize(("kind", "features"), KINDS)
def test_a_clip_is_told_the_same_alone_and_among_longer_ones(kind: str, features: str) -> None:
    run = run_of(kind, features)
    task, clips = build_task(run, VOCAB), [clip(features, n, seed=n) for n in (9, 30, 17)]
    model = build_model(run.model, num_classes=num_classes_of(run.task, VOCAB), feature_shape=clips[0].features.shape[1:]).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        together = task.losses(model, task.collate(clips))
        for i, one in enumerate(clips):
            alone = task.losses(model, task.collate([one]))
            for name in ("ctc", "conv_ctc") if kind == "cslr_head" else ("ctc",):
                torch.testing.assert_close(alone[0][name][0], together[0][name][i], rtol=1e-4, atol=1e-4)
            hypothesis = task.decode(alone[1], task.collate([one]))[0].hypothesis
            assert hypothesis == task.decode(together[1], task.collate(clips))[i].hypothesis


@pytest.mark.parametrize(
    ("kind", "features", "stride"), [(*k, s) for k in KINDS for s in (1, 2, 4) if k[0] != "cslr_head" or s == 4]
)
def test_steps_are_as_many_as_the_settings_say_and_gradients_reach_all(kind: str, features: str, stride: int) -> None:
    run = run_of(kind, features).with_values({} if kind == "cslr_head" else {"model.time_stride": stride})
    task, clips = build_task(run, VOCAB), [clip(features, n, seed=n) for n in (9, 22)]
    model = build_model(run.model, num_classes=4, feature_shape=clips[0].features.shape[1:])
    losses, outputs = task.losses(model, task.collate(clips, [np.random.default_rng(i) for i in range(2)]))
    torch.stack(list(losses.values())).sum().backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None]
    model.eval()
    batch = task.collate(clips)
    _, outputs = task.losses(model, batch)
    steps = [p.measures["steps"] for p in task.decode(outputs, batch)]
    assert steps == [math.ceil(9 / stride), math.ceil(22 / stride)]
    assert monitor_of(run) == task.monitor


@given(seed=st.integers(0, 200), num_glosses=st.integers(1, 6))
def test_augmentation_never_makes_a_label_impossible(seed: int, num_glosses: int) -> None:
    run = run_of("ctc_student").with_values({"train.augment.speed": 0.9, "train.augment.drop": 0.5, "model.time_stride": 1})
    label = " ".join("AB"[i % 2] for i in range(num_glosses))
    one = clip("landmarks", num_glosses + seed % 3, label)
    batch = build_task(run, VOCAB).collate([one], [np.random.default_rng(seed)])
    assert int(batch.lengths[0]) >= num_glosses
    assert batch.weights.tolist() == [1]


@given(seed=st.integers(0, 50))
def test_no_sign_is_cut_away_or_hidden_for_long(seed: int) -> None:
    quiet = {f"train.augment.{name}": 0 for name in ("speed", "drop", "mirror", "rotate_deg", "scale", "shear", "shift", "noise")}
    quiet |= {f"train.augment.{name}": 0 for name in ("hand_rotate_deg", "hand_scale", "hand_shift", "drop_face")}
    run = run_of("ctc_student").with_values({**quiet, "train.augment.crop": 0.9, "train.augment.drop_hand": 1.0})
    one = clip("landmarks", 60)
    batch = build_task(run, VOCAB).collate([one], [np.random.default_rng(seed)])
    hidden = (batch.features[0, :, :, 3] == 0).any(-1)
    assert batch.lengths.tolist() == [60]
    assert 1 <= int(hidden.sum()) <= 2 * 4
    torch.testing.assert_close(batch.features[0, ~hidden], torch.from_numpy(one.features)[~hidden])


def test_the_blank_is_a_class_of_continuous_recognition_only() -> None:
    assert num_classes_of("cslr", VOCAB) == 4
    assert num_classes_of("islr", VOCAB) == 3
