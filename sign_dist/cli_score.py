"""`sign-dist score`: score anyone's files."""

import json
import math
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from sign_dist.console import say, table

WORST = 10
"""Rows of the table of glosses; `--json` has them all."""


def score(
    references: Annotated[
        Path, typer.Argument(metavar="REF", help="References: .stm, .trn, .jsonl, .tsv (id TAB text), .csv or plain lines.")
    ],
    hypotheses: Annotated[Path, typer.Argument(metavar="HYP", help="Hypotheses: the same, or .ctm.")],
    metric: Annotated[str, typer.Option(help="wer, accuracy, bleu, chrf, rouge, meteor or cider; several with commas.")] = "wer",
    cost: Annotated[str, typer.Option(help="Alignment of wer: sclite (4/3/3) or unit (jiwer).")] = "sclite",
    cleanup: Annotated[str, typer.Option(help="none, phoenix2014, phoenix2014-slt, phoenix2014T or csl_daily.")] = "none",
    language: Annotated[str, typer.Option(help="en, de, zh or other: words and stems of texts.")] = "en",
    interval: Annotated[bool, typer.Option("--interval", help="A 95 % interval.")] = False,
    against: Annotated[
        Path | None, typer.Option(help="Hypotheses of another run on the same clips, to test the difference.")
    ] = None,
    vocabulary: Annotated[
        Path | None, typer.Option(help="Glosses that the model can answer, one a line, to find those that it cannot.")
    ] = None,
    show: Annotated[int, typer.Option(min=0, help="Sentences with the most word errors to show aligned.")] = 0,
    seed: Annotated[int, typer.Option(help="Of intervals and tests.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, with a row per gloss.")] = False,
) -> None:
    """Score hypotheses against references: any files, no run needed."""
    from sign_dist.metrics.scoring import compare, interval_of, metric_named
    from sign_dist.metrics.scoring import score as run_score
    from sign_dist.metrics.transcripts import paired, read_transcripts

    metrics = [metric_named(name.strip()) for name in metric.split(",")]
    asked = read_transcripts(references, "reference")
    runs = {path: read_transcripts(path, "hypothesis") for path in (hypotheses, against) if path is not None}
    pairs = {path: paired(asked, run) for path, run in runs.items()}
    for path, run in runs.items():
        if asked.numbered != run.numbered:
            say(f"note: one of {references} and {path} has no ids: their lines are paired in order")
    known = list(read_transcripts(vocabulary, "reference").texts.values()) if vocabulary else []

    def scored(path: Path, name: str) -> Any:
        ids, refs, hyps = pairs[path]
        ranked = [runs[path].ranked.get(i, [h] if h else []) for i, h in zip(ids, hyps, strict=True)]
        return run_score(name, refs, hyps, ids=ids, ranked=ranked, cost=cost, cleanup=cleanup, language=language, vocabulary=known)

    results: list[dict[str, Any]] = []
    for name in metrics:
        found = scored(hypotheses, name)
        result: dict[str, Any] = {
            "metric": name, "value": found.value, "unit": found.unit, "sentences": len(found.tally),
            "signature": found.signature, **found.details, "findings": [str(finding) for finding in found.findings],
        }  # fmt: skip
        if interval:
            bounds = interval_of(found, seed=seed)
            result["interval"] = {"low": bounds.low, "high": bounds.high, "level": bounds.level, "method": bounds.method}
        if against is not None:
            other = scored(against, name)
            result["against"] = {
                "value": other.value,
                "difference": other.value - found.value,
                "tests": [{"method": c.method, "p": c.p, "low": c.low, "high": c.high} for c in compare(found, other, seed=seed)],
            }
        results.append(result)
    if as_json:
        typer.echo(json.dumps(_without_nan({"reference": str(references), "hypothesis": str(hypotheses), "scores": results})))
        return
    for result in results:
        _say(result)
    for finding in dict.fromkeys(line for result in results for line in result["findings"]):
        say(f"warning: {finding}")
    if show:
        _show(*pairs[hypotheses], cost=cost, cleanup=cleanup, most=show)


