"""The verbs: read words, load settings, call one function each. Heavy libraries are imported by the verb that needs them."""

import contextlib
import functools
import json
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import TypeAdapter

from sign_dist import __version__, cli_compare, cli_data, cli_recipe, cli_score, cli_store, cli_tune, cli_weights
from sign_dist.config.data import Features, Glosses, Sampling, SplitSettings, features_named
from sign_dist.config.source import apply, load_run, parse_override
from sign_dist.console import bar, epoch_line, say, table, wait_for_interrupt
from sign_dist.errors import SettingsError, SignDistError

app = typer.Typer(
    name="sign-dist",
    help="From a folder of sign-language videos to a tuned, served model, on a laptop or a cluster.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(cli_data.app, name="data")
app.add_typer(cli_store.app, name="store")
app.add_typer(cli_weights.app, name="weights")
for verb in (cli_tune.tune, cli_tune.study, cli_tune.confirm, cli_tune.promote):
    app.command()(verb)
app.command()(cli_score.score)
app.command()(cli_compare.compare)
app.command()(cli_recipe.recipe)

Address = Annotated[str, typer.Option(help="Where Ray is: 'local' starts one here, 'auto' joins the running one, or host:port.")]
Values = Annotated[list[str] | None, typer.Argument(help="Settings to change, such as train.epochs=20", metavar="[NAME=VALUE]...")]
Out = Annotated[Path | None, typer.Option(help="Directory to write.")]


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False) -> None:
    if version:
        typer.echo(f"sign-dist {__version__}")
        raise typer.Exit


@app.command()
def synth(
    out: Annotated[Path, typer.Argument(help="Folder to write the corpus to.")],
    signs: Annotated[int, typer.Option(min=2)] = 12,
    signers: Annotated[int, typer.Option(min=3)] = 8,
    clips: Annotated[int, typer.Option(min=1, help="Clips per signer and sign.")] = 2,
    seed: int = 0,
    corrupt: Annotated[int, typer.Option(min=0, help="Files to damage on purpose.")] = 0,
    like: Annotated[str, typer.Option(help="Shape: table, wlasl, phoenix2014, phoenix2014T or how2sign.")] = "table",
    sentences: Annotated[int, typer.Option(min=0, help="Sentences; 0: isolated signs, or 40 where the shape needs some.")] = 0,
    domain: Annotated[str, typer.Option(help="What sentences are about: daily or lesson.")] = "daily",
    split_by: Annotated[str, typer.Option(help="Sentences are split by signer or by sentence.")] = "signer",
    agreement: Annotated[bool, typer.Option("--agreement", help="Verbs of giving are made towards their recipient.")] = False,
    size: Annotated[int, typer.Option(help="Sides of the pictures of sentences, px; Phoenix has its own.")] = 128,
    fps: Annotated[int, typer.Option(help="Frames per second of sentences; Phoenix has its own.")] = 20,
    landmarks: Annotated[bool, typer.Option("--landmarks", help="Landmark tracks of sentences instead of videos.")] = False,
    first_sign: Annotated[int, typer.Option(min=0, help="Signs of the lexicon to pass over: others make another language.")] = 0,
) -> None:
    """Write a corpus of a synthetic signing world, as a user would deliver one."""
    from sign_dist.synthetic.like import Order, write_order

    with bar("draw clips") as tick:
        order = Order(
            signs=signs, signers=signers, clips=clips, seed=seed, corrupt=corrupt, like=like, sentences=sentences, domain=domain,
            split_by=split_by, agreement=agreement, size_px=size, fps=fps, landmarks=landmarks, first_sign=first_sign,
        )  # fmt: skip
        say(write_order(out, order, progress=tick))


