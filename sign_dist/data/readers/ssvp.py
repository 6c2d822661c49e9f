"""Manifests of SSVP-SLT (Rust et al., ACL 2024): `{split}.tsv` with name, duration and caption; video at `videos/NAME[:5]/NAME`.

DailyMoth-70h and preparations of How2Sign and YouTube-ASL come so. Captions, no glosses.
"""

from collections.abc import Iterator
from pathlib import Path

from sign_dist.data.normalize import one_blank
from sign_dist.data.readers.gate import Gate
from sign_dist.data.readers.places import SUFFIXES, first_file, folder_of, is_file, wanted
from sign_dist.data.readers.rows import Row, has_header, number_in, with_header, without_header
from sign_dist.data.sample import Rejected, Sample

COLUMNS = ("name", "duration", "caption")
SPLITS = {"train": "train", "val": "val", "dev": "val", "valid": "val", "test": "test"}
PLACES = ("manifests/", "")


def read(root: Path) -> Iterator[Sample | Rejected]:
    """Clips of every `{split}.tsv` in `manifests` or in the folder `root`, with or without a header.

    Raises:
        DataError: no manifest.
    """
    folder = folder_of(root)
    files = {name: first_file(folder, [f"{place}{name}.tsv" for place in PLACES]) for name in SPLITS}
    if not any(files.values()):
        raise wanted(folder, ["train.tsv", "val.tsv", "test.tsv"], PLACES)
    gate = Gate(folder)
    for name, path in files.items():
        if path is not None:
            headed = has_header(path, COLUMNS, "\t")
            for row in with_header(path, COLUMNS, "\t") if headed else without_header(path, COLUMNS, "\t"):
                yield _clip(gate, folder, row, SPLITS[name])


def _clip(gate: Gate, folder: Path, row: Row, split: str) -> Sample | Rejected:
    name = row["name"]
    if row.fault or not name:
        return gate.refuse(row.where, "bad_row", row.fault or "it names no video", id=name)
    if not number_in(row["duration"]) > 0:
        return gate.refuse(row.where, "bad_row", f"its duration is no time: {row['duration']!r:.30}", id=name)
    path = f"videos/{name[:5]}/{name}"
    if "/" in name or name in (".", ".."):
        return gate.refuse(row.where, "not_allowed", f"the name {name!r:.80} is a path", id=name)
    if Path(name).suffix.lower() not in SUFFIXES:
        path = next((path + suffix for suffix in SUFFIXES if is_file(folder, path + suffix)), f"{path}.mp4")
    return gate.admit(row.where, Sample(name.removesuffix(".mp4"), path, translation=one_blank(row["caption"]), split=split))
