"""Continuous signing: sentences to body poses over time, and which frames belong to which sign.

Between two signs the hand goes straight from the end of one to the beginning of the next, and its shape and direction
change on the way (transitional movement; Sandler and Lillo-Martin 2006, "Sign Language and Linguistic Universals"). A
sign in a sentence is shorter than alone, repeats its movement less often, and is made nearer to where its neighbours
are made (location undershoot; Mauk 2003). The other hand stays where a two-handed sign has left it when it is soon
needed again (weak hand spread). Brows are raised during the topic. Movements are those of `motion`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sign_dist.synthetic.grammar import Sentence
from sign_dist.synthetic.hand import Floats
from sign_dist.synthetic.lexicon import LEXICON, Sign
from sign_dist.synthetic.motion import (
    MIRROR,
    HandPoses,
    Motion,
    arm_of,
    base_poses,
    minimum_jerk,
    place_of,
    rest_poses,
    sign_poses,
    slerp,
    stroke_path,
)
from sign_dist.synthetic.signer import Signer

SIGN_OF: Final = {sign.gloss: sign for sign in LEXICON}

REST_S: Final = 0.24  # hands in the lap before the first and after the last sign
RAISE_S: Final = 0.32  # from the lap to the first sign, and back
PAUSE_S: Final = 0.55  # hands in the lap between two sentences of one recording
STROKE_S: Final = 0.44
TRANSITION_S: Final = (0.15, 0.13)  # at no distance, and more per shoulder width: longer ways take longer (Fitts 1954)
UNDERSHOOT: Final = 0.10  # share of the way to the neighbours' place
AGREEMENT_X: Final = 0.22  # how far a sign moves to the side on which its person stands
# These movements are cut to a part of their repetitions.
REDUCED: Final = {"shake": 2 / 3, "wiggle": 2 / 3, "tap": 2 / 3, "circle": 1 / 2}
FREE_GAP_S: Final = 1.2  # a weak hand that is not needed for longer goes to the lap
SWING_Z: Final = 0.18  # towards the viewer on the way from and to the lap, and by share of it on longer ways
SHAKE_RAD: Final = 0.05  # of the head during a negation
SHAKE_HZ: Final = 2.6


@dataclass(frozen=True)
class Span:
    """Frames `[start, end)` of one sign, in which its stroke is `[stroke_start, stroke_end)`; `gloss` is "" for a rest.

    Half of the way from the sign before and half of the way to the next one belong to a sign.
    """

    gloss: str
    start: int
    end: int
    stroke_start: int
    stroke_end: int
    sentence: int  # which sentence of the recording; -1 for a rest


@dataclass(frozen=True)
class Utterance:
    """Poses of a recording and its alignment: spans without gaps from frame 0 to the last, rests included."""

    motion: Motion
    spans: tuple[Span, ...]

    @property
    def glosses(self) -> tuple[str, ...]:
        return tuple(span.gloss for span in self.spans if span.gloss)

    def sentence_frames(self, sentence: int) -> tuple[int, int]:
        """Frames `[first, last)` from the first to the last sign of a sentence."""
        spans = [span for span in self.spans if span.sentence == sentence]
        return spans[0].start, spans[-1].end


@dataclass(frozen=True)
class _Timed:
    """One sign of a recording: when its stroke is made, seconds, and where."""

    sign: Sign
    start_s: float
    end_s: float
    place: Floats
    scale: float
    sentence: int
    topic: bool


@dataclass(frozen=True)
class _Hold:
    """A stretch of time in which a hand does one thing; between holds it goes straight from one to the next."""

    start_s: float
    end_s: float
    poses: Callable[[Floats], HandPoses]  # phase (T,) in 0..1 -> poses
    resting: bool = False


def make_utterance(sentences: Sequence[Sentence], signer: Signer, rng: np.random.Generator) -> Utterance:
    """`signer` makes `sentences` one after the other, from rest to rest; `rng` draws what differs between two takes.

    Raises ValueError when there is no sentence or a gloss is no sign of the lexicon.
    """
    unknown = [gloss for sentence in sentences for gloss in sentence.glosses if gloss not in SIGN_OF]
    if not sentences or unknown:
        raise ValueError(f"need sentences of signs of the lexicon; not in it: {', '.join(unknown) or 'there is no sentence'}")
    shift = np.array(signer.location_shift) + rng.normal(0.0, 0.018, size=3)
    rests, signs = _timetable(sentences, signer, rng, shift * (MIRROR if signer.left_handed else 1.0))
    num_frames = max(round(rests[-1][1] * signer.fps), 1)
    time_s = (np.arange(num_frames) + 0.5) / signer.fps
    sway = 0.012 * np.sin(2 * np.pi * (0.35 * time_s + rng.uniform()))
    swaying = np.column_stack([sway, 0.3 * sway, np.zeros(num_frames)])

    strong = _hand(time_s, _strong_holds(rests, signs, signer))
    weak = _hand(time_s, _weak_holds(rests, signs, signer, shift))
    arms = (arm_of(signer, strong, swaying), arm_of(signer, weak, swaying))
    hands, elbows, shoulders = (np.stack([s, w * MIRROR], axis=1) for s, w in zip(*arms, strict=True))
    head = np.column_stack([_head_roll(time_s, signs, rng), 1.3 * sway, np.zeros(num_frames)])
    if signer.left_handed:
        hands, elbows, shoulders = (part[:, ::-1] * MIRROR for part in (hands, elbows, shoulders))
        head = head * np.array([-1.0, -1.0, 1.0])
    spans = _spans(rests, signs, signer.fps, num_frames)
    strokes = [span for span in spans if span.gloss]
    motion = Motion(
        fps=signer.fps,
        hands=hands,
        elbows=elbows,
        shoulders=shoulders,
        head=head,
        eyes=_blinks(time_s, rng),
        mouth=_mouth(time_s, signs, signer, rng),
        brows=_during(time_s, [sign for sign in signs if sign.topic]) * rng.uniform(0.6, 1.0),
        stroke=(strokes[0].stroke_start, strokes[-1].stroke_end),
    )
    return Utterance(motion, spans)


def _timetable(
    sentences: Sequence[Sentence], signer: Signer, rng: np.random.Generator, shift: Floats
) -> tuple[list[tuple[float, float]], list[_Timed]]:
    """When hands rest, and when each sign is made where: `rests` has one entry more than there are sentences."""
    now_s = REST_S * rng.uniform(0.8, 1.3)
    rests, signs = [(0.0, now_s)], list[_Timed]()
    scale = signer.amplitude * 0.94  # signs in sentences are made a little smaller
    for number, sentence in enumerate(sentences):
        made = [SIGN_OF[gloss] for gloss in sentence.glosses]
        places = [
            place_of(sign, signer) + AGREEMENT_X * locus * np.eye(3)[0] for sign, locus in zip(made, sentence.loci, strict=True)
        ]
        now_s += RAISE_S / signer.speed * rng.uniform(0.9, 1.1)
        for k, (sign, place) in enumerate(zip(made, places, strict=True)):
            if k:
                base, per_width = TRANSITION_S
                way = float(np.linalg.norm(place - places[k - 1]))
                now_s += (base + per_width * way) / signer.speed * rng.uniform(0.85, 1.15)
            stroke_s = STROKE_S / signer.speed * rng.uniform(0.85, 1.15)
            topic = sentence.num_time <= k < sentence.num_time + sentence.num_topic
            here = _drawn_to_neighbours(places, k) if sign.hands != "base" else place
            wobble = rng.normal(0.0, 0.018, size=3)
            signs.append(
                _Timed(sign, now_s, now_s + stroke_s, here + shift + wobble, scale * rng.uniform(0.92, 1.08), number, topic)
            )
            now_s += stroke_s
        now_s += RAISE_S / signer.speed * rng.uniform(0.9, 1.1)
        last = number == len(sentences) - 1
        rest_s = (REST_S if last else PAUSE_S) * rng.uniform(0.8, 1.3)
        rests.append((now_s, now_s + rest_s))
        now_s += rest_s
    return rests, signs


def _drawn_to_neighbours(places: Sequence[Floats], k: int) -> Floats:
    near = [places[i] for i in (k - 1, k + 1) if 0 <= i < len(places)]
    return places[k] + UNDERSHOOT * (np.mean(near, axis=0) - places[k]) if near else places[k]


def _strong_holds(rests: Sequence[tuple[float, float]], signs: Sequence[_Timed], signer: Signer) -> list[_Hold]:
    holds = [_rest_hold(*rest) for rest in rests]
    holds += [_Hold(timed.start_s, timed.end_s, _stroke(timed, signer, reverse=False)) for timed in signs]
    return sorted(holds, key=lambda hold: hold.start_s)


def _weak_holds(rests: Sequence[tuple[float, float]], signs: Sequence[_Timed], signer: Signer, shift: Floats) -> list[_Hold]:
    holds = [_rest_hold(*rest) for rest in rests]
    for timed in signs:
        match timed.sign.hands:
            case "one":
                continue
            case "base":
                poses = _base(shift, signer)
            case "mirrored" | "alternating":
                poses = _stroke(timed, signer, reverse=timed.sign.hands == "alternating")
        holds.append(_Hold(timed.start_s, timed.end_s, poses))
    holds.sort(key=lambda hold: hold.start_s)
    spread = list[_Hold]()
    for before, after in pairwise(holds):
        gap_s = after.start_s - before.end_s
        way_s = min(gap_s, 2 * RAISE_S)
        spread.append(before)
        if before.resting:  # stays in the lap until it is needed
            spread[-1] = _Hold(before.start_s, after.start_s - min(gap_s, RAISE_S), before.poses, resting=True)
        elif gap_s > FREE_GAP_S and not after.resting:
            spread.append(_rest_hold(before.end_s + 1.3 * RAISE_S, after.start_s - 1.3 * RAISE_S))
        elif not after.resting:  # weak hand spread: stays where it is, then goes to where it is needed
            spread.append(_Hold(before.end_s, after.start_s - way_s, _frozen(before.poses)))
        else:  # nothing more to do in this sentence: sinks to the lap while the other hand goes on
            spread.append(_rest_hold(min(before.end_s + 1.3 * RAISE_S, after.start_s), after.start_s))
    return [*spread, holds[-1]]


def _rest_hold(start_s: float, end_s: float) -> _Hold:
    return _Hold(start_s, end_s, lambda u: rest_poses(len(u)), resting=True)


def _stroke(timed: _Timed, signer: Signer, *, reverse: bool) -> Callable[[Floats], HandPoses]:
    part = REDUCED.get(timed.sign.movement, 1.0)

    def poses(u: Floats) -> HandPoses:
        path = stroke_path(timed.sign.movement, part * (1.0 - u if reverse else u))
        made = sign_poses(timed.sign, timed.place, path, timed.scale, signer.hand_length)
        angles = made.angles.copy()
        angles[:, :, 0] += path.wiggle
        return HandPoses(angles, made.thumb, made.turned, made.wrist)

    return poses


def _base(shift: Floats, signer: Signer) -> Callable[[Floats], HandPoses]:
    return lambda u: base_poses(len(u), shift, signer.hand_length)


def _frozen(poses: Callable[[Floats], HandPoses]) -> Callable[[Floats], HandPoses]:
    return lambda u: poses(np.ones_like(u))


def _hand(time_s: Floats, holds: Sequence[_Hold]) -> HandPoses:
    """A right hand over all frames: what its holds say, and straight, smooth ways between them."""
    num_frames = len(time_s)
    result = HandPoses(
        np.zeros((num_frames, 4, 4)), np.zeros((num_frames, 3, 3)), np.zeros((num_frames, 3, 3)), np.zeros((num_frames, 3))
    )
    first, last = np.zeros(1), np.ones(1)
    for k, hold in enumerate(holds):
        inside = (time_s >= hold.start_s) & (time_s < hold.end_s if k + 1 < len(holds) else True)
        length_s = max(hold.end_s - hold.start_s, 1e-6)
        _put(result, inside, hold.poses(np.clip((time_s[inside] - hold.start_s) / length_s, 0, 1)))
        if k + 1 == len(holds):
            break
        after = holds[k + 1]
        between = (time_s >= hold.end_s) & (time_s < after.start_s)
        weight = minimum_jerk((time_s[between] - hold.end_s) / max(after.start_s - hold.end_s, 1e-6))
        way = _between(hold.poses(last), after.poses(first), weight)
        _put(result, between, way)
    return result


def _put(result: HandPoses, where: NDArray[np.bool_], poses: HandPoses) -> None:
    result.angles[where] = poses.angles
    result.thumb[where] = poses.thumb
    result.turned[where] = poses.turned
    result.wrist[where] = poses.wrist


def _between(one: HandPoses, other: HandPoses, weight: Floats) -> HandPoses:
    """Poses on the way from `one` to `other`, each of one frame."""
    w = weight[:, None, None]
    thumb = (1 - w) * one.thumb + w * other.thumb
    thumb = thumb / np.maximum(np.linalg.norm(thumb, axis=-1, keepdims=True), 1e-9)
    shape = (len(weight), 3, 3)
    turned = slerp(np.broadcast_to(one.turned[0], shape), np.broadcast_to(other.turned[0], shape), weight)
    wrist = (1 - weight[:, None]) * one.wrist + weight[:, None] * other.wrist
    way = float(np.linalg.norm(other.wrist - one.wrist))
    wrist[:, 2] += SWING_Z * min(way, 1.0) * np.sin(np.pi * weight)  # in front of the body, not through it
    return HandPoses((1 - w) * one.angles + w * other.angles, thumb, turned, wrist)


def _spans(rests: Sequence[tuple[float, float]], signs: Sequence[_Timed], fps: int, num_frames: int) -> tuple[Span, ...]:
    """Spans that fill the recording; where one way ends and the next begins is the middle of the time between them."""
    parts = [("", start, end, -1) for start, end in rests] + [(t.sign.gloss, t.start_s, t.end_s, t.sentence) for t in signs]
    parts.sort(key=lambda part: part[1])
    cuts = [0, *(round(0.5 * (one[2] + other[1]) * fps) for one, other in pairwise(parts)), num_frames]
    return tuple(
        Span(gloss, start, end, max(round(from_s * fps), start), min(round(to_s * fps), end), sentence)
        for (gloss, from_s, to_s, sentence), (start, end) in zip(parts, pairwise(cuts), strict=True)
    )


def _during(time_s: Floats, signs: Sequence[_Timed]) -> Floats:
    """(T,) 1 from shortly before to shortly after any of `signs`, else 0."""
    inside = np.zeros(len(time_s))
    for timed in signs:
        inside[(time_s >= timed.start_s - 0.1) & (time_s < timed.end_s + 0.1)] = 1.0
    return inside


def _head_roll(time_s: Floats, signs: Sequence[_Timed], rng: np.random.Generator) -> Floats:
    roll = rng.normal(0.01, 0.02) + 0.015 * np.sin(2 * np.pi * (0.31 * time_s + rng.uniform()))
    for timed in signs:
        if timed.sign.gloss == "NOT":
            u = np.clip((time_s - timed.start_s) / (timed.end_s - timed.start_s), 0, 1)
            roll = roll + SHAKE_RAD * np.sin(np.pi * u) * np.sin(2 * np.pi * SHAKE_HZ * (time_s - timed.start_s))
    return roll


def _blinks(time_s: Floats, rng: np.random.Generator) -> Floats:
    """(T,) 1 open, 0 shut: a blink about every 2.5 s."""
    eyes = np.ones(len(time_s))
    at_s = rng.uniform(0.2, 2.5)
    while at_s < time_s[-1]:
        eyes -= np.exp(-(((time_s - at_s) / 0.07) ** 2))
        at_s += rng.uniform(1.5, 3.5)
    return eyes


def _mouth(time_s: Floats, signs: Sequence[_Timed], signer: Signer, rng: np.random.Generator) -> Floats:
    mouth = np.zeros(len(time_s))
    for timed in signs:
        u = np.clip((time_s - timed.start_s) / (timed.end_s - timed.start_s), 0, 1)
        mouth += signer.mouthing * np.sin(np.pi * float(rng.integers(1, 3)) * u) ** 2
    return mouth
