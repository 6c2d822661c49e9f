"""Laws of the three ways to divide a corpus, and the leaks that are reported."""

import collections
import dataclasses
import itertools
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sign_dist.config.data import SplitSettings
from sign_dist.data.layout import SPLITS
from sign_dist.data.sample import Sample
from sign_dist.data.split import MIN_SIGNERS, Division, divide
from sign_dist.errors import DataError

SETTINGS = st.builds(
    SplitSettings,
    by=st.sampled_from(["gloss", "signer", "source"]),
    val=st.floats(min_value=0.05, max_value=0.3),
    test=st.floats(min_value=0.05, max_value=0.3),
    seed=st.integers(0, 99),
)


@st.composite
def corpora(draw: st.DrawFn) -> list[Sample]:
    """Clips of a few glosses by at least MIN_SIGNERS signers, some unknown."""
    signers = [f"s{i}" for i in range(draw(st.integers(MIN_SIGNERS, 7)))]
    rows = draw(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["", *signers])), max_size=60))
    rows = [*rows, *((0, signer) for signer in signers)]
    # A signer's clips come from up to two recordings; so no recording holds two signers.
    return [
        Sample(f"c{i}", f"{i}.mp4", f"G{gloss}", signer, source=signer and f"{signer}_{i % 2}")
        for i, (gloss, signer) in enumerate(rows)
    ]


def where(division: Division) -> dict[str, str]:
    return {s.id: name for name, clips in division.splits.items() for s in clips}


@given(corpora(), SETTINGS)
def test_every_clip_is_in_exactly_one_split_and_knows_it(samples: list[Sample], settings: SplitSettings) -> None:
    division = divide(samples, settings)
    clips = [s for name in SPLITS for s in division.splits[name]]
    assert sorted(s.id for s in clips) == sorted(s.id for s in samples)
    assert all(s.split == name for name in SPLITS for s in division.splits[name])
    assert {dataclasses.replace(s, split="") for s in clips} == set(samples)
    assert division == divide(samples, settings)
    rank = {s.id: i for i, s in enumerate(samples)}
    assert all(rank[a.id] < rank[b.id] for clips in division.splits.values() for a, b in itertools.pairwise(clips))


@given(corpora(), SETTINGS)
def test_signers_stay_together(samples: list[Sample], settings: SplitSettings) -> None:
    division = divide(samples, settings.with_values({"by": "signer"}))
    places = collections.defaultdict(set)
    for sample in (s for clips in division.splits.values() for s in clips):
        places[sample.signer].add(sample.split)
    assert places.pop("", {"train"}) == {"train"}
    assert all(len(names) == 1 for names in places.values())
    assert set().union(*places.values()) == set(SPLITS), "three signers are enough for three splits"
    sizes = collections.Counter(s.signer for s in samples if s.signer)
    for name, share in (("test", settings.test), ("val", settings.val)):
        largest = max(sizes[s.signer] for s in division.splits[name])
        assert len(division.splits[name]) < share * len(samples) + largest, "the last signer taken passed the share"
        for clip in division.splits["train"]:
            if clip.signer and sizes[clip.signer] < largest:
                own = {s.gloss for s in samples if s.signer == clip.signer}
                others = {s.gloss for s in division.splits["train"] if s.signer != clip.signer}
                assert own - others, "small signers go first, but not the last one of a gloss"
    assert not [w for w in division.warnings if "signers stand" in w]


@given(corpora(), SETTINGS)
def test_every_gloss_is_trained_and_the_totals_come_near_the_shares(samples: list[Sample], settings: SplitSettings) -> None:
    division = divide(samples, settings.with_values({"by": "gloss"}))
    assert {s.gloss for s in division.splits["train"]} == {s.gloss for s in samples}
    assert not [w for w in division.warnings if "no training clip" in w]
    counts = collections.Counter(s.gloss for s in samples)
    for name, share in (("test", settings.test), ("val", settings.val)):
        taken = len(division.splits[name])
        assert taken <= share * len(samples) + 0.5
        if min(counts.values()) >= 5:  # then a gloss can give what it owes: at most 0.3 + 0.3 of 5, and 1 left over each
            assert taken >= share * len(samples) - 1


