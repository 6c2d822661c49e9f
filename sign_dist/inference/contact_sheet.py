"""A contact sheet: one small picture each of a few clips, as far as the dataset's level of privacy lets people be shown."""

import collections
import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from sign_dist.config.data import FrameFeatures
from sign_dist.data.privacy import Level
from sign_dist.data.sample import Sample
from sign_dist.errors import VideoError, WeightsError
from sign_dist.features.encode import find_files, models_dir
from sign_dist.inference.html_page import four_by_three, jpeg_uri
from sign_dist.video.clip import shrink
from sign_dist.video.face_crop import FaceFinder
from sign_dist.video.guarded import read_guarded
from sign_dist.video.privacy import blur_faces

MAX_PICTURES = 60
# About 7 KB each: sixty stay below 600 KB in a page.
WIDTH_PX = 208
# Frames a second that are read: the middle one is shown, its neighbours help to follow a face that must be hidden.
FPS = 5.0
# Faces are looked for in pictures of this size, before they shrink.
FACE_SIDE_PX = 480


@dataclasses.dataclass(frozen=True)
class Picture:
    """A clip and its picture as a data address, or why there is none."""

    clip: Sample
    uri: str
    reason: str = ""


def choose(clips: Sequence[Sample], most: int, *, by_gloss: bool) -> list[Sample]:
    """At most `most` clips that show as much as they can: different glosses, signers and splits.

    `by_gloss`: one clip per gloss, in alphabetical order; with more glosses than pictures, evenly from the frequent ones to
    the rare ones. Else clips of each signer in turn. The answer depends on the clips alone, not on their order.
    """
    if most < 1:
        return []
    ordered = sorted(clips, key=lambda s: s.id)
    groups: dict[str, list[Sample]] = collections.defaultdict(list)
    for clip in ordered:
        groups[clip.gloss if by_gloss else clip.signer].append(clip)
    if not by_gloss:
        turns = max(map(len, groups.values()), default=0)
        return [groups[name][i] for i in range(turns) for name in sorted(groups) if i < len(groups[name])][:most]
    ranked = sorted(groups, key=lambda name: (-len(groups[name]), name))
    if len(ranked) > most:
        ranked = [ranked[math.floor((i + 0.5) * len(ranked) / most)] for i in range(most)]
    shown: collections.Counter[str] = collections.Counter()
    chosen: list[Sample] = []
    for gloss in sorted(ranked):
        clip = min(groups[gloss], key=lambda s: (shown[s.signer], s.id))
        shown[clip.signer] += 1
        chosen.append(clip)
    return chosen


def pictures(root: Path, clips: Sequence[Sample], level: Level, *, image_fps: float, max_seconds: float) -> Iterator[Picture]:
    """The middle frame of each clip, with faces hidden where the level asks for it; nothing at all for `keypoints`.

    What cannot be read or blurred is a picture with a reason. Files are read in a child process, so none can end the report.
    """
    if level == "keypoints" or not clips:
        return
    find_faces: FaceFinder | None = None
    if level == "blur":
        try:
            find_faces = face_finder()
        except WeightsError as error:
            yield from (Picture(clip, "", f"faces cannot be blurred: {error}") for clip in clips)
            return
    for clip in clips:
        try:
            uri = jpeg_uri(_middle(root / clip.video_path, clip, find_faces, image_fps, max_seconds))
        except VideoError as error:
            yield Picture(clip, "", "the file is missing" if error.code == "missing" else error.code.replace("_", " "))
        except (OSError, RuntimeError) as error:
            yield Picture(clip, "", type(error).__name__)
        else:
            yield Picture(clip, uri, "" if uri else "the picture cannot be written")


def face_finder() -> FaceFinder:
    """What finds the faces that must be hidden.

    Raises:
        WeightsError: its model file is not here and cannot be fetched.
    """
    from sign_dist.video.detectors import FaceDetector

    return FaceDetector(find_files(FrameFeatures(privacy="blur"), models_dir()).paths["face_box"])


def _middle(path: Path, clip: Sample, find_faces: FaceFinder | None, image_fps: float, max_seconds: float) -> np.ndarray:
    """(H, W, 3), 4:3, at most WIDTH_PX wide."""
    read = read_guarded(
        path,
        fps=FPS,
        max_side_px=FACE_SIDE_PX,
        max_seconds=max_seconds,
        image_fps=image_fps,
        start_s=clip.start_s,
        end_s=clip.end_s,
    )
    frames = read.frames if find_faces is None else blur_faces(read.frames, read.fps, find_faces)
    return shrink(four_by_three(frames[len(frames) // 2]), WIDTH_PX)
