"""Which glosses a dataset has: merging, keep-lists, least numbers of clips; what is left out is a row with its reason."""

import collections
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sign_dist.config.data import Glosses
from sign_dist.data.corpora import Labels
from sign_dist.data.glosses import absent, choose, drop_rare, parts, read_keep, read_merge
from sign_dist.data.sample import Sample
from sign_dist.errors import DataError
from sign_dist.video.check import REASONS

LABELS: tuple[Labels, Labels] = ("gloss", "sequence")


def clips(*glosses: str) -> list[Sample]:
    return [Sample(f"c{i}", f"{i}.mp4", gloss) for i, gloss in enumerate(glosses)]


def glosses_of(samples: list[Sample]) -> list[str]:
    return [s.gloss for s in samples]


def file(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_nothing_is_changed_unless_asked() -> None:
    samples = clips("BOOK2", "THANK YOU", "loc-NORD")
    for labels in LABELS:
        chosen = choose(samples, Glosses(), labels, cleanup="phoenix2014")
        assert (chosen.samples, chosen.left_out, chosen.merged) == (samples, [], {})


def test_a_keep_list_keeps_its_glosses_however_they_are_spelt(tmp_path: Path) -> None:
    keep = file(tmp_path / "keep.txt", "\ufeffbook\r\nThank  you\n\nhouse\nbook\n")
    assert read_keep(Path(keep)) == ["book", "Thank you", "house"]
    samples = clips("BOOK", "THANK YOU", "CAR", "BOOK")
    chosen = choose(samples, Glosses(keep=keep), "gloss")
    assert glosses_of(chosen.samples) == ["BOOK", "THANK YOU", "BOOK"]
    assert [(row.id, row.reason) for row in chosen.left_out] == [("c2", "not_kept")]
    assert absent(keep, chosen.samples, "gloss") == ["house"]


def test_a_sentence_is_kept_where_all_of_its_glosses_are(tmp_path: Path) -> None:
    keep = file(tmp_path / "keep.txt", "regen\nloc-nord\n")
    chosen = choose(clips("REGEN loc-NORD REGEN", "REGEN SONNE"), Glosses(keep=keep), "sequence")
    assert glosses_of(chosen.samples) == ["REGEN loc-NORD REGEN"]
    assert "'SONNE'" in chosen.left_out[0].detail


def test_translations_alone_are_kept_and_a_mix_is_not() -> None:
    alone = [Sample("a", "a.mp4", translation="Hi")]
    assert choose(alone, Glosses(), "gloss").samples == alone
    mixed = choose([*alone, *clips("BOOK")], Glosses(), "gloss")
    assert [(row.id, row.reason) for row in mixed.left_out] == [("a", "no_gloss")]


def test_numbers_at_the_end_are_variants_and_numbers_alone_are_signs() -> None:
    samples = clips("BOOK2", "BOOK_2", "BOOK-12", "BOOK (2)", "ΕΓΩ(1)", "10", "2ND", "A 1 B", "AMKA(Δ.Α.)")
    chosen = choose(samples, Glosses(numbers="merge"), "gloss")
    assert glosses_of(chosen.samples) == ["BOOK", "BOOK", "BOOK", "BOOK", "ΕΓΩ", "10", "2ND", "A 1 B", "AMKA(Δ.Α.)"]
    assert chosen.merged["BOOK2"] == "BOOK"
    assert glosses_of(choose(clips("HABEN2 ZWEI 2"), Glosses(numbers="merge"), "sequence").samples) == ["HABEN ZWEI 2"]


def test_clean_up_is_that_of_the_corpus() -> None:
    samples = clips("__ON__ cl-KOMMEN-PLUSPLUS __PU__", "__EMOTION__")
    chosen = choose(samples, Glosses(clean=True), "sequence", cleanup="phoenix2014")
    assert glosses_of(chosen.samples) == ["__ON__ KOMMEN"]
    assert [(row.reason, row.id) for row in chosen.left_out] == [("no_gloss", "c1")]
    with pytest.raises(DataError, match="no clean-up of its own"):
        choose(samples, Glosses(clean=True), "sequence")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("m.tsv", "go to\tGO\ngoing\tGO\n"),
        ("m.tsv", "\ufeffgoing\tgo\r\n\r\nGO  TO\tgo\r\n"),
        ("m.txt", "go, going, go to\n"),
        ("m.json", '[["go", "going", "go to"]]'),
    ],
)
def test_variants_are_merged_by_every_kind_of_list(name: str, text: str, tmp_path: Path) -> None:
    merge = file(tmp_path / name, text)
    chosen = choose(clips("GOING", "GO TO", "GO", "GOAT"), Glosses(merge=merge), "gloss")
    assert glosses_of(chosen.samples) == ["GO", "GO", "GO", "GOAT"]
    assert chosen.merged == {"GOING": "GO", "GO TO": "GO"}
    # Then the keep-list is asked for the new name.
    keep = file(tmp_path / "keep.txt", "go\n")
    assert len(choose(clips("GOING", "GOAT"), Glosses(merge=merge, keep=keep), "gloss").samples) == 1