@given(corpora(), SETTINGS)
def test_no_gloss_gives_much_more_than_its_share(samples: list[Sample], settings: SplitSettings) -> None:
    """A gloss of many clips does not pay for all the glosses that have one."""
    crowd = [Sample(f"x{i}", f"x{i}.mp4", f"A{i}") for i in range(40)]
    division = divide([*crowd, *samples], settings.with_values({"by": "gloss"}))
    counts = collections.Counter(s.gloss for s in samples)
    given_away = collections.Counter(s.gloss for name in ("val", "test") for s in division.splits[name])
    for gloss, count in given_away.items():
        assert count <= max(2, round(2 * (settings.val + settings.test) * counts[gloss]) + 2)


def test_glosses_with_another_seed_are_divided_otherwise() -> None:
    samples = [Sample(f"c{i}", f"{i}.mp4", f"G{i % 3}") for i in range(60)]
    divisions = [where(divide(samples, SplitSettings(by="gloss", seed=seed))) for seed in range(5)]
    assert len({tuple(d.items()) for d in divisions}) == 5


@pytest.mark.parametrize(
    ("splits", "signers", "policy"),
    [
        (["train", "val", "test", "train"], ["a", "b", "c", "d"], "given"),
        (["train", "", "test", "train"], ["a", "b", "c", "d"], "signer"),
        ([""] * 4, ["a", "b", "b", ""], "gloss"),
        ([""] * 4, [""] * 4, "gloss"),
    ],
)
def test_auto_takes_what_the_corpus_offers(splits: list[str], signers: list[str], policy: str) -> None:
    rows = enumerate(zip(splits, signers, strict=True))
    samples = [Sample(f"c{i}", f"{i}.mp4", "A", signer, split=split) for i, (split, signer) in rows]
    assert divide(samples, SplitSettings()).policy == policy


def test_given_splits_are_kept_under_their_usual_names() -> None:
    names = {"Training": "train", "train": "train", "DEV": "val", "validation": "val", "valid": "val", "testing": "test"}
    samples = [Sample(name, f"{name}.mp4", "A", split=name) for name in names]
    assert where(divide(samples, SplitSettings(by="given"))) == names
    with pytest.raises(DataError, match=r"'odd' has split 'holdout': allowed are train, val, test"):
        divide([*samples, Sample("odd", "o.mp4", "A", split="holdout")], SplitSettings(by="given"))


def test_what_cannot_be_divided_is_said() -> None:
    with pytest.raises(DataError, match="at least 3 signers, the corpus names 2"):
        divide([Sample("a", "a", "A", "x"), Sample("b", "b", "A", "y")], SplitSettings(by="signer"))
    with pytest.raises(DataError, match="no clip for training"):
        divide([Sample("a", "a", "A", split="test")], SplitSettings())
    with pytest.raises(DataError, match="no clip for training"):
        divide([], SplitSettings())


def test_leaks_and_gaps_are_sentences_for_people() -> None:
    one, two = "1" * 64, "2" * 64
    samples = [
        Sample("a", "a.mp4", "A", "anna", split="train", sha256=one),
        Sample("b", "b.mp4", "B", "anna", split="test", sha256=one),
        Sample("c", "c.mp4", "C", "carl", split="train", sha256=two),
        Sample("d", "c.mp4", "A", "carl", split="train", sha256=two),
        Sample("e", "e.mp4", "A", "", split="test"),
        Sample("f", "f.mp4", "A", "", split="train"),
    ]
    signers, copies, gap, unseen = divide(samples, SplitSettings()).warnings
    assert "1 signers stand in more than one split" in signers
    assert "anna" in signers
    assert "carl" not in signers
    assert "1 identical clips" in copies
    assert "(a, b)" in copies
    assert gap == "split 'val' has no clip"
    assert "1 glosses have no training clip" in unseen
    assert "(B)" in unseen
    apart = [dataclasses.replace(s, start_s=i) for i, s in enumerate(samples)]
    assert not [w for w in divide(apart, SplitSettings()).warnings if "identical" in w], "another span is another clip"


@given(corpora(), SETTINGS, st.randoms())
def test_the_order_of_the_corpus_does_not_matter(samples: list[Sample], settings: SplitSettings, random: Random) -> None:
    shuffled = random.sample(samples, len(samples))
    assert where(divide(samples, settings)) == where(divide(shuffled, settings))


