"""Landmark tracks: laid out as a detector's, equal for equal numbers, near to what MediaPipe sees in the drawn clip."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sign_dist.errors import DataError, WeightsError
from sign_dist.synthetic.ceiling import indistinguishable, oracle_wer
from sign_dist.synthetic.grammar import draw_sentence, signs_of
from sign_dist.synthetic.landmarks import synthetic_landmarks
from sign_dist.synthetic.lexicon import LEXICON
from sign_dist.synthetic.render import Renderer
from sign_dist.synthetic.sentences import plan_sentences
from sign_dist.synthetic.signer import make_signer
from sign_dist.synthetic.takes import Cast
from sign_dist.synthetic.utterance import make_utterance
from sign_dist.video.landmarks import (
    FACE,
    LEFT_HAND,
    LEFT_SHOULDER,
    NUM_LANDMARKS,
    POSE_POINTS,
    RIGHT_HAND,
    RIGHT_SHOULDER,
    RIGHT_WRIST,
    normalise,
)


def test_tracks_are_laid_out_and_normalised_as_detected_ones() -> None:
    sentence, signer = draw_sentence("daily", np.random.default_rng(1)), make_signer(0, 2)
    track = synthetic_landmarks(sentence, signer, np.random.default_rng(5))
    num_frames = make_utterance([sentence], signer, np.random.default_rng(5)).motion.num_frames
    assert track.shape == (num_frames, NUM_LANDMARKS, 4)
    assert track.dtype == np.float32
    np.testing.assert_array_equal(track, synthetic_landmarks(sentence, signer, np.random.default_rng(5)))
    assert not track[:, FACE].any()
    assert not track[track[..., 3] <= 0].any()
    clean = synthetic_landmarks(sentence, signer, np.random.default_rng(5), jitter=0, bias=0, lost=0)
    left, right = clean[:, LEFT_SHOULDER, :2], clean[:, RIGHT_SHOULDER, :2]
    assert np.median(np.linalg.norm(left - right, axis=1)) == pytest.approx(1, abs=1e-3)
    assert (left[:, 0] > right[:, 0]).all(), "the signer's left is at the picture's right"
    assert (clean[:, LEFT_SHOULDER, 1] > clean[:, 0, 1]).all(), "y grows downwards"
    both = (clean[:, RIGHT_HAND, 3] > 0).all(axis=1)
    gap = np.linalg.norm(clean[both, RIGHT_HAND.start, :2] - clean[both, RIGHT_WRIST, :2], axis=1)
    assert gap.max() < 1e-3, "the hand hangs at its wrist"


def test_faults_are_as_large_as_asked_for() -> None:
    sentence, signer = draw_sentence("lesson", np.random.default_rng(1)), make_signer(0, 1)
    clean, shaken, gaps = (
        synthetic_landmarks(sentence, signer, np.random.default_rng(5), jitter=jitter, bias=0, lost=lost)
        for jitter, lost in ((0, 0), (0.1, 0), (0, 0.4))
    )
    seen = (clean[..., 3] > 0.5) & (shaken[..., 3] > 0.5)
    assert 0.07 < np.std((shaken - clean)[seen][:, :2]) < 0.14
    assert (gaps[:, RIGHT_HAND, 3] == 1).mean() < 0.8 * (clean[:, RIGHT_HAND, 3] == 1).mean()
    for wrong in ({"jitter": -1}, {"bias": -1}, {"lost": 1}):
        with pytest.raises(ValueError, match="need jitter"):
            synthetic_landmarks(sentence, signer, np.random.default_rng(0), **wrong)


@pytest.mark.long
def test_mediapipe_sees_in_the_drawn_clip_what_the_track_says() -> None:
    from sign_dist.video.detectors import LandmarkDetector
    from sign_dist.video.model_files import find_files, landmark_roles

    shared = os.environ.get("SIGN_DIST_SHARED", "")
    folder = os.environ.get("SIGN_DIST_MODELS", "") or (str(Path(shared) / "models" / "mediapipe") if shared else None)
    try:
        detector = LandmarkDetector(find_files(landmark_roles(face=False), folder, download=False))
    except WeightsError as error:
        pytest.skip(f"SIGN_DIST_MODELS names the folder of MediaPipe's files: {error}")
    signer = replace(make_signer(0, 1), width_px=160, height_px=160, fps=12)
    sentence = draw_sentence("daily", np.random.default_rng(1))
    drawn = np.stack(list(Renderer(signer).frames(make_utterance([sentence], signer, np.random.default_rng(5)).motion)))
    found = normalise(detector(drawn, 12.0))
    track = synthetic_landmarks(sentence, signer, np.random.default_rng(5))
    assert found.shape == track.shape
    names = list(POSE_POINTS)
    moving = "left" if signer.left_handed else "right"
    for part in ("wrist", "elbow"):
        k = names.index(f"{moving}_{part}")
        sure = found[:, k, 3] > 0.5
        assert sure.mean() > 0.5
        for axis in (0, 1):
            assert np.corrcoef(found[sure, k, axis], track[sure, k, axis])[0, 1] > 0.9, (part, axis)
    for k in (LEFT_SHOULDER, RIGHT_SHOULDER):
        np.testing.assert_allclose(found[:, k, :2].mean(axis=0), track[:, k, :2].mean(axis=0), atol=0.1)
    hand = LEFT_HAND if signer.left_handed else RIGHT_HAND
    both = (found[:, hand, 3] > 0).all(axis=1) & (track[:, hand, 3] > 0).all(axis=1)
    assert both.mean() > 0.4
    assert np.corrcoef(found[both, hand, 1].ravel(), track[both, hand, 1].ravel())[0, 1] > 0.9


@pytest.mark.long
def test_no_two_signs_are_alike_and_told_boundaries_nearly_all_are_recognised(tmp_path: Path) -> None:
    for domain in ("daily", "lesson"):
        assert indistinguishable(signs_of(domain)) == []
    assert indistinguishable(sign.gloss for sign in LEXICON) == []
    takes = plan_sentences(tmp_path, Cast(num_sentences=180, num_signers=6))
    known, tested = [[take for take in takes if take.split == split] for split in ("train", "test")]
    little, much = (oracle_wer(known, tested[:20], jitter=jitter) for jitter in (0.012, 0.5))
    assert little.wer < 0.06
    assert much.wer > little.wer + 0.1, "noise makes signs harder to tell apart"
    assert little.num_glosses == sum(len(take.sentences[0].glosses) for take in tested[:20])
    assert sum(count for _, _, count in much.confusions) == round(much.wer * much.num_glosses)
    with pytest.raises(DataError, match="no known take"):
        oracle_wer(known[:1], tested)
