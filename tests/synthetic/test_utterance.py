"""Continuous signing: bodies stay whole, nothing jumps, and every frame belongs to one span."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sign_dist.synthetic.grammar import Sentence, draw_sentence
from sign_dist.synthetic.hand import FINGER_BONES
from sign_dist.synthetic.motion import FOREARM, UPPER_ARM
from sign_dist.synthetic.signer import Signer, make_signer
from sign_dist.synthetic.utterance import Utterance, make_utterance
from sign_dist.synthetic.words import DOMAINS

SIGNERS = st.builds(make_signer, st.integers(0, 5), st.integers(0, 40))


def utterance_of(signer: Signer, seed: int, num_sentences: int = 1) -> tuple[list[Sentence], Utterance]:
    rng = np.random.default_rng(seed)
    domain = tuple(DOMAINS)[seed % 2]
    sentences = [draw_sentence(domain, rng, agreement=bool(seed % 3)) for _ in range(num_sentences)]
    return sentences, make_utterance(sentences, signer, np.random.default_rng(seed))


@pytest.mark.long
@settings(max_examples=30)
@given(SIGNERS, st.integers(0, 10_000), st.integers(1, 3))
def test_the_alignment_covers_the_clip_in_order(signer: Signer, seed: int, num_sentences: int) -> None:
    sentences, utterance = utterance_of(signer, seed, num_sentences)
    spans = utterance.spans
    assert spans[0].start == 0
    assert spans[-1].end == utterance.motion.num_frames
    assert all(a.end == b.start for a, b in pairwise(spans))
    assert all(s.start <= s.stroke_start < s.stroke_end <= s.end for s in spans if s.gloss)
    assert utterance.glosses == tuple(gloss for sentence in sentences for gloss in sentence.glosses)
    for number, sentence in enumerate(sentences):
        assert tuple(s.gloss for s in spans if s.sentence == number) == sentence.glosses
        first, last = utterance.sentence_frames(number)
        assert 0 < first < last < utterance.motion.num_frames
    assert [s.gloss for s in spans].count("") == num_sentences + 1


@pytest.mark.long
@settings(max_examples=30)
@given(SIGNERS, st.integers(0, 10_000))
def test_bodies_are_whole_and_nothing_jumps(signer: Signer, seed: int) -> None:
    _, utterance = utterance_of(signer, seed, 2)
    motion = utterance.motion
    wrists = motion.hands[:, :, 0]
    for part in (motion.hands, motion.head, motion.mouth, motion.eyes, motion.brows):
        assert len(part) == motion.num_frames
        assert np.isfinite(part).all()
    upper = np.linalg.norm(motion.elbows - motion.shoulders, axis=-1)
    np.testing.assert_allclose(upper, UPPER_ARM * signer.arm_length, atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(wrists - motion.elbows, axis=-1), FOREARM * signer.arm_length, atol=1e-9)
    fingers = motion.hands[:, :, 5:].reshape(-1, 2, 4, 4, 3)
    bones = np.linalg.norm(np.diff(fingers, axis=3), axis=-1)
    np.testing.assert_allclose(bones, np.broadcast_to(signer.hand_length * FINGER_BONES, bones.shape), atol=1e-9)
    assert np.linalg.norm(np.diff(motion.hands, axis=0), axis=-1).max() * motion.fps < 30, "shoulder widths per second"
    assert (wrists[:, :, 2] > 0).all(), "a hand is behind the body"
    np.testing.assert_allclose(motion.hands[0], motion.hands[-1], atol=0.08)  # rest


@given(st.integers(0, 10_000))
def test_a_sentence_is_more_than_its_signs_in_a_row(seed: int) -> None:
    """Coarticulation: one performance is shorter than isolated clips, and does not go back to rest between signs."""
    signer = make_signer(0, seed % 7)
    (sentence,), utterance = utterance_of(signer, seed)
    assert utterance.motion.num_frames / signer.fps < 1.2 * len(sentence.glosses) + 1.4
    side = 1 if signer.left_handed else 0
    hands = utterance.motion.hands[:, side]
    strokes = [s for s in utterance.spans if s.gloss]
    between = hands[strokes[0].stroke_start : strokes[-1].stroke_end]
    assert np.linalg.norm(between - hands[0], axis=-1).max(axis=1).min() > 0.3, "the dominant hand does not rest"


def test_equal_numbers_give_equal_poses_and_takes_differ() -> None:
    signer = make_signer(0, 1)
    _, one = utterance_of(signer, 3)
    _, same = utterance_of(signer, 3)
    np.testing.assert_array_equal(one.motion.hands, same.motion.hands)
    sentence = draw_sentence("daily", np.random.default_rng(3))
    takes = [make_utterance([sentence], signer, np.random.default_rng(k)).motion.hands for k in (0, 1)]
    assert takes[0].shape != takes[1].shape or not np.allclose(*takes)


def test_faster_signers_take_less_time() -> None:
    from dataclasses import replace

    base = make_signer(0, 0)
    sentence = draw_sentence("daily", np.random.default_rng(0))
    lengths = [
        make_utterance([sentence], replace(base, speed=speed), np.random.default_rng(0)).motion.num_frames
        for speed in (0.8, 1.0, 1.3)
    ]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] > lengths[-1]


def test_what_cannot_be_signed_is_refused() -> None:
    with pytest.raises(ValueError, match="no sentence"):
        make_utterance([], make_signer(0, 0), np.random.default_rng(0))
    with pytest.raises(ValueError, match="XYZZY"):
        make_utterance([Sentence(("XYZZY",), "", (0.0,), 0, 0)], make_signer(0, 0), np.random.default_rng(0))
