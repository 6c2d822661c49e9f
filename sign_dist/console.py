"""What people see while long work goes on: bars, lines and tables; plain lines where there is no terminal."""

import signal
import sys
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column, Table

# Progress goes to stderr: what a command answers with can be piped on.
screen = Console(stderr=True, highlight=False)
PLAIN_EVERY_S = 5.0


class Tick(Protocol):
    """Called with (done, total)."""

    def __call__(self, done: int, total: int, /) -> None: ...


@contextmanager
def bar(title: str) -> Generator[Tick]:
    """A progress bar; where stderr is no terminal, a line now and then."""
    if not screen.is_terminal:
        yield _Plain(title)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen, transient=True) as progress:
        task = progress.add_task(title, total=None)

        def tick(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        yield tick


class _Plain:
    def __init__(self, title: str) -> None:
        self._title, self._next = title, time.monotonic() + PLAIN_EVERY_S

    def __call__(self, done: int, total: int) -> None:
        if time.monotonic() >= self._next or done == total:
            self._next = time.monotonic() + PLAIN_EVERY_S
            say(f"{self._title} {done}/{total}")


def say(text: str) -> None:
    """One line on stderr, uncoloured by what is in it."""
    screen.print(text, markup=False, soft_wrap=True)


def epoch_line(metrics: Mapping[str, Any], epochs: int) -> str:
    """One epoch in one line."""
    scores = " ".join(f"{name.removeprefix('val/')} {value:.3f}" for name, value in metrics.items() if name.startswith("val/"))
    learned = f"loss {metrics['train/loss']:.3f}  " if "train/loss" in metrics else ""
    took = f"  {metrics['seconds']:.1f} s" if "seconds" in metrics else ""
    return f"epoch {float(metrics['epoch']):.4g}/{epochs}  {learned}val: {scores}{took}"


def wait_for_interrupt() -> None:
    """Sleep until Ctrl-C or SIGTERM."""
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    while not ended.wait(0.5):
        pass


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout. Where a column is too narrow, words are broken, and nothing is left out."""
    drawn = Table(*(Column(name, overflow="fold") for name in header), title=title, title_justify="left")
    for row in rows:
        drawn.add_row(*row)
    Console(file=sys.stdout, highlight=False).print(drawn)
