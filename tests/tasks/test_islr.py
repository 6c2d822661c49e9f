"""ISLR: laws of its batches, losses, predictions and scores."""

import math
from collections.abc import Callable

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
from sign_dist.models.feature_classifier import FeatureClassifier
from sign_dist.tasks.build import build_task, monitor_of
from sign_dist.tasks.islr import Islr, pad
from sign_dist.tasks.task import Example, Monitor

VOCAB = Vocab(("A", "B", "C"))
DIM = 4


def example(gloss: str, length: int = 5, *, id_: str = "x", seed: int = 0) -> Example:
    values = np.random.default_rng([seed, length]).normal(size=(length, DIM)).astype(np.float16)
    return Example(Sample(id_, f"{id_}.mp4", gloss), values)


def generators(count: int, seed: int = 0) -> list[np.random.Generator]:
    return [np.random.default_rng([seed, i]) for i in range(count)]


class Fixed(nn.Module):
    """A model that always answers the same logits."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        return self.logits[: len(features)]


def loss_of(task: Islr, model: nn.Module, examples: list[Example], *, training: bool = False) -> Tensor:
    losses, _ = task.losses(model.train(training), task.collate(examples))
    return torch.stack(list(losses.values())).sum(dim=0)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.sampled_from([np.float16, np.float32, np.uint8]))
def test_padding_keeps_every_clip_and_adds_zeros(lengths: list[int], dtype: type[np.generic]) -> None:
    arrays = [np.full((n, 2, 3), i + 1, dtype) for i, n in enumerate(lengths)]
    padded, found = pad(arrays)
    assert found.tolist() == lengths
    assert padded.dtype == (torch.uint8 if dtype is np.uint8 else torch.float32)
    for i, n in enumerate(lengths):
        assert (padded[i, :n] == i + 1).all()
        assert (padded[i, n:] == 0).all()


@given(st.integers(1, 30), st.integers(1, 30))
def test_the_loss_of_a_clip_does_not_depend_on_who_shares_its_batch(length: int, other: int) -> None:
    torch.manual_seed(0)
    model = FeatureClassifier(len(VOCAB), num_features=DIM, width=8, depth=1).eval()
    task = Islr(VOCAB)
    alone = loss_of(task, model, [example("A", length)])
    together = loss_of(task, model, [example("A", length), example("B", other, seed=1)])
    torch.testing.assert_close(together[:1], alone, atol=1e-5, rtol=1e-5)


@given(st.floats(min_value=0, max_value=0.9), st.integers(0, 99))
def test_label_smoothing_mixes_in_the_mean_over_glosses_while_training(smoothing: float, seed: int) -> None:
    logits = torch.randn(1, 3, generator=torch.Generator().manual_seed(seed))
    task, model = Islr(VOCAB, label_smoothing=smoothing), Fixed(logits)
    plain = loss_of(Islr(VOCAB), model, [example("B")], training=True)
    even = -logits.log_softmax(1).mean()
    torch.testing.assert_close(loss_of(task, model, [example("B")], training=True), (1 - smoothing) * plain + smoothing * even)
    torch.testing.assert_close(loss_of(task, model, [example("B")]), plain)
    flat = Fixed(torch.zeros(1, 3))
    assert loss_of(task, flat, [example("B")], training=True).item() == pytest.approx(math.log(3), rel=1e-5)


@given(st.lists(st.sampled_from("ABC"), min_size=1, max_size=30))
def test_balanced_weights_give_every_gloss_the_same_sum(glosses: list[str]) -> None:
    samples = [Sample(str(i), "", gloss) for i, gloss in enumerate(glosses)]
    run = Run(data=Data(root="x")).with_values({"train.class_weights": "balanced"})
    batch = build_task(run, VOCAB, samples).collate([example(gloss) for gloss in glosses])
    sums = {gloss: sum(w for w, g in zip(batch.weights.tolist(), glosses, strict=True) if g == gloss) for gloss in set(glosses)}
    assert all(total == pytest.approx(len(glosses) / 3) for total in sums.values())
    plain = build_task(run.with_values({"train.class_weights": "none"}), VOCAB, samples)
    assert plain.collate([example(gloss) for gloss in glosses]).weights.tolist() == [1.0] * len(glosses)


def test_a_gloss_that_was_never_trained_is_scored_but_has_no_loss() -> None:
    task = Islr(VOCAB)
    examples = [example("A"), example("Z")]
    batch = task.collate(examples)
    assert batch.weights.tolist() == [1.0, 0.0]
    logits = torch.tensor([[9.0, 0, 0], [9.0, 0, 0]])
    losses, outputs = task.losses(Fixed(logits).eval(), batch)
    assert losses["cross_entropy"][1] == 0
    assert task.score(batch.references, task.decode(outputs, batch)) == {"top1": 0.5, "top5": 0.5}


@given(st.integers(0, 999), st.integers(2, 5), st.floats(min_value=0.05, max_value=1))
def test_mixup_blends_features_targets_and_weights_by_one_share(seed: int, count: int, alpha: float) -> None:
    examples = [example("ABC"[i % 3], 2 + i, seed=i) for i in range(count)]
    weights = [1.0, 2.0, 4.0]
    task = Islr(VOCAB, mixup=alpha, class_weights=weights)
    plain, mixed = task.collate(examples), task.collate(examples, generators(count, seed))
    torch.testing.assert_close(mixed.targets.sum(1), torch.ones(count))
    torch.testing.assert_close(mixed.weights, mixed.targets @ torch.tensor(weights))
    assert (mixed.lengths >= plain.lengths).all()
    assert mixed.features.min() >= plain.features.min() - 1e-6
    assert mixed.features.max() <= plain.features.max() + 1e-6
    torch.testing.assert_close(mixed.features.sum(0), plain.features.sum(0), atol=1e-4, rtol=1e-4)
    again = task.collate(examples, generators(count, seed))
    assert torch.equal(again.features, mixed.features)
    assert torch.equal(task.collate(examples).features, plain.features), "without generators nothing is random"


def test_mixed_frames_stay_bytes() -> None:
    task = Islr(VOCAB, mixup=0.5)
    frames = [Example(Sample(str(i), "", "A"), np.full((2, 4, 4, 3), 100 * i, np.uint8)) for i in range(3)]
    batch = task.collate(frames, generators(3))
    assert batch.features.dtype == torch.uint8
    assert batch.features.float().mean().item() == pytest.approx(100, abs=1)


@given(st.integers(1, 8), st.integers(1, 8), st.integers(0, 99))
def test_predictions_are_the_best_glosses_in_order(size: int, k: int, seed: int) -> None:
    vocab = Vocab(tuple(f"G{i}" for i in range(size)))
    logits = torch.randn(3, size, generator=torch.Generator().manual_seed(seed))
    for prediction, row in zip(Islr(vocab).predictions(logits, k), logits, strict=True):
        assert prediction.hypothesis == vocab.glosses[int(row.argmax())] == prediction.scores[0][0]
        probabilities = [p for _, p in prediction.scores]
        assert len(probabilities) == min(k, size)
        assert probabilities == sorted(probabilities, reverse=True)
        assert min(probabilities) >= 0
        assert sum(probabilities) <= 1 + 1e-5
        assert k < size or sum(probabilities) == pytest.approx(1, abs=1e-5)


def test_scores_count_hits_and_an_empty_split_scores_nothing() -> None:
    task = Islr(VOCAB)
    logits = torch.tensor([[3.0, 2, 1], [3.0, 2, 1]])
    assert task.score(["A", "B"], task.predictions(logits, 5)) == {"top1": 0.5, "top5": 1.0}
    assert task.score([], []) == {"top1": 0.0, "top5": 0.0}


def test_a_monitor_prefers_in_its_direction_and_never_no_number() -> None:
    for mode, better, worse in (("max", 2.0, 1.0), ("min", 1.0, 2.0)):
        monitor = Monitor("m", mode)
        assert monitor.better(better, worse)
        assert not monitor.better(worse, better)
        assert not monitor.better(better, better)
        assert monitor.better(worse, None)
        assert not monitor.better(math.nan, worse)
        assert not monitor.better(math.nan, None)


SHAPES: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "landmarks": lambda rng: landmarks(rng),
    "signhiera": lambda rng: rng.normal(size=(12, 16)).astype(np.float16),
    "frames": lambda rng: rng.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8),
}


def landmarks(rng: np.random.Generator) -> np.ndarray:
    from sign_dist.video.landmarks import NUM_LANDMARKS

    points = rng.normal(size=(12, NUM_LANDMARKS, 4)).astype(np.float16)
    points[..., 3] = 1
    return points


@pytest.mark.parametrize(("model", "features"), [(model, kind) for model in LEARNS["islr"] for kind in READS[model]])
def test_every_kind_of_features_is_augmented_by_its_clips_own_generator(model: str, features: str) -> None:
    run = Run(data=Data(root="x")).with_values({"model.kind": model, "data.features.kind": features})
    task = build_task(run, VOCAB)
    clips = [Example(Sample(str(i), "", "A"), SHAPES[features](np.random.default_rng(i))) for i in range(3)]
    before = [clip.features.copy() for clip in clips]
    batch = task.collate(clips, generators(3))
    assert torch.equal(batch.features, task.collate(clips, generators(3)).features)
    assert not torch.equal(batch.features[:, :4], task.collate(clips, generators(3, seed=1)).features[:, :4])
    alone = task.collate(clips[1:2], generators(3)[1:2])
    length = int(alone.lengths[0])
    assert torch.equal(alone.features[0, :length], batch.features[1, :length])
    for clip, array in zip(clips, before, strict=True):
        np.testing.assert_array_equal(clip.features, array)
    plain = task.collate(clips)
    np.testing.assert_allclose(plain.features[0, : len(before[0])].numpy(), before[0].astype(plain.features.numpy().dtype))
    assert monitor_of(run) == task.monitor
