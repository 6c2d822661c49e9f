"""Manifests, vocabularies and dataset records: what is written is read back, whatever it holds; what is damaged is named."""

import dataclasses
import json
import math
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sign_dist.data.layout import DatasetDir, write_json, written_whole
from sign_dist.data.manifest import COLUMNS, read_manifest, read_rejected, read_tsv, write_manifest, write_rejected
from sign_dist.data.sample import Rejected, Sample
from sign_dist.data.vocab import Vocab
from sign_dist.errors import DataError

TEXT = st.text(st.characters(exclude_characters="\t\r\n", exclude_categories=["Cs"]), max_size=20)
SECONDS = st.floats(min_value=0, max_value=1e6)
SAMPLES = st.builds(
    Sample,
    id=TEXT.filter(bool),
    video_path=TEXT,
    gloss=TEXT,
    signer=TEXT,
    translation=TEXT,
    start_s=SECONDS,
    end_s=SECONDS,
    split=st.just("val"),
    n_frames=st.integers(0, 10**6),
    fps=st.floats(min_value=0, max_value=240),
    sha256=st.sampled_from(["", "ab" * 32]),
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> DatasetDir:
    dataset = DatasetDir(tmp_path_factory.mktemp("dataset"))
    write_json(dataset.facts_file, {"videos_root": "../videos"})
    return dataset


@given(samples=st.lists(SAMPLES, max_size=5))
def test_a_manifest_is_read_as_it_was_written(dataset: DatasetDir, samples: list[Sample]) -> None:
    write_manifest(dataset.manifest_file("val"), samples)
    found = read_manifest(dataset, "val")
    assert found == samples
    assert [s.key for s in found] == [s.key for s in samples]


@given(rows=st.lists(st.builds(Rejected, TEXT.filter(bool), TEXT, TEXT, TEXT), max_size=5))
def test_rejected_rows_are_read_as_they_were_written(dataset: DatasetDir, rows: list[Rejected]) -> None:
    write_rejected(dataset.rejected_file, rows)
    assert read_rejected(dataset) == rows


def test_what_would_break_a_table_becomes_a_blank(dataset: DatasetDir) -> None:
    write_manifest(dataset.manifest_file("test"), [Sample("a", "a.mp4", translation='one\ttwo\r\nthree "four')])
    assert read_manifest(dataset, "test")[0].translation == 'one two  three "four'


@pytest.mark.parametrize("break_it", ["short", "long", "number", "column", "bytes"])
def test_a_damaged_manifest_is_named_with_its_line(dataset: DatasetDir, break_it: str) -> None:
    path = dataset.manifest_file("train")
    write_manifest(path, [Sample("a", "a.mp4", "A"), Sample("b", "b.mp4", "B")])
    lines = path.read_bytes().split(b"\n")
    match break_it:
        case "short":
            lines[2] = lines[2].rpartition(b"\t")[0]
        case "long":
            lines[2] += b"\tx"
        case "number":
            lines[2] = b"\t".join([b"x"] * len(COLUMNS))
        case "column":
            lines[0] = lines[0].replace(b"gloss", b"label")
        case "bytes":
            lines[2] += b"\xff"
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(DataError, match=r"prepare the dataset again") as error:
        read_manifest(dataset, "train")
    assert "train.tsv" in str(error.value)
    if break_it in ("short", "long", "number"):
        assert "line 3" in str(error.value)


def test_a_manifest_that_went_through_an_editor_is_still_read(dataset: DatasetDir) -> None:
    samples = [Sample("a", "a.mp4", "Ä", split="train"), Sample("b", "b.mp4", "B", split="train")]
    path = dataset.manifest_file("train")
    write_manifest(path, samples)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    assert read_manifest(dataset, "train") == samples


def test_a_missing_split_names_those_that_are_there(dataset: DatasetDir, tmp_path: Path) -> None:
    write_manifest(dataset.manifest_file("train"), [])
    with pytest.raises(DataError, match=r"no split 'trian'.*did you mean 'train'"):
        read_manifest(dataset, "trian")
    with pytest.raises(DataError, match=r"does not exist.*sign-dist prepare"):
        read_manifest(DatasetDir(tmp_path / "no"), "train")
    with pytest.raises(DataError, match=r"is not finished.*sign-dist prepare"):
        read_manifest(DatasetDir(tmp_path), "train")
    assert read_rejected(DatasetDir(tmp_path)) == []


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff"])
def test_a_damaged_record_is_a_data_error(tmp_path: Path, content: bytes) -> None:
    dataset = DatasetDir(tmp_path)
    dataset.facts_file.write_bytes(content)
    with pytest.raises(DataError, match=r"dataset\.json"):
        dataset.facts()


def test_the_videos_of_a_dataset_are_found_when_both_move(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    dataset = DatasetDir(tmp_path / "one" / "set")
    write_json(dataset.facts_file, {"videos_root": "../videos"})
    assert dataset.videos_root() == tmp_path / "one" / "videos"
    (tmp_path / "one").rename(tmp_path / "two")
    assert DatasetDir(tmp_path / "two" / "set").videos_root() == tmp_path / "two" / "videos"


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.json"
    write_json(path, {"a": 1})

    def half() -> None:
        with written_whole(path) as temporary:
            temporary.write_text('{"a": 2')
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half()
    assert json.loads(path.read_text()) == {"a": 1}
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert os.listdir(path.parent) == ["file.json"]  # noqa: PTH208 (hidden files, too)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=6), max_size=6))
def test_a_vocabulary_numbers_distinct_glosses_and_is_read_as_written(glosses: list[str]) -> None:
    if not glosses or not all(gloss.strip() for gloss in glosses):
        with pytest.raises(DataError):
            Vocab.of(glosses)
        return
    vocab = Vocab.of(glosses)
    assert vocab == Vocab.of(reversed(glosses))
    assert sorted(vocab.id(gloss) for gloss in set(glosses)) == list(range(len(vocab)))
    assert all(vocab.glosses[vocab.id(gloss)] == gloss for gloss in glosses)


@given(
    st.sets(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), min_size=1).filter(str.strip), min_size=1)
)
def test_a_vocabulary_file_holds_any_gloss(dataset: DatasetDir, glosses: set[str]) -> None:
    vocab = Vocab.of(glosses)
    vocab.write(dataset.vocab_file)
    assert Vocab.read(dataset.vocab_file) == vocab


