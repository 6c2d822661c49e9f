"""`sign-dist weights`: which pretrained weights there are, fetch them, look into them, convert them."""

import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from sign_dist.console import bar, say, table
from sign_dist.errors import WeightsError, did_you_mean

if TYPE_CHECKING:
    import torch

    from sign_dist.transfer.catalogue import Published
    from sign_dist.transfer.kernels import Method
    from sign_dist.transfer.load import LoadReport
    from sign_dist.transfer.weights_file import WeightsFile

app = typer.Typer(help="Pretrained weights: list, fetch, inspect, convert.", no_args_is_help=True)

File = Annotated[Path, typer.Argument(help="A weights file: .safetensors, .pt, .pth, whatever torch wrote.")]
Container = Annotated[str, typer.Option(help="Where in the file the tensors stand, such as model; default: found.")]
Adapt = Annotated[
    str,
    typer.Option(help="temporal_mean, spatial_mean or temporal_max: take space out of I3D's kernels, for the temporal I3D."),
]

MAX_ROWS = 40
MIB = 1 << 20
MAX_ALIKE = 3
UNKNOWN, NONE = "not known", "-"


@app.command("list")
def list_(name: Annotated[str, typer.Argument(help="Say everything about this one.", show_default=False)] = "") -> None:
    """Published checkpoints that the models here can start from."""
    from sign_dist.transfer.catalogue import CATALOGUE, published

    if name:
        e = published(name)
        _facts(
            ("name", e.name),
            ("what", e.what),
            ("page", e.page),
            ("address", e.url or "none: get it from the page with a browser"),
            ("file", e.file),
            ("bytes", f"{e.size_bytes:,}" if e.size_bytes else UNKNOWN),
            ("sha256", e.sha256 or "none is published"),
            ("licence", f"{e.licence or UNKNOWN}{' (fetch wants --accept-licence)' if e.url and e.needs_consent else ''}"),
            ("colour order", e.colour_order or UNKNOWN),
            ("container", " or ".join(c or "none" for c in e.containers) or UNKNOWN),
            ("may lack", ", ".join(f"{part}*" for part in e.may_lack) or "nothing"),
            ("may have beside", ", ".join(f"{part}*" for part in e.may_add) or "nothing"),
            ("renamed", ", ".join(f"{old} -> {new}" for old, new in e.renames) or "nothing"),
            ("note", e.note),
        )
        return
    rows = [(e.name, e.what, e.licence or UNKNOWN, "fetch" if e.url else "browser") for e in CATALOGUE.values()]
    _table("published weights", ("name", "what", "licence", "how"), rows)
    say("`sign-dist weights list NAME` says everything about one of them")


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="A name that `weights list` shows.")],
    out: Annotated[Path | None, typer.Option(help="Folder; default: SIGN_DIST_MODELS, else a cache of this user.")] = None,
    accept_licence: Annotated[bool, typer.Option("--accept-licence", help="I have read the licence and agree.")] = False,
) -> None:
    """Download published weights; the same command goes on where it stopped."""
    from sign_dist.transfer.catalogue import published
    from sign_dist.transfer.fetch import fetch_weights, weights_dir

    entry = published(name)
    with bar(f"MiB of {entry.file}") as tick:
        got = fetch_weights(
            entry,
            out or weights_dir(),
            accept_licence=accept_licence,
            on_bytes=lambda done, all_: tick(done // MIB, -(-all_ // MIB)),
        )
    how = f"{got.received_bytes / MIB:.1f} MiB received" if got.received_bytes else "there before"
    checked = "the published one" if entry.sha256 else "none is published to compare with"
    say(f"{got.path}: {got.size_bytes:,} bytes, {how}; sha256 {got.sha256} ({checked}); licence {entry.licence or UNKNOWN}")


@app.command()
def inspect(
    file: File,
    model: Annotated[str, typer.Option(help="Compare with a model: its name, another weights file, or a .json of shapes.")] = "",
    adapt: Adapt = "",
    container: Container = "",
    every: Annotated[bool, typer.Option("--all", help="Every row of the tables.")] = False,
    min_match: Annotated[
        float,
        typer.Option(min=0, max=1, help="Share of the model's tensors below which the file is another model's (exit code 1)."),
    ] = 0.5,
) -> None:
    """Say what a weights file holds, and what of it a model would take."""
    from sign_dist.transfer.architecture import guess
    from sign_dist.transfer.catalogue import recognised
    from sign_dist.transfer.convert import colour_order
    from sign_dist.transfer.weights_file import file_digest, read_weights

    method = _method(adapt)
    shapes = shapes_of(model) if model else {}
    found = read_weights(file, container=container)
    entry, digest = recognised(file.name), file_digest(file)
    dtypes = sorted({_dtype(tensor) for tensor in found.tensors.values()})
    odd = [name for name, tensor in found.tensors.items() if tensor.is_floating_point() and not bool(tensor.isfinite().all())]
    _facts(
        ("kind", found.kind),
        ("container", found.container or "none"),
        ("beside it", ", ".join(found.beside)),
        ("tensors", f"{len(found.tensors)}{f', of them {len(found.aliases)} shared' if found.aliases else ''}"),
        ("parameters", f"{found.num_parameters:,}"),
        ("statistics", f"{found.num_statistics:,} numbers of BatchNorm" if found.num_statistics else ""),
        ("types", ", ".join(dtypes)),
        ("not finite", f"{odd[0]}{f' and {len(odd) - 1} more' if odd[1:] else ''}: no model can answer with it" if odd else ""),
        ("looks like", guess(found.tensors) or "nothing that is known here"),
        ("name is that of", entry.name if entry else "no published file"),
        ("colour order", colour_order(found) or UNKNOWN),
        ("adapted by", found.metadata.get("adapted", "")),
        ("licence", found.metadata.get("licence", "") or (entry.licence if entry else "") or UNKNOWN),
        ("source", found.metadata.get("source", "")),
        ("bytes", f"{file.stat().st_size:,}"),
        ("sha256", digest + (_compared(digest, entry.sha256) if entry else "")),
    )
    if every or not model:
        rows = [(name, _shape(tensor.shape), _dtype(tensor)) for name, tensor in found.tensors.items()]
        _rows("tensors", ("name", "shape", "type"), rows, every)
    if model:
        _compare(found, entry, model, shapes, method, every=every).require(min_match)


@app.command()
def convert(
    file: File,
    out: Annotated[Path, typer.Argument(metavar="OUT.safetensors", help="File to write.")],
    colour: Annotated[str, typer.Option(help="rgb or bgr: what the weights expect, where it is not known.")] = "",
    to_rgb: Annotated[bool, typer.Option("--to-rgb", help="Turn the first kernel round, so that red comes first.")] = False,
    adapt: Adapt = "",
    container: Container = "",
) -> None:
    """Write the tensors as safetensors, with where they come from."""
    from sign_dist.transfer.convert import convert as run_convert

    if colour not in ("", "rgb", "bgr"):
        raise WeightsError(f"--colour {colour!r} is not allowed: rgb or bgr")
    done = run_convert(file, out, colour=colour, to_rgb=to_rgb, container=container, adapt=_method(adapt))
    said = ", ".join(f"{name} {value}" for name, value in done.metadata.items() if name not in ("format", "order", "aliases"))
    say(f"{done.path}: {done.num_tensors} tensors; {said}")


@app.command()
def memory(
    job: Annotated[str, typer.Argument(help="A job of a vision-language model (.py), or a run.json or .yaml.")],
    values: Annotated[list[str] | None, typer.Argument(metavar="[NAME=VALUE]...", help="Settings to change.")] = None,
    like: Annotated[str, typer.Option(help="1b, 2b, 4b or 8b: InternVL3.5 of that size, in place of model.source.")] = "",
    answer: Annotated[int, typer.Option(min=2, help="Tokens of the longest gloss, its end included.")] = 8,
) -> None:
    """Say how much memory a vision-language model takes with a job's settings; nothing is loaded."""
    from sign_dist.config.source import load_run
    from sign_dist.training.vlm_memory import lines, plan_of_run

    for line in lines(plan_of_run(load_run(job, values), like=like, answer=answer)):
        say(line)


@app.command()
def part(
    run: Annotated[Path, typer.Argument(help="A run whose translator or sonar reads frames.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.safetensors", help="File to write.")],
) -> None:
    """Write the SignHiera that a run has trained in front of its model, to extract features with."""
    from sign_dist.training.parts import save_encoder
    from sign_dist.training.run_dir import RunDir

    say(f"{out}: {save_encoder(RunDir(run), out)} tensors; extract with them by --features signhiera weights={out}")


@app.command()
def folder(
    bundle: Annotated[Path, typer.Argument(help="A bundle of a vision-language model, whole or exported with --merged.")],
    out: Annotated[Path, typer.Argument(help="Folder to make.")],
) -> None:
    """Write a vision-language model in transformers' form, to adapt it further or to use it elsewhere."""
    from sign_dist.inference.bundle import Bundle
    from sign_dist.inference.transformers_folder import write_folder

    say(f"{write_folder(Bundle(bundle), out)}: adapt it with model.source={out} train.lora.targets=...")


def _compare(
    found: "WeightsFile",
    entry: "Published | None",
    model: str,
    shapes: "dict[str, torch.Size]",
    adapt: "Method | None",
    *,
    every: bool,
) -> "LoadReport":
    """What of a file a model would take: what does not simply fit, or with `every` all, and the counts."""
    from sign_dist.transfer.kernels import adapter, temporal_name
    from sign_dist.transfer.load import fit_to

    def renamed(name: str) -> str:
        name = entry.rename(name) if entry else name
        return temporal_name(name) if adapt else name

    fit = fit_to(
        shapes, found.tensors, ignore=entry.may_lack if entry else (), rename=renamed, adapt=adapter(adapt) if adapt else None
    )
    report = fit.report
    kinds = ("misshaped", "missing", "skipped", "adapted", *(("loaded",) if every else ()))
    rows = [(kind, name, _shape(shapes.get(name)), _shape(fit.given.get(name))) for kind in kinds for name in getattr(report, kind)]
    _rows(f"into {model}", ("outcome", "name", "model", "file"), rows if every else _grouped(rows), every)
    spared = len(report.missing + report.misshaped) > len(report.lacking)
    optional = f"; {', '.join(f'{part}*' for part in report.optional)} may be missing" if spared else ""
    names = {"-": "taken off", "+": "put before"}
    prefix = f"; {report.prefix[1:]!r} is {names[report.prefix[0]]} names" if report.prefix else ""
    say(f"{found.path} into {model}: {report}{optional}{prefix}")
    return report


def shapes_of(model: str) -> "dict[str, torch.Size]":
    """Names and shapes of a model's tensors: one that is known by name, another file's, or those of a .json.

    Raises:
        WeightsError: no such model or file.
    """
    import torch

    from sign_dist.transfer.weights_file import read_weights

    path = Path(model)
    if path.suffix == ".json" and path.is_file():
        try:
            tree: dict[str, list[int]] = json.loads(path.read_text(encoding="utf-8"))
            return {str(name): torch.Size(shape) for name, shape in tree.items()}
        except (ValueError, TypeError, AttributeError) as error:
            raise WeightsError(f'{model!r} must map names to shapes, such as {{"head.weight": [2, 3]}} ({error})') from None
    if path.is_file():
        return {name: tensor.shape for name, tensor in read_weights(path).tensors.items()}
    builders = _models()
    if model not in builders:
        hint = did_you_mean(model, builders)
        raise WeightsError(f"no model and no file {model!r}: models are {', '.join(builders)};{hint}".rstrip(";"))
    with torch.device("meta"):
        return {name: tensor.shape for name, tensor in builders[model]().state_dict().items()}


def _models() -> dict[str, Callable[[], Any]]:
    """Models that published weights exist for, by name: `i3d_400` is the one with 400 classes."""
    from functools import partial

    from sign_dist.models import temporal_i3d
    from sign_dist.models.i3d import InceptionI3d
    from sign_dist.models.mae import MaskedAutoencoder
    from sign_dist.models.signhiera import PRESETS, SignHiera

    return {
        **{f"signhiera_{name}": partial(SignHiera, shape) for name, shape in PRESETS.items()},
        **{
            f"signhiera_mae_{name}": partial(MaskedAutoencoder, shape) for name, shape in PRESETS.items() if name.startswith("base")
        },
        **{f"i3d_{classes}": partial(InceptionI3d, classes) for classes in (100, 300, 400, 1000, 2000)},
        **{f"temporal_{n}": partial(temporal_i3d.TemporalI3d, 1232, shape=s) for n, s in temporal_i3d.PRESETS.items()},
    }


def _grouped(rows: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Neighbours with one outcome whose names begin alike, as one row, where there are more than a few."""
    found: list[tuple[str, ...]] = []
    for (kind, start), group in itertools.groupby(rows, key=lambda row: (row[0], row[1].partition(".")[0])):
        alike = list(group)
        if len(alike) <= MAX_ALIKE:
            found += alike
            continue
        counts = [sum(row[column] != NONE for row in alike) for column in (2, 3)]
        found.append((kind, f"{start}.*", *(f"{count} tensors" if count else NONE for count in counts)))
    return found


def _method(word: str) -> "Method | None":
    from sign_dist.transfer.kernels import Method

    if word and word not in get_args(Method):
        raise WeightsError(f"--adapt {word!r} is not allowed: {', '.join(get_args(Method))}")
    return cast("Method", word) if word else None


def _facts(*facts: tuple[str, str]) -> None:
    """Lines of names and values on stdout; what has no value is left out."""
    for what, value in facts:
        if value:
            typer.echo(f"{what:<16} {value}")


def _rows(title: str, header: tuple[str, ...], rows: list[tuple[str, ...]], every: bool) -> None:
    """A table, cut where it is long and not all was asked for."""
    shown = rows if every else rows[:MAX_ROWS]
    if shown:
        _table(title, header, shown)
    if len(shown) < len(rows):
        say(f"{len(rows) - len(shown)} rows more: --all shows them")


def _table(title: str, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Drawn for a person; where stdout is piped on, one line a row, never broken."""
    if sys.stdout.isatty():
        table(title, header, rows)
        return
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        typer.echo("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def _shape(shape: "torch.Size | None") -> str:
    return NONE if shape is None else "x".join(map(str, shape)) or "scalar"


def _dtype(tensor: "torch.Tensor") -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _compared(digest: str, published: str) -> str:
    if not published:
        return ""
    return " (the published one)" if digest == published else f" (NOT the published one, {published})"
