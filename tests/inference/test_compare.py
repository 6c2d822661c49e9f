"""Runs side by side: the tests find what is there and nothing else, and runs on other clips are refused."""

import dataclasses
import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from sign_dist.cli import app
from sign_dist.errors import DataError, RunError, SettingsError
from sign_dist.inference.compare import compare, holm, write_comparison
from sign_dist.inference.report import Evaluated, build_report, write_report
from sign_dist.inference.sides import Side, read_side
from sign_dist.metrics.wer import wer
from tests.inference.pages import Page, check_page

GLOSSES = ("I", "BOOK", "READ", "EAT", "TOMORROW")
FACTS = {
    "size": {"parameters": 1_200_000, "weights_bytes": 4_800_000},
    "model": {"kind": "ctc_student"},
    "timing": {"device": "cpu", "threads": 1},
    "split": {"evaluated": "test", "warnings": ["The checkpoint was chosen on these very clips: the scores are too good."]},
}


def answered(errors, *, seed=0, count=80, task="cslr"):
    """Clips that a run of a given share of wrong words answered."""
    asked, rng = random.Random(7), random.Random(seed)
    found = []
    for i in range(count):
        words = [asked.choice(GLOSSES) for _ in range(1 if task == "islr" else asked.randint(3, 7))]
        answer = [w if rng.random() > errors else rng.choice(GLOSSES) for w in words]
        found.append(Evaluated(f"c{i:03}", " ".join(words), " ".join(answer), signer=f"s{i % 6}", model_s=0.01))
    return found


def side(name, *runs, task="cslr"):
    report = {"task": task, "failed": 0, "warnings": [], "facts": FACTS, "training": {"epochs": 3, "seconds": 5.0}}
    return Side(name, (report,) * len(runs), tuple(tuple(clips) for clips in runs))


@pytest.mark.parametrize("task", ["islr", "cslr", pytest.param("slt", marks=pytest.mark.long)])
def test_the_better_run_is_found_whichever_comes_first(task):
    good, bad = (side(n, answered(e, seed=s, task=task), task=task) for n, e, s in (("good", 0.05, 1), ("bad", 0.5, 2)))
    for sides in ((good, bad), (bad, good)):
        found = compare(sides)
        (pair,) = found["pairs"]
        assert pair["verdict"] == "good is better than bad"
        main = pair["scores"][0]
        first, second = (row["scores"][0]["value"] for row in found["sides"])
        assert main["difference"] == pytest.approx(second - first)
        assert main["low"] <= main["difference"] <= main["high"]
        assert main["p"] < 0.01
        assert main["by_signer"]["signers"] == 6
        assert ("p_mcnemar" in main) == (task == "islr")
        best = max if sides[0].name == "bad" else min
        assert best(pair["examples"]["num_gained"], pair["examples"]["num_lost"]) == pair["examples"]["num_gained"]


@pytest.mark.parametrize("task", ["islr", "cslr", pytest.param("slt", marks=pytest.mark.long)])
def test_a_run_does_not_differ_from_itself(task):
    clips = answered(0.2, task=task)
    (pair,) = compare([side("a", clips, task=task), side("b", clips, task=task)])["pairs"]
    assert pair["scores"][0]["difference"] == 0
    assert pair["scores"][0]["p"] == 1
    assert "no difference" in pair["verdict"]
    assert pair["examples"]["num_gained"] == pair["examples"]["num_lost"] == 0


@pytest.mark.long
def test_equally_good_runs_are_told_apart_about_as_rarely_as_p_says():
    found = [
        compare([side("a", answered(0.2, seed=2 * s)), side("b", answered(0.2, seed=2 * s + 1))])["pairs"][0]["scores"][0]
        for s in range(20)
    ]
    assert sum(t["differs"] for t in found) <= 4
    assert sum(t["low"] <= 0 <= t["high"] for t in found) >= 16


