"""Readers: every row of a corpus becomes a sample or a rejected row with its reason, whatever people wrote."""

import csv
import io
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sign_dist.data.readers import READERS, folder, table
from sign_dist.data.sample import Rejected, Sample
from sign_dist.errors import DataError
from sign_dist.video.check import REASONS


def write(root: Path, text: str, name: str = "labels.tsv", encoding: str = "utf-8") -> Path:
    (root / name).write_bytes(text.encode(encoding))
    return root


def read(root: Path) -> list[Sample | Rejected]:
    return list(table.read(root))


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


HEADER = "id\tpath\tgloss\tsigner\tsplit\tstart\tend\ttranslation\n"


def test_a_full_row_fills_every_field(tmp_path: Path) -> None:
    write(tmp_path, HEADER + "a\tv/a.mp4\tthank  you\tanna\ttrain\t0.5\t1.25\tMany thanks\n")
    assert read(tmp_path) == [Sample("a", "v/a.mp4", "THANK YOU", "anna", "Many thanks", 0.5, 1.25, "train")]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.tsv", "path\tgloss\na.mp4\tHello\n"),
        ("labels.tsv", "path\tgloss\r\na.mp4\tHello\r\n"),
        ("labels.tsv", "\ufeffpath\tgloss\na.mp4\tHello"),
        ("labels.tsv", " Path \tGLOSS\n a.mp4 \t hello \n"),
        ("labels.tsv", "gloss\tvideo_path\tother\nhello\ta.mp4\tx\n"),
        ("labels.tsv", "file\tlabel\na.mp4\thello\n"),
        ("labels.tsv", "path\tgloss\tlabel\na.mp4\t\thello\n"),
        ("labels.tsv", "path\tgloss\na.mp4\thello\tone\ttoo many\n\n"),
        ("labels.csv", "path,gloss\na.mp4,hello\n"),
        ("labels.csv", '\ufeffpath,gloss\n"a.mp4","hel\u006co"\n'),
        ("LABELS.CSV", "path,gloss\na.mp4,hello\n"),
        ("other.tsv", "path\tgloss\na.mp4\thello\n"),
    ],
)
def test_tables_that_say_the_same_read_the_same(tmp_path: Path, name: str, text: str) -> None:
    write(tmp_path, text, name)
    where = tmp_path if name in table.NAMES else tmp_path / name
    assert read(where) == [Sample("a", "a.mp4", "HELLO")]


def test_quotes_belong_to_a_tsv_and_frame_a_csv(tmp_path: Path) -> None:
    write(tmp_path, 'path\tgloss\n"a".mp4\t"x\nb.mp4\ty"\n')
    assert [(s.video_path, s.gloss) for s in read(tmp_path) if isinstance(s, Sample)] == [('"a".mp4', '"X'), ("b.mp4", 'Y"')]
    (tmp_path / "labels.tsv").unlink()
    write(tmp_path, 'path,gloss,text\n"a,b.mp4","two ""words""","one\ntwo"\n', "labels.csv")
    (sample,) = read(tmp_path)
    assert sample == Sample("a,b", "a,b.mp4", 'TWO "WORDS"', translation="one\ntwo")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("x\t\tA", "missing"),
        ("\t\tA", "missing"),
        ("x\ta.mp4\t", "no_gloss"),
        ("x\ta.mp4\t \u00a0", "no_gloss"),
        ("x", "missing"),
        ("x\t../a.mp4\tA", "not_allowed"),
        ("x\t/etc/passwd\tA", "not_allowed"),
        ("x\tv/../../a.mp4\tA", "not_allowed"),
        ("x\ta\0.mp4\tA", "not_allowed"),
        ("\t/\tA", "not_allowed"),
        ("first\ta.mp4\tA", "duplicate_id"),
        ("x\ta.mp4\tA\t\t\tone", "bad_span"),
        ("x\ta.mp4\tA\t\t\t-1", "bad_span"),
        ("x\ta.mp4\tA\t\t\t2\t1", "bad_span"),
        ("x\ta.mp4\tA\t\t\t2\t2", "bad_span"),
        ("x\ta.mp4\tA\t\t\t\t-3", "bad_span"),
        ("x\ta.mp4\tA\t\t\tnan", "bad_span"),
        ("x\ta.mp4\tA\t\t\t0\tnan", "bad_span"),
        ("x\ta.mp4\tA\t\t\t0\tinf", "bad_span"),
        ("x\ta.mp4\tA\t\t\t1,5\t2,5", "bad_span"),
    ],
)
def test_a_row_that_is_no_sample_is_rejected_with_a_reason(tmp_path: Path, row: str, reason: str) -> None:
    write(tmp_path, f"{HEADER}first\tfirst.mp4\tF\n{row}\nlast\tlast.mp4\tL\n")
    first, rejected, last = read(tmp_path)
    assert isinstance(first, Sample)
    assert isinstance(last, Sample)
    assert isinstance(rejected, Rejected)
    assert rejected.reason == reason
    assert rejected.detail
    assert reason in REASONS


