"""The student of `cslr_student.py` with labels of four signers only, taught by a teacher about clips whose labels it never sees.

    sign-dist synth world --sentences 960 --signers 32 --landmarks
    grep -E '^id|^signer0[0-3]_|[[:blank:]](val|test)[[:blank:]]' world/labels.tsv > world/few.tsv
    grep -vE '^signer0[0-3]_' world/labels.tsv > world/more.tsv
    for part in few more; do
      sign-dist prepare table world/$part.tsv data/synthetic_cslr_$part glosses.labels=sequence sampling.image_fps=20
      sign-dist extract data/synthetic_cslr_$part every=1 sampling.image_fps=20
    done
    sign-dist train jobs/synthetic/cslr_teacher.py
    sign-dist train jobs/synthetic/cslr_student_distilled.py

The teacher, which sees whole clips, may say a gloss before the student has seen it, so the sequence tells which glosses, not
when. The student's convolutions are drawn to the teacher's, which see little more than the moment. docs/benchmarks.md tells what
was measured.
"""

from pathlib import Path

from sign_dist.config.run import Run
from sign_dist.config.source import load_run


def run() -> Run:
    return load_run(Path(__file__).with_name("cslr_student.py")).with_values(
        {
            "data.root": "data/synthetic_cslr_few",
            "train.distill.teacher": "runs/cslr_teacher",
            "train.distill.unlabelled": "data/synthetic_cslr_more",
            "train.distill.kinds": "features:20 logits:0.5 sequence",
            "train.distill.layers": "norm=conv1d",
            "train.distill.gate": "20",
        }
    )
