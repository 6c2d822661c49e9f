"""A prepared dataset -> report.html, one page about it, and report.json, the same facts for programs."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sign_dist import __version__
from sign_dist.config.data import Sampling
from sign_dist.data.layout import SPLITS, DatasetDir, write_json, written_whole
from sign_dist.data.leaks import all_clips
from sign_dist.data.manifest import read_rejected
from sign_dist.data.prepare import digest_of
from sign_dist.data.privacy import level_of
from sign_dist.data.sample import Sample
from sign_dist.inference import contact_sheet, data_counts
from sign_dist.inference.charts import long_tail
from sign_dist.inference.contact_sheet import MAX_PICTURES, Picture
from sign_dist.inference.data_features import feature_facts
from sign_dist.inference.data_files import MAX_PROBED, file_facts
from sign_dist.inference.html_page import number, percent, render

# Rows that stand open; the rest of a table is folded, or only in report.json.
NUM_OPEN = 24
NUM_LEAKS = 40
# Up to so many glosses, bars in the table say all; more are drawn as one curve.
MAX_BARS = 40
MANY_REJECTED = 0.05

Progress = Callable[[int, int], None]
"""Called with (done, total) of what is being looked at: files, then landmarks, then pictures."""


@dataclasses.dataclass(frozen=True)
class Written:
    """Where the page is, and what it warns of."""

    page: Path
    warnings: list[str]


def write_data_report(
    dataset: DatasetDir,
    out: Path | None = None,
    *,
    shared: str = "",
    num_pictures: int = MAX_PICTURES,
    num_files: int = MAX_PROBED,
    progress: Progress | None = None,
) -> Written:
    """Write `report.html` and `report.json` into the folder `out`, by default the dataset's.

    Args:
        shared: the feature store that datasets share, if features were extracted into one.
        num_pictures: of the contact sheet; 0 leaves it out. The dataset's level of privacy may leave it out, too.
        num_files: files into whose headers to look.

    Raises:
        DataError: the dataset is not prepared, or a manifest or its record of privacy is damaged.
    """
    folder = out or dataset.root
    report, clips = data_facts(dataset, shared=shared, num_files=num_files, progress=progress)
    shown = _contact_sheet(dataset, clips, report, num_pictures, progress)
    report["contact_sheet"] = {
        "privacy": report["privacy"],
        "clips": [picture.clip.id for picture in shown if picture.uri],
        "without_picture": {picture.clip.id: picture.reason for picture in shown if not picture.uri},
    }
    with written_whole(folder / "report.html") as temporary:
        temporary.write_text(render_data_page(report, shown), encoding="utf-8")
    write_json(folder / "report.json", report)
    return Written(folder / "report.html", report["warnings"])


def data_facts(
    dataset: DatasetDir, *, shared: str = "", num_files: int = MAX_PROBED, progress: Progress | None = None
) -> tuple[dict[str, Any], list[Sample]]:
    """The content of report.json but for the contact sheet, and the dataset's clips."""
    facts = dataset.facts()
    clips, rejected = all_clips(dataset), read_rejected(dataset)
    labels = data_counts.labels_of(facts, clips)
    corpus = data_counts.corpus_facts(facts, dataset, labels)
    sampling = Sampling().model_dump() | facts.get("sampling", {})
    report: dict[str, Any] = {
        "version": __version__,
        "corpus": corpus,
        "totals": data_counts.totals(clips, rejected, labels),
        "warnings": [],
        "splits": data_counts.by_split(clips, labels),
        "glosses": data_counts.by_gloss(clips, labels),
        "signers": data_counts.by_signer(clips, labels),
        "sentences": data_counts.sentences(clips, labels, corpus["text_language"]),
        "lengths": data_counts.lengths(clips),
        "files": file_facts(dataset.videos_root(), clips, most=num_files, image_fps=sampling["image_fps"], progress=progress),
        "rejected": data_counts.by_reason(rejected),
        "split": {"policy": ""} | facts.get("split", {}),
        "sampling": sampling,
        "gloss_settings": facts.get("glosses", {}),
        "leaks": data_counts.leak_facts(dataset, facts, clips),
        "features": feature_facts(dataset, clips, shared=shared, progress=progress),
        "privacy": level_of(dataset),
        "digests": {"dataset": str(facts.get("digest", "")), "manifests": digest_of(clips)},
    }
    report["warnings"] = list(
        dict.fromkeys([*map(str, facts.get("warnings", [])), *report["leaks"].pop("sentences"), *cautions(report)])
    )
    return report, clips


