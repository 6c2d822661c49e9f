"""Is a video usable? Decode what would be used and answer with a reason code; nobody is thrown at."""

import dataclasses
import hashlib
from pathlib import Path

import cv2
import numpy as np

from sign_dist.config.data import Sampling
from sign_dist.errors import VideoError
from sign_dist.video import pictures
from sign_dist.video.decode import Clip, read_clip
from sign_dist.video.tracks import is_track, read_track

MIN_FRAMES = 4
MIN_SIDE_PX = 32
# Standard deviation over one frame's pixels, in the colour that varies most; sensor noise alone exceeds it.
MIN_VARIATION = 1.5

# Grey levels by which some cell, 1/32 of the picture's sides, must change. The least of 100 clips of signers was 54;
# a still may flicker by a few through re-encoding, and then passes: a quiet clip is not refused for it.
MIN_CHANGE = 2.0
# What is shorter may be the hold of a sign.
FROZEN_FROM_S = 0.5

REASONS: dict[str, tuple[str, str]] = {
    "missing": (
        "the file named in the table does not exist, or its folder holds no picture",
        "check the path column, or download the file",
    ),
    "not_a_file": ("a pipe, a socket or a device", "give a file or a folder of pictures"),
    "unreadable": ("no permission, or the disk fails", "change the permissions, or copy the file again"),
    "empty": ("the file has 0 bytes", "download or copy it again"),
    "playlist": ("a list of other files, such as m3u8, which is not followed", "download the video that it names"),
    "no_pictures": ("a landmark track (.npy), of which only landmark features can be made", "extract landmarks"),
    "not_a_track": (
        "the .npy file holds no normalised points (T, 102, 4) as floats",
        "write it as `sign-dist synth --landmarks` does",
    ),
    "no_detector": (
        "the features were made of landmark tracks alone, and nothing finds points in pictures",
        "give a landmark track (.npy), or extract landmarks of videos",
    ),
    "not_finite": ("values of a landmark track are infinite or no numbers", "make the track again"),
    "not_video": ("no container that FFmpeg knows, or its headers are damaged", "download it again, or re-encode it"),
    "no_video_stream": ("the file holds sound or data only", "look for the file with pictures"),
    "unsupported_codec": ("no decoder knows how the pictures are coded", "re-encode it as H.264"),
    "encrypted": ("the pictures are encrypted", "ask for a copy without copy protection"),
    "decode_failed": ("headers are sound, but no frame can be decoded", "download it again, or re-encode it"),
    "truncated": ("decoding breaks off before the declared end", "download it again; re-encode it to use what is there"),
    "missing_frames": (
        "in a folder of pictures a number is left out or stands twice",
        "copy the folder again; one folder per clip",
    ),
    "mixed_sizes": ("the picture size changes in the middle", "re-encode it at one size, or cut it there"),
    "too_short": (f"fewer than {MIN_FRAMES} frames after sampling", "correct start and end, or raise sampling.fps"),
    "span_outside": (
        "the annotated span lies outside the file, or more than 0.5 s and a tenth of it does",
        "correct start and end",
    ),
    "too_long": ("longer than the sampling's max_seconds", "cut it, give start and end, or raise sampling.max_seconds"),
    "too_small": (f"a side shorter than {MIN_SIDE_PX} pixels", "use a larger rendition"),
    "too_large": ("more pixels or frames than the memory bound allows", "use a smaller rendition"),
    "blank": ("every frame is one flat colour", "use another recording"),
    "frozen": ("all frames are the same picture", "use another recording"),
    "timed_out": ("decoding took longer than its limit and was stopped", "re-encode it; leave it out if that hangs too"),
    "out_of_memory": ("decoding took more memory than its limit", "use a smaller rendition, or re-encode it"),
    "no_signer": ("no person is found in any frame", "use another recording, or crop to the signer"),
    "no_gloss": ("the table has no gloss for this clip", "fill the gloss column"),
    "not_allowed": ("the path leaves the corpus folder", "put the file into the corpus folder"),
    "bad_name": ("the file's name is not UTF-8, or holds a tab or a line break", "rename the file"),
    "duplicate_id": ("an earlier row has the same id", "make ids unique"),
    "bad_row": ("the row of the annotations is not whole, or a value is not what its column holds", "correct the row"),
    "not_kept": ("its gloss is not among those to keep", "add it to the list of glosses"),
    "too_few_clips": ("its gloss has fewer usable clips than glosses.min_clips", "record more clips, or lower glosses.min_clips"),
    "bad_span": ("start and end are no numbers, or end is not after start", "correct start and end, in seconds"),
    "crashed": ("the process that read this clip died", "look at the file with ffprobe; leave it out"),
}
"""Every reason a clip can be refused for: what it means, and the remedy."""


