"""What models of gloss sequences start from: kernels of Inception-I3D, and runs with another vocabulary, whose blank stays."""

from pathlib import Path

import pytest
import torch

from sign_dist.config.data import Data
from sign_dist.config.model import TemporalI3dModel
from sign_dist.config.run import Run
from sign_dist.config.source import load_run
from sign_dist.config.strategies import STRATEGIES, check_strategy, strategy_words
from sign_dist.data.vocab import Vocab
from sign_dist.errors import WeightsError
from sign_dist.models.build import build_model
from sign_dist.models.i3d import InceptionI3d
from sign_dist.tasks.build import num_classes_of
from sign_dist.training.start import Taken, start_from, start_model
from sign_dist.transfer.freeze import groups_of, plan_of
from sign_dist.transfer.kernels import adapt_kernel

JOB = Path(__file__).resolve().parents[2] / "jobs" / "phoenix_teacher.py"
SHAPE = (102, 4)


@pytest.fixture(scope="module")
def kinetics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file like Kinetics' of fresh weights."""
    path = tmp_path_factory.mktemp("weights") / "rgb_imagenet.pt"
    torch.save(InceptionI3d(400).state_dict(), path)
    return path


@pytest.mark.long
@pytest.mark.parametrize("method", ["temporal_mean", "temporal_max"])
def test_blocks_take_the_kernels_of_i3d_and_the_rest_starts_afresh(kinetics: Path, method: str) -> None:
    run = load_run(JOB).with_values({"model.weights": str(kinetics), "model.adapt": method})
    taken: list[Taken] = []
    model = start_model(run, num_classes=9, feature_shape=SHAPE, on_taken=taken.append)
    source = torch.load(kinetics, weights_only=True)
    for name in ("Mixed_3b.b0", "Mixed_4f.b1b", "Mixed_5c.b2b", "Conv3d_2c_3x3"):
        own = name.replace("Conv3d_2c_3x3", "conv_2c").replace("Mixed", "mixed")
        expected = adapt_kernel(source[f"{name}.conv3d.weight"], method)  # pyright: ignore[reportArgumentType]
        torch.testing.assert_close(model.state_dict()[f"{own}.conv.weight"], expected)
    lacking = {name.split(".")[0] for name in (*taken[0].report.missing, *taken[0].report.misshaped)}
    assert lacking == {"modality_fusion", "stem", "lstm", "classifier"}
    assert "head: new" in str(taken[0])


def test_narrower_blocks_do_not_take_kernels_that_do_not_fit(kinetics: Path) -> None:
    run = load_run(JOB).with_values({"model.weights": str(kinetics), "model.channels": 0.5})
    with pytest.raises(WeightsError, match="another model or preset"):
        start_model(run, num_classes=9, feature_shape=SHAPE)


def test_fresh_layers_of_the_job_train_in_every_stage_and_all_do_in_the_last() -> None:
    run = load_run(JOB)
    model = build_model(run.model.with_values({"channels": 0.1}), num_classes=9, feature_shape=SHAPE)
    plan = plan_of(model, plan=run.train.unfreeze.plan)
    assert len(plan.stages) == 4
    for stage in range(4):
        assert {"classifier", "lstm", "stem", "modality_fusion"} <= set(plan.apply(model, stage))
    assert set(plan.stages[3]) == set(groups_of(model))
    assert [plan.stage(epoch, 50) for epoch in (0, 12, 13, 25, 38)] == [0, 0, 1, 2, 3]


@pytest.mark.parametrize("name", STRATEGIES)
def test_each_strategy_is_a_choice_of_the_job(name: str) -> None:
    words = strategy_words(name)
    run = load_run(JOB, [*words, "train.start_from=runs/x"] if name == "from-checkpoint" else words)
    check_strategy(name, run)
    model = build_model(run.model.with_values({"channels": 0.1}), num_classes=9, feature_shape=SHAPE)
    freeze, unfreeze = run.train.freeze, run.train.unfreeze
    plan = plan_of(
        model, until=freeze.until, fraction=freeze.fraction, groups=freeze.groups, stages=unfreeze.stages, plan=unfreeze.plan
    )
    assert len(plan.stages) == unfreeze.stages


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("temporal_i3d", {"model.channels": 0.1, "model.fused_width": 16, "model.lstm_width": 8}),
        ("ctc_student", {"model.width": 16}),
        ("cslr_head", {"model.hidden": 16}),
    ],
)
def test_rows_of_known_glosses_and_of_the_blank_move_to_another_vocabulary(
    kind: str, values: dict[str, float], tmp_path: Path
) -> None:
    run = Run(task="cslr", data=Data(root="x"), model=TemporalI3dModel()).with_values({"model.kind": kind, **values})
    old, new = Vocab.of(["A", "B", "C"]), Vocab.of(["B", "D"])
    before = build_model(run.model, num_classes=num_classes_of("cslr", old), feature_shape=SHAPE)
    torch.save(before.state_dict(), tmp_path / "w.pt")
    old.write(tmp_path / "vocab.txt")
    model = build_model(run.model, num_classes=num_classes_of("cslr", new), feature_shape=SHAPE)
    fresh = model.state_dict()["classifier.weight"].clone()
    taken = start_from(model, tmp_path / "w.pt", new)
    axis = 1 if kind == "cslr_head" else 0
    was, made, fresh = (
        w.movedim(axis, 0) for w in (before.state_dict()["classifier.weight"], model.state_dict()["classifier.weight"], fresh)
    )
    torch.testing.assert_close(made[0], was[0])  # the blank
    torch.testing.assert_close(made[1], was[2])  # B
    torch.testing.assert_close(made[2], fresh[2])  # D
    assert taken.head is not None
    assert (taken.head.kept, taken.head.fresh, taken.head.dropped) == (("B",), ("D",), ("A", "C"))
