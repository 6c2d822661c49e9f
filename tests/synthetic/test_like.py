"""Look-alikes: the readers of the real corpora read them, with the exact counts, and find every file."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import pytest

from sign_dist.data.readers import how2sign, phoenix, wlasl
from sign_dist.data.sample import Rejected, Sample
from sign_dist.errors import DataError
from sign_dist.synthetic.like import Order, write_like, write_order, write_wlasl
from sign_dist.synthetic.takes import Cast

CAST = Cast(num_sentences=6, num_signers=3, size_px=64, fps=5)


def good(rows: object) -> list[Sample]:
    samples = list(rows)  # pyright: ignore
    assert not [row for row in samples if isinstance(row, Rejected)]
    return samples


def counts(samples: list[Sample]) -> dict[str, int]:
    return {split: sum(sample.split == split for sample in samples) for split in ("train", "val", "test")}


@pytest.mark.long
def test_wlasl(tmp_path: Path) -> None:
    facts = write_wlasl(tmp_path, num_signs=2, num_signers=3, clips_per_sign=1, num_corrupt=1)
    samples = good(wlasl.read(tmp_path))
    assert len(samples) == facts.num_clips == 6
    assert {sample.gloss for sample in samples} == set(facts.glosses)
    assert counts(samples) == {"train": 2, "val": 2, "test": 2}
    assert {sample.video_path for sample in samples} == {f"videos/{path.name}" for path in (tmp_path / "videos").iterdir()}
    assert good(wlasl.read(tmp_path, "2")) == samples
    assert set(facts.corrupted) <= {sample.id for sample in samples}
    subset = json.loads((tmp_path / "nslt_2.json").read_text())
    assert all(first == 1 and last > 20 for _, first, last in (entry["action"] for entry in subset.values()))


@pytest.mark.long
@pytest.mark.parametrize("like", ["phoenix2014", "phoenix2014T"])
def test_phoenix(like, tmp_path: Path) -> None:
    facts = write_like(tmp_path, like, replace(CAST, num_sentences=3))
    samples = good(phoenix.read_2014(tmp_path) if like == "phoenix2014" else phoenix.read_2014t(tmp_path))
    assert len(samples) == facts.num_takes == 3
    assert counts(samples) == facts.sentences_of_split
    assert {sample.signer for sample in samples} == {"Signer01", "Signer02", "Signer03"}
    for sample in samples:
        pictures = sorted((tmp_path / sample.video_path).iterdir())
        assert len(pictures) > 20
        assert cv2.imread(str(pictures[0])).shape == (260, 210, 3)
        assert bool(sample.translation) == (like == "phoenix2014T")
        assert sample.translation == sample.translation.lower().rstrip(".?")
    sources = {(sample.source, sample.split) for sample in samples}
    assert len(sources) == len({source for source, _ in sources}), "no broadcast is in two splits"
    lists = "".join(path.read_text() for path in (tmp_path / "annotations" / "manual").iterdir())
    assert ("  " in lists) == (like == "phoenix2014")


@pytest.mark.long
def test_how2sign(tmp_path: Path) -> None:
    facts = write_like(tmp_path, "how2sign", CAST)
    samples = good(how2sign.read(tmp_path))
    assert len(samples) == facts.num_sentences == 6
    assert facts.num_takes == 3
    assert counts(samples) == facts.sentences_of_split
    assert len({sample.translation for sample in samples}) == 6
    for source in {sample.source for sample in samples}:
        mine = sorted((sample for sample in samples if sample.source == source), key=lambda sample: sample.start_s)
        assert len(mine) == 2
        assert len({(sample.split, sample.signer, sample.video_path) for sample in mine}) == 1
        assert 0 <= mine[0].start_s < mine[0].end_s <= mine[1].start_s < mine[1].end_s, "sentences do not overlap"
        capture = cv2.VideoCapture(str(tmp_path / mine[0].video_path))
        assert mine[1].end_s <= capture.get(cv2.CAP_PROP_FRAME_COUNT) / capture.get(cv2.CAP_PROP_FPS) + 0.01
        capture.release()


def test_an_order_is_written_or_refused_in_words(tmp_path: Path) -> None:
    said = write_order(tmp_path / "a", Order(signers=3, sentences=3, landmarks=True))
    assert said.startswith("3 sentences (train 1, val 1, test 1) by 3 signers")
    for order, words in (
        (Order(like="phoenix"), "did you mean 'phoenix2014'"),
        (Order(sentences=9, domain="dayly"), "did you mean 'daily'"),
        (Order(sentences=9, split_by="gloss"), "signer, sentence"),
        (Order(like="wlasl", sentences=3), "isolated"),
        (Order(landmarks=True), "--sentences"),
        (Order(like="how2sign", landmarks=True), "--like"),
    ):
        with pytest.raises(DataError, match=words):
            write_order(tmp_path / "b", order)
    assert not (tmp_path / "b").exists()
