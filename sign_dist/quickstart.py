"""The whole way once: corpus -> prepare -> extract -> train -> tune -> evaluate -> export -> serve -> one answer over HTTP.

Each stage first looks whether its work is done, so running it again costs seconds. The stages are what the verbs of the
command line do, on settings that suit small data.
"""

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from sign_dist.config.data import Data, Features, FrameFeatures, LandmarkFeatures, SignHieraFeatures, features_named
from sign_dist.config.model import FeatureModel, LandmarkModel, VideoCnnModel
from sign_dist.config.run import Run, Scale
from sign_dist.config.train import Augment, Train
from sign_dist.console import bar, epoch_line, say, wait_for_interrupt
from sign_dist.data.layout import DatasetDir, write_json
from sign_dist.data.manifest import read_manifest
from sign_dist.data.prepare import prepare
from sign_dist.data.readers.table import NAMES as TABLE_NAMES
from sign_dist.errors import DataError, ServiceError
from sign_dist.inference.bundle import Bundle, export
from sign_dist.metrics.intervals import bootstrap, share_interval
from sign_dist.on_ray import serving
from sign_dist.on_ray.clips import check_all
from sign_dist.on_ray.cluster import connect, num_cpus
from sign_dist.on_ray.evaluation import evaluate_run
from sign_dist.on_ray.extraction import extract, find_todo
from sign_dist.on_ray.training import train
from sign_dist.on_ray.tuning import small_space, tune_run
from sign_dist.stages import Stages, state_of
from sign_dist.study.layout import StudyDir
from sign_dist.synthetic.corpus import write_corpus
from sign_dist.training.run_dir import RunDir

# The synthetic world of the quickstart: large enough that new signers are met, small enough for two cores.
SIGNS, SIGNERS, CLIPS = 12, 10, 2
TRIALS, TRIAL_EPOCHS = 4, 8
FIRST_PORT = 8000
# Gentle: a picture that is turned or cut much loses its hands.
FRAME_AUGMENT = Augment(mirror=0.3, speed=0.3, crop=0.2, drop=0.05, scale=0.15)


@dataclasses.dataclass
class Quickstart:
    """One quickstart directory: `corpus/`, `dataset/`, `run_seed0/` ..., `study/`, `quickstart.json`."""

    out: Path
    videos: Path | None
    features: Features
    seeds: int
    port: int
    keep: bool
    address: str

    @property
    def corpus(self) -> Path:
        return self.videos or self.out / "corpus"

    @property
    def dataset(self) -> DatasetDir:
        return DatasetDir(self.out / "dataset")

    @property
    def state_file(self) -> Path:
        return self.out / "quickstart.json"

    def run_dir(self, seed: int) -> RunDir:
        return RunDir(self.out / f"run_seed{seed}")

    def remember(self, name: str, value: Any) -> None:
        write_json(self.state_file, self.memory() | {name: value})

    def memory(self) -> dict[str, Any]:
        return json.loads(self.state_file.read_text(encoding="utf-8")) if self.state_file.exists() else {}


def quickstart(
    *, videos: Path | None, out: Path, features: str, seeds: int, port: int, keep: bool, address: str = "local"
) -> dict[str, Any]:
    """Run every stage that is not done, print what came of it, and answer the same as a dict.

    Raises:
        SignDistError: of the stage that could not be done.
    """
    settings = features_named(features or ("landmarks" if videos else "frames"))
    quick = Quickstart(
        out.absolute(), videos.absolute() if videos else None, settings, seeds or (3 if videos else 1), port, keep, address
    )
    stages = Stages("quickstart")
    with stages.stage("corpus") as note:
        note(_corpus(quick))
    with stages.stage("prepare") as note:
        note(_prepare(quick))
    with stages.stage("extract") as note:
        note(_extract(quick))
    run = _run(quick)
    with stages.stage("train") as note:
        note(_train(quick, run))
    with stages.stage("tune") as note:
        note(_tune(quick, run))
    with stages.stage("evaluate") as note:
        note(_evaluate(quick))
    with stages.stage("export") as note:
        note(_export(quick))
    with stages.stage("serve") as note:
        note(_serve(quick))
    stages.show()
    _epilogue(quick, run)
    if keep:
        wait_for_interrupt()
    return quick.memory()


def _corpus(quick: Quickstart) -> str:
    if quick.videos:
        if not quick.videos.exists():
            raise DataError(f"no videos {str(quick.videos)!r}: give a folder with one folder per sign, or with a labels.tsv")
        return f"yours: {quick.videos}"
    if (quick.corpus / TABLE_NAMES[0]).exists():  # written last
        return f"{SIGNS * SIGNERS * CLIPS} clips of {SIGNS} invented signs by {SIGNERS} drawn signers"
    with bar("  draw clips") as tick, ProcessPoolExecutor(os.cpu_count()) as pool:

        def spread(function: Any, clips: Iterable[Any]) -> Iterator[Any]:
            return pool.map(function, clips)

        write_corpus(quick.corpus, num_signs=SIGNS, num_signers=SIGNERS, clips_per_sign=CLIPS, progress=tick, map=spread)
    return f"{SIGNS * SIGNERS * CLIPS} clips of {SIGNS} invented signs by {SIGNERS} drawn signers"


