"""`sign-dist tune`, `study`, `confirm` and `promote`: search settings, look at the search, check its winner, export it."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from sign_dist.config.search import Search, divide
from sign_dist.config.source import apply, load_run, space_of
from sign_dist.console import bar, say, table
from sign_dist.errors import SettingsError

Study = Annotated[Path, typer.Argument(help="A study directory, as `sign-dist tune` writes it.")]
# A longer table is read in study.html.
MOST_ROWS = 20
Address = Annotated[str, typer.Option(help="Where Ray is: 'local' starts one here, 'auto' joins the running one, or host:port.")]


def tune(
    job: Annotated[str, typer.Argument(help="The job to search around.")],
    space: Annotated[Path, typer.Argument(help="A file of tune_spaces/.")],
    values: Annotated[
        list[str] | None,
        typer.Argument(help="Settings to change, such as train.epochs=20 or search.sampler=gp", metavar="[NAME=VALUE]..."),
    ] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Short for search.trials=N.")] = None,
    seed: Annotated[int | None, typer.Option(help="Short for search.seed=N.")] = None,
    out: Annotated[Path | None, typer.Option(help="Directory to write.")] = None,
    address: Address = "local",
) -> None:
    """Search settings: every trial is a run directory; the same command goes on with an interrupted study."""
    from sign_dist.on_ray.cluster import connected
    from sign_dist.on_ray.tuning import tune_run

    of_search, of_run = divide(values or [])
    run, search = load_run(job, of_run), apply(Search(), of_search)
    if not search.of and Path(job).name == "run.json":
        search = search.with_values({"of": str(Path(job).parent)})
    domains = space_of(space)
    root = out or Path("runs") / f"{stem_of(job)}_{space.stem}"
    with connected(address, dashboard=search.wants_workers(run.scale.workers)), bar("epochs of all trials") as tick:
        best = tune_run(
            run,
            domains,
            root,
            num_trials=trials,
            seed=seed,
            search=search,
            on_trials=lambda done, total, _: tick(done, total),
        )
    chosen = ", ".join(
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}" for name, value in best["settings"].items()
    )
    also = "".join(f", {name} {value:.4g}" for name, value in best.get("objectives", {}).items())
    say(f"best of {best['num_trials']} trials: {best['value']:.4g}{also} with {chosen}")
    say(
        f"{best['epochs_trained']} of {best['epochs_without_stopping']} epochs trained; "
        f"see {root / 'study.html'}, {root / 'best.json'}; whether the win is luck, says sign-dist confirm {root}"
    )


def study(root: Study) -> None:
    """Say where a study stands, and write its study.html anew; also while it runs."""
    from sign_dist.study.end import show_study
    from sign_dist.study.layout import StudyDir
    from sign_dist.study.rows import rows_of

    rows = rows_of(StudyDir(root))
    page = show_study(StudyDir(root))
    ranked = sorted(rows, key=lambda row: -(row.score if row.score is not None else float("-inf")))
    table(
        f"{len(rows)} trials, the best first",
        ("trial", "state", "value", "epochs", "seconds", "settings"),
        [
            (
                str(row.number),
                row.state,
                "n/a" if row.value is None else f"{row.value:.4g}",
                str(row.epochs),
                f"{row.seconds:.1f}",
                _words(row.settings),
            )
            for row in ranked[:MOST_ROWS]
        ],
    )
    say(f"page: {page}")


def confirm(
    root: Study,
    top: Annotated[int, typer.Option(min=1, help="Trials to train again, the best first.")] = 3,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Fresh seeds, for each of them and for the default settings.")] = 3,
    address: Address = "local",
) -> None:
    """Train the best trials and the default settings again on fresh seeds: is the winner better, or was it luck?"""
    from sign_dist.on_ray.cluster import connected
    from sign_dist.on_ray.confirm import confirm_study
    from sign_dist.study.confirm import plan
    from sign_dist.study.layout import StudyDir
    from sign_dist.study.page import write_page

    left = [repeat for repeat in plan(StudyDir(root.absolute()), top=top, seeds=seeds) if not repeat.is_done]
    with connected(address) if left else contextlib.nullcontext(), bar("runs") as tick:
        found = confirm_study(root, top=top, seeds=seeds, on_runs=tick)
    say(found["verdict"])
    say(f"see {write_page(StudyDir(root))}")


def promote(
    root: Study,
    point: Annotated[int | None, typer.Option(min=0, help="A trial's number; without it, the winner.")] = None,
    pareto: Annotated[
        bool, typer.Option("--pareto", help="Every trial of the Pareto front, each into bundles/ of the study.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder of the bundle.")] = None,
) -> None:
    """Export the winner of a study as a bundle that says how it was found; where time was an objective, it is measured again."""
    from sign_dist.study.layout import StudyDir
    from sign_dist.study.page import write_page
    from sign_dist.study.promote import promote as run_promote
    from sign_dist.study.promote import promote_front

    if pareto and (point is not None or out is not None):
        raise SettingsError("--pareto exports all points of the front into the study: leave out --point and --out")
    done = promote_front(StudyDir(root)) if pareto else [run_promote(StudyDir(root), number=point, out=out)]
    for each in done:
        say(str(each))
    write_page(StudyDir(root))


def _words(settings: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}" for name, value in settings.items())


def stem_of(job: str) -> str:
    """The run's name: the job file's, or the run directory's for a run.json."""
    path = Path(job)
    return path.resolve().parent.name if path.stem == "run" else path.stem
