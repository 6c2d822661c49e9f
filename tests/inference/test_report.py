"""The report of a split: what it counts, what it refuses to hide, and what its page holds."""

import dataclasses
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sign_dist.errors import DataError
from sign_dist.inference.html_page import percent
from sign_dist.inference.report import Evaluated, build_report, write_report
from sign_dist.inference.report_page import NO_ANSWER, NUM_WORST_CLASSES, confusion_matrices, worst_clips
from sign_dist.training.curves import read_metrics
from tests.inference.pages import Page, check_page

GLOSSES = ("BOOK", "EAT", "MILK", "NO", "PLAY", "YES")
FACTS = {
    "dataset": {"corpus": "toy", "digest": "9f0c2b7d", "split": {"policy": "signer"}, "warnings": ["2 signers leak"]},
    "features": {"kind": "landmarks", "spec_digest": "3f9a1c20"},
}


def clip(id_, reference, hypothesis, score=0.6, **more):
    rest = [g for g in GLOSSES if g != hypothesis]
    scores = ((hypothesis, score), *((g, (1 - score) / 5) for g in rest)) if hypothesis else ()
    return Evaluated(id_, reference, hypothesis, scores, **more)


def split(wrong_every=4, clips=24, **more):
    return [
        clip(
            f"c{i:03}",
            GLOSSES[i % 6],
            GLOSSES[(i + (i % wrong_every == 0)) % 6],
            0.5 + i / 100,
            signer=f"s{i % 5}",
            **more,
        )
        for i in range(clips)
    ]


outcomes = st.lists(
    st.tuples(st.sampled_from(GLOSSES), st.sampled_from([*GLOSSES, ""]), st.sampled_from(["a", "b", ""])),
    min_size=1,
    max_size=25,
)


@settings(deadline=None, max_examples=25)
@given(outcomes, st.randoms(use_true_random=False))
def test_the_report_adds_up_and_does_not_depend_on_the_order(rows, random):
    clips = [clip(str(i), r, h, signer=s, error="" if h else "decode_failed: torn") for i, (r, h, s) in enumerate(rows)]
    report = build_report(clips, facts=FACTS)
    assert report["clips"] == len(rows)
    assert report["correct"] == sum(r == h for r, h, _ in rows)
    assert report["top1"] == pytest.approx(report["correct"] / report["clips"])
    assert report["top1"] <= report["top5"] <= 1
    for table in ("per_class_table", "signers"):
        assert sum(row["correct"] for row in report[table]) == report["correct"]
    assert sum(row["support"] for row in report["per_class_table"]) == sum(r["clips"] for r in report["signers"]) == len(rows)
    assert sum(c["count"] for c in report["confusions"]) == len(rows) - report["correct"]
    assert report["failed"] == len(report["failed_clips"]) == sum(not h for _, h, _ in rows)
    assert report["baselines"]["majority"]["accuracy"] >= report["baselines"]["chance"]["accuracy"]
    for name, interval in report["intervals"].items():
        assert interval["low"] <= report[name.removesuffix("_by_signer")] <= interval["high"]
        assert interval["n"] == len(rows)
    other = build_report(random.sample(clips, len(clips)), facts=FACTS)
    del report["failed_clips"], other["failed_clips"]
    assert other == report


def test_a_failed_clip_counts_as_wrong_and_is_said_so():
    good = split(wrong_every=100)
    failed = [*good[:-4], *(dataclasses.replace(c, error="truncated: 3 of 40 frames") for c in good[-4:])]
    report = build_report(failed, facts={})
    assert report["top1"] == pytest.approx(build_report(good, facts={})["top1"] - 4 / 24)
    assert report["top5"] < 1
    assert {c["id"] for c in report["failed_clips"]} == {"c020", "c021", "c022", "c023"}
    assert any(w.startswith("4 of 24 clips could not be recognised") for w in report["warnings"])
    assert sum(row["failed"] for row in report["signers"]) == 4


def test_leaks_policy_and_digests_are_lifted_from_wherever_they_stand():
    report = build_report(split(), facts=FACTS)
    assert report["warnings"][0] == "2 signers leak"
    assert report["policy"] == "signer"
    assert report["digests"] == {"dataset.digest": "9f0c2b7d", "features.spec_digest": "3f9a1c20"}
    assert report["facts"] == FACTS


def test_the_cautions_name_few_clips_few_signers_and_an_empty_top_5():
    text = " ".join(build_report([clip("a", "BOOK", "BOOK", signer="s1")], facts={})["warnings"])
    assert "1 clips are few" in text
    assert "all clips are of one signer (s1)" in text
    two = [Evaluated("a", "YES", "YES", (("YES", 0.9), ("NO", 0.1)))]
    text = " ".join(build_report(two, facts={})["warnings"])
    assert "top-5 says nothing with 2 classes" in text
    assert "signers are not known" in text


def test_an_interval_over_signers_needs_enough_of_them():
    assert build_report(split(), facts={})["intervals"]["top1_by_signer"]["num_clusters"] == 5
    few = [dataclasses.replace(c, signer=min(c.signer, "s1")) for c in split()]
    assert "top1_by_signer" not in build_report(few, facts={})["intervals"]


