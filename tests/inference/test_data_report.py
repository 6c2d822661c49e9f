"""The page about a dataset: its numbers are those of the manifests, it asks nobody for anything, and nothing is hidden."""

import base64
import collections
import hashlib
import itertools
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from sign_dist.cli import app
from sign_dist.config.data import FrameFeatures, LandmarkFeatures
from sign_dist.data.corpora import CORPORA
from sign_dist.data.layout import SPLITS, DatasetDir, write_json
from sign_dist.data.manifest import write_manifest, write_rejected
from sign_dist.data.prepare import digest_of, prepare
from sign_dist.data.sample import Rejected, Sample
from sign_dist.errors import DataError, VideoError, WeightsError
from sign_dist.features.spec import FeatureSpec
from sign_dist.features.store import FeatureStore, block_name, pack
from sign_dist.inference import contact_sheet, data_counts, data_features
from sign_dist.inference.charts import histogram, long_tail
from sign_dist.inference.data_features import feature_facts
from sign_dist.inference.data_report import cautions, data_facts, half_of, write_data_report
from sign_dist.video.check import REASONS
from sign_dist.video.landmarks import LEFT_HAND, NUM_LANDMARKS, POSE, RIGHT_HAND

EVIL = "<script>alert('x')</script>"


def made(root, clips, rejected=(), **facts):
    """A dataset directory as `prepare` leaves it."""
    dataset = DatasetDir(root)
    for split in SPLITS:
        write_manifest(dataset.manifest_file(split), [s for s in clips if s.split == split])
    write_rejected(dataset.rejected_file, rejected)
    usual = {"reader": "table", "corpus": "toy", "videos_root": "videos", "warnings": [], "digest": digest_of(clips)}
    write_json(dataset.facts_file, usual | {"split": {"policy": "gloss"}, "sampling": {}} | facts)
    return dataset


def clip(i, gloss="HELLO", split="train", **more):
    digest = hashlib.sha256(str(i).encode()).hexdigest()
    usual = {"video_path": f"{i}.mp4", "signer": f"s{i % 3}", "n_frames": 25 + i, "fps": 25.0, "sha256": digest}
    return Sample(id=f"c{i}", gloss=gloss, split=split, **usual | more)


def page_of(dataset, **options):
    written = write_data_report(dataset, **options)
    text = written.page.read_text(encoding="utf-8")
    return text, json.loads((written.page.parent / "report.json").read_text(encoding="utf-8"))


