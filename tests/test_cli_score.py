"""`sign-dist score`: every metric from files, JSON, comparison, and one sentence for what is wrong."""

import json

import pytest
from typer.testing import CliRunner

from sign_dist import cli
from sign_dist.errors import SignDistError
from sign_dist.metrics.scoring import METRICS

REFERENCES = {"a": "A B C D E", "b": "F G H I", "c": "__ON__ NORD REGEN SONNE", "d": "X Y Z W V U"}
FIRST = {"a": "A C D E", "b": "F G H I", "c": "__ON__ loc-NORD REGEN SONNE __PU__", "d": "X Y W V"}
SECOND = {"a": "A B C D E", "b": "F G H I", "c": "__ON__ NORD REGEN SONNE", "d": "X Y Z W V V"}


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, texts in (("ref", REFERENCES), ("one", FIRST), ("two", SECOND)):
        (tmp_path / f"{name}.tsv").write_text("".join(f"{i}\t{t}\n" for i, t in texts.items()), encoding="utf-8")
    return tmp_path


def run(*words: str) -> str:
    result = CliRunner().invoke(cli.app, ["score", *words])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def scores(*words: str) -> dict[str, dict]:
    return {row["metric"]: row for row in json.loads(run(*words, "--json"))["scores"]}


def test_every_metric_and_its_interval(files):
    found = scores("ref.tsv", "one.tsv", "--metric", ",".join(METRICS), "--interval")
    assert list(found) == list(METRICS)
    for row in found.values():
        assert row["interval"]["low"] <= row["value"] <= row["interval"]["high"]
        assert row["signature"]
        assert row["sentences"] == len(REFERENCES)
    assert found["accuracy"]["value"] == 1 / 4
    assert found["bleu"]["value"] == found["bleu"]["bleu4"]


def test_clean_up_and_cost_change_the_count(files):
    plain, cleaned = (scores("ref.tsv", "one.tsv", "--cleanup", name)["wer"] for name in ("none", "phoenix2014"))
    assert (plain["substitutions"], plain["deletions"], plain["insertions"], plain["words"]) == (1, 3, 1, 19)
    assert (cleaned["errors"], cleaned["deletions"]) == (3, 3)
    assert "cleanup:phoenix2014" in cleaned["signature"]
    assert "cost:unit" in scores("ref.tsv", "one.tsv", "--cost", "unit")["wer"]["signature"]


def test_the_same_file_has_no_errors_and_does_not_differ(files):
    row = scores("ref.tsv", "ref.tsv", "--against", "ref.tsv")["wer"]
    assert row["value"] == 0
    assert row["against"]["difference"] == 0
    assert {test["p"] for test in row["against"]["tests"]} == {1.0}


def test_a_second_run_is_compared(files):
    row = scores("ref.tsv", "one.tsv", "--against", "two.tsv", "--metric", "accuracy")["accuracy"]
    assert row["against"]["value"] == 3 / 4
    assert row["against"]["difference"] == 1 / 2
    methods = [test["method"].split(",")[0] for test in row["against"]["tests"]]
    assert methods == ["paired bootstrap", "approximate randomisation", "McNemar"]


def test_words_for_people(files):
    said = run("ref.tsv", "one.tsv", "--interval", "--against", "two.tsv", "--show", "1", "--metric", "wer,bleu,rouge")
    assert "wer 26.32 %\n  counted   4 sentences; WER|cost:sclite|" in said
    assert "errors    5 in 19 words: 1 substitutions, 3 deletions, 1 insertions" in said
    assert "  95 %      " in said
    assert "bleu4" in said
    assert "REF:" in said
    assert "tok:13a" in said


