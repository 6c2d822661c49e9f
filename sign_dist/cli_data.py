"""`sign-dist data`: look at a prepared dataset."""

from pathlib import Path
from typing import Annotated

import typer

from sign_dist.console import bar, say
from sign_dist.data.layout import DatasetDir

app = typer.Typer(help="Look at a prepared dataset.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Look at a prepared dataset."""


@app.command()
def report(
    dataset: Annotated[Path, typer.Argument(help="A prepared dataset directory.")],
    out: Annotated[Path | None, typer.Option(help="Folder to write to; default: the dataset itself.")] = None,
    store: Annotated[str, typer.Option(help="The shared store, if features were extracted into one.")] = "",
    pictures: Annotated[int, typer.Option(min=0, max=500, help="Clips in the contact sheet.")] = 60,
    files: Annotated[int, typer.Option(min=0, help="Files into whose headers to look, for sizes, rates and codecs.")] = 400,
) -> None:
    """Write one HTML page about a dataset, and report.json with the same facts."""
    from sign_dist.inference.data_report import write_data_report

    with bar("look at the dataset") as tick:
        written = write_data_report(DatasetDir(dataset), out, shared=store, num_pictures=pictures, num_files=files, progress=tick)
    for sentence in written.warnings:
        say(f"note: {sentence}")
    say(f"report: {written.page}")


@app.command()
def tokenizer(
    datasets: Annotated[list[Path], typer.Argument(help="Prepared dataset directories, whose training sentences are read.")],
    out: Annotated[Path, typer.Option(help="Folder to write, for model.tokenizer.")],
    size: Annotated[int, typer.Option(min=259, help="Tokens at most; 259 are special ones and bytes.")] = 512,
) -> None:
    """Learn a tokenizer from sentences: words and parts of words for a translator that starts afresh."""
    from sign_dist.data.manifest import read_manifest
    from sign_dist.models.learned_tokens import learn_tokens

    sentences = [sample.translation for root in datasets for sample in read_manifest(DatasetDir(root), "train")]
    num_tokens = learn_tokens(sentences, out, size)
    say(f"{num_tokens} tokens of {sum(map(bool, sentences))} sentences: {out}")


@app.command()
def embeddings(
    dataset: Annotated[Path, typer.Argument(help="A prepared dataset directory.")],
    encoder: Annotated[
        str, typer.Option(help="SONAR's text encoder: a folder in transformers' form, or a name in the hub's cache.")
    ],
    out: Annotated[Path, typer.Option(help="File to write, .parquet, for model.target_embeddings.")],
    language: Annotated[str, typer.Option(help="The language of the sentences, as the tokenizer calls it.")] = "eng_Latn",
    tokenizer: Annotated[str, typer.Option(help="Folder or name of its tokenizer; default: the encoder's.")] = "",
) -> None:
    """Embed the training sentences, for SONAR's sign encoder to learn from."""
    from sign_dist.data.manifest import read_manifest
    from sign_dist.models.sonar.text_encoder import TextEncoder
    from sign_dist.tasks.embeddings import write_embeddings

    samples = [sample for sample in read_manifest(DatasetDir(dataset), "train") if sample.translation.strip()]
    found = TextEncoder.read(encoder, language, tokenizer).embed([sample.translation for sample in samples])
    write_embeddings(out, {sample.id: vector for sample, vector in zip(samples, found, strict=True)})
    say(f"{len(samples)} embeddings of {found.shape[1]} numbers: {out}")
