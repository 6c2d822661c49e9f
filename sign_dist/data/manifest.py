"""Manifests: train/val/test.tsv and rejected.tsv, tab-separated UTF-8 with a header, for people and programs."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path

from sign_dist.data.layout import SPLITS, DatasetDir, written_whole
from sign_dist.data.sample import Rejected, Sample
from sign_dist.errors import DataError, did_you_mean

COLUMNS = ("id", "video_path", "start_s", "end_s", "n_frames", "fps", "signer", "gloss", "translation", "source", "sha256")
REJECTED_COLUMNS = ("id", "video_path", "reason", "detail")
# What would end a field or a line.
_BLANKS = str.maketrans("\t\r\n", "   ")


def write_manifest(path: Path, samples: Iterable[Sample]) -> None:
    """One row per clip, in the order given."""
    write_tsv(path, COLUMNS, (dataclasses.asdict(sample) for sample in samples))


def write_rejected(path: Path, rejected: Iterable[Rejected]) -> None:
    """One row per clip that is not used."""
    write_tsv(path, REJECTED_COLUMNS, (dataclasses.asdict(row) for row in rejected))


def read_manifest(dataset: DatasetDir, split: str) -> list[Sample]:
    """The clips of one split.

    Raises:
        DataError: no such dataset or split, or a row that is no sample.
    """
    dataset.facts()
    path = dataset.manifest_file(split)
    if not path.exists():
        known = [s for s in SPLITS if dataset.manifest_file(s).exists()]
        raise DataError(
            f"no split {split!r} in dataset {str(dataset.root)!r}: it has {', '.join(known)};{did_you_mean(split, known)}".rstrip(
                ";"
            )
        )
    samples: list[Sample] = []
    for line, row in enumerate(read_tsv(path), start=2):
        try:
            samples.append(
                Sample(
                    id=row["id"],
                    video_path=row["video_path"],
                    gloss=row["gloss"],
                    signer=row["signer"],
                    translation=row["translation"],
                    start_s=float(row["start_s"]),
                    end_s=float(row["end_s"]),
                    split=split,
                    source=row["source"],
                    n_frames=int(row["n_frames"]),
                    fps=float(row["fps"]),
                    sha256=row["sha256"],
                )
            )
        except (KeyError, ValueError) as error:
            raise DataError(f"{str(path)!r} line {line} is no sample ({error}): prepare the dataset again") from None
    return samples


def read_rejected(dataset: DatasetDir) -> list[Rejected]:
    """The clips that `prepare` refused."""
    if not dataset.rejected_file.exists():
        return []
    rows = read_tsv(dataset.rejected_file)
    if rows and not set(REJECTED_COLUMNS) <= rows[0].keys():
        raise DataError(
            f"{str(dataset.rejected_file)!r} lacks one of the columns {', '.join(REJECTED_COLUMNS)}: prepare the dataset again"
        )
    return [Rejected(**{name: row[name] for name in REJECTED_COLUMNS}) for row in rows]


def read_tsv(path: Path) -> list[dict[str, str]]:
    """Rows of a tab-separated file with a header; fields are never quoted, so a quote is an ordinary character.

    Raises:
        DataError: it is no UTF-8, or a row has more or fewer fields than the header.
    """
    try:
        # `csv` would count a field longer than 128 KiB as an error.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{str(path)!r} is no UTF-8 table ({error}): prepare the dataset again") from None
    header = lines[0].split("\t")
    rows: list[dict[str, str]] = []
    for number, line in enumerate(lines[1:], start=2):
        fields = line.split("\t")
        if line and len(fields) != len(header):
            raise DataError(
                f"{str(path)!r} line {number} has {len(fields)} fields, its header {len(header)}: prepare the dataset again"
            )
        if line:
            rows.append(dict(zip(header, fields, strict=True)))
    return rows


def write_tsv(path: Path, columns: tuple[str, ...], rows: Iterable[Mapping[str, object]]) -> None:
    """Rows under a header, written whole; `read_tsv` reads them."""
    with written_whole(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        file.write("\t".join(columns) + "\n")
        for row in rows:
            file.write("\t".join(_field(row[name]) for name in columns) + "\n")


def _field(value: object) -> str:
    """A value as one TSV field: tabs and line breaks cannot stand in one and become blanks. Numbers keep every digit."""
    text = repr(value).removesuffix(".0") if isinstance(value, float) else str(value)
    return text.translate(_BLANKS)