@pytest.mark.parametrize(
    ("name", "text", "part"),
    [
        ("m.tsv", "a\tB\nc\n", "line 2 is neither"),
        ("m.tsv", "a\tB\tC\n", "line 1 is neither"),
        ("m.tsv", "a\t\n", "line 1 is neither"),
        ("m.tsv", "a\tB\na\tC\n", "line 2 merges 'a' into 'C'"),
        ("m.tsv", "a\tB\nb\tC\n", "name the last one"),
        ("m.json", '[["a"]]', "entry 0 is neither"),
        ("m.json", '[["a", 7.5]]', "entry 0 is neither"),
        ("m.json", '{"a": ', "no whole JSON"),
        ("m.tsv", "", "are empty"),
    ],
)
def test_a_list_that_cannot_be_followed_is_one_sentence(name: str, text: str, part: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        read_merge(Path(file(tmp_path / name, text)))
    assert part in str(error.value)
    with pytest.raises(DataError, match="cannot be read"):
        read_keep(tmp_path / "none.txt")


@given(
    st.lists(st.lists(st.sampled_from("ABCDEF"), max_size=4), max_size=30),
    st.integers(1, 6),
    st.sampled_from(LABELS),
)
def test_every_gloss_that_is_left_has_enough_clips_and_nothing_is_lost(words: list[list[str]], least: int, labels: Labels) -> None:
    samples = clips(*(" ".join(w) for w in words))
    left, dropped = drop_rare(samples, least, labels)
    counts = collections.Counter(g for s in left for g in set(parts(s.gloss, labels)))
    assert all(count >= least for count in counts.values())
    assert sorted([s.id for s in left] + [row.id for row in dropped]) == sorted(s.id for s in samples)
    assert {row.reason for row in dropped} <= {"too_few_clips"} <= REASONS.keys()
    # Clips without a gloss, and clips whose glosses all have enough in any selection, stay.
    assert all(s in left for s in samples if not s.gloss)
    if labels == "gloss":
        before = collections.Counter(s.gloss for s in samples)
        assert left == [s for s in samples if not s.gloss or before[s.gloss] >= least]


def test_the_list_of_320_words_chooses_from_real_prompts(shared_folder: Path, tmp_path: Path) -> None:
    """The use case of a core glossary: a text file of words against the list of a project that works with 282 of them."""
    from sign_dist.data.readers import wlasl_prompt

    path = shared_folder / "data" / "annotations" / "wlasl_okeha" / "wlasl_cleaned.json"
    if not path.is_file():
        pytest.skip(f"no file {path}")
    samples = [row for row in wlasl_prompt.read(path) if isinstance(row, Sample)]
    words = sorted({entry["gloss"] for entry in json.loads(path.read_text(encoding="utf-8"))})
    keep = file(tmp_path / "core.txt", "\n".join([*words[::2], *(f"no such word {i}" for i in range(38))]))
    chosen = choose(samples, Glosses(keep=keep), "gloss")
    assert set(glosses_of(chosen.samples)) == {word.upper() for word in words[::2]}
    assert len(chosen.samples) + len(chosen.left_out) == 1892
    assert len(absent(keep, chosen.samples, "gloss")) == 38
