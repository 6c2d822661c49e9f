"""Readers on the real annotation files: the counts are those that the corpora are known to have, row by row."""

import collections
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from sign_dist.data.corpora import CORPORA
from sign_dist.data.glosses import parts
from sign_dist.data.normalize import phoenix2014
from sign_dist.data.readers import READERS, gsl_ghana
from sign_dist.data.sample import Rejected, Sample
from tests.parity.vectors import corpus_json

CLASS_LIST = {"wlasl_class_list.txt": "wlasl/wlasl_class_list.txt"}
FULL = {"WLASL_v0.3.json": "wlasl/WLASL_v0.3_top100.json"}
CASES: dict[str, tuple[str, Mapping[str, str], Mapping[str, int]]] = {
    # name: (word of prepare, name in the corpus folder -> excerpt, clips by split)
    "wlasl, all that the list has": ("wlasl", FULL, {"train": 1442, "val": 338, "test": 258}),
    "wlasl100 by its list": (
        "wlasl100",
        {"nslt_100.json": "wlasl/nslt_100.json", **FULL},
        {"train": 1442, "val": 338, "test": 258},
    ),
    "wlasl100 by class list": (
        "wlasl100",
        {"nslt_100.json": "wlasl/nslt_100.json", **CLASS_LIST},
        {"train": 1442, "val": 338, "test": 258},
    ),
    "wlasl100 without a list of its own": ("wlasl100", FULL, {"train": 1442, "val": 338, "test": 258}),
    "wlasl300": ("wlasl300", {"nslt_300.json": "wlasl/nslt_300.json", **CLASS_LIST}, {"train": 3549, "val": 901, "test": 668}),
    "wlasl2000": (
        "wlasl2000",
        {"nslt_2000.json": "wlasl/nslt_2000.json", **CLASS_LIST, **FULL},
        {"train": 14296, "val": 3920, "test": 2879},
    ),
    "wlasl_prompt": ("wlasl_prompt", {"wlasl_cleaned.json": "wlasl_okeha/wlasl_cleaned.json"}, {"": 1892}),
    "msasl1000": (
        "msasl1000",
        {"MSASL_test.json": "msasl/MSASL_test.excerpt.json", "MSASL_classes.json": "msasl/MSASL_classes.json"},
        {"test": 400},
    ),
    "autsl": (
        "autsl",
        {
            "train_labels.csv": "autsl/train_labels.excerpt.csv",
            "validation_labels.csv": "autsl/validation_labels.csv",
            "test_labels.csv": "autsl/test_labels.csv",
            "SignList_ClassId_TR_EN.csv": "autsl/SignList_ClassId_TR_EN.csv",
        },
        {"train": 2000, "val": 4418, "test": 3742},
    ),
    "how2sign": (
        "how2sign",
        {
            "how2sign_realigned_test.csv": "how2sign/how2sign_realigned_test.tab.excerpt.csv",
            "how2sign_realigned_val.csv": "how2sign/how2sign_realigned_val.comma.excerpt.csv",
        },
        {"val": 400, "test": 400},
    ),
    "phoenix2014": (
        "phoenix2014",
        {
            "annotations/manual/train.corpus.csv": "phoenix2014/train.corpus.excerpt.csv",
            "annotations/manual/dev.corpus.csv": "phoenix2014/dev.corpus.csv",
            "annotations/manual/test.corpus.csv": "phoenix2014/test.corpus.csv",
        },
        {"train": 400, "val": 540, "test": 629},
    ),
    "phoenix2014-si5": (
        "phoenix2014-si5",
        {"annotations/manual/dev.SI5.corpus.csv": "phoenix2014/dev.corpus.csv"},
        {"val": 540},
    ),
    "phoenix2014T": (
        "phoenix2014T",
        {
            f"PHOENIX-2014-T/annotations/manual/PHOENIX-2014-T.{split}.corpus.csv": f"phoenix2014T/PHOENIX-2014-T.{name}.csv"
            for split, name in {"train": "train.corpus.excerpt", "dev": "dev.corpus", "test": "test.corpus"}.items()
        },
        {"train": 300, "val": 519, "test": 642},
    ),
    "csl_daily": ("csl_daily", {"sentence_label/video_map.txt": "csl_daily/dev_rows_excerpt.txt"}, {"": 60}),
    "gsl_greek-iso": (
        "gsl_greek-iso",
        {
            "train_greek_iso.csv": "gsl_greek/train_greek_iso.excerpt.csv",
            "dev_greek_iso.csv": "gsl_greek/dev_greek_iso.csv",
            "iso_classes.csv": "gsl_greek/iso_classes.csv",
        },
        {"train": 1500, "val": 2331},
    ),
    "gsl_greek-si": (
        "gsl_greek-si",
        {"gsl_split_SI_dev.csv": "gsl_greek/gsl_split_SI_dev.csv", "annotations.csv": "gsl_greek/annotations.excerpt.csv"},
        {"val": 588},
    ),
    "gsl_greek-sd": (
        "gsl_greek-sd",
        {"GSL_SD_dev.csv": "gsl_greek/GSL_SD_dev.csv", "annotations.csv": "gsl_greek/annotations.excerpt.csv"},
        {"val": 1063},
    ),
}


