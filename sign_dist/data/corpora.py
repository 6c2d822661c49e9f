"""Presets: what is known of each corpus. Facts only; what is unknown is left empty, so that nobody takes a guess for one."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

from sign_dist.config.data import Sampling

Labels = Literal["gloss", "sequence"]
"""What a clip's gloss is: one label, which may hold blanks, or glosses with a blank between them."""
TaskName = Literal["islr", "cslr", "slt"]


@dataclasses.dataclass(frozen=True)
class Corpus:
    """One corpus, or one subset of it. `counts` are clips by split as its authors annotated them."""

    name: str
    reader: str
    title: str
    task: TaskName
    """What it is mostly used for; translations and glosses stay in the manifest whatever the task."""
    language: str
    """ISO 639-3 code of the sign language; "" where the format does not fix it."""
    licence: str
    origin: str
    """Who gives it out."""
    subset: str = ""
    labels: Labels = "gloss"
    text: str = ""
    """ISO 639-3 code of the translations."""
    colour: Literal["rgb", "bgr", ""] = ""
    """Order of the colours that published weights for this corpus expect."""
    cleanup: str = ""
    """Clean-up of glosses by the evaluation of the corpus: a name in `normalize.CLEANUPS`."""
    counts: Mapping[str, int] = dataclasses.field(default_factory=dict[str, int])
    num_glosses: int = 0
    image_fps: float = 0.0
    """Frames per second of its folders of pictures."""
    max_seconds: float = 0.0
    """Bound on a clip, where sentences are longer than the usual one; 0: that."""
    notes: str = ""

    def sampling(self) -> Sampling:
        """How its clips are sampled, unless someone says otherwise."""
        values = {"image_fps": self.image_fps, "max_seconds": self.max_seconds}
        return Sampling().with_values({name: value for name, value in values.items() if value})


_WLASL = Corpus(
    name="wlasl",
    reader="wlasl",
    title="WLASL, word-level American Sign Language",
    task="islr",
    language="ase",
    licence="C-UDA 1.0: academic and computational use",
    origin="github.com/dxli94/WLASL",
    colour="bgr",
    notes="published weights were trained on train and val together, and chosen on test; signers stand in several splits",
)
_MSASL = Corpus(
    name="msasl",
    reader="msasl",
    title="MS-ASL, American Sign Language",
    task="islr",
    language="ase",
    licence="C-UDA",
    origin="Microsoft",
    notes="spans of YouTube recordings, many of which are gone",
)
_PHOENIX = Corpus(
    name="phoenix2014",
    reader="phoenix2014",
    title="RWTH-PHOENIX-Weather 2014, multisigner",
    task="cslr",
    language="gsg",
    licence="CC BY-NC-SA: non-commercial, attribution",
    origin="RWTH Aachen",
    labels="sequence",
    colour="rgb",
    cleanup="phoenix2014",
    counts={"train": 5672, "val": 540, "test": 629},
    num_glosses=1295,
    image_fps=25,
    notes="1,295 glosses in all three splits together; pictures of 210x260 are squeezed from 210x300",
)
_GSL = Corpus(
    name="gsl_greek-iso",
    reader="gsl_greek",
    subset="iso",
    title="GSL of ITI/CERTH, isolated signs",
    task="islr",
    language="gss",
    licence="non-commercial research",
    origin="vcl.iti.gr/dataset/gsl",
    counts={"val": 2331},
    num_glosses=310,
    notes="40,785 clips by 7 signers",
)
_SENTENCES = dataclasses.replace(_GSL, task="cslr", labels="sequence", text="ell", num_glosses=0, notes="sentences by 7 signers")

