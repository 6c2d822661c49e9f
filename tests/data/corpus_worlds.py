"""Small worlds in which the commands of docs/data.md can be run: a corpus folder for every reader, and what must come of it.

Signs are synthetic where there is a look-alike. Else the annotations are real (excerpts, in the folder of shared files) and the
first clips of each list get a tiny video or a folder of pictures; the others have no file.
"""

import collections
import hashlib
import json
import shutil
import struct
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pytest

from sign_dist.data.fetch import Fetched, Manners
from sign_dist.data.layout import SPLITS
from sign_dist.data.link_faults import LinkError
from sign_dist.data.links import Link
from sign_dist.data.normalize import youtube_id
from sign_dist.data.sample import Sample
from sign_dist.synthetic.like import HOW2SIGN_COLUMNS, write_like, write_wlasl
from sign_dist.synthetic.takes import Cast
from tests.data.fault_server import Answer, FaultServer

SHORT_S, LONG_S = 10.0, 40.0
NUM_PER_SPLIT = 4
PICTURES = 16
PICTURES_PER_CLIP = 6
GIVEN = {"train": "train", "val": "dev", "test": "test"}
"""What most corpora of sentences call their splits."""
Clips = dict[str, Sample]
"""By id."""


@dataclass
class Outcome:
    """What the documented commands must make of a world."""

    counts: dict[str, int]
    rejected: dict[str, int]
    check: Callable[[Clips, list[str]], None]
    """One fact of this corpus; gets the usable clips and the lines of the vocabulary."""
    fetched: dict[str, set[str]] = field(default_factory=dict[str, set[str]])
    """Files that the download of a list brings, by the list's name."""
    dead: dict[str, set[str]] = field(default_factory=dict[str, set[str]])
    """Clips without a file after it."""


class Media:
    """Files to put under the names of clips; no two videos have the same bytes."""

    def __init__(self, folder: Path, paint: Callable[..., Path]) -> None:
        self._videos = {
            SHORT_S: paint(folder / "short.mp4", num_frames=100, fps=10).read_bytes(),
            LONG_S: paint(folder / "long.mp4", num_frames=200, fps=5).read_bytes(),
        }
        self._folder, self._number = folder, 0
        for suffix in ("png", "jpg"):
            for k in range(PICTURES):
                picture = np.full((48, 64, 3), 60, np.uint8)
                picture[8:40, 3 * k : 3 * k + 12] = (40, 120, 220)
                assert cv2.imwrite(str(folder / f"{k}.{suffix}"), picture)

    def bytes(self, seconds: float = SHORT_S) -> bytes:
        """A video of 10 or 40 s that ends in a box which players skip."""
        self._number += 1
        return self._videos[seconds] + struct.pack(">I4sI", 12, b"free", self._number)

    def video(self, path: Path, seconds: float = SHORT_S) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.bytes(seconds))

    def pictures(self, folder: Path, name: str) -> None:
        """`name` is that of a picture, with {} for its number."""
        folder.mkdir(parents=True)
        self._number += 1
        for k in range(PICTURES_PER_CLIP):
            (folder / name.format(k)).hardlink_to(self._folder / f"{(self._number + k) % PICTURES}{Path(name).suffix}")


