"""What the video files of a dataset are: whether they are still there, their sizes, rates and codecs."""

import collections
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sign_dist.data.sample import Sample
from sign_dist.errors import VideoError
from sign_dist.inference.charts import histogram
from sign_dist.inference.data_counts import ranked
from sign_dist.video.decode import probe

NUM_EXAMPLES = 5
# The header of a file takes about ten milliseconds.
MAX_PROBED = 400


def file_facts(
    root: Path,
    clips: Sequence[Sample],
    *,
    most: int = MAX_PROBED,
    image_fps: float = 25.0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Look whether every file is there, and into the headers of at most `most` of them, chosen by lot, always the same.

    A missing or unreadable file is a fact to be told, so nothing is raised for it.
    """
    paths = list(dict.fromkeys(s.video_path for s in clips))
    there = [path for path in paths if (root / path).exists()]
    missing = sorted(set(paths) - set(there))
    gone = set(missing)
    chosen = there if len(there) <= most else sorted(random.Random(0).sample(sorted(there), most))
    sizes: collections.Counter[str] = collections.Counter()
    codecs: collections.Counter[str] = collections.Counter()
    containers: collections.Counter[str] = collections.Counter()
    rates: collections.Counter[str] = collections.Counter()
    faults: collections.Counter[str] = collections.Counter()
    shorter: list[int] = []
    for done, path in enumerate(chosen, start=1):
        try:
            info = probe(root / path)
        except VideoError as error:
            faults[error.code] += 1
        except OSError as error:
            faults[type(error).__name__] += 1
        else:
            sizes[f"{info.width}x{info.height}"] += 1
            codecs[info.codec or "unknown"] += 1
            containers["/".join(info.container.split(",")[:2]) or "unknown"] += 1  # FFmpeg names a whole family
            rates[f"{info.fps or image_fps:.4g}"] += 1
            shorter.append(min(info.width, info.height))
        if progress:
            progress(done, len(chosen))
    return {
        "files": len(paths),
        "missing": {
            "files": len(missing),
            "clips": sum(s.video_path in gone for s in clips),
            "examples": missing[:NUM_EXAMPLES],
        },
        "looked_into": len(chosen),
        "unreadable": dict(faults.most_common()),
        "sizes": ranked(sizes),
        "shorter_side_px": histogram(shorter, whole=True),
        "fps": ranked(rates),
        "codecs": ranked(codecs),
        "containers": ranked(containers),
    }