def test_faults_of_a_vocabulary_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"stand twice.*A"):
        Vocab(("A", "B", "A"))
    with pytest.raises(DataError, match="is no gloss"):
        Vocab(("A", "two\nlines"))
    with pytest.raises(DataError, match="'C' is not among the 2"):
        Vocab(("A", "B")).id("C")
    with pytest.raises(DataError, match="no vocabulary"):
        Vocab.read(tmp_path / "no.txt")
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(DataError, match="at least one gloss"):
        Vocab.read(tmp_path / "empty.txt")


@given(SAMPLES, st.floats(min_value=0.001, max_value=100))
def test_a_key_names_bytes_and_span_and_nothing_else(sample: Sample, shift: float) -> None:
    other = dataclasses.replace(sample, id="x", video_path="y", gloss="z", signer="w", split="train", n_frames=3)
    assert other.key == sample.key
    assert dataclasses.replace(sample, start_s=sample.start_s + shift).key != sample.key
    assert dataclasses.replace(sample, end_s=sample.end_s + shift).key != sample.key
    assert dataclasses.replace(sample, sha256="cd" * 32).key != sample.key


def test_tables_of_the_same_content_have_the_same_bytes(tmp_path: Path) -> None:
    samples = [Sample("a", "a.mp4", start_s=0.1 + 0.2, end_s=1e-7, fps=math.pi)]
    for name in ("one.tsv", "two.tsv"):
        write_manifest(tmp_path / name, samples)
    assert (tmp_path / "one.tsv").read_bytes() == (tmp_path / "two.tsv").read_bytes()
    assert read_tsv(tmp_path / "one.tsv")[0]["start_s"] == repr(0.1 + 0.2)