@pytest.fixture
def annotations(shared_folder: Path) -> Path:
    folder = shared_folder / "data" / "annotations"
    if not folder.is_dir():
        pytest.skip(f"no folder {folder}")
    return folder


def laid_out(annotations: Path, root: Path, files: Mapping[str, str]) -> Path:
    for name, source in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(annotations / source, root / name)
    return root


def read(word: str, root: Path) -> list[Sample | Rejected]:
    corpus = CORPORA[word]
    return list(READERS[corpus.reader](root, **({"subset": corpus.subset} if corpus.subset else {})))


def samples_of(word: str, root: Path) -> list[Sample]:
    rows = read(word, root)
    assert not [row for row in rows if isinstance(row, Rejected)]
    return [row for row in rows if isinstance(row, Sample)]


@pytest.mark.long
@pytest.mark.parametrize("case", CASES)
def test_every_row_is_a_sample_and_the_counts_are_exact(case: str, annotations: Path, tmp_path: Path) -> None:
    word, files, counts = CASES[case]
    samples = samples_of(word, laid_out(annotations, tmp_path, files))
    assert collections.Counter(s.split for s in samples) == counts
    assert len({s.id for s in samples}) == len(samples)
    for sample in samples:
        assert (tmp_path / sample.video_path).resolve().is_relative_to(tmp_path)
        assert sample.end_s == 0 or 0 <= sample.start_s < sample.end_s
        assert bool(sample.gloss) == (word != "how2sign")


@pytest.mark.parametrize("case", CASES)
def test_what_a_preset_states_is_what_the_whole_files_hold(case: str) -> None:
    word, files, counts = CASES[case]
    whole = {split: count for split, count in counts.items() if split and not cut(files, split)}
    known = CORPORA[word].counts
    if word != "phoenix2014-si5":  # read from a file of the multisigner corpus
        assert {split: known[split] for split in whole if split in known} == {s: n for s, n in whole.items() if s in known}


def cut(files: Mapping[str, str], split: str) -> bool:
    """Whether the file of a split is an excerpt."""
    given = {"val": ("val", "dev", "validation")}.get(split, (split,))
    return any("excerpt" in source and any(f"{word}" in name for word in given) for name, source in files.items())


@pytest.mark.long
def test_wlasl_tells_the_same_through_all_its_files(annotations: Path, tmp_path: Path) -> None:
    folders = [laid_out(annotations, tmp_path / str(i), CASES[case][1]) for i, case in enumerate(list(CASES)[:4])]
    full, by_list, by_classes, cut_off = (
        {s.id: s for s in samples_of(word, folder)} for word, folder in zip(["wlasl", *["wlasl100"] * 3], folders, strict=True)
    )
    assert full == by_list == cut_off
    assert {i: (s.gloss, s.split, s.video_path) for i, s in by_classes.items()} == {
        i: (s.gloss, s.split, s.video_path) for i, s in full.items()
    }
    signers = {split: {s.signer for s in full.values() if s.split == split} for split in ("train", "test")}
    assert len({s.signer for s in full.values()}) == 97
    assert len(signers["train"] & signers["test"]) == 52
    assert len({s.gloss for s in full.values()}) == 100
    # Either file may be given in place of the folder.
    assert {s.id: s for s in samples_of("wlasl", folders[1] / "nslt_100.json")} == full