def test_no_clip_and_a_clip_twice_are_refused():
    with pytest.raises(DataError, match="no clip to report on"):
        build_report([], facts={})
    with pytest.raises(DataError, match="twice among the answers: c000"):
        build_report([*split(), split()[0]], facts={})


def test_the_most_confident_mistake_comes_first_and_failures_are_none():
    clips = [
        clip("sure", "BOOK", "EAT", 0.9),
        clip("right", "BOOK", "BOOK", 0.99),
        clip("unsure", "NO", "YES", 0.3),
        clip("failed", "NO", "YES", 0.95, error="truncated"),
        Evaluated("unscored", "NO", "YES"),
    ]
    assert [c.id for c in worst_clips(clips)] == ["sure", "unsure", "unscored"]


@pytest.mark.parametrize("num_classes", [1, 2, 14, 40, 41, 200])
def test_every_clip_lies_in_the_matrix_and_every_cell_inside_the_picture(num_classes):
    clips = [
        Evaluated(str(i), f"G{i % num_classes:03}", "" if i % 7 == 3 else f"G{(i * i) % num_classes:03}")
        for i in range(3 * num_classes)
    ]
    whole, *part = confusion_matrices(clips)
    assert sum(cell.count for cell in whole.cells) == len(clips)
    assert len(whole.rows) == num_classes
    assert whole.labelled == (num_classes < 40)
    assert [m.labelled for m in part] == ([] if whole.labelled else [True])
    for matrix in (whole, *part):
        assert all(cell.x + matrix.side <= matrix.width and cell.y + matrix.side <= matrix.height for cell in matrix.cells)
        assert all(0 < cell.share <= 1 for cell in matrix.cells)
        assert (NO_ANSWER in matrix.columns) == any(c.hypothesis == "" for c in clips if c.reference in matrix.rows)
    assert all(len(m.rows) <= NUM_WORST_CLASSES for m in part)


def test_the_files_hold_every_answer_and_plain_json(tmp_path):
    clips = [*split(), Evaluated("odd", "BOOK", "EAT", (("EAT", math.nan), ("BOOK", -math.inf)), video_path=tmp_path)]
    page = write_report(tmp_path / "eval" / "test", clips, build_report(clips, facts=FACTS))
    assert page == tmp_path / "eval" / "test" / "report.html"

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    report = json.loads((page.parent / "report.json").read_text(encoding="utf-8"), parse_constant=refuse)
    lines = (page.parent / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line, parse_constant=refuse) for line in lines]
    assert [row["id"] for row in rows] == [c.id for c in clips]
    assert sum(row["reference"] == row["hypothesis"] for row in rows) == report["correct"]
    assert rows[-1]["scores"] == [["EAT", None], ["BOOK", None]]


@pytest.fixture
def page(tmp_path):
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text('{"epoch": 1, "train/loss": 2, "val/top1": 0.2}\n{"epoch": 2, "train/loss": 1, "val/top1": 0.4}\n')
    clips = [*split(video_path=tmp_path / "gone.mp4"), clip("c<b>&", "NO", "", error="decode_failed: <script>alert(1)</script>")]
    report = build_report(clips, facts=FACTS | {"made": "today", "empty": {}}, training=read_metrics(metrics))
    path = write_report(tmp_path, clips, report, name="Toy & co")
    return Page(path.read_text(encoding="utf-8"))


def test_the_page_is_well_formed_self_contained_and_escaped(page):
    check_page(page)
    assert "decode_failed: <script>alert(1)</script>" in page.text


def test_the_page_says_the_numbers_in_words(page):
    text = " ".join(page.text.split())
    assert "18 of 25 clips recognised, 72 %" in text
    assert "2 signers leak." in text
    assert "1 of 25 clips gave no answer. They count as wrong in every number on this page." in text
    assert "no picture: the file is missing" in text
    assert "9f0c2b7d" in text
    assert "2 epochs; val/top1 was best at epoch 2 (0.4)" in text
    assert "val/top1 is best at epoch 2: 0.4" in text


def test_real_frames_become_one_picture(tmp_path):
    av = pytest.importorskip("av")
    import numpy as np

    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 96, "yuv420p"
        for i in range(30):
            picture = np.full((96, 64, 3), i * 8, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    clips = [clip("a", "BOOK", "EAT", video_path=path)]
    text = write_report(tmp_path, clips, build_report(clips, facts={})).read_text(encoding="utf-8")
    assert text.count("data:image/jpeg") == 1


def test_a_run_without_curves_still_has_a_report(tmp_path):
    text = write_report(tmp_path, split(), build_report(split(), facts={}))
    assert 'id="curves"' not in text.read_text(encoding="utf-8")


def test_percent_shows_no_digit_that_is_not_there():
    assert [percent(x).replace("\N{NO-BREAK SPACE}", "") for x in (0, 0.5, 0.714, 1.0, None, math.nan)] == [
        "0%",
        "50%",
        "71.4%",
        "100%",
        "n/a",
        "n/a",
    ]
