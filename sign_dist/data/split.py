"""Divide clips into train, val and test: as given, stratified by gloss, or by signer; and say what leaks."""

import collections
import dataclasses
import math
import random
from collections.abc import Callable, Sequence
from typing import Literal

from sign_dist.config.data import SplitSettings
from sign_dist.data.layout import SPLITS
from sign_dist.data.sample import Sample
from sign_dist.errors import DataError

Policy = Literal["given", "gloss", "signer"]
# What corpora call their splits.
ALIASES = {"training": "train", "dev": "val", "valid": "val", "validation": "val", "testing": "test"}
MIN_SIGNERS = 3


@dataclasses.dataclass(frozen=True)
class Division:
    """Clips by split, the policy that made it, and sentences about what a reader of scores must know."""

    splits: dict[str, list[Sample]]
    policy: Policy
    warnings: list[str]


def divide(samples: Sequence[Sample], settings: SplitSettings) -> Division:
    """Put every sample into exactly one split.

    Raises:
        DataError: the policy cannot be followed with these samples.
    """
    policy = settings.by if settings.by != "auto" else _choose(samples)
    match policy:
        case "given":
            splits = _given(samples)
        case "gloss":
            splits = _by_gloss(samples, settings)
        case "signer":
            splits = _by_signer(samples, settings)
    splits = {name: [dataclasses.replace(s, split=name) for s in splits.get(name, [])] for name in SPLITS}
    if not splits["train"]:
        raise DataError(f"the split by {policy} leaves no clip for training: {len(samples)} clips are too few, or mis-labelled")
    return Division(splits, policy, [*_leaks(splits), *_gaps(splits)])


def _choose(samples: Sequence[Sample]) -> Policy:
    if samples and all(s.split for s in samples):
        return "given"
    return "signer" if len({s.signer for s in samples if s.signer}) >= MIN_SIGNERS else "gloss"


def _given(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    splits: dict[str, list[Sample]] = collections.defaultdict(list)
    for sample in samples:
        name = ALIASES.get(sample.split.lower(), sample.split.lower())
        if name not in SPLITS:
            raise DataError(
                f"clip {sample.id!r} has split {sample.split!r}: allowed are {', '.join(SPLITS)}; or divide anew with "
                "split.by=gloss or split.by=signer"
            )
        splits[name].append(sample)
    return splits


def _by_gloss(samples: Sequence[Sample], settings: SplitSettings) -> dict[str, list[Sample]]:
    """Stratified: each gloss gives its share to val and test; a gloss with few clips keeps at least one in train."""
    rng = random.Random(settings.seed)
    splits: dict[str, list[Sample]] = {name: [] for name in SPLITS}
    owed = {"val": 0.0, "test": 0.0}
    for _, clips in sorted(_group(samples, lambda s: s.gloss).items()):
        rng.shuffle(clips)
        count = len(clips)
        free = count - 1
        for name, share in (("test", settings.test), ("val", settings.val)):
            # What one small gloss cannot give, the next ones owe, so that the totals come out right.
            owed[name] += share * count
            # But not all of it from one gloss: it would have nothing left to be learned from.
            take = min(free, int(owed[name] + 0.5), math.ceil(2 * share * count))
            owed[name] -= take
            free -= take
            splits[name] += [clips.pop() for _ in range(take)]
        splits["train"] += clips
    return _in_order(splits, samples)


def _by_signer(samples: Sequence[Sample], settings: SplitSettings) -> dict[str, list[Sample]]:
    """Whole signers go to test and val until their share is reached, small ones first; unknown signers train."""
    groups = _group([s for s in samples if s.signer], lambda s: s.signer)
    if len(groups) < MIN_SIGNERS:
        raise DataError(
            f"a split by signer needs at least {MIN_SIGNERS} signers, the corpus names {len(groups)}: "
            "fill the signer column or split by gloss"
        )
    order = sorted(groups)
    random.Random(settings.seed).shuffle(order)
    order.sort(key=lambda signer: -len(groups[signer]))  # taken from the end; chance decides between equals
    splits: dict[str, list[Sample]] = {name: [] for name in SPLITS}
    for name, share in (("test", settings.test), ("val", settings.val)):
        while order and len(order) > (2 if name == "test" else 1) and len(splits[name]) < share * len(samples) * 0.999:
            splits[name] += groups[order.pop()]
    splits["train"] = [s for signer in order for s in groups[signer]] + [s for s in samples if not s.signer]
    return _in_order(splits, samples)


def _in_order(splits: dict[str, list[Sample]], samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    rank = {sample.id: i for i, sample in enumerate(samples)}
    return {name: sorted(clips, key=lambda s: rank[s.id]) for name, clips in splits.items()}


def _leaks(splits: dict[str, list[Sample]]) -> list[str]:
    """A signer, or the same bytes and span, in two splits."""
    found: list[str] = []
    signers = _places(splits, lambda s: s.signer)
    if shared := sorted(signer for signer, names in signers.items() if len(names) > 1):
        found.append(
            f"{len(shared)} of {len(signers)} signers stand in more than one split ({', '.join(shared[:5])}): "
            "scores will not tell how a new signer fares"
        )
    files = _places(splits, lambda s: s.key if s.sha256 else "")
    if twice := {key for key, names in files.items() if len(names) > 1}:
        ids = [s.id for clips in splits.values() for s in clips if s.sha256 and s.key in twice]
        found.append(
            f"{len(twice)} identical clips stand in more than one split ({', '.join(ids[:6])}): test scores will be too good"
        )
    return found


def _gaps(splits: dict[str, list[Sample]]) -> list[str]:
    """Glosses that are tested but never trained, and splits without clips."""
    trained = {s.gloss for s in splits["train"]}
    unseen = sorted({s.gloss for name in ("val", "test") for s in splits[name]} - trained)
    found = [f"split {name!r} has no clip" for name in SPLITS if not splits[name]]
    if unseen:
        found.append(f"{len(unseen)} glosses have no training clip and cannot be learned ({', '.join(unseen[:5])})")
    return found


def _places(splits: dict[str, list[Sample]], key: Callable[[Sample], str]) -> dict[str, set[str]]:
    places: dict[str, set[str]] = collections.defaultdict(set)
    for name, clips in splits.items():
        for sample in clips:
            if key(sample):
                places[key(sample)].add(name)
    return places


def _group(samples: Sequence[Sample], key: Callable[[Sample], str]) -> dict[str, list[Sample]]:
    groups: dict[str, list[Sample]] = collections.defaultdict(list)
    for sample in samples:
        groups[key(sample)].append(sample)
    return groups
