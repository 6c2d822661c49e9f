"""Corpora: what is stated is what is written, the same again for the same settings, resumable."""

import csv
import json
import pickle
from collections.abc import Callable, Iterable
from pathlib import Path

import av
import pytest

from sign_dist.errors import DataError
from sign_dist.synthetic.corpus import (
    Clip,
    CorpusFacts,
    damaged,
    plan_clips,
    split_of_signers,
    write_clip,
    write_corpus,
    write_one,
)
from sign_dist.synthetic.lexicon import LEXICON
from sign_dist.synthetic.motion import clip_rng, make_motion
from sign_dist.synthetic.signer import make_signer

SIZES = {"num_signs": 2, "num_signers": 3, "clips_per_sign": 1, "num_corrupt": 2}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> CorpusFacts:
    return write_corpus(tmp_path_factory.mktemp("world"), **SIZES)


def rows(root: Path) -> list[dict[str, str]]:
    with (root / "labels.tsv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


@pytest.mark.long
def test_a_clip_decodes_as_stated_and_depends_on_its_numbers_alone(tmp_path: Path) -> None:
    signer, sign = make_signer(0, 1), LEXICON[3]
    num_frames = write_clip(tmp_path / "a" / "clip.mp4", sign, signer, seed=0, repetition=0)
    assert num_frames == make_motion(sign, signer, clip_rng(0, signer, sign, 0)).num_frames
    with av.open(str(tmp_path / "a" / "clip.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert stream.average_rate == signer.fps
        assert (stream.width, stream.height) == (signer.width_px, signer.height_px)
        assert sum(1 for _ in container.decode(stream)) == num_frames

    write_clip(tmp_path / "again.mp4", sign, signer, seed=0, repetition=0)
    content = (tmp_path / "a" / "clip.mp4").read_bytes()
    assert (tmp_path / "again.mp4").read_bytes() == content


@pytest.mark.long
def test_labels_name_every_file_and_splits_share_no_signer(corpus: CorpusFacts) -> None:
    table = rows(corpus.root)
    assert len(table) == corpus.num_clips == 6
    assert len({row["id"] for row in table}) == 6
    assert {row["path"] for row in table} == {f"videos/{path.name}" for path in (corpus.root / "videos").iterdir()}
    signers = {split: {row["signer"] for row in table if row["split"] == split} for split in ("train", "val", "test")}
    assert signers == {split: set(names) for split, names in corpus.signers_of_split.items()}
    assert sum(len(names) for names in signers.values()) == 3
    assert {row["gloss"] for row in table} == set(corpus.glosses) == {sign.gloss for sign in LEXICON[:2]}


@pytest.mark.long
def test_exactly_the_stated_files_are_damaged(corpus: CorpusFacts) -> None:
    broken = set()
    for row in rows(corpus.root):
        try:
            with av.open(str(corpus.root / row["path"])) as container:
                assert any(True for _ in container.decode(video=0))
        except (av.FFmpegError, IndexError):
            broken.add(row["id"])
            assert row["split"] == "train"
    assert broken == set(corpus.corrupted) == set(json.loads((corpus.root / "world.json").read_text())["corrupted"])
    assert len(broken) == SIZES["num_corrupt"]


@pytest.mark.long
@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "no_header"])
def test_every_damage_makes_a_file_unreadable(damage, corpus: CorpusFacts, tmp_path: Path) -> None:
    whole = next(corpus.root / row["path"] for row in rows(corpus.root) if row["split"] == "test")
    (tmp_path / "bad.mp4").write_bytes(damaged(whole.read_bytes(), damage))
    with pytest.raises(av.FFmpegError), av.open(str(tmp_path / "bad.mp4")):
        pass


@pytest.mark.long
def test_writing_again_keeps_whole_files_and_makes_the_missing_ones(corpus: CorpusFacts) -> None:
    before = {path: path.read_bytes() for path in corpus.root.rglob("*") if path.is_file()}
    assert not [path for path in before if path.name.startswith(".")]
    lost = sorted((corpus.root / "videos").iterdir())[:2]
    for path in lost:
        path.unlink()
    (corpus.root / "labels.tsv").unlink()
    seen: list[tuple[int, int]] = []
    mapped: list[Clip] = []

    def sent_by_pickle(function: Callable[[Clip], bool], items: Iterable[Clip]) -> Iterable[bool]:
        function, items = pickle.loads(pickle.dumps((function, list(items))))
        mapped.extend(items)
        return map(function, items)

    facts = write_corpus(corpus.root, **SIZES, progress=lambda done, total: seen.append((done, total)), map=sent_by_pickle)
    assert facts.num_written == 2
    assert seen == [(5, 6), (6, 6)]
    assert sorted(clip.path for clip in mapped) == lost
    assert {path: path.read_bytes() for path in corpus.root.rglob("*") if path.is_file()} == before
    assert facts.corrupted == corpus.corrupted


def test_another_world_is_not_mixed_in(corpus: CorpusFacts) -> None:
    with pytest.raises(DataError, match="other settings"):
        write_corpus(corpus.root, **SIZES, seed=1)


def test_impossible_sizes_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    for sizes in ({"num_signs": 99}, {"num_signers": 2}, {"clips_per_sign": 0}, {"num_corrupt": 10_000}, {"seed": -1}):
        with pytest.raises(DataError):
            write_corpus(tmp_path / "world", **sizes)
    assert not (tmp_path / "world").exists()


def test_every_split_has_signers_and_train_the_most() -> None:
    for num_signers in range(3, 60):
        splits = split_of_signers(num_signers)
        assert len(splits) == num_signers
        assert splits == sorted(splits, key=["train", "val", "test"].index)
        assert splits.count("val") >= 1
        assert 1 <= splits.count("test") <= max(1, num_signers // 3)
    assert split_of_signers(8) == ["train"] * 5 + ["val"] + ["test"] * 2


def test_write_one_is_at_module_level() -> None:
    assert pickle.loads(pickle.dumps(write_one)) is write_one


def test_corpora_of_other_signs_are_another_language(tmp_path: Path) -> None:
    usual = plan_clips(tmp_path, 4, 3, 1, 0, 0)
    other = plan_clips(tmp_path, 4, 3, 1, 0, 0, 4)
    glosses = [{sign["gloss"] for sign in plan.world["signs"]} for plan in (usual, other)]
    assert glosses[0].isdisjoint(glosses[1])
    assert "first_sign" not in usual.world  # its record, and so its corpora, are those of before
    assert {clip.sign_index for clip in other.clips} == {4, 5, 6, 7}
    with pytest.raises(DataError, match=f"begin at number 0 to {len(LEXICON) - 4}, not {len(LEXICON)}"):
        plan_clips(tmp_path, 4, 3, 1, 0, 0, len(LEXICON))
