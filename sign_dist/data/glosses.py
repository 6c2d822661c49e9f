"""Which glosses a dataset has: clean-up, merging of variants, a keep-list, and a least number of clips.

Glosses are compared without regard to case and runs of blanks. A clip that is left out becomes a rejected row.
"""

import collections
import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from sign_dist.config.data import Glosses
from sign_dist.data.corpora import Labels
from sign_dist.data.normalize import CLEANUPS, one_blank
from sign_dist.data.readers.rows import json_of, list_in, text_in, text_of
from sign_dist.data.sample import Rejected, Sample
from sign_dist.errors import DataError

# BOOK2, BOOK_2, BOOK-2, BOOK (2): a number behind a letter says which variant of the sign.
_NUMBER = re.compile(r"(?<=[^\W\d_])(?:[ _-]?\d+|[ _-]?\(\d+\))$")


@dataclasses.dataclass(frozen=True)
class Chosen:
    """Samples with their final glosses, those left out, and what was merged (old gloss -> new gloss)."""

    samples: list[Sample]
    left_out: list[Rejected]
    merged: dict[str, str]


def parts(gloss: str, labels: Labels) -> list[str]:
    """The glosses of a label: all of it for one sign, its words for a sequence.

    >>> parts("THANK YOU", "gloss"), parts("REGEN MORGEN", "sequence"), parts("", "gloss")
    (['THANK YOU'], ['REGEN', 'MORGEN'], [])
    """
    return gloss.split() if labels == "sequence" else [gloss] if gloss else []


def choose(samples: Sequence[Sample], settings: Glosses, labels: Labels, *, cleanup: str = "") -> Chosen:
    """Clean, merge and keep, in this order, before any video is looked at.

    Where some clips have a gloss, one without is left out; a corpus that has only translations keeps all of its clips.

    Raises:
        DataError: a file of the settings is missing or unfit, or the corpus has no clean-up.
    """
    if settings.clean and cleanup not in CLEANUPS:
        raise DataError("glosses.clean=true: this corpus has no clean-up of its own; leave it out, or use glosses.merge")
    steps: list[Callable[[str], str]] = []
    if settings.clean:
        steps.append(CLEANUPS[cleanup])
    if settings.numbers == "merge":
        steps.append(lambda gloss: _NUMBER.sub("", gloss))
    if settings.merge:
        steps.append(_merger(read_merge(Path(settings.merge)), samples, labels))
    kept = {_key(gloss) for gloss in read_keep(Path(settings.keep))} if settings.keep else None
    some_have_one = any(s.gloss for s in samples)
    chosen = Chosen([], [], {})
    for sample in samples:
        renamed = _renamed(sample, steps, labels, chosen.merged)
        words = parts(renamed.gloss, labels)
        unwanted = [word for word in words if kept is not None and _key(word) not in kept]
        if some_have_one and not words:
            detail = (
                f"nothing of {sample.gloss!r:.60} is left after clean-up"
                if sample.gloss
                else "other clips have a gloss, this has none"
            )
            chosen.left_out.append(Rejected(sample.id, sample.video_path, "no_gloss", detail))
        elif unwanted:
            detail = f"{unwanted[0]!r:.60} is not in {settings.keep!r}"
            chosen.left_out.append(Rejected(sample.id, sample.video_path, "not_kept", detail))
        else:
            chosen.samples.append(renamed)
    return chosen


def drop_rare(samples: Sequence[Sample], min_clips: int, labels: Labels) -> tuple[list[Sample], list[Rejected]]:
    """Leave out clips of glosses that fewer than `min_clips` clips show, until every gloss that is left has that many."""
    left, dropped = list(samples), list[Rejected]()
    while True:
        counts = collections.Counter(gloss for s in left for gloss in set(parts(s.gloss, labels)))
        rare = {gloss for gloss, count in counts.items() if count < min_clips}
        if not rare:
            return left, dropped
        stay: list[Sample] = []
        for sample in left:
            gloss = next((gloss for gloss in parts(sample.gloss, labels) if gloss in rare), "")
            if gloss:
                detail = f"{gloss!r:.60} has {counts[gloss]} usable clips, glosses.min_clips is {min_clips}"
                dropped.append(Rejected(sample.id, sample.video_path, "too_few_clips", detail))
            else:
                stay.append(sample)
        left = stay


