"""Is a video usable? Decode what would be used and answer with a reason code; nobody is thrown at."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np

from sign_dist.config.data import Sampling
from sign_dist.errors import VideoError
from sign_dist.video.decode import read_clip

MIN_FRAMES = 4
MIN_SIDE_PX = 32
# Standard deviation over one frame's pixels, in the colour that varies most; sensor noise alone exceeds it.
MIN_VARIATION = 1.5

REASONS: dict[str, tuple[str, str]] = {
    "missing": ("the file named in the table does not exist", "check the path column, or download the file"),
    "empty": ("the file has 0 bytes", "download or copy it again"),
    "not_video": ("no container that FFmpeg knows, or its headers are damaged", "download it again, or re-encode it"),
    "no_video_stream": ("the file holds sound or data only", "look for the file with pictures"),
    "decode_failed": ("headers are sound, but no frame can be decoded", "download it again, or re-encode it"),
    "truncated": ("decoding breaks off before the declared end", "download it again; re-encode it to use what is there"),
    "too_short": (f"fewer than {MIN_FRAMES} frames, or the annotated span lies outside the file", "correct start and end"),
    "too_long": ("longer than the sampling's max_seconds", "cut it, give start and end, or raise sampling.max_seconds"),
    "too_small": (f"a side shorter than {MIN_SIDE_PX} pixels", "use a larger rendition"),
    "too_large": ("more pixels or frames than the memory bound allows", "use a smaller rendition"),
    "blank": ("every frame is one flat colour", "use another recording"),
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


def check_clip(path: str | Path, *, start_s: float = 0.0, end_s: float = 0.0, sampling: Sampling | None = None) -> Checked:
    """Decode a clip as training would and say whether it can be used.

    `num_frames` and `fps` are those of the sampled clip. `sha256` is of the whole file.
    """
    sampling = sampling or Sampling()
    path = Path(path)
    digest = _digest(path)
    try:
        clip = read_clip(path, start_s=start_s, end_s=end_s, **sampling.model_dump())
        _refuse_unusable(clip.frames, path.name)
    except VideoError as error:
        return Checked(error.code, str(error), digest)
    except MemoryError:
        return Checked("too_large", f"{path.name!r} does not fit into memory", digest)
    except OSError as error:
        return Checked("missing", f"{path.name!r} cannot be read: {error.strerror}", digest)
    return Checked("", "", digest, len(clip), round(clip.fps, 3))


def _digest(path: Path) -> str:
    """sha256 of a file, "" for one that is not there; `read_clip` will say why."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):
        return ""


def _refuse_unusable(frames: np.ndarray, name: str) -> None:
    count, height, width = frames.shape[:3]
    if count < MIN_FRAMES:
        raise VideoError("too_short", f"{name!r} has {count} frames in its span, {MIN_FRAMES} are needed")
    if min(height, width) < MIN_SIDE_PX:
        raise VideoError("too_small", f"{name!r} is {width}x{height} pixels, {MIN_SIDE_PX} a side are needed")
    # Flat in each frame: neither its colour nor a fade from one to another makes a picture.
    some = frames[:: max(1, count // 8), :: max(1, height // 120), :: max(1, width // 120)]
    if some.std(axis=(1, 2), dtype=np.float32).max() < MIN_VARIATION:
        raise VideoError("blank", f"{name!r} shows one flat colour from start to end")