def cautions(report: Mapping[str, Any]) -> list[str]:
    """What to know before this dataset is used, beyond what `prepare` said."""
    totals, files, digests = report["totals"], report["files"], report["digests"]
    all_rows = totals["clips"] + totals["rejected"]
    found: list[str] = []
    if not totals["clips"]:
        found.append("no clip is left: see why they were rejected")
    if digests["dataset"] and digests["dataset"] != digests["manifests"]:
        found.append("the manifests were changed after `prepare` wrote them: prepare the dataset again")
    if files["missing"]["files"]:
        found.append(
            f"{number(files['missing']['files'])} of {number(files['files'])} video files are not there any more "
            f"({number(files['missing']['clips'])} clips), such as {files['missing']['examples'][0]}"
        )
    if files["unreadable"]:
        codes = ", ".join(f"{count} {code}" for code, count in files["unreadable"].items())
        found.append(f"files changed since they were checked, and cannot be read now: {codes}")
    if all_rows and totals["rejected"] / all_rows > MANY_REJECTED:
        found.append(f"{percent(totals['rejected'] / all_rows)} of the annotated clips were rejected")
    rare = sum(row["train"] == 1 for row in report["glosses"])
    if rare:
        found.append(f"{number(rare)} of {number(totals['glosses'])} glosses stand only once in train")
    if totals["clips"] and totals["clips_of_unknown_signers"]:
        who = "all clips" if not totals["signers"] else f"{number(totals['clips_of_unknown_signers'])} clips"
        found.append(f"the signers of {who} are not known: whether they stand in two splits cannot be told")
    for store in report["features"]:
        if store["damage"]:
            found.append(f"features {store['name']} are damaged: {store['damage']}")
        elif store["failed"]:
            found.append(f"{number(store['failed'])} of {number(store['clips'])} clips failed to give features ({store['name']})")
    if not report["corpus"]["licence"]:
        found.append("no licence is recorded: find out what it allows before you share anything made from it")
    return found


def render_data_page(report: Mapping[str, Any], shown: Sequence[Picture]) -> str:
    """The page as HTML text."""
    glosses = report["glosses"]
    return render(
        "data.html.j2",
        title=report["corpus"]["title"],
        report=report,
        splits=SPLITS,
        pictures=shown,
        num_open=len(glosses) if len(glosses) <= MAX_BARS else NUM_OPEN,
        num_signers_open=NUM_OPEN,
        most_leaks=NUM_LEAKS,
        highest=max((row["count"] for row in glosses), default=0),
        tail=long_tail(glosses, SPLITS) if len(glosses) > MAX_BARS else None,
        half=half_of(glosses),
    )


def half_of(glosses: Sequence[Mapping[str, Any]]) -> int:
    """How many of the most frequent glosses make up half of all that is signed."""
    need, seen = sum(row["count"] for row in glosses) / 2, 0
    for rank, row in enumerate(glosses, start=1):
        seen += row["count"]
        if seen >= need:
            return rank
    return 0


def _contact_sheet(
    dataset: DatasetDir, clips: Sequence[Sample], report: Mapping[str, Any], most: int, progress: Progress | None
) -> list[Picture]:
    by_gloss = report["corpus"]["labels"] == "gloss" and report["totals"]["glosses"] > 0
    chosen = contact_sheet.choose(clips, most, by_gloss=by_gloss)
    sampling = report["sampling"]
    shown: list[Picture] = []
    for picture in contact_sheet.pictures(
        dataset.videos_root(),
        chosen,
        report["privacy"],
        image_fps=sampling["image_fps"],
        max_seconds=sampling["max_seconds"],
    ):
        shown.append(picture)
        if progress:
            progress(len(shown), len(chosen))
    return shown
