"""Bundles for every task: what goes into one, what comes out of the predictor, and what the service makes of it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sign_dist.config.data import LandmarkFeatures
from sign_dist.config.model import CtcStudentModel, LandmarkModel, SonarModel, TranslatorModel
from sign_dist.config.run import Decode
from sign_dist.data.layout import write_json
from sign_dist.data.sample import Sample
from sign_dist.data.vocab import Vocab
from sign_dist.errors import RunError
from sign_dist.features.spec import FeatureSpec
from sign_dist.inference.answers import answer_json
from sign_dist.inference.bundle import Bundle, BundleFacts, num_parameters
from sign_dist.inference.predictor import Predictor
from sign_dist.inference.text_files import pack_text_files, unpack_text_files
from sign_dist.models.build import build_model
from sign_dist.tasks.build import build_task, num_classes_of
from sign_dist.tasks.task import Example, Prediction
from sign_dist.transfer.weights_file import file_digest
from sign_dist.video.landmarks import NUM_LANDMARKS

VOCAB = Vocab(("BOOK", "EAT", "I"))
SHAPE = (NUM_LANDMARKS, 4)
MODELS = {
    "islr": LandmarkModel(width=16, depth=1, members=1),
    "cslr": CtcStudentModel(),
    "slt": TranslatorModel(width=16, depth=1, heads=2),
}


def tracks(count):
    rng = np.random.default_rng(0)
    return [rng.normal(size=(20 + 7 * i, *SHAPE)).astype(np.float32) for i in range(count)]


def write_bundle(root: Path, task: str) -> Bundle:
    """A bundle of a model with random weights."""
    torch.manual_seed(1)
    bundle = Bundle(root)
    vocab = None if task == "slt" else VOCAB
    root.mkdir()
    if vocab:
        vocab.write(bundle.vocab_file)
    model = build_model(MODELS[task], num_classes=num_classes_of(task, vocab), feature_shape=SHAPE)
    save_file({name: tensor.contiguous().clone() for name, tensor in model.state_dict().items()}, bundle.weights_file)
    facts = BundleFacts(
        name=task,
        task=task,
        model=pack_text_files(MODELS[task], bundle.text),
        decode=Decode(beam=3, max_len=12),
        feature_shape=SHAPE,
        spec=FeatureSpec(features=LandmarkFeatures(), weights=""),
        weights_sha256=file_digest(bundle.weights_file),
        vocab_size=len(vocab) if vocab else 0,
    )
    write_json(bundle.facts_file, facts.model_dump(mode="json"))
    return bundle


@pytest.fixture(scope="module", params=["islr", "cslr", "slt"])
def bundle(request, tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("bundles") / request.param, request.param)


def test_a_predictor_answers_as_evaluation_does(bundle):
    predictor, features = Predictor.load(bundle.root), tracks(3)
    facts = bundle.facts()
    task = build_task(facts.run(), bundle.vocab)
    batch = task.collate([Example(Sample(str(i), "", gloss="BOOK", translation="a book"), f) for i, f in enumerate(features)])
    with torch.inference_mode():
        expected = task.decode(task.losses(predictor._model, batch)[1], batch, 3)
    found = predictor.predict(features, k=3)
    assert [p.hypothesis for p in found] == [p.hypothesis for p in expected]
    for mine, theirs in zip(found, expected, strict=True):
        assert [label for label, _ in mine.scores] == [label for label, _ in theirs.scores]
        assert [s for _, s in mine.scores] == pytest.approx([s for _, s in theirs.scores], abs=1e-5)


def test_a_clip_is_answered_alone_as_among_others(bundle):
    predictor, features = Predictor.load(bundle.root), tracks(3)
    together = predictor.predict(features, k=2)
    for i, feature in enumerate(features):
        assert predictor.predict([feature], k=2)[0].hypothesis == together[i].hypothesis


def test_answers_are_plain_json(bundle):
    predictor = Predictor.load(bundle.root)
    task = predictor.task
    (prediction,) = predictor.predict(tracks(1), k=3)
    answer = json.loads(json.dumps(answer_json(task, prediction, 2, digits=6), allow_nan=False))
    key = {"islr": "gloss", "cslr": "glosses", "slt": "sentence"}[task]
    assert isinstance(answer[key], list if task == "cslr" else str)
    assert len(answer["results"]) <= 2
    assert all(row.keys() == {key, "score"} for row in answer["results"])
    assert predictor.facts["num_glosses"] == (0 if task == "slt" else 3)


def test_an_empty_answer_is_an_answer():
    assert answer_json("cslr", Prediction("", (("", 0.5),)), 5) == {"glosses": [], "results": [{"glosses": [], "score": 0.5}]}
    assert answer_json("slt", Prediction("", ()), 5) == {"sentence": "", "results": []}
    assert answer_json("slt", Prediction("a", (("a", float("-inf")),)), 5)["results"] == [{"sentence": "a", "score": None}]


def test_a_bundle_of_the_form_before_is_read(tmp_path):
    bundle = write_bundle(tmp_path / "old", "islr")
    tree = json.loads(bundle.facts_file.read_text())
    del tree["decode"]
    write_json(bundle.facts_file, tree | {"format": 1})
    assert Predictor.load(bundle.root).predict(tracks(1))[0].hypothesis in VOCAB.glosses
    write_json(bundle.facts_file, tree | {"format": 99})
    with pytest.raises(RunError, match="format 99, this version reads up to 2"):
        Predictor.load(bundle.root)


def test_a_vocabulary_that_lost_a_line_is_told(tmp_path):
    bundle = write_bundle(tmp_path / "b", "cslr")
    bundle.vocab_file.write_text("BOOK\nEAT\n")
    with pytest.raises(RunError, match="has 2 glosses, its model 3"):
        Predictor.load(bundle.root)


def test_parameters_are_counted_without_reading_them(bundle):
    from safetensors.torch import load_file

    assert num_parameters(bundle.weights_file) == sum(t.numel() for t in load_file(bundle.weights_file).values())


def test_nothing_of_the_training_is_named_in_a_bundle(tmp_path):
    model = SonarModel(encoder_weights="/home/me/encoder.pt", target_embeddings="/home/me/targets.npz")
    packed = pack_text_files(model, tmp_path)
    assert "/home/me" not in packed.model_dump_json()
    assert packed.with_values({}) == packed
    assert not any(tmp_path.iterdir())  # bytes need no tokenizer
    assert pack_text_files(MODELS["cslr"], tmp_path) == MODELS["cslr"]


@pytest.mark.long
def test_a_pretrained_text_model_and_its_tokenizer_travel_without_its_weights(tmp_path, monkeypatch):
    from transformers import ByT5Tokenizer

    from sign_dist.models.seq2seq import small_t5

    source = tmp_path / "source"
    tokenizer = ByT5Tokenizer(extra_ids=0)
    torch.manual_seed(0)
    small_t5(len(tokenizer), pad=0, end=1, width=16, depth=1, heads=2).save_pretrained(str(source))
    tokenizer.save_pretrained(str(source))
    monkeypatch.setitem(MODELS, "slt", TranslatorModel(source=str(source)))
    bundle = write_bundle(tmp_path / "bundle", "slt")
    before = Predictor.load(bundle.root).predict(tracks(2), k=2)
    shutil.rmtree(source)
    moved = Bundle(bundle.root.rename(tmp_path / "moved"))
    assert not list(moved.text.rglob("*.safetensors"))
    after = Predictor.load(moved.root).predict(tracks(2), k=2)
    assert after == before
    assert str(source) not in moved.facts_file.read_text()
    assert unpack_text_files(TranslatorModel(), moved.text) == TranslatorModel()
