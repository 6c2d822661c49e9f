"""prepare(): a corpus of good and bad files becomes a dataset directory in which every clip is accounted for."""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import av
import numpy as np
import pytest

from sign_dist.config.data import Glosses, Sampling, SplitSettings
from sign_dist.data.layout import SPLITS, DatasetDir
from sign_dist.data.manifest import read_manifest, read_rejected
from sign_dist.data.prepare import CheckAll, check_one_by_one, prepare, sampling_of
from sign_dist.data.sample import Sample
from sign_dist.data.vocab import Vocab
from sign_dist.errors import DataError
from sign_dist.video.check import REASONS, Checked

Paint = Callable[..., Path]
GLOSSES = ("HELLO", "THANK YOU")
# File name -> why it is refused.
BAD = {
    "empty.mp4": "empty",
    "text.mp4": "not_video",
    "cut.mp4": "not_video",
    "sound.m4a": "no_video_stream",
    "one.mp4": "too_short",
    "tiny.mp4": "too_small",
    "blank.mp4": "blank",
    "long.mp4": "too_long",
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, paint: Paint) -> Path:
    """Two signs by four signers, two clips each, and one file of every kind of damage."""
    root = tmp_path_factory.mktemp("corpus")
    rows = ["id\tpath\tgloss\tsigner"]
    for i in range(16):
        name = f"clips/{i}  ä.mp4" if i == 3 else f"clips/{i}.mp4"
        paint(root / name, num_frames=6 + i)
        rows.append(f"c{i}\t{name}\t{GLOSSES[i % 2].lower()}\ts{i // 4}")
    bad = root / "bad"
    bad.mkdir()
    (bad / "empty.mp4").write_bytes(b"")
    (bad / "text.mp4").write_text("this is no video")
    (bad / "cut.mp4").write_bytes((root / "clips/9.mp4").read_bytes()[:600])
    sound(bad / "sound.m4a")
    paint(bad / "one.mp4", num_frames=1)
    paint(bad / "tiny.mp4", width=16, height=16)
    blank(bad / "blank.mp4")
    paint(bad / "long.mp4", num_frames=40, fps=1)
    rows += [f"b{i}\tbad/{name}\thello\ts0" for i, name in enumerate(BAD)]
    rows += ["gone\tclips/none.mp4\thello\ts0", "c0\tclips/0.mp4\thello\ts0", "out\t../x.mp4\thello\ts0", "mute\tclips/0.mp4\t\ts0"]
    (root / "labels.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return root


def sound(path: Path) -> None:
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def blank(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"threads": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), 90, np.uint8), format="rgb24")))
        container.mux(stream.encode(None))


def remembered(checks: dict[str, Checked]) -> Callable[[Sequence[Sample], Path, Sampling], Iterable[Checked]]:
    """A `check_all` that answers from an earlier preparation."""
    return lambda samples, folder, sampling: [checks[s.video_path] for s in samples]


@pytest.fixture(scope="module")
def checks(corpus: Path) -> dict[str, Checked]:
    paths = [p.relative_to(corpus).as_posix() for p in corpus.rglob("*") if p.is_file()]
    samples = [Sample(p, p, "A") for p in [*paths, "clips/none.mp4"]]
    return {s.video_path: c for s, c in zip(samples, check_one_by_one(samples, corpus, Sampling()), strict=True)}


def test_every_row_is_used_once_or_refused_for_the_right_reason(corpus: Path, tmp_path: Path) -> None:
    done = prepare("table", corpus, tmp_path / "set")
    dataset = DatasetDir(tmp_path / "set")
    clips = [s for name in SPLITS for s in read_manifest(dataset, name)]
    assert sorted(s.id for s in clips) == sorted(f"c{i}" for i in range(16))
    assert done.counts == {name: len(read_manifest(dataset, name)) for name in SPLITS}
    rejected = {(row.id, row.reason) for row in read_rejected(dataset)}
    assert rejected == {(f"b{i}", reason) for i, reason in enumerate(BAD.values())} | {
        ("gone", "missing"),
        ("c0", "duplicate_id"),
        ("out", "not_allowed"),
        ("mute", "no_gloss"),
    }
    assert {reason for _, reason in rejected} <= REASONS.keys()
    assert all(row.detail for row in read_rejected(dataset))
    assert done.policy == "signer"
    facts = dataset.facts()
    assert facts["counts"] == done.counts
    assert facts["num_signers"] == 4
    assert sum(facts["rejected"].values()) == len(rejected)
    for sample in clips:
        i = int(sample.id[1:])
        assert (sample.n_frames, sample.fps, sample.gloss) == (6 + i, 25.0, GLOSSES[i % 2])
        assert (dataset.videos_root() / sample.video_path).is_file()
    assert Vocab.read(dataset.vocab_file).glosses == GLOSSES


