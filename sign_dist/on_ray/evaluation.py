"""Ray Data: a split of a run's dataset through many copies of its model, and the report on what they answer."""

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ray.data import ActorPoolStrategy

from sign_dist.config.run import Run
from sign_dist.data.corpora import CORPORA
from sign_dist.data.layout import DatasetDir
from sign_dist.data.leaks import shared_with_training
from sign_dist.data.manifest import read_manifest
from sign_dist.data.privacy import level_of, shows_people
from sign_dist.data.sample import Sample
from sign_dist.features.store import FeatureStore
from sign_dist.inference.bundle import decode_facts, num_parameters
from sign_dist.inference.evaluated import Evaluated
from sign_dist.inference.report import build_report, write_report
from sign_dist.inference.report_calibration import Probabilities, calibration_cautions, calibration_part, targets_of
from sign_dist.on_ray.clips import from_rows
from sign_dist.on_ray.cluster import num_cpus, num_gpus
from sign_dist.tasks.build import LANGUAGES, build_task, reference_of, vocab_of
from sign_dist.tasks.task import Example, Prediction
from sign_dist.training.curves import read_metrics
from sign_dist.training.record import environment
from sign_dist.training.run_dir import RunDir
from sign_dist.training.start import trained_model
from sign_dist.transfer.weights_file import file_digest

CLIPS_PER_BATCH = 32
# Of each batch so many clips are answered one at a time, for the time per clip; the others share a call, which is quicker.
TIMED_PER_BATCH = 8
MOST_ANSWERS = 10
# Of a vision-language model: the prompts of all clips of a call are in memory, and beams copy them.
VLM_CLIPS_PER_BATCH = 8
# Tasks with one answer a clip out of a closed set: every gloss has a probability.
CLOSED = ("islr", "vlm")
# What a dataset may say of its corpus, and what the preset of the corpus calls it.
CORPUS_FACTS = {"title": "title", "licence": "licence", "origin": "origin", "language": "language", "text_language": "text"}


def evaluate_split(run_dir: RunDir, split: str) -> list[Evaluated]:
    """Predict every clip of a split with the checkpoint the run stands for; a clip without features is an error row.

    Raises:
        RunError: the run has no checkpoint.
        DataError: no such split, or its features are missing.
    """
    return _answers(run_dir, split)[0]


