"""Divide clips into train, val and test: as given, or by gloss, signer or recording; and say what leaks.

Clips that belong together are never parted, except by a corpus's own division: those with the same bytes, those that the
caller knows to look alike, and, where the policy says so, those of one signer or of one recording. Such groups are then
handed out so that every gloss gives its share and keeps something to be learned from.
"""

import collections
import dataclasses
import math
import random
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Literal

from sign_dist.config.data import SplitSettings
from sign_dist.data.layout import SPLITS
from sign_dist.data.leaks import components, known_groups, leak_sentences
from sign_dist.data.sample import Sample
from sign_dist.errors import DataError

Policy = Literal["given", "gloss", "signer", "source"]
Group = list[Sample]
# What corpora call their splits.
ALIASES = {"training": "train", "dev": "val", "valid": "val", "validation": "val", "testing": "test"}
MIN_SIGNERS = 3
MIN_SOURCES = 3


@dataclasses.dataclass(frozen=True)
class Division:
    """Clips by split, the policy that made it, and sentences about what a reader of scores must know."""

    splits: dict[str, list[Sample]]
    policy: Policy
    warnings: list[str]


def divide(
    samples: Sequence[Sample],
    settings: SplitSettings,
    *,
    alike: Iterable[Iterable[str]] = (),
    sequences: bool | None = None,
) -> Division:
    """Put every sample into exactly one split. The answer depends on the seed, not on the order of the samples.

    Args:
        alike: sets of `Sample.key` of clips that show the same performance, as `sign_dist.data.leaks.alike` reads them.
        sequences: whether a label is glosses with blanks between them, and not one gloss. None: as the labels look.

    Raises:
        DataError: the policy cannot be followed with these samples.
    """
    policy = settings.by if settings.by != "auto" else _choose(samples)
    # By id, so that the same corpus read in another order is divided alike.
    ordered = sorted(samples, key=lambda s: (s.id, s.key))
    match policy:
        case "given":
            splits = _given(samples)
        case "gloss":
            splits = _stratified(_together(ordered, alike), settings, sequences)
        case "source":
            _need(ordered, "recordings", "source", MIN_SOURCES, {s.source for s in samples if s.source})
            splits = _stratified(_together(ordered, alike, lambda s: s.source), settings, sequences)
        case "signer":
            _need(ordered, "signers", "signer", MIN_SIGNERS, {s.signer for s in samples if s.signer})
            splits = _by_signer(_together(ordered, alike, lambda s: s.signer, lambda s: s.source), settings, sequences)
    rank = {s.id: i for i, s in enumerate(samples)}
    splits = {
        name: sorted((dataclasses.replace(s, split=name) for s in splits.get(name, [])), key=lambda s: rank[s.id])
        for name in SPLITS
    }
    if not splits["train"]:
        raise DataError(f"the split by {policy} leaves no clip for training: {len(samples)} clips are too few, or mis-labelled")
    clips = [s for name in SPLITS for s in splits[name]]
    return Division(splits, policy, [*leak_sentences(known_groups(clips)), *_gaps(splits, sequences)])


def _choose(samples: Sequence[Sample]) -> Policy:
    if samples and all(s.split for s in samples):
        return "given"
    if len({s.signer for s in samples if s.signer}) >= MIN_SIGNERS:
        return "signer"
    return "source" if len({s.source for s in samples if s.source}) >= MIN_SOURCES else "gloss"


def _need(samples: Sequence[Sample], what: str, column: str, least: int, known: set[str]) -> None:
    if samples and len(known) < least:
        raise DataError(
            f"a split by {column} needs at least {least} {what}, the corpus names {len(known)}: "
            f"fill the {column} column or split by gloss"
        )


def _given(samples: Sequence[Sample]) -> dict[str, Group]:
    splits: dict[str, Group] = collections.defaultdict(list)
    for sample in samples:
        name = ALIASES.get(sample.split.lower(), sample.split.lower())
        if name not in SPLITS:
            raise DataError(
                f"clip {sample.id!r} has split {sample.split!r}: allowed are {', '.join(SPLITS)}; or divide anew with "
                "split.by=gloss, split.by=signer or split.by=source"
            )
        splits[name].append(sample)
    return splits


