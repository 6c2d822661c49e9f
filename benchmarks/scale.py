"""Memory of extraction where there is much of something: 10,000 clips, or spans of one 2-hour video.

    python benchmarks/scale.py clips [--clips 10000]
    python benchmarks/scale.py hours [--hours 2] [--spans 200]

Prints the driver's and the workers' highest resident memory. Clips differ in their spans: equal ones would be one clip.
"""

import argparse
import os
import shutil
import tempfile
import threading
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import av
import numpy as np
import psutil

from sign_dist.config.data import FrameFeatures, Sampling
from sign_dist.data.layout import DatasetDir, write_json
from sign_dist.data.manifest import write_manifest
from sign_dist.data.sample import Sample
from sign_dist.on_ray.cluster import connect
from sign_dist.on_ray.extraction import extract
from sign_dist.video.check import check_clip


class Watch:
    """The highest resident memory of this process and of each of Ray's that works for it, sampled while it runs."""

    def __init__(self) -> None:
        self.driver = self.worker = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        me = psutil.Process()
        while not self._ended.wait(0.2):
            self.driver = max(self.driver, me.memory_info().rss)
            for child in me.children(recursive=True):
                try:
                    if "ComputeBlocks" in " ".join(child.cmdline()):
                        self.worker = max(self.worker, child.memory_info().rss)
                except psutil.Error:
                    continue


def write_video(path: Path, *, seconds: float, fps: int, size: tuple[int, int]) -> None:
    """A moving square on noise, H.264."""
    rng = np.random.default_rng(0)
    backdrop = rng.integers(0, 60, (size[1], size[0], 3), np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast", "g": "250"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for i in range(int(seconds * fps)):
            picture = backdrop.copy()
            x, y = int(i * 3) % (size[0] - 16), int(i * 2) % (size[1] - 16)
            picture[y : y + 16, x : x + 16] = 250
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def dataset_of(folder: Path, videos: list[Path], spans: list[tuple[int, float, float]], sha256: list[str]) -> DatasetDir:
    """A dataset of (video, start, end) spans, without the checks of `prepare`."""
    dataset = DatasetDir(folder / "dataset")
    samples = [
        Sample(id=f"c{i}", video_path=videos[v].name, gloss="A", start_s=start, end_s=end, sha256=sha256[v])
        for i, (v, start, end) in enumerate(spans)
    ]
    for split, part in (("train", samples), ("val", []), ("test", [])):
        write_manifest(dataset.manifest_file(split), part)
    write_json(dataset.facts_file, {"videos_root": "../videos"})
    return dataset


def report(dataset: DatasetDir, features: FrameFeatures, count: int) -> None:
    connect("local")
    before = psutil.Process().memory_info().rss
    began = time.perf_counter()
    with Watch() as watch:
        done = extract(dataset, features)
    seconds = time.perf_counter() - began
    print(
        f"{count} clips in {seconds:.0f} s; driver {before / 2**20:.0f} MiB before, {watch.driver / 2**20:.0f} MiB at most; "
        f"largest worker {watch.worker / 2**20:.0f} MiB; failed {done.failed or 'none'}"
    )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    arguments.add_argument("what", choices=["clips", "hours"])
    arguments.add_argument("--clips", type=int, default=10_000)
    arguments.add_argument("--hours", type=float, default=2)
    arguments.add_argument("--spans", type=int, default=200)
    options = arguments.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="sd_scale_"))
    try:
        (folder / "videos").mkdir()
        features = FrameFeatures(num_frames=2, size_px=32, sampling=Sampling(max_side_px=64, fps=5))
        if options.what == "clips":
            videos = [folder / "videos" / f"{i}.mp4" for i in range(10)]
            write_video(videos[0], seconds=2, fps=25, size=(96, 64))
            for path in videos[1:]:
                os.link(videos[0], path)
            digests = [f"{check_clip(videos[0]).sha256[:-2]}{i:02d}" for i in range(10)]
            spans = [(i % 10, 0.0, 1.0 + i / options.clips) for i in range(options.clips)]
        else:
            videos = [folder / "videos" / "long.mp4"]
            write_video(videos[0], seconds=options.hours * 3600, fps=25, size=(320, 240))
            print(f"{options.hours:g} hours, {videos[0].stat().st_size / 2**20:.0f} MiB")
            digests = ["0" * 64]
            length = options.hours * 3600
            spans = [(0, i * length / options.spans, i * length / options.spans + 5) for i in range(options.spans)]
            features = FrameFeatures(num_frames=16, size_px=64)
        report(dataset_of(folder, videos, spans, digests), features, len(spans))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