@pytest.mark.long
def test_wlasl2000_has_2000_glosses_and_names_one_recording_once(annotations: Path, tmp_path: Path) -> None:
    samples = samples_of("wlasl2000", laid_out(annotations, tmp_path, CASES["wlasl2000"][1]))
    assert len({s.gloss for s in samples}) == 2000
    assert {"DON'T WANT", "BOOK"} <= {s.gloss for s in samples}
    sources = collections.Counter(s.source for s in samples)
    assert sources.most_common(1)[0][0].startswith("youtube:")
    assert sources.most_common(1)[0][1] > 1


def test_msasl_subsets_are_the_classes_below_n(annotations: Path, tmp_path: Path) -> None:
    root = laid_out(annotations, tmp_path, CASES["msasl1000"][1])
    entries = json.loads((root / "MSASL_test.json").read_text())
    ids = {}
    for n in (100, 200, 500, 1000):
        samples = samples_of(f"msasl{n}", root)
        assert len(samples) == sum(entry["label"] < n for entry in entries)
        assert len({s.gloss for s in samples}) <= n
        ids[n] = {s.id for s in samples}
    assert ids[100] < ids[200] < ids[500] < ids[1000]
    assert all(s.source == f"youtube:{Path(s.video_path).stem}" for s in samples_of("msasl", root))
    shortest = min(s.end_s - s.start_s for s in samples_of("msasl", root))
    assert shortest == pytest.approx(min(entry["end_time"] - entry["start_time"] for entry in entries))


@pytest.mark.long
def test_autsl_has_226_signs_and_no_signer_in_two_splits(annotations: Path, tmp_path: Path) -> None:
    samples = samples_of("autsl", laid_out(annotations, tmp_path, CASES["autsl"][1]))
    assert len({s.gloss for s in samples}) == CORPORA["autsl"].num_glosses
    signers = collections.defaultdict(set)
    for sample in samples:
        signers[sample.split].add(sample.signer)
    assert sum(len(names) for names in signers.values()) == len(set().union(*signers.values()))


def test_how2sign_reads_quotes_as_its_authors_wrote_them(annotations: Path, tmp_path: Path) -> None:
    samples = {s.id: s for s in samples_of("how2sign", laid_out(annotations, tmp_path, CASES["how2sign"][1]))}
    first = samples["-fZc293MpJk_0-1-rgb_front"]
    assert (first.start_s, first.end_s, first.signer, first.source) == (0.26, 6.79, "1", "-fZc293MpJk")
    assert first.translation == "Hi!"
    assert samples["-g0iPSnQt6w_5-1-rgb_front"].translation.endswith('decide, "You know what?')
    assert samples["-g0iPSnQt6w_6-1-rgb_front"].translation.startswith("I don't want to do this\", because")
    assert samples["1G8LIWgKLME_3-2-rgb_front"].translation.startswith('For a very small intricate design like an "i" you\'re')
    assert samples["-d5dN54tH2E_10-1-rgb_front"].translation.startswith("So we're going to go up and down; let's")


def test_phoenix_dev_and_test_say_what_the_reference_transcripts_say(annotations: Path, tmp_path: Path) -> None:
    samples = {s.id: s for s in samples_of("phoenix2014", laid_out(annotations, tmp_path, CASES["phoenix2014"][1]))}
    for split, file in (("val", "dev"), ("test", "test")):
        lines = (annotations / "phoenix2014" / f"phoenix2014-groundtruth-{file}.stm").read_text(encoding="utf-8").splitlines()
        said = {line.split(" ")[0]: " ".join(line.split()[5:]) for line in lines}
        assert said == {i: s.gloss for i, s in samples.items() if s.split == split}
        assert {i: line.split(" ")[2].casefold() for i, line in zip(said, lines, strict=True)} == {
            i: s.signer.casefold() for i, s in samples.items() if s.split == split
        }
    known = json.loads((annotations / "phoenix2014" / "gloss_dict.json").read_text(encoding="utf-8"))
    assert {gloss for s in samples.values() for gloss in parts(s.gloss, "sequence")} <= known.keys()
    assert len(known) == CORPORA["phoenix2014"].num_glosses
    # The clean-up of the evaluation leaves what is clean as it is.
    assert all(phoenix2014(g) == g for s in samples.values() if s.split != "train" for g in s.gloss.split())
    assert any(phoenix2014(g) != g for s in samples.values() if s.split == "train" for g in s.gloss.split())


