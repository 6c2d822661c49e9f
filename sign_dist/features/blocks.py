"""Blocks: the clips that are computed, committed and, if need be, lost together. Pure; `on_ray.extraction` spreads them."""

import collections
import dataclasses
import os
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sign_dist.config.data import Features
from sign_dist.features.claims import MAX_DEATHS, Claim, claim
from sign_dist.features.encode import Encoder, decode_row, encode_row
from sign_dist.features.store import FeatureStore, block_name

# Clips per block: what a killed process has to do again, against the number of files.
MAX_ROWS = 16
# A small dataset still spreads over many workers.
MIN_BLOCKS = 64

# A file that gets a line (process, block, clip) for each clip that is decoded: how much work was really done.
AUDIT = "SIGN_DIST_AUDIT"

Row = dict[str, Any]
"""A clip to compute: key, id, path, start_s, end_s."""
Suspect = Callable[[Row], str]
"""Looks at a clip without risk to the process; answers "" or an error text for its row."""


@dataclasses.dataclass(frozen=True)
class Block:
    """Clips with the name that they are committed under."""

    name: str
    rows: tuple[Row, ...]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a block: committed by us, there already, held by another writer, or not possible (and why)."""

    block: str
    state: Literal["committed", "present", "held", "failed"]
    num_clips: int = 0
    detail: str = ""


def plan(
    rows: Iterable[Row], store: FeatureStore, *, retry_errors: bool = False, min_rows: int = 1, max_rows: int = MAX_ROWS
) -> list[Block]:
    """Blocks of the clips that have no features yet; with `retry_errors` also of those that failed.

    Which clips share a block follows from all clips together, not from how far an earlier run came. So an interrupted
    extraction ends with the very files of an undisturbed one, and jobs that run at once agree on the blocks.
    """
    by_key: dict[str, Row] = {}
    for row in rows:
        by_key.setdefault(row["key"], row)
    keys = sorted(by_key)
    size = max(min_rows, min(max_rows, len(keys) // MIN_BLOCKS))
    standing = store.rows()

    def wanted(key: str) -> bool:
        return key not in standing or (retry_errors and standing[key].keys[key] != "")

    tries: dict[str, int] = {}
    if retry_errors:
        for commit in store.commits():
            for key in commit.keys:
                tries[key] = max(tries.get(key, 0), int(commit.block.rpartition("-")[2]) + 1)
    blocks: list[Block] = []
    for start in range(0, len(keys), size):
        pending = [key for key in keys[start : start + size] if wanted(key)]
        if pending:
            generation = max(tries.get(key, 0) for key in pending)
            blocks.append(Block(block_name(pending, generation), tuple(by_key[key] for key in pending)))
    return blocks


def compute(
    block: Block,
    store: FeatureStore,
    features: Features,
    encoder: Encoder,
    *,
    decode_threads: int = 0,
    suspect: Suspect | None = None,
) -> Outcome:
    """Decode, encode and commit a block, unless somebody has done so or is at it.

    A clip in whose midst a process died before is first given to `suspect`; one that went on killing becomes an error.
    """
    if store.has(block.name):
        return Outcome(block.name, "present", len(block.rows))
    held = claim(store.place, block.name)
    if held is None:
        return Outcome(block.name, "held")
    try:
        if store.has(block.name):  # committed between our first look and our claim
            return Outcome(block.name, "present", len(block.rows))
        done: list[Row] = []
        # After a death clips are taken one by one, so that the next death tells which it was.
        threads = 0 if held.deaths else decode_threads
        for decoded in _decoded(block.rows, features, held, threads, suspect):
            if not held.working_on(decoded["key"]):
                return Outcome(block.name, "held")
            _audit(block.name, decoded["key"])
            done.append(encode_row(decoded, encoder))
        fresh = store.commit(block.name, done)
        return Outcome(block.name, "committed" if fresh else "present", len(block.rows))
    finally:
        held.release()


def _decoded(rows: Sequence[Row], features: Features, held: Claim, threads: int, suspect: Suspect | None) -> Generator[Row]:
    """Rows with their frames, in order; `threads` decode ahead of the encoder."""
    if threads < 1:
        for row in rows:
            held.working_on(row["key"])
            deaths = held.deaths.get(row["key"], 0)
            error = _verdict(row, deaths, suspect) if deaths else ""
            yield _refused(row, error) if error else decode_row(row, features)
        return
    ahead: collections.deque[Future[Row]] = collections.deque()
    with ThreadPoolExecutor(threads) as pool:
        for row in rows:
            ahead.append(pool.submit(decode_row, row, features))
            if len(ahead) > threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _audit(block: str, key: str) -> None:
    if path := os.environ.get(AUDIT):
        with Path(path).open("a", encoding="ascii") as file:  # a short line in append mode is written whole
            file.write(f"{os.getpid()} {block} {key}\n")


def _verdict(row: Row, deaths: int, suspect: Suspect | None) -> str:
    if deaths >= MAX_DEATHS:
        return f"crashed: {deaths} processes died while they worked on this clip"
    return suspect(row) if suspect else ""


def _refused(row: Row, error: str) -> Row:
    return row | {"frames": np.zeros((0, 1, 1, 3), np.uint8), "clip_fps": 0.0, "error": error}
