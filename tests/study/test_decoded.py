"""Answers read out from what was kept of a run's model equal those of the model itself, however they are searched for."""

from pathlib import Path

import pytest

from sign_dist.config.data import Data, LandmarkFeatures, Sampling
from sign_dist.config.model import CtcStudentModel, LandmarkModel, Model, TranslatorModel
from sign_dist.config.run import Run
from sign_dist.config.train import Train
from sign_dist.data.layout import DatasetDir
from sign_dist.errors import SettingsError
from sign_dist.models.build import build_model
from sign_dist.study.decoded import Encoded, encode, read_out, share_checkpoint
from sign_dist.tasks.build import build_task, num_classes_of, vocab_of
from sign_dist.training.checkpoint import read_weights
from sign_dist.training.data import Clips, share_of
from sign_dist.training.evaluate import evaluate
from sign_dist.training.run_dir import RunDir
from tests.worlds import extract_here, look_alike, train_here

MODELS: dict[str, Model] = {
    "cslr": CtcStudentModel(width=16, depth=2, lstm_layers=1),
    "slt": TranslatorModel(width=16, depth=1, heads=2),
}


@pytest.mark.long
@pytest.mark.parametrize("task", ["cslr", "slt"])
def test_kept_answers_are_read_out_as_the_model_would_give_them(task: str, tmp_path: Path) -> None:
    dataset = look_alike(tmp_path, "sentences")
    features = LandmarkFeatures(sampling=Sampling(fps=10))
    extract_here(dataset, features)
    run = Run(
        task=task,  # pyright: ignore[reportArgumentType]
        data=Data(root=str(dataset.root), features=features),
        model=MODELS[task],
        train=Train(epochs=1, batch_size=2),
    ).with_values({"decode.max_len": 12})
    train_here(run, tmp_path / "run")
    run_dir = RunDir(tmp_path / "run")
    encode(run_dir).save(tmp_path / "kept.safetensors")
    kept = Encoded.load(tmp_path / "kept.safetensors")

    clips, vocab = Clips.of(run, "val"), vocab_of(task, DatasetDir(dataset.root))
    model = build_model(run.model, num_classes=num_classes_of(task, vocab), feature_shape=clips[0].features.shape[1:])
    model.load_state_dict(read_weights(run_dir.chosen()))
    for beam, penalty in ((1, 1.0), (3, 0.0), (3, 2.0)):
        tried = run.with_values({"decode.beam": beam, "decode.len_penalty": penalty})
        expected = evaluate(model.eval(), build_task(tried, vocab), clips, batch_size=2).scores
        assert read_out(run_dir, kept, tried) == pytest.approx(expected, rel=1e-5)

    other = RunDir(tmp_path / "other")
    other.claim(run)
    shared = share_checkpoint(run_dir, other)
    assert other.chosen() == shared
    assert (shared / "model.safetensors").samefile(run_dir.chosen() / "model.safetensors")


@pytest.mark.long
def test_answers_that_nobody_searches_for_are_refused(tmp_path: Path) -> None:
    dataset = look_alike(tmp_path, "isolated_tracks")
    features = LandmarkFeatures(sampling=Sampling(fps=10))
    extract_here(dataset, features)
    run = Run(data=Data(root=str(dataset.root), features=features), model=LandmarkModel(width=8, depth=1, members=1))
    train_here(run.with_values({"train.epochs": 1}), tmp_path / "run")
    with pytest.raises(SettingsError, match="this is for gloss sequences"):
        encode(RunDir(tmp_path / "run"))


def test_a_share_of_clips_holds_the_smaller_ones_and_all_glosses_alike() -> None:
    from sign_dist.data.sample import Sample

    samples = [Sample(id=f"{gloss}{i}", video_path="x", gloss=gloss) for gloss in "abc" for i in range(10)]
    before: set[str] = set()
    for share in (0.01, 0.1, 0.2, 0.5, 1.0):
        kept = share_of(samples, share)
        ids = [sample.id for sample in kept]
        assert ids == sorted(ids)
        assert before <= set(ids)
        assert len(ids) == max(1, round(share * len(samples)))
        counts = [sum(sample.gloss == gloss for sample in kept) for gloss in "abc"]
        assert max(counts) - min(counts) <= 1
        before = set(ids)
