"""RWTH-PHOENIX-Weather 2014 (multisigner and SI5) and 2014 T: folders of pictures, German Sign Language of a weather forecast.

Koller, Forster and Ney, CVIU 2015; Camgoz et al., CVPR 2018. The lists name a glob, `<id>/1/*.png`; working copies leave out
the folder `1`, and both are found. Glosses are kept as annotated (`loc-NORD`, `__ON__`): published vocabularies count them so.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from sign_dist.data.normalize import one_blank
from sign_dist.data.readers.gate import Gate
from sign_dist.data.readers.places import first_file, folder_of, frames_folder, wanted
from sign_dist.data.readers.rows import Row, has_header, with_header, without_header
from sign_dist.data.sample import Rejected, Sample

SPLITS = {"train": "train", "dev": "val", "test": "test"}
TEXT_PLACES = ("annotations/manual", "annotations", "")
COLUMNS_2014 = ("id", "folder", "signer", "annotation")
COLUMNS_2014T = ("name", "video", "start", "end", "speaker", "orth", "translation")
# The folders of the downloads, from the outside in.
RELEASES = {
    "": ("phoenix-2014-multisigner", "phoenix2014-release/phoenix-2014-multisigner"),
    "si5": ("phoenix-2014-signerindependent-SI5", "phoenix2014-release/phoenix-2014-signerindependent-SI5"),
    "T": ("PHOENIX-2014-T", "PHOENIX-2014-T-release-v3/PHOENIX-2014-T"),
}


def read_2014(root: Path, subset: str = "") -> Iterator[Sample | Rejected]:
    """Sentences of `{train,dev,test}.corpus.csv`; with the subset `si5` of the signer-independent `*.SI5.corpus.csv`.

    Raises:
        DataError: no list, or one without the usual header.
    """
    middle = ".SI5" if subset == "si5" else ""
    corpus = _Corpus(root, [f"{{}}{middle}.corpus.csv"], RELEASES[subset])
    for path, given, split in corpus.files:
        for row in with_header(path, COLUMNS_2014, "|"):
            yield corpus.sentence(row, given, split, row["id"], row["folder"], row["signer"], row["annotation"])


def read_2014t(root: Path) -> Iterator[Sample | Rejected]:
    """Sentences of `PHOENIX-2014-T.{train,dev,test}.corpus.csv`, with or without its header.

    Raises:
        DataError: no list.
    """
    corpus = _Corpus(root, ["PHOENIX-2014-T.{}.corpus.csv", "{}.corpus.csv"], RELEASES["T"])
    for path, given, split in corpus.files:
        headed = has_header(path, COLUMNS_2014T, "|")
        for row in with_header(path, COLUMNS_2014T, "|") if headed else without_header(path, COLUMNS_2014T, "|"):
            if not row.fault and (row["start"], row["end"]) != ("-1", "-1"):
                detail = f"start {row['start']!r:.30} and end {row['end']!r:.30} are not -1, and nothing says in which unit"
                yield corpus.gate.refuse(row.where, "bad_span", detail, id=row["name"])
            else:
                texts = (row["speaker"], row["orth"], row["translation"])
                yield corpus.sentence(row, given, split, row["name"], row["video"], *texts)


class _Corpus:
    """The lists of one corpus, and the folders of pictures that they name."""

    def __init__(self, root: Path, names: Sequence[str], releases: Sequence[str]) -> None:
        self._root = folder_of(root)
        self.gate = Gate(self._root)
        self.files: list[tuple[Path, str, str]] = []
        """(list, name of the split in the corpus, ours)."""
        for base in ("", *releases):
            self._base = base
            for given, split in SPLITS.items():
                places = [f"{place}/{name.format(given)}".lstrip("/") for name in names for place in TEXT_PLACES]
                if path := first_file(self._root / base, places):
                    self.files.append((path, given, split))
            if self.files:
                break
        else:
            raise wanted(self._root, [name.format("train") for name in names], TEXT_PLACES)
        features = sorted((self._root / self._base).glob("features/fullFrame-*"))
        self._frames = [path.relative_to(self._root).as_posix() for path in features if path.is_dir()]

    def sentence(
        self, row: Row, given: str, split: str, id_: str, folder: str, signer: str, glosses: str, translation: str = ""
    ) -> Sample | Rejected:
        """One sentence; its folder of pictures is `<id>/1` or `<id>`, below features/fullFrame-*/SPLIT or beside the lists."""
        if row.fault or not id_ or not folder:
            return self.gate.refuse(row.where, "bad_row", row.fault or "it names no sentence or no folder", id=id_)
        if not one_blank(glosses):
            return self.gate.refuse(row.where, "no_gloss", "the sentence has no glosses", id=id_, path=folder)
        named = folder.rpartition("/")[0] if "*" in folder else folder.rstrip("/")
        usual = f"{self._base}/features/fullFrame-210x260px".lstrip("/")
        bases = [f"{frames}/{given}" for frames in self._frames or [usual]] + [self._base, f"{self._base}/{given}".lstrip("/")]
        ends = (named, named.removesuffix("/1"), f"{named.removesuffix('/1')}/1")
        path = frames_folder(self._root, [f"{base}/{end}".lstrip("/") if base else end for base in bases for end in ends])
        return self.gate.admit(
            row.where,
            Sample(
                id=id_,
                video_path=path,
                gloss=one_blank(glosses),
                signer=signer,
                translation=one_blank(translation),
                split=split,
                source=id_.rpartition("-")[0],  # the broadcast: <date>_<weekday>_<programme>-<number>
            ),
        )
