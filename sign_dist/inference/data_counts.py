"""What the manifests of a dataset hold, counted: by split, gloss and signer, lengths, sentences, what was rejected, leaks.

Nothing here opens a video: equal manifests give equal counts.
"""

import collections
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from sign_dist.data.corpora import CORPORA, Labels
from sign_dist.data.glosses import parts
from sign_dist.data.layout import SPLITS, DatasetDir
from sign_dist.data.leaks import KINDS, Leak, known_groups, known_looks, leak_sentences
from sign_dist.data.sample import Rejected, Sample
from sign_dist.errors import DataError
from sign_dist.inference.charts import histogram
from sign_dist.video.check import REASONS

NUM_EXAMPLES = 3
# Written without blanks between words; their lengths are counted in characters.
NO_BLANKS = ("zho", "cmn", "yue", "jpn", "tha")


def labels_of(facts: Mapping[str, Any], clips: Iterable[Sample]) -> Labels:
    """Whether a label is one gloss or a sequence; a record of an older version does not say so."""
    recorded = facts.get("glosses")
    if isinstance(recorded, Mapping) and recorded.get("labels") in ("gloss", "sequence"):
        return cast("Labels", recorded["labels"])
    if corpus := CORPORA.get(str(facts.get("reader", ""))):
        return corpus.labels
    return "sequence" if facts.get("task") == "cslr" and any(" " in s.gloss for s in clips) else "gloss"


def seconds_of(clip: Sample) -> float:
    """How long a clip is."""
    return clip.n_frames / clip.fps if clip.fps else 0.0


def corpus_facts(facts: Mapping[str, Any], dataset: DatasetDir, labels: Labels) -> dict[str, Any]:
    """What is known of the corpus: what `prepare` recorded, and the preset where it recorded nothing."""
    preset = CORPORA.get(str(facts.get("reader", "")))

    def known(name: str, of_preset: str = "") -> str:
        return str(facts.get(name) or (getattr(preset, of_preset or name) if preset else "") or "")

    return {
        "name": str(facts.get("corpus") or dataset.root.name),
        "title": known("title") or f"Dataset {dataset.root.name}",
        "reader": str(facts.get("reader", "")),
        "task": known("task"),
        "labels": labels,
        "language": known("language"),
        "text_language": known("text_language", "text"),
        "licence": known("licence"),
        "origin": known("origin"),
        "colour": known("colour"),
        "notes": known("notes"),
    }


def totals(clips: Sequence[Sample], rejected: Sequence[Rejected], labels: Labels) -> dict[str, Any]:
    """The headline numbers; what is unknown ("") is counted neither as a signer nor as a recording."""
    return {
        "clips": len(clips),
        "rejected": len(rejected),
        "seconds": round(sum(map(seconds_of, clips)), 3),
        "glosses": len({gloss for s in clips for gloss in parts(s.gloss, labels)}),
        "signers": len({s.signer for s in clips if s.signer}),
        "recordings": len({s.source for s in clips if s.source}),
        "translations": sum(bool(s.translation) for s in clips),
        "clips_of_unknown_signers": sum(not s.signer for s in clips),
    }


def by_split(clips: Sequence[Sample], labels: Labels) -> list[dict[str, Any]]:
    """One row per split. `unseen_glosses` have no training clip; `unseen_share` is their share of the split's glosses said."""
    trained = {gloss for s in clips if s.split == "train" for gloss in parts(s.gloss, labels)}
    rows: list[dict[str, Any]] = []
    for split in SPLITS:
        mine = [s for s in clips if s.split == split]
        said = [gloss for s in mine for gloss in parts(s.gloss, labels)]
        unseen = [gloss for gloss in said if gloss not in trained]
        rows.append(
            {
                "split": split,
                "clips": len(mine),
                "seconds": round(sum(map(seconds_of, mine)), 3),
                "glosses": len(set(said)),
                "running_glosses": len(said),
                "signers": len({s.signer for s in mine if s.signer}),
                "unseen_glosses": sorted(set(unseen)),
                "unseen_share": len(unseen) / len(said) if said else 0.0,
            }
        )
    return rows


def by_gloss(clips: Sequence[Sample], labels: Labels) -> list[dict[str, Any]]:
    """One row per gloss, the most frequent first: how often it is said, in all and by split, in how many clips, by whom."""
    said: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    signers: dict[str, set[str]] = collections.defaultdict(set)
    within: collections.Counter[str] = collections.Counter()
    for clip in clips:
        glosses = parts(clip.gloss, labels)
        within.update(set(glosses))
        for gloss in glosses:
            said[gloss][clip.split] += 1
            signers[gloss] |= {clip.signer} - {""}
    rows = [
        {"gloss": gloss, "count": counts.total(), "clips": within[gloss], "signers": len(signers[gloss])}
        | {split: counts[split] for split in SPLITS}
        for gloss, counts in said.items()
    ]
    return sorted(rows, key=lambda row: (-row["count"], row["gloss"]))