@dataclass
class Place:
    """Where a world is built, and what it is built from."""

    raw: Path
    media: Media
    server: FaultServer
    youtube: dict[str, bytes]
    """Recordings that YouTube still has, by their id."""
    shared: Callable[[], Path]
    """The folder of shared files; skips the test where there is none."""

    def annotations(self, name: str) -> Path:
        folder = self.shared() / "data" / "annotations" / name
        if not folder.is_dir():
            pytest.skip(f"no folder {folder}")
        return folder

    def copy(self, source: Path, name: str) -> list[str]:
        """An annotation file under its name in the corpus; returns its lines."""
        (self.raw / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, self.raw / name)
        return lines_of(source)

    def write(self, name: str, lines: Iterable[str]) -> None:
        (self.raw / name).parent.mkdir(parents=True, exist_ok=True)
        (self.raw / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


World = Callable[[Place], Outcome]


def lines_of(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip()]


def youtube_fetch(recordings: dict[str, bytes]) -> Callable[[Link, Path, Manners, threading.Event], Fetched]:
    """`sign_dist.data.youtube.fetch` without the network."""

    def fetch(link: Link, target: Path, manners: Manners, stop: threading.Event) -> Fetched:
        data = recordings.get(youtube_id(link.url))
        if data is None:
            raise LinkError("youtube_failed", "Video unavailable")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        return Fetched(len(data), hashlib.sha256(data).hexdigest(), len(data))

    return fetch


def first_of(lists: dict[str, Sequence[str]], made: Callable[[str, str], None]) -> tuple[dict[str, int], dict[str, int]]:
    """Make a file for the first clips of each list (split -> rows): (counts, rejected) that follow."""
    for split, rows in lists.items():
        for row in rows[:NUM_PER_SPLIT]:
            made(split, row)
    counts = {split: len(lists.get(split, ())[:NUM_PER_SPLIT]) for split in SPLITS}
    return counts, {"missing": sum(len(rows) for rows in lists.values()) - sum(counts.values())}


def words_of(clips: Clips, split: str = "train") -> list[str]:
    return sorted({word for clip in clips.values() if clip.split == split for word in clip.gloss.split()})


def wlasl(place: Place) -> Outcome:
    """Synthetic clips that lie on a server; one link is dead, one is Flash, and one clip is the beginning of its recording."""
    told = write_wlasl(place.raw.with_name("told"), num_signs=3, num_signers=3, clips_per_sign=1)
    entries = json.loads((told.root / "WLASL_v0.3.json").read_text())
    ids = [instance["video_id"] for entry in entries for instance in entry["instances"]]
    for instance in (instance for entry in entries for instance in entry["instances"]):
        body = (told.root / "videos" / f"{instance['video_id']}.mp4").read_bytes()
        place.server.answers[f"/{instance['video_id']}.mp4"] = Answer(body)
        instance["url"] = place.server.url(f"{instance['video_id']}.mp4")
    entries[0]["instances"][0]["frame_end"] = 20
    gone = entries[0]["instances"][0] | {"video_id": "77777", "url": place.server.url("77777.mp4"), "split": "train"}
    flash = gone | {"video_id": "88888", "url": place.server.url("88888.swf"), "split": "test"}
    entries[1]["instances"] += [gone, flash]
    place.write("WLASL_v0.3.json", [json.dumps(entries)])

    def check(clips: Clips, vocab: list[str]) -> None:
        assert set(clips) == set(ids)
        assert vocab == sorted(entry["gloss"].upper().replace("_", " ") for entry in entries)
        # What was downloaded is a recording, so the frames of its list are cut out of it, at 25 a second.
        assert {id_: (clip.start_s, clip.end_s) for id_, clip in clips.items() if clip.end_s} == {ids[0]: (0.0, 0.8)}

    name = "WLASL_v0.3.json"
    counts = collections.Counter(i["split"] for entry in entries for i in entry["instances"] if i["video_id"] in ids)
    return Outcome(dict(counts), {"missing": 2}, check, {name: {f"{id_}.mp4" for id_ in ids}}, {name: {"77777", "88888"}})


def wlasl_prompt(place: Place) -> Outcome:
    source = place.annotations("wlasl_okeha") / "wlasl_cleaned.json"
    place.copy(source, "wlasl_cleaned.json")
    entries = json.loads(source.read_text())
    kept = ["computer", "drink"]
    # Beside the corpus, where the command is typed; one gloss of it is in no list.
    (place.raw.parent / "core_320.txt").write_text("Computer\ndrink\nAQUEDUCT\n")
    wanted = [entry for entry in entries if entry["gloss"] in kept]
    for gloss in kept:
        for entry in [entry for entry in wanted if entry["gloss"] == gloss][:NUM_PER_SPLIT]:
            place.media.video(place.raw / entry["video_path"])

    def check(clips: Clips, vocab: list[str]) -> None:
        assert vocab == ["COMPUTER", "DRINK"]
        assert collections.Counter(clip.gloss for clip in clips.values()) == dict.fromkeys(vocab, NUM_PER_SPLIT)

    usable = NUM_PER_SPLIT * len(kept)
    rejected = {"not_kept": len(entries) - len(wanted), "missing": len(wanted) - usable}
    return Outcome({"train": 6, "val": 1, "test": 1}, rejected, check)


def msasl(place: Place) -> Outcome:
    """The excerpt of one list, dealt out to three; YouTube has the recordings of a few short clips."""
    folder = place.annotations("msasl")
    entries = json.loads((folder / "MSASL_test.excerpt.json").read_text())
    lists = {split: entries[k::3] for k, split in enumerate(SPLITS)}
    for split, rows in lists.items():
        place.write(f"MSASL_{split}.json", [json.dumps(rows)])
    place.copy(folder / "MSASL_classes.json", "MSASL_classes.json")
    glosses = json.loads((folder / "MSASL_classes.json").read_text())

    subset = [entry for entry in entries if entry["label"] < 100]
    too_late = {youtube_id(entry["url"]) for entry in subset if entry["end_time"] > SHORT_S - 1}
    for rows in lists.values():
        chosen = [youtube_id(e["url"]) for e in rows if e["label"] < 100 and youtube_id(e["url"]) not in too_late]
        place.youtube.update({video: place.media.bytes() for video in chosen[:NUM_PER_SPLIT] if video not in place.youtube})
    has = {
        f"{split}_{i:05d}": entry
        for split, rows in lists.items()
        for i, entry in enumerate(rows)
        if entry["label"] < 100 and youtube_id(entry["url"]) in place.youtube
    }
    counts = collections.Counter(id_.partition("_")[0] for id_ in has)

    def check(clips: Clips, vocab: list[str]) -> None:
        assert {id_: (clip.start_s, clip.end_s, clip.gloss) for id_, clip in clips.items()} == {
            id_: (entry["start_time"], entry["end_time"], glosses[entry["label"]].upper()) for id_, entry in has.items()
        }
        assert set(vocab) == {clip.gloss for clip in clips.values() if clip.split == "train"}

    def videos(split: str) -> set[str]:
        return {youtube_id(entry["url"]) for entry in lists[split]}

    return Outcome(
        dict(counts),
        {"missing": len(subset) - len(has)},
        check,
        {f"MSASL_{split}.json": {f"{video}.mp4" for video in videos(split) & set(place.youtube)} for split in SPLITS},
        {
            f"MSASL_{split}.json": {
                f"{split}_{i:05d}" for i, entry in enumerate(rows) if youtube_id(entry["url"]) not in place.youtube
            }
            for split, rows in lists.items()
        },
    )


def autsl(place: Place) -> Outcome:
    folder = place.annotations("autsl")
    lists = {
        "train": place.copy(folder / "train_labels.excerpt.csv", "train_labels.csv"),
        "val": place.copy(folder / "validation_labels.csv", "validation_labels.csv"),
        "test": place.copy(folder / "test_labels.csv", "test_labels.csv"),
    }
    classes = [line.split(",") for line in place.copy(folder / "SignList_ClassId_TR_EN.csv", "SignList_ClassId_TR_EN.csv")[1:]]
    turkish = {number: name for number, name, _ in classes}

    def video(split: str, row: str) -> None:
        place.media.video(place.raw / split / f"{row.split(',')[0]}_color.mp4")

    def check(clips: Clips, vocab: list[str]) -> None:
        said = dict(line.split(",") for rows in lists.values() for line in rows)
        assert {id_: clip.gloss for id_, clip in clips.items()} == {
            id_: turkish[said[id_]].upper().replace("_", " ") for id_ in clips
        }
        assert {clip.signer for clip in clips.values()} == {id_.partition("_")[0] for id_ in clips}

    return Outcome(*first_of(lists, video), check)


def how2sign(place: Place) -> Outcome:
    """The synthetic look-alike, and one sentence that is longer than the usual bound on a clip."""
    facts = write_like(place.raw, "how2sign", Cast(num_sentences=3, num_signers=3, size_px=64, fps=10))
    lists = {
        split: place.raw / f"sentence_level/{split}/text/en/raw_text/re_aligned/how2sign_realigned_{split}.csv" for split in SPLITS
    }
    place.media.video(place.raw / "video_level/train/rgb_front/raw_videos/longlonglon-1-rgb_front.mp4", LONG_S)
    row = ("longlonglon", "longlonglon-1-rgb_front", "longlonglon_0", "longlonglon_0-1-rgb_front", "1.00", "39.00", 'So, "well"')
    with lists["train"].open("a", encoding="utf-8") as file:
        file.write("\t".join(row) + "\n")
    rows = [dict(zip(HOW2SIGN_COLUMNS, line.split("\t"), strict=True)) for path in lists.values() for line in lines_of(path)[1:]]

    def check(clips: Clips, vocab: list[str]) -> None:
        assert not vocab
        assert {id_: (clip.start_s, clip.end_s, clip.translation, clip.gloss) for id_, clip in clips.items()} == {
            row["SENTENCE_NAME"]: (float(row["START_REALIGNED"]), float(row["END_REALIGNED"]), row["SENTENCE"], "") for row in rows
        }

    counts = dict(facts.sentences_of_split)
    return Outcome(counts | {"train": counts["train"] + 1}, {}, check)


def phoenix2014t(place: Place) -> Outcome:
    facts = write_like(place.raw, "phoenix2014T", Cast(num_sentences=3, num_signers=3))
    lists = [place.raw / f"annotations/manual/PHOENIX-2014-T.{given}.corpus.csv" for given in GIVEN.values()]
    rows = [line.split("|") for path in lists for line in lines_of(path)[1:]]

    def check(clips: Clips, vocab: list[str]) -> None:
        assert {id_: (clip.gloss, clip.translation) for id_, clip in clips.items()} == {row[0]: (row[5], row[6]) for row in rows}
        assert vocab == words_of(clips)

    return Outcome(dict(facts.sentences_of_split), {}, check)


def phoenix_si5(place: Place) -> Outcome:
    """The lists of the multisigner corpus under the names of SI5: their format is the same."""
    folder = place.annotations("phoenix2014")
    files = {"train": "train.corpus.excerpt.csv", "val": "dev.corpus.csv", "test": "test.corpus.csv"}
    lists = {
        split: place.copy(folder / file, f"annotations/manual/{GIVEN[split]}.SI5.corpus.csv")[1:] for split, file in files.items()
    }

    def pictures(split: str, row: str) -> None:
        id_ = row.split("|")[0]
        place.media.pictures(place.raw / f"features/fullFrame-210x260px/{GIVEN[split]}/{id_}/1", f"{id_}.avi_pid0_fn{{:06d}}-0.png")

    def check(clips: Clips, vocab: list[str]) -> None:
        said = {row.split("|")[0]: row.split("|")[3].split() for rows in lists.values() for row in rows}
        assert {id_: clip.gloss.split() for id_, clip in clips.items()} == {id_: said[id_] for id_ in clips}
        assert vocab == words_of(clips)
        assert len(vocab) > NUM_PER_SPLIT  # single glosses, not sentences
        assert {clip.n_frames for clip in clips.values()} == {PICTURES_PER_CLIP}

    return Outcome(*first_of(lists, pictures), check)


def csl_daily(place: Place) -> Outcome:
    """The excerpt of the sentences with the column that the whole file has before it, and a division of them."""
    header, *rows = lines_of(place.annotations("csl_daily") / "dev_rows_excerpt.txt")
    place.write("sentence_label/video_map.txt", [f"index|{header}", *(f"{i}|{row}" for i, row in enumerate(rows))])
    lists = {split: rows[k::3] for k, split in enumerate(SPLITS)}
    divided = [f"{row.split('|')[0]}|{GIVEN[split]}" for split, some in lists.items() for row in some]
    place.write("sentence_label/split_1.txt", ["name|split", *divided])

    def pictures(split: str, row: str) -> None:
        place.media.pictures(place.raw / "sentence/frames_512x512" / row.split("|")[0], "{:06d}.jpg")

    def check(clips: Clips, vocab: list[str]) -> None:
        said = {row.split("|")[0]: row.split("|") for row in rows}
        assert all(clip.gloss == said[id_][2] for id_, clip in clips.items())
        assert all(clip.translation == said[id_][3].replace(" ", "") for id_, clip in clips.items())
        assert vocab == words_of(clips)
        # Six pictures at the rate that the command names, of which 25 a second are taken.
        assert all(clip.n_frames / clip.fps == pytest.approx(PICTURES_PER_CLIP / 30, abs=0.01) for clip in clips.values())

    return Outcome(*first_of(lists, pictures), check)


def gsl_iso(place: Place) -> Outcome:
    folder = place.annotations("gsl_greek")
    lists = {
        "train": place.copy(folder / "train_greek_iso.excerpt.csv", "train_greek_iso.csv"),
        "val": place.copy(folder / "dev_greek_iso.csv", "dev_greek_iso.csv"),
    }
    place.copy(folder / "iso_classes.csv", "iso_classes.csv")

    def pictures(split: str, row: str) -> None:
        place.media.pictures(place.raw / "GSL_isol" / row.split("|")[0], "frame_{:04d}.jpg")

    def check(clips: Clips, vocab: list[str]) -> None:
        assert sorted(clip.gloss for clip in clips.values()) == sorted(
            row.split("|")[1].strip() for rows in lists.values() for row in rows[:NUM_PER_SPLIT]
        )
        assert {clip.signer for clip in clips.values()} <= {f"signer{k}" for k in range(1, 8)}
        assert vocab == sorted({clip.gloss for clip in clips.values() if clip.split == "train"})

    return Outcome(*first_of(lists, pictures), check)


def gsl_sd(place: Place) -> Outcome:
    """The list of val is real; those of train and test are made of other sentences of the table of translations."""
    folder = place.annotations("gsl_greek")
    told = [row.split("|") for row in place.copy(folder / "annotations.excerpt.csv", "annotations.csv")]
    val = place.copy(folder / "GSL_SD_dev.csv", "GSL_SD_dev.csv")
    taken = {row.split("|")[0].partition("/")[2] for row in val}
    others = [f"{path.partition('_')[0]}/{path}|{glosses}" for path, _, glosses in told if path not in taken]
    lists = {"train": others[::2], "val": val, "test": others[1::2]}
    place.write("GSL_SD_train.csv", lists["train"])
    place.write("GSL_SD_test.csv", lists["test"])

    def pictures(split: str, row: str) -> None:
        place.media.pictures(place.raw / "GSL_continuous" / row.split("|")[0], "frame_{:04d}.jpg")

    def check(clips: Clips, vocab: list[str]) -> None:
        greek = {path.replace("/", "_"): " ".join(sentence.split()) for path, sentence, _ in told}
        assert all(clip.translation == greek[id_] for id_, clip in clips.items())
        assert vocab == words_of(clips)

    return Outcome(*first_of(lists, pictures), check)


def gsl_ghana(place: Place) -> Outcome:
    """The real dictionary, and a table of spans of one lesson; one of its glosses is no sign of the dictionary."""
    folder = place.annotations("gsl_ghana")
    for name in ("gsl_dictionary.json", "video_frame_counts.json"):
        place.copy(folder / name, name)
    recordings = json.loads((folder / "video_frame_counts.json").read_text())
    place.media.video(place.raw / "lessons/colours.mp4")
    spans = [(f"c{k}", ("blue", "Red")[k % 2], k + 0.5, k + 1.5) for k in range(8)]
    rows = [("id", "path", "gloss", "start", "end"), ("c8", "lessons/colours.mp4", "kubernetes", "8.5", "9.5")]
    rows += [(id_, "lessons/colours.mp4", gloss, str(start), str(end)) for id_, gloss, start, end in spans]
    place.write("labels.tsv", ["\t".join(row) for row in rows])

    def check(clips: Clips, vocab: list[str]) -> None:
        assert vocab == ["BLUE", "RED"]
        assert {id_: (clip.gloss, clip.start_s, clip.end_s) for id_, clip in clips.items()} == {
            id_: (gloss.upper(), start, end) for id_, gloss, start, end in spans
        }

    return Outcome({"train": 6, "val": 1, "test": 1}, {"no_gloss": len(recordings), "not_kept": 1}, check)


def ssvp(place: Place) -> Outcome:
    """No excerpt of these manifests may be shared: rows of their format; one video is as long as news are."""
    captions = {"train": ["Good evening.", 'It is 5 o\'clock, "they" say.'], "val": ["Hello!"], "test": ["See you tomorrow."]}
    said: dict[str, str] = {}
    for split, texts in captions.items():
        rows = list[str]()
        for k, text in enumerate([*texts, "its video is gone"]):
            name = f"{split}-day{k}.mp4"
            rows.append(f"{name}\t{SHORT_S}\t{text}")
            if k < len(texts):
                said[name.removesuffix(".mp4")] = text
                place.media.video(place.raw / "videos" / name[:5] / name, LONG_S if split == "val" else SHORT_S)
        place.write(f"manifests/{split}.tsv", rows)

    def check(clips: Clips, vocab: list[str]) -> None:
        assert not vocab
        assert {id_: clip.translation for id_, clip in clips.items()} == said

    return Outcome({split: len(texts) for split, texts in captions.items()}, {"missing": 3}, check)


WORLDS: dict[str, World] = {
    "wlasl100": wlasl,
    "wlasl_prompt": wlasl_prompt,
    "msasl100": msasl,
    "autsl": autsl,
    "how2sign": how2sign,
    "phoenix2014T": phoenix2014t,
    "phoenix2014-si5": phoenix_si5,
    "csl_daily": csl_daily,
    "gsl_greek-iso": gsl_iso,
    "gsl_greek-sd": gsl_sd,
    "gsl_ghana": gsl_ghana,
    "ssvp": ssvp,
}
"""By the READER of the documented command."""
LISTS = {"WLASL_v0.3.json": "wlasl100", "MSASL_train.json": "msasl100"}
"""The world that has a list of links, where a download is shown alone."""
