"""Word error rates: equal to jiwer and to NIST's sclite on random pairs, and to the recorded numbers of both."""

import collections
import math
import re
import shutil
import subprocess
from pathlib import Path

import jiwer
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sign_dist.metrics.align import DELETION, INSERTION, SUBSTITUTION, align, count_ops, draw
from sign_dist.metrics.wer import WordErrors, confusions, corpus_errors, gloss_table, sentence_errors, wer
from tests.parity.vectors import parity_json

words = st.lists(st.sampled_from(["A", "B", "C", "LONG-GLOSS"]), max_size=8)
costs = st.sampled_from(["sclite", "unit"])


def random_pairs(num: int, *, seed: int = 0, longest: int = 14) -> tuple[list[str], list[str]]:
    """Half of the hypotheses are their references with a few words changed, half have nothing to do with them."""
    rng = np.random.default_rng(seed)
    references, hypotheses = [], []
    for i in range(num):
        names = [f"W{k}" for k in range(rng.integers(2, 12))]
        reference = [names[k] for k in rng.integers(0, len(names), rng.integers(1, longest + 1))]
        if i % 2:
            hypothesis = [w for w in reference if rng.random() > 0.15]
            hypothesis = [names[rng.integers(len(names))] if rng.random() < 0.2 else w for w in hypothesis]
        else:
            hypothesis = [names[k] for k in rng.integers(0, len(names), rng.integers(0, longest + 1))]
        references.append(" ".join(reference))
        hypotheses.append(" ".join(hypothesis))
    return references, hypotheses


def equal_to_jiwer(num: int, seed: int) -> None:
    references, hypotheses = random_pairs(num, seed=seed)
    found = sentence_errors(references, hypotheses, "unit")
    for reference, hypothesis, ours in zip(references, hypotheses, found, strict=True):
        theirs = jiwer.process_words(reference, hypothesis)
        assert ours == WordErrors(theirs.hits, theirs.substitutions, theirs.deletions, theirs.insertions)
        assert ours.rate == pytest.approx(theirs.wer, abs=1e-9)
    assert wer(references, hypotheses, "unit") == pytest.approx(jiwer.wer(references, hypotheses), abs=1e-9)


@pytest.mark.long
def test_ten_thousand_pairs_equal_jiwer() -> None:
    equal_to_jiwer(10_000, seed=1)


@pytest.mark.slow
def test_two_hundred_thousand_pairs_equal_jiwer() -> None:
    for seed in range(20):
        equal_to_jiwer(10_000, seed=100 + seed)


def find_sclite() -> str:
    """sclite is not on the path where Debian's sctk puts it."""
    found = shutil.which("sclite", path="/usr/lib/sctk/bin") or shutil.which("sclite")
    if not found:
        pytest.skip("no sclite here: apt-get install sctk brings NIST's scorer")
    return found


