"""Bundles of a vision-language model: adapters over a base that must be the very one, merged, and whole; one base for many."""

import numpy as np
import pytest
import torch

from sign_dist.config.data import Data, FrameFeatures
from sign_dist.config.model import VideoCnnModel, VlmModel
from sign_dist.config.run import Run
from sign_dist.config.train import Lora, Train
from sign_dist.data.vocab import Vocab
from sign_dist.errors import RunError, WeightsError
from sign_dist.features.encode import find_files, spec_for
from sign_dist.inference.bases import Bases, base_digest, base_of, over
from sign_dist.inference.bundle import Bundle, BundleFacts
from sign_dist.inference.predictor import Predictor
from sign_dist.inference.text_files import pack_text_files
from sign_dist.inference.transformers_folder import write_folder
from sign_dist.models.build import build_model
from sign_dist.models.seq2seq import UNFILLED
from sign_dist.training.adapt import adapt
from sign_dist.training.checkpoint import save_weights_file
from sign_dist.transfer.lora import merged_state
from sign_dist.transfer.weights_file import file_digest

pytestmark = pytest.mark.long

GLOSSES = ("BOOK", "BOOKCASE", "MILK", "THANK-YOU")
SHAPE = (32, 32, 3)
FRAMES = FrameFeatures(num_frames=2, size_px=32)
LORA = Lora(targets="language_model.*.q_proj language_model.*.v_proj", rank=2, alpha=4.0)
VOCAB = Vocab(GLOSSES)
CLIPS = [np.random.default_rng(i).integers(0, 256, (2, *SHAPE), dtype=np.uint8) for i in range(3)]


def settings(**more):
    return VlmModel(width=32, depth=1, patch_px=4, prompt="Sign?", **more)


def adapted(model, seed, lora=LORA):
    """A model with adapters that say something: both halves are drawn."""
    built = build_model(model, num_classes=0, feature_shape=SHAPE, glosses=GLOSSES)
    adapt(built, lora)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in built.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator)
    return built.eval()


def write(root, model, tensors, *, lora=None, base=""):
    bundle = Bundle(root)
    root.mkdir()
    VOCAB.write(bundle.vocab_file)
    save_weights_file(tensors, bundle.weights_file)
    packed = model if base else pack_text_files(model, bundle.text)
    facts = BundleFacts(
        name=root.name, task="vlm", model=packed, lora=lora or Lora(), base=base, feature_shape=SHAPE,
        spec=spec_for(FRAMES, find_files(FRAMES)), weights_sha256=file_digest(bundle.weights_file), vocab_size=len(GLOSSES),
    )  # fmt: skip
    bundle.facts_file.write_text(facts.model_dump_json())
    return root


def said(predictor):
    return [dict(p.scores) for p in predictor.predict(CLIPS, k=4)]


def close(first, second):
    return all(a == pytest.approx(b, abs=1e-5) for a, b in zip(first, second, strict=True))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A base as a user has it: a folder in transformers' form."""
    folder = tmp_path_factory.mktemp("base")
    built = build_model(settings(), num_classes=0, feature_shape=SHAPE, glosses=GLOSSES)
    built.vlm.save_pretrained(folder)
    built.tokens.tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("drawn", [True, False])
def test_adapters_alone_merged_and_asked_in_training_answer_alike(drawn, source, tmp_path):
    model = settings() if drawn else settings(source=str(source))
    trained = adapted(model, 1)
    base = base_of(model, feature_shape=SHAPE, vocab=VOCAB)
    alone = Predictor.load(write(tmp_path / "alone", model, trained.state_dict(), lora=LORA, base=base))
    # What a checkpoint keeps is adapters alone; what is merged needs the rest, which is there in the model that trains.
    names = dict(trained.named_parameters())
    assert len(trained.state_dict()) < len(names)
    whole = adapted(model, 1)
    whole._state_dict_hooks.clear()
    merged = Predictor.load(write(tmp_path / "merged", model, merged_state(whole)))
    assert close(said(alone), said(merged))
    plain = build_model(model, num_classes=0, feature_shape=SHAPE, glosses=GLOSSES)
    untrained = Predictor.load(write(tmp_path / "plain", model, plain.state_dict()))
    assert not close(said(alone), said(untrained))
    small = (tmp_path / "alone" / "weights.safetensors").stat().st_size
    assert small < (tmp_path / "merged" / "weights.safetensors").stat().st_size / 5


def test_a_merged_bundle_needs_no_base_and_one_of_adapters_says_what_it_needs(source, tmp_path):
    moved = tmp_path / "base"
    moved.mkdir()
    for file in source.iterdir():
        (moved / file.name).write_bytes(file.read_bytes())
    model = settings(source=str(moved))
    trained = adapted(model, 1)
    base = base_of(model, feature_shape=SHAPE, vocab=VOCAB)
    alone = write(tmp_path / "alone", model, trained.state_dict(), lora=LORA, base=base)
    whole = adapted(model, 1)
    whole._state_dict_hooks.clear()
    merged = write(tmp_path / "merged", model, merged_state(whole))
    wanted = said(Predictor.load(merged))
    moved.rename(tmp_path / "elsewhere")
    assert close(said(Predictor.load(merged)), wanted)
    with pytest.raises(RunError, match=r"not on this machine: fetch it.*base=FOLDER.*--merged"):
        Predictor.load(alone)
    assert close(said(Predictor.load(alone, base=str(tmp_path / "elsewhere"))), wanted)
    other = build_model(settings(seed=9), num_classes=0, feature_shape=SHAPE, glosses=GLOSSES)
    other.vlm.save_pretrained(tmp_path / "elsewhere")
    with pytest.raises(RunError, match=r"not the one that these adapters were trained over"):
        Predictor.load(alone, base=str(tmp_path / "elsewhere"))


