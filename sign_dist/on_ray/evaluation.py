"""Ray Data: a split of a run's dataset through many copies of its model."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from ray.data import ActorPoolStrategy

from sign_dist.config.run import Run
from sign_dist.data.layout import DatasetDir
from sign_dist.data.leaks import shared_with_training
from sign_dist.data.manifest import read_manifest
from sign_dist.data.privacy import shows_people
from sign_dist.data.sample import Sample
from sign_dist.data.vocab import Vocab
from sign_dist.features.store import FeatureStore
from sign_dist.inference.report import Evaluated, build_report, write_report
from sign_dist.models.build import build_model
from sign_dist.on_ray.clips import from_rows
from sign_dist.on_ray.cluster import num_cpus, num_gpus
from sign_dist.tasks.build import build_task, num_classes_of
from sign_dist.tasks.task import Example
from sign_dist.training.checkpoint import read_weights
from sign_dist.training.record import environment
from sign_dist.training.run_dir import RunDir

CLIPS_PER_BATCH = 32


def evaluate_split(run_dir: RunDir, split: str) -> list[Evaluated]:
    """Predict every clip of a split with the checkpoint the run stands for; a clip without features is an error row.

    Raises:
        RunError: the run has no checkpoint.
        DataError: no such split, or its features are missing.
    """
    run, chosen = run_dir.run(), run_dir.chosen()
    dataset = DatasetDir(Path(run.data.root))
    samples = read_manifest(dataset, split)
    rows = [{"index": i, "key": s.key} for i, s in enumerate(samples)]
    FeatureStore.find(dataset, run.data.features, shared=run.data.store)
    gpus = num_gpus()
    answers = from_rows(rows, CLIPS_PER_BATCH).map_batches(
        _PredictRows,
        fn_constructor_kwargs={"run": run, "checkpoint": chosen, "samples": samples, "device": "cuda" if gpus else "cpu"},
        batch_size=CLIPS_PER_BATCH,
        compute=ActorPoolStrategy(min_size=1, max_size=max(1, min(gpus or num_cpus(), -(-len(rows) // CLIPS_PER_BATCH)))),
        num_cpus=1 if gpus else 0.7,
        num_gpus=1 if gpus else 0,
    )
    found = {int(row["index"]): json.loads(row["answer"]) for row in answers.iter_rows()}
    # Without the videos' place the report shows no picture of anyone.
    videos = dataset.videos_root() if shows_people(dataset) else None
    return [
        _evaluated(s, found.get(i, {"error": "crashed: the process that held this clip died"}), videos)
        for i, s in enumerate(samples)
    ]


def evaluate_run(root: Path, split: str) -> tuple[Path, dict[str, Any]]:
    """Evaluate a split and write its report into the run directory; answers the page and the content of report.json.

    Raises:
        RunError: no run or checkpoint there.
        DataError: no such split, or its features are missing.
    """
    run_dir = RunDir(root)
    run, chosen = run_dir.run(), run_dir.chosen()
    dataset = DatasetDir(Path(run.data.root))
    evaluated = evaluate_split(run_dir, split)
    facts = dataset.facts()
    report = build_report(
        evaluated,
        facts={
            "split": {
                "evaluated": split,
                "policy": facts["split"]["policy"],
                "clips": facts["counts"],
                "leaks allowed": run.data.allow_leaks,
                "warnings": [
                    *shared_with_training(dataset, run.data.train_split, split),
                    *facts["warnings"],
                    *_selection(run, split),
                ],
            },
            "dataset": {"corpus": facts["corpus"], "dataset digest": facts["digest"], "rejected": facts["rejected"]},
            "features": FeatureStore.find(dataset, run.data.features, shared=run.data.store).spec().to_json(),
            "model": run.model.model_dump(mode="json"),
            "training": {
                "run digest": run.digest(),
                "checkpoint": chosen.name,
                "chosen by": run.train.select,
                "seed": run.train.seed,
            },
            "software": environment(),
        },
        vocabulary=Vocab.read(dataset.vocab_file).glosses,
    )
    name = f"{run_dir.root.resolve().name}: {split}"
    page = write_report(run_dir.eval(split), evaluated, report, metrics_jsonl=run_dir.metrics_file, title=name)
    return page, report


def _selection(run: Run, split: str) -> list[str]:
    if split == run.data.train_split:
        return ["These clips were trained on: the scores say how well they were learned, not how well signs are recognised."]
    if split == run.data.val_split and run.train.select == "best":
        return ["The checkpoint was chosen on these very clips: the scores are too good. Report another split."]
    return []


class _PredictRows:
    """An actor with the run's model in memory."""

    def __init__(self, run: Run, checkpoint: Path, samples: Sequence[Sample], device: str) -> None:
        dataset = DatasetDir(Path(run.data.root))
        self._reader = FeatureStore.find(dataset, run.data.features, shared=run.data.store).reader()
        self._samples, self._device = samples, torch.device(device)
        vocab = Vocab.read(dataset.vocab_file)
        self._task = build_task(run, vocab)
        shape = next(self._reader.features(k).shape for k in self._reader.keys if not self._reader.error(k))
        self._model = build_model(run.model, num_classes=num_classes_of(run.task, vocab), feature_shape=shape[1:])
        self._model.load_state_dict(read_weights(checkpoint))
        self._model.to(self._device).eval()

    @torch.inference_mode()
    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        answers: list[dict[str, Any]] = [{} for _ in batch["key"]]
        sound: list[int] = []
        for i, key in enumerate(batch["key"]):
            if error := ("not extracted" if key not in self._reader else self._reader.error(key)):
                answers[i] = {"error": error}
            else:
                sound.append(i)
        if sound:
            examples = [Example(self._samples[batch["index"][i]], self._reader.features(batch["key"][i])) for i in sound]
            collated = self._task.collate(examples).to(self._device)
            _, outputs = self._task.losses(self._model, collated)
            for i, prediction in zip(sound, self._task.decode(outputs, collated, k=10), strict=True):
                answers[i] = {"hypothesis": prediction.hypothesis, "scores": prediction.scores}
        return {"index": batch["index"], "answer": [json.dumps(answer) for answer in answers]}


def _evaluated(sample: Sample, answer: dict[str, Any], videos: Path | None) -> Evaluated:
    return Evaluated(
        id=sample.id,
        reference=sample.gloss,
        hypothesis=answer.get("hypothesis", ""),
        scores=tuple((gloss, score) for gloss, score in answer.get("scores", ())),
        signer=sample.signer,
        video_path=str(videos / sample.video_path) if videos else "",
        start_s=sample.start_s,
        end_s=sample.end_s,
        error=answer.get("error", ""),
    )