@app.command()
def download(
    links: Annotated[
        Path, typer.Argument(metavar="LIST", help="Links: one a line, a table with a url column, or WLASL or MS-ASL json.")
    ],
    out: Annotated[Path, typer.Argument(help="Folder to fetch the files into.")],
    parallel: Annotated[int, typer.Option(min=1, max=256, help="Files at once.")] = 16,
    per_host: Annotated[int, typer.Option(min=1, max=64, help="Files at once from one host.")] = 4,
    tries: Annotated[int, typer.Option(min=1, max=50, help="Attempts at a file that bring nothing new.")] = 5,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds without a byte before an attempt ends.")] = 30.0,
    max_gb: Annotated[float, typer.Option(min=0.001, help="Largest file to fetch.")] = 8.0,
    verify: Annotated[bool, typer.Option("--verify", help="Compute the sha256 of files that are there, too.")] = False,
) -> None:
    """Fetch the videos of a corpus; the same command goes on where it stopped."""
    from sign_dist.data.download import download as run_download
    from sign_dist.data.fetch import Manners

    manners = Manners(parallel, per_host, tries, timeout, max_bytes=int(max_gb * 1e9))
    with bar("download") as tick:
        done = run_download(links, out, manners=manners, verify=verify, progress=tick)
    got = f"{done.num_fetched} fetched ({done.received_bytes / 1e6:.1f} MB), {done.num_there_before} there before"
    say(f"{out}: {done.num_links} links, {got}")
    if done.failed:
        reasons = ", ".join(f"{count} {reason}" for reason, count in done.failed.items())
        say(f"clips without a file: {reasons} (see {done.failed_file})")


@app.command()
def prepare(
    reader: Annotated[str, typer.Argument(help="folder, table, synthetic, or a corpus such as wlasl100 (see docs/data.md)")],
    raw: Annotated[Path, typer.Argument(help="The corpus as delivered.")],
    dataset: Annotated[Path, typer.Argument(help="Dataset directory to write.")],
    values: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME=VALUE]...", help="split.*, glosses.* and sampling.* settings")
    ] = None,
    address: Address = "local",
) -> None:
    """Check every video of a corpus, divide it and write manifests."""
    from sign_dist.data.prepare import prepare as run_prepare
    from sign_dist.data.prepare import sampling_of
    from sign_dist.on_ray.clips import check_all
    from sign_dist.on_ray.cluster import connected

    split, sampling, glosses = _sections(values, sampling_of(reader))
    with connected(address), bar("check clips") as tick:
        done = run_prepare(
            reader,
            raw,
            dataset,
            split=split,
            sampling=sampling,
            glosses=glosses,
            check_all=lambda samples, folder, how: check_all(samples, folder, how, progress=tick),
        )
    counts = ", ".join(f"{name} {count}" for name, count in done.counts.items())
    say(f"{dataset}: {counts}; {done.num_glosses} glosses; split {done.policy}")
    if done.rejected:
        reasons = ", ".join(f"{count} {reason}" for reason, count in done.rejected.items())
        say(f"not used: {reasons} (see {done.dataset.rejected_file})")
    for warning in done.warnings:
        say(f"warning: {warning}")


@app.command()
def leaks(
    dataset: Annotated[Path, typer.Argument(help="A prepared dataset directory.")],
    fail: Annotated[bool, typer.Option("--fail", help="End with exit code 1 if something stands in two splits.")] = False,
    address: Address = "local",
) -> None:
    """Find what stands in two splits: bytes, looks, recordings, signers; writes leaks.json into the dataset."""
    from sign_dist.data.layout import DatasetDir
    from sign_dist.data.leaks import find_leaks
    from sign_dist.on_ray.clips import sign_all
    from sign_dist.on_ray.cluster import connected

    DatasetDir(dataset).facts()
    with connected(address), bar("look at clips") as tick:
        report = find_leaks(DatasetDir(dataset), sign_all=functools.partial(sign_all, progress=tick))
    rows = [(leak.kind, ", ".join(leak.splits), leak.name, str(len(leak.clips)), leak.summary()) for leak in report.across]
    if rows:
        table("leaks", ("kind", "splits", "what", "clips", "evidence"), rows)
    copies = f"; {len(report.within)} groups of copies within one split" if report.within else ""
    say(f"{dataset}: {len(rows)} leaks across splits in {report.num_clips} clips{copies}; see {dataset / 'leaks.json'}")
    if report.not_compared:
        say(f"{len(report.not_compared)} clips could not be compared by look; leaks.json says why")
    if fail and rows:
        raise typer.Exit(1)