def by_sclite(sclite: str, folder: Path, references: list[str], hypotheses: list[str]) -> list[WordErrors]:
    for name, texts in (("ref", references), ("hyp", hypotheses)):
        lines = "".join(f"{text} (s_{i})\n" for i, text in enumerate(texts))
        (folder / f"{name}.trn").write_text(lines, encoding="utf-8")
    command = [sclite, "-s", "-r", "ref.trn", "-h", "hyp.trn", "-i", "spu_id", "-o", "pra", "-O", ".", "-n", "out"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    text = (folder / "out.pra").read_text(encoding="utf-8")
    rows = re.findall(r"id: \(s_(\d+)\)\s*Scores: \(#C #S #D #I\) (\d+) (\d+) (\d+) (\d+)", text)
    found = {int(i): WordErrors(*map(int, counts)) for i, *counts in rows}
    return [found[i] for i in range(len(references))]


def equal_to_sclite(folder: Path, num: int, seed: int) -> None:
    sclite = find_sclite()
    references, hypotheses = random_pairs(num, seed=seed)
    assert sentence_errors(references, hypotheses) == by_sclite(sclite, folder, references, hypotheses)


def test_ten_thousand_pairs_equal_sclite(tmp_path: Path) -> None:
    equal_to_sclite(tmp_path, 10_000, seed=2)


@pytest.mark.slow
def test_long_sentences_equal_sclite(tmp_path: Path) -> None:
    sclite = find_sclite()
    references, hypotheses = random_pairs(1000, seed=3, longest=90)
    assert sentence_errors(references, hypotheses) == by_sclite(sclite, tmp_path, references, hypotheses)


def cheapest(reference: list[str], hypothesis: list[str], sub: int, ins: int, dele: int) -> int:
    """The cost by its recurrence, without any alignment."""
    row = [j * ins for j in range(len(hypothesis) + 1)]
    for word in reference:
        new = [row[0] + dele]
        for j, answer in enumerate(hypothesis, 1):
            new.append(min(row[j - 1] + (sub if word != answer else 0), row[j] + dele, new[-1] + ins))
        row = new
    return row[-1]


@given(words, words, costs)
def test_an_alignment_spells_both_sides_at_the_least_cost(reference, hypothesis, cost):
    steps = align(reference, hypothesis, cost)
    assert [s.reference for s in steps if s.op != "I"] == reference
    assert [s.hypothesis for s in steps if s.op != "D"] == hypothesis
    assert all((s.reference == s.hypothesis) == (s.op == "=") for s in steps)
    ops = collections.Counter(s.op for s in steps)
    assert count_ops(reference, hypothesis, cost) == (ops["="], ops["S"], ops["D"], ops["I"])
    weights = (SUBSTITUTION, INSERTION, DELETION) if cost == "sclite" else (1, 1, 1)
    assert ops["S"] * weights[0] + ops["I"] * weights[1] + ops["D"] * weights[2] == cheapest(reference, hypothesis, *weights)


@given(words, words)
def test_sclite_never_counts_fewer_errors(reference, hypothesis):
    _, *unit = count_ops(reference, hypothesis, "unit")
    _, *sclite = count_ops(reference, hypothesis, "sclite")
    assert sum(sclite) >= sum(unit)


@given(st.lists(st.tuples(words, words), min_size=1, max_size=6), costs)
def test_tables_add_up_to_the_counts(pairs, cost):
    references, hypotheses = [" ".join(r) for r, _ in pairs], [" ".join(h) for _, h in pairs]
    total = corpus_errors(references, hypotheses, cost)
    assert total == sum(sentence_errors(references, hypotheses, cost), WordErrors())
    rows = gloss_table(confusions(references, hypotheses, cost), glosses=["NEVER"])
    assert sum(row.support for row in rows) == total.num_words == sum(map(len, (r for r, _ in pairs)))
    assert sum(row.correct for row in rows) == total.hits
    assert sum(row.substituted for row in rows) == total.substitutions
    assert sum(row.deleted for row in rows) == total.deletions
    assert sum(row.inserted for row in rows) == total.insertions
    assert all(row.support == row.correct + row.substituted + row.deleted for row in rows)
    assert all(sum(n for _, n in row.confused_with) == row.substituted for row in rows)
    assert rows[[row.gloss for row in rows].index("NEVER")].support == 0


def test_a_rate_is_not_capped_and_says_when_nothing_was_asked():
    assert wer(["A"], ["B C D"]) == 3.0
    assert math.isnan(wer([""], [""]))
    assert wer([""], ["A"]) == math.inf
    assert wer(["A B"], [""]) == 1.0


def test_a_corpus_rate_is_no_mean_of_rates():
    assert wer(["A B C D", "A"], ["A B C D", "B"]) == pytest.approx(1 / 5)


def test_a_hypothesis_for_each_reference():
    with pytest.raises(ValueError, match="1 references, 2 hypotheses"):
        wer(["A"], ["A", "B"])


def test_columns_of_a_drawing_stand_below_each_other():
    lines = draw(align(["A", "LONG-GLOSS", "C"], ["A", "C", "X"])).splitlines()
    assert lines[0].split() == ["REF:", "A", "LONG-GLOSS", "C", "*"]
    assert lines[1].split() == ["HYP:", "A", "**********", "C", "X"]
    assert [lines[2][lines[0].index(word)] for word in ("A", "LONG-GLOSS", "C")] == ["=", "D", "="]


@given(words.filter(bool), words, st.integers(1, 60))
def test_a_drawing_goes_on_below_where_it_is_too_wide(reference, hypothesis, width):
    steps = align(reference, hypothesis)
    whole, blocks = draw(steps).split("\n"), [block.split("\n") for block in draw(steps, width=width).split("\n\n")]
    for row in range(3):
        assert " ".join(block[row][5:] for block in blocks).split() == whole[row][5:].split()
    assert all(len(line) <= max(width, 5 + len("LONG-GLOSS")) for block in blocks for line in block)
    assert draw([]).split() == ["REF:", "HYP:"]


def test_recorded_numbers_of_three_tools() -> None:
    facts = parity_json("i3d/wer.json")
    assert facts["pairs"]
    totals = {"unit": WordErrors(), "sclite": WordErrors()}
    fewest = most = 0
    alike = True
    for pair in facts["pairs"]:
        reference, hypothesis = pair["ref"].split(), pair["hyp"].split()
        hits, subs, dels, inss = count_ops(reference, hypothesis, "sclite")
        counts = {"cor": hits, "sub": subs, "del": dels, "ins": inss}
        allowed = pair["cost433"]["allowed_sub_ins_del"]
        assert [subs, inss, dels] in allowed, pair
        assert counts == pair.get("sclite", counts), pair
        if pair["cost433"]["unique"]:
            assert counts == pair["cost433"]["signjoey"], pair
        alike &= counts == pair["cost433"]["signjoey"]
        fewest, most = fewest + min(map(sum, allowed)), most + max(map(sum, allowed))
        totals["sclite"] += WordErrors(hits, subs, dels, inss)
        unit = WordErrors(*count_ops(reference, hypothesis, "unit"))
        assert unit.num_words == pair["n_ref"]
        assert unit.errors == pair["unit"]["edits"]
        assert unit.rate == pytest.approx(pair["unit"]["wer"], abs=1e-9)
        names = ("jiwer_hits", "jiwer_sub", "jiwer_del", "jiwer_ins")
        assert unit == WordErrors(*(pair["unit"][name] for name in names)), pair
        totals["unit"] += unit
    assert 100 * totals["unit"].rate == pytest.approx(facts["corpus"]["unit_wer_percent"], abs=1e-9)
    ours, theirs = totals["sclite"], facts["corpus"]["signjoey_433"]
    shares = {"wer": ours.errors, "sub_rate": ours.substitutions, "del_rate": ours.deletions, "ins_rate": ours.insertions}
    if alike:
        found = {name: 100 * count / ours.num_words for name, count in shares.items()}
        assert found == pytest.approx(theirs, abs=1e-9)
    else:  # among alignments of the same cost the other tool may choose another one than sclite
        assert fewest <= theirs["wer"] * ours.num_words / 100 + 1e-6
        assert theirs["wer"] * ours.num_words / 100 - 1e-6 <= most
