"""DatasetDir: every path inside a dataset directory."""

import contextlib
import dataclasses
import json
import os
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any, cast

from sign_dist.errors import DataError

SPLITS = ("train", "val", "test")


@dataclasses.dataclass(frozen=True)
class DatasetDir:
    """A prepared dataset. `dataset.json` is written last: if it is there, the rest is complete."""

    root: Path

    @property
    def facts_file(self) -> Path:
        return self.root / "dataset.json"

    @property
    def vocab_file(self) -> Path:
        return self.root / "vocab" / "gloss.txt"

    @property
    def rejected_file(self) -> Path:
        return self.root / "manifests" / "rejected.tsv"

    def manifest_file(self, split: str) -> Path:
        return self.root / "manifests" / f"{split}.tsv"

    @property
    def features(self) -> Path:
        return self.root / "features"

    def facts(self) -> dict[str, Any]:
        """The content of `dataset.json`.

        Raises:
            DataError: the directory is not there, was not prepared to the end, or its record is damaged.
        """
        if not self.facts_file.exists():
            state = "is not finished" if self.root.exists() else "does not exist"
            raise DataError(f"dataset {str(self.root)!r} {state}: run `sign-dist prepare READER RAW {self.root}` first")
        try:
            facts = json.loads(self.facts_file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{str(self.facts_file)!r} is damaged ({error}): prepare the dataset again") from None
        if not isinstance(facts, dict):
            raise DataError(f"{str(self.facts_file)!r} is no record of a prepared dataset: prepare it again")
        return cast("dict[str, Any]", facts)

    def videos_root(self) -> Path:
        """The folder that `video_path` of the manifests is relative to."""
        return (self.root / self.facts()["videos_root"]).resolve()


@contextlib.contextmanager
def written_whole(path: Path) -> Generator[Path]:
    """Write to a temporary name beside `path`, then rename: a reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """JSON, readable by people, written whole."""
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False, sort_keys=False) + "\n", encoding="utf-8")
