"""What an evaluating actor answers, and what a report says of its run: for sequences and sentences, without a cluster."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sign_dist.config.data import Data
from sign_dist.config.model import CtcStudentModel, TranslatorModel
from sign_dist.config.run import Decode, Run
from sign_dist.data.layout import DatasetDir, write_json
from sign_dist.data.manifest import read_manifest
from sign_dist.features.store import FeatureStore
from sign_dist.inference.bundle import export
from sign_dist.inference.predictor import Predictor
from sign_dist.inference.report import build_report, write_report
from sign_dist.inference.sides import read_side
from sign_dist.models.build import build_model
from sign_dist.tasks.build import num_classes_of, vocab_of
from sign_dist.training.run_dir import RunDir
from tests.training.test_distillation import FEATURES, dataset_of, leave

pytestmark = pytest.mark.long

MODELS: dict[Any, Any] = {"cslr": CtcStudentModel(width=16), "slt": TranslatorModel(width=16, depth=1, heads=2)}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dataset_of(tmp_path_factory.mktemp("sentences"), seed=0)


@pytest.fixture(params=["cslr", "slt"])
def run_dir(request: pytest.FixtureRequest, data: Path, tmp_path: Path) -> RunDir:
    """A run whose weights are random."""
    task = request.param
    run = Run(task=task, data=Data(root=str(data), features=FEATURES), model=MODELS[task], decode=Decode(beam=2, max_len=8))
    vocab = vocab_of(task, DatasetDir(data))
    torch.manual_seed(0)
    model = build_model(run.model, num_classes=num_classes_of(task, vocab), feature_shape=(102, 4))
    (tmp_path / "run").mkdir()
    return RunDir(leave(tmp_path / "run", run, model))


def answers_of(run_dir: RunDir, split: str, extra: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    from sign_dist.on_ray.evaluation import _PredictRows

    run = run_dir.run()
    samples = read_manifest(DatasetDir(Path(run.data.root)), split)
    keys = [s.key for s in samples] + list(extra)
    batch = {"index": np.arange(len(keys)) % len(samples), "key": np.array(keys)}
    actor = _PredictRows(run, run_dir.chosen(), samples, "cpu")
    return [json.loads(answer) for answer in actor(batch)["answer"]]


def test_a_clip_without_features_is_a_row_and_others_are_timed_alone(run_dir: RunDir) -> None:
    *sound, lost = answers_of(run_dir, "train", extra=("no such key",))
    assert lost == {"error": "not extracted"}
    assert all("hypothesis" in answer for answer in sound)
    timed = [answer["model_s"] for answer in sound if "model_s" in answer]
    assert len(timed) == min(8, len(sound))
    assert all(0 < seconds < 60 for seconds in timed)


def test_clips_alone_are_answered_as_those_that_share_a_call(run_dir: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    from sign_dist.on_ray import evaluation

    alone = answers_of(run_dir, "train")
    monkeypatch.setattr(evaluation, "TIMED_PER_BATCH", 0)
    together = answers_of(run_dir, "train")
    assert [a["hypothesis"] for a in alone] == [a["hypothesis"] for a in together]
    for mine, theirs in zip(alone, together, strict=True):
        assert [score for _, score in mine["scores"]] == pytest.approx([score for _, score in theirs["scores"]], rel=1e-3, abs=1e-6)


def test_facts_report_card_bundle_and_comparison_of_a_run(run_dir: RunDir, data: Path) -> None:
    from sign_dist.on_ray.evaluation import _evaluated, report_facts

    run = run_dir.run()
    samples = read_manifest(DatasetDir(data), "train")
    evaluated = [_evaluated(run.task, s, a, data) for s, a in zip(samples, answers_of(run_dir, "train"), strict=True)]
    facts = report_facts(run_dir, run_dir.chosen(), "train")
    assert "trained on" in facts["split"]["warnings"][-1]
    assert facts["decode"] == ({"beam": 2, "merge": False} if run.task == "cslr" else {"beam": 2, "max_len": 8, "len_penalty": 1.0})
    report = build_report(evaluated, facts=facts, task=run.task)
    write_report(run_dir.eval("train"), evaluated, report, name="a_run")
    card = (run_dir.eval("train") / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert f"{facts['size']['parameters']:,}" in card
    assert "not recorded: find out what it allows" in card
    bundle = export(run_dir)
    # The bundle's card is the evaluated one's, but for its name; and it answers as the run does.
    assert "## Scores on" in bundle.card_file.read_text(encoding="utf-8")
    predictor = Predictor.load(bundle.root)
    reader = FeatureStore.find(DatasetDir(data), run.data.features).reader()
    found = predictor.predict([reader.features(s.key) for s in samples], k=2)
    assert [p.hypothesis for p in found] == [e.hypothesis for e in evaluated]
    assert len(read_side(str(run_dir.root), "train").clips[0]) == len(samples)


def test_a_bundle_of_a_run_that_nobody_evaluated_says_so(run_dir: RunDir) -> None:
    assert "Not evaluated: nothing is known" in export(run_dir).card_file.read_text(encoding="utf-8")


def test_where_people_are_hidden_no_clip_is_named(run_dir: RunDir, data: Path) -> None:
    from sign_dist.data.privacy import shows_people
    from sign_dist.on_ray.evaluation import _evaluated

    dataset = DatasetDir(data)
    write_json(dataset.root / "privacy.json", {"privacy": "keypoints"})
    try:
        videos = dataset.videos_root() if shows_people(dataset) else None
        clips = [_evaluated(run_dir.run().task, s, {"hypothesis": "A"}, videos) for s in read_manifest(dataset, "train")]
        assert {clip.video_path for clip in clips} == {""}
    finally:
        (dataset.root / "privacy.json").unlink()