def test_seeds_of_a_recipe_count_together():
    runs = [answered(e, seed=s) for s, e in ((1, 0.1), (2, 0.3), (3, 0.2))]
    found = compare([side("three", *runs), side("other", answered(0.5, seed=9))])
    row = found["sides"][0]
    scores = row["scores"][0]
    assert row["runs"] == 3
    alone = [100 * wer([c.reference for c in clips], [c.hypothesis for c in clips]) for clips in runs]
    assert scores["runs"] == pytest.approx(alone)
    assert scores["value"] == pytest.approx(sum(alone) / 3)  # all runs answered to as many words
    assert scores["spread"] > 0
    # One run three times is worth as much as once.
    thrice = compare([side("a", runs[0], runs[0], runs[0]), side("b", runs[1])])
    once = compare([side("a", runs[0]), side("b", runs[1])])
    assert thrice["pairs"][0]["scores"][0]["p"] == once["pairs"][0]["scores"][0]["p"]
    assert not any("another seed" in w for w in compare([side("a", *runs), side("b", *runs)])["warnings"])


def test_other_clips_labels_and_tasks_are_refused():
    clips = answered(0.1)
    with pytest.raises(
        DataError, match="a and b were evaluated on different clips \\(1 only in the first, 0 only in the second, such as 'c079'"
    ):
        compare([side("a", clips), side("b", clips[:-1])])
    other = [*clips[:-1], dataclasses.replace(clips[-1], reference="I I I")]
    with pytest.raises(DataError, match="different references for clip 'c079'"):
        compare([side("a", clips), side("b", other)])
    with pytest.raises(DataError, match="only runs of one task"):
        compare([side("a", clips), side("b", clips, task="slt")])
    with pytest.raises(DataError, match="one run alone"):
        compare([side("a", clips)])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_correction_for_many_pairs(ps):
    corrected = holm(ps)
    assert all(p <= c <= min(1, p * len(ps)) or c == max(corrected) or c >= p for p, c in zip(ps, corrected, strict=True))
    assert min(corrected) == pytest.approx(min(1, len(ps) * min(ps)))
    order = sorted(range(len(ps)), key=lambda i: ps[i])
    assert [corrected[i] for i in order] == sorted(corrected)


def test_pairs_against_the_first_only():
    sides = [side(name, answered(e, seed=i)) for i, (name, e) in enumerate((("a", 0.1), ("b", 0.2), ("c", 0.3)))]
    assert [(p["first"], p["second"]) for p in compare(sides)["pairs"]] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert [(p["first"], p["second"]) for p in compare(sides, pairs="first")["pairs"]] == [("a", "b"), ("a", "c")]


@pytest.fixture
def runs(tmp_path):
    for name, errors in (("one", 0.1), ("two", 0.4)):
        clips = answered(errors, seed=len(name) + int(100 * errors))
        report = build_report(clips, facts=FACTS, task="cslr", training=[{"epoch": 3, "seconds": 5.0}])
        write_report(tmp_path / name / "eval" / "test", clips, report)
    return tmp_path


@pytest.mark.long
def test_the_command_writes_a_page_and_a_table(runs, tmp_path):
    words = [f"<b>good</b>={runs / 'one'}", str(runs / "two"), str(runs / "two"), "--out", str(tmp_path / "out"), "--json"]
    done = CliRunner().invoke(app, ["compare", *words])
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "out" / "compare.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in found["sides"]] == ["<b>good</b>", "two (1)", "two (2)"]
    assert found["sides"][0]["parameters"] == 1_200_000
    assert found["sides"][0]["median_ms"] == pytest.approx(10)
    assert any("chosen on these very clips" in w for w in found["warnings"])
    page = Page((tmp_path / "out" / "compare.html").read_text(encoding="utf-8"))
    check_page(page)
    assert "<b>good</b> is better than two (1)." in page.text
    assert "4.8\N{NO-BREAK SPACE}MB" in page.text


def test_what_is_not_there_is_a_sentence(runs):
    with pytest.raises(RunError, match=r"no evaluation of split 'val' \(it has test\): run `sign-dist evaluate"):
        read_side(str(runs / "one"), "val")
    with pytest.raises(RunError, match="no run"):
        read_side(str(runs / "gone"), "test")
    with pytest.raises(SettingsError, match="names no run"):
        read_side("name=", "test")
    (runs / "one" / "eval" / "test" / "report.json").write_text("{")
    with pytest.raises(DataError, match="damaged"):
        read_side(str(runs / "one"), "test")


def test_a_comparison_without_times_and_sizes_is_drawn(tmp_path):
    clips = answered(0.2)
    bare = Side("a", (build_report(clips, facts={}, task="cslr"),), (tuple(clips),))
    text = write_comparison(tmp_path, compare([bare, dataclasses.replace(bare, name="b")])).read_text(encoding="utf-8")
    check_page(Page(text))
    assert "n/a" in text
