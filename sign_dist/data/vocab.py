"""gloss <-> id. A class id counts from 0; the continuous task puts its CTC blank in front of them."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from sign_dist.data.layout import written_whole
from sign_dist.errors import DataError


@dataclasses.dataclass(frozen=True)
class Vocab:
    """Glosses in the order of their ids."""

    glosses: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.glosses:
            raise DataError("a vocabulary needs at least one gloss, got none: does the corpus have a gloss column?")
        if unfit := [g for g in self.glosses if not g.strip() or "\n" in g or "\r" in g]:
            raise DataError(f"{unfit[0]!r} is no gloss: a vocabulary holds one gloss a line, none of them empty")
        if len(set(self.glosses)) != len(self.glosses):
            twice = sorted({g for g in self.glosses if self.glosses.count(g) > 1})
            raise DataError(f"glosses stand twice in the vocabulary: {', '.join(twice[:5])}")

    @classmethod
    def of(cls, glosses: Iterable[str]) -> "Vocab":
        """The distinct glosses, sorted, so that equal corpora give equal ids."""
        return cls(tuple(sorted(set(glosses))))

    def __len__(self) -> int:
        return len(self.glosses)

    def id(self, gloss: str) -> int:
        """Raises DataError for a gloss that is not in it."""
        try:
            return self.glosses.index(gloss)
        except ValueError:
            raise DataError(
                f"gloss {gloss!r} is not among the {len(self)} of the vocabulary: it was made from another dataset"
            ) from None

    def write(self, path: Path) -> None:
        """One gloss per line."""
        with written_whole(path) as temporary:
            temporary.write_text("".join(f"{gloss}\n" for gloss in self.glosses), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> "Vocab":
        if not path.exists():
            raise DataError(f"no vocabulary {str(path)!r}: the clips have no glosses, or `sign-dist prepare` has not run")
        return cls(tuple(line for line in path.read_text(encoding="utf-8").split("\n") if line))
