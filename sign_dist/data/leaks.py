"""What stands in two splits: the same bytes, the same look, the same signer, the same recording.

Signers, recordings and bytes are told by the manifests. Looks are told by pictures: `find_leaks` looks at every clip and keeps
what it finds in `leaks.json`, from where a training reads it.
"""

import collections
import dataclasses
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, cast

from sign_dist.data.layout import SPLITS, DatasetDir, write_json
from sign_dist.data.manifest import read_manifest
from sign_dist.data.sample import Sample
from sign_dist.errors import DataError, VideoError
from sign_dist.video.phash import MIN_ROWS, Signature, clip_signature, find_matches

Kind = Literal["bytes", "look", "source", "signer"]
KINDS: tuple[Kind, ...] = ("bytes", "look", "source", "signer")

Signed = Signature | str
"""A clip's signature, or why it has none."""
SignAll = Callable[[Sequence[Sample], Path, float], Iterable[Signed]]
"""(samples, folder of the videos, rate of picture folders) -> one `Signed` per sample, in order; the place to go parallel."""


@dataclasses.dataclass(frozen=True)
class Leak:
    """Clips that share something. `name` says what: a digest, a signer, a recording; for a look, the first clip.

    `distance` is that of the least alike pair of clips that were matched: 0 for equal bytes.
    """

    kind: Kind
    name: str
    clips: tuple[Sample, ...]
    distance: float = 0.0
    evidence: tuple[str, ...] = ()

    @property
    def splits(self) -> tuple[str, ...]:
        found = {clip.split for clip in self.clips}
        return tuple(name for name in SPLITS if name in found)

    def summary(self) -> str:
        """The evidence in a few words: the first pair of a look, or the first clips that share a name."""
        if self.kind == "look":
            return self.evidence[0] + (f" (+{len(self.evidence) - 1})" if len(self.evidence) > 1 else "")
        names = [clip.id for clip in self.clips]
        return ", ".join(names[:3]) + (f" (+{len(names) - 3})" if len(names) > 3 else "")

    def to_json(self) -> dict[str, Any]:
        clips = [{"id": s.id, "split": s.split, "key": s.key} for s in self.clips]
        return {
            "kind": self.kind,
            "name": self.name,
            "splits": self.splits,
            "clips": clips,
            "distance": round(self.distance, 5),
            "evidence": self.evidence,
        }


@dataclasses.dataclass(frozen=True)
class LeakReport:
    """What `find_leaks` found: across splits, and clips of one split that look alike; and clips it could not look at."""

    across: list[Leak]
    within: list[Leak]
    num_clips: int
    not_compared: dict[str, str]


def sign_one_by_one(samples: Sequence[Sample], folder: Path, image_fps: float) -> Iterable[Signed]:
    """Signatures in this process, one clip after the other."""
    return (sign(folder / s.video_path, s.start_s, s.end_s, image_fps) for s in samples)


def sign(path: Path, start_s: float, end_s: float, image_fps: float = 25.0) -> Signed:
    """A clip's signature, or why it has none; nobody is thrown at, so it can run in another process."""
    try:
        signature = clip_signature(path, start_s, end_s, image_fps=image_fps)
    except VideoError as error:
        return f"{error.code}: {error}"
    except (OSError, MemoryError) as error:
        return f"{type(error).__name__}: {error}"
    return signature if len(signature) >= MIN_ROWS else f"too_short: {len(signature)} rows, {MIN_ROWS} are needed"


