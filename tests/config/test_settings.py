"""Settings: names are guarded, values are validated, what is written can be read back, and every fault is one sentence."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sign_dist.config.base import Settings
from sign_dist.config.data import Data, Features, SignHieraFeatures
from sign_dist.config.model import FeatureModel, LandmarkModel, Model
from sign_dist.config.run import LEARNS, READS, Run, Scale
from sign_dist.config.source import apply, load_run, parse_override
from sign_dist.config.train import Augment, Optim, Train
from sign_dist.errors import SettingsError
from sign_dist.training.run_dir import RunDir

RUN = Run(data=Data(root="data/x"))
KINDS: dict[str, type[Any]] = {cls.model_fields["kind"].default: cls for cls in get_args(get_args(Model)[0])}
FEATURES: dict[str, type[Any]] = {cls.model_fields["kind"].default: cls for cls in get_args(get_args(Features)[0])}
# A value of each setting that differs from its default and is allowed together with all others.
OTHER: dict[str, Any] = {
    "data.root": "data/y",
    "data.train_split": "all",
    "data.val_split": "test",
    "data.features.privacy": "blur",
    "data.features.pick": "motion",
    "decode.weigh": "sum",
    "data.features.detector": "dlib",
    "data.features.crop": "centre",
    "data.features.person": "central",
    "data.store": "s3://b/p",
    "train.precision": "bf16",
    "train.guard": "stop",
    "train.sinks": "mlflow",
    "scale.strategy": "ddp",
    "scale.zero_stage": 3,
    "train.class_weights": "balanced",
    "train.select": "last",
    "scale.device": "cpu",
    "scale.max_failures": 1,
    "train.batch_size": 64,
    "train.start_from": "runs/y",
    "train.freeze.until": "blocks.1",
    "train.freeze.groups": "blocks.*",
    "train.unfreeze.plan": "head; blocks.1",
    "train.lora.targets": "qkv",
    "model.colours": "bgr",
    "model.source": "t5",
    "model.tokenizer": "t5",
    "model.language": "de_DE",
    "model.target_embeddings": "sentences.npz",
    "model.glosses": "data/y",
    "model.over_time": "mean",
    "model.time_stride": 2,
    "model.adapt": "spatial_mean",
    "model.dtype": "bf16",
    "model.prompt": "What is signed?",
}
SWITCH = {"model.kind": "feature", "data.features.kind": "signhiera"}


TIED = {
    "task",
    "scale.workers",
    "scale.min_workers",
    "scale.strategy",
    "scale.offload",
    "train.parts",
    "train.cache_prefix",
    "model.quantize",
}
"""What goes with other settings, and cannot be changed alone; nor can what belongs to a teacher."""
UNTOLD = {"train.cache_gb"}
"""What changes no result, and so no digest, beside `scale.*`."""
REFUSED = {"vlm": {"train.mixup"}}
"""What a kind of model does not have."""
NEEDED = {"sonar": {"model.tokenizer": "nllb"}}
"""What must be set of a kind before each other setting can be changed alone."""


def other(name: str, value: Any) -> Any:
    """A value near a setting's, allowed and different."""
    if name in OTHER:
        return OTHER[name]
    match value:
        case bool():
            return not value
        case int() if name.endswith("size_px"):
            return value + 32
        case int():
            return value * 2 if value else 1
        case float():
            return value / 2 if value else 0.25
        case _:
            raise AssertionError(f"{name} = {value!r}: say here what else it may be")