def _prepare(quick: Quickstart) -> str:
    seen = state_of(quick.corpus.parent if quick.corpus.is_file() else quick.corpus)
    if not (quick.dataset.facts_file.exists() and quick.memory().get("corpus") == seen):
        is_table = quick.corpus.is_file() or any((quick.corpus / name).exists() for name in TABLE_NAMES)
        connect(quick.address)
        with bar("  check clips") as tick:
            prepare(
                "table" if is_table else "folder",
                quick.corpus,
                quick.dataset.root,
                check_all=lambda samples, folder, sampling: check_all(samples, folder, sampling, progress=tick),
            )
        quick.remember("corpus", seen)
    facts = quick.dataset.facts()
    for warning in facts["warnings"]:
        say(f"  note: {warning}")
    refused = ", ".join(f"{count} {reason}" for reason, count in facts["rejected"].items()) or "none"
    counts = "/".join(str(count) for count in facts["counts"].values())
    return f"train/val/test {counts} clips, {facts['num_glosses']} signs, split {facts['split']['policy']}; rejected: {refused}"


def _extract(quick: Quickstart) -> str:
    if find_todo(quick.dataset, quick.features).blocks:
        connect(quick.address)
    with bar("  extract") as tick:
        done = extract(quick.dataset, quick.features, progress=tick)
    failed = ", ".join(f"{count} {code}" for code, count in done.failed.items()) or "none"
    return f"{done.clips} clips -> {Path(done.where).name}; without features: {failed}"


def _run(quick: Quickstart) -> Run:
    """Settings for small data. Where a corpus has no test split, val is what is reported: then nothing is chosen by it."""
    counts = quick.dataset.facts()["counts"]
    val = "val" if counts["val"] else "test"
    if not counts[val]:
        raise DataError(
            f"all {counts['train']} clips are for training: give each sign at least 4 clips, or a split column, "
            "so that some can be tested"
        )
    match quick.features:
        case LandmarkFeatures():
            model, settings = LandmarkModel(), Train(mixup=0.2)
        case SignHieraFeatures():
            model, settings = FeatureModel(), Train(epochs=40)
        case FrameFeatures():
            model, settings = VideoCnnModel(), Train(epochs=30, augment=FRAME_AUGMENT)
    return Run(
        # A first look at a few clips by two people is welcome; what leaks is noted after `prepare` and in the report.
        data=Data(root=str(quick.dataset.root), features=quick.features, val_split=val, allow_leaks=True),
        model=model,
        train=settings.with_values({"select": "best" if counts["test"] and counts["val"] else "last"}),
        scale=Scale(workers=1),
    )


def _tested(quick: Quickstart) -> str:
    """The split whose scores are reported."""
    return "test" if quick.dataset.facts()["counts"]["test"] else "val"


def _train(quick: Quickstart, run: Run) -> str:
    for seed in range(quick.seeds):
        if quick.run_dir(seed).done_file.exists():
            continue
        connect(quick.address)
        train(
            run.with_values({"train.seed": seed}),
            quick.run_dir(seed).root,
            on_epoch=lambda line: say(f"  {epoch_line(line, run.train.epochs)}") if line["epoch"] % 5 == 0 else None,
        )
    scores = [quick.run_dir(seed).metrics()[-1]["val/top1"] for seed in range(quick.seeds)]
    seeds = f", {quick.seeds} seeds" if quick.seeds > 1 else ""
    return f"{run.train.epochs} epochs{seeds}; last val top-1 {sum(scores) / len(scores):.3f}"


def _tune(quick: Quickstart, run: Run) -> str:
    study = StudyDir(quick.out / "study")
    if not (study.study_file.exists() and json.loads(study.study_file.read_text())["finished"]):
        connect(quick.address)
    short = run.with_values({"train.epochs": min(run.train.epochs, TRIAL_EPOCHS), "train.keep_best": 1})
    with bar("  epochs of all trials") as tick:
        best = tune_run(short, small_space(), study.root, num_trials=TRIALS, on_trials=lambda done, total, _: tick(done, total))
    return (
        f"{best['num_trials']} trials of at most {short.train.epochs} epochs, {best['epochs_trained']} epochs in all; "
        f"best val top-1 {best['value']:.3f} with lr {best['settings']['train.optim.lr']:.2g}"
    )


