"""`sign-dist compare`: runs side by side, with tests on the same clips."""

from pathlib import Path
from typing import Annotated, Any

import typer

from sign_dist.console import say, table
from sign_dist.errors import SettingsError


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN RUN [...]", help="Run directories; RUN,RUN,RUN are seeds of one recipe, NAME=RUN names it."),
    ],
    split: Annotated[str, typer.Option(help="The split that all of them were evaluated on.")] = "test",
    pairs: Annotated[str, typer.Option(help="all: every pair is tested; first: each against the first.")] = "all",
    out: Annotated[Path, typer.Option(help="Folder for compare.json and compare.html.")] = Path("runs/compare"),
    seed: Annotated[int, typer.Option(help="Of intervals and tests.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print compare.json as well.")] = False,
) -> None:
    """Compare runs that were evaluated on the same clips: scores, size, speed, and whether a difference is luck."""
    import json

    from sign_dist.inference.compare import compare as run_compare
    from sign_dist.inference.compare import write_comparison
    from sign_dist.inference.sides import read_side

    if pairs not in ("all", "first"):
        raise SettingsError(f"no --pairs {pairs!r}: it is 'all' or 'first'")
    found = run_compare(
        [read_side(word, split) for word in runs], split=split, pairs="all" if pairs == "all" else "first", seed=seed
    )
    page = write_comparison(out, found)
    if as_json:
        typer.echo(json.dumps(found, ensure_ascii=False))
    _say(found)
    say(f"comparison: {page}")


def _say(found: dict[str, Any]) -> None:
    from sign_dist.inference.units import value_of

    measures = found["measures"]
    header = ("run", *(m["title"] for m in measures), "parameters", "weights", "per clip", "epochs")
    rows = [
        (
            side["name"],
            *(
                f"{value_of(m['unit'], s['value'])} ({value_of(m['unit'], s['low'])} to {value_of(m['unit'], s['high'])})"
                for m, s in zip(measures, side["scores"], strict=True)
            ),
            "n/a" if side["parameters"] is None else f"{side['parameters']:,}",
            "n/a" if side["weights_bytes"] is None else f"{side['weights_bytes'] / 1e6:.1f} MB",
            "n/a" if side["median_ms"] is None else f"{side['median_ms']:.3g} ms",
            "n/a" if side["epochs"] is None else f"{side['epochs']:g}",
        )
        for side in found["sides"]
    ]
    table(f"{found['clips']} clips", header, rows)
    for pair in found["pairs"]:
        main = pair["scores"][0]
        scale = 100 if measures[0]["unit"] == "share" else 1
        bounds = "" if main["low"] is None else f" ({scale * main['low']:+.1f} to {scale * main['high']:+.1f})"
        difference = f"{pair['second']} minus {pair['first']} {scale * main['difference']:+.1f} points{bounds}"
        say(f"{pair['verdict']}: {difference}, p {main['p_holm']:.4f}")
    for warning in found["warnings"]:
        say(f"note: {warning}")
