"""Files as people have them: each form, and each way in which one can be wrong, told in one sentence."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sign_dist.errors import DataError
from sign_dist.metrics.transcripts import paired, read_transcripts

TEXTS = {"a-1": "__ON__ NORD", "b-2": "", "c-3": "REGEN REGEN SONNE"}
sentences = st.lists(st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=4), max_size=4).map(" ".join)

STM = ";; a comment\n" + "".join(f"{i} 1 signer01 0.0 1.79769e+308 {t}\n" for i, t in TEXTS.items())
LABELLED = "".join(f"{i} 1 signer01 0.0 1.0 <o,f0> {t}\n" for i, t in TEXTS.items())
CTM = "c-3 1 0.01 0.01 REGEN\nc-3 1 0.00 0.01 REGEN\nc-3 1 0.02 0.01 SONNE 0.9\na-1 1 0 1 __ON__\na-1 1 1 1 NORD\n"
TSV = "id\ttext\n" + "".join(f"{i}\t{t}\n" for i, t in TEXTS.items())
JSONL = "".join(json.dumps({"id": i, "reference": "X", "hypothesis": t}) + "\n" for i, t in TEXTS.items())
TRN = ";; a comment\n" + "".join(f"{t} ({i})\n" for i, t in TEXTS.items())
WIDE = "id\tsigner\ttext\tnote\n" + "".join(f"{i}\tanna\t{t}\tof no use\n" for i, t in TEXTS.items())
CSV = 'ID,note,"Hypothesis"\n' + "".join(f'{i},"a, b","{t}"\n' for i, t in TEXTS.items())
LINES = "".join(f"{t}\n" for t in TEXTS.values())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("h.stm", STM),
        ("h.stm", LABELLED),
        ("h.trn", TRN),
        ("h.tsv", TSV),
        ("h.txt", TSV),
        ("h.tsv", TSV.replace("\n", "\r\n")),
        ("h.tsv", WIDE),
        ("h.csv", CSV),
        ("h.csv", TSV),
        ("h.jsonl", JSONL),
    ],
)
def test_forms_that_name_every_clip(tmp_path, name, content):
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert read_transcripts(tmp_path / name, "hypothesis").texts == TEXTS


def test_a_ctm_is_put_in_order_and_lacks_what_is_empty(tmp_path):
    (tmp_path / "h.ctm").write_text(CTM, encoding="utf-8")
    (tmp_path / "r.stm").write_text(STM, encoding="utf-8")
    hypotheses = read_transcripts(tmp_path / "h.ctm", "hypothesis")
    assert hypotheses.texts == {i: t for i, t in TEXTS.items() if t}
    references = read_transcripts(tmp_path / "r.stm", "reference")
    assert paired(references, hypotheses) == (list(TEXTS), list(TEXTS.values()), list(TEXTS.values()))


def test_plain_lines_are_numbered_and_may_be_empty(tmp_path):
    (tmp_path / "h.txt").write_text(LINES, encoding="utf-8")
    found = read_transcripts(tmp_path / "h.txt", "hypothesis")
    assert found.numbered
    assert found.texts == dict(zip("123", TEXTS.values(), strict=True))
    # Without an end of the last line, and with one of Windows, it is the same.
    (tmp_path / "h.txt").write_bytes(b"\xef\xbb\xbf" + LINES.removesuffix("\n").replace("\n", "\r\n").encode())
    assert read_transcripts(tmp_path / "h.txt", "hypothesis").texts == found.texts


def test_predictions_of_an_evaluation(tmp_path):
    rows = [
        {"id": "a", "reference": "BOOK", "hypothesis": "MILK", "scores": [["BOOK", 0.4], ["MILK", 0.6], ["EAT", 0.1]], "error": ""},
        {"id": "b", "reference": "EAT", "hypothesis": "EAT", "scores": [], "error": "no_video"},
    ]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert read_transcripts(tmp_path / "p.jsonl", "reference").texts == {"a": "BOOK", "b": "EAT"}
    found = read_transcripts(tmp_path / "p.jsonl", "hypothesis")
    assert found.texts == {"a": "MILK", "b": ""}
    assert found.ranked == {"a": ["MILK", "BOOK", "EAT"]}


@pytest.mark.long
@given(st.dictionaries(st.from_regex(r"[a-z0-9_-]{1,8}", fullmatch=True).filter(lambda i: i != "id"), sentences, min_size=1))
def test_every_form_says_the_same(tmp_path_factory, texts):
    folder = tmp_path_factory.mktemp("forms")
    (folder / "r.tsv").write_text("".join(f"{i}\t{t}\n" for i, t in texts.items()), encoding="utf-8")
    (folder / "r.stm").write_text("".join(f"{i} 1 s 0 1 {t}\n" for i, t in texts.items()), encoding="utf-8")
    rows = "".join(json.dumps({"id": i, "text": t}) + "\n" for i, t in texts.items())
    (folder / "r.jsonl").write_text(rows, encoding="utf-8")
    assert all(read_transcripts(folder / f"r.{form}", "reference").texts == texts for form in ("tsv", "stm", "jsonl"))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("h.txt", b"", "holds no hypothesis"),
        ("h.txt", "REGEN\nGR\u00dcN\n".encode("latin-1"), r"not UTF-8 \(line 2\): save it as UTF-8"),
        ("h.tsv", b"a\tA\tB\n", "line 1 .* id, a TAB, text"),
        ("h.tsv", b"id\tsigner\tgloss\na\tanna\tA\n", "columns id, signer, gloss: name the one to score 'hypothesis' or 'text'"),
        ("h.tsv", b"id\tsigner\ttext\na\tA\n", "line 2 .* 3 columns, as its header has"),
        ("h.csv", b'a,"A\n', "no CSV"),
        ("h.csv", b"a,A,B\n", "line 1 .* id,text"),
        ("h.trn", b"A B C\n", r"line 1 .* words \(id\)"),
        ("h.tsv", b"a\tA\na\tB\n", "'a' twice"),
        ("h.tsv", b"a\tA\nB\n", "line 2 .* a TAB"),
        ("h.stm", b"a 1 s\n", "line 1 .* id channel speaker start end words"),
        ("h.ctm", b"a 1 x 0.1 WORD\n", "line 1 .* id channel start duration word"),
        ("h.ctm", b"a 1 0\n", "line 1"),
        ("h.jsonl", b"{\n", "line 1"),
        ("h.jsonl", b"[1]\n", "line 1"),
        ("h.jsonl", b'{"id": 1}\n', "line 1"),
        ("h.jsonl", b'{"id": 1, "hypothesis": 3}\n', "line 1"),
        ("h.jsonl", b'{"id": 1, "hypothesis": "A", "scores": [1, 2]}\n', "line 1 .*scores"),
    ],
)
def test_what_is_wrong_is_one_sentence(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=words) as caught:
        read_transcripts(tmp_path / name, "hypothesis")
    assert "\n" not in str(caught.value)


def test_no_file(tmp_path):
    with pytest.raises(DataError, match="no file"):
        read_transcripts(tmp_path / "none.txt", "reference")
    with pytest.raises(DataError, match="cannot be read"):
        read_transcripts(tmp_path, "reference")


def test_files_of_different_clips(tmp_path):
    (tmp_path / "r.tsv").write_text("a\tA\nb\tB\n", encoding="utf-8")
    (tmp_path / "h.tsv").write_text("a\tA\nc\tC\n", encoding="utf-8")
    (tmp_path / "l.txt").write_text("A\n", encoding="utf-8")
    references = read_transcripts(tmp_path / "r.tsv", "reference")
    with pytest.raises(DataError, match=r"1 of 2 are only in the references, such as 'b' and 1 of 2 .* hypotheses, such as 'c'"):
        paired(references, read_transcripts(tmp_path / "h.tsv", "hypothesis"))
    with pytest.raises(DataError, match="have 2 and 1 lines"):
        paired(references, read_transcripts(tmp_path / "l.txt", "hypothesis"))