@given(corpora(), SETTINGS, st.lists(st.sets(st.integers(0, 30), min_size=2, max_size=4), max_size=4))
def test_what_belongs_together_is_never_parted(samples: list[Sample], settings: SplitSettings, groups: list[set[int]]) -> None:
    """Recordings and signers where the policy says so; the same bytes and what looks alike, always."""
    samples = [dataclasses.replace(s, sha256=f"{i % 40:064d}") for i, s in enumerate(samples)]
    alike = [{samples[i].key for i in group if i < len(samples)} for group in groups]
    try:
        division = divide(samples, settings, alike=alike)
    except DataError:  # the groups have joined all signers
        assume(False)
    clips = [s for clips in division.splits.values() for s in clips]
    assert sorted(s.id for s in clips) == sorted(s.id for s in samples)
    keys: list[Callable[[Sample], str]] = [lambda s: s.key]
    keys += {"signer": [lambda s: s.signer, lambda s: s.source], "source": [lambda s: s.source]}.get(settings.by, [])
    for key in keys:
        places = collections.defaultdict(set)
        for clip in clips:
            places[key(clip)].add(clip.split)
        places.pop("", None)
        assert all(len(names) == 1 for names in places.values())
    for look in alike:
        assert len({s.split for s in clips if s.key in look}) <= 1
    assert not [w for w in division.warnings if "identical" in w]


@given(corpora(), SETTINGS)
def test_recordings_stay_whole_and_every_gloss_is_trained(samples: list[Sample], settings: SplitSettings) -> None:
    division = divide(samples, settings.with_values({"by": "source"}))
    assert {s.gloss for s in division.splits["train"]} == {s.gloss for s in samples}
    largest = max(collections.Counter(s.source or s.id for s in samples).values())
    for name, share in (("test", settings.test), ("val", settings.val)):
        assert len(division.splits[name]) <= max(share * len(samples) + largest / 2, largest)


def test_large_recordings_still_give_a_test_split() -> None:
    samples = [Sample(f"c{i}", f"{i}.mp4", f"G{i % 5}", source=f"r{i // 10}") for i in range(40)]
    division = divide(samples, SplitSettings())
    assert division.policy == "source"
    assert {name: len(clips) for name, clips in division.splits.items()} == {"train": 20, "val": 10, "test": 10}


def test_the_only_signer_of_a_gloss_trains() -> None:
    samples = [Sample(f"{s}{i}", "v.mp4", f"G{i}", f"s{s}") for s in range(4) for i in range(6)]
    samples.append(Sample("rare", "r.mp4", "RARE", "small"))  # the smallest signer would go first
    for seed in range(5):
        assert where(divide(samples, SplitSettings(by="signer", seed=seed)))["rare"] == "train"


def test_signers_who_share_a_recording_count_as_one() -> None:
    samples = [Sample(f"c{i}", "v.mp4", "A", f"s{i % 3}", source="talk" if i % 3 < 2 else "other") for i in range(9)]
    with pytest.raises(DataError, match="here are 2: split by source or by gloss"):
        divide(samples, SplitSettings(by="signer"))
    with pytest.raises(DataError, match="at least 3 recordings, the corpus names 2: fill the source column"):
        divide(samples, SplitSettings(by="source"))


@given(st.lists(st.lists(st.sampled_from("ABCDEFG"), min_size=2, max_size=5), min_size=12, max_size=40), st.integers(0, 9))
def test_of_continuous_signing_every_gloss_is_trained(sentences: list[list[str]], seed: int) -> None:
    samples = [Sample(f"c{i}", "v.mp4", " ".join(glosses)) for i, glosses in enumerate(sentences)]
    division = divide(samples, SplitSettings(by="gloss", seed=seed))
    trained = {gloss for s in division.splits["train"] for gloss in s.gloss.split()}
    assert trained == {gloss for glosses in sentences for gloss in glosses}
    assert len(division.splits["test"]) <= 0.15 * len(samples) + 0.5 or len(division.splits["test"]) == 1


def test_labels_with_blanks_are_sequences_or_not_as_the_caller_says() -> None:
    samples = [Sample(f"c{i}", "v.mp4", f"THANK YOU {i}") for i in range(20)]
    apart = divide(samples, SplitSettings(by="gloss"), sequences=False)
    assert len(apart.splits["train"]) == 20, "each label has one clip"