@app.command()
def extract(
    dataset: Annotated[Path, typer.Argument(help="A prepared dataset directory.")],
    values: Annotated[list[str] | None, typer.Argument(metavar="[NAME=VALUE]...", help="e.g. sampling.fps=15")] = None,
    features: Annotated[str, typer.Option(help="landmarks, signhiera or frames")] = "landmarks",
    retry_errors: Annotated[bool, typer.Option(help="Try clips again that failed before.")] = False,
    privacy: Annotated[str, typer.Option(help="none, blur (hide faces) or keypoints (landmarks only); holds from now on")] = "none",
    store: Annotated[str, typer.Option(help="Folder or s3://bucket/path that datasets share; default: inside the dataset.")] = "",
    address: Address = "local",
) -> None:
    """Compute the features of every clip that has none yet."""
    from sign_dist.data.layout import DatasetDir
    from sign_dist.data.privacy import settle
    from sign_dist.on_ray.cluster import connected
    from sign_dist.on_ray.extraction import extract as run_extract
    from sign_dist.on_ray.extraction import find_todo

    settings = _features(features, values)
    DatasetDir(dataset).facts()
    settings = settle(DatasetDir(dataset), settings, privacy)
    todo = find_todo(DatasetDir(dataset), settings, retry_errors=retry_errors, shared=store)
    if todo.most_bytes:
        say(f"frame cache: at most {todo.most_bytes / 2**30:.2f} GiB for {todo.num_pending} clips; {_room(todo.store.uri)}")
    # A finished store needs no Ray, whose start takes longer than looking.
    with connected(address) if todo.blocks else contextlib.nullcontext(), bar("extract") as tick:
        done = run_extract(DatasetDir(dataset), settings, progress=tick, retry_errors=retry_errors, shared=store)
    say(f"{done.where}: {done.clips} clips, {done.done_before} of them done before")
    if done.failed:
        say("without features: " + ", ".join(f"{count} {code}" for code, count in done.failed.items()))


@app.command()
def train(
    job: Annotated[str, typer.Argument(help="A job (.py), or a run.json or .yaml.")],
    values: Values = None,
    out: Out = None,
    strategy: Annotated[str, typer.Option(help="How to train from pretrained weights; docs/train.md has the five.")] = "",
    address: Address = "local",
) -> None:
    """Train a job into a run directory, or go on with it."""
    from sign_dist.config.strategies import check_strategy, strategy_words
    from sign_dist.on_ray.cluster import connected
    from sign_dist.on_ray.training import train as run_train
    from sign_dist.training.record import trained_share

    run = load_run(job, [*strategy_words(strategy, values or []), *(values or [])])
    check_strategy(strategy, run)
    root = out or Path("runs") / cli_tune.stem_of(job)
    with connected(address):
        metrics = run_train(
            run, root, on_taken=lambda taken: say(str(taken)), on_epoch=lambda line: say(epoch_line(line, run.train.epochs))
        )
    say(
        f"{root}: "
        + " ".join(f"{n} {v:.4g}" for n, v in metrics.items() if n.startswith("val/"))
        + f"; curves in {root / 'curves.png'}"
    )
    if told := trained_share(root):
        say(told)


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    split: Annotated[str, typer.Argument(help="train, val or test")] = "test",
    address: Address = "local",
) -> None:
    """Score a run on a split and write the report."""
    from sign_dist.inference.report import summary
    from sign_dist.on_ray.cluster import connected
    from sign_dist.on_ray.evaluation import evaluate_run

    with connected(address):
        page, report = evaluate_run(run, split)
    say(summary(report))
    say(f"report: {page}")


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    out: Out = None,
    merged: Annotated[bool, typer.Option("--merged", help="Of a model with adapters: the whole model, adapters added.")] = False,
) -> None:
    """Write the bundle that serving reads."""
    from sign_dist.inference.bundle import export as run_export
    from sign_dist.training.run_dir import RunDir

    bundle = run_export(RunDir(run), out, merged=merged)
    say(f"bundle: {bundle.root}")


@app.command()
def predict(
    bundle: Annotated[Path, typer.Argument(help="A bundle folder.")],
    videos: Annotated[list[Path], typer.Argument(help="Video files.")],
    k: Annotated[int, typer.Option("--top", "-k", min=1, max=100, help="Answers to give at most.")] = 5,
    base: Annotated[str, typer.Option(help="Folder of the model below a bundle's adapters, if not where it was.")] = "",
) -> None:
    """Print one JSON line per video: the sign, the glosses or the sentence, or why there is none."""
    from sign_dist.errors import VideoError
    from sign_dist.inference.answers import answer_json
    from sign_dist.inference.predictor import Predictor

    predictor = Predictor.load(bundle, base=base)
    failed = 0
    for video in videos:
        line: dict[str, Any] = {"video": str(video), "model": predictor.model_id}
        try:
            line |= answer_json(predictor.task, predictor(video, k), k, digits=6)
        except VideoError as error:
            failed += 1
            line |= {"error": {"code": error.code, "detail": str(error)}}
        typer.echo(json.dumps(line, ensure_ascii=False))
    if failed:
        raise typer.Exit(1)


