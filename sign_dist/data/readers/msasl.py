"""MS-ASL (Joze and Koller, BMVC 2019): `MSASL_{train,val,test}.json`, spans of YouTube recordings, American Sign Language.

A subset N has the classes below N. The gloss is the class's name (`MSASL_classes.json`, else `text`); `clean_text` and
`org_text` are other spellings of it and not read.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sign_dist.data.normalize import recording, upper, youtube_id
from sign_dist.data.readers.gate import Gate
from sign_dist.data.readers.places import Videos, folder_of, wanted
from sign_dist.data.readers.rows import entries_of, number_in, object_of, text_in, whole_in
from sign_dist.data.sample import Rejected, Sample
from sign_dist.errors import DataError

PLACES = ("videos", "raw_videos", "")
CLASSES = "MSASL_classes.json"


def read(root: Path, subset: str = "") -> Iterator[Sample | Rejected]:
    """Clips of every `MSASL_SPLIT.json` in the folder `root`; with a subset N those of the classes below N.

    A clip's recording is `videos/<YouTube id>.mp4` (or another extension), its id is the split and the entry's number.

    Raises:
        DataError: no annotations, or none that are whole.
    """
    folder = folder_of(root)
    files = {split: folder / f"MSASL_{split}.json" for split in ("train", "val", "test")}
    if not any(path.is_file() for path in files.values()):
        raise wanted(folder, [path.name for path in files.values()])
    classes = _classes(folder / CLASSES)
    gate, videos = Gate(folder), Videos(folder, PLACES)
    for split, path in files.items():
        for i, entry in enumerate(entries_of(path) if path.is_file() else []):
            where, id_ = f"{path.name} entry {i}", f"{split}_{i:05d}"
            entry = object_of(entry)
            label = whole_in(entry.get("label"))
            if label is None or label < 0 or (classes and label >= len(classes)):
                yield gate.refuse(where, "bad_row", f"its label is no class: {entry.get('label')!r:.40}", id=id_)
            elif not subset or label < int(subset):
                gloss = classes[label] if classes else text_in(entry.get("text"))
                yield _clip(gate, videos, where, id_, entry, gloss, split)


def _clip(gate: Gate, videos: Videos, where: str, id_: str, entry: dict[str, Any], gloss: str, split: str) -> Sample | Rejected:
    url = text_in(entry.get("url"))
    video = youtube_id(url)
    if not video:
        return gate.refuse(where, "bad_row", f"its url is no address of a YouTube video: {url[:80]!r}", id=id_)
    start_s, end_s = number_in(entry.get("start_time")), number_in(entry.get("end_time"))
    if end_s == 0:  # here it would mean the end of the recording, in a Sample it would be the whole file
        return gate.refuse(where, "bad_span", "it ends at 0 s", id=id_)
    signer = text_in(entry.get("signer_id"))
    return gate.admit(
        where,
        Sample(
            id=id_,
            video_path=videos.path(video),
            gloss=upper(gloss),
            signer="" if signer.startswith("-") else signer,
            start_s=start_s,
            end_s=end_s,
            split=split,
            source=recording(url),
        ),
    )


def _classes(path: Path) -> list[str]:
    if not path.is_file():
        return []
    names = entries_of(path)
    if not all(isinstance(name, str) and name.strip() for name in names):
        raise DataError(f"{str(path)!r} is no list of class names: download it again")
    return names
