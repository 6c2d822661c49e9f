"""Check and read clips that nobody has vouched for, in a child process: a file that kills its decoder costs one answer."""

import dataclasses
import functools
import signal
from pathlib import Path
from typing import Any

from sign_dist.config.data import Sampling
from sign_dist.errors import VideoError
from sign_dist.video.check import Checked, check_clip
from sign_dist.video.decode import Clip, read_clip
from sign_dist.video.sandbox import ChildDiedError, Guarded


def check_guarded(
    source: str | Path | bytes,
    *,
    start_s: float = 0.0,
    end_s: float = 0.0,
    sampling: Sampling | None = None,
    guard: Guarded | None = None,
) -> Checked:
    """`check_clip` in a child process that is kept for the next call; `timed_out`, `out_of_memory` and `crashed` are reasons.

    `guard` is one of `guard_checks`, for limits of one's own; else one with the usual limits serves the whole process.
    """
    name = "bytes in memory" if isinstance(source, bytes) else Path(source).name
    options = (sampling or Sampling()).model_dump()
    try:
        answer = _call(guard or _usual_checks(), source, start_s, end_s, options)
    except VideoError as error:
        return Checked(error.code, f"{name!r}: {error}")
    except RuntimeError as error:  # a fault of ours, which costs one row all the same
        return Checked("decode_failed", f"{name!r}: {error}"[:300])
    return Checked(**answer)


def read_guarded(source: str | Path | bytes, *, guard: Guarded | None = None, **options: Any) -> Clip:
    """`read_clip` in a child process; `options` are those of `read_clip`. The frames cannot be written to.

    Raises:
        VideoError: what `read_clip` raises, and `timed_out`, `out_of_memory`, `crashed`.
    """
    return Clip(**_call(guard or _usual_reads(), source, options))


def _call(guard: Guarded, source: str | Path | bytes, *args: Any) -> dict[str, Any]:
    """Ask a child; ask again if it was killed, since one who kills from outside may have meant anything but this file."""
    source = source if isinstance(source, bytes) else str(source)
    try:
        return guard(source, *args)
    except ChildDiedError as death:
        if (death.code, death.signal) != ("crashed", signal.SIGKILL):
            raise
    return guard(source, *args)


def guard_checks(**limits: Any) -> Guarded:
    """A guard for `check_guarded`; `limits` are those of `Guarded`."""
    return Guarded(checked_as_dict, **limits)


def guard_reads(**limits: Any) -> Guarded:
    """A guard for `read_guarded`; `limits` are those of `Guarded`."""
    return Guarded(clip_as_dict, **limits)


@functools.cache
def _usual_checks() -> Guarded:
    return guard_checks()


@functools.cache
def _usual_reads() -> Guarded:
    return guard_reads()


def checked_as_dict(source: str | bytes, start_s: float, end_s: float, sampling: dict[str, Any]) -> dict[str, Any]:
    """What the child does for `check_guarded`."""
    return dataclasses.asdict(check_clip(source, start_s=start_s, end_s=end_s, sampling=Sampling(**sampling)))


def clip_as_dict(source: str | bytes, options: dict[str, Any]) -> dict[str, Any]:
    """What the child does for `read_guarded`."""
    clip = read_clip(source, **options)
    return {"frames": clip.frames, "fps": clip.fps, "decoder": clip.decoder, "num_source": clip.num_source}
