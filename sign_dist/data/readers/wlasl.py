"""WLASL (Li et al., WACV 2020): `WLASL_v0.3.json`, the subsets `nslt_N.json`, `wlasl_class_list.txt`, American Sign Language.

A clip in `videos/` named by its id has been cut already, so frame_start and frame_end are not applied to it. A file in
`raw_videos*`, and any file named after a YouTube video, is the recording as downloaded: they are applied, at the 25 frames per
second that the authors count in. The spans of `nslt_N.json` mix both meanings, so they are not read.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sign_dist.data.normalize import recording, upper, youtube_id
from sign_dist.data.readers.gate import Gate
from sign_dist.data.readers.places import Videos, first_file, wanted
from sign_dist.data.readers.rows import entries_of, json_of, list_in, number_in, object_of, text_in, text_of, whole_in
from sign_dist.data.sample import Rejected, Sample
from sign_dist.errors import DataError

CUT, RAW = ("videos", ""), ("raw_videos_mp4", "raw_videos")
FULL = ("WLASL_v0.3.json", "WLASL_v0.3_*.json")
CLASSES = "wlasl_class_list.txt"
SPLITS = ("train", "val", "test")


def read(root: Path, subset: str = "") -> Iterator[Sample | Rejected]:
    """Clips of `WLASL_v0.3.json`; with a subset N those of `nslt_N.json`, else of the first N glosses.

    `root` may be one of the JSON files itself.

    Raises:
        DataError: no annotations, or none that are whole.
    """
    folder = root if root.is_dir() else root.parent
    full = first_file(folder, FULL)
    chosen = first_file(folder, [f"nslt_{subset}.json"]) if subset else None
    if root.is_file():
        full, chosen = (full, root) if root.name.startswith("nslt") else (root, None)
    if full is None and chosen is None:
        raise wanted(folder, [FULL[0], *([f"nslt_{subset}.json"] if subset else [])])
    gate = Gate(folder)
    clips = _Clips(folder)
    if chosen is None and full is not None:
        entries = entries_of(full)
        for where, entry, gloss in _instances(full.name, entries[: int(subset)] if subset else entries):
            yield _instance(gate, clips, where, entry, gloss)
    elif chosen is not None:
        yield from _subset(gate, clips, chosen, full, folder / CLASSES)


def _subset(gate: Gate, clips: "_Clips", chosen: Path, full: Path | None, classes: Path) -> Iterator[Sample | Rejected]:
    """Clips of `nslt_N.json`: id, split and class are its own; the rest is told by the full list where that has the clip."""
    value = json_of(chosen)
    if not isinstance(value, dict) or not value:
        raise DataError(f"annotations {str(chosen)!r} are no object with clips: is this an nslt_N.json?")
    glosses = _glosses(full, classes)
    known = {text_in(entry.get("video_id")): entry for _, entry, _ in _instances("", entries_of(full))} if full else {}
    for video_id, facts in object_of(value).items():
        where = f"{chosen.name} entry {video_id!r}"
        facts = object_of(facts)
        action = list_in(facts.get("action")) or []
        label = whole_in(action[0]) if len(action) == 3 else None
        if label is None:
            yield gate.refuse(where, "bad_row", "it needs an action of class, start and end", id=video_id)
        elif not 0 <= label < len(glosses):
            yield gate.refuse(where, "bad_row", f"class {label} is none of the {len(glosses)} that are named", id=video_id)
        else:
            entry = known.get(video_id, {"video_id": video_id}) | {"split": facts.get("subset")}
            yield _instance(gate, clips, where, entry, glosses[label])


def _glosses(full: Path | None, classes: Path) -> list[str]:
    """Gloss by class: from the class list, else by the order of the full list."""
    if classes.is_file():
        lines = [line.rstrip("\r").split("\t") for line in text_of(classes).split("\n") if line.strip()]
        if any(len(line) != 2 or line[0] != str(i) for i, line in enumerate(lines)):
            raise DataError(f"{str(classes)!r} is no class list: it holds a class from 0, a tab and a gloss a line")
        return [line[1] for line in lines]
    if full is None:
        raise DataError(f"{str(classes)!r} is not there, nor {FULL[0]}: one of them must name the classes")
    return [text_in(object_of(entry).get("gloss")) for entry in entries_of(full)]


def _instances(name: str, entries: list[Any]) -> Iterator[tuple[str, dict[str, Any], str]]:
    """(where, instance, gloss); a faulty entry is an empty instance."""
    for i, entry in enumerate(entries):
        entry = object_of(entry)
        gloss, instances = text_in(entry.get("gloss")), list_in(entry.get("instances"))
        if instances is None:
            yield f"{name} entry {i}", {}, gloss
            continue
        for k, instance in enumerate(instances):
            yield f"{name} entry {i} instance {k}", object_of(instance), gloss


def _instance(gate: Gate, clips: "_Clips", where: str, entry: dict[str, Any], gloss: str) -> Sample | Rejected:
    video_id = text_in(entry.get("video_id"))
    if not video_id or entry.get("split") not in SPLITS:
        return gate.refuse(where, "bad_row", f"a clip needs a video_id and a split of {', '.join(SPLITS)}", id=video_id)
    url = text_in(entry.get("url"))
    path, cut = clips.place(video_id, url)
    start_s, end_s = _span(entry)
    if cut and math.isfinite(start_s) and math.isfinite(end_s):
        start_s = end_s = 0.0
    signer = text_in(entry.get("signer_id"))
    return gate.admit(
        where,
        Sample(
            id=video_id,
            video_path=path,
            gloss=upper(gloss),
            signer="" if signer.startswith("-") else signer,
            start_s=start_s,
            end_s=end_s,
            split=entry["split"],
            source=recording(url) or video_id,
        ),
    )


def _span(entry: dict[str, Any]) -> tuple[float, float]:
    """Seconds of frames that count from 1, both ends included; -1 is the end of the file. nan for what is no span."""
    fps = number_in(entry.get("fps", 25))
    first, last = whole_in(entry.get("frame_start", 1)), whole_in(entry.get("frame_end", -1))
    if first is None or last is None or not fps > 0 or first < 1 or (last != -1 and last < first):
        return math.nan, math.nan
    return number_in(first - 1) / fps, 0.0 if last == -1 else number_in(last) / fps


class _Clips:
    """Finds a clip, and says whether it has been cut."""

    def __init__(self, folder: Path) -> None:
        self._cut, self._raw = Videos(folder, CUT), Videos(folder, RAW)
        self._any = Videos(folder, CUT + RAW)
        self._raw_only = not (folder / CUT[0]).is_dir() and any((folder / place).is_dir() for place in RAW)

    def place(self, video_id: str, url: str) -> tuple[str, bool]:
        """(path relative to the corpus folder, whether the file is the clip alone)."""
        if path := self._cut.find(video_id):
            return path, True
        if path := self._raw.find(video_id):
            return path, False
        video = youtube_id(url)
        if video and (path := self._any.find(video)):
            return path, False
        # Not there. Say where it would be.
        return (self._raw.path(video or video_id), False) if self._raw_only else (self._cut.path(video_id), True)
