"""How2Sign (Duarte et al., CVPR 2021): `how2sign_realigned_{train,val,test}.csv`, American Sign Language with English sentences.

The files are separated by tabs although they end in .csv; copies with commas are read too. A clip is the span of a full video
(`VIDEO_NAME.mp4`): the ready-made clips (`SENTENCE_NAME.mp4`) follow older times, and are used only where the full video is not
there. There are no glosses.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from sign_dist.data.normalize import one_blank
from sign_dist.data.readers.gate import Gate
from sign_dist.data.readers.places import Videos, first_file, folder_of, wanted
from sign_dist.data.readers.rows import Row, number_in, with_header
from sign_dist.data.sample import Rejected, Sample

COLUMNS = ("video_id", "video_name", "sentence_name", "start_realigned", "end_realigned", "sentence")
SPLITS = ("train", "val", "test")
NAME = "how2sign_realigned_{}.csv"


def read(root: Path) -> Iterator[Sample | Rejected]:
    """Sentences of every re-aligned list in the folder `root` or in the folders of the official download.

    Raises:
        DataError: no list, or one without the usual header.
    """
    folder = folder_of(root)
    text = ["", "annotations/", *(f"sentence_level/{split}/text/en/raw_text/re_aligned/" for split in SPLITS)]
    files = {split: first_file(folder, [place + NAME.format(split) for place in text]) for split in SPLITS}
    if not any(files.values()):
        raise wanted(folder, [NAME.format(split) for split in SPLITS], text)
    gate = Gate(folder)
    for split, path in files.items():
        if path is None:
            continue
        here = (f"video_level/{split}/rgb_front/raw_videos", f"{split}/raw_videos", split)
        full = Videos(folder, ("videos", "raw_videos", *here))
        clips = Videos(folder, ("clips", f"sentence_level/{split}/rgb_front/raw_videos", *full.places))
        for row in with_header(path, COLUMNS, "\t,"):
            yield _sentence(gate, full, clips, row, split)


def _sentence(gate: Gate, full: Videos, clips: Videos, row: Row, split: str) -> Sample | Rejected:
    name, video = row["sentence_name"], row["video_name"]
    if row.fault or not name or not video:
        return gate.refuse(row.where, "bad_row", row.fault or "it has no SENTENCE_NAME or no VIDEO_NAME", id=name)
    start_s, end_s = number_in(row["start_realigned"]), number_in(row["end_realigned"])
    if not end_s > start_s:  # an end of 0 would be the end of the file
        detail = f"from {row['start_realigned']!r:.30} to {row['end_realigned']!r:.30} s is no span"
        return gate.refuse(row.where, "bad_span", detail, id=name)
    path = full.find(video)
    if not path and (clip := clips.find(name)):
        path, start_s, end_s = clip, 0.0, 0.0
    # <video id>-<number of the signer>-<view>
    signer = re.fullmatch(re.escape(row["video_id"]) + r"-(\d+)-\w+", video, re.ASCII)
    return gate.admit(
        row.where,
        Sample(
            id=name,
            video_path=path or full.path(video),
            signer=signer[1] if signer else "",
            translation=one_blank(row["sentence"]),
            start_s=start_s,
            end_s=end_s,
            split=split,
            source=row["video_id"] or video,
        ),
    )