def _answers(run_dir: RunDir, split: str) -> tuple[list[Evaluated], dict[str, Any], Probabilities | None]:
    """The answers of `evaluate_split`, where they were computed, and of a task with one gloss a clip what every gloss was given."""
    run, chosen = run_dir.run(), run_dir.chosen()
    dataset = DatasetDir(Path(run.data.root))
    samples = read_manifest(dataset, split)
    rows = [{"index": i, "key": s.key} for i, s in enumerate(samples)]
    FeatureStore.find(dataset, run.data.features, shared=run.data.store)
    gpus = num_gpus()
    size = VLM_CLIPS_PER_BATCH if run.task == "vlm" else CLIPS_PER_BATCH
    answers = from_rows(rows, size).map_batches(
        _PredictRows,
        fn_constructor_kwargs={"run": run, "checkpoint": chosen, "samples": samples, "device": "cuda" if gpus else "cpu"},
        batch_size=size,
        compute=ActorPoolStrategy(min_size=1, max_size=max(1, min(gpus or num_cpus(), -(-len(rows) // size)))),
        num_cpus=1 if gpus else 0.7,
        num_gpus=1 if gpus else 0,
    )
    found: dict[int, dict[str, Any]] = {}
    threads = 0
    for row in answers.iter_rows():
        found[int(row["index"])] = json.loads(row["answer"])
        threads = int(row["threads"])
    # Without the videos' place the report shows no picture of anyone.
    videos = dataset.videos_root() if shows_people(dataset) else None
    crashed = {"error": "crashed: the process that held this clip died"}
    evaluated = [_evaluated(run.task, s, found.get(i, crashed), videos) for i, s in enumerate(samples)]
    timing = {"device": "gpu" if gpus else "cpu", "threads": threads}
    vocab = vocab_of(run.task, dataset)
    if run.task not in CLOSED or vocab is None:
        return evaluated, timing, None
    return evaluated, timing, _probabilities(evaluated, found, vocab.glosses, chosen, split)


def evaluate_run(root: Path, split: str) -> tuple[Path, dict[str, Any]]:
    """Evaluate a split and write its report into the run directory; answers the page and the content of report.json.

    Raises:
        RunError: no run or checkpoint there.
        DataError: no such split, or its features are missing.
    """
    run_dir = RunDir(root)
    run, chosen = run_dir.run(), run_dir.chosen()
    dataset = DatasetDir(Path(run.data.root))
    evaluated, timing, probabilities = _answers(run_dir, split)
    vocab = vocab_of(run.task, dataset)
    calibration = None
    facts = report_facts(run_dir, chosen, split) | {"timing": timing}
    if probabilities is not None:
        fit_on = run.data.val_split
        other = Probabilities.read(run_dir.eval(fit_on), probabilities.weights) if split != fit_on else None
        calibration = calibration_part(probabilities, other)
        facts["calibration"] = {"warnings": calibration_cautions(calibration, split, fit_on)}
    report = build_report(
        evaluated,
        task=run.task,
        facts=facts,
        calibration=calibration,
        vocabulary=vocab.glosses if vocab else (),
        language=LANGUAGES.get(str(dataset.facts().get("text_language", "")), "other"),
        training=read_metrics(run_dir.metrics_file) if run_dir.metrics_file.exists() else (),
    )
    page = write_report(run_dir.eval(split), evaluated, report, name=run_dir.root.resolve().name)
    if probabilities is not None:
        probabilities.write(run_dir.eval(split))
    return page, report


def _probabilities(
    evaluated: Sequence[Evaluated], found: dict[int, dict[str, Any]], glosses: Sequence[str], chosen: Path, split: str
) -> Probabilities | None:
    """What every gloss was given, of the clips that were answered; None if none was."""
    rows = {i: dict(found[i]["scores"]) for i, clip in enumerate(evaluated) if not clip.error}
    if not rows:
        return None
    given = np.array([[row.get(gloss, 0.0) for gloss in glosses] for row in rows.values()])
    with np.errstate(divide="ignore"):
        log_probs = np.log(given)
    targets = targets_of([evaluated[i].reference for i in rows], glosses)
    lowest = np.finfo(np.float32).min
    weights = file_digest(chosen / "model.safetensors")
    return Probabilities(np.maximum(log_probs, lowest).astype(np.float32), targets, weights, split)


def report_facts(run_dir: RunDir, chosen: Path, split: str) -> dict[str, Any]:
    """Where the numbers of a report come from."""
    run = run_dir.run()
    dataset = DatasetDir(Path(run.data.root))
    facts = dataset.facts()
    preset = CORPORA.get(str(facts.get("reader", "")))
    spec = FeatureStore.find(dataset, run.data.features, shared=run.data.store).spec()
    weights = chosen / "model.safetensors"
    leaks = shared_with_training(dataset, run.data.train_split, split)
    return {
        "split": {
            "evaluated": split,
            "policy": facts["split"]["policy"],
            "clips": facts["counts"],
            "leak check": _leak_check(dataset, leaks),
            "leaks allowed": run.data.allow_leaks,
            "warnings": [
                *leaks,
                *facts["warnings"],
                *_selection(run, split),
            ],
        },
        "dataset": {
            "corpus": facts["corpus"],
            **{name: facts.get(name) or getattr(preset, known, "") for name, known in CORPUS_FACTS.items()},
            "privacy": level_of(dataset),
            "dataset digest": facts["digest"],
            "rejected": facts["rejected"],
        },
        "features": {"name": spec.name} | spec.to_json(),
        "model": run.model.model_dump(mode="json"),
        "size": {
            "parameters": num_parameters(weights),
            "weights_bytes": weights.stat().st_size,
            "weights_sha256": file_digest(weights),
        },
        "decode": decode_facts(run),
        "training": {
            "run digest": run.digest(),
            "checkpoint": chosen.name,
            "chosen by": run.train.select,
            "started from": run.train.start_from or getattr(run.model, "weights", ""),
            "seed": run.train.seed,
        },
        "software": environment(),
    }


def _leak_check(dataset: DatasetDir, leaks: Sequence[str]) -> str:
    looks = "bytes and looks" if (dataset.root / "leaks.json").exists() else "bytes (looks not: `sign-dist leaks` compares them)"
    found = f"{len(leaks)} kinds of leaks" if leaks else "nothing"
    return f"{found} shared with training, by signers, recordings, {looks}"


def _selection(run: Run, split: str) -> list[str]:
    if split == run.data.train_split:
        return ["These clips were trained on: the scores say how well they were learned, not how well signs are recognised."]
    if split == run.data.val_split and run.train.select == "best" and run.train.epochs:
        return ["The checkpoint was chosen on these very clips: the scores are too good. Report another split."]
    return []


class _PredictRows:
    """An actor with the run's model in memory."""

    def __init__(self, run: Run, checkpoint: Path, samples: Sequence[Sample], device: str) -> None:
        dataset = DatasetDir(Path(run.data.root))
        self._reader = FeatureStore.find(dataset, run.data.features, shared=run.data.store).reader()
        self._samples, self._device = samples, torch.device(device)
        vocab = vocab_of(run.task, dataset)
        self._task = build_task(run, vocab)
        self._most = len(vocab) if vocab and run.task in CLOSED else MOST_ANSWERS
        shape = next(self._reader.features(k).shape for k in self._reader.keys if not self._reader.error(k))
        self._model = trained_model(run, checkpoint, shape[1:]).to(self._device)
        self._warm = False

    @torch.inference_mode()
    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        answers: list[dict[str, Any]] = [{} for _ in batch["key"]]
        sound: list[int] = []
        examples: dict[int, Example] = {}
        for i, key in enumerate(batch["key"]):
            sample = self._samples[batch["index"][i]]
            if error := "not extracted" if key not in self._reader else self._reader.error(key):
                answers[i] = {"error": error}
            else:
                sound.append(i)
                examples[i] = Example(sample, self._reader.features(key))
        if sound and not self._warm:  # what is done once only, such as choosing kernels, is no clip's time
            self._predict([examples[sound[0]]])
            self._warm = True
        # Evenly over the batch, so that short and long clips are timed alike.
        alone = (
            {sound[int(k)] for k in np.linspace(0, len(sound) - 1, min(TIMED_PER_BATCH, len(sound))).round()} if sound else set()
        )
        for i in alone:
            begun = time.perf_counter()
            (prediction,) = self._predict([examples[i]])
            answers[i] = {**_answer(prediction), "model_s": time.perf_counter() - begun}
        if together := [i for i in sound if i not in alone]:
            for i, prediction in zip(together, self._predict([examples[i] for i in together]), strict=True):
                answers[i] = _answer(prediction)
        return {
            "index": batch["index"],
            "answer": [json.dumps(answer) for answer in answers],
            "threads": [torch.get_num_threads()] * len(answers),
        }

    def _predict(self, examples: Sequence[Example]) -> list[Prediction]:
        collated = self._task.collate(examples).to(self._device)
        _, outputs = self._task.losses(self._model, collated)
        return self._task.decode(outputs, collated, k=self._most)


def _answer(prediction: Prediction) -> dict[str, Any]:
    return {"hypothesis": prediction.hypothesis, "scores": prediction.scores, "written": prediction.written}


def _evaluated(task: str, sample: Sample, answer: dict[str, Any], videos: Path | None) -> Evaluated:
    return Evaluated(
        id=sample.id,
        reference=reference_of(task, sample),
        hypothesis=answer.get("hypothesis", ""),
        scores=tuple((label, score) for label, score in answer.get("scores", ())[:MOST_ANSWERS]),
        signer=sample.signer,
        video_path=str(videos / sample.video_path) if videos else "",
        start_s=sample.start_s,
        end_s=sample.end_s,
        error=answer.get("error", ""),
        model_s=answer.get("model_s", math.nan),
        written=tuple(answer.get("written", ())),
    )