def find_leaks(
    dataset: DatasetDir, *, sign_all: SignAll = sign_one_by_one, progress: Callable[[int, int], None] | None = None
) -> LeakReport:
    """Compare all clips of a dataset and write `leaks.json` into it.

    Raises:
        DataError: the dataset is not prepared.
    """
    facts = dataset.facts()
    clips = all_clips(dataset)
    # Equal bytes have equal pictures: one of them is looked at.
    first: dict[str, int] = {}
    for i, clip in enumerate(clips):
        first.setdefault(clip.key if clip.sha256 else clip.id, i)
    chosen = [clips[i] for i in first.values()]
    image_fps = float(facts.get("sampling", {}).get("image_fps", 25.0))
    signatures: list[Signature] = []
    looked: list[Sample] = []
    not_compared: dict[str, str] = {}
    for done, (clip, signed) in enumerate(zip(chosen, sign_all(chosen, dataset.videos_root(), image_fps), strict=True), start=1):
        if isinstance(signed, str):
            not_compared[clip.id] = signed
        else:
            signatures.append(signed)
            looked.append(clip)
        if progress:
            progress(done, len(chosen))
    groups = [*known_groups(clips), *_looks(looked, signatures, clips)]
    groups.sort(key=lambda leak: (KINDS.index(leak.kind), leak.name))
    report = LeakReport(
        across=[leak for leak in groups if len(leak.splits) > 1],
        within=[leak for leak in groups if len(leak.splits) == 1 and leak.kind in ("bytes", "look")],
        num_clips=len(clips),
        not_compared=not_compared,
    )
    write_json(
        dataset.root / "leaks.json",
        {
            "dataset": facts["digest"],
            "clips": report.num_clips,
            "across_splits": [leak.to_json() for leak in report.across],
            "within_a_split": [leak.to_json() for leak in report.within],
            "not_compared": not_compared,
        },
    )
    return report


def all_clips(dataset: DatasetDir) -> list[Sample]:
    return [s for name in SPLITS if dataset.manifest_file(name).exists() for s in read_manifest(dataset, name)]


def known_groups(clips: Sequence[Sample]) -> list[Leak]:
    """Clips of the same bytes and span, of one signer and of one recording, as the manifests tell; two clips or more."""
    keys: dict[Kind, Callable[[Sample], str]] = {
        "signer": lambda s: s.signer,
        "bytes": lambda s: s.key if s.sha256 else "",
        "source": lambda s: s.source,
    }
    found: list[Leak] = []
    for kind, key in keys.items():
        groups: dict[str, list[Sample]] = collections.defaultdict(list)
        for clip in clips:
            if name := key(clip):
                groups[name].append(clip)
        found += [Leak(kind, name, tuple(members)) for name, members in sorted(groups.items()) if len(members) > 1]
    return found


def known_looks(dataset: DatasetDir, clips: Sequence[Sample]) -> list[Leak]:
    """Clips that look alike, from the `leaks.json` of an earlier `find_leaks`; of those that the dataset still has."""
    by_key: dict[str, list[Sample]] = collections.defaultdict(list)
    for clip in clips:
        by_key[clip.key].append(clip)
    found: list[Leak] = []
    for keys in alike(dataset):
        members = tuple(clip for key in keys for clip in by_key.get(key, ()))
        if len(members) > 1:
            found.append(Leak("look", members[0].id, members))
    return found