@given(st.lists(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), min_size=3, max_size=8), max_size=8))
def test_any_table_gives_a_sample_or_a_rejected_row_for_each_row(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]]
) -> None:
    root = tmp_path_factory.mktemp("table")
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(HEADER.split())
    writer.writerows(rows)
    found = read(write(root, text.getvalue(), "labels.csv"))
    assert len(found) == len(rows)
    ids = [s.id for s in found if isinstance(s, Sample)]
    assert len(set(ids)) == len(ids)
    for sample in found:
        if isinstance(sample, Sample):
            assert sample.gloss
            assert (root / sample.video_path).resolve().is_relative_to(root.resolve())
            assert sample.start_s >= 0
            assert not sample.end_s or sample.end_s > sample.start_s


@pytest.mark.parametrize(
    ("text", "encoding", "part"),
    [
        ("", "utf-8", "no column 'path'"),
        ("id;path;gloss\n", "utf-8", "id;path;gloss"),
        ("id\tgloss\na\tA\n", "utf-8", "no column 'path'"),
        ("path\tgloss\na.mp4\tÄ\n", "latin-1", "no UTF-8 table"),
        ("path\tgloss\na.mp4\tÄ\n", "utf-16", "no UTF-8 table"),
        ("path\tgloss\n" + "x" * 200_000 + "\tA\n", "utf-8", "no UTF-8 table"),
    ],
)
def test_a_file_that_is_no_table_is_one_sentence(tmp_path: Path, text: str, encoding: str, part: str) -> None:
    write(tmp_path, text, encoding=encoding)
    with pytest.raises(DataError) as error:
        read(tmp_path)
    assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_without_a_table_says_which_it_wants(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"labels\.tsv or labels\.csv.*reader folder"):
        read(tmp_path)


def test_a_folder_per_sign_becomes_samples(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "hello/a.mp4",
        "thank_you/deep/b.MOV",
        "Straße/c d.webm",
        "hello/notes.txt",
        "top.mp4",
        ".git/x.mp4",
        "hello/.b.mp4",
    )
    assert list(folder.read(tmp_path)) == [
        Sample("Straße_c d", "Straße/c d.webm", "STRASSE"),
        Sample("hello_a", "hello/a.mp4", "HELLO"),
        Sample("thank_you_deep_b", "thank_you/deep/b.MOV", "THANK YOU"),
    ]


def test_ids_are_unique_however_files_are_named(tmp_path: Path) -> None:
    names = ["A/B_c.mp4", "A_B/c.mp4", "A/d.mp4", "A/d.mov", "A/d_mp4", "A/d.mp4.mp4", "A_B/c/e.mp4", "A/B_c_e.mp4", "A_B/c.mp4_"]
    touch(tmp_path, *names)
    samples = list(folder.read(tmp_path))
    assert sorted(s.video_path for s in samples) == sorted(names)
    assert len({s.id for s in samples}) == len(names)


def test_a_folder_that_names_no_sign_is_rejected(tmp_path: Path) -> None:
    touch(tmp_path, "__/a.mp4", "A/b.mp4")
    rejected, sample = sorted(folder.read(tmp_path), key=lambda row: isinstance(row, Sample))
    assert isinstance(sample, Sample)
    assert isinstance(rejected, Rejected)
    assert rejected.reason == "no_gloss"


@pytest.mark.parametrize("names", [[], ["a.mp4"], ["A/readme.md"]])
def test_a_folder_without_signs_says_how_to_lay_it_out(tmp_path: Path, names: list[str]) -> None:
    touch(tmp_path, *names)
    with pytest.raises(DataError, match="folder named after the sign"):
        list(folder.read(tmp_path))


def test_many_files_of_one_folder_are_read_in_linear_time(tmp_path: Path) -> None:
    (tmp_path / "A").mkdir()
    for i in range(1500):
        os.close(os.open(tmp_path / "A" / f"{i}.mp4", os.O_CREAT))
    assert len(list(folder.read(tmp_path))) == 1500


def test_readers_know_only_rows_and_reasons() -> None:
    assert {"folder", "table", "synthetic"} <= READERS.keys()
    assert all(meaning and remedy for meaning, remedy in REASONS.values())
