"""AUTSL (Sincan and Keles, IEEE Access 2020): `{train,validation,test}_labels.csv`, Turkish Sign Language.

Label files have no header: `signer0_sample1,41`. The video is `signer0_sample1_color.mp4`; depth is not used. The gloss is the
Turkish name of the class: two English names stand for two classes each.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from sign_dist.data.normalize import upper
from sign_dist.data.readers.gate import Gate
from sign_dist.data.readers.places import Videos, folder_of, wanted
from sign_dist.data.readers.rows import with_header, without_header
from sign_dist.data.sample import Rejected, Sample
from sign_dist.errors import DataError

FILES = {"train": "train_labels.csv", "val": "validation_labels.csv", "test": "test_labels.csv"}
CLASSES = "SignList_ClassId_TR_EN.csv"


def read(root: Path) -> Iterator[Sample | Rejected]:
    """Clips of every label file in the folder `root`; videos in a folder per split, in `videos`, or beside the labels.

    Raises:
        DataError: no label file, or no list of classes.
    """
    folder = folder_of(root)
    if not any((folder / name).is_file() for name in FILES.values()):
        raise wanted(folder, list(FILES.values()))
    glosses = _glosses(folder / CLASSES)
    gate = Gate(folder)
    for split, name in FILES.items():
        if not (folder / name).is_file():
            continue
        videos = Videos(folder, (split, "videos", ""))
        for row in without_header(folder / name, ("clip", "class"), ","):
            signer = re.fullmatch(r"(signer\d+)_sample\d+", row["clip"], re.ASCII)
            if row.fault or not signer or row["class"] not in glosses:
                detail = row.fault or f"expected signer<k>_sample<n> and a class, got {row['clip']!r:.40} and {row['class']!r:.40}"
                yield gate.refuse(row.where, "bad_row", detail, id=row["clip"])
                continue
            path = videos.path(row["clip"], tail="_color")
            yield gate.admit(row.where, Sample(row["clip"], path, glosses[row["class"]], signer[1], split=split))


def _glosses(path: Path) -> dict[str, str]:
    if not path.is_file():
        raise DataError(f"{str(path)!r} is not there: it names the classes of the label files")
    rows = list(with_header(path, ("classid", "tr", "en"), ","))
    if fault := next((row for row in rows if row.fault or not row["tr"]), None):
        raise DataError(f"{str(path)!r} is no list of classes: {fault.where}: {fault.fault or 'it has no name'}")
    glosses = {row["classid"]: upper(row["tr"]) for row in rows}
    if len(glosses) < len(rows) or len(set(glosses.values())) < len(rows):
        raise DataError(f"{str(path)!r} names a class twice: download it again")
    return glosses