def _stratified(groups: Sequence[Group], settings: SplitSettings, sequences: bool | None) -> dict[str, Group]:
    """Each gloss gives its share to val and test, rare glosses first; every gloss keeps a group in train.

    The rarest first, since a common gloss can make up for what a rare one cannot give (iterative stratification, Sechidis
    et al. 2011, with whole groups in place of examples).
    """
    rng = random.Random(settings.seed)
    glosses_of = _glosses([s for group in groups for s in group], sequences)
    counts = [collections.Counter(gloss for s in group for gloss in glosses_of(s)) for group in groups]
    having: dict[str, list[int]] = collections.defaultdict(list)
    for i, count in enumerate(counts):
        for gloss in count:
            having[gloss].append(i)
    trained = {gloss: len(members) for gloss, members in having.items()}  # groups that are in train, or not yet given away
    total = {gloss: sum(counts[i][gloss] for i in members) for gloss, members in having.items()}
    place = dict[int, str]()
    owed = {"test": 0.0, "val": 0.0}

    def give(i: int, name: str) -> None:
        place[i] = name
        for gloss in counts[i]:
            trained[gloss] -= 1

    def can_spare(i: int) -> bool:
        return all(trained[gloss] > 1 for gloss in counts[i])

    for gloss in sorted(having, key=lambda gloss: (total[gloss], gloss)):
        pool = [i for i in having[gloss] if i not in place]
        rng.shuffle(pool)
        clips = sum(len(groups[i]) for i in pool)
        least = min((counts[i][gloss] for i in pool), default=0)
        for name, share in (("test", settings.test), ("val", settings.val)):
            # What one small gloss cannot give, the next ones owe, so that the totals come out right.
            owed[name] += share * clips
            # But not all of it from one gloss: it would have nothing left to be learned from.
            left = max(math.ceil(2 * share * total[gloss]), least)
            for i in pool:
                if i not in place and len(groups[i]) / 2 <= owed[name] and counts[i][gloss] <= left and can_spare(i):
                    give(i, name)
                    owed[name] -= len(groups[i])
                    left -= counts[i][gloss]
        place |= {i: "train" for i in pool if i not in place}
    clips = sum(map(len, groups))
    for name, share in (("test", settings.test), ("val", settings.val)):
        # Groups larger than a share: one of them is still better than a split without a clip.
        spare = [i for i in place if place[i] == "train" and can_spare(i)]
        if share * clips >= 1 and spare and name not in place.values():
            give(min(spare, key=lambda i: len(groups[i])), name)
    return {name: [s for i, group in enumerate(groups) if place.get(i) == name for s in group] for name in SPLITS}


def _by_signer(groups: Sequence[Group], settings: SplitSettings, sequences: bool | None) -> dict[str, Group]:
    """Whole signers go to test and val until their share is reached; unknown signers train.

    The next to go is the one that leaves the fewest glosses without a training clip, among those the one with the fewest
    clips, and then chance.
    """
    known = [group for group in groups if any(s.signer for s in group)]
    if len(known) < MIN_SIGNERS:
        raise DataError(
            f"a split by signer needs at least {MIN_SIGNERS} signers that share no recording and no clip, here are "
            f"{len(known)}: split by source or by gloss"
        )
    glosses_of = _glosses([s for group in groups for s in group], sequences)
    glosses = [{gloss for s in group for gloss in glosses_of(s)} for group in groups]
    trained = collections.Counter(gloss for each in glosses for gloss in each)
    order = [i for i, group in enumerate(groups) if any(s.signer for s in group)]
    random.Random(settings.seed).shuffle(order)
    splits: dict[str, Group] = {name: [] for name in SPLITS}
    wanted = sum(map(len, groups)) * 0.999
    for name, share in (("test", settings.test), ("val", settings.val)):
        while len(order) > (2 if name == "test" else 1) and len(splits[name]) < share * wanted:
            chosen = min(order, key=lambda i: (sum(trained[gloss] == 1 for gloss in glosses[i]), len(groups[i])))
            order.remove(chosen)
            trained.subtract(glosses[chosen])
            splits[name] += groups[chosen]
    given = {s.id for name in ("val", "test") for s in splits[name]}
    splits["train"] = [s for group in groups for s in group if s.id not in given]
    return splits


def _together(samples: Sequence[Sample], alike: Iterable[Iterable[str]], *keys: Callable[[Sample], str]) -> list[Group]:
    """Samples in groups that must not be parted: the connected components of "equal in one of the keys".

    The same bytes and span, and what `alike` names, always belong together. A key of "" says nothing.
    """
    first: dict[Hashable, int] = {}
    looks: dict[str, list[int]] = collections.defaultdict(list)
    for number, same in enumerate(alike):
        for key in same:
            looks[key].append(number)
    pairs: list[tuple[int, int]] = []
    for i, sample in enumerate(samples):
        names: list[Hashable] = [(n, name) for n, key in enumerate(keys) if (name := key(sample))]
        if sample.sha256:
            names.append(("bytes", sample.key))
        names += [("alike", number) for number in looks.get(sample.key, ())]
        pairs += [(i, first.setdefault(name, i)) for name in names]
    groups: dict[int, Group] = {}
    for sample, group in zip(samples, components(len(samples), pairs), strict=True):
        groups.setdefault(group, []).append(sample)
    return list(groups.values())


def _glosses(samples: Sequence[Sample], sequences: bool | None) -> Callable[[Sample], list[str]]:
    """What a sample is stratified by: its label, or in a corpus of continuous signing each gloss of its sequence.

    A corpus is taken as continuous if most of its different labels hold a blank: labels such as THANK YOU are a minority
    among isolated signs.
    """
    labels = {s.gloss for s in samples}
    continuous = sequences if sequences is not None else sum(" " in label for label in labels) > len(labels) / 2
    return lambda s: (sorted(set(s.gloss.split())) or [""]) if continuous else [s.gloss]


def _gaps(splits: dict[str, Group], sequences: bool | None) -> list[str]:
    """Glosses that are tested but never trained, and splits without clips."""
    glosses_of = _glosses([s for clips in splits.values() for s in clips], sequences)
    trained = {gloss for s in splits["train"] for gloss in glosses_of(s)}
    unseen = sorted({gloss for name in ("val", "test") for s in splits[name] for gloss in glosses_of(s)} - trained)
    found = [f"split {name!r} has no clip" for name in SPLITS if not splits[name]]
    if unseen:
        found.append(f"{len(unseen)} glosses have no training clip and cannot be learned ({', '.join(unseen[:5])})")
    return found