@st.composite
def runs(draw: st.DrawFn) -> Run:
    """Any allowed Run."""
    model = draw(st.sampled_from(sorted(KINDS)))
    run = RUN.with_values({"task": task_of(model), "model.kind": model, "data.features.kind": READS[model][0]})
    names = sorted(run.flat().keys() - {"task", "model.kind", "data.features.kind"})
    tied = TIED | REFUSED.get(model, set())
    names = [n for n in names if not n.endswith(("preset", "weights")) and n not in tied and not n.startswith("train.distill.")]
    chosen = draw(st.lists(st.sampled_from(names), unique=True, max_size=8))
    if "train.unfreeze.plan" in chosen:
        chosen = [name for name in chosen if name != "train.unfreeze.stages"]
    values = {name: other(name, run.flat()[name]) for name in chosen}
    values["data.root"] = draw(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
    values["train.optim.lr"] = draw(st.floats(min_value=1e-9, max_value=1))
    return run.with_values(values)


def task_of(model: str) -> str:
    """The task that a kind of model learns."""
    return next(task for task, kinds in LEARNS.items() if model in kinds)


def sentence(error: pytest.ExceptionInfo[SettingsError]) -> str:
    """The message, which must be one line without a trace of the library that found the fault."""
    text = str(error.value)
    assert "\n" not in text
    assert "pydantic" not in text
    assert not text.endswith((";", " "))
    return text


def refused(values: Mapping[str, Any], run: Run = RUN) -> str:
    with pytest.raises(SettingsError) as error:
        run.with_values(values)
    return sentence(error)


@given(runs())
def test_a_run_is_the_same_after_any_of_its_written_forms(run: Run) -> None:
    assert Run.from_tree(json.loads(json.dumps(run.model_dump(mode="json"), allow_nan=False))) == run
    assert RUN.with_values(run.flat()) == run
    assert run.with_values({}) == run
    assert run.with_values(run.flat()).digest() == run.digest()


@given(runs(), st.integers(1, 4), st.sampled_from(["cpu", "gpu", "auto"]), st.integers(0, 9))
def test_where_a_run_runs_does_not_change_its_digest(run: Run, workers: int, device: str, failures: int) -> None:
    moved = run.with_values({"scale.workers": 2 ** (workers - 1), "scale.device": device, "scale.max_failures": failures})
    assert moved.digest() == run.digest()
    assert re.fullmatch(r"[0-9a-f]{12}", run.digest())


@pytest.mark.parametrize("model", KINDS)
def test_every_setting_can_be_changed_by_its_name_and_changes_the_digest(model: str) -> None:
    kinds = {"task": task_of(model), "model.kind": model, "data.features.kind": READS[model][0]}
    run = RUN.with_values(kinds | NEEDED.get(model, {}))
    digests, tied = {run.digest()}, TIED | REFUSED.get(model, set())
    for name, value in run.flat().items():
        if name.endswith(("kind", "preset")) or name in tied or name.startswith("train.distill."):
            continue
        new = "elsewhere" if name.endswith("weights") and isinstance(value, str) and value == "" else other(name, value)
        changed = run.with_values({name: new})
        assert changed.flat()[name] == new
        assert {n for n, v in changed.flat().items() if run.flat()[n] != v} == {name}
        if not name.startswith("scale.") and name not in UNTOLD:
            digests.add(changed.digest())
    expected = {n for n in run.flat() if not n.startswith(("scale.", "train.distill.")) and not n.endswith(("kind", "preset"))}
    assert len(digests) == 1 + len(expected - tied - UNTOLD)


def test_a_run_cannot_be_changed_in_place_and_with_values_leaves_its_arguments_alone() -> None:
    with pytest.raises(ValueError):
        RUN.task = "cslr"  # pyright: ignore[reportAttributeAccessIssue]
    values: dict[str, Any] = {"train": {"epochs": 3}, "train.seed": 5}
    changed = RUN.with_values(values)
    assert (changed.train.epochs, changed.train.seed) == (3, 5)
    assert values == {"train": {"epochs": 3}, "train.seed": 5}
    assert RUN.train == Train()


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("train.optim.lrr", "'lr'"),
        ("train.epoch", "'epochs'"),
        ("trian.epochs", "'train'"),
        ("data.features.sampling.fsp", "'fps'"),
        ("model.widht", "'width'"),
        ("", ""),
        (".", ""),
        ("train.", ""),
        ("train..lr", ""),
        ("kind", ""),
        ("data.kind", ""),
        ("train.kind", ""),
        ("train.epochs.x", "single value"),
        ("data.root.kind", "single value"),
        ("model.kind.x", "single value"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_known_one(name: str, hint: str) -> None:
    text = refused({name: 1})
    assert repr(name) in text
    assert hint in text


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("train.epochs", "x", "integer"),
        ("train.epochs", 2.5, "integer"),
        ("train.epochs", -1, "greater"),
        ("train.epochs", True, "number"),
        ("train.epochs", None, "integer"),
        ("train.epochs", [3], "integer"),
        ("train.optim.lr", False, "number"),
        ("train.optim.lr", float("nan"), "finite"),
        ("train.optim.clip_norm", float("inf"), "finite"),
        ("train.optim.lr", "1e-3x", "number"),
        ("train.seed", -1, "greater"),
        ("train.seed", 2**31, "less"),
        ("train.augment.mirror", 1.5, "less"),
        ("train.precision", "fp8", "'bf16'"),
        ("task", "slr", "'islr'"),
        ("data.root", None, "string"),
        ("data.root", True, "string"),
        ("train", 5, "dictionary"),
        ("train.optim", [1], "dictionary"),
        ("model.kind", "landmrk", "did you mean 'landmark'"),
        ("model.kind", None, "'feature'"),
        ("model", {}, "model.kind"),
        ("model", 3, "model"),
        ("train.optim", {"lrr": 1}, "did you mean 'lr'"),
        ("data.features.sampling.max_side_px", 8, "32"),
        ("data.features.face", "perhaps", "boolean"),
    ],
)
def test_a_value_that_is_not_allowed_is_named_with_what_is(name: str, value: Any, part: str) -> None:
    text = refused({name: value})
    assert part in text
    assert name.split(".")[0] in text


