"""The five strategies from the command line to the weights: what each trains, what it starts from, what it leaves alone."""

import contextlib
import json
import re
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sign_dist.cli import main
from sign_dist.config.run import Run
from sign_dist.config.strategies import ALL_TRAIN, STRATEGIES
from sign_dist.data.layout import DatasetDir, write_json
from sign_dist.data.manifest import write_manifest
from sign_dist.data.sample import Sample
from sign_dist.data.vocab import Vocab
from sign_dist.errors import WeightsError
from sign_dist.features.spec import FeatureSpec
from sign_dist.features.store import FeatureStore, pack
from sign_dist.models.build import build_model
from sign_dist.models.i3d import InceptionI3d
from sign_dist.tasks.islr import Islr
from sign_dist.tasks.task import Example
from sign_dist.training.checkpoint import LocalCheckpoints, read_weights
from sign_dist.training.loop import fit
from sign_dist.training.record import Record
from sign_dist.training.run_dir import RunDir
from sign_dist.training.start import Taken, start_from, start_model, weights_at
from sign_dist.training.strategy import OneProcess
from sign_dist.transfer.freeze import groups_of
from sign_dist.transfer.schedule import spread

OLD, NEW = Vocab(("A", "B", "C")), Vocab(("B", "C", "D", "E"))
SIDE_PX, EPOCHS = 32, 4
MODEL = {"kind": "video_cnn", "width": 4, "depth": 1}


@pytest.fixture(autouse=True)
def _no_tensorboard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Record, "_tensorboard", lambda *_: None)


def clips(vocab: Vocab, count: int, seed: int) -> list[Example]:
    rng = np.random.default_rng(seed)
    glosses = [vocab.glosses[i % len(vocab)] for i in range(count)]
    return [Example(Sample(f"{i}", "", g), rng.integers(0, 256, (4, SIDE_PX, SIDE_PX, 3), np.uint8)) for i, g in enumerate(glosses)]


def settings(root: Path, **train: Any) -> dict[str, Any]:
    return {
        "data": {"root": str(root), "features": {"kind": "frames", "num_frames": 4, "size_px": SIDE_PX}},
        "model": MODEL,
        "train": {"batch_size": 4, **train},
    }


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was trained on other glosses, with its dataset beside it."""
    root = tmp_path_factory.mktemp("earlier")
    dataset = DatasetDir(root / "data")
    dataset.vocab_file.parent.mkdir(parents=True)
    OLD.write(dataset.vocab_file)
    run = Run.model_validate(settings(dataset.root, epochs=1))
    run_dir = RunDir(root / "run")
    run_dir.claim(run)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Record, "_tensorboard", lambda *_: None)
        train(run, build(run, OLD), OLD, run_dir)
    return run_dir.root


def build(run: Run, vocab: Vocab) -> nn.Module:
    torch.manual_seed(0)
    return build_model(run.model, num_classes=len(vocab), feature_shape=(SIDE_PX, SIDE_PX, 3))


def train(run: Run, model: nn.Module, vocab: Vocab, run_dir: RunDir, on_epoch: Any = None) -> None:
    task = Islr(vocab)
    fit(
        model,
        task,
        clips(vocab, 8, 0),
        clips(vocab, 4, 1),
        run.train,
        strategy=OneProcess(),
        checkpoints=LocalCheckpoints(run_dir, task.monitor),
        on_epoch=on_epoch,
    )


def told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object) -> tuple[Run | None, str]:
    """The run that `sign-dist train` would give to Ray, and what it says on stderr."""
    runs: list[Run] = []

    def run_train(run: Run, root: Path, **_: Any) -> dict[str, Any]:
        runs.append(run)
        return {"epoch": 1, "val/top1": 1.0}

    modules = {"cluster": {"connected": lambda _: contextlib.nullcontext()}, "training": {"train": run_train}}
    for name, content in modules.items():
        module = types.ModuleType(f"sign_dist.on_ray.{name}")
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr("sys.argv", ["sign-dist", "train", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err
    assert (ended.value.code or 0) == (0 if runs else 1), said
    return (runs[0] if runs else None), said


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A job that freezes and unfreezes by its own lights: a strategy must not be half in force."""
    own = {"freeze": {"until": "stage_1", "groups": "stage_0"}, "unfreeze": {"stages": 2}, "lora": {"targets": "head.1"}}
    write_json(tmp_path / "job.json", settings(tmp_path / "data", **own))
    return tmp_path / "job.json"


