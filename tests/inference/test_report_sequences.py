"""Reports on gloss sequences and on translations: what they count, what their pages hold, and hostile labels."""

import dataclasses
import itertools
import json
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sign_dist.errors import DataError
from sign_dist.inference.corpus_scores import by_signer, examples, length_bins
from sign_dist.inference.evaluated import read_predictions
from sign_dist.inference.report import Evaluated, build_report, summary, write_report
from sign_dist.metrics import tally
from sign_dist.metrics.wer import sentence_errors, wer
from sign_dist.synthetic.landmarks import HEAD_POINTS
from tests.inference.pages import Page, check_page

GLOSSES = ("I", "BOOK", "READ", "EAT", "TOMORROW")
SENTENCES = ("the cat sat on the mat today", "we read a book together at home", "please give me some bread", "I eat")
HOSTILE = '<img src=x onerror="alert(1)">&{{ 7*7 }}'
PATH = "/home/someone/videos/secret_clip.mp4"


def sequences(count=30, seed=0, **more):
    rng = random.Random(seed)
    found = []
    for i in range(count):
        reference = [rng.choice(GLOSSES) for _ in range(rng.randint(1, 7))]
        answer = [w if rng.random() > 0.15 else rng.choice(GLOSSES) for w in reference if rng.random() > 0.1]
        found.append(
            Evaluated(
                f"c{i:03}",
                " ".join(reference),
                " ".join(answer),
                ((" ".join(answer), 0.6),),
                f"s{i % 6}",
                model_s=0.001 * (i + 1),
                **more,
            )
        )
    return found


def sentences(count=24, seed=0):
    rng = random.Random(seed)
    return [
        Evaluated(
            f"c{i:03}",
            reference := SENTENCES[i % 4],
            " ".join(w for w in reference.split() if rng.random() > 0.15),
            signer=f"s{i % 6}",
        )
        for i in range(count)
    ]


labels = st.lists(st.sampled_from(GLOSSES), max_size=5).map(" ".join)
rows_of_clips = st.lists(st.tuples(labels, labels, st.booleans(), st.sampled_from("ab")), min_size=1, max_size=15)


@settings(deadline=None, max_examples=20)
@given(rows_of_clips, st.randoms(use_true_random=False))
def test_errors_of_glosses_add_up_and_do_not_depend_on_the_order(rows, shuffle):
    rows = [*rows, ("I BOOK", "I", False, "a")]
    clips = [Evaluated(str(i), r, h, signer=s, error="torn" if bad else "") for i, (r, h, bad, s) in enumerate(rows)]
    report = build_report(clips, facts={}, task="cslr")
    answers = ["" if bad else h for _, h, bad, _ in rows]
    assert report["wer"] == pytest.approx(100 * wer([r for r, *_ in rows], answers))
    assert report["errors"] == report["substitutions"] + report["deletions"] + report["insertions"]
    assert report["words"] == report["hits"] + report["substitutions"] + report["deletions"]
    assert sum(report["error_shares"].values()) == pytest.approx(report["wer"])
    for name, key in (("substituted", "substitutions"), ("deleted", "deletions"), ("inserted", "insertions"), ("support", "words")):
        assert sum(g[name] for g in report["glosses"]) == report[key]
    assert sum(c["count"] for c in report["confusions"]) == report["substitutions"]
    for table in ("signers", "by_length"):
        for key in ("words", "substitutions", "deletions", "insertions"):
            assert sum(row[key] for row in report[table]) == report[key]
        assert sum(row["clips"] for row in report[table]) == len(clips)
    assert report["intervals"]["wer"]["low"] <= report["wer"] <= report["intervals"]["wer"]["high"]
    other = build_report(shuffle.sample(clips, len(clips)), facts={}, task="cslr")
    for key in ("wer", "scores", "glosses", "signers", "by_length", "examples", "baselines"):
        assert other[key] == report[key]


def test_a_clip_that_failed_is_answered_with_nothing():
    clips = sequences()
    failed = [*clips[:-3], *(dataclasses.replace(c, error="truncated: 3 of 40 frames") for c in clips[-3:])]
    report = build_report(failed, facts={}, task="cslr")
    references, answers = [c.reference for c in clips], [c.hypothesis for c in clips[:-3]] + [""] * 3
    assert report["wer"] == pytest.approx(100 * wer(references, answers))
    assert report["failed"] == 3
    assert not {"c027", "c028", "c029"} & {row["id"] for rows in report["examples"].values() for row in rows}
    assert "3 clips failed" in summary(report)


