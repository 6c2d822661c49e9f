"""Do two clips show the same performance? A signature per clip, a search for candidates, and the comparison of two.

A signature is one row per 1/30 s: the lowest frequencies of the picture's cosine transform, as in pHash (Zauner 2010), kept
as numbers in place of bits. A copy that was encoded again, scaled, mirrored, trimmed or thinned out to another frame rate has
for each of its frames a twin in the original; another take of the same sign by the same signer before the same wall has not,
since hands and head are never twice in the same places at the same times. What is compared is therefore the difference of twins,
against how much moves in the clips: the background is equal in both and counts for nothing.
"""

import collections
import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sign_dist.video.decode import read_clip

Signature = NDArray[np.float16]
"""(T, WIDTH): a row per 1 / RATE_HZ seconds."""

RATE_HZ = 30.0
# Pictures are brought to SIDE x SIDE grey pixels, LOW x LOW frequencies of them are kept without the mean brightness.
SIDE_PX, LOW = 32, 12
WIDTH = LOW * LOW - 1
# Decoding bounds: pictures far below what models read, and clips longer than any that `prepare` accepts by default.
MAX_SIDE_PX, MAX_SECONDS = 96, 600.0

# Squared difference of two frames that coding noise makes: 0.7 grey levels in each of SIDE x SIDE pixels.
NOISE = 500.0
# Difference of twins over what two unrelated moments of the clips differ by. Measured on real clips: planted copies stay
# below 0.015, takes of one sign by one signer start at 0.038 (0.0196 in the drawn world).
SAME = 0.016
# Copies cut by a quarter at either end share half of the shorter; less than this many rows say nothing.
MIN_SHARE, MIN_ROWS = 0.5, 12
# A frame of a thinned-out copy stands up to one row beside its twin.
SLACK = 1
# Rows by which a candidate's offset may be wrong: neighbouring frames look alike.
AROUND = 4
# Rows of a clip that the others are searched for, and the principal components in which they are searched first.
NUM_ANCHORS, COMPONENTS = 3, 12
# Rows of a candidate that are looked at before all of it is compared.
NUM_GLANCES = 6

# Mirroring a picture negates its odd horizontal frequencies.
MIRROR = np.array([(-1.0) ** (i % LOW) for i in range(LOW * LOW)], np.float32)[1:]


@dataclasses.dataclass(frozen=True)
class Match:
    """Clips `first` and `second` (places in the list that was searched) show the same.

    `distance` lies in [0, SAME]; row r of the second is row r + `offset` of the first.
    """

    first: int
    second: int
    distance: float
    offset: int
    mirrored: bool

    @property
    def offset_s(self) -> float:
        return self.offset / RATE_HZ


def clip_signature(path: str | Path, start_s: float = 0.0, end_s: float = 0.0, *, image_fps: float = 25.0) -> Signature:
    """The signature of a clip `[start_s, end_s)`, 0 = to the end. Depends on nothing but the file.

    Raises:
        VideoError: the clip cannot be decoded.
    """
    clip = read_clip(
        path,
        fps=2 * RATE_HZ,
        max_side_px=MAX_SIDE_PX,
        max_seconds=MAX_SECONDS,
        image_fps=image_fps,
        start_s=start_s,
        end_s=end_s,
    )
    return frames_signature(clip.frames, clip.fps)


def frames_signature(frames: np.ndarray, fps: float) -> Signature:
    """The signature of frames `uint8 (T, H, W, 3)`: the frame on screen at each row's time, never a mixture of two."""
    num_rows = math.floor((len(frames) - 1) / fps * RATE_HZ + 1e-6) + 1
    shown = np.minimum((np.arange(num_rows) * fps / RATE_HZ + 1e-6).astype(int), len(frames) - 1)
    used, rows = np.unique(shown, return_inverse=True)
    result = np.empty((len(used), WIDTH), np.float16)
    for i, frame in enumerate(frames[used]):
        grey = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY)
        small = cv2.resize(grey, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA).astype(np.float32)
        result[i] = cv2.dct(small)[:LOW, :LOW].reshape(-1)[1:]
    return result[rows]


