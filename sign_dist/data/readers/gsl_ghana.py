"""Ghanaian Sign Language dictionary (EduSign): `gsl_dictionary.json` names 1,485 signs; it has no clip of any of them.

What is delivered with it are 22 lesson videos and MediaPipe landmarks of their frames, and nothing says which sign is made when.
So a recording becomes a rejected row, and clips come from a table that you write: `labels.tsv` beside the dictionary, with path,
gloss, start and end (reader `table`). Its glosses must be signs of the dictionary.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from sign_dist.data.normalize import one_blank
from sign_dist.data.readers import table
from sign_dist.data.readers.gate import Gate
from sign_dist.data.readers.places import folder_of
from sign_dist.data.readers.rows import entries_of, object_of, text_in
from sign_dist.data.sample import Rejected, Sample
from sign_dist.errors import DataError

DICTIONARY, COUNTS, LANDMARKS = "gsl_dictionary.json", "video_frame_counts.json", "landmarks_cache"


def read(root: Path) -> Iterator[Sample | Rejected]:
    """Clips of `labels.tsv` whose gloss is a sign of the dictionary, and a rejected row for each recording without labels.

    Raises:
        DataError: no dictionary, or nothing beside it.
    """
    folder = folder_of(root)
    known = {one_blank(sign.upper()) for sign in signs(folder)}
    gate = Gate(folder)
    labelled = any((folder / name).is_file() for name in table.NAMES)
    for row in table.read(folder) if labelled else ():
        if isinstance(row, Sample) and row.gloss not in known:
            detail = f"{row.gloss!r:.60} is none of the {len(known)} signs of {DICTIONARY}"
            yield gate.refuse(table.NAMES[0], "not_kept", detail, id=row.id, path=row.video_path)
        else:
            yield row
    recordings = _recordings(folder)
    if not labelled and not recordings:
        raise DataError(f"{str(folder)!r} names signs but has no clip: write a labels.tsv with path, gloss, start and end")
    for where, name in recordings.items():
        yield gate.refuse(where, "no_gloss", f"nothing says which signs {name!r:.80} shows, and when: write a labels.tsv", id=name)


def signs(root: Path) -> list[str]:
    """The distinct signs of the dictionary, sorted: their order is the class.

    Raises:
        DataError: no dictionary, or an entry without a sign.
    """
    path = root / DICTIONARY
    names = [text_in(object_of(entry).get("sign")) for entry in entries_of(path)]
    if "" in names:
        raise DataError(f"{str(path)!r} entry {names.index('')} has no sign: download the dictionary again")
    return sorted(set(names))


def _recordings(folder: Path) -> dict[str, str]:
    """(where it is named -> name) of the recordings whose frames or landmarks are there without labels."""
    path = folder / COUNTS
    if path.is_file():
        return {f"{COUNTS} entry {i}": text_in(object_of(entry).get("video")) for i, entry in enumerate(entries_of(path))}
    files = sorted((folder / LANDMARKS).glob("*_frame_*.npy"))
    names = sorted({re.sub(r"_frame_\d+$", "", path.stem) for path in files})
    return {f"{LANDMARKS} recording {i}": name for i, name in enumerate(names)}
