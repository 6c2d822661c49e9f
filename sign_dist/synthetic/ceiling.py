"""How well synthetic signing can be recognised at all.

Three statements, and how each is known:

- **Floor of the word error rate: 0.** No two signs of a vocabulary share all their parameters (`indistinguishable` finds
  none; `check_lexicon` refuses them), a sign in a sentence keeps its parameters, and faults of the landmarks are drawn
  without looking at the sign. So nothing makes two glosses look alike by construction.
- **Attainable: `oracle_wer`,** measured. A recogniser is told where every stroke is and which hand is the dominant one, and
  takes the likeliest gloss under one normal distribution per gloss, fitted to the strokes of other takes. With the
  boundaries known there are no insertions and deletions, and its errors per gloss are a word error rate that somebody
  does reach. It is no lower bound: a better recogniser may do better, and one that must find the boundaries itself
  may do worse.
- **Translation: the English is a function of the glosses** (`grammar`), so who reads all glosses can reach every score's best.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np

from sign_dist.errors import DataError
from sign_dist.synthetic.hand import Floats
from sign_dist.synthetic.landmarks import BIAS, JITTER, LOST, motion_landmarks
from sign_dist.synthetic.takes import Take
from sign_dist.synthetic.utterance import SIGN_OF
from sign_dist.video.landmarks import LEFT_HAND, MIRROR, RIGHT_HAND

STEPS: Final = 6  # a stroke is looked at in so many moments
LEAST_SPREAD: Final = 0.03  # shoulder widths: no feature is trusted more than this
HAND_WEIGHT: Final = 0.5  # joints of one hand move together: as evidence they count less than as many free ones


@dataclass(frozen=True)
class Ceiling:
    """Errors per gloss of a recogniser that is told the boundaries, and what it took for what."""

    wer: float
    num_glosses: int
    confusions: tuple[tuple[str, str, int], ...]  # gloss, taken for, how often; most frequent first


def indistinguishable(glosses: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs that share all parameters of their signs; each would be a coin toss for any recogniser.

    >>> indistinguishable(["HELLO", "HOUSE"])
    []
    """
    return [(a, b) for a, b in combinations(sorted(set(glosses)), 2) if SIGN_OF[a].parameters == SIGN_OF[b].parameters]


def oracle_wer(
    known: Sequence[Take], tested: Sequence[Take], *, jitter: float = JITTER, bias: float = BIAS, lost: float = LOST
) -> Ceiling:
    """Learn what each gloss looks like from `known` takes, and name the strokes of `tested` ones.

    Raises DataError when a gloss is tested that no known take holds.
    """
    examples: dict[str, list[Floats]] = {}
    for gloss, feature in _strokes(known, jitter, bias, lost):
        examples.setdefault(gloss, []).append(feature)
    unknown = {gloss for take in tested for sentence in take.sentences for gloss in sentence.glosses} - examples.keys()
    if not tested or unknown:
        raise DataError(f"no known take holds {', '.join(sorted(unknown)) or 'what is tested: there are no takes'}: use more takes")
    names = sorted(examples)
    means = np.array([np.mean(examples[name], axis=0) for name in names])
    pooled = np.mean([np.var(examples[name], axis=0) for name in names], axis=0)
    # With few examples of a gloss its own spread is uncertain: half of it is everybody's.
    spreads = np.array([0.5 * np.var(examples[name], axis=0) + 0.5 * pooled for name in names]) + LEAST_SPREAD**2
    wrong, total = Counter[tuple[str, str]](), 0
    for gloss, feature in _strokes(tested, jitter, bias, lost):
        cost = np.sum((feature - means) ** 2 / spreads + np.log(spreads), axis=1)
        guess = names[int(np.argmin(cost))]
        total += 1
        if guess != gloss:
            wrong[gloss, guess] += 1
    confusions = tuple((gloss, guess, count) for (gloss, guess), count in wrong.most_common())
    return Ceiling(sum(wrong.values()) / total, total, confusions)


def _strokes(takes: Iterable[Take], jitter: float, bias: float, lost: float) -> Iterator[tuple[str, Floats]]:
    """(gloss, feature) of every stroke: paths of both wrists and shapes of both hands, dominant hand first."""
    for take in takes:
        utterance, rng = take.utterance()
        points = motion_landmarks(utterance.motion, take.signer, rng, jitter=jitter, bias=bias, lost=lost).astype(float)
        if take.signer.left_handed:
            points = points[:, MIRROR] * np.array([-1.0, 1.0, 1.0, 1.0])
        for span in utterance.spans:
            if span.gloss:
                frames = np.linspace(span.stroke_start, max(span.stroke_end - 1, span.stroke_start), STEPS).round().astype(int)
                hands = np.stack([points[frames, part, :2] for part in (RIGHT_HAND, LEFT_HAND)], axis=1)
                shape = HAND_WEIGHT * (hands[:, :, 1:] - hands[:, :, :1])
                yield span.gloss, np.concatenate([hands[:, :, 0].ravel(), shape.ravel()])