def absent(keep: str, samples: Iterable[Sample], labels: Labels) -> list[str]:
    """Glosses of the keep-list that no clip shows, in the list's order."""
    shown = {_key(gloss) for s in samples for gloss in parts(s.gloss, labels)}
    return [gloss for gloss in read_keep(Path(keep)) if _key(gloss) not in shown]


def read_keep(path: Path) -> list[str]:
    """A text file of glosses, one a line.

    Raises:
        DataError: not there, not UTF-8, or empty.
    """
    return list(dict.fromkeys(one_blank(line) for line in text_of(path).split("\n") if line.strip()))


def read_merge(path: Path) -> dict[str, str]:
    """Variant -> gloss, the variants by their key.

    A line is `variant<TAB>gloss`, or `GLOSS, variant, variant`; a `.json` file is a list of such lists.

    Raises:
        DataError: a line that is neither, a variant of two glosses, or a gloss that is itself a variant.
    """
    pairs: list[tuple[str, str, str]] = []
    if path.suffix.lower() == ".json":
        for i, entry in enumerate(list_in(json_of(path)) or []):
            words = [one_blank(text_in(word)) for word in list_in(entry) or []]
            pairs += [(f"entry {i}", word, words[0]) for word in words[1:]] or [(f"entry {i}", "", "")]
    else:
        for number, line in enumerate(text_of(path).split("\n"), start=1):
            if line.strip():
                tab = line.rstrip("\r").split("\t")
                words = [one_blank(word) for word in (tab[::-1] if len(tab) > 1 else line.split(","))]
                found = [(f"line {number}", word, words[0]) for word in words[1:]]
                pairs += found if len(tab) <= 2 and found else [(f"line {number}", "", "")]
    merge: dict[str, str] = {}
    for where, variant, gloss in pairs:
        if not variant or not gloss:
            raise DataError(f"{str(path)!r} {where} is neither 'variant<TAB>gloss' nor 'GLOSS, variant, ...'")
        if merge.setdefault(_key(variant), gloss) != gloss:
            raise DataError(
                f"{str(path)!r} {where} merges {variant!r} into {gloss!r}, an earlier one into {merge[_key(variant)]!r}"
            )
    merge = {variant: gloss for variant, gloss in merge.items() if variant != _key(gloss)}
    if chain := next((gloss for gloss in merge.values() if _key(gloss) in merge), ""):
        raise DataError(
            f"{str(path)!r} merges variants into {chain!r}, which it merges into {merge[_key(chain)]!r}: name the last one"
        )
    return merge


def _merger(merge: Mapping[str, str], samples: Iterable[Sample], labels: Labels) -> Callable[[str], str]:
    """A gloss's merged name, spelt as the corpus spells it; a name that is new to it in upper case, as labels are."""
    spelling = {_key(gloss): gloss for s in samples for gloss in parts(s.gloss, labels)}

    def renamed(gloss: str) -> str:
        target = merge.get(_key(gloss))
        if target is None:
            return gloss
        return spelling.get(_key(target)) or (target if labels == "sequence" else target.upper())

    return renamed


def _renamed(sample: Sample, steps: Sequence[Callable[[str], str]], labels: Labels, merged: dict[str, str]) -> Sample:
    if not steps:
        return sample
    words: list[str] = []
    for word in parts(sample.gloss, labels):
        new = word
        for step in steps:
            new = step(new)
        if new != word:
            merged[word] = new
        words += [new] if new else []
    return dataclasses.replace(sample, gloss=" ".join(words))


def _key(gloss: str) -> str:
    return one_blank(gloss).casefold()
