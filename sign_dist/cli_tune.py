"""`sign-dist tune`, `study`, `confirm` and `promote`: search settings, look at the search, check its winner, export it."""

from pathlib import Path
from typing import Annotated

import typer

from sign_dist.config.source import call, load_run
from sign_dist.console import bar, say

Study = Annotated[Path, typer.Argument(help="A study directory, as `sign-dist tune` writes it.")]
Address = Annotated[str, typer.Option(help="Where Ray is: 'local' starts one here, 'auto' joins the running one, or host:port.")]


def tune(
    job: Annotated[str, typer.Argument(help="The job to search around.")],
    space: Annotated[Path, typer.Argument(help="A file of tune_spaces/.")],
    values: Annotated[
        list[str] | None, typer.Argument(help="Settings to change, such as train.epochs=20", metavar="[NAME=VALUE]...")
    ] = None,
    trials: Annotated[int, typer.Option(min=1)] = 8,
    seed: int = 0,
    out: Annotated[Path | None, typer.Option(help="Directory to write.")] = None,
    address: Address = "local",
) -> None:
    """Search settings: every trial is a run directory; the same command goes on with an interrupted study."""
    from sign_dist.on_ray.cluster import connected
    from sign_dist.on_ray.tuning import tune_run

    run = load_run(job, values)
    domains = call(space, "space")
    root = out or Path("runs") / f"{stem_of(job)}_{space.stem}"
    with connected(address), bar("epochs of all trials") as tick:
        best = tune_run(run, domains, root, num_trials=trials, seed=seed, on_trials=lambda done, total, _: tick(done, total))
    chosen = ", ".join(
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}" for name, value in best["settings"].items()
    )
    say(f"best of {best['num_trials']} trials: {best['value']:.4g} with {chosen}")
    say(
        f"{best['epochs_trained']} of {best['epochs_without_stopping']} epochs trained; "
        f"see {root / 'study.png'}, {root / 'best.json'}"
    )


def stem_of(job: str) -> str:
    """The run's name: the job file's, or the run directory's for a run.json."""
    path = Path(job)
    return path.resolve().parent.name if path.stem == "run" else path.stem
