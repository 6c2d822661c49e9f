"""What stages do, in this process: a recipe that makes its world, and what is read and compared at the end of one."""

import json
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sign_dist.config.data import FrameFeatures
from sign_dist.config.recipe import (
    CompareStage,
    EvaluateStage,
    ExportStage,
    ExtractStage,
    PrepareStage,
    Recipe,
    SamplesStage,
    SynthStage,
    TrainStage,
    load_recipe,
)
from sign_dist.config.run import Run
from sign_dist.data.layout import DatasetDir, write_json
from sign_dist.data.manifest import read_manifest
from sign_dist.data.prepare import check_one_by_one
from sign_dist.errors import DataError, RunError
from sign_dist.recipe.acts import StageActs, Verbs
from sign_dist.recipe.chain import follow
from sign_dist.recipe.samples import choose, score_of, write_samples
from sign_dist.synthetic.like import write_order
from sign_dist.training.run_dir import RunDir
from tests.worlds import extract_here, train_here

JOB = str(Path(__file__).resolve().parents[1] / "jobs" / "synthetic" / "islr_frames.py")


def answer_house(root: Path, split: str) -> str:
    """An evaluation whose model answers HOUSE to everything."""
    run_dir = RunDir(root)
    run = run_dir.run()
    clips = read_manifest(DatasetDir(Path(run.data.root)), split)
    rows = [(clip.id, clip.translation if run.task == "slt" else clip.gloss, "HOUSE") for clip in clips]
    write_lines(run_dir.eval(split) / "predictions.jsonl", rows)
    write_json(run_dir.eval(split) / "report.json", {"task": run.task, "failed": 0})
    return f"{len(clips)} clips"


