"""Stages in a row: what leads where, what is done again and what is not. No stage of these tests computes anything."""

import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sign_dist.config.recipe import (
    CompareStage,
    EvaluateStage,
    ExtractStage,
    PrepareStage,
    Recipe,
    Stage,
    SynthStage,
    TrainStage,
    load_recipe,
)
from sign_dist.errors import RunError, SettingsError
from sign_dist.recipe.chain import Done, digest_of, follow

ROOT = Path(__file__).resolve().parents[1]
JOB = str(ROOT / "jobs" / "islr.py")


def chain(**changed: Stage) -> Recipe:
    stages: dict[str, Stage] = {
        "corpus": SynthStage(),
        "dataset": PrepareStage(reader="table", raw="@corpus"),
        "points": ExtractStage(dataset="@dataset"),
        "teacher": TrainStage(job=JOB, reads="@points"),
        "student": TrainStage(job=JOB, reads="@points", start_from="@teacher", values={"train.epochs": 3}),
        "test": EvaluateStage(run="@student"),
    }
    return Recipe(stages=stages | changed)


class Counted:
    """Acts that write one file each, whose content is what the stage read, and count how often they were called."""

    def __init__(self, *, fail_at: str = "", worlds: str = "1") -> None:
        self.calls: list[str] = []
        self.fail_at, self.worlds = fail_at, worlds

    def inputs(self, stage: Stage, recipe: Recipe) -> dict[str, str]:
        world = {"world": self.worlds} if isinstance(stage, SynthStage) else {}
        return {"settings": digest_of(stage.model_dump(mode="json"))} | world

    def act(self, stage: Stage, out: Path, done: Mapping[str, Done]) -> Done:
        name = out.name.rpartition("-")[0]
        if name == self.fail_at:
            raise RunError("the power went")
        self.calls.append(name)
        out.mkdir(parents=True)
        file = out / "made.json"
        # A teacher that is trained anew comes out the same, whatever it is told of seeds.
        content = [name, "same" if name == "teacher" else self.inputs(stage, Recipe(stages={name: stage}))]
        file.write_text(json.dumps(content))
        return Done(str(out), digest_of(content), f"made {name}", (str(file),))


def go(recipe: Recipe, root: Path, acts: Counted) -> tuple[dict[str, Done], list[str]]:
    told: list[str] = []

    @contextmanager
    def stage(name: str) -> Generator[Any]:
        yield lambda text: told.append(f"{name}: {text}")

    return follow(recipe, root, acts, stage=stage, tell=told.append), told


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    first, second = Counted(), Counted()
    done, told = go(chain(), tmp_path, first)
    assert first.calls == list(chain().stages)
    assert told[0] == "corpus: made corpus"
    again, told = go(chain(), tmp_path, second)
    assert second.calls == []
    assert again == done
    assert told[0] == "corpus: made corpus (done before)"


def test_a_change_is_felt_by_what_comes_after_it_and_by_nothing_else(tmp_path: Path) -> None:
    go(chain(), tmp_path, Counted())
    acts = Counted()
    longer = chain().with_words(["student.train.epochs=5"])
    done, told = go(longer, tmp_path, acts)
    assert acts.calls == ["student", "test"]
    assert "  again, for what has changed: settings" in told
    assert "  again, for what has changed: @student" in told
    back = Counted()
    assert go(chain(), tmp_path, back)[0] != done
    assert back.calls == []  # the folders of the old settings are still there
    other_world = Counted(worlds="2")
    go(chain(), tmp_path, other_world)
    assert other_world.calls == ["corpus", "dataset"]  # of another world, but the same dataset was made of it


def test_a_stage_that_comes_out_the_same_spares_those_after_it(tmp_path: Path) -> None:
    go(chain(), tmp_path, Counted())
    acts = Counted()
    go(chain().with_words(["teacher.train.seed=7"]), tmp_path, acts)
    assert acts.calls == ["teacher"]


def test_an_interrupted_recipe_goes_on_where_it_was(tmp_path: Path) -> None:
    first, second = Counted(fail_at="student"), Counted()
    with pytest.raises(RunError, match="power"):
        go(chain(), tmp_path, first)
    assert first.calls == ["corpus", "dataset", "points", "teacher"]
    go(chain(), tmp_path, second)
    assert second.calls == ["student", "test"]


