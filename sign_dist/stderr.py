"""Native libraries write notes to stderr that no option of theirs stops; this leaves them out and nothing else."""

import os
import re
from collections.abc import Generator
from contextlib import contextmanager
from tempfile import TemporaryFile


@contextmanager
def without_notes(note: re.Pattern[bytes]) -> Generator[None]:
    """Hold stderr back while inside; afterwards write every line of it that does not match `note`."""
    try:
        stderr = os.dup(2)
    except OSError:  # closed, as under some service managers
        yield
        return
    with TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            held.seek(0)
            for line in held.read().splitlines(keepends=True):
                if not note.match(line):
                    os.write(stderr, line)
            os.close(stderr)
