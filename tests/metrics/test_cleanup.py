"""Clean-up of each corpus equals its reference string for string, and the whole chain equals NIST's scorer."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sign_dist.errors import SettingsError
from sign_dist.metrics import cleanup
from sign_dist.metrics.cleanup import CLEANUPS, cleanup_named, merge_repeats
from sign_dist.metrics.wer import corpus_errors
from tests.parity.vectors import corpus_json, part_of

BY_SENTENCE = {"phoenix2014": cleanup.slt_phoenix2014, "phoenix2014T": cleanup.slt_phoenix2014t}
glosses = st.sampled_from(
    [
        "A",
        "B",
        "SCH",
        "NN",
        "loc-NORD",
        "cl-KOMMEN-PLUSPLUS",
        "NORDRAUM",
        "__ON__",
        "__PU__",
        "S0NNE",
        "WIE",
        "AUSSEHEN",
        "ZEIGEN",
        "A+B",
        "IX",
    ]
)
sentences = st.lists(glosses, max_size=8).map(" ".join)


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    return corpus_json("i3d/phoenix_cleanup.json")


@pytest.mark.parametrize("corpus", BY_SENTENCE)
def test_sentences_as_recorded(corpus, recorded):
    pairs = part_of(recorded, corpus)
    assert pairs
    for pair in pairs:
        assert BY_SENTENCE[corpus](pair["in"]) == pair["out"], pair["in"]


def test_single_words_as_the_official_script(recorded):
    words = part_of(recorded, "ctm_token_table")
    assert words
    for word, expected in words.items():
        assert cleanup.words_of_phoenix2014(word) == (expected or ""), word
    for word in recorded["ctm_tokens_unchanged"]:
        assert cleanup.words_of_phoenix2014(word) == word


def test_a_whole_split_as_nist_scores_it():
    facts = corpus_json("i3d/phoenix2014_e2e_wer.json")
    rows = facts["sentences"]
    assert len(rows) == facts["n_sentences"]
    for row in rows:
        assert cleanup.words_of_phoenix2014(row["hyp"]) == row["hyp_clean"], row["id"]
    pair = CLEANUPS["phoenix2014"].apply([row["ref"] for row in rows], [row["hyp"] for row in rows])
    found, expected = corpus_errors(*pair), facts["sclite"]
    counts = {"cor": found.hits, "sub": found.substitutions, "del": found.deletions, "ins": found.insertions}
    assert counts == {name: expected[name] for name in counts}
    assert found.num_words == expected["n_ref"]
    assert 100 * found.rate == pytest.approx(expected["wer_percent"], abs=1e-9)
    if "python_tool_wer_percent" in facts:  # another tool that is in use; its alignment differs a little
        assert 100 * found.rate == pytest.approx(facts["python_tool_wer_percent"], abs=0.1)


def test_official_references_need_no_clean_up(shared_folder):
    """Why only hypotheses are changed: the rules leave the official references as they are, in German and in Chinese."""
    annotations = shared_folder / "data" / "annotations"
    stms = sorted((annotations / "phoenix2014").glob("*.stm"))
    rows = [line.split(None, 5)[5:] for path in stms for line in path.read_text(encoding="utf-8").splitlines() if line[:2] != ";;"]
    texts = [row[0] for row in rows if row]
    csl = annotations / "csl_daily" / "dev_rows_excerpt.txt"
    texts += [line.split("|")[2] for line in csl.read_text(encoding="utf-8").splitlines()[1:]] if csl.exists() else []
    if not texts:
        pytest.skip(f"no annotations of Phoenix 2014 in {annotations}")
    assert [t for t in texts if cleanup.words_of_phoenix2014(t) != " ".join(t.split())] == []


@given(sentences)
def test_official_rules_go_word_by_word(sentence):
    alone = [cleanup.words_of_phoenix2014(word) for word in sentence.split()]
    assert cleanup.words_of_phoenix2014(sentence) == " ".join(filter(None, alone))


@given(sentences)
def test_merging_repeats_leaves_no_equal_neighbours_and_nothing_else_out(sentence):
    merged = merge_repeats(sentence).split()
    assert all(a != b for a, b in itertools.pairwise(merged))
    assert merge_repeats(" ".join(merged)) == " ".join(merged)
    assert list(dict.fromkeys(merged)) == list(dict.fromkeys(sentence.split()))


def test_an_empty_hypothesis_is_a_word_in_the_official_count_only():
    assert CLEANUPS["phoenix2014"].apply(["A B"], ["__PU__"]) == (["A B"], [cleanup.EMPTY])
    assert CLEANUPS["csl_daily"].apply([" A  B "], [" "]) == (["A B"], [""])


def test_an_unknown_name_is_one_sentence():
    with pytest.raises(SettingsError, match=r"no clean-up 'phoenix2014t': there are none, phoenix2014,.* did you mean"):
        cleanup_named("phoenix2014t")
