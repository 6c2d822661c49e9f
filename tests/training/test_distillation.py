"""A run with a teacher, before its first step: who may teach it, from what is on disk, and what is said of those who may not."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sign_dist.config.data import Data, Glosses, LandmarkFeatures
from sign_dist.config.distill import Distill
from sign_dist.config.model import CtcStudentModel, TemporalI3dModel
from sign_dist.config.run import Run
from sign_dist.config.train import Augment, Train
from sign_dist.data.layout import SPLITS, DatasetDir, write_json
from sign_dist.data.manifest import read_manifest
from sign_dist.data.prepare import prepare
from sign_dist.data.vocab import Vocab
from sign_dist.errors import DataError, RunError, SettingsError, SignDistError, WeightsError
from sign_dist.features.encode import NO_FILES, build_encoder, decode_row, encode_row, spec_for
from sign_dist.features.store import FeatureStore
from sign_dist.models.build import build_model
from sign_dist.models.mimicry import DistilledStudent
from sign_dist.on_ray import training as train_verb
from sign_dist.synthetic.like import Order, write_order
from sign_dist.tasks.build import build_task, num_classes_of
from sign_dist.tasks.distill import Distilled
from sign_dist.training.data import Clips, lengths_of
from sign_dist.training.distillation import Distillation, begin_distillation
from sign_dist.training.evaluate import evaluate
from sign_dist.training.run_dir import RunDir
from sign_dist.training.strategy import OneProcess
from sign_dist.training.teacher import check_teacher, find_teacher, read_teacher, with_absolute_teacher
from sign_dist.training.teacher_cache import answer_rows, answer_store, kept_kinds, unasked

FEATURES = LandmarkFeatures(every=4)
STILL = Augment(**dict.fromkeys(Augment.model_fields, 0.0))
TEACHER = TemporalI3dModel(channels=0.1, fused_width=16, lstm_width=8)


def dataset_of(root: Path, *, seed: int, features: LandmarkFeatures = FEATURES) -> Path:
    """Eight sentences of four signers as landmark tracks, prepared and extracted."""
    write_order(root / "raw", Order(sentences=8, signers=4, seed=seed, landmarks=True))
    prepared = prepare("table", root / "raw", root / "data", glosses=Glosses(labels="sequence"))
    store, encoder = FeatureStore.create(prepared.dataset, spec_for(features, NO_FILES)), build_encoder(features, NO_FILES)
    for split in SPLITS:
        rows = [
            {"key": s.key, "id": s.id, "path": str(root / "raw" / s.video_path), "start_s": s.start_s, "end_s": s.end_s}
            for s in read_manifest(prepared.dataset, split)
        ]
        store.commit(f"{split}-0", [encode_row(decode_row(row, features), encoder) for row in rows])
    return root / "data"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dataset_of(tmp_path_factory.mktemp("sentences"), seed=0)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dataset_of(tmp_path_factory.mktemp("others"), seed=1)


def run_of(data: Path, teacher: Path | str = "", **distill: Any) -> Run:
    return Run(
        task="cslr",
        data=Data(root=str(data), features=FEATURES),
        model=CtcStudentModel(width=16),
        train=Train(batch_size=4, augment=STILL, distill=Distill(teacher=str(teacher), **distill)),
    )


def model_of(run: Run, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    vocab = Vocab.read(DatasetDir(Path(run.data.root)).vocab_file)
    shape = Clips.of(run, "val")[0].features.shape[1:]
    return build_model(run.model, num_classes=num_classes_of(run.task, vocab), feature_shape=shape)


def silent(model: Any) -> Any:
    """Says nothing, which is a word error rate of exactly 100."""
    with torch.no_grad():
        model.classifier.bias[0] = 1e4
    return model


def raving(model: Any) -> Any:
    """Says another gloss at every step, which is worse than nothing."""
    with torch.no_grad():
        model.classifier.bias[0] = -1e4
        model.classifier.weight *= 1e4
    return model


def leave(root: Path, run: Run, model: nn.Module, **metrics: float) -> Path:
    """A run directory, as far as others read it."""
    write_json(root / "run.json", run.model_dump(mode="json"))
    folder = root / "epoch_0003"
    folder.mkdir()
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / "model.safetensors")
    write_json(folder / "progress.json", {"epoch": 3, "step": 9, "metrics": metrics, "rank": 1.0})
    return root


@pytest.fixture
def teacher(tmp_path: Path, data: Path) -> Path:
    run = run_of(data).with_values({"model": TEACHER})
    return leave(tmp_path / "teacher", run, silent(model_of(run)), **{"val/wer": 100.0})


def begin(run: Run, tmp_path: Path, student: Any = None, *, resumed: bool = False) -> Distillation:
    clips, val_clips = Clips.of(run, "train"), Clips.of(run, "val")
    vocab = Vocab.read(DatasetDir(Path(run.data.root)).vocab_file)
    task = build_task(run, vocab, clips.samples)
    run_dir = RunDir(tmp_path / "run")
    run_dir.root.mkdir(exist_ok=True)
    student = silent(model_of(run, 1)) if student is None else student
    return begin_distillation(run, run_dir, task, student, clips, val_clips, strategy=OneProcess(), resumed=resumed)


# --- who may teach ----------------------------------------------------------------------------------------------------


def test_without_a_teacher_nothing_changes(tmp_path: Path, data: Path) -> None:
    run = run_of(data)
    student = model_of(run)
    found = begin(run, tmp_path, student)
    assert found.model is student
    assert not isinstance(found.task, Distilled)
    assert check_teacher(run) is None
    assert with_absolute_teacher(run) == run
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize("part", ["", "epoch_0003", "epoch_0003/model.safetensors"])
def test_a_run_and_its_checkpoint_can_teach(tmp_path: Path, data: Path, teacher: Path, part: str) -> None:
    found = begin(run_of(data, teacher / part), tmp_path)
    assert isinstance(found.task, Distilled)
    record = json.loads((tmp_path / "run" / "teacher.json").read_text())
    assert (record["monitor"], record["score"], record["student_start"]) == ("val/wer", 100.0, 100.0)
    assert record["parameters"]["teacher"] > record["parameters"]["student"] > 0
    batch = found.task.collate([found.clips[i] for i in range(len(found.clips))])
    losses, _ = found.task.losses(found.model.train(), batch)
    assert losses.keys() == {"ctc", "distill_logits"}
    assert all(torch.isfinite(value).all() for value in losses.values())


def test_a_bundle_can_teach_though_its_dataset_is_gone(tmp_path: Path, data: Path, teacher: Path) -> None:
    run = RunDir(teacher).run()
    store = FeatureStore.find(DatasetDir(data), FEATURES)
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    shutil.copyfile(teacher / "epoch_0003" / "model.safetensors", bundle / "weights.safetensors")
    shutil.copyfile(data / "vocab" / "gloss.txt", bundle / "vocab.txt")
    facts = {"task": "cslr", "model": run.model.model_dump(mode="json"), "spec": store.spec().to_json()}
    write_json(bundle / "bundle.json", facts)
    found = begin(run_of(data, bundle), tmp_path)
    assert isinstance(found.task, Distilled)
    assert find_teacher(bundle).digest() == find_teacher(teacher).digest(), "the same weights say the same"
    for damaged in ("{", json.dumps({**facts, "model": {"kind": "nothing"}}), json.dumps({"task": "cslr"})):
        (bundle / "bundle.json").write_text(damaged)
        with pytest.raises(SignDistError, match=r"bundle\.json"):
            check_teacher(run_of(data, bundle))


def test_another_vocabulary_is_refused_with_both(data: Path, other: Path, tmp_path: Path) -> None:
    theirs = run_of(other).with_values({"model": TEACHER})
    leave(tmp_path / "teacher", theirs, model_of(theirs))
    sizes = [len(Vocab.read(DatasetDir(root).vocab_file)) for root in (other, data)]
    with pytest.raises(
        SettingsError, match=rf"knows {sizes[0]} glosses and this run {sizes[1]}, the first that differ are '.*' and '.*'"
    ):
        check_teacher(run_of(data, tmp_path / "teacher"))


def test_other_features_are_refused_with_both(data: Path, teacher: Path) -> None:
    run = run_of(data, teacher)
    spec = spec_for(FEATURES.model_copy(update={"every": 2}), NO_FILES)
    FeatureStore.create(DatasetDir(data), spec)
    own = run.with_values({"data.features.every": 2})
    with pytest.raises(
        SettingsError, match=r"reads features landmarks-\w+ \(features\.every = 4, here 2\) and this run reads landmarks-"
    ):
        check_teacher(own)
    shutil.rmtree(DatasetDir(data).features / spec.name)


def test_another_task_has_no_blank(data: Path, teacher: Path) -> None:
    run = json.loads((teacher / "run.json").read_text())
    write_json(teacher / "run.json", {**run, "task": "islr", "model": {"kind": "landmark"}})
    with pytest.raises(SettingsError, match=r"was trained for task 'islr' and this run is for 'cslr'"):
        check_teacher(run_of(data, teacher))


def test_where_there_is_no_teacher(data: Path, tmp_path: Path, teacher: Path) -> None:
    with pytest.raises(WeightsError, match="holds no weights"):
        check_teacher(run_of(data, tmp_path / "nowhere"))
    lone = tmp_path / "lone.safetensors"
    shutil.copyfile(teacher / "epoch_0003" / "model.safetensors", lone)
    with pytest.raises(WeightsError, match="does not say of which model"):
        check_teacher(run_of(data, lone))
    shutil.rmtree(teacher / "epoch_0003")
    with pytest.raises(RunError, match="has no checkpoint yet"):
        check_teacher(run_of(data, teacher))


@pytest.mark.parametrize("how", ["torn", "other model"])
def test_damaged_weights_are_said(data: Path, tmp_path: Path, teacher: Path, how: str) -> None:
    file = teacher / "epoch_0003" / "model.safetensors"
    if how == "torn":
        file.write_bytes(file.read_bytes()[:-9])
    else:
        save_file({"x": torch.zeros(3)}, file)
    with pytest.raises(SignDistError, match=r"cannot be read|do not fit its model"):
        begin(run_of(data, teacher), tmp_path)


def test_a_teacher_whose_dataset_was_prepared_anew_must_bring_its_glosses(data: Path, tmp_path: Path, teacher: Path) -> None:
    write_json(teacher / "environment.json", {"dataset": "another digest"})
    with pytest.raises(SettingsError, match=r"name its bundle"):
        check_teacher(run_of(data, teacher))


# --- the gate ---------------------------------------------------------------------------------------------------------


def test_a_teacher_worse_than_the_bound_is_refused_with_both_figures(tmp_path: Path, data: Path, teacher: Path) -> None:
    with pytest.raises(
        RunError, match=r"has val/wer 100, and must have at most 20, since train\.distill\.gate.*train a better teacher"
    ):
        begin(run_of(data, teacher, gate="20"), tmp_path)
    assert not (tmp_path / "run" / "teacher.json").exists()
    begin(run_of(data, teacher, gate="100"), tmp_path)  # just as good is good enough


def test_a_teacher_worse_than_the_student_already_is_is_refused(tmp_path: Path, data: Path) -> None:
    run = run_of(data).with_values({"model": TEACHER})
    leave(tmp_path / "teacher", run, raving(model_of(run)))
    with pytest.raises(
        RunError, match=r"has val/wer \d+.*, and must have at most 100, since the student has it before it is taught"
    ):
        begin(run_of(data, tmp_path / "teacher"), tmp_path)
    begin(run_of(data, tmp_path / "teacher"), tmp_path, raving(model_of(run_of(data), 1)), resumed=True)  # let through before


def test_a_teacher_worse_than_a_student_without_one_is_refused(tmp_path: Path, data: Path, other: Path, teacher: Path) -> None:
    run = run_of(data)
    bare = leave(tmp_path / "bare", run, model_of(run), **{"val/wer": 31.5})
    with pytest.raises(
        RunError, match=r"has val/wer 100, and must have at most 31\.5, since the student of train\.distill\.student_run"
    ):
        begin(run_of(data, teacher, student_run=str(bare)), tmp_path)
    write_json(bare / "epoch_0003" / "progress.json", {"metrics": {"val/wer": 100.0}, "rank": 1.0})
    begin(run_of(data, teacher, student_run=str(bare)), tmp_path)
    write_json(bare / "epoch_0003" / "progress.json", {"metrics": {"val/top1": 1.0}, "rank": 1.0})
    with pytest.raises(RunError, match=r"has no val/wer"):
        begin(run_of(data, teacher, student_run=str(bare)), tmp_path)
    elsewhere = leave(tmp_path / "elsewhere", run_of(other), model_of(run_of(other)))
    with pytest.raises(RunError, match=r"name a run on the same clips"):
        begin(run_of(data, teacher, student_run=str(elsewhere)), tmp_path)


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"train.distill.kinds": "logit"}, "no kind 'logit' of target.*did you mean 'logits'"),
        ({"train.distill.kinds": ""}, "kinds is empty"),
        ({"train.distill.kinds": "logits:0"}, "with a weight above 0"),
        ({"train.distill.kinds": "logits logits:2"}, "each kind once"),
        ({"train.distill.kinds": "logits:much"}, "with a weight above 0"),
        ({"train.distill.kinds": "features"}, "give both or neither"),
        ({"train.distill.layers": "lstm=lstm"}, "give both or neither"),
        ({"train.distill.kinds": "features", "train.distill.layers": "lstm"}, "need pairs STUDENT=TEACHER, got 'lstm'"),
        (
            {"train.distill.kinds": "features", "train.distill.layers": "lstm=lstm", "train.distill.cache": "c"},
            "cache keeps answers only",
        ),
        ({"train.distill.gate": "good"}, "should be a number, or empty"),
        ({"train.distill.gate": "nan"}, "should be a number, or empty"),
        ({"train.distill.alpha": 1.5}, "train.distill.alpha = 1.5 is not allowed"),
        ({"train.distill.temperature": 0}, "train.distill.temperature = 0 is not allowed"),
        ({"train.distill.kinds": "embedding"}, "'cslr' makes no sentence embedding"),
        ({"train.distill.cache": "c", "train.augment.speed": 0.2}, "train.augment.speed changes them"),
        ({"train.distill.unlabelled": "d", "train.mixup": 0.2}, "set train.mixup to 0"),
        ({"train.distill.teacher": "", "train.distill.unlabelled": "d"}, "needs a teacher"),
    ],
    ids=str,
)
def test_settings_that_contradict_each_other_stop_at_once(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        run_of(Path("d"), "teacher").with_values(values)


def test_a_label_holds_for_a_clip_however_it_is_changed() -> None:
    run = run_of(Path("d"), "t", kinds="sequence", cache="c").with_values({"train.augment.speed": 0.2})
    assert kept_kinds(run.train.distill) == ["sequence"]


# --- clips without labels, layers, kept answers -----------------------------------------------------------------------


def test_clips_without_labels_stand_behind_the_others(tmp_path: Path, data: Path, other: Path, teacher: Path) -> None:
    run = run_of(data, teacher, unlabelled=str(other))
    found = begin(run, tmp_path)
    labelled, more = Clips.of(run, "train"), Clips.of(run_of(other), "train")
    assert len(found.clips) == len(labelled) + len(more)
    assert list(lengths_of(found.clips)) == [*labelled.lengths, *more.lengths]
    samples = [found.clips[i].sample for i in range(len(found.clips))]
    assert [bool(s.gloss) for s in samples] == [True] * len(labelled) + [False] * len(more)
    assert len({s.id for s in samples}) == len(samples), "though both corpora name their clips alike"
    with pytest.raises(IndexError):
        found.clips[len(found.clips)]
    batch = found.task.collate([found.clips[0], found.clips[len(labelled)]])
    losses, _ = found.task.losses(found.model.train(), batch)
    assert [bool(v) for v in losses["ctc"]] == [True, False]
    with pytest.raises(DataError, match="nowhere"):
        begin(run_of(data, teacher, unlabelled=str(tmp_path / "nowhere")), tmp_path)


def test_layers_are_paired_by_name(tmp_path: Path, data: Path, teacher: Path) -> None:
    student = silent(model_of(run_of(data), 1))
    found = begin(run_of(data, teacher, kinds="logits features:0.5", layers="lstm=lstm norm=mixed_5c"), tmp_path, student)
    assert isinstance(found.model, DistilledStudent)
    assert found.model.student is student
    batch = found.task.collate([found.clips[0], found.clips[1]])
    losses, _ = found.task.losses(found.model.train(), batch)
    assert losses.keys() == {"ctc", "distill_logits", "distill_features"}
    for layers, whose in (("lstn=lstm", "lstn"), ("lstm=lstn", "lstn")):
        with pytest.raises(SettingsError, match=f"no layer '{whose}'.*did you mean 'lstm'"):
            begin(run_of(data, teacher, kinds="features", layers=layers), tmp_path)


@pytest.fixture
def cached(tmp_path: Path, data: Path, other: Path, teacher: Path) -> Callable[[str], Run]:
    """A run whose teacher has been asked, in the way that the workers of Ray Data do it."""

    def run(kinds: str) -> Run:
        made = run_of(data, teacher, kinds=kinds, cache=str(tmp_path / "cache"), unlabelled=str(other), alpha=0.5)
        facts = check_teacher(made)
        assert facts is not None
        asked = read_teacher(facts, made, Clips.of(made, "train")[0])
        with torch.no_grad():
            asked.model.get_parameter("classifier.bias")[0] = 0.0
        for what in kept_kinds(made.train.distill):
            store = answer_store(made.train.distill.cache, facts, what)
            for clips in (Clips.of(made, "train"), Clips.of(run_of(other), "train")):
                examples = [clips[i] for i in range(len(clips))]
                store.commit(f"block-{clips[0].sample.key}", answer_rows(asked, examples, what))
            assert unasked(store, [e.sample.key for e in examples]) == []
        return made

    return run


@pytest.mark.long
@pytest.mark.parametrize("kinds", ["logits", "sequence", "logits:2 sequence"])
def test_kept_answers_teach_what_asking_teaches(tmp_path: Path, cached: Callable[[str], Run], teacher: Path, kinds: str) -> None:
    run = cached(kinds)
    with_cache = begin(run, tmp_path)
    live = begin(run.with_values({"train.distill.cache": ""}), tmp_path)
    assert isinstance(with_cache.task, Distilled)
    assert isinstance(live.task, Distilled)
    with torch.no_grad():
        live.task.teacher.model.get_parameter("classifier.bias")[0] = 0.0
    student = with_cache.model.eval()
    student.training = True  # no dropout
    batch = live.task.collate([live.clips[i] for i in range(len(live.clips))])
    kept, _ = with_cache.task.losses(student, batch)
    asked, _ = live.task.losses(student, batch)
    assert kept.keys() == asked.keys()
    for name, value in asked.items():
        torch.testing.assert_close(kept[name], value, atol=1e-4, rtol=1e-4)


def test_an_answer_that_is_missing_is_said(tmp_path: Path, data: Path, teacher: Path) -> None:
    with pytest.raises(DataError, match=r"\d+ clips, such as '.*', have no answer \(logits\) of teacher.*begin the run again"):
        begin(run_of(data, teacher, cache=str(tmp_path / "cache")), tmp_path)


def test_other_weights_have_another_store(tmp_path: Path, data: Path, teacher: Path) -> None:
    before = find_teacher(teacher).digest()
    run = RunDir(teacher).run()
    file = teacher / "epoch_0003" / "model.safetensors"
    weights: dict[str, Tensor] = {name: tensor + 1 for name, tensor in model_of(run).state_dict().items()}
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, file)
    assert find_teacher(teacher).digest() != before


def test_paths_hold_in_every_workers_folder(data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    run = with_absolute_teacher(run_of(data, "runs/teacher", unlabelled="data/more", cache="s3://bucket/answers", kinds="sequence"))
    distill = run.train.distill
    assert (distill.teacher, distill.unlabelled) == (str(tmp_path / "runs/teacher"), str(tmp_path / "data/more"))
    assert (distill.cache, distill.student_run) == ("s3://bucket/answers", "")


# --- whole runs -------------------------------------------------------------------------------------------------------


def trained(run: Run, root: Path, *, stop_after: int = 0) -> Path:
    """`sign-dist train` in this process; with `stop_after`, as if it had been killed once that many epochs were saved."""
    run_dir, run, _ = train_verb.begin(run, root)

    def stop(metrics: dict[str, float]) -> None:
        if metrics["epoch"] == stop_after:
            raise KeyboardInterrupt

    try:
        train_verb.fit_run(run, run_dir, OneProcess(), on_epoch=stop)
    except KeyboardInterrupt:
        return root
    train_verb.finish(run_dir)
    return root


def weights_in(root: Path) -> dict[str, Tensor]:
    return load_file(RunDir(root).checkpoints()[-1] / "model.safetensors")


@pytest.mark.long
@pytest.mark.parametrize("values", [{}, {"train.ema": 0.9}], ids=str)
def test_an_interrupted_student_ends_as_an_undisturbed_one_and_leaves_its_own_weights_only(
    tmp_path: Path, data: Path, teacher: Path, values: dict[str, Any]
) -> None:
    run = run_of(data, teacher, kinds="logits features:0.1 sequence:0.5", layers="lstm=lstm", alpha=0.5)
    run = run.with_values({"train.epochs": 3, "train.seed": 4, **values})
    whole = trained(run, tmp_path / "whole")
    trained(run, tmp_path / "stopped", stop_after=2)
    assert len(RunDir(tmp_path / "stopped").metrics()) == 2
    again = trained(run, tmp_path / "stopped")
    found = weights_in(whole)
    assert found.keys() == model_of(run).state_dict().keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in weights_in(again).items())
    last = RunDir(whole).metrics()[-1]
    assert {"train/ctc", "train/distill_logits", "train/distill_features", "train/distill_sequence"} <= last.keys()
    # What was saved is what was scored, by the task alone.
    model = model_of(run)
    model.load_state_dict(found)
    vocab = Vocab.read(DatasetDir(data).vocab_file)
    scores = evaluate(model, build_task(run, vocab, in_training=True), Clips.of(run, "val"), batch_size=4).scores
    assert last["val/loss"] == pytest.approx(scores["loss"], rel=1e-4)
    assert last["val/wer"] == pytest.approx(scores["wer"])


@pytest.mark.long
def test_a_student_is_drawn_to_its_teacher(tmp_path: Path, data: Path, other: Path) -> None:
    """Without a single label it comes to answer as the teacher does."""
    run = run_of(data).with_values({"model": TEACHER})
    leave(tmp_path / "teacher", run, model_of(run, 7))
    run = run_of(data, tmp_path / "teacher", alpha=1.0, temperature=1.0)
    run = run.with_values({"train.epochs": 12, "train.optim.lr": 0.01, "train.evaluate_every": 4})
    lines = RunDir(trained(run, tmp_path / "student")).metrics()
    assert lines[-1]["train/distill_logits"] < 0.5 * lines[0]["train/distill_logits"]
    assert all(line["train/ctc"] == 0 for line in lines)
