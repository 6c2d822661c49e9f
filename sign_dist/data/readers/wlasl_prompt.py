"""Lists of prompt, video_path and gloss, as they fine-tune vision-language models on WLASL clips.

The prompt is the model's, not the clip's, and is not read. There is no signer and no split: `prepare` divides by gloss.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from sign_dist.data.normalize import upper
from sign_dist.data.readers.gate import Gate
from sign_dist.data.readers.places import wanted
from sign_dist.data.readers.rows import entries_of, object_of, text_in
from sign_dist.data.sample import Rejected, Sample
from sign_dist.errors import DataError

USUAL = "wlasl_cleaned.json"


def read(root: Path) -> Iterator[Sample | Rejected]:
    """Entries of the list `root`, or of the one in the folder `root` or its folder `datasets`; paths are relative to the folder.

    Raises:
        DataError: no list, or more than one and none of the usual name.
    """
    folder = root if root.is_dir() else root.parent
    path = root if root.is_file() else _find(root)
    gate = Gate(folder)
    for i, entry in enumerate(entries_of(path)):
        entry = object_of(entry)
        where, video, gloss = f"{path.name} entry {i}", text_in(entry.get("video_path")), text_in(entry.get("gloss"))
        if not video:
            yield gate.refuse(where, "bad_row", "it has no video_path")
        else:
            yield gate.admit(where, Sample(id=PurePosixPath(video).stem, video_path=video, gloss=upper(gloss)))


def _find(root: Path) -> Path:
    found = sorted(root.glob("*.json")) or sorted(root.glob("datasets/*.json"))
    usual = [path for path in found if path.name == USUAL]
    if not found:
        raise wanted(root, [USUAL], ["datasets"])
    if len(found) > 1 and not usual:
        raise DataError(f"{str(root)!r} has several lists ({', '.join(path.name for path in found[:5])}): give one of the files")
    return (usual or found)[0]
