"""One file per corpus: annotations -> Samples. `READERS` is the list; a reader yields Samples and Rejected rows."""

from collections.abc import Callable, Iterator
from pathlib import Path

from sign_dist.data.readers import folder, synthetic, table
from sign_dist.data.sample import Rejected, Sample

Reader = Callable[[Path], Iterator[Sample | Rejected]]

READERS: dict[str, Reader] = {
    "folder": folder.read,
    "table": table.read,
    "synthetic": synthetic.read,
}
