"""One file per corpus: annotations -> Samples. `READERS` is the list; a reader yields Samples and Rejected rows."""

from collections.abc import Callable, Iterator

from sign_dist.data.readers import (
    autsl,
    csl_daily,
    folder,
    gsl_ghana,
    gsl_greek,
    how2sign,
    msasl,
    phoenix,
    ssvp,
    synthetic,
    table,
    wlasl,
    wlasl_prompt,
)
from sign_dist.data.sample import Rejected, Sample

Reader = Callable[..., Iterator[Sample | Rejected]]
"""`read(root)`; a reader of a corpus with subsets also takes `subset`, which `sign_dist.data.corpora` names."""

READERS: dict[str, Reader] = {
    "folder": folder.read,
    "table": table.read,
    "synthetic": synthetic.read,
    "wlasl": wlasl.read,
    "wlasl_prompt": wlasl_prompt.read,
    "msasl": msasl.read,
    "autsl": autsl.read,
    "how2sign": how2sign.read,
    "phoenix2014": phoenix.read_2014,
    "phoenix2014T": phoenix.read_2014t,
    "csl_daily": csl_daily.read,
    "gsl_greek": gsl_greek.read,
    "gsl_ghana": gsl_ghana.read,
    "ssvp": ssvp.read,
}
