"""Corpus -> dataset directory: read annotations, check every clip, divide, write manifests."""

import collections
import dataclasses
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from sign_dist.config.data import Glosses, Sampling, SplitSettings
from sign_dist.data.corpora import CORPORA, Corpus, Labels
from sign_dist.data.glosses import absent, choose, drop_rare, parts, read_keep
from sign_dist.data.layout import SPLITS, DatasetDir, write_json
from sign_dist.data.leaks import alike
from sign_dist.data.manifest import write_manifest, write_rejected
from sign_dist.data.readers import READERS
from sign_dist.data.sample import Rejected, Sample
from sign_dist.data.split import ALIASES, Division, divide
from sign_dist.data.vocab import Vocab
from sign_dist.errors import DataError, did_you_mean
from sign_dist.video.check import Checked, check_clip

CheckAll = Callable[[Sequence[Sample], Path, Sampling], Iterable[Checked]]
"""(samples, folder of the videos, sampling) -> one `Checked` per sample, in order. `on_ray.extraction` brings a parallel one."""


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What `prepare` did, for people to read."""

    dataset: DatasetDir
    counts: dict[str, int]
    num_glosses: int
    rejected: dict[str, int]
    policy: str
    warnings: list[str]


def check_one_by_one(samples: Sequence[Sample], folder: Path, sampling: Sampling) -> Iterable[Checked]:
    """Check in this process; what tests use and what `prepare` does without Ray."""
    return [check_clip(folder / s.video_path, start_s=s.start_s, end_s=s.end_s, sampling=sampling) for s in samples]


def prepare(
    reader: str,
    raw: Path,
    root: Path,
    *,
    split: SplitSettings | None = None,
    sampling: Sampling | None = None,
    glosses: Glosses | None = None,
    check_all: CheckAll = check_one_by_one,
) -> Prepared:
    """Write the dataset directory `root` from the corpus `raw`; `reader` is a corpus of `CORPORA` or a reader of `READERS`.

    A clip that cannot be used or is not wanted becomes a row of `rejected.tsv` with its reason; nothing is repaired or
    replaced. Without `sampling` the corpus's own is taken.

    Raises:
        DataError: no such reader or corpus, no usable clip, a split that cannot be made, or an unfit list of glosses.
    """
    corpus = CORPORA.get(reader)
    rows = list(_read(reader, corpus, raw))
    split, glosses, sampling = split or SplitSettings(), glosses or Glosses(), sampling or sampling_of(reader)
    labels = glosses.labels if glosses.labels != "auto" else corpus.labels if corpus else "gloss"
    folder = raw.parent if raw.is_file() else raw
    unwritable = [_unwritable(row) for row in rows if isinstance(row, Sample) and not _writable(row)]
    annotated = [row for row in rows if isinstance(row, Sample) and _writable(row)]
    chosen = choose(annotated, glosses, labels, cleanup=corpus.cleanup if corpus else "")
    usable, refused = _sort_out(chosen.samples, check_all(chosen.samples, folder, sampling) if chosen.samples else ())
    usable, rare = drop_rare(usable, glosses.min_clips, labels)
    rejected = [row for row in rows if isinstance(row, Rejected)] + unwritable + chosen.left_out + refused + rare
    if not usable:
        raise DataError(f"none of the {len(rows)} clips in {str(raw)!r} can be used: {_tally_text(rejected)}")
    # Copies that `sign-dist leaks` found in an earlier preparation of this dataset stay together now.
    division = divide(usable, split, alike=alike(DatasetDir(root)), sequences=True if labels == "sequence" else None)
    missed = absent(glosses.keep, usable, labels) if glosses.keep else []
    dataset = DatasetDir(root)
    dataset.facts_file.unlink(missing_ok=True)
    for name in SPLITS:
        write_manifest(dataset.manifest_file(name), division.splits[name])
    write_rejected(dataset.rejected_file, rejected)
    num_glosses = _write_vocab(dataset, division, labels)
    prepared = Prepared(
        dataset,
        {name: len(clips) for name, clips in division.splits.items()},
        num_glosses,
        dict(collections.Counter(row.reason for row in rejected).most_common()),
        division.policy,
        [*_unlike_known(corpus, annotated), *_missed_text(missed, glosses), *division.warnings],
    )
    facts = _facts(prepared, reader, raw, folder, division, split, sampling)
    names = {"labels": labels, "merged": chosen.merged, "absent": missed}
    write_json(dataset.facts_file, facts | _corpus_facts(corpus, usable, labels) | {"glosses": glosses.model_dump() | names})
    return prepared


def sampling_of(reader: str) -> Sampling:
    """How the clips of a corpus are sampled where nobody says otherwise."""
    return CORPORA[reader].sampling() if reader in CORPORA else Sampling()


def _read(reader: str, corpus: Corpus | None, raw: Path) -> Iterable[Sample | Rejected]:
    known = dict.fromkeys([*READERS, *CORPORA])
    if reader not in known:
        raise DataError(f"no reader {reader!r}: there are {', '.join(known)};{did_you_mean(reader, known)}".rstrip(";"))
    if not raw.exists() and reader != "synthetic":
        raise DataError(f"no corpus {str(raw)!r}: give the folder that holds the videos")
    read = READERS[corpus.reader if corpus else reader]
    return read(raw, subset=corpus.subset) if corpus and corpus.subset else read(raw)


def _write_vocab(dataset: DatasetDir, division: Division, labels: Labels) -> int:
    """Write the glosses of train, and say how many; a corpus that has only translations gets no vocabulary."""
    words = [gloss for s in division.splits["train"] for gloss in parts(s.gloss, labels)]
    if not words:
        dataset.vocab_file.unlink(missing_ok=True)
        return 0
    vocab = Vocab.of(words)
    vocab.write(dataset.vocab_file)
    return len(vocab)


def _unlike_known(corpus: Corpus | None, annotated: Sequence[Sample]) -> list[str]:
    """Sentences on splits that hold other numbers of clips than the corpus is known to have."""
    if corpus is None:
        return []
    found = collections.Counter(ALIASES.get(s.split.lower(), s.split.lower()) for s in annotated)
    return [
        f"the annotations give {found[name]} clips for {name}, {corpus.title} is known to have {count}: are they whole?"
        for name, count in corpus.counts.items()
        if found[name] != count
    ]


def _missed_text(missed: Sequence[str], glosses: Glosses) -> list[str]:
    if not missed:
        return []
    some = ", ".join(missed[:5]) + (", ..." if len(missed) > 5 else "")
    return [f"{len(missed)} of the {len(read_keep(Path(glosses.keep)))} glosses of {glosses.keep!r} have no usable clip ({some})"]


def _corpus_facts(corpus: Corpus | None, usable: Sequence[Sample], labels: Labels) -> dict[str, Any]:
    """What is known of the corpus itself; for a reader without a corpus, what its clips show."""
    if corpus is None:
        task = ("cslr" if labels == "sequence" else "islr") if any(s.gloss for s in usable) else "slt"
        return {"task": task, "language": "", "text_language": "", "licence": ""}
    return {
        "corpus": corpus.name,
        "title": corpus.title,
        "task": corpus.task,
        "language": corpus.language,
        "text_language": corpus.text,
        "licence": corpus.licence,
        "origin": corpus.origin,
        "colour": corpus.colour,
        "notes": corpus.notes,
    }


def _writable(sample: Sample) -> bool:
    """A manifest is a UTF-8 table: a path that it would change could not be found again."""
    return not re.search(r"[\t\r\n\ud800-\udfff]", sample.id + sample.video_path)


def _unwritable(sample: Sample) -> Rejected:
    """The row of a clip whose name no table can hold, with that name written in escapes."""
    id_, path = (text.encode("unicode_escape").decode("ascii") for text in (sample.id, sample.video_path))
    return Rejected(id_, path, "bad_name", "its name is not UTF-8, or holds a tab or a line break")


def _sort_out(samples: Sequence[Sample], checks: Iterable[Checked]) -> tuple[list[Sample], list[Rejected]]:
    usable: list[Sample] = []
    refused: list[Rejected] = []
    for sample, check in zip(samples, checks, strict=True):
        if check.reason:
            refused.append(Rejected(sample.id, sample.video_path, check.reason, check.detail))
        else:
            usable.append(dataclasses.replace(sample, n_frames=check.num_frames, fps=check.fps, sha256=check.sha256))
    return usable, refused


def _facts(
    prepared: Prepared,
    reader: str,
    raw: Path,
    folder: Path,
    division: Division,
    split: SplitSettings,
    sampling: Sampling,
) -> dict[str, Any]:
    clips = [s for name in SPLITS for s in division.splits[name]]
    return {
        "reader": reader,
        "corpus": raw.stem if raw.is_file() else raw.name,
        # Relative, so that corpus and dataset may move together.
        "videos_root": Path(os.path.relpath(folder.resolve(), prepared.dataset.root.resolve())).as_posix(),
        "counts": prepared.counts,
        "num_glosses": prepared.num_glosses,
        "num_signers": len({s.signer for s in clips if s.signer}),
        "seconds": round(sum(s.n_frames / s.fps for s in clips if s.fps), 1),
        "split": split.model_dump() | {"policy": division.policy},
        "sampling": sampling.model_dump(),
        "rejected": prepared.rejected,
        "warnings": prepared.warnings,
        "digest": digest_of(clips),
    }


def digest_of(samples: Iterable[Sample]) -> str:
    """Names a set of clips with their labels and splits."""
    lines = sorted(
        f"{s.split}\t{s.id}\t{s.key}\t{s.gloss}\t{s.signer}" + (f"\t{s.translation}" if s.translation else "") for s in samples
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _tally_text(rejected: Sequence[Rejected]) -> str:
    tally = collections.Counter(row.reason for row in rejected)
    return ", ".join(f"{count} {reason}" for reason, count in tally.most_common()) or "there are none"
