"""Small synthetic look-alikes of corpora, and what the verbs do with them, in this process and without Ray."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sign_dist.config.data import Features, Glosses, Sampling
from sign_dist.config.run import Run
from sign_dist.data.layout import DatasetDir
from sign_dist.data.prepare import prepare
from sign_dist.synthetic.corpus import write_corpus
from sign_dist.synthetic.landmarks import motion_landmarks
from sign_dist.synthetic.lexicon import LEXICON
from sign_dist.synthetic.like import Order, write_like, write_order, write_wlasl
from sign_dist.synthetic.motion import clip_rng, make_motion
from sign_dist.synthetic.signer import make_signer
from sign_dist.synthetic.takes import Cast
from sign_dist.training.run_dir import RunDir

SIGNS, SIGNERS = 2, 3
CAST = Cast(num_sentences=6, num_signers=SIGNERS, size_px=64, fps=5)


def look_alike(root: Path, name: str) -> DatasetDir:
    """A prepared dataset of a few clips: `isolated` (videos), `isolated_tracks` (landmarks), `sentences` (landmarks with
    glosses and translations), `wlasl`, `phoenix2014`, `phoenix2014T` or `how2sign`."""
    dataset, corpus = DatasetDir(root / "dataset"), root / "corpus"
    if dataset.facts_file.exists():
        return dataset
    glosses = Glosses()
    match name:
        case "isolated":
            reader = "table"
            write_corpus(corpus, num_signs=SIGNS, num_signers=SIGNERS, clips_per_sign=1)
        case "isolated_tracks":
            reader = "table"
            _write_tracks(corpus)
        case "sentences":
            reader, glosses = "table", Glosses(labels="sequence")
            write_order(corpus, Order(signers=SIGNERS, sentences=9, landmarks=True))
        case "wlasl":
            reader = "wlasl"
            write_wlasl(corpus, num_signs=SIGNS, num_signers=SIGNERS, clips_per_sign=1)
        case "phoenix2014" | "phoenix2014T" | "how2sign":
            reader = name
            write_like(corpus, name, CAST if name == "how2sign" else replace(CAST, num_sentences=SIGNERS))
        case _:
            raise ValueError(name)
    prepare(reader, corpus, dataset.root, glosses=glosses, sampling=Sampling(fps=10))
    return dataset


def extract_here(dataset: DatasetDir, features: Features, store: str = "") -> Any:
    """`sign-dist extract` in this process."""
    from sign_dist.features.blocks import compute
    from sign_dist.features.encode import build_encoder
    from sign_dist.on_ray.extraction import find_todo

    todo = find_todo(dataset, features, shared=store)
    if todo.blocks:
        encoder = build_encoder(features, todo.files)
        for block in todo.blocks:
            compute(block, todo.store, features, encoder)
    return todo.result()


def train_here(run: Run, root: Path) -> Mapping[str, Any]:
    """`sign-dist train` in this process."""
    from sign_dist.on_ray.training import begin, finish, fit_run
    from sign_dist.training.strategy import OneProcess

    run_dir, run, _ = begin(run, root)
    if not run_dir.done_file.exists():
        fit_run(run, run_dir, OneProcess())
    return finish(run_dir)


def last_metrics(root: Path) -> dict[str, Any]:
    """What a run measured last, without what a clock says."""
    last = RunDir(root).metrics()[-1]
    return {name: value for name, value in last.items() if name.startswith(("train/", "val/")) or name in ("epoch", "step", "lr")}


def _write_tracks(root: Path) -> None:
    splits = ("train", "val", "test")
    lines = ["id\tpath\tgloss\tsigner\tsplit"]
    (root / "tracks").mkdir(parents=True)
    for index, split in enumerate(splits):
        signer = make_signer(0, index)
        for sign in LEXICON[:SIGNS]:
            rng = clip_rng(0, signer, sign, 0)
            name = f"{signer.name}_{sign.gloss}"
            np.save(root / "tracks" / f"{name}.npy", motion_landmarks(make_motion(sign, signer, rng), signer, rng))
            lines.append(f"{name}\ttracks/{name}.npy\t{sign.gloss}\t{signer.name}\t{split}")
    (root / "labels.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