def test_preparing_twice_writes_the_same_bytes_and_a_folder_reader_finds_the_same_clips(
    corpus: Path, checks: dict[str, Checked], tmp_path: Path
) -> None:
    for name in ("one", "two"):
        prepare("table", corpus, tmp_path / name, check_all=remembered(checks))
    for path in (tmp_path / "one").rglob("*.t*"):
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()
    assert DatasetDir(tmp_path / "one").facts() == DatasetDir(tmp_path / "two").facts()
    done = prepare("folder", corpus, tmp_path / "three", check_all=remembered(checks))
    assert sum(done.counts.values()) == 16
    assert Vocab.read(done.dataset.vocab_file).glosses == ("CLIPS",)


def test_a_table_file_can_be_the_corpus_itself(corpus: Path, checks: dict[str, Checked], tmp_path: Path) -> None:
    done = prepare("table", corpus / "labels.tsv", tmp_path / "set", check_all=remembered(checks))
    assert done.dataset.videos_root() == corpus
    assert done.dataset.facts()["corpus"] == "labels"


def test_the_record_comes_last_and_goes_first(
    corpus: Path, checks: dict[str, Checked], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever write fails, a dataset without its record is not taken for whole; one with it is."""
    root = tmp_path / "set"
    prepare("table", corpus, root, check_all=remembered(checks))
    real, calls = os.replace, []

    def failing(limit: int) -> Callable[[Path, Path], Path]:
        def replace(self: Path, target: Path) -> Path:
            calls.append(target.name)
            if len(calls) > limit:
                raise OSError(28, "No space left on device")
            real(self, target)
            return target

        return replace

    for limit in range(6):
        calls.clear()
        monkeypatch.setattr(Path, "replace", failing(limit))
        with pytest.raises(OSError, match="No space"):
            prepare("table", corpus, root, check_all=remembered(checks))
        with pytest.raises(DataError, match="is not finished"):
            DatasetDir(root).facts()
        assert not list(root.rglob(".*")), "temporary files are removed"
    assert calls[-1] == "dataset.json"
    monkeypatch.undo()
    prepare("table", corpus, root, check_all=remembered(checks))
    assert DatasetDir(root).facts()["counts"]


def test_names_that_no_table_can_hold_are_rejected_not_lost(paint: Paint, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    good = paint(corpus / "A" / "good.mp4")
    for name in ("tab\there.mp4", "line\nbreak.mp4", os.fsdecode(b"latin\xe4.mp4")):
        shutil.copy(good, corpus / "A" / name)
    done = prepare("folder", corpus, tmp_path / "set")
    assert done.rejected == {"bad_name": 3}
    assert sum(done.counts.values()) == 1
    assert {row.reason for row in read_rejected(done.dataset)} == {"bad_name"}
    assert {row.video_path for row in read_rejected(done.dataset)} == {
        "A/tab\\there.mp4",
        "A/line\\nbreak.mp4",
        "A/latin\\udce4.mp4",
    }


def test_a_warning_tells_of_copies_in_two_splits(corpus: Path, checks: dict[str, Checked], tmp_path: Path) -> None:
    table = tmp_path / "labels.tsv"
    table.write_text("id\tpath\tgloss\tsplit\na\tclips/1.mp4\tx\ttrain\nb\tclips/2.mp4\tx\tdev\nc\tclips/1.mp4\tx\ttest\n")
    same = {f"clips/{i}.mp4": checks[f"clips/{i}.mp4"] for i in (1, 2)}
    done = prepare("table", table, tmp_path / "set", check_all=remembered(same))
    assert done.counts == {"train": 1, "val": 1, "test": 1}
    assert any("identical clips" in warning and "(a, c)" in warning for warning in done.warnings)
    assert done.dataset.facts()["warnings"] == done.warnings


def test_what_cannot_be_prepared_is_one_sentence(corpus: Path, checks: dict[str, Checked], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no reader 'tabel': there are .*did you mean 'table'"):
        prepare("tabel", corpus, tmp_path / "set")
    with pytest.raises(DataError, match="no corpus"):
        prepare("table", tmp_path / "none", tmp_path / "set")
    with pytest.raises(DataError, match=r"none of the .* can be used: .* not_video"):
        prepare("table", corpus, tmp_path / "set", check_all=lambda samples, *_: [Checked("not_video")] * len(samples))
    with pytest.raises(ValueError):
        prepare("table", corpus, tmp_path / "set", check_all=lambda samples, *_: [Checked("not_video")])
    table = tmp_path / "labels.tsv"
    table.write_text("path\tgloss\tsplit\nclips/1.mp4\tx\tother\n")
    with pytest.raises(DataError, match="allowed are train"):
        prepare("table", table, tmp_path / "set", split=SplitSettings(by="given"), check_all=remembered(checks))
    assert not (tmp_path / "set").exists()


def test_settings_are_recorded(corpus: Path, checks: dict[str, Checked], tmp_path: Path) -> None:
    settings, sampling = SplitSettings(by="gloss", seed=3), Sampling(fps=12)
    done = prepare("table", corpus, tmp_path / "set", split=settings, sampling=sampling, check_all=remembered(checks))
    facts = json.loads(done.dataset.facts_file.read_text())
    assert facts["split"] == settings.model_dump() | {"policy": "gloss"}
    assert facts["sampling"] == sampling.model_dump()


def test_glosses_are_chosen_and_what_is_left_out_is_a_row(corpus: Path, checks: dict[str, Checked], tmp_path: Path) -> None:
    keep = tmp_path / "keep.txt"
    keep.write_text("hello\nhouse\n")
    done = prepare("table", corpus, tmp_path / "set", glosses=Glosses(keep=str(keep)), check_all=remembered(checks))
    assert sum(done.counts.values()) == 8
    assert done.rejected["not_kept"] == 8
    assert any("1 of the 2 glosses" in warning and "(house)" in warning for warning in done.warnings)
    facts = done.dataset.facts()
    assert facts["glosses"] == Glosses(keep=str(keep)).model_dump() | {"labels": "gloss", "merged": {}, "absent": ["house"]}
    assert Vocab.read(done.dataset.vocab_file).glosses == ("HELLO",)
    with pytest.raises(DataError, match=r"none of the .* can be used: .*16 too_few_clips"):
        prepare("table", corpus, tmp_path / "none", glosses=Glosses(min_clips=9), check_all=remembered(checks))


def test_min_clips_counts_what_is_usable(corpus: Path, checks: dict[str, Checked], tmp_path: Path) -> None:
    """Two of three clips of a gloss are broken: it has one clip, whatever the table says."""
    rows = [
        "path\tgloss",
        *(f"clips/{i}.mp4\tgood" for i in (1, 2, 4)),
        "clips/5.mp4\trare",
        "bad/empty.mp4\trare",
        "bad/text.mp4\trare",
    ]
    table = corpus / "rare.tsv"
    table.write_text("\n".join(rows))
    done = prepare("table", table, tmp_path / "set", glosses=Glosses(min_clips=2), check_all=remembered(checks))
    assert done.rejected == {"empty": 1, "not_video": 1, "too_few_clips": 1}
    assert sum(done.counts.values()) == 3


def test_a_corpus_is_known_by_its_name(tmp_path: Path) -> None:
    raw = tmp_path / "PHOENIX"
    (raw / "annotations").mkdir(parents=True)
    for split, count in (("train", 3), ("dev", 2), ("test", 1)):
        rows = "".join(f"{split}-{i}|{split}-{i}/1/*.png|Signer0{i}|REGEN  loc-NORD\n" for i in range(count))
        (raw / "annotations" / f"{split}.corpus.csv").write_text(f"id|folder|signer|annotation\n{rows}")
    seen = list[Sampling]()

    def good(samples: Sequence[Sample], folder: Path, sampling: Sampling) -> list[Checked]:
        seen.append(sampling)
        return [Checked("", "", s.id, 50, 25.0) for s in samples]

    done = prepare("phoenix2014", raw, tmp_path / "set", check_all=good)
    facts = done.dataset.facts()
    assert {name: facts[name] for name in ("corpus", "task", "language", "reader")} == {
        "corpus": "phoenix2014",
        "task": "cslr",
        "language": "gsg",
        "reader": "phoenix2014",
    }
    assert "CC BY-NC-SA" in facts["licence"]
    assert done.counts == {"train": 3, "val": 2, "test": 1}
    # The vocabulary of a continuous corpus counts its glosses, not its sentences.
    assert Vocab.read(done.dataset.vocab_file).glosses == ("REGEN", "loc-NORD")
    assert any("3 clips for train" in warning and "known to have 5672" in warning for warning in done.warnings)
    assert seen[0] == sampling_of("phoenix2014")
    cleaned = prepare("phoenix2014", raw, tmp_path / "set", glosses=Glosses(clean=True), check_all=good)
    assert Vocab.read(cleaned.dataset.vocab_file).glosses == ("NORD", "REGEN")
    whole = prepare("phoenix2014", raw, tmp_path / "set", glosses=Glosses(labels="gloss"), check_all=good)
    assert Vocab.read(whole.dataset.vocab_file).glosses == ("REGEN loc-NORD",)


def test_translations_alone_need_no_vocabulary(tmp_path: Path) -> None:
    table = tmp_path / "labels.tsv"
    good: CheckAll = lambda samples, *_: [Checked("", "", s.id, 50, 25.0) for s in samples]  # noqa: E731
    table.write_text("path\tgloss\tsplit\na.mp4\tx\ttrain\n")
    prepare("table", table, tmp_path / "set", check_all=good)
    table.write_text("path\ttranslation\tsplit\na.mp4\tHi there\ttrain\nb.mp4\tBye\tval\n")
    done = prepare("table", table, tmp_path / "set", check_all=good)
    assert (done.counts, done.num_glosses) == ({"train": 1, "val": 1, "test": 0}, 0)
    assert done.dataset.facts()["task"] == "slt"
    assert [s.translation for s in read_manifest(done.dataset, "train")] == ["Hi there"]
    before = done.dataset.facts()["digest"]
    table.write_text("path\ttranslation\tsplit\na.mp4\tHello there\ttrain\nb.mp4\tBye\tval\n")
    assert prepare("table", table, tmp_path / "set", check_all=good).dataset.facts()["digest"] != before
    with pytest.raises(DataError, match="the clips have no glosses"):
        Vocab.read(done.dataset.vocab_file)