@app.command()
def serve(
    bundle: Annotated[Path, typer.Argument(help="A bundle folder.")],
    values: Values = None,
    host: str = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    address: Address = "local",
) -> None:
    """Serve a bundle over HTTP until interrupted, or a folder of bundles that are adapters over one model."""
    from sign_dist.inference.bundle import Bundle
    from sign_dist.on_ray import adapters, serving
    from sign_dist.on_ray.cluster import connected

    given = {"bundle": str(bundle)} | dict(map(parse_override, values or []))
    several = not (bundle / "bundle.json").exists() and any(bundle.glob("*/bundle.json"))
    if several:
        args = adapters.AdapterArgs.from_tree(given)
        adapters.sets_of(args)
    else:
        Bundle(bundle).facts()
        args = serving.ServeArgs.from_tree(given)
    serving.refuse_taken_port(host, port)
    with connected(address):
        app = adapters.application(args) if isinstance(args, adapters.AdapterArgs) else None
        url = serving.start(args, host=host, port=port, app=app)
        say(f"serving {bundle} at {url} (page {url}, API {url}docs); end with Ctrl-C")
        wait_for_interrupt()
        serving.stop()


@app.command()
def quickstart(
    videos: Annotated[
        Path | None, typer.Option(help="Your own folder (one folder per sign) or table, instead of the synthetic world.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where everything is written.")] = Path("runs/quickstart"),
    features: Annotated[
        str, typer.Option(help="landmarks, signhiera or frames; empty: frames for the synthetic world, landmarks for yours")
    ] = "",
    seeds: Annotated[int, typer.Option(min=0, max=20, help="Trainings to average over; 0: one, or three for your own videos.")] = 0,
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the server running.")] = False,
    address: Address = "local",
) -> None:
    """The whole way once: corpus, features, training, a small search, report, server, one answer over HTTP."""
    from sign_dist.quickstart import quickstart as run_quickstart

    run_quickstart(videos=videos, out=out, features=features, seeds=seeds, port=port, keep=keep, address=address)


@app.command()
def doctor() -> None:
    """Say what is wrong with this machine, and the remedy."""
    from sign_dist.doctor import examine

    findings = examine()
    for finding in findings:
        say(str(finding))
    if any(finding.bad for finding in findings):
        raise typer.Exit(1)


def _room(where: str) -> str:
    """What a disk has free, in words; nothing is known of a bucket."""
    if "://" in where:
        return "how much room there is, the address does not say"
    return f"{shutil.disk_usage(where).free / 2**30:.1f} GiB are free there"


def _features(kind: str, values: list[str] | None) -> Features:
    settings = apply(features_named(kind), values or [])
    return TypeAdapter(Features).validate_python(settings)


def _sections(values: list[str] | None, sampling: Sampling) -> tuple[SplitSettings, Sampling, Glosses]:
    """`split.by=signer sampling.fps=15 glosses.min_clips=5` -> the settings of `prepare`."""
    split, glosses = SplitSettings(), Glosses()
    for word in values or []:
        section, dot, name = word.partition(".")
        match section if dot else "":
            case "split":
                split = apply(split, [name])
            case "sampling":
                sampling = apply(sampling, [name])
            case "glosses":
                glosses = apply(glosses, [name])
            case _:
                raise SettingsError(f"no setting {word.partition('=')[0]!r} here: prepare takes split.*, glosses.* and sampling.*")
    return split, sampling, glosses


def main() -> None:
    """Entry point: errors a user can mend are one line and exit code 1; wrong usage is 2; a traceback is a bug of ours."""
    try:
        app()
    except SignDistError as error:
        print(f"sign-dist: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except (KeyboardInterrupt, SystemExit) as ended:
        # Typer turns Ctrl-C into an exit of its own, with this code.
        if isinstance(ended, SystemExit) and ended.code != 130:
            raise
        print("sign-dist: interrupted; the same command goes on where it stopped", file=sys.stderr)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