def distance(
    first: NDArray[np.floating[Any]], second: NDArray[np.floating[Any]], *, offset: int, around: int = 0
) -> tuple[float, int]:
    """(how unlike the overlap is, the offset at which it is least so), for offsets at most `around` from the one given.

    0 for equal clips up to coding noise; about 1 for unrelated ones; infinite where the overlap is too short. Each row of one
    is compared with the nearest of 1 + 2 SLACK rows of the other; the direction that fits better counts, since only the clip
    of the lower frame rate has a twin for each of its frames.
    """
    a, b = first.astype(np.float32), second.astype(np.float32)
    shifts = range(offset - around - SLACK, offset + around + SLACK + 1)
    by_second = np.full((len(shifts), len(b)), np.inf, np.float32)
    by_first = np.full((len(shifts), len(a)), np.inf, np.float32)
    for k, shift in enumerate(shifts):
        low, high = max(0, -shift), min(len(b), len(a) - shift)
        if low < high:
            apart = np.square(a[low + shift : high + shift] - b[low:high]).sum(axis=1)
            by_second[k, low:high] = by_first[k, low + shift : high + shift] = apart
    least = max(MIN_ROWS, math.ceil(MIN_SHARE * min(len(a), len(b))))
    best, where = math.inf, offset
    for k in range(SLACK, len(shifts) - SLACK):
        low, high = max(0, -shifts[k]), min(len(b), len(a) - shifts[k])
        if high - low >= least:
            near = slice(k - SLACK, k + SLACK + 1)
            forth = by_second[near, low:high].min(axis=0).mean()
            back = by_first[near, low + shifts[k] : high + shifts[k]].min(axis=0).mean()
            best, where = min((best, where), (float(min(forth, back)), shifts[k]))
    if best == math.inf:
        return best, offset
    low, high = max(0, -where), min(len(b), len(a) - where)
    moved = min(_moved(a[low + where : high + where]), _moved(b[low:high]))
    return max(0.0, best - NOISE) / (2 * max(moved, NOISE)), where


def _worth_comparing(first: NDArray[np.floating[Any]], second: NDArray[np.floating[Any]], offset: int, limit: float) -> bool:
    """A glance at NUM_GLANCES rows of the overlap: False where `distance` could hardly be small."""
    low, high = max(0, -offset), min(len(second), len(first) - offset)
    if high - low < MIN_ROWS // 2:
        return False
    at = np.linspace(low, high - 1, NUM_GLANCES).astype(int)
    around = np.clip(at[:, None] + offset + np.arange(-AROUND - SLACK, AROUND + SLACK + 1), 0, len(first) - 1)
    apart = np.square(first[around].astype(np.float32) - second[at][:, None]).sum(axis=2).min(axis=1)
    return float(apart.mean()) <= limit


def find_matches(signatures: Sequence[Signature]) -> list[Match]:
    """All pairs of clips that show the same, each once.

    A few telling frames of each clip, and their mirror images, are looked up among all frames, and only clips with frames
    that near are compared. Time O(F log F + C) and memory O(F) for F frames and C candidates: pairs of clips that pass through
    the same poses before the same wall. A signature shorter than MIN_ROWS matches nothing.
    """
    usable = [i for i, signature in enumerate(signatures) if len(signature) >= MIN_ROWS]
    if len(usable) < 2:
        return []
    frames = _Frames(signatures, usable)
    found: dict[tuple[int, int], Match] = {}
    for i in usable:
        rows = signatures[i].astype(np.float32)
        own = (rows, rows * MIRROR)
        limit = _radius(rows) ** 2
        for j, offset, mirrored in _candidates(i, rows, frames):
            pair = (min(i, j), max(i, j))
            if pair in found and found[pair].distance == 0.0:
                continue
            if not _worth_comparing(signatures[j], own[mirrored], offset, limit):
                continue
            apart, where = distance(signatures[j], own[mirrored], offset=offset, around=AROUND)
            if apart <= SAME and (pair not in found or apart < found[pair].distance):
                found[pair] = Match(*pair, apart, where if j < i else -where, mirrored)
    return sorted(found.values(), key=lambda match: (match.first, match.second))


