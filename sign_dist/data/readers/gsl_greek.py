"""GSL of ITI/CERTH (Adaloglou et al., IEEE TMM 2021): Greek Sign Language, isolated signs and sentences, folders of pictures.

Lists have no header and `|` between path and gloss. `annotations.csv` adds the Greek sentence to the continuous lists.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from sign_dist.data.normalize import one_blank
from sign_dist.data.readers.gate import Gate
from sign_dist.data.readers.places import first_file, folder_of, frames_folder, wanted
from sign_dist.data.readers.rows import Row, text_of, without_header
from sign_dist.data.sample import Rejected, Sample
from sign_dist.errors import DataError

LISTS = {"iso": "{}_greek_iso.csv", "si": "gsl_split_SI_{}.csv", "sd": "GSL_SD_{}.csv"}
SPLITS = {"train": "train", "dev": "val", "test": "test"}
TEXT_PLACES = ("", "annotations/", "files/GSL_isolated/", "files/GSL_continuous/", "GSL_isolated/", "GSL_continuous/")
FRAMES = ("", "GSL_isol", "GSL_isolated", "GSL_continuous", "Greek_isolated/GSL_isol", "frames")
CLASSES, SENTENCES = "iso_classes.csv", "annotations.csv"


def read(root: Path, subset: str = "iso") -> Iterator[Sample | Rejected]:
    """Clips of the isolated lists (`iso`), or sentences of the signer-independent (`si`) or signer-dependent (`sd`) ones.

    Raises:
        DataError: none of these lists.
    """
    folder = folder_of(root)
    name = LISTS[subset]
    files = {split: first_file(folder, [place + name.format(given) for place in TEXT_PLACES]) for given, split in SPLITS.items()}
    if not any(files.values()):
        raise wanted(folder, [name.format(given) for given in SPLITS], TEXT_PLACES)
    gate = Gate(folder)
    classes = _classes(folder) if subset == "iso" else set[str]()
    sentences = _sentences(folder) if subset != "iso" else {}
    for split, path in files.items():
        for row in without_header(path, ("path", "gloss"), "|") if path else ():
            if not row.fault and classes and row["gloss"] and row["gloss"] not in classes:
                detail = f"{row['gloss']!r:.60} is none of the {len(classes)} glosses of {CLASSES}"
                yield gate.refuse(row.where, "bad_row", detail, id=row["path"].replace("/", "_"), path=row["path"])
            else:
                yield _clip(gate, folder, row, split, sentences)


def _clip(gate: Gate, folder: Path, row: Row, split: str, sentences: dict[str, str]) -> Sample | Rejected:
    path = row["path"].strip("/") if not row["path"].startswith("/") else row["path"]
    if row.fault or not path:
        return gate.refuse(row.where, "bad_row", row.fault or "it names no folder")
    if not one_blank(row["gloss"]):
        return gate.refuse(row.where, "no_gloss", "the clip has no gloss", path=path)
    # <scenario>_signer<k>_rep<r>_sentences/sentences<nnnn>, in the continuous lists below a folder <scenario>
    recording, _, _ = path.rpartition("/")
    recording = recording.rpartition("/")[2]
    signer = re.search(r"_(signer\d+)_", recording, re.ASCII)
    return gate.admit(
        row.where,
        Sample(
            id="_".join(path.split("/")[-2:]),
            video_path=frames_folder(folder, [f"{place}/{path}" if place else path for place in FRAMES]),
            gloss=one_blank(row["gloss"]),
            signer=signer[1] if signer else "",
            translation=sentences.get("/".join(path.split("/")[-2:]), ""),
            split=split,
            source=re.sub(r"_(?:glosses|sentences)$", "", recording),
        ),
    )


def _classes(folder: Path) -> set[str]:
    path = first_file(folder, [place + CLASSES for place in TEXT_PLACES])
    return {one_blank(line) for line in text_of(path).split("\n") if line.strip()} if path else set()


def _sentences(folder: Path) -> dict[str, str]:
    """Greek sentence by the last two parts of the path.

    Raises:
        DataError: a line that is none of `path|sentence|glosses`.
    """
    path = first_file(folder, [place + SENTENCES for place in TEXT_PLACES])
    sentences: dict[str, str] = {}
    for row in without_header(path, ("path", "sentence", "glosses"), "|") if path else ():
        if row.fault:
            raise DataError(f"{row.where}: {row.fault}: correct it, or take the file away to do without sentences")
        sentences["/".join(row["path"].split("/")[-2:])] = one_blank(row["sentence"])
    return sentences
