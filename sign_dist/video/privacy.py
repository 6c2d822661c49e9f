"""Faces made unrecognisable in every frame of a clip, before anything of it is kept.

A face is followed from frame to frame. Where the finder misses it for a while its box is interpolated, and a face that is
seen in most frames is taken to be there from the first one to the last: better too much is hidden than too little. Of each
box only a few mean colours are left, so there is nothing to sharpen.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from sign_dist.errors import VideoError
from sign_dist.video.face_crop import FaceFinder, Frames, expand
from sign_dist.video.tubes import Box

CELLS = 4
"""Colours that are left across what is hidden, as flat squares: smooth transitions still look like a face to a detector."""
UP, DOWN, SIDEWAYS = 0.6, 0.3, 0.35
"""What is hidden around the found face, in its own heights and widths: hair, ears and chin."""
MEMORY_S = 2.0
"""A face may be out of sight so long, and is hidden at most so long before and after it was seen."""
MAIN = 0.5
"""A face seen in more than this share of the frames, or else the one seen most, is hidden in all of them."""


def blur_faces(frames: Frames, fps: float, find_faces: FaceFinder) -> Frames:
    """A copy of the frames uint8 (T, H, W, 3) with every face hidden.

    Raises:
        VideoError: `no_signer`, no face is found in any frame, so nothing can be promised about this clip.
    """
    tracks = follow(find_faces(frames), memory=max(1, round(MEMORY_S * fps)))
    if not tracks:
        raise VideoError("no_signer", f"no face was found to blur in any of the {len(frames)} frames: use --privacy keypoints")
    result = frames.copy()
    for track in tracks:
        for t, box in track.items():
            hide(result[t], expand(box, up=UP, down=DOWN, sideways=SIDEWAYS))
    return result


def hide(picture: NDArray[np.uint8], box: Box) -> None:
    """Leave CELLS colours across the part of a picture in a box, in place."""
    height, width = picture.shape[:2]
    left, top = max(0, int(np.floor(box[0]))), max(0, int(np.floor(box[1])))
    right, bottom = min(width, int(np.ceil(box[2])) + 1), min(height, int(np.ceil(box[3])) + 1)
    if left >= right or top >= bottom:
        return
    part = picture[top:bottom, left:right]
    rows = max(1, round(CELLS * (bottom - top) / (right - left)))
    mean = cv2.resize(part, (min(CELLS, right - left), min(rows, bottom - top)), interpolation=cv2.INTER_AREA)
    part[:] = cv2.resize(mean, (right - left, bottom - top), interpolation=cv2.INTER_NEAREST)


def follow(faces: Sequence[Sequence[Box]], *, memory: int) -> list[dict[int, Box]]:
    """Boxes by frame of each face, without holes; `memory` as MEMORY_S, in frames."""
    tracks: list[dict[int, Box]] = []
    for t, frame in enumerate(faces):
        open_tracks = [track for track in tracks if t - max(track) <= memory]
        for box in frame:
            near = min(open_tracks, key=lambda track: _distance(track[max(track)], box), default=None)
            if near is not None and _distance(near[max(near)], box) < 1.0:
                near[t] = box
                open_tracks = [track for track in open_tracks if track is not near]
            else:
                tracks.append({t: box})
    longest = max(tracks, key=len, default=None)
    # What was seen but once is often no face, so it is hidden no longer than it was seen.
    return [
        filled(track, len(faces), len(faces) if track is longest or len(track) > MAIN * len(faces) else min(memory, len(track)))
        for track in tracks
    ]


def filled(track: dict[int, Box], num_frames: int, memory: int) -> dict[int, Box]:
    """A track with boxes between its sightings, and its first and last box up to `memory` frames before and after."""
    seen = sorted(track)
    times = np.arange(max(0, seen[0] - memory), min(num_frames, seen[-1] + memory + 1))
    edges = np.array([track[t] for t in seen], np.float64)
    between = np.stack([np.interp(times, seen, edge) for edge in edges.T], axis=1)
    return {int(t): (box[0], box[1], box[2], box[3]) for t, box in zip(times, between.tolist(), strict=True)}


def _distance(a: Box, b: Box) -> float:
    """Between two centres, in widths of the larger box."""
    shift = np.hypot((a[0] + a[2] - b[0] - b[2]) / 2, (a[1] + a[3] - b[1] - b[3]) / 2)
    return float(shift / max(a[2] - a[0] + 1, b[2] - b[0] + 1))