def test_a_new_kind_starts_from_its_own_defaults_and_takes_what_is_set_with_it_in_any_order() -> None:
    run = RUN.with_values({"model.width": 32, "data.features.sampling.max_side_px": 100})
    switched = run.with_values(SWITCH)
    assert switched.model == FeatureModel()
    assert switched.data.features == SignHieraFeatures()
    values = {"model.width": 64, "model.depth": 3, "data.features.sampling.fps": 5, "data.features.seed": 4}
    for order in ({**SWITCH, **values}, {**values, **SWITCH}):
        changed = run.with_values(order)
        assert changed.model == FeatureModel(width=64, depth=3)
        features = SignHieraFeatures()
        sampling = features.sampling.with_values({"fps": 5})
        assert changed.data.features == SignHieraFeatures(seed=4, sampling=sampling)
    assert run.with_values({"model.kind": "landmark"}).model == LandmarkModel(width=32)
    assert "num_frames" in refused(
        {**SWITCH, "data.features.nun_frames": 3, "model.kind": "signhiera", "data.features.kind": "frames"}
    )
    assert "face" in refused({**SWITCH, "data.features.face": True}), "a name of the kind that was left"


def test_a_whole_section_may_be_given_and_what_is_set_inside_it_holds() -> None:
    run = RUN.with_values({"model.depth": 4, "model": {"kind": "landmark", "width": 16}})
    assert run.model == LandmarkModel(width=16, depth=4)
    assert RUN.with_values({"train.optim": Optim(lr=0.5), "train.optim.beta1": 0.5}).train.optim == Optim(lr=0.5, beta1=0.5)
    assert RUN.with_values({"train": Train(epochs=2)}).train.epochs == 2


@pytest.mark.parametrize("model", KINDS)
@pytest.mark.parametrize("features", FEATURES)
def test_a_model_takes_only_the_features_it_reads(model: str, features: str) -> None:
    values = {"task": task_of(model), "model.kind": model, "data.features.kind": features}
    if features in READS[model]:
        assert RUN.with_values(values).model == KINDS[model]()
    else:
        text = refused(values)
        assert model in text
        assert features in text
        assert all(repr(kind) in text for kind in READS[model])


@pytest.mark.parametrize("task", LEARNS)
@pytest.mark.parametrize("model", KINDS)
def test_a_task_takes_only_the_models_that_learn_it(task: str, model: str) -> None:
    values = {"task": task, "model.kind": model, "data.features.kind": READS[model][0]}
    if model in LEARNS[task]:
        assert RUN.with_values(values).task == task
    else:
        text = refused(values)
        assert repr(task) in text
        assert repr(model) in text
        assert all(repr(kind) in text for kind in LEARNS[task])


@given(st.integers(1, 40), st.integers(1, 6), st.integers(1, 6))
def test_every_worker_has_a_part_and_every_part_a_clip_or_the_run_is_refused(batch_size: int, workers: int, parts: int) -> None:
    values = {"train.batch_size": batch_size, "scale.workers": workers, "train.parts": parts - 1}
    asked = parts - 1 or workers
    if workers <= asked <= batch_size:
        assert RUN.with_values(values).parts == asked
        assert RUN.with_values(values).scale == Scale(workers=workers)
    else:
        assert f"in {asked} parts by {workers} workers" in refused(values)


def test_required_and_foreign_names_of_a_tree_are_named() -> None:
    with pytest.raises(SettingsError, match=r"'data' is required"):
        Run.from_tree({})
    with pytest.raises(SettingsError, match=r"'data\.root' is required"):
        Run.from_tree({"data": {}})
    with pytest.raises(SettingsError):
        Run.from_tree({"data": {"root": "x"}, 1: 2})  # pyright: ignore[reportArgumentType]
    with pytest.raises(SettingsError) as error:
        Augment.from_tree({"miror": 1})
    assert "'mirror'" in sentence(error)


