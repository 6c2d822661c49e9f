"""`sign-dist weights`: which pretrained weights there are, fetch them, look into them, convert them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sign_dist.console import say, table
from sign_dist.errors import WeightsError, did_you_mean

if TYPE_CHECKING:
    import torch

app = typer.Typer(help="Pretrained weights: list, fetch, inspect, convert.", no_args_is_help=True)

File = Annotated[Path, typer.Argument(help="A weights file: .safetensors, .pt, .pth, whatever torch wrote.")]
Container = Annotated[str, typer.Option(help="Where in the file the tensors stand, such as model; default: found.")]

MAX_ROWS = 40
MIB = 1 << 20


@app.command("list")
def list_() -> None:
    """Published checkpoints that the models here can start from."""
    from sign_dist.transfer.catalogue import CATALOGUE

    rows = [(e.name, e.what, e.licence or "not known", "fetch" if e.url else "browser") for e in CATALOGUE.values()]
    table("published weights", ("name", "what", "licence", "how"), rows)


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
    got = fetch_weights(entry, out or weights_dir(), accept_licence=accept_licence)
    how = f"{got.received_bytes / MIB:.1f} MiB received" if got.received_bytes else "there before"
    checked = "the published sha256" if entry.sha256 else "no sha256 is published"
    say(f"{got.path}: {got.size_bytes} bytes, {how}; sha256 {got.sha256} ({checked}); licence {entry.licence or 'not known'}")


@app.command()
def inspect(
    file: File,
    model: Annotated[str, typer.Option(help="Compare with a model: its name, another weights file, or a .json of shapes.")] = "",
    container: Container = "",
    every: Annotated[bool, typer.Option("--all", help="Every row of the tables.")] = False,
) -> None:
    """Say what a weights file holds, and what of it a model would take."""
    from sign_dist.transfer.architecture import guess
    from sign_dist.transfer.catalogue import recognised
    from sign_dist.transfer.convert import colour_order
    from sign_dist.transfer.load import fit_to
    from sign_dist.transfer.weights_file import file_digest, read_weights

    found = read_weights(file, container=container)
    entry = recognised(file.name)
    dtypes = sorted({str(t.dtype).removeprefix("torch.") for t in found.tensors.values()})
    facts = [
        ("kind", found.kind),
        ("container", found.container or "none"),
        ("beside it", ", ".join(found.beside) or "nothing"),
        ("tensors", f"{len(found.tensors)}, of them {len(found.aliases)} shared"),
        ("parameters", f"{found.num_parameters:,}"),
        ("types", ", ".join(dtypes)),
        ("looks like", guess(found.tensors) or "nothing that is known here"),
        ("name is that of", entry.name if entry else "no published file"),
        ("colour order", colour_order(found) or "not known"),
        ("licence", found.metadata.get("licence", "") or (entry.licence if entry else "") or "not known"),
        ("source", found.metadata.get("source", "") or "not written in it"),
        ("bytes", f"{file.stat().st_size:,}"),
        ("sha256", file_digest(file)),
    ]
    for what, value in facts:
        typer.echo(f"{what:<16} {value}")
    keys = [(name, _shape(tensor.shape), str(tensor.dtype).removeprefix("torch.")) for name, tensor in found.tensors.items()]
    _rows("tensors", ("name", "shape", "type"), keys, every)
    if not model:
        return
    shapes = shapes_of(model)
    ignore, rename = (entry.may_lack, entry.rename) if entry else ((), None)
    report = fit_to(shapes, found.tensors, ignore=ignore, rename=rename).report
    rows = [
        (kind, name, _shape(shapes[name]) if name in shapes else "-", _given(found.tensors, name, report.prefix))
        for kind in ("adapted", "misshaped", "missing", "skipped", "loaded")
        for name in getattr(report, kind)
    ]
    _rows(f"into {model}", ("what becomes of it", "name", "model", "file"), rows, every)
    say(f"{file} into {model}: {report}" + (f"; names: {report.prefix}" if report.prefix else ""))


@app.command()
def convert(
    file: File,
    out: Annotated[Path, typer.Argument(metavar="OUT.safetensors", help="File to write.")],
    colour: Annotated[str, typer.Option(help="rgb or bgr: what the weights expect, where it is not known.")] = "",
    to_rgb: Annotated[bool, typer.Option("--to-rgb", help="Turn the first kernel round, so that red comes first.")] = False,
    container: Container = "",
) -> None:
    """Write the tensors as safetensors, with where they come from."""
    from sign_dist.transfer.convert import convert as run_convert

    if colour not in ("", "rgb", "bgr"):
        raise WeightsError(f"--colour {colour!r} is not allowed: rgb or bgr")
    done = run_convert(file, out, colour=colour, to_rgb=to_rgb, container=container)
    said = ", ".join(f"{name} {value}" for name, value in done.metadata.items() if name not in ("format", "order", "aliases"))
    say(f"{done.path}: {done.num_tensors} tensors; {said}")


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
    """Models that published weights exist for, without weights."""
    from functools import partial

    from sign_dist.models.signhiera import PRESETS, SignHiera

    return {f"signhiera_{name}": partial(SignHiera, shape) for name, shape in PRESETS.items()}


def _rows(title: str, header: tuple[str, ...], rows: list[tuple[str, ...]], every: bool) -> None:
    """A table, cut where it is long and not all was asked for."""
    shown = rows if every else rows[:MAX_ROWS]
    if shown:
        table(title, header, shown)
    if len(shown) < len(rows):
        say(f"{len(rows) - len(shown)} rows more: --all shows them")


def _shape(shape: "torch.Size") -> str:
    return " x ".join(map(str, shape)) or "scalar"


def _given(tensors: "dict[str, torch.Tensor]", name: str, prefix: str) -> str:
    """The file's shape under a model's name."""
    names = [name, prefix[1:] + name if prefix.startswith("-") else name.removeprefix(prefix[1:])]
    return next((_shape(tensors[n].shape) for n in reversed(names) if n in tensors), "-")
