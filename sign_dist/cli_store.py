"""`sign-dist store`: look after the features of a dataset."""

from pathlib import Path
from typing import Annotated

import typer

from sign_dist.console import bar, say
from sign_dist.data.layout import SPLITS, DatasetDir
from sign_dist.data.manifest import read_manifest
from sign_dist.errors import DataError, did_you_mean
from sign_dist.features.prefix import PrefixStore
from sign_dist.features.store import FeatureStore

app = typer.Typer(help="Verify, clean up or explain a dataset's features.", no_args_is_help=True)

Dataset = Annotated[Path, typer.Argument(help="A prepared dataset directory.")]
Shared = Annotated[str, typer.Option("--store", help="The shared store, if features were extracted into one.")]


@app.command()
def verify(
    dataset: Dataset,
    store: Shared = "",
    repair: Annotated[bool, typer.Option(help="Withdraw damaged blocks, so that extract computes them again.")] = False,
) -> None:
    """Read every committed byte and compare it with its record. Exit code 1 if anything is damaged."""
    from sign_dist.features.upkeep import verify as run_verify

    damaged = 0
    for found in [*_stores(dataset, store), *PrefixStore.all_of(DatasetDir(dataset), shared=store)]:
        with bar(f"verify {found.name}") as tick:
            seen = run_verify(found, repair=repair, progress=tick)
        for problem in seen.problems:
            say(f"{found.name} {problem.record}: {problem.text}")
        damaged += len(seen.problems)
        say(
            f"{found.name}: {seen.num_commits} blocks, {seen.num_rows} clips ({seen.num_errors} of them errors), "
            f"{seen.num_bytes / 2**20:.1f} MiB, {len(seen.problems)} damaged{' and withdrawn' if repair and seen.problems else ''}"
        )
    if damaged and not repair:
        raise DataError(f"{damaged} damaged blocks: run it again with --repair, then `sign-dist extract {dataset}`")


@app.command()
def gc(
    dataset: Dataset,
    store: Shared = "",
    unused: Annotated[bool, typer.Option(help="Also blocks of clips that this dataset does not have any more.")] = False,
    prefixes: Annotated[bool, typer.Option(help="Also all that train.cache_prefix keeps.")] = False,
) -> None:
    """Remove what dead writers left behind, and rows that better ones replaced."""
    from sign_dist.features.upkeep import gc as run_gc

    if unused and store:
        raise DataError(f"--unused would remove what other datasets keep in {store!r}: use it without --store only")
    keep = {s.key for split in SPLITS for s in read_manifest(DatasetDir(dataset), split)} if unused else None
    held = PrefixStore.all_of(DatasetDir(dataset), shared=store)
    for found in [*_stores(dataset, store), *held]:
        gone = run_gc(found, keep=() if prefixes and found in held else keep)
        say(
            f"{found.name}: removed {gone.commits} blocks, {gone.shards} shards ({gone.num_bytes / 2**20:.1f} MiB), "
            f"{gone.leftovers} leftovers"
        )


@app.command()
def explain(dataset: Dataset, clip: Annotated[str, typer.Argument(help="A clip's id.")], store: Shared = "") -> None:
    """Where a clip's features are, or why there are none."""
    from sign_dist.features.upkeep import explain as run_explain

    samples = {s.id: s for split in SPLITS for s in read_manifest(DatasetDir(dataset), split)}
    if clip not in samples:
        raise DataError(f"no clip {clip!r} in dataset {str(dataset)!r};{did_you_mean(clip, samples)}".rstrip(";"))
    for found in _stores(dataset, store):
        for line in run_explain(found, samples[clip].key):
            typer.echo(line)


def _stores(dataset: Path, shared: str) -> list[FeatureStore]:
    DatasetDir(dataset).facts()
    stores = FeatureStore.all_of(DatasetDir(dataset), shared=shared)
    if not stores:
        raise DataError(f"{shared or str(dataset)!r} has no features yet: run `sign-dist extract {dataset}` first")
    return stores