@given(st.text(max_size=12))
def test_a_word_is_a_setting_or_one_sentence(word: str) -> None:
    name, sign, _ = word.partition("=")
    if sign and name.strip():
        assert parse_override(word)[0] == name.strip()
    else:
        with pytest.raises(SettingsError, match="name=value"):
            parse_override(word)


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("a=3e-4", 3e-4),
        ("a = 3", 3),
        ("a=true", True),
        ("a=", ""),
        ("a=x=y", "x=y"),
        ("a=null", None),
        ('a={"b": 1}', {"b": 1}),
        ("a=data/x", "data/x"),
        ("a=007", "007"),
        ("a=[1", "[1"),
        ("a=" + "[" * 100_000, "[" * 100_000),
        ("a=" + "9" * 5000, "9" * 5000),
    ],
)
def test_words_hold_json_values_or_strings(word: str, value: Any) -> None:
    assert parse_override(word) == ("a", value)


def test_the_last_of_equal_words_holds() -> None:
    assert apply(RUN, ["train.epochs=3", "train.epochs=4"]).train.epochs == 4
    assert apply(RUN, []) is RUN


JOB = """
from sign_dist.config.data import Data
from sign_dist.config.run import Run

def run() -> Run:
    return Run(data=Data(root="data/x"))
"""


def test_a_run_comes_out_of_python_json_and_yaml_alike(tmp_path: Path) -> None:
    job = tmp_path / "a job.py"
    job.write_text(JOB)
    RunDir(tmp_path).claim(RUN)
    (tmp_path / "run.yaml").write_text("data:\n  root: data/x\n")
    for path in (job, tmp_path / "run.json", str(tmp_path / "run.yaml")):
        assert load_run(path) == RUN
        changed = load_run(path, ["train.optim.lr=3e-4", "model.kind=feature", "data.features.kind=signhiera"])
        assert changed == RUN.with_values({"train.optim.lr": 3e-4, **SWITCH})
    assert RunDir(tmp_path).run() == RUN


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("a.toml", "x", "'.toml'"),
        ("a", "x", "ends in ''"),
        ("a.py", "def run(:", "SyntaxError"),
        ("a.py", "import no_such_module_anywhere", "ModuleNotFoundError"),
        ("a.py", "def runs(): ...", "no function run()"),
        ("a.py", "run = 5", "no function run()"),
        ("a.py", "def run(): ...", "NoneType"),
        ("a.py", "def run(x): ...", "TypeError"),
        ("a.py", "def run(): raise ValueError('one\\ntwo')", "one two"),
        ("a.py", "import sys\nsys.exit(3)", "SystemExit"),
        ("a.py", JOB.replace('root="data/x"', 'rot="data/x"'), "root"),
        ("a.py", JOB + "from sign_dist.config.train import Train\nTrain(epochs=-1)", "epochs = -1"),
        ("a.py", JOB + "from sign_dist.config.train import Optim\nOptim(lrr=0)", "did you mean 'lr'"),
        ("a.json", "", "parsed"),
        ("a.json", "{", "parsed"),
        ("a.json", "[1]", "mapping"),
        ("a.json", "[" * 100_000, "parsed"),
        ("a.json", '{"data": {"root": "x"}, "train": {"epochs": NaN}}', "finite"),
        ("a.json", '{"data": {"root": "x"}, "trian": {}}', "did you mean 'train'"),
        ("a.yaml", "", "NoneType"),
        ("a.yaml", "a: [", "parsed"),
        ("a.yaml", "1: 2", "'data' is required"),
        ("a.yml", "data: {root: x}\ntrain: {optim: {lr: fast}}", "train.optim.lr"),
        ("a.yaml", "!!python/object/apply:os.system [true]", "parsed"),
    ],
)
def test_a_file_that_is_no_run_is_refused_in_one_sentence(tmp_path: Path, name: str, content: str, part: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(SettingsError) as error:
        load_run(path)
    assert part in sentence(error)


def test_a_file_that_cannot_be_read_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "islr.py").write_text(JOB)
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    for path, part in (
        (tmp_path / "ilsr.py", "did you mean 'islr.py'"),
        (tmp_path / "no" / "where.py", "no job file"),
        (tmp_path / "folder.json", "no job file"),
        (tmp_path, "no job file"),
        (tmp_path / "bytes.json", "parsed"),
    ):
        with pytest.raises(SettingsError) as error:
            load_run(path)
        assert part in sentence(error)


def test_every_settings_class_has_a_docstring_and_only_fields_that_can_be_named() -> None:
    for cls in (Run, Data, Scale, Train, Optim, Augment, *KINDS.values(), *FEATURES.values()):
        assert issubclass(cls, Settings)
        assert cls.__doc__
        assert all("." not in name for name in cls.model_fields)