def _say(result: dict[str, Any]) -> None:
    """A score, how it was counted, and where its errors are; rates in percent, as everyone states them."""
    rate = result["metric"] in ("wer", "accuracy")

    def number(value: float, sign: str = " %") -> str:
        if rate:
            return f"{100 * value:.2f}{sign}"
        return f"{value:.2f}" if result["unit"] == "0..100" else f"{value:.4f}"

    def line(label: str, text: str) -> None:
        typer.echo(f"  {label:<9} {text}")

    scale = "" if rate else f" ({result['unit']})"
    typer.echo(f"{result['metric']} {number(result['value'])}{scale}")
    line("counted", f"{result['sentences']} {'clips' if result['metric'] == 'accuracy' else 'sentences'}; {result['signature']}")
    if result["metric"] == "wer":
        counts = ", ".join(f"{result[name]} {name}" for name in ("substitutions", "deletions", "insertions"))
        line("errors", f"{result['errors']} in {result['words']} words: {counts}")
    for name in ("bleu1", "bleu2", "bleu3", "bleu4", "f1", "per_class", "top5", "top5_per_class", "top10", "top10_per_class"):
        if name in result:
            line(name.replace("_", " "), number(result[name]))
    if most := result.get("majority"):
        line(
            "baseline",
            f"{number(most['accuracy'])} by answering {most['label']!r} to everything; {result['classes']} classes asked",
        )
    if bounds := result.get("interval"):
        line(f"{100 * bounds['level']:g} %", f"{number(bounds['low'])} to {number(bounds['high'])}; {bounds['method']}")
    if other := result.get("against"):
        line("against", f"{number(other['value'])}: difference {number(other['difference'], ' points')}")
        for test in other["tests"]:
            bounds = (
                "" if math.isnan(test["low"]) else f", difference {number(test['low'], '')} to {number(test['high'], ' points')}"
            )
            line("", f"p {test['p']:.4f}{bounds}; {test['method']}")
    _say_glosses(result)


def _say_glosses(result: dict[str, Any]) -> None:
    match result["metric"]:
        case "wer":
            header = ("gloss", "asked", "right", "replaced", "left out", "put in", "taken for")
            keys = ("support", "correct", "substituted", "deleted", "inserted")
        case "accuracy":
            header, keys = ("gloss", "asked", "right", "answered", "taken for"), ("support", "correct", "answered")
        case _:
            return
    worst = [g for g in result["glosses"] if g["correct"] < g["support"] or g.get("inserted")]
    rows = [
        (
            g["gloss"],
            *(str(g[key]) for key in keys),
            ", ".join(f"{other or '(nothing)'} {n}" for other, n in g["confused_with"][:3]),
        )
        for g in worst[:WORST]
    ]
    if rows:
        table(f"{len(rows)} of {len(worst)} glosses with errors, the most first", header, rows)


def _show(ids: list[str], references: list[str], hypotheses: list[str], *, cost: str, cleanup: str, most: int) -> None:
    from sign_dist.metrics.align import align, draw
    from sign_dist.metrics.cleanup import cleanup_named

    refs, hyps = cleanup_named(cleanup).apply(references, hypotheses)
    how = "unit" if cost == "unit" else "sclite"
    aligned = [(id_, align(r.split(), h.split(), how)) for id_, r, h in zip(ids, refs, hyps, strict=True)]
    wrong = [row for row in aligned if any(step.op != "=" for step in row[1])]
    for id_, steps in sorted(wrong, key=lambda row: -sum(step.op != "=" for step in row[1]))[:most]:
        typer.echo(f"\n{id_}\n{draw(steps, width=shutil.get_terminal_size().columns)}")


def _without_nan(value: Any) -> Any:
    """NaN and infinities, which JSON lacks, as null."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {name: _without_nan(inner) for name, inner in value.items()}
        case list() | tuple():
            return [_without_nan(inner) for inner in value]
        case _:
            return value