_ALL = (
    _WLASL,
    dataclasses.replace(_WLASL, name="wlasl100", subset="100", counts={"train": 1442, "val": 338, "test": 258}, num_glosses=100),
    dataclasses.replace(_WLASL, name="wlasl300", subset="300", counts={"train": 3549, "val": 901, "test": 668}, num_glosses=300),
    dataclasses.replace(
        _WLASL, name="wlasl1000", subset="1000", counts={"train": 8978, "val": 2320, "test": 1876}, num_glosses=1000
    ),
    dataclasses.replace(
        _WLASL, name="wlasl2000", subset="2000", counts={"train": 14296, "val": 3920, "test": 2879}, num_glosses=2000
    ),
    dataclasses.replace(
        _WLASL,
        name="wlasl_prompt",
        reader="wlasl_prompt",
        title="WLASL clips as prompt, video and gloss",
        licence="none stated for the lists; the clips are WLASL's: C-UDA 1.0",
        origin="lists for fine-tuning vision-language models",
        colour="",
        notes="neither split nor signer",
    ),
    _MSASL,
    dataclasses.replace(_MSASL, name="msasl100", subset="100", num_glosses=100),
    dataclasses.replace(_MSASL, name="msasl200", subset="200", num_glosses=200),
    dataclasses.replace(_MSASL, name="msasl500", subset="500", num_glosses=500),
    dataclasses.replace(_MSASL, name="msasl1000", subset="1000", counts={"test": 4172}, num_glosses=1000),
    Corpus(
        name="autsl",
        reader="autsl",
        title="AUTSL, Turkish Sign Language",
        task="islr",
        language="tsm",
        licence="academic use",
        origin="Ankara University",
        counts={"train": 28142, "val": 4418, "test": 3742},
        num_glosses=226,
        notes="no signer stands in two splits",
    ),
    Corpus(
        name="how2sign",
        reader="how2sign",
        title="How2Sign, re-aligned sentences",
        task="slt",
        language="ase",
        licence="CC BY-NC 4.0",
        origin="how2sign.github.io",
        text="eng",
        colour="rgb",
        counts={"val": 1740, "test": 2357},
        max_seconds=120,
        notes="spans of full videos; the ready-made clips follow older times and give worse results",
    ),
    _PHOENIX,
    dataclasses.replace(
        _PHOENIX,
        name="phoenix2014-si5",
        subset="si5",
        title="RWTH-PHOENIX-Weather 2014, signer-independent SI5",
        counts={"train": 4376, "val": 111, "test": 180},
        num_glosses=0,
        notes="harder than the multisigner split: the scores of the two do not compare",
    ),
    dataclasses.replace(
        _PHOENIX,
        name="phoenix2014T",
        reader="phoenix2014T",
        title="RWTH-PHOENIX-Weather 2014 T",
        task="slt",
        text="deu",
        cleanup="",
        counts={"train": 7096, "val": 519, "test": 642},
        num_glosses=0,
        notes="1,115 glosses are usually counted; some score it with the clean-up of 2014, some with another: say which",
    ),
    Corpus(
        name="csl_daily",
        reader="csl_daily",
        title="CSL-Daily",
        task="slt",
        language="csl",
        licence="signed research agreement",
        origin="USTC",
        labels="sequence",
        text="zho",
        colour="rgb",
        counts={"train": 18401, "val": 1077, "test": 1176},
        num_glosses=2000,
        notes="the frame rate of its pictures is not known here: 25 is assumed, sampling.image_fps changes it",
    ),
    _GSL,
    dataclasses.replace(
        _SENTENCES, name="gsl_greek-si", subset="si", title="GSL, signer-independent sentences", counts={"val": 588}
    ),
    dataclasses.replace(
        _SENTENCES, name="gsl_greek-sd", subset="sd", title="GSL, signer-dependent sentences", counts={"val": 1063}
    ),
    Corpus(
        name="gsl_ghana",
        reader="gsl_ghana",
        title="Ghanaian Sign Language dictionary of EduSign",
        task="islr",
        language="gse",
        licence="open for academic and non-commercial use",
        origin="github.com/Cbreve/edusign-ai",
        num_glosses=1485,
        notes="a dictionary without clips of its signs; clips come from a labels.tsv of yours",
    ),
    Corpus(
        name="ssvp",
        reader="ssvp",
        title="Manifests of SSVP-SLT",
        task="slt",
        language="",
        licence="",
        origin="github.com/facebookresearch/ssvp_slt",
        colour="rgb",
        max_seconds=120,
        notes="DailyMoth-70h comes so: American Sign Language and English, CC BY-NC 4.0",
    ),
)
CORPORA: dict[str, Corpus] = {corpus.name: corpus for corpus in _ALL}
"""Every corpus that `prepare` knows by name."""
