"""What several tests share: one thread a process, small clips that show their own numbers, and where shared files lie."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: tests run beside each other
os.environ.setdefault("OPENCV_FOR_THREADS_NUM", "1")

import signal
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from tests.parity.vectors import parity_root

settings.register_profile("sign_dist", deadline=None, max_examples=20)
settings.load_profile("sign_dist")

# Whoever starts the tests in the background has them ignore Ctrl-C, and their children with them; some tests press it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

REPOSITORY = Path(__file__).resolve().parents[1]
BITS = 8
"""A painted clip can hold 2 ** BITS frames."""

Paint = Callable[..., Path]


def painted(number: int, width: int, height: int) -> np.ndarray:
    """A picture (H, W, 3) whose vertical bars, light or dark, are the binary digits of a number; its top left is red."""
    bars = np.array([number >> bit & 1 for bit in range(BITS)], np.uint8) * 180 + 40
    picture = np.repeat(bars[np.arange(width) * BITS // width][None, :, None], height, axis=0).repeat(3, axis=2)
    picture[: height // 4, : width // 2] = (230, 30, 30)
    return picture


def write_painted(
    path: Path,
    *,
    num_frames: int = 12,
    fps: float = 25,
    width: int = 64,
    height: int = 48,
    times_s: Sequence[float] | None = None,
    codec: str = "libx264",
    rotation: int = 0,
    **options: str,
) -> Path:
    """A video whose k-th frame shows k, shown at k / fps or at `times_s[k]`; `options` go to the encoder."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    rate = Fraction(fps).limit_denominator(1001)
    ticks = 90_000
    with av.open(str(path), "w") as container:
        if codec == "libx264":
            options = {"preset": "veryfast", "crf": "18", **options}
        stream = container.add_stream(codec, rate=rate, options={"threads": "1", **options})
        stream.width, stream.height = width, height
        stream.pix_fmt = {"gif": "rgb8", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
        stream.codec_context.thread_count = 1
        if times_s is not None:
            stream.codec_context.time_base = Fraction(1, ticks)
        if rotation:
            stream.set_display_rotation(rotation)
        for k in range(num_frames):
            frame = av.VideoFrame.from_ndarray(painted(k, width, height), format="rgb24")
            if times_s is not None:
                frame.time_base, frame.pts = Fraction(1, ticks), round(times_s[k] * ticks)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="session")
def paint() -> Paint:
    """`write_painted`."""
    return write_painted


@pytest.fixture(scope="session")
def numbers_of() -> Callable[[np.ndarray], list[int]]:
    """Frames (T, H, W, 3) -> the numbers they show."""

    def read(frames: np.ndarray) -> list[int]:
        width = frames.shape[2]
        centres = ((np.arange(BITS) + 0.5) * width / BITS).astype(int)
        light = frames[:, frames.shape[1] // 2 :, centres].mean(axis=(1, 3)) > 130
        return (light * (1 << np.arange(BITS))).sum(axis=1).tolist()

    return read


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """Files that are too large for the repository: `SIGN_DIST_SHARED`, else a folder `shared` beside it."""
    folder = Path(os.environ.get("SIGN_DIST_SHARED", "") or REPOSITORY.parent / "shared")
    if not folder.is_dir():
        pytest.skip(f"no folder {folder}: SIGN_DIST_SHARED names the folder with test videos")
    return folder


@pytest.fixture(scope="session")
def parity_folder() -> Path:
    """Numbers of reference implementations: `SIGN_DIST_PARITY`, else tests/parity."""
    folder = parity_root()
    if not folder.is_dir():
        pytest.skip(f"no folder {folder}: SIGN_DIST_PARITY names the folder with parity vectors")
    return folder
