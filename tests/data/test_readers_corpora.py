"""Readers of corpora on small files of their format: layouts on disk, faulty rows, files that are none, mutated bytes."""

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sign_dist.data.corpora import CORPORA
from sign_dist.data.layout import DatasetDir
from sign_dist.data.manifest import read_rejected, read_tsv, write_manifest, write_rejected
from sign_dist.data.readers import READERS
from sign_dist.data.sample import Rejected, Sample
from sign_dist.errors import DataError
from sign_dist.video.check import REASONS

YOUTUBE = "https://www.youtube.com/watch?v=0UsjUE-TXn"  # and one letter


def instance(video_id: str, **values: Any) -> dict[str, Any]:
    usual = {"fps": 25, "frame_start": 1, "frame_end": -1, "signer_id": 7, "split": "train", "url": f"http://a.org/{video_id}.mp4"}
    return usual | {"video_id": video_id} | values


def msasl_entry(**values: Any) -> dict[str, Any]:
    usual = {"text": "how_many", "label": 1, "start_time": 0.5, "end_time": 2.0, "signer_id": 3, "url": f"{YOUTUBE[8:]}a"}
    return usual | values


WLASL = [
    {
        "gloss": "book",
        "instances": [instance("00001"), instance("00002", split="val", url=YOUTUBE + "s", frame_start=26, frame_end=50)],
    },
    {"gloss": "don't  want", "instances": [instance("00003", split="test")]},
]
SMALL: dict[str, dict[str, str]] = {
    "wlasl": {"WLASL_v0.3.json": json.dumps(WLASL)},
    "wlasl100": {
        "nslt_100.json": json.dumps({k: {"subset": "train", "action": [c, 1, 40]} for k, c in {"00001": 0, "00009": 1}.items()}),
        "wlasl_class_list.txt": "0\tbook\n1\tdon't want\n",
        "WLASL_v0.3.json": json.dumps(WLASL),
    },
    "wlasl_prompt": {
        "list.json": json.dumps([{"prompt": "?", "video_path": f"raw_videos/{i}.mp4", "gloss": "book"} for i in (1, 2)])
    },
    "msasl": {
        "MSASL_test.json": json.dumps([msasl_entry(), msasl_entry(url=YOUTUBE + "b", label=0)]),
        "MSASL_classes.json": '["hello", "how_many"]',
    },
    "autsl": {
        "train_labels.csv": "signer0_sample1,1\nsigner2_sample9,0\n",
        "SignList_ClassId_TR_EN.csv": "ClassId,TR,EN\n0,sen,you\n1,siz_siz,you\n",
    },
    "how2sign": {
        "how2sign_realigned_test.csv": "VIDEO_ID\tVIDEO_NAME\tSENTENCE_ID\tSENTENCE_NAME\tSTART_REALIGNED\tEND_REALIGNED\t"
        "SENTENCE\n"
        "-a\t-a-5-rgb_front\t-a_0\t-a_0-5-rgb_front\t0.5\t2\tHi  there!\n-a\t-a-5-rgb_front\t-a_1\t-a_1-5-rgb_front\t2\t3.5\tBye.\n"
    },
    "phoenix2014": {
        "annotations/manual/train.corpus.csv": "id|folder|signer|annotation\n"
        "A-0|A-0/1/*.png|Signer04|__ON__ REGEN  loc-NORD\nA-1|A-1/1/*.png|Signer01|REGEN\n"
    },
    "phoenix2014-si5": {"annotations/manual/test.SI5.corpus.csv": "id|folder|signer|annotation\nA-0|A-0/1/*.png|Signer05|REGEN\n"},
    "phoenix2014T": {
        "annotations/manual/PHOENIX-2014-T.dev.corpus.csv": "name|video|start|end|speaker|orth|translation\n"
        "A-0|A-0/1/*.png|-1|-1|Signer04|REGEN A+Z|und nun  regen\nA-1|A-1/1/*.png|-1|-1|Signer01|SONNE|für morgen\n"
    },
    "csl_daily": {
        "video_map.txt": "index|name|length|gloss|char|word|postag\n0|S000020_P0000_T00|54|他 今天|他 今 天 。|他 今天 。|r t w\n",
        "split_1.txt": "name|split\nS000020_P0000_T00|dev\n",
    },
    "gsl_greek-iso": {"dev_greek_iso.csv": "police1_signer1_rep1_glosses/glosses0000|ΓΕΙΑ\n", "iso_classes.csv": "ΓΕΙΑ\nΕΓΩ(1)\n"},
    "gsl_greek-sd": {
        "GSL_SD_dev.csv": "police1/police1_signer1_rep1_sentences/sentences0000|ΓΕΙΑ ΕΓΩ(1)\n",
        "annotations.csv": "police1_signer1_rep1_sentences/sentences0000|γεια σας|ΓΕΙΑ ΕΓΩ(1)\n",
    },
    "gsl_ghana": {"gsl_dictionary.json": '[{"sign": "BLUE"}]', "labels.tsv": "path\tgloss\nv.mp4\tblue\n"},
    "ssvp": {"manifests/train.tsv": "name\tduration\tcaption\nabcdefg.mp4\t3.5\tHi  there\n"},
}


