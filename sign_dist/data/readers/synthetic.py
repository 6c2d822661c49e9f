"""The synthetic world: its corpora lie on disk as a user's would, so the table reader reads them."""

from collections.abc import Iterator
from pathlib import Path

from sign_dist.data.readers import table
from sign_dist.data.sample import Rejected, Sample
from sign_dist.synthetic.corpus import write_corpus


def read(root: Path) -> Iterator[Sample | Rejected]:
    """Samples of a synthetic corpus; one of the usual size is written to `root` if nothing is there yet."""
    if not root.exists():
        write_corpus(root)
    yield from table.read(root)