def by_signer(clips: Sequence[Sample], labels: Labels) -> list[dict[str, Any]]:
    """One row per signer, the one with most clips first; "" are clips of unknown signers."""
    groups: dict[str, list[Sample]] = collections.defaultdict(list)
    for clip in clips:
        groups[clip.signer].append(clip)
    rows: list[dict[str, Any]] = []
    for signer, mine in groups.items():
        splits = collections.Counter(s.split for s in mine)
        glosses = {gloss for s in mine for gloss in parts(s.gloss, labels)}
        rows.append(
            {"signer": signer, "clips": len(mine), "seconds": round(sum(map(seconds_of, mine)), 3), "glosses": len(glosses)}
            | {split: splits[split] for split in SPLITS}
        )
    return sorted(rows, key=lambda row: (not row["signer"], -row["clips"], row["signer"]))


def sentences(clips: Sequence[Sample], labels: Labels, text_language: str) -> dict[str, Any]:
    """Lengths of gloss sequences and of translations; {} for isolated signs without translations."""
    found: dict[str, Any] = {}
    if labels == "sequence":
        lengths = [len(parts(s.gloss, labels)) for s in clips if s.gloss]
        said = collections.Counter(gloss for s in clips for gloss in parts(s.gloss, labels))
        found["glosses"] = {
            "lengths": histogram(lengths, whole=True),
            "running": sum(lengths),
            "said_once": sum(count == 1 for count in said.values()),
            "different_sentences": len({s.gloss for s in clips if s.gloss}),
        }
    texts = [s.translation for s in clips if s.translation]
    if texts:
        characters = text_language in NO_BLANKS
        split = [list("".join(text.split())) if characters else text.split() for text in texts]
        words = collections.Counter(word.casefold() for text in split for word in text)
        found["translations"] = {
            "lengths": histogram([len(text) for text in split], whole=True),
            "unit": "characters" if characters else "words",
            "running": words.total(),
            "different": len(words),
            "said_once": sum(count == 1 for count in words.values()),
            "different_sentences": len(set(texts)),
        }
    return found


def lengths(clips: Sequence[Sample]) -> dict[str, Any]:
    """Seconds and sampled frames of the clips, and the rates at which they were sampled."""
    rates = collections.Counter(f"{s.fps:.4g}" for s in clips)
    return {
        "seconds": histogram([seconds_of(s) for s in clips]),
        "frames": histogram([s.n_frames for s in clips], whole=True),
        "sampled_fps": ranked(rates),
    }


def ranked(counts: Mapping[str, int]) -> list[dict[str, Any]]:
    """Values with how often each occurs, the most frequent first."""
    return [{"value": value, "count": count} for value, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]


def by_reason(rejected: Sequence[Rejected]) -> list[dict[str, Any]]:
    """What was rejected, by reason, with the remedy and a few of its rows."""
    groups: dict[str, list[Rejected]] = collections.defaultdict(list)
    for row in rejected:
        groups[row.reason].append(row)
    rows: list[dict[str, Any]] = []
    for reason, members in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])):
        meaning, remedy = REASONS.get(reason, ("a code that this version does not know", "see the detail"))
        examples = [{"id": row.id, "detail": row.detail} for row in members[:NUM_EXAMPLES]]
        rows.append({"reason": reason, "count": len(members), "meaning": meaning, "remedy": remedy, "examples": examples})
    return rows


def leak_facts(dataset: DatasetDir, facts: Mapping[str, Any], clips: Sequence[Sample]) -> dict[str, Any]:
    """What stands in two splits. Bytes, signers and recordings are told by the manifests, looks by `leaks.json`.

    `state` of `leaks.json`: `fresh`, `stale` (made for other clips), `none` or `damaged`; `sign-dist leaks` mends all but the
    first.
    """
    state, evidence, not_compared = "none", dict[frozenset[str], list[str]](), 0
    groups = known_groups(clips)
    path = dataset.root / "leaks.json"
    if path.exists():
        try:
            groups += known_looks(dataset, clips)
            content = json.loads(path.read_text(encoding="utf-8"))
            state = "fresh" if content.get("dataset") == facts.get("digest") else "stale"
            not_compared = len(content.get("not_compared", {}))
            evidence = {_keys(row["clips"]): list(row.get("evidence", [])) for row in content["across_splits"]}
        except (DataError, ValueError, KeyError, TypeError, AttributeError):
            state = "damaged"
    across = sorted((leak for leak in groups if len(leak.splits) > 1), key=lambda leak: (KINDS.index(leak.kind), leak.name))
    rows = [_leak_row(leak, evidence) for leak in across]
    tally = collections.Counter((row["kind"], " and ".join(", ".join(row["splits"]).rsplit(", ", 1))) for row in rows)
    kinds = [
        {"kind": kind, "splits": splits, "count": count}
        for (kind, splits), count in sorted(tally.items(), key=lambda item: (KINDS.index(item[0][0]), item[0][1]))
    ]
    told = leak_sentences(groups)
    return {"state": state, "sentences": told, "not_compared": not_compared, "kinds": kinds, "across": rows}


def _leak_row(leak: Leak, evidence: Mapping[frozenset[str], list[str]]) -> dict[str, Any]:
    some = [f"{next(s.id for s in leak.clips if s.split == split)} ({split})" for split in leak.splits]
    seen = evidence.get(frozenset(clip.key for clip in leak.clips), []) if leak.kind == "look" else []
    return {
        "kind": leak.kind,
        "name": leak.name,
        "splits": list(leak.splits),
        "clips": len(leak.clips),
        "examples": some,
        "evidence": seen[:NUM_EXAMPLES],
    }


def _keys(clips: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    return frozenset(str(clip["key"]) for clip in clips)