@pytest.mark.long
def test_answers_are_worth_more_than_those_of_other_clips():
    report = build_report(sequences(), facts={}, task="cslr")
    assert report["baselines"]["elsewhere"]["wer"] > report["wer"] + 20
    report = build_report(sentences(), facts={}, task="slt")
    assert report["baselines"]["elsewhere"]["bleu4"] < report["bleu4"] - 20


def test_intervals_over_signers_treat_each_signer_as_one():
    clips = sequences(60)
    rows = sentence_errors([c.reference for c in clips], [c.hypothesis for c in clips])
    grouped = by_signer(tally.of_word_errors(rows), [c.signer for c in clips])
    assert len(grouped) == 6
    assert grouped.value == pytest.approx(tally.of_word_errors(rows).value)
    report = build_report(clips, facts={}, task="cslr")
    assert report["intervals"]["wer_by_signer"]["num_clusters"] == 6
    few = [dataclasses.replace(c, signer=min(c.signer, "s1")) for c in clips]
    assert "wer_by_signer" not in build_report(few, facts={}, task="cslr")["intervals"]


@given(st.lists(st.integers(0, 40), min_size=1, max_size=60))
def test_every_clip_is_in_one_range_of_lengths(lengths):
    bins = length_bins(lengths)
    assert sorted(place for _, _, places in bins for place in places) == list(range(len(lengths)))
    assert all(low <= lengths[i] <= high for low, high, places in bins for i in places)
    assert len(bins) <= 5
    assert all(before[1] < after[0] for before, after in itertools.pairwise(bins))


@given(st.integers(0, 40), st.integers(1, 6))
def test_no_example_is_shown_twice(count, most):
    found = examples(range(count), ("a", "b", "c"), most)
    shown = [x for group in found.values() for x in group]
    assert len(shown) == len(set(shown)) <= 3 * most
    assert all(len(group) <= most for group in found.values())
    if count:
        assert found["a"][0] == 0
    if count > 1:
        assert found["c"][0] == count - 1


def test_examples_go_from_best_to_worst():
    rows = build_report(sequences(60), facts={}, task="cslr")["examples"]
    assert max(r["wer"] for r in rows["best"]) <= min(r["wer"] for r in rows["median"])
    assert max(r["wer"] for r in rows["median"]) <= min(r["wer"] for r in rows["worst"])
    for row in (row for group in rows.values() for row in group):
        assert sum(op != "=" for op, _, _ in row["steps"]) == row["errors"]


def test_translations_without_a_reference_are_in_no_score():
    clips = sentences()
    more = [*clips, Evaluated("z", " ", "anything", signer="s0")]
    report, alone = build_report(more, facts={}, task="slt"), build_report(clips, facts={}, task="slt")
    assert report["bleu4"] == alone["bleu4"]
    assert (report["clips"], report["scored"]) == (25, 24)
    assert any("1 of 25 clips have no translation" in w for w in report["warnings"])
    with pytest.raises(DataError, match="no clip of this split has a reference for task 'slt'"):
        build_report(more[-1:], facts={}, task="slt")


def test_perfect_and_empty_answers_have_the_ends_of_the_scales():
    right = [dataclasses.replace(c, hypothesis=c.reference) for c in sentences()]
    report = build_report(right, facts={}, task="slt")
    assert report["bleu4"] == pytest.approx(100)
    assert report["exact"] == 1
    nothing = [dataclasses.replace(c, hypothesis="") for c in right]
    report = build_report(nothing, facts={}, task="slt")
    assert report["bleu4"] == report["chrf"] == 0
    assert report["length_ratio"] == 0
    report = build_report([dataclasses.replace(c, hypothesis="") for c in sequences()], facts={}, task="cslr")
    assert report["wer"] == pytest.approx(100)
    assert report["deletions"] == report["words"]


def test_time_per_clip_is_of_the_clips_that_were_answered_alone():
    clips = sequences(20)
    timed = [c if i % 2 else dataclasses.replace(c, model_s=math.nan) for i, c in enumerate(clips)]
    assert build_report(timed, facts={}, task="cslr")["latency"] == {
        "clips": 10, "median_ms": pytest.approx(11), "p95_ms": pytest.approx(20), "max_ms": pytest.approx(20)
    }  # fmt: skip
    none = [dataclasses.replace(c, model_s=math.nan) for c in clips]
    assert build_report(none, facts={}, task="cslr")["latency"] is None


def hostile(clips):
    return [
        dataclasses.replace(
            c, reference=f"{c.reference} {HOSTILE}", hypothesis=f"{HOSTILE} {c.hypothesis}", signer=f"{c.signer}{HOSTILE}"
        )
        for c in clips
    ]


