"""What each kind of stage depends on and does. What spreads over a cluster is handed in as functions."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, assert_never

from sign_dist.config.base import Settings
from sign_dist.config.data import Features, LandmarkFeatures, SignHieraFeatures
from sign_dist.config.recipe import (
    SIGN,
    CompareStage,
    EvaluateStage,
    ExportStage,
    ExtractStage,
    PrepareStage,
    Recipe,
    SamplesStage,
    Stage,
    SynthStage,
    TokenizerStage,
    TrainStage,
    planned_run,
    run_of,
)
from sign_dist.config.run import Run
from sign_dist.data.layout import DatasetDir
from sign_dist.data.manifest import read_manifest
from sign_dist.data.prepare import CheckAll, prepare, sampling_of
from sign_dist.errors import RunError, SignDistError
from sign_dist.features.encode import find_files, spec_for
from sign_dist.features.spec import VERSION
from sign_dist.inference.bundle import export
from sign_dist.inference.compare import compare, write_comparison
from sign_dist.inference.sides import read_side
from sign_dist.models.learned_tokens import learn_tokens
from sign_dist.recipe.chain import Done, digest_of
from sign_dist.recipe.samples import write_samples
from sign_dist.stages import state_of
from sign_dist.synthetic.corpus import WORLD_VERSION
from sign_dist.synthetic.like import Order
from sign_dist.tasks.build import monitor_of
from sign_dist.training.parts import save_encoder
from sign_dist.training.run_dir import RunDir
from sign_dist.training.start import weights_at
from sign_dist.transfer.weights_file import file_digest


class Extraction(Protocol):
    """What an extraction answers."""

    @property
    def where(self) -> str: ...
    @property
    def clips(self) -> int: ...
    @property
    def failed(self) -> dict[str, int]: ...


@dataclass(frozen=True)
class Verbs:
    """The verbs that stages call, as they run here: through Ray, or in this process."""

    synth: Callable[[Path, Order], str]
    check_all: CheckAll
    extract: Callable[[DatasetDir, Features, str], Extraction]
    """(dataset, features, shared store)."""
    train: Callable[[Run, Path], Mapping[str, Any]]
    """(run, its directory) -> the last metrics; goes on where it stopped, and leaves a finished run alone."""
    evaluate: Callable[[Path, str], str]
    """(run directory, split) -> what came of it, in a line; writes report.json and predictions.jsonl into the run."""


@dataclass(frozen=True)
class StageActs:
    """`chain.Acts` with these verbs."""

    verbs: Verbs

    def inputs(self, stage: Stage, recipe: Recipe) -> dict[str, str]:
        """Digests of all that a stage depends on beside earlier stages."""
        settings = {"settings": digest_of(stage.model_dump(mode="json"))}
        match stage:
            case SynthStage():
                return settings | {"world": str(WORLD_VERSION)}
            case PrepareStage():
                lists = {name: path for name in ("keep", "merge") if (path := getattr(stage.glosses, name))}
                corpus = {} if stage.raw.startswith(SIGN) else {"corpus": state_of(Path(stage.raw))}
                return settings | corpus | {name: _file(path) for name, path in lists.items()}
            case ExtractStage():
                return settings | _dataset(stage.dataset) | _encoder(stage.features)
            case TrainStage():
                run = planned_run(stage, recipe)
                return {"settings": run.digest()} | _dataset(run.data.root) | dict(_files_of(run))
            case EvaluateStage() | ExportStage():
                return settings | _weights("run", stage.run)
            case CompareStage():
                return settings | {key: value for run in stage.runs for key, value in _weights(run, run).items()}
            case TokenizerStage():
                return settings | {root: digest for root in stage.of for digest in _dataset(root).values()}
            case SamplesStage():
                return settings
            case _:
                assert_never(stage)

    def act(self, stage: Stage, out: Path, done: Mapping[str, Done]) -> Done:
        """Do a stage."""
        match stage:
            case SynthStage():
                text = self.verbs.synth(out, Order(**stage.model_dump(exclude={"kind"})))
                return Done(str(out), _file(out / "world.json"), text, (str(out / "world.json"),))
            case PrepareStage():
                return self._prepare(stage, Path(_at(stage.raw, done)), DatasetDir(out))
            case ExtractStage():
                return self._extract(stage, out, done)
            case TokenizerStage():
                return _tokenizer(stage, out, done)
            case TrainStage():
                return self._train(stage, out, done)
            case EvaluateStage():
                run_dir = RunDir(Path(_at(stage.run, done)))
                text = self.verbs.evaluate(run_dir.root, stage.split)
                files = [run_dir.eval(stage.split) / name for name in ("predictions.jsonl", "report.json")]
                facts = {"run": str(run_dir.root), "split": stage.split}
                return Done(str(files[0].parent), _file(files[0]), text, tuple(map(str, files)), facts)
            case CompareStage():
                return _compare(stage, out, done)
            case SamplesStage():
                return _samples(stage, out, done)
            case ExportStage():
                bundle = export(RunDir(Path(_at(stage.run, done))), out)
                size = sum(p.stat().st_size for p in bundle.root.rglob("*") if p.is_file())
                text = f"{size / 2**20:.1f} MiB"
                return Done(str(out), bundle.facts().weights_sha256, text, (str(bundle.facts_file),))
            case _:
                assert_never(stage)

    def _prepare(self, stage: PrepareStage, raw: Path, dataset: DatasetDir) -> Done:
        sampling = stage.sampling or sampling_of(stage.reader)
        made = prepare(
            stage.reader, raw, dataset.root,
            split=stage.split, sampling=sampling, glosses=stage.glosses, check_all=self.verbs.check_all,
        )  # fmt: skip
        counts = "/".join(str(count) for count in made.counts.values())
        glosses = f", {made.num_glosses} glosses" if made.num_glosses else ""
        text = f"{'/'.join(made.counts)} {counts} clips{glosses}, split {made.policy}; rejected: {_tally(made.rejected)}"
        return Done(str(dataset.root), dataset.facts()["digest"], text, (str(dataset.facts_file),))

    def _extract(self, stage: ExtractStage, out: Path, done: Mapping[str, Done]) -> Done:
        dataset = DatasetDir(Path(_at(stage.dataset, done)))
        features = stage.features
        if isinstance(features, SignHieraFeatures) and features.weights.startswith(SIGN):
            weights = _encoder_of(RunDir(Path(_at(features.weights, done))), out / "encoder.safetensors")
            features = features.with_values({"weights": str(weights)})
        made = self.verbs.extract(dataset, features, stage.store)
        name = Path(made.where).name
        text = f"{made.clips} clips -> {name}; without features: {_tally(made.failed)}"
        facts = {"dataset": str(dataset.root), "features": features.model_dump(mode="json"), "store": stage.store}
        proof = () if "://" in made.where else (made.where,)
        return Done(made.where, digest_of([name, dataset.facts()["digest"], made.failed]), text, proof, facts)

    def _train(self, stage: TrainStage, out: Path, done: Mapping[str, Done]) -> Done:
        reads = None
        if stage.reads:
            facts = done[stage.reads.removeprefix(SIGN)].facts
            reads = (facts["dataset"], facts["features"], facts["store"])
        start_from = _at(stage.start_from, done)
        values = {name: _resolved(value, done) for name, value in stage.values.items()}
        run = run_of(stage.model_copy(update={"start_from": start_from, "values": values}), reads=reads)
        metrics = self.verbs.train(run, out)
        run_dir = RunDir(out)
        monitor = monitor_of(run).name
        score = f"; {monitor} {metrics[monitor]:.4g}" if monitor in metrics else ""
        text = f"{int(metrics.get('epoch', 0))} of {run.train.epochs} epochs{score}"
        return Done(str(out), file_digest(weights_at(out).file), text, (str(run_dir.done_file),))


def _encoder_of(run_dir: RunDir, out: Path) -> Path:
    """The weights of the SignHiera that a run trained: alone, or in front of a model that reads frames."""
    if run_dir.run().model.kind == "signhiera":
        return weights_at(run_dir.root).file
    save_encoder(run_dir, out)
    return out


def _tokenizer(stage: TokenizerStage, out: Path, done: Mapping[str, Done]) -> Done:
    samples = [sample for root in stage.of for sample in read_manifest(DatasetDir(Path(_at(root, done))), "train")]
    num_tokens = learn_tokens([sample.translation for sample in samples], out, stage.size)
    file = out / "tokenizer.json"
    return Done(str(out), _file(file), f"{num_tokens} tokens of {len(samples)} sentences", (str(file),))


def _compare(stage: CompareStage, out: Path, done: Mapping[str, Done]) -> Done:
    sides = [read_side(f"{run.removeprefix(SIGN)}={_at(run, done)}", stage.split) for run in stage.runs]
    found = compare(sides, split=stage.split, pairs="first")
    page = write_comparison(out, found)
    ps = ["", *(f" (p = {pair['scores'][0]['p']:.2g})" for pair in found["pairs"])]
    values = [f"{side['name']} {side['scores'][0]['value']:.4g}{p}" for side, p in zip(found["sides"], ps, strict=True)]
    file = out / "compare.json"
    return Done(str(out), _file(file), f"{found['measures'][0]['title']}: {', '.join(values)}", (str(file), str(page)))


def _samples(stage: SamplesStage, out: Path, done: Mapping[str, Done]) -> Done:
    source = done[stage.of.removeprefix(SIGN)]
    file = out / "samples.tsv"
    task = RunDir(Path(source.facts["run"])).run().task
    text = write_samples(Path(source.output) / "predictions.jsonl", file, task=task, each=stage.each)
    return Done(str(file), _file(file), text, (str(file),))


def _at(text: str, done: Mapping[str, Done]) -> str:
    return done[text.removeprefix(SIGN)].output if text.startswith(SIGN) else text


def _resolved(value: Any, done: Mapping[str, Done]) -> Any:
    if isinstance(value, str):
        return _at(value, done)
    if isinstance(value, Settings):
        return _resolved(value.model_dump(mode="json"), done)
    if isinstance(value, Mapping):
        return {key: _resolved(inner, done) for key, inner in value.items()}
    return [_resolved(inner, done) for inner in value] if isinstance(value, list | tuple) else value


def _dataset(root: str) -> dict[str, str]:
    return {} if root.startswith(SIGN) else {"dataset": DatasetDir(Path(root)).facts()["digest"]}


def _encoder(features: Features) -> dict[str, str]:
    """Version and model files of what makes the features; of weights that a stage has yet to train, the stage's digest speaks."""
    if isinstance(features, LandmarkFeatures):  # its files are those of one release, and tracks from elsewhere need none
        return {"encoder": str(VERSION)}
    given = features
    if isinstance(features, SignHieraFeatures) and features.weights.startswith(SIGN):
        given = features.with_values({"weights": ""})
    spec = spec_for(given, find_files(given))
    return {"encoder": f"{spec.version} {spec.weights}"}


def _files_of(run: Run) -> Iterator[tuple[str, str]]:
    """(setting, digest) of the settings of a run that name weights: files, runs, bundles."""
    for name, value in run.flat().items():
        if isinstance(value, str) and value and not name.startswith("data.") and not value.startswith(SIGN):
            yield from _weights(name, value).items()


def _weights(name: str, text: str) -> dict[str, str]:
    """The digest of the weights at a path, if that is what a text is."""
    if text.startswith(SIGN) or not Path(text).exists():
        return {}
    try:
        return {name: file_digest(weights_at(Path(text)).file)}
    except SignDistError:  # a folder of another kind: its name is among the settings
        return {}


def _file(path: str | Path) -> str:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise RunError(f"{str(path)!r} cannot be read: {error.strerror}") from None


def _tally(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in counts.items()) or "none"
