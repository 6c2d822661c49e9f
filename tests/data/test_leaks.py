"""Leaks between splits: found in manifests and in pictures, kept in leaks.json, and refused by training."""

import dataclasses
import itertools
import json
import random
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sign_dist.data.layout import SPLITS, DatasetDir, write_json
from sign_dist.data.leaks import alike, components, find_leaks, refuse_leaks, shared_with_training, sign
from sign_dist.data.manifest import read_manifest, read_tsv, write_manifest
from sign_dist.data.sample import Sample
from sign_dist.errors import DataError
from sign_dist.synthetic.corpus import write_corpus
from sign_dist.video.check import check_clip
from sign_dist.video.decode import read_clip
from sign_dist.video.phash import Signature, find_matches

KINDS: dict[str, dict[str, Any]] = {
    "coarse": {"crf": 35},
    "mirror": {"mirror": True},
    "start": {"cut": (0.2, 0.0)},
    "end": {"cut": (0.0, 0.25)},
    "small": {"scale": 0.5},
    "rate": {"fps": 15},
    "all": {"crf": 35, "mirror": True, "cut": (0.1, 0.15), "scale": 0.4, "fps": 24},
}


def plant(
    source: Path,
    copy: Path,
    *,
    crf: int = 28,
    mirror: bool = False,
    cut: tuple[float, float] = (0.0, 0.0),
    scale: float = 1.0,
    fps: float = 0.0,
) -> Path:
    """A copy of a video as people make them: encoded again, and mirrored, cut, scaled, thinned out to another rate."""
    clip = read_clip(source, fps=60, max_side_px=1280, max_seconds=60)
    frames, rate = clip.frames, fps or clip.fps
    frames = frames[int(len(frames) * cut[0]) : len(frames) - int(len(frames) * cut[1])]
    if fps:
        count = max(1, int(len(frames) / clip.fps * fps))
        frames = frames[np.minimum((np.arange(count) * clip.fps / fps).astype(int), len(frames) - 1)]
    width, height = (max(32, round(side * scale / 2) * 2) for side in frames.shape[2:0:-1])
    with av.open(str(copy), "w") as container:
        options = {"preset": "ultrafast", "crf": str(crf), "threads": "1"}
        stream = container.add_stream("libx264", rate=Fraction(rate).limit_denominator(1001), options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in frames[:, :, ::-1] if mirror else frames:
            picture = cv2.resize(np.ascontiguousarray(frame), (width, height), interpolation=cv2.INTER_AREA)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return copy


def recall_and_alarms(clips: Sequence[Path], folder: Path, kinds_each: int) -> tuple[list[str], list[str], int]:
    """(copies not found with their original, alarms between different clips, number of copies) for planted copies."""
    rng = random.Random(0)
    origin = {clip: clip for clip in clips}
    names = {clip: clip.name for clip in clips}
    for number, clip in enumerate(clips):
        for kind in rng.sample(list(KINDS), kinds_each):
            copy = plant(clip, folder / f"{number}_{kind}.mp4", **KINDS[kind])
            origin[copy], names[copy] = clip, f"{kind} of {clip.name}"
    files = list(origin)
    signatures = [sign(path, 0.0, 0.0) for path in files]
    assert not [s for s in signatures if isinstance(s, str)]
    pairs = {(files[m.first], files[m.second]) for m in find_matches([s for s in signatures if not isinstance(s, str)])}
    lost = [names[c] for c in files if origin[c] != c and (origin[c], c) not in pairs]
    alarms = [f"{names[a]} ~ {names[b]}" for a, b in pairs if origin[a] != origin[b]]
    return lost, alarms, len(files) - len(clips)


def videos_of(shared: Path, name: str) -> list[Path]:
    folder = shared / "data" / "videos" / name
    if not folder.is_dir():
        pytest.skip(f"no folder {folder}")
    return [folder / row["path"] for row in read_tsv(folder / "labels.tsv")]


@pytest.mark.long
def test_planted_copies_of_real_clips_are_found(shared_folder: Path, tmp_path: Path) -> None:
    clips = [clip for clip in videos_of(shared_folder, "asl_everyday") if clip.parent.name in ("sorry", "please")]
    lost, alarms, num_copies = recall_and_alarms(clips, tmp_path, 2)
    assert num_copies == 20
    assert not lost
    assert not alarms


@pytest.mark.slow
def test_recall_and_false_alarms_on_all_real_clips(shared_folder: Path, tmp_path: Path) -> None:
    sets = [
        videos_of(shared_folder, name) for name in ("asl_everyday", "asl_gestures_ccby", "thai_words", "lsc_alphabet", "sentences")
    ]
    # The README of this set says that it is a copy, at another rate, of a neighbour.
    clips = [clip for clips in sets for clip in clips if clip.name != "example-sentence.mp4"]
    chosen = random.Random(1).sample(clips, 60)
    lost, alarms, num_copies = recall_and_alarms([*chosen, *(c for c in clips if c not in chosen)][:60], tmp_path, 3)
    print(f"{num_copies} copies, not found: {lost}; alarms: {alarms}")
    assert len(lost) <= 0.05 * num_copies
    assert not alarms
    signatures = [s for s in (sign(clip, 0.0, 0.0) for clip in clips) if not isinstance(s, str)]
    assert len(signatures) == len(clips)
    assert not [(clips[m.first].name, clips[m.second].name) for m in find_matches(signatures)]


@pytest.mark.long
def test_no_two_clips_of_the_synthetic_world_are_called_copies(tmp_path: Path) -> None:
    """Three takes of each sign by the same signers at the same place."""
    write_corpus(tmp_path, num_signs=3, num_signers=3, clips_per_sign=3)
    signatures = [s for p in sorted((tmp_path / "videos").glob("*.mp4")) if not isinstance(s := sign(p, 0.0, 0.0), str)]
    assert len(signatures) == 27
    assert not find_matches(signatures)


# --- a dataset --------------------------------------------------------------------------------------------------------


def dataset_of(root: Path, samples: Sequence[Sample], videos: Path) -> DatasetDir:
    dataset = DatasetDir(root)
    for name in SPLITS:
        write_manifest(dataset.manifest_file(name), [s for s in samples if s.split == name])
    write_json(dataset.facts_file, {"videos_root": str(videos), "digest": "d1"})
    return dataset


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("corpus")
    write_corpus(root, num_signs=2, num_signers=3, clips_per_sign=1)
    return root / "videos"


@pytest.fixture
def leaky(corpus: Path, tmp_path: Path) -> DatasetDir:
    """Six clips by three signers, one mirrored copy, one of the same bytes, one broken file, one signer of two splits."""
    first, second, *others = sorted(corpus.glob("*.mp4"))
    videos = tmp_path / "videos"
    videos.mkdir()
    for path in (first, second, *others):
        (videos / path.name).write_bytes(path.read_bytes())
    (videos / "again.mp4").write_bytes(second.read_bytes())
    plant(first, videos / "copy.mp4", mirror=True, crf=32)
    (videos / "broken.mp4").write_bytes(b"no video")
    samples = [Sample(p.stem, p.name, "A", signer=f"s{i}", split="train") for i, p in enumerate((first, second, *others))]
    samples += [
        Sample("again", "again.mp4", "A", split="test"),
        Sample("copy", "copy.mp4", "A", signer="s9", split="test"),
        Sample("broken", "broken.mp4", "A", signer="s2", split="val"),
    ]
    samples = [dataclasses.replace(s, sha256=check_clip(videos / s.video_path).sha256) for s in samples]
    return dataset_of(tmp_path / "dataset", samples, videos)


@pytest.mark.long
def test_leaks_of_each_kind_are_found_and_kept(leaky: DatasetDir) -> None:
    ticks: list[tuple[int, int]] = []
    report = find_leaks(leaky, progress=lambda done, total: ticks.append((done, total)))
    assert [leak.kind for leak in report.across] == ["bytes", "look", "signer"]
    same, look, signer = report.across
    first, second, third = (s.id for s in read_manifest(leaky, "train")[:3])
    assert {s.id for s in same.clips} == {second, "again"}
    assert {s.id for s in look.clips} == {first, "copy"}
    assert look.splits == ("train", "test")
    assert "mirrored" in look.summary()
    assert {s.id for s in signer.clips} == {third, "broken"}
    assert list(report.not_compared) == ["broken"]
    assert report.not_compared["broken"].startswith("not_video")
    assert ticks[-1] == (8, 8), "of the same bytes one is looked at"
    assert len(alike(leaky)) == 1
    written = json.loads((leaky.root / "leaks.json").read_text())
    assert written["dataset"] == "d1"
    assert [row["kind"] for row in written["across_splits"]] == ["bytes", "look", "signer"]
    assert {clip["split"] for clip in written["across_splits"][1]["clips"]} == {"train", "test"}


@pytest.mark.long
def test_signatures_can_come_from_elsewhere(leaky: DatasetDir) -> None:
    """As from a cluster: whatever answers with a signature, or a reason, for each clip in order."""
    seen: list[str] = []

    def sign_all(samples: Sequence[Sample], folder: Path, image_fps: float) -> list[Signature | str]:
        seen.extend(s.id for s in samples)
        return ["crashed: the process died"] * len(samples)

    report = find_leaks(leaky, sign_all=sign_all)
    assert len(seen) == len(set(seen)) == 8
    assert set(report.not_compared) == set(seen)
    assert [leak.kind for leak in report.across] == ["bytes", "signer"], "what the manifests tell needs no picture"


@pytest.mark.long
def test_training_refuses_a_leaky_test_split_in_one_sentence(leaky: DatasetDir) -> None:
    with pytest.raises(DataError, match=r"leaks from train into test: 1 identical clips .*data\.allow_leaks=true"):
        refuse_leaks(leaky, "train", allow=False)
    find_leaks(leaky)
    with pytest.raises(DataError, match=r"1 performances stand in both train and test as copies") as caught:
        refuse_leaks(leaky, "train", allow=False)
    assert "\n" not in str(caught.value)
    assert "signers stand" not in str(caught.value), "a signer of train and val does not spoil the test"
    allowed = refuse_leaks(leaky, "train", allow=True)
    assert allowed == shared_with_training(leaky, "train", "test")
    assert len(allowed) == 2
    assert "1 signers stand in both train and val (s2)" in shared_with_training(leaky, "train", "val")[0]
    assert shared_with_training(leaky, "train", "train") == []


@pytest.mark.parametrize(
    ("test", "word"),
    [
        ({"signer": "anna"}, "signers stand in both train and {}"),
        ({"source": "day 1"}, "recordings stand in both train and {}"),
        ({"sha256": "1" * 64}, "identical clips stand in both train and {}"),
        ({}, ""),
    ],
)
@pytest.mark.parametrize("held_out", ["test", "val"])
def test_each_kind_of_leak_blocks(tmp_path: Path, test: dict[str, str], word: str, held_out: str) -> None:
    """Into test; into val where nothing else is held out."""
    known = {"signer": "anna", "source": "day 1", "sha256": "1" * 64}
    samples = [Sample("a", "a.mp4", "A", split="train", **known), Sample("b", "b.mp4", "A", split=held_out, **test)]
    dataset = dataset_of(tmp_path, samples, tmp_path)
    if not word:
        assert refuse_leaks(dataset, "train", allow=False) == []
        return
    with pytest.raises(DataError, match=word.format(held_out)):
        refuse_leaks(dataset, "train", allow=False)


@pytest.mark.long
def test_a_damaged_record_is_said(leaky: DatasetDir) -> None:
    for text in ("{", "[]", '{"across_splits": [{"kind": "look"}], "within_a_split": []}'):
        (leaky.root / "leaks.json").write_text(text)
        with pytest.raises(DataError, match=r"leaks\.json' is damaged .* run `sign-dist leaks"):
            refuse_leaks(leaky, "train", allow=False)


@pytest.mark.long
def test_a_dataset_without_leaks_says_none(corpus: Path, tmp_path: Path) -> None:
    samples = [
        Sample(p.stem, p.name, "A", signer=p.stem[:8], split=split, sha256=check_clip(p).sha256)
        for p, split in zip(sorted(corpus.glob("*.mp4")), itertools.cycle(("train", "train", "val", "val", "test", "test")))
    ]
    report = find_leaks(dataset_of(tmp_path, samples, corpus))
    assert (report.across, report.within, report.not_compared) == ([], [], {})


@given(st.integers(1, 12), st.data())
def test_components_are_what_pairs_connect(count: int, data: st.DataObject) -> None:
    node = st.integers(0, count - 1)
    pairs = data.draw(st.lists(st.tuples(node, node), max_size=15))
    reach = {i: {i} for i in range(count)}
    for _ in range(count):
        for a, b in pairs:
            reach[a] |= reach[b]
            reach[b] |= reach[a]
    assert components(count, pairs) == [min(reach[i]) for i in range(count)]