@dataclasses.dataclass(frozen=True)
class Checked:
    """What decoding a clip showed. `reason` is "" for a usable clip; then the other fields are measured."""

    reason: str
    detail: str = ""
    sha256: str = ""
    num_frames: int = 0
    fps: float = 0.0


def check_clip(
    source: str | Path | bytes, *, start_s: float = 0.0, end_s: float = 0.0, sampling: Sampling | None = None
) -> Checked:
    """Decode a clip as training would and say whether it can be used. `guarded.check_guarded` does it in a child.

    `num_frames` and `fps` are those of the sampled clip. `sha256` is of the whole file, or of a folder's pictures.
    """
    sampling = sampling or Sampling()
    name = "bytes in memory" if isinstance(source, bytes) else Path(source).name
    digest = digest_of(source)
    try:
        if not isinstance(source, bytes) and is_track(source):
            clip = read_track(source, sampling, start_s=start_s, end_s=end_s)
            _refuse_few(len(clip), clip.num_source, clip.fps, name)
        else:
            clip = read_clip(source, start_s=start_s, end_s=end_s, **sampling.model_dump())
            refuse_unusable(clip, name)
    except VideoError as error:
        return Checked(error.code, str(error), digest)
    except MemoryError:
        return Checked("out_of_memory", f"{name!r} takes more memory than there is", digest)
    except OSError as error:
        return Checked("unreadable", f"{name!r} cannot be read: {error.strerror}", digest)
    return Checked("", "", digest, len(clip), round(clip.fps, 3))


def digest_of(source: str | Path | bytes) -> str:
    """sha256 of a file, or of the names and bytes of a folder's pictures; "" for what is not there, `read_clip` says why."""
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    path = Path(source)
    try:
        if path.is_dir():
            return pictures.digest(path)
        if not path.is_file():  # opening a pipe would wait for ever
            return ""
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError, VideoError):
        return ""


def refuse_unusable(clip: Clip, name: str) -> None:
    """Decoded, but nothing to learn from.

    Raises:
        VideoError: `too_short`, `too_small`, `blank` or `frozen`.
    """
    count, height, width = clip.frames.shape[:3]
    _refuse_few(count, clip.num_source, clip.fps, name)
    if min(height, width) < MIN_SIDE_PX:
        raise VideoError("too_small", f"{name!r} is {width}x{height} pixels, {MIN_SIDE_PX} a side are needed")
    # Flat in each frame: neither its colour nor a fade from one to another makes a picture.
    some = clip.frames[:: max(1, count // 8), :: max(1, height // 120), :: max(1, width // 120)]
    if some.std(axis=(1, 2), dtype=np.float32).max() < MIN_VARIATION:
        raise VideoError("blank", f"{name!r} shows one flat colour from start to end")
    if count / clip.fps < FROZEN_FROM_S:
        return
    cells = np.stack([cv2.resize(frame, (32, 32), interpolation=cv2.INTER_AREA) for frame in clip.frames])
    if np.ptp(cells, axis=0).max() < MIN_CHANGE:
        raise VideoError("frozen", f"{name!r} shows one picture that never changes in {count} frames")


def _refuse_few(count: int, num_source: int, fps: float, name: str) -> None:
    if count < MIN_FRAMES:
        text = f"{count} frame{'s' * (count != 1)}"
        if num_source > count:
            text = f"{count} of its {num_source} frames remain at {fps:.4g} a second"
        raise VideoError("too_short", f"{name!r}: {text}, {MIN_FRAMES} are needed")
