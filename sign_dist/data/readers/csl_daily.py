"""CSL-Daily (Zhou et al., CVPR 2021): `video_map.txt` and `split_1.txt`, Chinese Sign Language, glosses and sentences."""

import re
from collections.abc import Iterator
from pathlib import Path

from sign_dist.data.normalize import one_blank, without_blanks
from sign_dist.data.readers.gate import Gate
from sign_dist.data.readers.places import SUFFIXES, first_file, folder_of, frames_folder, is_file, is_folder, wanted
from sign_dist.data.readers.rows import Row, with_header
from sign_dist.data.sample import Rejected, Sample

TEXT_PLACES = ("", "sentence_label/")
FRAMES = ("sentence/frames_512x512", "frames_512x512", "sentence/frames_256x256", "frames_256x256", "frames")
VIDEOS = ("sentence", "videos")


def read(root: Path) -> Iterator[Sample | Rejected]:
    """Sentences of `video_map.txt`, with their splits of `split_1.txt` if that is there.

    A sentence without a split, or a split without a sentence, is rejected.

    Raises:
        DataError: no `video_map.txt`, or one without the usual header.
    """
    folder = folder_of(root)
    sentences = first_file(folder, [f"{place}video_map.txt" for place in TEXT_PLACES])
    splits = first_file(folder, [f"{place}split_1.txt" for place in TEXT_PLACES])
    if sentences is None:
        raise wanted(folder, ["video_map.txt"], TEXT_PLACES)
    gate = Gate(folder)
    given = {row["name"]: row for row in with_header(splits, ("name", "split"), "|") if not row.fault} if splits else {}
    for row in with_header(splits, ("name", "split"), "|") if splits else ():
        if row.fault:
            yield gate.refuse(row.where, "bad_row", row.fault)
    found: set[str] = set()
    for row in with_header(sentences, ("name", "gloss", "char"), "|"):
        found.add(row["name"])
        yield _sentence(gate, folder, row, given[row["name"]]["split"] if row["name"] in given else "", bool(splits))
    for name, row in given.items():
        if name not in found:
            yield gate.refuse(row.where, "bad_row", f"{sentences.name} has no sentence of this name", id=name)


def _sentence(gate: Gate, folder: Path, row: Row, split: str, needs_split: bool) -> Sample | Rejected:
    name = row["name"]
    signer = re.fullmatch(r"S\d+_(P\d+)_T\d+", name, re.ASCII)
    if row.fault or not signer:
        detail = row.fault or f"expected a name S<sentence>_P<person>_T<take>, got {name!r:.60}"
        return gate.refuse(row.where, "bad_row", detail, id=name)
    if needs_split and split not in ("train", "dev", "test"):
        return gate.refuse(
            row.where, "bad_row", f"its split in split_1.txt is {split!r:.40}: train, dev or test is needed", id=name
        )
    if not one_blank(row["gloss"]):
        return gate.refuse(row.where, "no_gloss", "the sentence has no glosses", id=name)
    path = frames_folder(folder, [f"{place}/{name}" for place in FRAMES])
    videos = (f"{place}/{name}{suffix}" for place in VIDEOS for suffix in SUFFIXES)
    if not is_folder(folder, path):
        path = next((video for video in videos if is_file(folder, video)), path)
    return gate.admit(
        row.where,
        Sample(
            id=name,
            video_path=path,
            gloss=one_blank(row["gloss"]),
            signer=signer[1],
            translation=without_blanks(row["char"]),
            split=split,
        ),
    )