def test_a_base_that_is_drawn_differently_is_refused(tmp_path):
    model = settings()
    bundle = write(tmp_path / "b", model, adapted(model, 1).state_dict(), lora=LORA, base="0" * 64)
    with pytest.raises(RunError, match="drawn from its seed"):
        Predictor.load(bundle)


@pytest.mark.parametrize("quantize", ["none", "nf4"])
def test_many_adapters_share_the_tensors_of_one_base_and_do_not_touch_each_other(quantize, source, tmp_path):
    model = settings(source=str(source), quantize=quantize)
    base = base_of(model, feature_shape=SHAPE, vocab=VOCAB)
    loras = [LORA, LORA, LORA.with_values({"rank": 4})]
    folders = [
        write(tmp_path / f"a{i}", model, adapted(settings(source=str(source)), i, lora).state_dict(), lora=lora, base=base)
        for i, lora in enumerate(loras)
    ]
    bases = Bases()
    first = Predictor.load(folders[0], bases=bases)
    before = said(first)
    others = [Predictor.load(folder, bases=bases) for folder in folders[1:]]
    assert bases.num_held == 1
    assert said(first) == before
    assert close(said(others[1]), said(Predictor.load(folders[2])))
    assert not close(before, said(others[0]))
    shared = [{p.data_ptr() for n, p in q._model.named_parameters() if "lora_" not in n} for q in (first, *others)]
    assert shared[0] == shared[1] == shared[2]


def test_the_structure_over_a_base_is_another_and_its_tensors_are_the_same():
    base = build_model(settings(), num_classes=0, feature_shape=SHAPE, glosses=GLOSSES)
    copied = over(base)
    assert [p is q for p, q in zip(base.parameters(), copied.parameters(), strict=True)] == [True] * len(list(base.parameters()))
    adapt(copied, LORA)
    assert not any("lora_" in name for name, _ in base.named_parameters())


def test_a_digest_is_of_bytes_and_a_cache_entry_is_believed_by_its_name(source, tmp_path):
    digest = base_digest(str(source))
    assert len(digest) == 64
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    snapshot.mkdir()
    for file in source.iterdir():
        blob = blobs / file_digest(file)
        blob.write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(blob)
    assert base_digest(str(snapshot)) == digest
    assert base_digest(str(tmp_path / "nothing")) == ""
    with pytest.raises(WeightsError, match="not on this machine"):
        base_of(settings(source=str(tmp_path / "nothing")), feature_shape=SHAPE, vocab=VOCAB)


def test_facts_give_back_the_run_that_adapters_belong_to():
    facts = BundleFacts(
        name="x", task="vlm", model=settings(), lora=LORA, feature_shape=SHAPE,
        spec=spec_for(FRAMES, find_files(FRAMES)), weights_sha256="",
    )  # fmt: skip
    assert facts.run() == Run(task="vlm", data=Data(root="x", features=FRAMES), model=settings(), train=Train(lora=LORA))


def test_a_whole_model_becomes_a_folder_that_another_run_adapts(tmp_path):
    whole = build_model(settings(), num_classes=0, feature_shape=SHAPE, glosses=GLOSSES).eval()
    bundle = Bundle(write(tmp_path / "whole", settings(), whole.state_dict()))
    folder = write_folder(bundle, tmp_path / "folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "whole"]
    source = settings(source=str(folder))
    again = build_model(source, num_classes=0, feature_shape=SHAPE, glosses=GLOSSES).eval()
    assert again.tokens.prompt_ids(2) == whole.tokens.prompt_ids(2)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    # Adapters over it, merged, become a folder as well: of these the bundle has the shape of the folder below.
    adapters = adapted(source, 3)
    merged = Bundle(write(tmp_path / "merged", source, merged_state(adapters)))
    twice = write_folder(merged, tmp_path / "twice")
    assert not (twice / UNFILLED).exists()
    third = build_model(settings(source=str(twice)), num_classes=0, feature_shape=SHAPE, glosses=GLOSSES)
    for name, tensor in merged_state(adapters).items():
        assert torch.equal(third.state_dict()[name], tensor), name
    with pytest.raises(RunError, match="is there already: name a folder that is not"):
        write_folder(bundle, folder)


def test_what_has_no_form_of_transformers_is_said(tmp_path):
    model = adapted(settings(), 1)
    state = {name: tensor for name, tensor in model.state_dict().items() if "lora_" in name}
    alone = write(tmp_path / "alone", settings(), state, lora=LORA, base="0" * 64)
    with pytest.raises(RunError, match="holds adapters alone: export its run with --merged first"):
        write_folder(Bundle(alone), tmp_path / "folder")
    facts = Bundle(alone).facts().model_copy(update={"model": VideoCnnModel(), "task": "islr", "base": ""})
    Bundle(alone).facts_file.write_text(facts.model_dump_json())
    with pytest.raises(RunError, match="is a video_cnn: only vision-language models"):
        write_folder(Bundle(alone), tmp_path / "folder")
    assert not (tmp_path / "folder").exists()