def _evaluate(quick: Quickstart) -> str:
    split = _tested(quick)
    reports: list[dict[str, Any]] = []
    for seed in range(quick.seeds):
        run_dir = quick.run_dir(seed)
        file = run_dir.eval(split) / "report.json"
        if not file.exists():
            connect(quick.address)
            evaluate_run(run_dir.root, split)
        reports.append(json.loads(file.read_text(encoding="utf-8")))
    tops = [report["top1"] for report in reports]
    # One value per clip: how often the seeds had it right. Clips are what a new corpus would draw anew.
    hits = _hits(quick, split)
    interval = bootstrap(hits) if len(reports) > 1 else share_interval([hit == 1.0 for hit in hits])
    mean = sum(tops) / len(tops)
    each = f" (seeds {', '.join(f'{top:.3f}' for top in tops)})" if len(tops) > 1 else ""
    quick.remember(
        "top1", {"mean": mean, "seeds": tops, "low": interval.low, "high": interval.high, "split": split, "clips": len(hits)}
    )
    return f"top-1 {mean:.3f}{each} on {len(hits)} clips of {split}, 95 % interval {interval.low:.3f} to {interval.high:.3f}"


def _hits(quick: Quickstart, split: str) -> list[float]:
    hits: dict[str, list[bool]] = {}
    for seed in range(quick.seeds):
        for line in (quick.run_dir(seed).eval(split) / "predictions.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            hits.setdefault(row["id"], []).append(row["hypothesis"] == row["reference"] and not row.get("error"))
    return [sum(values) / len(values) for values in hits.values()]


def _export(quick: Quickstart) -> str:
    run_dir = quick.run_dir(0)
    bundle = Bundle(run_dir.bundle)
    if not bundle.facts_file.exists():
        export(run_dir)
    facts = bundle.facts()
    size = sum(p.stat().st_size for p in bundle.root.rglob("*") if p.is_file())
    return f"{facts.vocab_size} signs, {size / 2**20:.1f} MiB: {_short(bundle.root)}"


def _serve(quick: Quickstart) -> str:
    """Serve the bundle and ask it for the first clip of a split it never trained on; a known answer is not asked again."""
    bundle = Bundle(quick.run_dir(0).bundle)
    digest = bundle.facts().weights_sha256
    known = quick.memory().get("answer", {})
    if quick.keep or known.get("weights") != digest:
        clip = read_manifest(quick.dataset, _tested(quick))[0]
        port = quick.port or free_port()
        connect(quick.address)
        url = serving.start(serving.ServeArgs(bundle=str(bundle.root), cpus=min(1.0, num_cpus() / 2)), port=port)
        try:
            path = quick.dataset.videos_root() / clip.video_path
            say(f"  POST {url}v1/recognize  {path.name}")
            known = {"weights": digest, "url": url, "clip": clip.id, "signer": clip.signer, "reference": clip.gloss} | _ask(
                url, path
            )
            quick.remember("answer", known)
        finally:
            if not quick.keep:
                serving.stop()
    verdict = "right" if known["hypothesis"] == known["reference"] else f"wrong, it is {known['reference']}"
    by = f" by unseen {known['signer']}" if known["signer"] else ""
    return f"a clip{by} -> {known['hypothesis']} ({known['score']:.2f}), {verdict}; {known['total_ms']:.0f} ms"


def _ask(url: str, path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        answer = httpx.post(f"{url}v1/recognize", files={"video": (path.name, file, "video/mp4")}, timeout=120)
    body = answer.json()
    if answer.status_code != 200:
        raise ServiceError(f"the server answered {answer.status_code}: {body.get('detail')}: look at its log with `ray logs`")
    return {"hypothesis": body["hypothesis"], "score": body["results"][0]["score"], "total_ms": body["timing_ms"]["total"]}


def free_port() -> int:
    """The first port from 8000 that nobody listens on.

    Raises:
        ServiceError: a hundred in a row are taken.
    """
    for port in range(FIRST_PORT, FIRST_PORT + 100):
        with contextlib.suppress(ServiceError):
            serving.refuse_taken_port("127.0.0.1", port)
            return port
    raise ServiceError(f"ports {FIRST_PORT} to {FIRST_PORT + 99} are all taken: name a free one with --port")


def _epilogue(quick: Quickstart, run: Run) -> None:
    run_dir = quick.run_dir(0)
    say(f"report   {_short(run_dir.eval(_tested(quick)) / 'report.html')}")
    say(f"curves   {_short(run_dir.curves_file)}   study {_short(quick.out / 'study' / 'study.png')}")
    if quick.keep:
        say(f"server   {quick.memory()['answer']['url']}   (Ctrl-C ends it)")
    dataset, bundle = _short(quick.dataset.root), _short(run_dir.bundle)
    say("next:")
    say(f"  sign-dist train {_short(run_dir.run_file)} train.epochs={2 * run.train.epochs} --out runs/longer")
    say(f"  sign-dist extract {dataset} --features signhiera")
    say(f"  sign-dist serve {bundle}")


def _short(path: Path) -> str:
    """Relative to where the user stands, where that is shorter."""
    with contextlib.suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)
