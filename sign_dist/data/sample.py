"""Sample: one annotated clip, the row that everything else is about."""

import dataclasses
import hashlib


@dataclasses.dataclass(frozen=True)
class Sample:
    """One clip `[start_s, end_s)` of a video and what is known of it.

    `end_s = 0` means to the end of the file. `video_path` may be a folder of numbered pictures. `gloss` is
    one label, or for continuous signing the glosses with a blank between them. `split` is the corpus's own, "" where it has
    none. `source` names the recording that the clip was cut from, "" where that is unknown. `n_frames`, `fps` (of the
    sampled clip) and `sha256` (of the file) are filled by `prepare` once the clip has been decoded.
    """

    id: str
    video_path: str
    gloss: str = ""
    signer: str = ""
    translation: str = ""
    start_s: float = 0.0
    end_s: float = 0.0
    split: str = ""
    source: str = ""
    n_frames: int = 0
    fps: float = 0.0
    sha256: str = ""

    @property
    def key(self) -> str:
        """Names the clip's pixels: the digest of the file's bytes and the span, not its path or labels."""
        return hashlib.sha256(f"{self.sha256}:{self.start_s:.6f}:{self.end_s:.6f}".encode()).hexdigest()[:24]


@dataclasses.dataclass(frozen=True)
class Rejected:
    """A clip that is not used, with a reason code of `sign_dist.video.check.REASONS` and the details."""

    id: str
    video_path: str
    reason: str
    detail: str = ""
