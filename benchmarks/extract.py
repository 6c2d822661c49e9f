"""Frames per second of `extract` through Ray Data against a bare loop: same clips, same cores, same encoder, one run.

The bare loop is what one would write by hand for this machine: one process per core, each decoding and encoding its
share of the clips, with nothing between them. Two ratios Ray / bare are printed: with start-up (actors, loading the
encoder), and from the first committed shard on, which is what a long extraction sees. The bare loop starts warm.

    python benchmarks/extract.py [CORPUS] [--features landmarks|signhiera|frames]
"""

import argparse
import multiprocessing
import os
import platform
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from sign_dist.cli import FEATURES
from sign_dist.config.data import Features
from sign_dist.data.layout import SPLITS, DatasetDir
from sign_dist.data.manifest import read_manifest
from sign_dist.data.prepare import prepare
from sign_dist.data.readers.table import NAMES
from sign_dist.features.encode import build_encoder, decode_row, encode_row, find_files
from sign_dist.on_ray.cluster import connect
from sign_dist.on_ray.extraction import check_all, extract

WARM_CLIPS = 2


def bare(rows: list[dict[str, Any]], features: Features, start: Any, frames: Any) -> None:
    """One process of the bare loop: warm up, wait for the others, then go through its share."""
    encoder = build_encoder(features, find_files(features))
    for row in rows[:WARM_CLIPS]:
        encode_row(decode_row(row, features), encoder)
    start.wait()
    count = 0
    for row in rows:
        decoded = decode_row(row, features)
        encode_row(decoded, encoder)
        count += len(decoded["frames"])
    frames.put(count)


def bare_loop(rows: list[dict[str, Any]], features: Features, cores: int) -> tuple[int, float]:
    """(frames, seconds) of one process per core. Clips are dealt out longest first, so that the shares are even."""
    context = multiprocessing.get_context("spawn")
    start, frames = context.Barrier(cores + 1), context.Queue()
    rows = sorted(rows, key=lambda row: -row["n_frames"])
    workers = [context.Process(target=bare, args=(rows[i::cores], features, start, frames)) for i in range(cores)]
    for worker in workers:
        worker.start()
    start.wait()
    began = time.perf_counter()
    total = sum(frames.get() for _ in workers)
    seconds = time.perf_counter() - began
    for worker in workers:
        worker.join()
    return total, seconds


def through_ray(dataset: DatasetDir, features: Features) -> tuple[float, float, float]:
    """(seconds in all, seconds until the first shard was committed, share of the clips that came after it)."""
    began = time.perf_counter()
    marks: list[tuple[float, int, int]] = []
    extract(dataset, features, progress=lambda done, total: marks.append((time.perf_counter() - began, done, total)))
    first = next(mark for mark in marks if mark[1] > 0)
    return marks[-1][0], first[0], 1 - first[1] / first[2]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    arguments.add_argument("corpus", nargs="?", type=Path, help="a folder with labels.tsv; default: a synthetic one")
    arguments.add_argument("--features", default="signhiera", choices=sorted(FEATURES))
    options = arguments.parse_args()
    features: Features = FEATURES[options.features]()
    cores = os.cpu_count() or 1
    folder = Path(tempfile.mkdtemp(prefix="sd_bench_"))
    try:
        corpus = options.corpus
        if corpus is None:
            from sign_dist.synthetic.corpus import write_corpus

            corpus = folder / "corpus"
            write_corpus(corpus, num_signs=6, num_signers=6, clips_per_sign=2)
        measure(corpus, features, cores, folder)
    finally:
        shutil.rmtree(folder)


def measure(corpus: Path, features: Features, cores: int, folder: Path) -> None:
    connect("local")
    reader = "table" if any((corpus / name).exists() for name in NAMES) else "folder"
    dataset = prepare(reader, corpus, folder / "dataset", check_all=check_all).dataset
    samples = [s for split in SPLITS for s in read_manifest(dataset, split)]
    videos = dataset.videos_root()
    rows = [
        {
            "key": s.key,
            "id": s.id,
            "path": str(videos / s.video_path),
            "start_s": s.start_s,
            "end_s": s.end_s,
            "n_frames": s.n_frames,
        }
        for s in samples
    ]
    frames, bare_s = bare_loop(rows, features, cores)
    whole_s, first_s, share = through_ray(dataset, features)
    bare_rate = frames / bare_s
    steady_rate = frames * share / (whole_s - first_s)
    print(f"machine: {cores} cores, {platform.machine()}; {len(rows)} clips, {frames} frames, features {features.kind}")
    print(f"bare loop, {cores} processes:       {bare_s:6.1f} s  {bare_rate:7.1f} frames/s")
    steady_s = whole_s - first_s
    print(f"Ray Data, after the first shard: {steady_s:6.1f} s  {steady_rate:7.1f} frames/s  ratio {steady_rate / bare_rate:.2f}")
    print(f"Ray Data, with start-up:         {whole_s:6.1f} s  {frames / whole_s:7.1f} frames/s  ratio {bare_s / whole_s:.2f}")


if __name__ == "__main__":
    main()
