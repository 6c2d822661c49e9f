"""CTC decoding: laws against brute force, and what padding, order and the language model may and may not change."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sign_dist.tasks import ctc


def random_log_probs(seed: int, *shape: int, peak: float = 2.0) -> torch.Tensor:
    return torch.log_softmax(torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)) * peak, dim=-1)


def labelling(path: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(c for c, _ in itertools.groupby(path) if c != ctc.BLANK)


def all_labellings(log_probs: torch.Tensor) -> dict[tuple[int, ...], float]:
    """Every path of (T, V), summed by its labelling."""
    steps, classes = log_probs.shape
    rows = log_probs.tolist()
    found: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(classes), repeat=steps):
        found[labelling(path)] = found.get(labelling(path), 0.0) + math.exp(math.fsum(rows[t][c] for t, c in enumerate(path)))
    return {labels: math.log(p) for labels, p in found.items()}


def textbook(log_probs: np.ndarray, width: int) -> list[tuple[tuple[int, ...], float]]:
    """Prefix beam search as it is told: one clip, all classes, dictionaries of prefixes."""
    beam = {(): (0.0, -math.inf)}
    for frame in log_probs.tolist():
        new: dict[tuple[int, ...], tuple[float, float]] = {}

        def add(prefix, blank, label, new=new):
            old = new.get(prefix, (-math.inf, -math.inf))
            new[prefix] = (float(np.logaddexp(old[0], blank)), float(np.logaddexp(old[1], label)))

        for prefix, (blank, label) in beam.items():
            total = float(np.logaddexp(blank, label))
            add(prefix, total + frame[0], -math.inf)
            for c in range(1, len(frame)):
                if prefix and prefix[-1] == c:
                    add(prefix, -math.inf, label + frame[c])
                    add((*prefix, c), -math.inf, blank + frame[c])
                else:
                    add((*prefix, c), -math.inf, total + frame[c])
        beam = dict(sorted(new.items(), key=lambda item: -np.logaddexp(*item[1]))[:width])
    found = [(prefix, float(np.logaddexp(*pair))) for prefix, pair in beam.items()]
    return [(prefix, log_prob) for prefix, log_prob in found if log_prob > -math.inf]


@given(st.integers(1, 5), st.integers(2, 4), st.integers(0, 10**6))
def test_a_wide_beam_is_exact(steps, classes, seed):
    log_probs = random_log_probs(seed, steps, classes)
    expected = sorted(all_labellings(log_probs).items(), key=lambda item: -item[1])
    found = ctc.beam_search(log_probs[None], torch.tensor([steps]), width=classes**steps + 1, num_best=classes**steps)[0]
    assert len(found) == len(expected)
    assert sum(math.exp(d.log_prob) for d in found) == pytest.approx(1.0)
    values = dict(expected)
    for decoded, (_, log_prob) in zip(found, expected, strict=True):
        assert decoded.log_prob == pytest.approx(log_prob, abs=1e-9)
        assert values[decoded.labels] == pytest.approx(log_prob, abs=1e-9)


@settings(max_examples=60)
@given(st.integers(1, 14), st.integers(2, 30), st.integers(1, 12), st.integers(0, 10**6), st.sampled_from([0.3, 2.0, 6.0]))
def test_few_classes_of_a_step_are_as_good_as_all(steps, classes, width, seed, peak):
    """The beams of the textbook search, which tries every class, for every rank."""
    log_probs = random_log_probs(seed, steps, classes, peak=peak)
    found = ctc.beam_search(log_probs[None], torch.tensor([steps]), width=width, num_best=width)[0]
    expected = textbook(log_probs.numpy(), width)
    assert [d.log_prob for d in found] == pytest.approx([p for _, p in expected], abs=1e-9)
    assert {d.labels for d in found} == {labels for labels, _ in expected}


@pytest.mark.long
@given(st.integers(0, 10**6), st.integers(1, 6))
def test_clips_beside_each_other_and_steps_behind_the_end_change_nothing(seed, width):
    rng = np.random.default_rng(seed)
    lengths = torch.from_numpy(rng.integers(0, 13, size=7))
    log_probs = random_log_probs(seed, 7, 12, 9)
    together = ctc.beam_search(log_probs, lengths, width=width)
    greedy = ctc.greedy(log_probs, lengths)
    for i, length in enumerate(lengths.tolist()):
        alone = log_probs[i : i + 1, :length], torch.tensor([length])
        assert together[i][0].labels == ctc.beam_search(*alone, width=width)[0][0].labels
        assert together[i][0].log_prob == pytest.approx(ctc.beam_search(*alone, width=width)[0][0].log_prob)
        assert greedy[i] == ctc.greedy(*alone)[0]


@given(st.integers(0, 10**6))
def test_the_kept_paths_are_part_of_the_labelling(seed):
    log_probs, lengths = random_log_probs(seed, 4, 15, 8), torch.tensor([15, 9, 4, 1])
    found = ctc.beam_search(log_probs, lengths, width=3)
    exact = ctc.log_prob_of(log_probs, lengths, [d[0].labels for d in found])
    best_path = ctc.greedy(log_probs, lengths)
    exact_greedy = ctc.log_prob_of(log_probs, lengths, [d.labels for d in best_path])
    for decoded, whole, path, whole_greedy in zip(found, exact, best_path, exact_greedy, strict=True):
        assert decoded[0].log_prob <= whole + 1e-9
        assert path.log_prob <= whole_greedy + 1e-9


def test_repeats_need_a_blank_and_are_merged_only_on_demand():
    sure = torch.tensor([[1, 1, 0, 1, 2]])
    log_probs = torch.full((1, 5, 3), -20.0).scatter(2, sure[..., None], 0.0)
    lengths = torch.tensor([5])
    assert ctc.greedy(log_probs, lengths)[0].labels == (1, 1, 2)
    assert ctc.beam_search(log_probs, lengths)[0][0].labels == (1, 1, 2)
    assert ctc.greedy(log_probs, lengths, merge_after=True)[0].labels == (1, 2)
    assert ctc.beam_search(log_probs, lengths, merge_after=True)[0][0].labels == (1, 2)


def test_impossible_classes_do_not_enter_a_beam():
    log_probs = torch.full((1, 3, 4), -math.inf)
    log_probs[0, :, 2] = 0.0
    found = ctc.beam_search(log_probs, torch.tensor([3]), width=5, num_best=5)[0]
    assert found == [ctc.Decoded((2,), 0.0)]


@given(st.integers(1, 4), st.integers(0, 10**6), st.floats(0.0, 2.0), st.floats(-2.0, 2.0))
def test_a_language_model_ranks_by_the_sum(steps, seed, weight, bonus):
    """With a wide beam: CTC + weight * LM + bonus * labels, for every labelling."""
    classes = 4
    log_probs = random_log_probs(seed, steps, classes)
    table = random_log_probs(seed + 1, classes, classes).numpy()  # a bigram model; row 0 starts

    def model(prefix):
        return table[prefix[-1] if prefix else 0]

    def rank(labels, log_prob):
        previous = (0, *labels)[:-1]
        return log_prob + sum(weight * table[a, b] + bonus for a, b in zip(previous, labels, strict=True))

    values = all_labellings(log_probs)
    expected = sorted((rank(labels, p) for labels, p in values.items()), reverse=True)
    found = ctc.beam_search(
        log_probs[None], torch.tensor([steps]), width=400, num_best=400, language_model=model, lm_weight=weight, label_bonus=bonus
    )[0]
    assert [rank(d.labels, d.log_prob) for d in found] == pytest.approx(expected, abs=1e-9)
    assert [d.log_prob for d in found] == pytest.approx([values[d.labels] for d in found], abs=1e-9)


def test_a_language_model_is_asked_once_per_labelling():
    asked: list[tuple[int, ...]] = []

    def model(prefix):
        asked.append(prefix)
        return np.zeros(6)

    log_probs = random_log_probs(3, 2, 10, 6)
    plain = ctc.beam_search(log_probs, torch.tensor([10, 7]), width=4)
    with_model = ctc.beam_search(log_probs, torch.tensor([10, 7]), width=4, language_model=model)
    assert [d[0].labels for d in plain] == [d[0].labels for d in with_model]
    assert len(asked) == len(set(asked))


@pytest.mark.parametrize(
    ("shape", "lengths", "options", "words"),
    [
        ((2, 5), [5, 5], {}, "B, T, V"),
        ((2, 5, 3), [5], {}, "lengths"),
        ((2, 5, 3), [6, 5], {}, "length <= 5"),
        ((2, 5, 3), [-1, 5], {}, "0 <= length"),
        ((1, 5, 1), [5], {}, "blank and at least one label"),
        ((1, 5, 3), [5], {"num_best": 11}, "num_best <= width"),
        ((1, 5, 3), [5], {"width": 0}, "num_best <= width"),
    ],
)
def test_what_does_not_fit_is_refused(shape, lengths, options, words):
    with pytest.raises(ValueError, match=words):
        ctc.beam_search(torch.zeros(shape), torch.tensor(lengths), **options)


def test_a_label_that_does_not_fit_has_no_probability_and_no_loss_on_demand():
    log_probs = random_log_probs(0, 2, 4, 5)
    targets, lengths, target_lengths = torch.tensor([[1, 1, 2, 2], [1, 2, 3, 4]]), torch.tensor([4, 4]), torch.tensor([4, 4])
    losses = ctc.ctc_losses(log_probs, lengths, targets, target_lengths)
    assert losses.isinf().tolist() == [True, False]
    assert ctc.ctc_losses(log_probs, lengths, targets, target_lengths, zero_infinity=True)[0] == 0
    assert ctc.log_prob_of(log_probs, lengths, [(1, 1, 2, 2), (1, 2, 3, 4)])[0] == -math.inf