def test_the_clean_up_of_phoenix_is_that_of_the_official_script() -> None:
    known = corpus_json("i3d/phoenix_cleanup.json")
    table = known["ctm_token_table"]
    assert {token: phoenix2014(token) for token in table} == {token: out or "" for token, out in table.items()}
    assert [phoenix2014(token) for token in known["ctm_tokens_unchanged"]] == known["ctm_tokens_unchanged"]


def test_csl_daily_joins_its_two_files(annotations: Path, tmp_path: Path) -> None:
    files = {"video_map.txt": "csl_daily/dev_rows_excerpt.txt", "split_1.txt": "csl_daily/split_1_excerpt.txt"}
    root = laid_out(annotations, tmp_path, files)
    rows = read("csl_daily", root)
    # The two excerpts are of different sentences: none has both, and none is lost.
    assert [row.reason for row in rows if isinstance(row, Rejected)] == ["bad_row"] * 120
    names = [line.split("|")[0] for line in (root / "video_map.txt").read_text(encoding="utf-8").splitlines()[1:]]
    (root / "split_1.txt").write_text("name|split\n" + "".join(f"{name}|dev\n" for name in names))
    samples = samples_of("csl_daily", root)
    assert {s.split for s in samples} == {"dev"}
    assert samples[0] == Sample(
        "S000020_P0000_T00", "sentence/frames_512x512/S000020_P0000_T00", "他 今天 年龄 4", "P0000", "他今年四岁。", split="dev"
    )


def test_greek_sentences_come_with_their_translation(annotations: Path, tmp_path: Path) -> None:
    samples = {s.id: s for s in samples_of("gsl_greek-sd", laid_out(annotations, tmp_path, CASES["gsl_greek-sd"][1]))}
    first = samples["police1_signer1_rep1_sentences_sentences0000"]
    assert first.gloss == "ΓΕΙΑ ΕΓΩ(1) ΜΠΟΡΩ ΒΟΗΘΩ"
    assert first.translation == "γεια σας πώς μπορώ να βοηθήσω"
    assert (first.signer, first.source) == ("signer1", "police1_signer1_rep1")
    # The sentences are an excerpt of 500.
    assert 0 < sum(bool(s.translation) for s in samples.values()) < len(samples)


def test_the_ghanaian_dictionary_has_signs_and_no_clip_of_them(annotations: Path, tmp_path: Path) -> None:
    files = {name: f"gsl_ghana/{name}" for name in ("gsl_dictionary.json", "video_frame_counts.json")}
    root = laid_out(annotations, tmp_path, files)
    assert len(gsl_ghana.signs(root)) == CORPORA["gsl_ghana"].num_glosses == 1485
    rows = read("gsl_ghana", root)
    assert [row.reason for row in rows if isinstance(row, Rejected)] == ["no_gloss"] * 22
    (root / "labels.tsv").write_text(
        "path\tgloss\tstart\tend\nv.mp4\tblue\t1\t2\nv.mp4\tTOM  BROWN\t3\t4\nw.mp4\tkubernetes\t1\t2\n"
    )
    found = [row for row in read("gsl_ghana", root) if isinstance(row, Sample)]
    assert [(s.gloss, s.start_s) for s in found] == [("BLUE", 1.0)]
    reasons = collections.Counter(row.reason for row in read("gsl_ghana", root) if isinstance(row, Rejected))
    assert reasons == {"no_gloss": 22, "not_kept": 1, "duplicate_id": 1}