class _Frames:
    """Every row of every clip, found by nearness.

    Rows are kept by their first principal components, which never enlarge a distance, so no twin is lost: two of them choose
    a cell of a grid, and rows lie sorted by the third inside it.
    """

    def __init__(self, signatures: Sequence[Signature], usable: Sequence[int]) -> None:
        lengths = [len(signatures[i]) for i in usable]
        owner = np.repeat(np.asarray(usable, np.int64), lengths)
        row = np.concatenate([np.arange(length) for length in lengths])
        self._centre, self._axes = _principal_axes([signatures[i] for i in usable])
        points = np.concatenate([self._project(signatures[i].astype(np.float32)) for i in usable])
        self._cell = 2 * float(np.median([_radius(signatures[i].astype(np.float32)) for i in usable]))
        self._low = points.min(axis=0)
        columns = np.floor((points[:, :2] - self._low[:2]) / self._cell).astype(np.int64)
        self._size = columns.max(axis=0) + 1
        self._depth = float(np.ptp(points[:, 2])) + 1.0  # keys of one cell take up so much of the number line
        keys = (columns[:, 0] * self._size[1] + columns[:, 1]) * self._depth + (points[:, 2] - self._low[2]).astype(np.float64)
        order = np.argsort(keys, kind="stable")
        self._keys, self._points, self._owner, self._row = keys[order], points[order], owner[order], row[order]

    def near(self, frame: NDArray[np.float32], radius: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(clip, row) of all rows that may be nearer than `radius` to one."""
        point = self._project(frame[None])[0]
        start = np.maximum(np.floor((point[:2] - radius - self._low[:2]) / self._cell).astype(int), 0)
        stop = np.minimum(np.floor((point[:2] + radius - self._low[:2]) / self._cell).astype(int) + 1, self._size)
        depths = np.clip(point[2] - self._low[2] + np.array([-radius, radius], np.float64), 0.0, self._depth - 0.5)
        found: list[NDArray[np.int64]] = []
        for x in range(start[0], stop[0]):
            for y in range(start[1], stop[1]):
                low, high = np.searchsorted(self._keys, (x * self._size[1] + y) * self._depth + depths + np.array([-1e-3, 1e-3]))
                inside = np.square(self._points[low:high] - point).sum(axis=1) <= radius * radius
                found.append(low + np.flatnonzero(inside))
        places = np.concatenate(found) if found else np.zeros(0, np.int64)
        return self._owner[places], self._row[places]

    def _project(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        return ((rows - self._centre) @ self._axes).astype(np.float32)


def _candidates(index: int, rows: NDArray[np.float32], frames: _Frames) -> Iterator[tuple[int, int, bool]]:
    """(other clip, offset of this one in it, mirrored?) where two telling frames of this clip have twins."""
    radius = _radius(rows)
    for mirrored in (False, True):
        # (other clip, offset in steps of AROUND) -> which anchors say so, as bits.
        said: dict[tuple[int, int], int] = collections.defaultdict(int)
        for number, anchor in enumerate(_anchors(rows)):
            owner, row = frames.near(rows[anchor] * MIRROR if mirrored else rows[anchor], radius)
            others = owner != index
            steps = (row[others] - anchor) // AROUND
            for place in set(zip(owner[others].tolist(), steps.tolist(), strict=True)):
                said[place] |= 1 << number
        # One alone may be a pose that many clips pass through. Offsets that differ by a few rows fall into neighbouring steps.
        for (other, step), anchors in sorted(said.items()):
            if (anchors | said.get((other, step + 1), 0)).bit_count() > 1:
                yield other, (step + 1) * AROUND, mirrored


def _radius(rows: NDArray[np.float32]) -> float:
    """How far a frame may be from its twin: the mean square is at most NOISE + 2 SAME moved, few exceed four times that."""
    return 2 * math.sqrt(NOISE + 2 * SAME * max(_moved(rows), NOISE))


def _anchors(rows: NDArray[np.float32]) -> list[int]:
    """The most unusual row of each third of the clip's middle: not the rest pose, in which all clips of a signer are alike."""
    unlike = np.square(rows - np.median(rows, axis=0)).sum(axis=1)
    edges = np.linspace(0.2, 0.8, NUM_ANCHORS + 1) * len(rows)
    parts = [(int(a), max(int(a) + 1, int(b))) for a, b in itertools.pairwise(edges)]
    return sorted({low + int(unlike[low:high].argmax()) for low, high in parts})


def _moved(rows: NDArray[np.float32]) -> float:
    """Mean square distance of the rows from their mean: how much moves; half of what two unrelated moments differ by."""
    return float(rows.var(axis=0).sum())


def _principal_axes(signatures: Sequence[Signature]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(mean row, the directions (WIDTH, COMPONENTS) in which rows differ most), one signature at a time."""
    count = sum(map(len, signatures))
    centre = np.sum([s.sum(axis=0, dtype=np.float64) for s in signatures], axis=0) / count
    scatter = np.zeros((WIDTH, WIDTH))
    for signature in signatures:
        apart = signature.astype(np.float64) - centre
        scatter += apart.T @ apart
    _, vectors = np.linalg.eigh(scatter)
    return centre.astype(np.float32), np.ascontiguousarray(vectors[:, ::-1][:, :COMPONENTS]).astype(np.float32)