def alike(dataset: DatasetDir) -> list[list[str]]:
    """Sets of `Sample.key` of clips that look alike, for `split.divide`; none where nobody has looked.

    Raises:
        DataError: `leaks.json` is damaged.
    """
    path = dataset.root / "leaks.json"
    if not path.exists():
        return []
    try:
        content = cast("dict[str, Any]", json.loads(path.read_text(encoding="utf-8")))
        rows = [*content["across_splits"], *content["within_a_split"]]
        return [sorted({str(clip["key"]) for clip in row["clips"]}) for row in rows if row["kind"] == "look"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{str(path)!r} is damaged ({error}): run `sign-dist leaks {dataset.root}` again, or remove it") from None


def leak_sentences(groups: Iterable[Leak], one: str = "", other: str = "") -> list[str]:
    """One sentence for each kind of leak; with `one` and `other` only what those two splits share."""
    kinds: dict[str, list[Leak]] = collections.defaultdict(list)
    seen: collections.Counter[str] = collections.Counter()
    for leak in groups:
        seen[leak.kind] += 1
        if {one, other} <= set(leak.splits) if one else len(leak.splits) > 1:
            kinds[leak.kind].append(leak)
    where = f"in both {one} and {other}" if one else "in more than one split"
    found: list[str] = []
    for kind, leaks in kinds.items():
        clips = ", ".join(s.id for leak in leaks for s in leak.clips if not one or s.split in (one, other))
        names = ", ".join(leak.name for leak in leaks[:5])
        match kind:
            case "signer":
                text = f"{len(leaks)} signers stand {where} ({names}): scores will not tell how a new signer fares"
            case "bytes":
                text = f"{len(leaks)} identical clips stand {where} ({_short(clips)}): test scores will be too good"
            case "look":
                text = f"{len(leaks)} performances stand {where} as copies ({_short(clips)}): test scores will be too good"
            case _:
                text = f"{len(leaks)} recordings stand {where} ({names}): test clips look like trained ones"
        found.append(text)
    return found


def refuse_leaks(dataset: DatasetDir, train_split: str, *, allow: bool) -> list[str]:
    """What training and test share, in sentences.

    Test is the split `test`, or `val` in a dataset without test clips: what is held out for the score that is told to others.

    Raises:
        DataError: they share something, and that is not allowed.
    """
    clips = all_clips(dataset)
    counts = collections.Counter(s.split for s in clips)
    held_out = "test" if counts["test"] else "val"
    found = shared_with_training(dataset, train_split, held_out)
    if found and not allow:
        raise DataError(
            f"dataset {str(dataset.root)!r} leaks from {train_split} into {held_out}: {'; '.join(found)}. Divide it anew "
            "(split.by=signer keeps signers apart, split.by=source recordings), or train with data.allow_leaks=true, "
            "and every report says so"
        )
    return found


def shared_with_training(dataset: DatasetDir, train_split: str, split: str) -> list[str]:
    """What the split that is evaluated shares with training, in sentences for the reader of its scores."""
    if split == train_split:
        return []
    clips = all_clips(dataset)
    return leak_sentences([*known_groups(clips), *known_looks(dataset, clips)], train_split, split)


def _looks(looked: Sequence[Sample], signatures: Sequence[Signature], clips: Sequence[Sample]) -> list[Leak]:
    """Clips joined by matches, with all others of the same bytes."""
    matches = find_matches(signatures)
    group_of = components(len(looked), ((match.first, match.second) for match in matches))
    same: dict[str, list[Sample]] = collections.defaultdict(list)
    for clip in clips:
        same[clip.key if clip.sha256 else clip.id].append(clip)
    members: dict[int, list[Sample]] = collections.defaultdict(list)
    for i, clip in enumerate(looked):
        members[group_of[i]] += same[clip.key if clip.sha256 else clip.id]
    evidence: dict[int, list[str]] = collections.defaultdict(list)
    farthest: dict[int, float] = collections.defaultdict(float)
    for match in matches:
        group = group_of[match.first]
        how = f"{looked[match.first].id} ~ {looked[match.second].id}: distance {match.distance:.4f}, {match.offset_s:+.2f} s"
        evidence[group].append(how + (", mirrored" if match.mirrored else ""))
        farthest[group] = max(farthest[group], match.distance)
    return [
        Leak("look", members[group][0].id, tuple(members[group]), farthest[group], tuple(lines))
        for group, lines in evidence.items()
    ]


def components(count: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """For each of `count` things the first one that it is connected with, over any number of pairs.

    >>> components(5, [(3, 1), (4, 3)])
    [0, 1, 2, 1, 1]
    """
    parent = list(range(count))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    for one, other in pairs:
        low, high = sorted((root(one), root(other)))
        parent[high] = low
    return [root(i) for i in range(count)]


def _short(text: str) -> str:
    names = text.split(", ")
    return ", ".join(names[:6])
