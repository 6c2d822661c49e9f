"""Frames per second of `extract` through Ray Data against a bare loop: same clips, same cores, same encoder, one run.

The bare loop is what one would write by hand for this machine: one process per core, each decoding and encoding its
share of the clips, with nothing between them and nothing written. It starts warm and runs twice, before and after, so that
a machine that slows down is seen. Two ratios Ray / bare are printed: with the start of the actors (each loads the encoder),
and from the first committed block to the last, which is what a long extraction sees. Then a second run over the finished
store is timed, as a user's command would do it.

    python benchmarks/extract.py [CORPUS] [--features landmarks|signhiera|frames] [--repeat N]

`--repeat` cuts N slightly different spans from every clip, so that few clips make a long run.
"""

import argparse
import dataclasses
import multiprocessing
import os
import platform
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
# Ray lets its workers give way to everything else on the machine; here they compete with nobody but the clock.
os.environ.setdefault("RAY_worker_niceness", "0")

from sign_dist.config.data import FEATURES, Features, features_named
from sign_dist.data.layout import SPLITS, DatasetDir
from sign_dist.data.manifest import read_manifest, write_manifest
from sign_dist.data.prepare import prepare
from sign_dist.data.readers.table import NAMES
from sign_dist.features.encode import build_encoder, decode_row, encode_row, find_files
from sign_dist.on_ray.clips import check_all
from sign_dist.on_ray.cluster import connect
from sign_dist.on_ray.extraction import extract, find_todo

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


def through_ray(dataset: DatasetDir, features: Features) -> tuple[float, float]:
    """(seconds in all, clips per second between the first and the last committed block)."""
    began = time.perf_counter()
    marks: list[tuple[float, int]] = []
    extract(dataset, features, progress=lambda done, total: marks.append((time.perf_counter() - began, done)))
    whole = time.perf_counter() - began
    (first, before), (last, after) = next(mark for mark in marks if mark[1] > 0), marks[-1]
    return whole, (after - before) / (last - first)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    arguments.add_argument("corpus", nargs="?", type=Path, help="a folder with labels.tsv; default: a synthetic one")
    arguments.add_argument("--features", default="signhiera", choices=sorted(FEATURES))
    arguments.add_argument("--repeat", type=int, default=1, help="spans per clip")
    options = arguments.parse_args()
    features = features_named(options.features)
    cores = os.cpu_count() or 1
    folder = Path(tempfile.mkdtemp(prefix="sd_bench_"))
    try:
        corpus = options.corpus
        if corpus is None:
            from sign_dist.synthetic.corpus import write_corpus

            corpus = folder / "corpus"
            write_corpus(corpus, num_signs=6, num_signers=6, clips_per_sign=2)
        measure(corpus, features, cores, folder, repeat=options.repeat)
    finally:
        shutil.rmtree(folder)


def measure(corpus: Path, features: Features, cores: int, folder: Path, *, repeat: int) -> None:
    connect("local")
    reader = "table" if any((corpus / name).exists() for name in NAMES) else "folder"
    dataset = prepare(reader, corpus, folder / "dataset", check_all=check_all).dataset
    for split in SPLITS:
        samples = read_manifest(dataset, split)
        spans = [dataclasses.replace(s, id=f"{s.id}-{i}", start_s=s.start_s + i / 1000) for i in range(repeat) for s in samples]
        write_manifest(dataset.manifest_file(split), spans)
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
    frames, before_s = bare_loop(rows, features, cores)
    whole_s, clips_per_s = through_ray(dataset, features)
    steady_rate = clips_per_s * frames / len(rows)  # blocks mix long and short clips
    began = time.perf_counter()
    assert not find_todo(dataset, features).blocks
    again_s = time.perf_counter() - began
    _, after_s = bare_loop(rows, features, cores)
    bare_s = (before_s + after_s) / 2
    print(f"machine: {cores} cores, {platform.machine()}; {len(rows)} clips, {frames} frames, features {features.kind}")
    twice = f"(before {before_s:.1f} s, after {after_s:.1f} s)"
    print(f"bare loop, {cores} processes:           {bare_s:6.1f} s  {frames / bare_s:7.1f} frames/s {twice}")
    print(f"Ray Data, first to last block:           {steady_rate:9.1f} frames/s  ratio {steady_rate * bare_s / frames:.2f}")
    print(f"Ray Data, with start of the actors: {whole_s:6.1f} s  {frames / whole_s:7.1f} frames/s  ratio {bare_s / whole_s:.2f}")
    print(f"second run over the finished store: {again_s:6.3f} s, {whole_s / again_s:.0f} times faster")


if __name__ == "__main__":
    main()