def test_only_sentences_with_errors_are_shown_and_none_is_wider_than_the_screen(files, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    (files / "long.tsv").write_text("a\t" + " ".join(f"GLOSS{i}" for i in range(30)) + "\nb\tX\n", encoding="utf-8")
    (files / "short.tsv").write_text("a\tGLOSS3\nb\tX\n", encoding="utf-8")
    shown = run("long.tsv", "short.tsv", "--show", "5").partition("\n\n")[2]
    assert shown.splitlines()[0] == "a"
    assert "GLOSS29" in shown
    assert "\nb\n" not in shown
    assert max(map(len, shown.splitlines())) <= 40


def test_glosses_outside_the_vocabulary_are_named(files):
    (files / "vocabulary.txt").write_text("\n".join("ABCDEFGHIXYZW"), encoding="utf-8")
    row = scores("ref.tsv", "one.tsv", "--vocabulary", "vocabulary.txt")["wer"]
    (finding,) = [f for f in row["findings"] if "vocabulary" in f]
    assert finding.startswith("6 of 19 glosses of the references are not in the vocabulary (NORD, REGEN, SONNE, U, V, ...)")


def test_lines_without_ids_are_paired_in_order_and_that_is_said(files):
    (files / "lines.txt").write_text("".join(f"{text}\n" for text in REFERENCES.values()), encoding="utf-8")
    result = CliRunner().invoke(cli.app, ["score", "ref.tsv", "lines.txt"])
    assert "paired in order" in result.stderr
    assert "wer 0.00 %" in result.stdout


def test_every_class_has_its_support(files):
    rows = {"a": ("BOOK", "BOOK"), "b": ("BOOK", "MILK"), "c": ("MILK", "MILK"), "d": ("BOOK", "")}
    for side, name in enumerate(("r", "h")):
        (files / f"{name}.tsv").write_text("".join(f"{i}\t{pair[side]}\n" for i, pair in rows.items()), encoding="utf-8")
    found = scores("r.tsv", "h.tsv", "--metric", "accuracy")["accuracy"]
    book, milk = found["glosses"]
    assert (book["gloss"], book["support"], book["answered"], book["correct"], book["precision"]) == ("BOOK", 3, 1, 1, 1.0)
    assert book["confused_with"] == [["", 1], ["MILK", 1]]
    assert (milk["recall"], milk["precision"], milk["confused_with"]) == (1.0, 0.5, [])
    assert found["majority"] == {"label": "BOOK", "accuracy": 0.75}
    said = run("r.tsv", "h.tsv", "--metric", "accuracy")
    assert "(nothing) 1, MILK 1" in said
    assert "baseline  75.00 % by answering 'BOOK' to everything; 2 classes asked" in said


def test_predictions_of_a_run_are_both_sides(files):
    rows = [
        {"id": str(i), "reference": "AB"[i % 2], "hypothesis": "A", "scores": [["A", 0.6], ["B", 0.4]], "error": ""}
        for i in range(6)
    ]
    (files / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    row = scores("p.jsonl", "p.jsonl", "--metric", "accuracy")["accuracy"]
    assert (row["value"], row["per_class"], row["top5"]) == (0.5, 0.5, 1.0)


def test_a_broken_result_is_said(files):
    (files / "empty.tsv").write_text("".join(f"{i}\t\n" for i in REFERENCES), encoding="utf-8")
    row = scores("ref.tsv", "empty.tsv")["wer"]
    assert row["value"] == 1.0
    assert "4 of 4 clips have an empty hypothesis" in row["findings"][0]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--metric", "blue"], r"no metric 'blue'.*did you mean 'bleu'"),
        (["--cleanup", "phoenix"], "no clean-up 'phoenix'"),
        (["--cost", "nist"], "no cost 'nist'"),
        (["--language", "fr", "--metric", "meteor"], "no language 'fr'"),
        (["--against", "none.tsv"], "no file 'none.tsv'"),
    ],
)
def test_wrong_words_are_one_sentence(files, words, expected):
    with pytest.raises(SignDistError, match=expected) as caught:
        run("ref.tsv", "one.tsv", *words)
    assert "\n" not in str(caught.value)


def test_references_without_words_have_no_rate(files):
    (files / "silent.tsv").write_text("".join(f"{i}\t\n" for i in REFERENCES), encoding="utf-8")
    with pytest.raises(SignDistError, match="needs words in the references"):
        run("silent.tsv", "one.tsv")