def test_what_was_removed_is_made_again(tmp_path: Path) -> None:
    done, _ = go(chain(), tmp_path, Counted())
    (Path(done["points"].output) / "made.json").unlink()
    (Path(done["points"].output)).rmdir()
    acts = Counted()
    go(chain(), tmp_path, acts)
    assert acts.calls == ["points"]


def test_the_name_of_a_stage_leads_to_its_newest_folder(tmp_path: Path) -> None:
    done, _ = go(chain(), tmp_path, Counted())
    assert (tmp_path / "student").resolve() == Path(done["student"].output)
    changed, _ = go(chain().with_words(["student.train.epochs=5"]), tmp_path, Counted())
    assert (tmp_path / "student").resolve() == Path(changed["student"].output) != Path(done["student"].output)


def test_a_damaged_record_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text("{")
    with pytest.raises(RunError, match=r"recipe\.json.*damaged.*remove it"):
        go(chain(), tmp_path, Counted())


WRONG: list[tuple[dict[str, Stage], str]] = [
    ({"test": EvaluateStage(run="@studnt")}, r"'test' reads '@studnt' in run.*did you mean 'student'"),
    ({"teacher": TrainStage(job=JOB, start_from="@student")}, r"teacher -> student -> teacher wait for each other"),
    ({"dataset": PrepareStage(reader="table", raw="@later"), "later": SynthStage()}, r"'@later', which comes after it"),
    ({"test": EvaluateStage(run="@dataset")}, r"run of stage 'test' must lead to a stage of kind train.*'prepare'"),
    ({"student": TrainStage(job="jobs/islrr.py")}, r"stage 'student': no job file 'jobs/islrr.py'"),
    ({"student": TrainStage(job=JOB, values={"train.epoch": 3})}, r"stage 'student': no setting 'train.epoch'.*'epochs'"),
    ({"student": TrainStage(job=JOB, strategy="full")}, r"stage 'student': the strategy full is for pretrained weights"),
    ({"Student": EvaluateStage(run="@teacher")}, r"'Student' is no name of a stage"),
    ({"both": CompareStage(runs=("@teacher", "@student"))}, r"compares '@teacher' on test, which no stage before it evaluates"),
    ({"student": TrainStage(job=str(ROOT / "jobs" / "islr_frames.py"), reads="@points")}, r"stage 'student': .*video_cnn.*frames"),
]


@pytest.mark.parametrize(("changed", "sentence"), WRONG, ids=[sentence[:40] for _, sentence in WRONG])
def test_what_cannot_be_followed_is_refused_before_anything_starts(changed: dict[str, Stage], sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence) as error:
        chain(**changed).checked()
    assert "\n" not in str(error.value)


def test_words_reach_stages_their_jobs_and_all_jobs() -> None:
    recipe = chain().with_words(["corpus.signs=5", "*.train.epochs=2", "student.train.optim.lr=0.1", "points.features.kind=frames"])
    corpus, points, teacher, student = (recipe.stages[name] for name in ("corpus", "points", "teacher", "student"))
    assert isinstance(corpus, SynthStage)
    assert corpus.signs == 5
    assert isinstance(points, ExtractStage)
    assert points.features.kind == "frames"
    assert isinstance(teacher, TrainStage)
    assert teacher.values == {"train.epochs": 2}
    assert isinstance(student, TrainStage)
    assert student.values == {"train.epochs": 2, "train.optim.lr": 0.1}


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("studnt.train.epochs=2", "no setting 'studnt.train.epochs' of this recipe.*did you mean 'student'"),
        ("train.epochs=2", "no setting 'train.epochs' of this recipe"),
        ("corpus.sings=2", "stage 'corpus': no setting 'sings'.*'signs'"),
        ("corpus.signs=1", "stage 'corpus': signs = 1 is not allowed"),
        ("corpus.kind=export", "the kind of stage 'corpus' cannot be changed"),
        ("student.train.epochs=0.5", "stage 'student': train.epochs = 0.5"),
    ],
)
def test_a_wrong_word_is_a_sentence(word: str, sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        chain().with_words([word]).checked()


def test_a_recipe_is_a_python_file_with_a_function_recipe(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no recipe .*synthetic_isl\.py.*did you mean 'synthetic_islr\.py'"):
        load_recipe(ROOT / "jobs" / "recipes" / "synthetic_isl.py")
    (tmp_path / "wrong.py").write_text("def recipe():\n    return 3\n")
    with pytest.raises(SettingsError, match="must return a Recipe, got int"):
        load_recipe(tmp_path / "wrong.py")