def shown(text):
    """What a reader sees: the text without tags, blanks made single."""
    body = re.sub(r"<(style|title)[^>]*>.*?</\1>", " ", text, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", body).replace("\N{NO-BREAK SPACE}", " ").split())


labelled = st.lists(
    st.tuples(
        st.lists(st.sampled_from("ABCDE"), min_size=0, max_size=4),
        st.sampled_from(SPLITS),
        st.sampled_from(["", "ann", "ben"]),
        st.sampled_from(["", "r1", "r2"]),
    ),
    max_size=30,
)


@given(labelled, st.sampled_from(["gloss", "sequence"]))
def test_every_count_adds_up_to_the_manifests(rows, labels):
    clips = [clip(i, " ".join(g), split, signer=who, source=where) for i, (g, split, who, where) in enumerate(rows)]
    splits = data_counts.by_split(clips, labels)
    glosses, signers = data_counts.by_gloss(clips, labels), data_counts.by_signer(clips, labels)
    totals = data_counts.totals(clips, [], labels)
    said = sum(len(g) if labels == "sequence" else bool(g) for g, *_ in rows)
    assert sum(row["clips"] for row in splits) == sum(row["clips"] for row in signers) == totals["clips"] == len(rows)
    assert sum(row["count"] for row in glosses) == sum(row["running_glosses"] for row in splits) == said
    assert len(glosses) == totals["glosses"]
    for row in [*glosses, *signers]:
        assert sum(row[split] for split in SPLITS) == row.get("count", row["clips"])
    assert all(row["clips"] <= row["count"] for row in glosses)
    assert [row["count"] for row in glosses] == sorted((row["count"] for row in glosses), reverse=True)
    trained = {row["gloss"] for row in glosses if row["train"]}
    for row in splits:
        assert not trained & set(row["unseen_glosses"])
        assert (row["unseen_share"] > 0) == bool(row["unseen_glosses"])
    assert splits[0]["unseen_glosses"] == []
    assert totals["seconds"] == pytest.approx(sum(s.n_frames / 25 for s in clips), abs=0.01)
    if glosses:
        half = half_of(glosses)
        top = sum(row["count"] for row in glosses[:half])
        assert top >= said / 2 > top - glosses[half - 1]["count"]


@given(st.lists(st.floats(0, 1e4), max_size=60), st.booleans())
def test_every_value_is_in_one_bin_and_between_its_edges(values, whole):
    values = [float(round(v)) for v in values] if whole else values
    h = histogram(values, whole=whole)
    assert sum(h["counts"]) == h["num"] == len(values)
    if not values:
        return
    assert len(h["edges"]) == len(h["counts"]) + 1 <= 28
    assert h["min"] <= h["median"] <= h["p90"] + 1e-9 <= h["max"] + 1e-6
    for i, count in enumerate(h["counts"]):
        low, high = h["edges"][i], h["edges"][i + 1]
        last = h["open_end"] and i == len(h["counts"]) - 1
        inside = sum(low - 1e-5 <= v and (last or v <= high + 1e-5) for v in values)
        assert count <= inside
    if whole:
        assert all(float(edge).is_integer() for edge in h["edges"])


def test_one_far_value_does_not_squeeze_the_others():
    h = histogram([1 + i / 100 for i in range(200)] + [1000.0])
    assert h["open_end"]
    assert h["counts"][-1] == 1
    assert sum(count > 0 for count in h["counts"]) > 5


@pytest.mark.parametrize("counts", [[1], [5] * 41, list(range(500, 0, -1)), [1] * 3000, [9000, 500, *[2] * 900]])
def test_the_long_tail_stays_inside_its_picture(counts):
    rows = [{"count": n, "train": n - n // 3, "val": n // 3, "test": 0} for n in counts]
    tail = long_tail(rows, SPLITS)
    for area in tail.areas:
        heights = [float(y) for y in re.findall(r"V([\d.-]+)", area.path)]
        assert min(heights) >= tail.top - 0.1
        assert max(heights) <= tail.top + tail.height + 0.1
        assert len(area.path) < 8000
    assert all(tail.top - 0.1 <= y <= tail.top + tail.height + 0.1 for y, _ in tail.ticks)
    assert tail.by_exponent == (counts[0] == 9000)


@pytest.mark.long
def test_the_page_says_what_the_manifests_say(tmp_path, paint):
    for i in range(6):
        paint(tmp_path / "videos" / f"{i}.mp4", num_frames=10 + i, width=64 if i else 96, height=48)
    rows = ["id\tpath\tgloss\tsigner\tsplit"]
    rows += [f"c{i}\t{i}.mp4\t{'yes' if i % 2 else 'no'}\ts{i % 3}\t{SPLITS[i // 2]}" for i in range(6)]
    (tmp_path / "videos" / "bad.mp4").write_bytes(b"")
    rows += ["bad\tbad.mp4\tyes\ts1\ttrain", "gone\tnone.mp4\tyes\ts1\ttrain"]
    (tmp_path / "videos" / "labels.tsv").write_text("\n".join(rows) + "\n")
    prepared = prepare("table", tmp_path / "videos", tmp_path / "data")
    text, report = page_of(prepared.dataset)
    facts = prepared.dataset.facts()
    assert {row["split"]: row["clips"] for row in report["splits"]} == facts["counts"]
    assert {row["reason"]: row["count"] for row in report["rejected"]} == facts["rejected"] == {"empty": 1, "missing": 1}
    assert report["totals"]["seconds"] == pytest.approx(facts["seconds"], abs=0.06)
    assert report["totals"]["signers"] == facts["num_signers"]
    assert report["digests"] == {"dataset": facts["digest"], "manifests": facts["digest"]}
    assert report["files"]["sizes"] == [{"value": "64x48", "count": 5}, {"value": "96x48", "count": 1}]
    assert report["files"]["codecs"] == [{"value": "h264", "count": 6}]
    assert report["warnings"][: len(facts["warnings"])] == facts["warnings"]
    assert report["warnings"]
    seen = shown(text)
    for reason in ("empty", "missing"):
        assert all(part in seen for part in REASONS[reason])
    assert all(shown(sentence)[1:] in seen.replace("&#39;", "'") for sentence in report["warnings"])
    assert text.count("data:image/jpeg") == 2 == len(report["contact_sheet"]["clips"])  # one per gloss
    again, report_again = page_of(prepared.dataset)
    assert (again, report_again) == (text, report)


def test_the_page_needs_nobody_and_escapes_everything(tmp_path):
    clips = [clip(i, f"{EVIL} {i}", SPLITS[i % 3], signer=f'"{EVIL}', source=EVIL, translation=EVIL) for i in range(50)]
    clips += [clip(60, EVIL, signer=EVIL, video_path=f"{EVIL}.mp4"), clip(61, EVIL, "test", sha256=clips[0].sha256)]
    rejected = [Rejected(EVIL, EVIL, EVIL, EVIL), Rejected("a", "a", "missing", EVIL)]
    dataset = made(tmp_path, clips, rejected, corpus=EVIL, title=EVIL, licence=EVIL, notes=EVIL, warnings=[EVIL])
    store = FeatureStore.create(dataset, FeatureSpec(features=FrameFeatures()))
    row = {"key": clips[0].key, "id": EVIL, "fps": 0.0, "error": f"{EVIL}: {EVIL}"}
    store.commit(block_name([clips[0].key]), [row | pack(np.zeros(0, np.float16))])
    text, _ = page_of(dataset)
    assert "<script" not in text.lower()
    assert "&lt;script&gt;" in text
    assert "alert('x')" not in text  # quotes too, so that nothing leaves an attribute
    for name, target in re.findall(r"""(src|href|action|srcset|poster)=["']([^"']*)""", text):
        assert target.startswith(("data:", "#")), (name, target[:60])
    assert not re.search(r"https?:|//[a-z]|url\(|@import", re.sub(r"data:[^\"]*", "", text))
    assert set(re.findall(r'href="#([\w-]+)"', text)) <= set(re.findall(r'id="([\w-]+)"', text))
    assert len(re.findall(r'id="', text)) == len(set(re.findall(r'id="([^"]*)"', text)))


def test_the_page_can_be_read_without_eyes(tmp_path, paint):
    paint(tmp_path / "videos" / "0.mp4", num_frames=12)
    text, _ = page_of(made(tmp_path / "data", [clip(0), clip(1, "NO", "val")], videos_root="../videos"))
    assert re.findall(r"<img[^>]*alt=\"[^\"]+\"", text)
    assert not re.findall(r"<img(?![^>]*alt=)[^>]*>", text)
    assert all("aria-label" in tag for tag in re.findall(r"<[^>]*role=\"(?:img|region)\"[^>]*>", text))
    assert all("scope=" in tag for tag in re.findall(r"<th\b[^>]*>", text))
    levels = [int(level) for level in re.findall(r"<h(\d)", text)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    for tag in ("section", "table", "div", "svg", "details", "figure", "ul", "dl"):
        assert len(re.findall(rf"<{tag}\b", text)) == text.count(f"</{tag}>")


def test_missing_files_are_said(tmp_path, paint):
    paint(tmp_path / "videos" / "0.mp4", num_frames=12)
    dataset = made(tmp_path, [clip(0), clip(1), clip(2, "NO")])
    text, report = page_of(dataset)
    assert report["files"]["missing"] == {"files": 2, "clips": 2, "examples": ["1.mp4", "2.mp4"]}
    assert any("2 of 3 video files are not there any more" in sentence for sentence in report["warnings"])
    assert "2 of 3 files are missing" in shown(text)
    assert report["contact_sheet"]["without_picture"] == {"c2": "the file is missing"}
    (tmp_path / "videos" / "0.mp4").write_bytes(b"no video any more")
    _, report = page_of(dataset)
    assert report["files"]["unreadable"] == {"not_video": 1}
    assert any("files changed since they were checked" in sentence for sentence in report["warnings"])


def test_a_dataset_of_rejected_clips_only_says_why(tmp_path):
    text, report = page_of(made(tmp_path, [], [Rejected("a", "a.mp4", "truncated", "after 3 frames")]))
    assert report["totals"] == dict.fromkeys(report["totals"], 0) | {"rejected": 1}
    assert "no clip is left" in " ".join(report["warnings"])
    assert REASONS["truncated"][1] in shown(text)
    assert "after 3 frames" in shown(text)


@pytest.mark.long
def test_two_thousand_glosses_stay_below_two_megabytes(tmp_path):
    clips = [
        clip(10_000 * k + i, f"GLOSS {i}", SPLITS[(i + k) % 3], signer=f"signer {i % 250}")
        for i in range(2000)
        for k in range(1 + i % 3)
    ]
    text, report = page_of(made(tmp_path, clips, [Rejected(str(i), "x", "missing", "y" * 200) for i in range(5000)]))
    assert len(text.encode()) < 2_000_000
    assert all(f">GLOSS {i}<" in text for i in range(2000))
    assert len(report["signers"]) == 250


def test_a_corpus_of_sentences_shows_lengths_and_what_is_never_trained(tmp_path):
    said = [("MORGEN REGEN", "train"), ("REGEN REGEN WIND", "train"), ("SCHNEE WIND", "val")]
    clips = [clip(i, gloss, split, translation=f"es wird {i}") for i, (gloss, split) in enumerate(said)]
    dataset = made(tmp_path, clips, reader="phoenix2014T", corpus="phoenix2014T")
    text, report = page_of(dataset)
    assert report["corpus"]["labels"] == "sequence"
    assert report["corpus"]["licence"] == CORPORA["phoenix2014T"].licence
    assert CORPORA["phoenix2014T"].licence in text
    assert {row["gloss"]: row["count"] for row in report["glosses"]} == {"REGEN": 3, "WIND": 2, "MORGEN": 1, "SCHNEE": 1}
    lengths = report["sentences"]["glosses"]["lengths"]
    assert dict(zip(lengths["edges"], lengths["counts"], strict=False)) == {2.0: 2, 3.0: 1}
    assert report["sentences"]["glosses"]["said_once"] == 2
    assert report["sentences"]["translations"]["running"] == 9
    val = report["splits"][1]
    assert (val["unseen_glosses"], val["unseen_share"]) == (["SCHNEE"], 0.5)


def test_isolated_glosses_with_blanks_are_no_sentences(tmp_path):
    _, report = page_of(made(tmp_path, [clip(0, "THANK YOU"), clip(1, "GOOD MORNING")], task="islr"))
    assert report["sentences"] == {}
    assert report["totals"]["glosses"] == 2


def test_translations_written_without_blanks_are_counted_in_characters():
    found = data_counts.sentences([clip(0, "", translation="你 好吗")], "gloss", "zho")["translations"]
    assert (found["unit"], found["running"]) == ("characters", 3)


@pytest.mark.long
def test_leaks_of_the_manifests_are_shown_without_and_with_a_comparison_of_pictures(tmp_path):
    clips = [clip(0, signer="ann"), clip(1, split="test", signer="ann"), clip(2, split="test", signer="bo")]
    dataset = made(tmp_path, clips)
    text, report = page_of(dataset)
    assert report["leaks"]["state"] == "none"
    assert [(row["kind"], row["name"], row["splits"]) for row in report["leaks"]["across"]] == [
        ("signer", "ann", ["train", "test"])
    ]
    assert "sign-dist leaks DATASET" in shown(text)
    assert any(sentence.startswith("1 signers stand in more than one split (ann)") for sentence in report["warnings"])
    pair = [{"id": s.id, "split": s.split, "key": s.key} for s in (clips[0], clips[2])]
    row = {"kind": "look", "name": "c0", "splits": ["train", "test"], "clips": pair, "evidence": ["c0 ~ c2: mirrored"]}
    content = {"dataset": digest_of(clips), "across_splits": [row], "within_a_split": [], "not_compared": {"c1": "gone"}}
    write_json(tmp_path / "leaks.json", content)
    text, report = page_of(dataset)
    assert (report["leaks"]["state"], report["leaks"]["not_compared"]) == ("fresh", 1)
    assert {"kind": "look", "splits": "train and test", "count": 1} in report["leaks"]["kinds"]
    assert "c0 ~ c2: mirrored" in shown(text)
    write_json(tmp_path / "leaks.json", content | {"dataset": "other"})
    assert page_of(dataset)[1]["leaks"]["state"] == "stale"
    for broken in ("{", "[]", '{"across_splits": [{"kind": "look"}], "within_a_split": []}'):
        (tmp_path / "leaks.json").write_text(broken)
        assert page_of(dataset)[1]["leaks"]["state"] == "damaged"


def landmarks(hands, frames=4):
    """Points of a clip in which the right hand was found in `hands` of its frames."""
    points = np.zeros((frames, NUM_LANDMARKS, 4), np.float32)
    points[:, POSE, 3] = 1
    points[:hands, RIGHT_HAND, 3] = 0.9
    points[:, LEFT_HAND, 3] = 0.4  # filled in: does not count
    return points.astype(np.float16)


def test_detection_rates_are_means_over_clips_and_failures_are_counted(tmp_path):
    clips = [clip(0, signer="ann"), clip(1, signer="ann"), clip(2, split="val", signer="bo"), clip(3, split="val", signer="bo")]
    dataset = made(tmp_path, clips)
    store = FeatureStore.create(dataset, FeatureSpec(features=LandmarkFeatures()))
    rows = [
        {"key": s.key, "id": s.id, "fps": 15.0, "error": ""} | pack(landmarks(n)) for s, n in zip(clips, (4, 1, 0), strict=False)
    ]
    rows[2] |= {"error": "no_signer: nobody"}
    store.commit(block_name([row["key"] for row in rows]), rows)
    text, report = page_of(dataset)
    (facts,) = report["features"]
    assert (facts["done"], facts["failed"], facts["to_do"]) == (2, 1, 1)
    assert facts["errors"] == [{"code": "no_signer", "count": 1, "examples": [{"id": "c2", "detail": "nobody"}]}]
    (train,) = facts["detection"]["by_split"]
    assert train == {"name": "train", "clips": 2, "pose": 1.0, "left_hand": 0.0, "right_hand": 0.625, "hands": 0.625}
    assert [row["name"] for row in facts["detection"]["by_signer"]] == ["ann"]
    assert [row["id"] for row in facts["detection"]["worst"]] == ["c1"]
    assert "62.5 %" in shown(text)
    assert "1 of 4 clips failed to give features" in " ".join(report["warnings"])
    (sampled,) = feature_facts(dataset, clips, most=1)
    assert sampled["detection"]["clips"] == 1 < sampled["detection"]["of"]
    for shard in (tmp_path / "features").glob("*/shards/*"):
        shard.unlink()
    text, report = page_of(dataset)
    assert "store verify" in report["features"][0]["damage"]
    assert "Damaged" in shown(text)


def test_points_of_another_arrangement_have_no_rates():
    assert data_features._rates(np.zeros((3, 256), np.float16), False) == {}


def test_manifests_that_were_changed_by_hand_are_noticed(tmp_path):
    _, report = page_of(made(tmp_path, [clip(0)], digest="0123456789abcdef"))
    assert any("manifests were changed" in sentence for sentence in report["warnings"])


@pytest.mark.long
def test_keypoints_shows_nobody_and_blur_shows_no_face(tmp_path, paint, monkeypatch):
    for i in range(2):
        paint(tmp_path / "videos" / f"{i}.mp4", num_frames=12, width=96, height=96)
    dataset = made(tmp_path, [clip(0), clip(1, "NO")])
    assert page_of(dataset)[0].count("data:image/jpeg") == 2
    write_json(tmp_path / "privacy.json", {"privacy": "keypoints"})
    text, report = page_of(dataset)
    assert "data:image" not in text
    assert report["contact_sheet"] == {"privacy": "keypoints", "clips": [], "without_picture": {}}
    write_json(tmp_path / "privacy.json", {"privacy": "blur"})
    boxes = iter([[(20.0, 20.0, 40.0, 40.0)], []])  # found in the first clip, not in the second
    monkeypatch.setattr(contact_sheet, "face_finder", lambda: lambda frames: [next(boxes)] * len(frames))
    hidden: list[tuple[int, ...]] = []
    blurred = contact_sheet.blur_faces
    monkeypatch.setattr(contact_sheet, "blur_faces", lambda frames, *rest: (hidden.append(frames.shape), blurred(frames, *rest))[1])
    text, report = page_of(dataset)
    assert text.count("data:image/jpeg") == 1
    assert len(hidden) == 2
    assert report["contact_sheet"]["without_picture"] == {"c1": "no signer"}
    monkeypatch.setattr(contact_sheet, "face_finder", lambda: (_ for _ in ()).throw(WeightsError("no model file")))
    assert "data:image" not in page_of(dataset)[0]
    (tmp_path / "privacy.json").write_text("{}")
    with pytest.raises(DataError, match="damaged"):
        write_data_report(dataset)


@pytest.mark.long
def test_no_face_is_found_in_the_blurred_picture_of_a_real_signer(tmp_path, shared_folder):
    from sign_dist.features.encode import models_dir
    from sign_dist.video.detectors import FaceDetector
    from sign_dist.video.model_files import find_files

    try:
        folder = models_dir() or shared_folder / "models" / "mediapipe"
        finder = FaceDetector(find_files(("face_box",), folder, download=False)["face_box"])
    except WeightsError as error:
        pytest.skip(str(error))
    videos = shared_folder / "data" / "videos" / "asl_everyday"
    if not videos.is_dir():
        pytest.skip(f"no folder {videos}")
    clips = [clip(0, "BOOK", video_path=min(videos.glob("book/*.mp4")).relative_to(videos).as_posix())]
    faces = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contact_sheet, "face_finder", lambda: finder)
        for level in ("none", "blur"):
            (picture,) = contact_sheet.pictures(videos, clips, level, image_fps=25, max_seconds=30)
            jpeg = np.frombuffer(base64.b64decode(picture.uri.partition(",")[2]), np.uint8)
            faces[level] = finder(cv2.cvtColor(cv2.imdecode(jpeg, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)[None])[0]
    assert faces["none"]
    assert not faces["blur"]


def test_a_decoder_that_dies_costs_one_picture(tmp_path, paint, monkeypatch):
    for i in range(2):
        paint(tmp_path / "videos" / f"{i}.mp4", num_frames=12)
    real = contact_sheet.read_guarded

    def dies(path, **options):
        if Path(path).name == "0.mp4":
            raise VideoError("crashed", "the process died")
        return real(path, **options)

    monkeypatch.setattr(contact_sheet, "read_guarded", dies)
    _, report = page_of(made(tmp_path, [clip(0), clip(1, "NO")]))
    assert report["contact_sheet"] | {"privacy": ""} == {"privacy": "", "clips": ["c1"], "without_picture": {"c0": "crashed"}}


@given(labelled, st.integers(0, 8), st.booleans(), st.randoms(use_true_random=False))
def test_the_sheet_shows_different_things_whatever_the_order(rows, most, by_gloss, random):
    clips = [clip(i, " ".join(g), split, signer=who) for i, (g, split, who, _) in enumerate(rows)]
    chosen = contact_sheet.choose(clips, most, by_gloss=by_gloss)
    groups = {(s.gloss if by_gloss else s.signer) for s in clips}
    assert len(chosen) == len({s.id for s in chosen}) <= most
    counts = collections.Counter(s.gloss if by_gloss else s.signer for s in chosen)
    assert len(counts) == min(most, len(groups))
    assert not by_gloss or all(count == 1 for count in counts.values())
    assert contact_sheet.choose(random.sample(clips, len(clips)), most, by_gloss=by_gloss) == chosen


def test_a_dataset_of_an_older_version_and_one_that_is_none(tmp_path):
    dataset = made(tmp_path / "old", [clip(0)])
    write_json(dataset.facts_file, {"videos_root": "videos"})
    assert page_of(dataset)[1]["totals"]["clips"] == 1
    with pytest.raises(DataError, match="does not exist"):
        write_data_report(DatasetDir(tmp_path / "none"))
    path = dataset.manifest_file("train")
    path.write_text(path.read_text().replace("25", "many"))
    with pytest.raises(DataError, match="no sample"):
        write_data_report(dataset)


def test_nothing_is_said_against_a_sound_dataset(tmp_path, paint):
    for i in range(9):
        paint(tmp_path / "videos" / f"{i}.mp4", num_frames=12)
    clips = [clip(i, "YES", SPLITS[i % 3]) for i in range(9)]
    report, _ = data_facts(made(tmp_path, clips, licence="CC0"))
    assert report["warnings"] == cautions(report) == []


def test_the_command_writes_where_it_is_told(tmp_path, paint):
    paint(tmp_path / "videos" / "0.mp4", num_frames=12)
    made(tmp_path, [clip(0)])
    done = CliRunner().invoke(app, ["data", "report", str(tmp_path), "--out", str(tmp_path / "page"), "--pictures", "0"])
    assert done.exit_code == 0, done.output
    assert "data:image/jpeg" not in (tmp_path / "page" / "report.html").read_text()
    assert (tmp_path / "page" / "report.json").exists()
    assert not (tmp_path / "report.html").exists()