TRAINING = [
    {"epoch": e, "train/loss": 3 / e, "val/loss": 4 / e, "val/wer": 90 / e, "val/bleu4": 9.0 * e, "lr": 1e-3, "stage": e // 3}
    | {"seconds": 2.0, "clips_per_s": 50.0, "padding_share": 0.1, "data_wait_share": 0.01}
    for e in range(1, 7)
]


@pytest.mark.parametrize("task", ["islr", "cslr", "slt"])
def test_the_page_is_self_contained_and_escapes_hostile_labels(tmp_path, task):
    clips = hostile(sentences() if task == "slt" else sequences())
    facts = {"split": {"policy": HOSTILE, "warnings": [f"a {HOSTILE} leaks"]}, "dataset": {"licence": HOSTILE}}
    report = build_report(clips, facts=facts, task=task, training=TRAINING)
    path = write_report(tmp_path, clips, report, name=HOSTILE)
    page = Page(path.read_text(encoding="utf-8"))
    check_page(page)
    assert HOSTILE in page.text
    assert "alert(1)" not in str([attributes for tag, attributes in page.tags if tag == "img"])
    assert "49" not in page.text.split("policy")[-1][:60]
    card = (tmp_path / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "<img" not in card.replace("\\<img", "")
    assert path.stat().st_size < 300_000


@pytest.mark.parametrize("task", ["cslr", "slt"])
def test_the_page_shows_the_training_and_says_what_was_best(tmp_path, task):
    clips = sentences() if task == "slt" else sequences()
    report = build_report(clips, facts={}, task=task, training=TRAINING)
    page = Page(write_report(tmp_path, clips, report).read_text(encoding="utf-8"))
    text = " ".join(page.text.split()).replace("\N{NO-BREAK SPACE}", " ")
    assert "6 epochs in 12 s; val/wer was best at epoch 6 (15)" in text
    assert "3 stages of unfreezing" in text
    for title in ("Loss", "Score, percent or points", "Learning rate", "Clips per second", "Padding and waiting"):
        assert title in text
    assert report["training"]["stages"][1] == {"stage": 1, "from": 3, "to": 5}
    assert json.loads((tmp_path / "report.json").read_text())["training"]["rows"] == TRAINING


def test_no_path_of_a_video_leaves_with_the_page(tmp_path):
    clips = [dataclasses.replace(c, video_path=PATH) for c in sequences()]
    path = write_report(tmp_path, clips, build_report(clips, facts={}, task="cslr"))
    for name in ("report.html", "report.json", "MODEL_CARD.md"):
        assert "/home/someone" not in (tmp_path / name).read_text(encoding="utf-8")
    hidden = [dataclasses.replace(c, video_path="") for c in clips]  # as evaluation has it where privacy hides people
    write_report(tmp_path, hidden, build_report(hidden, facts={}, task="cslr"))
    assert "secret_clip" not in (tmp_path / "predictions.jsonl").read_text(encoding="utf-8")
    assert "no video is known" in path.read_text(encoding="utf-8")


def test_predictions_are_read_as_they_were_written(tmp_path):
    clips = [*sequences(5), Evaluated("odd", "A", "B", (("B", math.nan),))]
    write_report(tmp_path, clips, build_report(clips, facts={}, task="cslr"))
    back = read_predictions(tmp_path / "predictions.jsonl")
    assert back[:5] == [dataclasses.replace(c) for c in clips[:5]]
    assert math.isnan(back[5].scores[0][1])
    (tmp_path / "predictions.jsonl").write_text('{"id": "a"}\n')
    with pytest.raises(DataError, match="line 1 is no answer"):
        read_predictions(tmp_path / "predictions.jsonl")


def test_a_track_of_landmarks_is_drawn(tmp_path):
    import numpy as np

    from sign_dist.inference.thumbnails import draw, thumbnails
    from sign_dist.video.landmarks import NUM_LANDMARKS, POSE_POINTS

    points = np.zeros((6, NUM_LANDMARKS, 4), np.float32)
    for name, (x, y, z) in HEAD_POINTS.items():
        points[:, list(POSE_POINTS).index(name)] = (x, -y, z, 1)
    blank = draw(np.zeros((NUM_LANDMARKS, 4), np.float32))
    assert np.unique(blank.reshape(-1, 3), axis=0).shape[0] == 1
    assert draw(points[0]).std() > blank.std()
    np.save(tmp_path / "clip.npy", points)
    picture, reason = thumbnails(Evaluated("a", "A", "A", video_path=tmp_path / "clip.npy"))
    assert picture.startswith("data:image/jpeg")
    assert reason == ""
    np.save(tmp_path / "clip.npy", points[:, :5])
    assert thumbnails(Evaluated("a", "A", "A", video_path=tmp_path / "clip.npy")) == ("", "ValueError")
    assert thumbnails(Evaluated("a", "A", "A", video_path=tmp_path / "gone.npy")) == ("", "the file is missing")