def write_lines(path: Path, rows: Sequence[tuple[str, str, str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"id": id_, "reference": reference, "hypothesis": hypothesis}) for id_, reference, hypothesis in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@contextmanager
def quiet(name: str) -> Generator[Any]:
    yield lambda text: None


class Counting:
    """The verbs in this process, and which of them were called."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.runs: list[Run] = []

    @property
    def verbs(self) -> Verbs:
        def train(run: Run, root: Path) -> Any:
            self.calls.append("train")
            self.runs.append(run)
            return train_here(run, root)

        def extract(dataset: DatasetDir, features: Any, store: str) -> Any:
            self.calls.append("extract")
            return extract_here(dataset, features, store)

        return Verbs(write_order, check_one_by_one, extract, train, answer_house)


def small_world(**values: Any) -> Recipe:
    small = {"train.epochs": 1, "model.width": 8, "model.depth": 1}
    return Recipe(
        stages={
            "corpus": SynthStage(signs=2, signers=3, clips=1),
            "dataset": PrepareStage(reader="table", raw="@corpus"),
            "frames": ExtractStage(dataset="@dataset", features=FrameFeatures(num_frames=4, size_px=32)),
            "first": TrainStage(job=JOB, reads="@frames", values=small),
            "second": TrainStage(job=JOB, reads="@frames", start_from="@first", values=small | values),
            "test_first": EvaluateStage(run="@first"),
            "test_second": EvaluateStage(run="@second"),
            "both": CompareStage(runs=("@first", "@second")),
            "samples": SamplesStage(of="@test_second", each=1),
            "bundle": ExportStage(run="@second"),
        }
    ).checked()


@pytest.mark.long
def test_a_recipe_goes_from_nothing_to_a_bundle_and_then_has_nothing_to_do(tmp_path: Path) -> None:
    first = Counting()
    done = follow(small_world(), tmp_path, StageActs(first.verbs), stage=quiet, tell=lambda text: None)
    assert first.calls == ["extract", "train", "train"]
    assert first.runs[1].train.start_from == done["first"].output
    assert first.runs[1].data.root == done["dataset"].output
    assert first.runs[1].data.features == FrameFeatures(num_frames=4, size_px=32)
    assert Path(done["samples"].output).read_text().splitlines()[0].split("\t")[:2] == ["place", "id"]
    assert (tmp_path / "bundle" / "bundle.json").is_file()
    table = json.loads((tmp_path / "both" / "compare.json").read_text())
    assert [side["name"] for side in table["sides"]] == ["first", "second"]
    assert done["both"].outcome == "Top-1: first 0.5, second 0.5 (p = 1)"

    again = Counting()
    assert follow(small_world(), tmp_path, StageActs(again.verbs), stage=quiet, tell=lambda text: None) == done
    assert again.calls == []

    changed = Counting()
    follow(small_world(**{"train.epochs": 2}), tmp_path, StageActs(changed.verbs), stage=quiet, tell=lambda text: None)
    assert changed.calls == ["train"]
    assert changed.runs[0].train.epochs == 2


TINY = {
    "synthetic_slt": [
        *(f"{name}.{word}" for name in ("daily", "lesson") for word in ("sentences=9", "signers=3")),
        *("*.train.epochs=1", "*.model.width=16", "*.model.depth=1", "*.decode.max_len=8"),
    ],
    "synthetic_cslr": [
        *("corpus.sentences=9", "corpus.signers=3", "*.train.epochs=1", "teacher.model.hidden=16"),
        *("alone.model.width=16", "student.model.width=16", 'student.train.distill.student_run=""'),
    ],
}


@pytest.mark.long
@pytest.mark.parametrize("name", TINY)
def test_a_shipped_recipe_goes_through_all_its_stages(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(Path(JOB).parents[1] / "recipes" / f"{name}.py", TINY[name])
    acts = Counting()
    done = follow(recipe, tmp_path, StageActs(acts.verbs), stage=quiet, tell=lambda text: None)
    assert list(done) == list(recipe.stages)
    assert acts.calls.count("train") == sum(stage.kind == "train" for stage in recipe.stages.values())
    if name == "synthetic_slt":
        zero_shot, stage2 = acts.runs[1], acts.runs[3]
        assert (zero_shot.train.start_from, stage2.train.start_from) == (done["pretrain"].output, done["stage1"].output)
        assert zero_shot.data.root == stage2.data.root == done["lesson_dataset"].output
    else:
        assert acts.runs[-1].train.distill.teacher == done["teacher"].output


def test_what_comes_from_outside_counts_among_what_a_stage_depends_on(tmp_path: Path) -> None:
    acts = StageActs(Counting().verbs)
    recipe = Recipe(
        stages={
            "dataset": PrepareStage(reader="table", raw=str(tmp_path / "corpus")),
            "run": TrainStage(
                job=JOB, values={"data.root": str(tmp_path / "d"), "train.start_from": str(tmp_path / "w.safetensors")}
            ),
        }
    )
    with pytest.raises(DataError, match="does not exist"):
        acts.inputs(recipe.stages["run"], recipe)
    write_json(tmp_path / "d" / "dataset.json", {"digest": "abc"})
    (tmp_path / "w.safetensors").write_bytes(b"weights")
    before = acts.inputs(recipe.stages["run"], recipe)
    (tmp_path / "w.safetensors").write_bytes(b"others")
    after = acts.inputs(recipe.stages["run"], recipe)
    assert {label for label in before if before[label] != after[label]} == {"train.start_from"}
    write_json(tmp_path / "d" / "dataset.json", {"digest": "abd"})
    assert {label for label, digest in acts.inputs(recipe.stages["run"], recipe).items() if digest != after[label]} == {"dataset"}

    (tmp_path / "corpus").mkdir()
    before = acts.inputs(recipe.stages["dataset"], recipe)
    (tmp_path / "corpus" / "labels.tsv").write_text("more")
    assert acts.inputs(recipe.stages["dataset"], recipe) != before


def test_samples_are_the_best_the_middle_and_the_worst(tmp_path: Path) -> None:
    rows = [("a", "RAIN TODAY", "RAIN TODAY"), ("b", "RAIN TODAY", "RAIN"), ("c", "RAIN TODAY", "SUN SUN SUN")]
    said = write_samples(write_lines(tmp_path / "p.jsonl", rows), tmp_path / "samples.tsv", task="cslr", each=1)
    table = [line.split("\t") for line in (tmp_path / "samples.tsv").read_text().splitlines()]
    assert [(row[0], row[1], row[3]) for row in table[1:]] == [("best", "a", "0"), ("middle", "b", "-0.5"), ("worst", "c", "-1.5")]
    assert said == "3 of 3 answers; in the middle: 'RAIN TODAY' -> 'RAIN'"
    assert choose([], 3) == []
    with pytest.raises(RunError, match="evaluate the run again"):
        write_samples(tmp_path / "none.jsonl", tmp_path / "x", task="islr", each=1)


@pytest.mark.parametrize("task", ["islr", "cslr", "slt"])
def test_a_right_answer_scores_higher_than_a_wrong_one(task: str) -> None:
    assert score_of("it rains today", "it rains today", task) > score_of("it rains today", "the sun", task)
