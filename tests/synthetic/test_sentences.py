"""Corpora of sentences: exact counts, splits, alignment files, resumption, refusal."""

import csv
import pickle
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sign_dist.data.readers import table
from sign_dist.data.sample import Sample
from sign_dist.errors import DataError
from sign_dist.synthetic.sentences import plan_sentences, write_sentences
from sign_dist.synthetic.takes import Cast, write_take
from sign_dist.synthetic.words import DOMAINS
from sign_dist.video.landmarks import NUM_LANDMARKS

SMALL = Cast(num_sentences=4, num_signers=3, size_px=64, fps=8, num_corrupt=1)

CASTS = st.builds(
    Cast,
    num_sentences=st.integers(8, 60),
    num_signers=st.integers(3, 8),
    domain=st.sampled_from(tuple(DOMAINS)),
    seed=st.integers(0, 50),
    split_by=st.sampled_from(("signer", "sentence")),
    agreement=st.booleans(),
)


@settings(max_examples=25)
@given(CASTS)
def test_plans_are_exact_and_do_not_leak(cast: Cast) -> None:
    takes = plan_sentences(Path("world"), cast)
    assert takes == plan_sentences(Path("world"), cast)
    assert len(takes) == len({take.id for take in takes}) == cast.num_sentences
    glosses = [take.sentences[0].glosses for take in takes]
    assert len(set(glosses)) == len(takes), "no sentence is signed twice, so none is in two splits"
    assert {gloss for sentence in glosses for gloss in sentence} <= set(DOMAINS[cast.domain].vocabulary)
    per_signer = [sum(take.signer.index == k for take in takes) for k in range(cast.num_signers)]
    assert max(per_signer) - min(per_signer) <= 1, "signers take turns"
    splits = {split: {take.signer.name for take in takes if take.split == split} for split in ("train", "val", "test")}
    assert all(splits.values())
    if cast.split_by == "signer":
        assert sum(len(names) for names in splits.values()) == cast.num_signers


def test_a_larger_corpus_begins_with_the_sentences_of_a_smaller_one() -> None:
    small, large = ({take.number: take.sentences for take in plan_sentences(Path(), Cast(num_sentences=n))} for n in (20, 60))
    assert all(large[number] == sentences for number, sentences in small.items())


def test_every_tested_gloss_is_trained_in_a_corpus_of_usual_size() -> None:
    for domain in DOMAINS:
        takes = plan_sentences(Path(), Cast(num_sentences=200, domain=domain))
        of = {s: {g for t in takes if t.split == s for g in t.sentences[0].glosses} for s in ("train", "val", "test")}
        assert of["val"] | of["test"] <= of["train"]


@pytest.mark.long
def test_files_tables_and_alignment_agree(tmp_path: Path) -> None:
    facts = write_sentences(tmp_path / "w", SMALL)
    assert (facts.num_takes, facts.num_sentences, facts.num_written) == (4, 4, 4)
    assert len(facts.corrupted) == 1
    samples = list(table.read(tmp_path / "w"))
    assert all(isinstance(sample, Sample) and sample.translation and sample.gloss for sample in samples)
    assert {s: sum(x.split == s for x in samples) for s in ("train", "val", "test")} == facts.sentences_of_split
    with (tmp_path / "w" / "alignment.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    for sample in samples:
        spans = [row for row in rows if row["id"] == sample.id]
        assert " ".join(row["gloss"] for row in spans if row["gloss"]) == sample.gloss
        path = tmp_path / "w" / sample.video_path
        if sample.id in facts.corrupted:
            with pytest.raises((av.FFmpegError, IndexError)), av.open(str(path)) as container:
                next(container.decode(video=0))
            continue
        with av.open(str(path)) as container:
            assert container.streams.video[0].average_rate == SMALL.fps
            assert sum(1 for _ in container.decode(video=0)) == int(spans[-1]["end_frame"])

    before = {path: path.read_bytes() for path in (tmp_path / "w").rglob("*") if path.is_file()}
    lost = sorted((tmp_path / "w" / "videos").iterdir())[1]
    lost.unlink()

    def sent_by_pickle(function, items):
        function, items = pickle.loads(pickle.dumps((function, list(items))))
        return map(function, items)

    assert write_sentences(tmp_path / "w", SMALL, map=sent_by_pickle).num_written == 1
    assert {path: path.read_bytes() for path in (tmp_path / "w").rglob("*") if path.is_file()} == before
    with pytest.raises(DataError, match="other settings"):
        write_sentences(tmp_path / "w", Cast(num_sentences=5, num_signers=3, size_px=64, fps=8))


def test_landmark_tracks_stand_in_for_videos(tmp_path: Path) -> None:
    write_sentences(tmp_path, Cast(num_sentences=3, num_signers=3), landmarks=True)
    takes = plan_sentences(tmp_path, Cast(num_sentences=3, num_signers=3), form="landmarks")
    for take in takes:
        track = np.load(take.path)
        assert track.shape == (take.utterance()[0].motion.num_frames, NUM_LANDMARKS, 4)
    assert not (tmp_path / "videos").exists()


@pytest.mark.parametrize(
    "cast",
    [
        Cast(num_sentences=2),
        Cast(num_sentences=10**6),
        Cast(num_signers=2),
        Cast(num_corrupt=10**4),
        Cast(seed=-1),
        Cast(size_px=65),
        Cast(size_px=16),
        Cast(fps=1),
        Cast(domain="nothing"),  # pyright: ignore[reportArgumentType]
    ],
)
def test_impossible_casts_are_refused_before_anything_is_written(cast: Cast, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        write_sentences(tmp_path / "world", cast)
    assert not (tmp_path / "world").exists()


def test_write_take_is_at_module_level() -> None:
    assert pickle.loads(pickle.dumps(write_take)) is write_take
