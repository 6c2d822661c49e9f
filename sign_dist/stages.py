"""Work in stages, as a person follows it: a heading, the seconds, what came of it, and all of it in a table at the end."""

import contextlib
import hashlib
import time
from collections.abc import Callable, Generator
from pathlib import Path

from sign_dist.console import say, table


class Stages:
    """The stages that were gone through. `rows` are (stage, seconds, outcome)."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.rows: list[tuple[str, str, str]] = []

    @contextlib.contextmanager
    def stage(self, name: str) -> Generator[Callable[[str], None]]:
        """Times what is inside; the function it gives takes the outcome. A stage that fails leaves no row."""
        say(f"[{name}]")
        started = time.monotonic()
        outcome = ""

        def note(text: str) -> None:
            nonlocal outcome
            outcome = text

        yield note
        seconds = time.monotonic() - started
        say(f"  {outcome} ({seconds:.1f} s)")
        self.rows.append((name, f"{seconds:.1f}", outcome))

    def show(self) -> None:
        """The table, on stdout."""
        table(self.title, ("stage", "seconds", "outcome"), self.rows)


def state_of(path: Path) -> str:
    """Sixteen hex digits that change when a file below a folder does: of sizes and times, not contents."""
    files = sorted(p for p in path.rglob("*") if p.is_file())
    lines = [f"{p.relative_to(path)} {p.stat().st_size} {p.stat().st_mtime_ns}" for p in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
