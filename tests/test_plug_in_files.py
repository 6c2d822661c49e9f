"""Every file that a user may add one to: jobs, search spaces, serving applications."""

from collections.abc import Callable
from pathlib import Path

import pytest

from sign_dist.config.recipe import Recipe, load_recipe
from sign_dist.config.run import Run
from sign_dist.config.source import load_run, space_of

ROOT = Path(__file__).resolve().parents[1]


def files(folder: str) -> list[Path]:
    found = sorted((ROOT / folder).glob("*.py"))
    assert found, f"{folder}/ is empty"
    return found


# Spaces that are for some jobs only.
FITS: dict[str, Callable[[Run], bool]] = {
    "lora": lambda run: run.model.kind == "vlm",
    "distill": lambda run: bool(run.train.distill.teacher),
}
JOBS = [*files("jobs"), *files("jobs/synthetic")]
RECIPES = files("jobs/recipes")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").as_posix()


@pytest.mark.parametrize("path", JOBS, ids=name_of)
def test_a_job_is_a_run_with_a_docstring(path: Path) -> None:
    run = load_run(path)
    assert Run.from_tree(run.model_dump(mode="json")) == run
    assert load_run(path, ["train.epochs=2", "scale.workers=2"]).train.epochs == 2
    assert path.read_text(encoding="utf-8").startswith('"""')


def test_no_two_jobs_are_the_same_run() -> None:
    assert len({load_run(path).digest() for path in JOBS}) == len(JOBS)


@pytest.mark.parametrize("path", RECIPES, ids=name_of)
def test_a_recipe_can_be_followed(path: Path) -> None:
    recipe = load_recipe(path, ["*.train.epochs=2"])
    assert Recipe.from_tree(recipe.model_dump(mode="json")) == recipe
    assert path.read_text(encoding="utf-8").startswith('"""')


@pytest.mark.ray
@pytest.mark.parametrize("path", files("tune_spaces"), ids=lambda path: path.stem)
def test_a_space_names_settings_of_the_jobs_that_it_is_for(path: Path) -> None:
    from sign_dist.on_ray.search import check_space

    space = space_of(path)
    assert space
    fits = FITS.get(path.stem, lambda run: True)
    # A job's own plan of unfreezing and a search for the number of stages exclude each other, which is said to who tries it.
    runs = [load_run(job).with_values({"train.unfreeze.plan": ""}) for job in JOBS]
    those = [run for run in runs if fits(run)]
    assert those
    for run in those:
        check_space(run, space)


@pytest.mark.ray
@pytest.mark.parametrize("path", files("serve_apps"), ids=lambda path: path.stem)
def test_an_app_is_a_function_of_serve_args(path: Path) -> None:
    import importlib.util
    import inspect

    from sign_dist.on_ray.serving import ServeArgs

    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (parameter,) = inspect.signature(module.app).parameters.values()
    assert issubclass(parameter.annotation, ServeArgs)