def trained_groups(name: str, names: list[str]) -> list[set[str]]:
    """What a strategy should train, epoch by epoch."""
    match name:
        case "feature-extraction":
            return [{names[0]}] * EPOCHS
        case "top-layers":
            return [set(names[: len(names) - int(0.8 * len(names))])] * EPOCHS
        case "progressive" | "from-checkpoint":
            return [set(stage) for stage in spread(names, 4)]
        case _:
            return [set(names)] * EPOCHS


def group_of_tensor(model: nn.Module) -> dict[str, str]:
    """Tensor of the state dict -> its layer group, statistics included."""
    names = {id(module): name for name, module in model.named_modules()}
    found: dict[str, str] = {}
    for group, parts in model.layer_groups():  # pyright: ignore[reportCallIssue]
        for part in parts:
            start = f"{names[id(part)]}."
            found |= {name: group.replace(" ", "_") for name in model.state_dict() if name.startswith(start)}
    assert found.keys() == model.state_dict().keys()
    return found


@pytest.mark.long
@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_trains_what_it_says_and_nothing_else(
    name: str,
    earlier: Path,
    job: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = (f"train.start_from={earlier}", f"train.epochs={EPOCHS}", "train.optim.lr=0.01", "train.optim.warmup_fraction=0")
    run, _ = told(monkeypatch, capsys, job, "--strategy", name, *words)
    assert run is not None
    taken: list[Taken] = []
    model = start_model(run, num_classes=len(NEW), feature_shape=(SIDE_PX, SIDE_PX, 3), vocab=NEW, on_taken=taken.append)

    source = read_weights(RunDir(earlier).chosen())
    start = {n: t.clone() for n, t in model.state_dict().items()}
    assert all(torch.equal(start[n], t) for n, t in source.items() if not n.startswith("head."))
    assert torch.equal(start["head.1.weight"][:2], source["head.1.weight"][1:]), "the rows of B and C"
    assert str(taken[0]).endswith("head: 2 glosses kept, 2 new, 1 dropped")

    groups = group_of_tensor(model)
    before, moved = dict(start), list[set[str]]()

    def look(_: dict[str, float]) -> None:
        now = {n: t.clone() for n, t in model.state_dict().items()}
        moved.append({groups[n] for n, t in now.items() if not torch.equal(t, before[n])})
        before.update(now)

    train(run, model, NEW, RunDir(tmp_path / "run"), look)
    assert moved == trained_groups(name, list(groups_of(model)))
    with_gradients = {groups[n] for n, p in model.named_parameters() if p.grad is not None}
    assert with_gradients == moved[-1]
    assert all(torch.isfinite(t).all() for t in model.state_dict().values())


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_brings_its_settings_and_a_given_one_wins(
    name: str, earlier: Path, job: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = told(monkeypatch, capsys, job, f"train.start_from={earlier}", "--strategy", name)
    assert run is not None
    assert {setting: run.flat()[setting] for setting in STRATEGIES[name]} == STRATEGIES[name]
    assert STRATEGIES[name].keys() >= ALL_TRAIN.keys(), "what a job freezes does not stay beside what a strategy trains"
    run, _ = told(
        monkeypatch, capsys, job, f"train.start_from={earlier}", "--strategy", name, "train.epochs=7", "train.lora.targets=x"
    )
    assert run is not None
    assert (run.train.epochs, run.train.lora.targets) == (7, "x")
    run, _ = told(monkeypatch, capsys, job, f"train.start_from={earlier}", "--strategy", name, "train.unfreeze.plan=head; stage_*")
    assert run is not None
    assert (run.train.unfreeze.stages, run.train.unfreeze.plan) == (1, "head; stage_*")


def test_the_page_on_training_says_what_the_strategies_set() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "train.md").read_text(encoding="utf-8")
    rows = [[cell.strip(" `") for cell in row.split("|")[1:-1]] for row in page.splitlines() if row.startswith("| `")]
    told = {row[0]: (float(row[2]), int(row[3])) for row in rows if row[0] in STRATEGIES}
    assert told == {name: (s["train.optim.lr"], s["train.epochs"]) for name, s in STRATEGIES.items()}


def test_a_strategy_that_is_unknown_or_lacks_weights_is_one_sentence(
    job: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, text in (
        (("--strategy", "progresive"), "no strategy 'progresive': there are .*; did you mean .progressive.\\?"),
        (("--strategy", "full"), "starts from random ones: set train.start_from, or model.weights"),
        (("--strategy", "from-checkpoint"), "say which, as train.start_from=runs/NAME"),
    ):
        run, said = told(monkeypatch, capsys, job, *words)
        assert run is None
        assert said.count("\n") == 1
        assert re.search(text, said), said
    run, _ = told(monkeypatch, capsys, job)
    assert run is not None
    assert run.train.freeze.until == "stage_1", "without a strategy the job is as it was"


# --- what a run starts from -------------------------------------------------------------------------------------------


def test_a_run_a_checkpoint_a_bundle_and_their_files_are_weights(earlier: Path, tmp_path: Path) -> None:
    checkpoint = RunDir(earlier).chosen()
    for path in (earlier, checkpoint, checkpoint / "model.safetensors"):
        source = weights_at(path)
        assert source.file == checkpoint / "model.safetensors"
        assert source.vocab is not None
        assert Vocab.read(source.vocab) == OLD
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    write_json(bundle / "bundle.json", {"model": {"kind": "i3d", "colours": "bgr"}})
    OLD.write(bundle / "vocab.txt")
    (bundle / "weights.safetensors").write_bytes(b"")
    for path in (bundle, bundle / "weights.safetensors"):
        assert weights_at(path) == weights_at(bundle)
    assert (weights_at(bundle).vocab, weights_at(bundle).colours) == (bundle / "vocab.txt", "bgr")
    (bundle / "bundle.json").write_text("{")
    with pytest.raises(WeightsError, match=r"bundle\.json' cannot be read .*export the run again"):
        weights_at(bundle)
    with pytest.raises(WeightsError, match="name a run directory, a checkpoint, a bundle or a weights file"):
        weights_at(tmp_path / "none")


def test_a_dataset_that_was_prepared_anew_does_not_name_the_rows_of_old_weights(earlier: Path, tmp_path: Path) -> None:
    run = RunDir(earlier).run()
    dataset = DatasetDir(Path(run.data.root))
    write_json(dataset.facts_file, {"digest": "one"})
    environment = RunDir(earlier).environment_file
    try:
        write_json(environment, {"dataset": "one"})
        assert weights_at(earlier).vocab == dataset.vocab_file
        write_json(environment, {"dataset": "another"})
        assert weights_at(earlier).vocab is None
        same_size = Vocab(("X", "Y", "Z"))
        taken = start_from(build(run, same_size), earlier, same_size)
        assert str(taken).endswith("head: taken as it is, for nothing says which glosses its rows are")
    finally:
        environment.unlink()
        dataset.facts_file.unlink()


def test_weights_of_another_model_are_refused_before_anything_is_changed(earlier: Path, tmp_path: Path) -> None:
    run = RunDir(earlier).run().with_values({"model.width": 8, "train.start_from": str(earlier)})
    with pytest.raises(WeightsError, match=r"only \d+ of \d+ tensors fit the model .*another model or preset"):
        start_model(run, num_classes=3, feature_shape=(SIDE_PX, SIDE_PX, 3), vocab=OLD)


@pytest.mark.long
@pytest.mark.parametrize("before", ["rgb", "bgr"])
@pytest.mark.parametrize("after", ["rgb", "bgr"])
def test_a_model_answers_alike_whatever_order_of_colours_it_went_on_from(tmp_path: Path, before: Any, after: Any) -> None:
    """A run says which order its weights expect; the checkpoint does not."""
    torch.manual_seed(0)
    first = InceptionI3d(3, colours=before).eval()
    tree = {
        "data": {"root": "data/none", "features": {"kind": "frames", "num_frames": 16}},
        "model": {"kind": "i3d", "colours": before},
    }
    write_json(tmp_path / "run.json", Run.model_validate(tree).model_dump(mode="json"))
    (tmp_path / "epoch_0001").mkdir()
    from safetensors.torch import save_file

    save_file(first.state_dict(), tmp_path / "epoch_0001" / "model.safetensors")
    (tmp_path / "epoch_0001" / "progress.json").write_text(json.dumps({"rank": 1, "epoch": 1}))
    second = InceptionI3d(3, colours=after).eval()
    assert start_from(second, tmp_path).report.match == 1
    frames = torch.randint(0, 256, (1, 9, 32, 32, 3), dtype=torch.uint8)
    one, two, turned = first(frames), second(frames), second(frames.flip(-1))
    torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(one, turned, atol=1e-4), "the test can fail"


def test_tensors_that_stand_for_nothing_are_told(earlier: Path, tmp_path: Path) -> None:
    """A file without a vocabulary beside it, of another number of classes: the head is new, and that is said."""
    from safetensors.torch import save_file

    weights: dict[str, Tensor] = read_weights(RunDir(earlier).chosen())
    save_file(weights, tmp_path / "a.safetensors")
    run = RunDir(earlier).run()
    taken = start_from(build(run, NEW), tmp_path / "a.safetensors", NEW)
    assert str(taken).endswith("head: new")
    assert taken.report.misshaped == ("head.1.weight", "head.1.bias")


# --- on a dataset, as `train` begins ----------------------------------------------------------------------------------


def prepared(root: Path, vocab: Vocab, seed: int) -> Run:
    """A dataset with extracted frames, and a run on it."""
    dataset, rng = DatasetDir(root), np.random.default_rng(seed)
    dataset.vocab_file.parent.mkdir(parents=True)
    vocab.write(dataset.vocab_file)
    write_json(dataset.facts_file, {"videos_root": ".", "digest": f"{seed}"})
    run = Run.model_validate(settings(root, epochs=2))
    rows: list[dict[str, Any]] = []
    for number, split in enumerate(("train", "val")):
        samples = [
            Sample(f"{split}{i}", f"{split}{i}.mp4", vocab.glosses[i % len(vocab)], sha256=f"{seed}{number}{i:062d}")
            for i in range(8)
        ]
        write_manifest(dataset.manifest_file(split), samples)
        frames = rng.integers(0, 256, (len(samples), 4, SIDE_PX, SIDE_PX, 3), np.uint8)
        rows += [{"key": x.key, "id": x.id, "fps": 25.0, "error": ""} | pack(f) for x, f in zip(samples, frames, strict=True)]
    FeatureStore.create(dataset, FeatureSpec(features=run.data.features)).commit("b-0", rows)
    return run


def test_a_run_on_other_glosses_goes_on_from_one_and_wrong_weights_stop_it_before_it_begins(tmp_path: Path) -> None:
    from sign_dist.on_ray.training import begin, fit_run  # neither starts a Ray

    run_dir, run, _ = begin(prepared(tmp_path / "old", OLD, 1), tmp_path / "first")
    fit_run(run, run_dir, OneProcess())
    taken: list[Taken] = []
    second = prepared(tmp_path / "new", NEW, 2).with_values({"train.start_from": str(tmp_path / "first")})
    run_dir, run, _ = begin(second, tmp_path / "second", on_taken=taken.append)
    assert [str(each).partition("; head: ")[2] for each in taken] == ["2 glosses kept, 2 new, 1 dropped"]
    fit_run(run, run_dir, OneProcess())
    assert [line["epoch"] for line in run_dir.metrics()] == [1, 2]
    with pytest.raises(WeightsError, match=r"only \d+ of \d+ tensors fit the model"):
        begin(second.with_values({"model.width": 8}), tmp_path / "third")
    with pytest.raises(WeightsError, match="holds no weights: name a run directory"):
        begin(second.with_values({"train.start_from": str(tmp_path / "nothing")}), tmp_path / "third")
    assert not (tmp_path / "third").exists(), "the directory is not taken by a run that cannot begin"
