"""`sign-dist recipe`: stages that read what the ones before them made, in one command."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sign_dist.config.recipe import load_recipe
from sign_dist.config.run import Run
from sign_dist.console import bar, epoch_line, say

if TYPE_CHECKING:
    from sign_dist.config.data import Features
    from sign_dist.data.layout import DatasetDir
    from sign_dist.on_ray.extraction import Extracted
    from sign_dist.recipe.acts import Verbs
    from sign_dist.synthetic.like import Order


def recipe(
    file: Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe, such as jobs/recipes/synthetic_islr.py.")],
    values: Annotated[
        list[str] | None,
        typer.Argument(metavar="[STAGE.NAME=VALUE]...", help="Settings of a stage or its job; *.NAME=VALUE: of all jobs."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Directory to write.")] = None,
    address: Annotated[str, typer.Option(help="Where Ray is: local, auto or host:port.")] = "local",
) -> None:
    """Go through the stages of a recipe; what is done, and does not depend on anything that changed, is not done again."""
    loaded = load_recipe(file, values)
    from sign_dist.recipe.acts import StageActs
    from sign_dist.recipe.chain import follow
    from sign_dist.stages import Stages

    root = out or Path("runs") / file.stem
    stages = Stages(f"{file.stem}: {root}")
    follow(loaded, root, StageActs(_verbs(address)), stage=stages.stage, tell=say)
    stages.show()


def _verbs(address: str) -> "Verbs":
    """The verbs as Ray runs them. Ray is started by the first that needs it, and stays until the last has ended."""
    from sign_dist.inference.report import summary
    from sign_dist.on_ray.clips import check_all
    from sign_dist.on_ray.cluster import connect
    from sign_dist.on_ray.evaluation import evaluate_run
    from sign_dist.on_ray.extraction import extract as run_extract
    from sign_dist.on_ray.extraction import find_todo
    from sign_dist.on_ray.training import train as run_train
    from sign_dist.recipe.acts import Verbs
    from sign_dist.synthetic.like import write_order

    def synth(root: Path, order: "Order") -> str:
        with bar("  draw clips") as tick:
            return write_order(root, order, progress=tick)

    def check(samples: Any, folder: Path, sampling: Any) -> Any:
        connect(address)
        with bar("  check clips") as tick:
            return check_all(samples, folder, sampling, progress=tick)

    def extract(dataset: "DatasetDir", features: "Features", store: str) -> "Extracted":
        if find_todo(dataset, features, shared=store).blocks:
            connect(address)
        with bar("  extract") as tick:
            return run_extract(dataset, features, progress=tick, shared=store)

    def train(run: Run, root: Path) -> Mapping[str, Any]:
        connect(address)
        return run_train(
            run, root,
            on_taken=lambda taken: say(f"  {taken}"), on_epoch=lambda line: say(f"  {epoch_line(line, run.train.epochs)}"),
        )  # fmt: skip

    def evaluate(root: Path, split: str) -> str:
        connect(address)
        return summary(evaluate_run(root, split)[1])

    return Verbs(synth, check, extract, train, evaluate)
