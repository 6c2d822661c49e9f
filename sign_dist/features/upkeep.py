"""Keeping a feature store sound: verify every byte, remove what nobody needs, explain a clip."""

import dataclasses
import hashlib
from collections.abc import Callable, Collection

import numpy as np
import pyarrow as pa

from sign_dist.errors import DataError
from sign_dist.features.claims import is_held
from sign_dist.features.store import SCHEMA, Commit, FeatureStore, read_shard, unpack

# A file in staging that was not touched for so long belongs to no living writer.
STALE_S = 3600.0


@dataclasses.dataclass(frozen=True)
class Problem:
    """Something wrong with a committed block, in words."""

    record: str
    """The file name of its commit record."""
    text: str


@dataclasses.dataclass(frozen=True)
class Verified:
    """What `verify` saw."""

    num_commits: int
    num_rows: int
    num_errors: int
    num_bytes: int
    problems: list[Problem]


@dataclasses.dataclass(frozen=True)
class Collected:
    """What `gc` removed."""

    commits: int
    shards: int
    leftovers: int
    num_bytes: int


def verify(store: FeatureStore, *, repair: bool = False, progress: Callable[[int, int], None] | None = None) -> Verified:
    """Read every committed byte. `repair` withdraws the records of damaged blocks, so that `extract` computes them again."""
    problems: list[Problem] = []
    rows = errors = size = 0
    names = store.place.names("commits")
    for count, name in enumerate(names):
        try:
            commit = store.read_commit(name)
            fault = _fault(store, name, commit)
        except DataError as error:
            commit, fault = None, str(error)
        if fault:
            problems.append(Problem(name, fault))
            if repair:
                store.place.remove(f"commits/{name}")
                # A damaged shard must not be taken for sound by a writer with equal content.
                if commit is not None:
                    store.place.remove(f"shards/{commit.shard}")
        elif commit is not None:
            rows += len(commit.keys)
            errors += sum(error != "" for error in commit.keys.values())
            size += commit.num_bytes
        if progress:
            progress(count + 1, len(names))
    return Verified(len(names), rows, errors, size, problems)


def _fault(store: FeatureStore, name: str, commit: Commit) -> str:
    """What is wrong with a block, "" for a sound one."""
    if name != f"{commit.block}.json":
        return f"the record calls itself {commit.block!r}"
    try:
        data = store.place.read(f"shards/{commit.shard}")
    except FileNotFoundError:
        return f"shard {commit.shard!r} is gone"
    if hashlib.sha256(data).hexdigest() != commit.sha256:
        return f"shard {commit.shard!r} has {len(data)} bytes that are not those committed ({commit.num_bytes})"
    try:
        table = read_shard(data)
    except pa.ArrowException as error:
        return f"shard {commit.shard!r} is no Parquet file ({str(error)[:80]})"
    if not table.schema.equals(SCHEMA):
        return f"shard {commit.shard!r} has other columns than this version writes"
    if dict(zip(table["key"].to_pylist(), table["error"].to_pylist(), strict=True)) != commit.keys:
        return f"the record names other clips than shard {commit.shard!r} holds"
    for row in table.to_pylist():
        features = unpack(row["features"], row["shape"], row["dtype"])
        if not row["error"] and (features.size == 0 or (features.dtype.kind == "f" and np.isinf(features).any())):
            return f"clip {row['id']!r} in shard {commit.shard!r} has features that are empty or infinite"
    return ""


def gc(store: FeatureStore, *, keep: Collection[str] | None = None) -> Collected:
    """Remove what nobody can need: leftovers of dead writers, shards without a record, blocks whose every row is
    superseded; with `keep` also blocks none of whose clips are among those keys.

    Do not run it with `keep` on a store that other datasets share: it knows only the keys it is given.
    """
    place = store.place
    commits = leftovers = shards = size = 0
    standing = store.rows()
    for commit in store.commits():
        superseded = all(standing[key] is not commit for key in commit.keys)
        if superseded or (keep is not None and not any(key in keep for key in commit.keys)):
            place.remove(f"commits/{commit.block}.json")
            commits += 1
    for name in place.names("claims"):
        if not is_held(place, name.removesuffix(".json")):
            place.remove(f"claims/{name}")
            leftovers += 1
    busy = bool(place.names("claims"))
    for name in place.names("staging"):
        if not busy or place.age_s(f"staging/{name}") > STALE_S:
            place.remove(f"staging/{name}")
            leftovers += 1
    if not busy:  # a shard without a record may be one that is being committed
        named = {commit.shard for commit in store.commits()}
        for name in place.names("shards"):
            if name not in named:
                size += place.size_bytes(f"shards/{name}")
                place.remove(f"shards/{name}")
                shards += 1
    return Collected(commits, shards, leftovers, size)


def explain(store: FeatureStore, key: str) -> list[str]:
    """Lines about one clip: where its row stands, every commit that holds it, and who works on it."""
    lines = [f"spec {store.name}: {store.spec().to_json()}", f"key {key} (digest of the clip's bytes and span)"]
    holders = [commit for commit in store.commits() if key in commit.keys]
    standing = store.rows().get(key)
    for commit in holders:
        state = commit.keys[key] or "good"
        mark = "stands" if commit is standing else "superseded"
        row = list(commit.keys).index(key)
        lines.append(f"block {commit.block}, shard {commit.shard}, row {row} of {len(commit.keys)}: {state} ({mark})")
    if not holders:
        lines.append("not committed: `sign-dist extract` will compute it")
    elif standing is not None and standing.keys[key]:
        lines.append("it failed: `sign-dist extract --retry-errors` tries it again")
    return lines