def written(root: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def read(word: str, root: Path) -> list[Sample | Rejected]:
    corpus = CORPORA[word]
    return list(READERS[corpus.reader](root, **({"subset": corpus.subset} if corpus.subset else {})))


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def test_every_corpus_has_an_example_here() -> None:
    assert {CORPORA[word].reader for word in SMALL} == {corpus.reader for corpus in CORPORA.values()}


@pytest.mark.parametrize("word", SMALL)
@pytest.mark.parametrize(
    "change",
    [
        lambda text: text,
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.rstrip("\n"),
        lambda text: text + "\n\n",
        lambda text: "\n" + text.replace("\n", "\n\n") if text[0] not in "[{" else f" {text} ",
    ],
    ids=["plain", "BOM", "CRLF", "no last line feed", "blank lines at the end", "blank lines between"],
)
def test_files_that_say_the_same_read_the_same(word: str, change: Callable[[str], str], tmp_path: Path) -> None:
    plain = read(word, written(tmp_path / "plain", dict(SMALL[word])))
    assert plain
    assert all(isinstance(row, Sample) for row in plain)
    assert read(word, written(tmp_path / "changed", {name: change(text) for name, text in SMALL[word].items()})) == plain


def test_rows_fill_what_the_corpus_knows(tmp_path: Path) -> None:
    def of(word: str) -> list[Sample]:
        rows = read(word, written(tmp_path / word, dict(SMALL[word])))
        return [row for row in rows if isinstance(row, Sample)]

    assert of("wlasl") == [
        Sample("00001", "videos/00001.mp4", "BOOK", "7", split="train", source="http://a.org/00001.mp4"),
        Sample("00002", "videos/00002.mp4", "BOOK", "7", split="val", source="youtube:0UsjUE-TXns"),
        Sample("00003", "videos/00003.mp4", "DON'T WANT", "7", split="test", source="http://a.org/00003.mp4"),
    ]
    assert [(s.id, s.gloss, s.signer) for s in of("wlasl100")] == [("00001", "BOOK", "7"), ("00009", "DON'T WANT", "")]
    assert of("wlasl_prompt")[0] == Sample("1", "raw_videos/1.mp4", "BOOK")
    assert of("msasl")[0] == Sample(
        "test_00000", "videos/0UsjUE-TXna.mp4", "HOW MANY", "3", "", 0.5, 2.0, "test", "youtube:0UsjUE-TXna"
    )
    assert of("autsl")[0] == Sample("signer0_sample1", "train/signer0_sample1_color.mp4", "SIZ SIZ", "signer0", split="train")
    assert of("how2sign")[0] == Sample(
        "-a_0-5-rgb_front", "videos/-a-5-rgb_front.mp4", "", "5", "Hi there!", 0.5, 2.0, "test", "-a"
    )
    assert of("phoenix2014")[0] == Sample(
        "A-0", "features/fullFrame-210x260px/train/A-0/1", "__ON__ REGEN loc-NORD", "Signer04", split="train", source="A"
    )
    assert of("phoenix2014T")[1].translation == "für morgen"
    assert of("csl_daily")[0].translation == "他今天。"
    assert of("gsl_greek-sd")[0].translation == "γεια σας"
    assert of("ssvp") == [Sample("abcdefg", "videos/abcde/abcdefg.mp4", translation="Hi there", split="train")]


# (corpus, file, what replaces what in it, reason, where)
FAULTS: list[tuple[str, str, str, str, str, str]] = [
    ("wlasl", "WLASL_v0.3.json", '"00001"', '""', "bad_row", "entry 0 instance 0"),
    ("wlasl", "WLASL_v0.3.json", '"00002"', '"00001"', "duplicate_id", "entry 0 instance 1"),
    ("wlasl", "WLASL_v0.3.json", '"00002"', '"../../etc/passwd"', "not_allowed", "entry 0 instance 1"),
    ("wlasl", "WLASL_v0.3.json", '"00002"', '"a\\u0000b"', "not_allowed", "entry 0 instance 1"),
    ("wlasl", "WLASL_v0.3.json", '"00002"', '"\\ud800"', "not_allowed", "entry 0 instance 1"),
    ("wlasl", "WLASL_v0.3.json", '"frame_start": 26', '"frame_start": "26"', "bad_span", "entry 0 instance 1"),
    ("wlasl", "WLASL_v0.3.json", '"frame_start": 26', '"frame_start": 0', "bad_span", "entry 0 instance 1"),
    ("wlasl", "WLASL_v0.3.json", '"frame_end": 50', '"frame_end": 20', "bad_span", "entry 0 instance 1"),
    ("wlasl", "WLASL_v0.3.json", '"split": "test"', '"split": "tset"', "bad_row", "entry 1 instance 0"),
    ("wlasl", "WLASL_v0.3.json", '"gloss": "book"', '"gloss": null', "no_gloss", "entry 0 instance 0"),
    ("wlasl100", "nslt_100.json", "[1, 1, 40]", "[2, 1, 40]", "bad_row", "entry '00009'"),
    ("wlasl100", "nslt_100.json", "[1, 1, 40]", "[-1, 1, 40]", "bad_row", "entry '00009'"),
    ("wlasl100", "nslt_100.json", "[1, 1, 40]", "7", "bad_row", "entry '00009'"),
    ("wlasl_prompt", "list.json", '"raw_videos/2.mp4"', "null", "bad_row", "entry 1"),
    ("wlasl_prompt", "list.json", '"raw_videos/2.mp4"', '"/etc/2.mp4"', "not_allowed", "entry 1"),
    ("wlasl_prompt", "list.json", '"raw_videos/2.mp4"', '"other/1.mp4"', "duplicate_id", "entry 1"),
    ("msasl", "MSASL_test.json", '"end_time": 2.0', '"end_time": 0.5', "bad_span", "entry 0"),
    ("msasl", "MSASL_test.json", '"end_time": 2.0', '"end_time": 0', "bad_span", "entry 0"),
    ("msasl", "MSASL_test.json", '"end_time": 2.0', '"end_time": "2,0"', "bad_span", "entry 0"),
    ("msasl", "MSASL_test.json", '"end_time": 2.0', '"end_time": NaN', "bad_span", "entry 0"),
    ("msasl", "MSASL_test.json", '"start_time": 0.5', '"start_time": -1', "bad_span", "entry 0"),
    ("msasl", "MSASL_test.json", '"label": 1', '"label": 2', "bad_row", "entry 0"),
    ("msasl", "MSASL_test.json", '"label": 1', '"label": true', "bad_row", "entry 0"),
    ("msasl", "MSASL_test.json", '"label": 1', '"lable": 1', "bad_row", "entry 0"),
    ("msasl", "MSASL_test.json", YOUTUBE + "b", "http://vimeo.com/1", "bad_row", "entry 1"),
    ("autsl", "train_labels.csv", "sample9,0", "sample9,2", "bad_row", "line 2"),
    ("autsl", "train_labels.csv", "sample9,0", "sample9;0", "bad_row", "line 2"),
    ("autsl", "train_labels.csv", "signer2_sample9,0", "../signer2_sample9,0", "bad_row", "line 2"),
    ("autsl", "train_labels.csv", "signer2_sample9", "signer0_sample1", "duplicate_id", "line 2"),
    ("autsl", "train_labels.csv", "signer2_sample9", '"signer2_sample9', "bad_row", "line 2"),
    ("how2sign", "how2sign_realigned_test.csv", "2\t3.5", "2\t2", "bad_span", "line 3"),
    ("how2sign", "how2sign_realigned_test.csv", "2\t3.5", "2\t0", "bad_span", "line 3"),
    ("how2sign", "how2sign_realigned_test.csv", "2\t3.5", "2\tlate", "bad_span", "line 3"),
    ("how2sign", "how2sign_realigned_test.csv", "2\t3.5", "2\tinf", "bad_span", "line 3"),
    ("how2sign", "how2sign_realigned_test.csv", "\tBye.", "", "bad_row", "line 3"),
    ("how2sign", "how2sign_realigned_test.csv", "\tBye.", "\tBye.\tmore", "bad_row", "line 3"),
    ("how2sign", "how2sign_realigned_test.csv", "\tBye.", "\t ", "no_gloss", "line 3"),
    ("how2sign", "how2sign_realigned_test.csv", "-a_1-5", "-a_0-5", "duplicate_id", "line 3"),
    ("phoenix2014", "annotations/manual/train.corpus.csv", "|REGEN\n", "|\n", "no_gloss", "line 3"),
    ("phoenix2014", "annotations/manual/train.corpus.csv", "A-1|A-1/1", "|A-1/1", "bad_row", "line 3"),
    ("phoenix2014", "annotations/manual/train.corpus.csv", "A-1/1/*.png", "", "bad_row", "line 3"),
    ("phoenix2014", "annotations/manual/train.corpus.csv", "A-1/1/*.png", "../../../../../*.png", "not_allowed", "line 3"),
    ("phoenix2014", "annotations/manual/train.corpus.csv", "Signer01|", "", "bad_row", "line 3"),
    ("phoenix2014", "annotations/manual/train.corpus.csv", "|REGEN\n", "|REGEN\0\n", "bad_row", "line 3"),
    (
        "phoenix2014T",
        "annotations/manual/PHOENIX-2014-T.dev.corpus.csv",
        "A-1/1/*.png|-1|-1",
        "A-1/1/*.png|0|12",
        "bad_span",
        "line 3",
    ),
    ("phoenix2014T", "annotations/manual/PHOENIX-2014-T.dev.corpus.csv", "A-1|A-1/1", "A-0|A-1/1", "duplicate_id", "line 3"),
    ("csl_daily", "video_map.txt", "|他 今天|", "||", "no_gloss", "line 2"),
    ("csl_daily", "video_map.txt", "|S000020_P0000_T00|", "|../S000020|", "bad_row", "line 2"),
    ("csl_daily", "split_1.txt", "dev", "other", "bad_row", "video_map.txt line 2"),
    ("csl_daily", "split_1.txt", "dev\n", "dev\nS000021_P0000_T00|dev\n", "bad_row", "split_1.txt line 3"),
    ("gsl_greek-iso", "dev_greek_iso.csv", "|ΓΕΙΑ", "|ΓEIA", "bad_row", "line 1"),  # Latin letters
    ("gsl_greek-iso", "dev_greek_iso.csv", "|ΓΕΙΑ", "|", "no_gloss", "line 1"),
    ("gsl_greek-iso", "dev_greek_iso.csv", "|ΓΕΙΑ", ";ΓΕΙΑ", "bad_row", "line 1"),
    ("gsl_greek-iso", "dev_greek_iso.csv", "police1_", "../police1_", "not_allowed", "line 1"),
    ("gsl_ghana", "labels.tsv", "blue", "violet-ish", "not_kept", "labels.tsv"),
    ("ssvp", "manifests/train.tsv", "3.5", "long", "bad_row", "line 2"),
    ("ssvp", "manifests/train.tsv", "abcdefg.mp4", "../../x.mp4", "not_allowed", "line 2"),
    ("ssvp", "manifests/train.tsv", "abcdefg.mp4", "", "bad_row", "line 2"),
]


@pytest.mark.parametrize(("word", "file", "old", "new", "reason", "where"), FAULTS)
def test_a_faulty_row_is_rejected_where_it_stands(
    word: str, file: str, old: str, new: str, reason: str, where: str, tmp_path: Path
) -> None:
    assert old in SMALL[word][file]
    before = read(word, written(tmp_path / "whole", dict(SMALL[word])))
    files = SMALL[word] | {file: SMALL[word][file].replace(old, new, 1)}
    after = read(word, written(tmp_path / "faulty", dict(files)))
    rejected = [row for row in after if isinstance(row, Rejected)]
    assert rejected
    assert {row.reason for row in rejected} == {reason}
    assert reason in REASONS
    assert any(where in row.detail for row in rejected)
    # The other rows are as they were.
    assert [row for row in after if isinstance(row, Sample)] == [row for row in before if row in after]


def test_the_table_names_the_line(tmp_path: Path) -> None:
    written(tmp_path, {"labels.tsv": "path\tgloss\na.mp4\tx\n\nb.mp4\t\n"})
    rejected = list(READERS["table"](tmp_path))[-1]
    assert isinstance(rejected, Rejected)
    assert rejected.detail.startswith("labels.tsv line 4: ")


def test_a_table_may_hold_translations_alone(tmp_path: Path) -> None:
    written(tmp_path, {"labels.tsv": "path\ttranslation\trecording\na.mp4\tHi there\tday 1\n"})
    assert list(READERS["table"](tmp_path)) == [Sample("a", "a.mp4", translation="Hi there", source="day 1")]


# The file of each corpus that nothing can be read without, and one that would read as another format.
HEADERS = {"how2sign", "phoenix2014", "phoenix2014-si5", "csl_daily"}


@pytest.mark.parametrize("word", SMALL)
def test_a_file_that_is_none_is_one_sentence(word: str, tmp_path: Path) -> None:
    name, text = next(iter(SMALL[word].items()))
    contents: list[bytes] = [
        b"",
        b" \r\n\n",
        b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>",
        "ä".encode("latin-1") + text.encode(),
        text.encode("utf-16"),
    ]
    if name.endswith(".json"):
        contents += [text.encode()[:-1], text.encode()[: len(text) // 2], b"null", b"7", b"[]", b"{}", b"[" * 100_000, b"9" * 5000]
    if word in HEADERS:
        contents += [text.partition("\n")[2].encode(), text.replace("|", ";").replace("\t", ";").encode()]
    for i, content in enumerate(contents):
        files: dict[str, str | bytes] = {**SMALL[word], name: content}
        with pytest.raises(DataError) as error:
            read(word, written(tmp_path / str(i), files))
        assert "\n" not in str(error.value)
        assert Path(name).name.split(".")[0] in str(error.value)


@pytest.mark.parametrize("word", SMALL)
def test_a_folder_of_something_else_says_what_is_wanted(word: str, tmp_path: Path) -> None:
    touch(tmp_path, "notes.txt")
    with pytest.raises(DataError, match=r"is it the corpus folder|cannot be read"):
        read(word, tmp_path)
    if CORPORA[word].reader not in ("wlasl", "wlasl_prompt"):
        with pytest.raises(DataError, match="is no folder"):
            read(word, tmp_path / "notes.txt")


def test_a_key_that_stands_twice_is_not_guessed_at(tmp_path: Path) -> None:
    entry = '{"subset": "train", "action": [0, 1, 2]}'
    written(tmp_path, {**SMALL["wlasl100"], "nslt_100.json": f'{{"1": {entry}, "1": {entry}}}'})
    with pytest.raises(DataError, match="the key '1' stands twice"):
        read("wlasl100", tmp_path)


def paths(word: str, root: Path) -> dict[str, tuple[str, float, float]]:
    return {row.id: (row.video_path, row.start_s, row.end_s) for row in read(word, root) if isinstance(row, Sample)}


def test_wlasl_applies_frames_to_recordings_and_not_to_clips(tmp_path: Path) -> None:
    written(tmp_path, dict(SMALL["wlasl"]))
    touch(tmp_path, "raw_videos/00001.mkv", "raw_videos/0UsjUE-TXns.webm")
    assert paths("wlasl", tmp_path) == {
        "00001": ("raw_videos/00001.mkv", 0, 0),
        "00002": ("raw_videos/0UsjUE-TXns.webm", 1.0, 2.0),  # frames 26 to 50, both of them, at 25 a second
        "00003": ("raw_videos/00003.mp4", 0, 0),  # not there: the check will say so
    }
    touch(tmp_path, "videos/00002.mp4", "raw_videos_mp4/00001.mp4")
    found = paths("wlasl", tmp_path)
    assert found["00002"] == ("videos/00002.mp4", 0, 0)
    assert found["00001"] == ("raw_videos_mp4/00001.mp4", 0, 0)
    shutil.rmtree(tmp_path / "videos")
    shutil.rmtree(tmp_path / "raw_videos")
    shutil.rmtree(tmp_path / "raw_videos_mp4")
    touch(tmp_path, "videos/0UsjUE-TXns.mp4")
    assert paths("wlasl", tmp_path)["00002"] == ("videos/0UsjUE-TXns.mp4", 1.0, 2.0)


def test_how2sign_takes_the_full_video_before_the_ready_made_clip(tmp_path: Path) -> None:
    written(tmp_path, dict(SMALL["how2sign"]))
    touch(tmp_path, "test/-a_0-5-rgb_front.mp4")
    assert paths("how2sign", tmp_path)["-a_0-5-rgb_front"] == ("test/-a_0-5-rgb_front.mp4", 0, 0)
    assert paths("how2sign", tmp_path)["-a_1-5-rgb_front"] == ("test/-a-5-rgb_front.mp4", 2, 3.5)
    touch(tmp_path, "test/-a-5-rgb_front.mp4")
    assert paths("how2sign", tmp_path)["-a_0-5-rgb_front"] == ("test/-a-5-rgb_front.mp4", 0.5, 2)


@pytest.mark.parametrize("folder", ["A-0/1", "A-0"])
@pytest.mark.parametrize("base", ["features/fullFrame-210x260px/train", "features/fullFrame-256x256px/train", "", "train"])
@pytest.mark.parametrize("release", ["", "phoenix-2014-multisigner", "phoenix2014-release/phoenix-2014-multisigner"])
def test_phoenix_finds_its_pictures_in_every_usual_layout(release: str, base: str, folder: str, tmp_path: Path) -> None:
    corpus = written(tmp_path / release, dict(SMALL["phoenix2014"]))
    picture = corpus / base / folder / "A-0_fn000001-0.png"
    touch(picture.parent, picture.name)
    assert tmp_path / paths("phoenix2014", tmp_path)["A-0"][0] == picture.parent


def test_phoenix2014t_reads_copies_without_a_header(tmp_path: Path) -> None:
    name, text = next(iter(SMALL["phoenix2014T"].items()))
    whole = read("phoenix2014T", written(tmp_path / "a", {name: text}))
    assert read("phoenix2014T", written(tmp_path / "b", {name: text.partition("\n")[2]})) == whole
    assert [row.video_path for row in whole] == [f"features/fullFrame-210x260px/dev/A-{i}/1" for i in (0, 1)]


def test_other_places(tmp_path: Path) -> None:
    for word, name, path in [
        ("autsl", "signer0_sample1", "videos/signer0_sample1_color.mp4"),
        ("csl_daily", "S000020_P0000_T00", "videos/S000020_P0000_T00.mp4"),
        ("ssvp", "abcdefg", "videos/abcde/abcdefg.mp4"),
        ("msasl", "test_00000", "raw_videos/0UsjUE-TXna.mkv"),
    ]:
        root = written(tmp_path / word, dict(SMALL[word]))
        touch(root, path)
        assert paths(word, root)[name][0] == path
    frames = tmp_path / "greek" / "GSL_isol" / "police1_signer1_rep1_glosses" / "glosses0000"
    touch(frames, "frame_0000.jpg")
    written(tmp_path / "greek", dict(SMALL["gsl_greek-iso"]))
    ((path, _, _),) = paths("gsl_greek-iso", tmp_path / "greek").values()
    assert tmp_path / "greek" / path == frames


def test_a_link_out_of_the_corpus_counts_as_leaving_it(tmp_path: Path) -> None:
    root = written(tmp_path / "corpus", dict(SMALL["wlasl"]))
    touch(tmp_path, "elsewhere/00001.mp4")
    (root / "videos").symlink_to(tmp_path / "elsewhere")
    assert {row.reason for row in read("wlasl", root) if isinstance(row, Rejected)} == {"not_allowed"}


NASTY = r""" \n \r \t | , " ' \0 .. / ../ \xff \xef\xbb\xbf -1 1e999 nan null [ ] { } "\\ud800" true \xe2\x80\xa8 \\n \\u0000 """
PIECES = st.one_of(
    st.binary(max_size=6),
    st.sampled_from(
        [*(word.encode().decode("unicode_escape").encode("latin-1") for word in NASTY.split()), b"9" * 400, b"a" * 5000]
    ),
)


@pytest.mark.long
@pytest.mark.parametrize("word", SMALL)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_mutated_annotations_give_rows_or_one_sentence(
    word: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    files: dict[str, str | bytes] = dict(SMALL[word])
    for name in data.draw(st.lists(st.sampled_from(sorted(files)), min_size=1, max_size=3)):
        old = files[name]
        content = old if isinstance(old, bytes) else old.encode()
        start = data.draw(st.integers(0, len(content)))
        stop = data.draw(st.integers(start, min(len(content), start + 12)))
        files[name] = content[:start] + data.draw(PIECES) + content[stop:]
    root = tmp_path_factory.mktemp("corpus")
    rows: list[Sample | Rejected] = []
    with contextlib.suppress(DataError):
        rows = read(word, written(root, files))
    ids = [row.id for row in rows if isinstance(row, Sample)]
    assert len(set(ids)) == len(ids)
    for row in rows:
        if isinstance(row, Rejected):
            assert row.reason in REASONS
            assert row.detail
            assert row.id
            continue
        assert (root / row.video_path).resolve().is_relative_to(root.resolve())
        assert row.gloss or row.translation
        assert 0 <= row.start_s < (row.end_s or float("inf"))
    # Whatever was read can be written, and read back row by row.
    dataset = DatasetDir(root / "set")
    write_rejected(dataset.rejected_file, [row for row in rows if isinstance(row, Rejected)])
    assert len(read_rejected(dataset)) == len(rows) - len(ids)
    named = [row for row in rows if isinstance(row, Sample) and row.id.isprintable()]
    write_manifest(dataset.manifest_file("train"), named)
    assert len(read_tsv(dataset.manifest_file("train"))) == len(named)
    shutil.rmtree(root)
