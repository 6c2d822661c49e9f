"""Go through the stages of a recipe, each of them only if what it depends on has changed since it was done.

    DIR/recipe.json          every stage that was done: what it depended on, what it wrote, how long it took
    DIR/STAGE-1a2b3c4d/      what a stage wrote; the digits stand for all that it depends on
    DIR/STAGE                leads to the one that belongs to the recipe as it is now

Settings that change lead to other folders, so nothing is overwritten, and who changes them back finds the work done. A stage
that was interrupted is called again with the folder it had, where its own way of going on takes over.
"""

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from sign_dist.config.recipe import SIGN, Recipe, Stage, references
from sign_dist.data.layout import write_json
from sign_dist.errors import RunError

FORMAT = 1
"""Of recipe.json and of what stages are judged by; raised when a stage would do something else for the same settings."""


@dataclasses.dataclass(frozen=True)
class Done:
    """What a stage left behind."""

    output: str
    """A path or an address: what a reference to the stage stands for."""
    digest: str
    """Changes when what later stages read of it does."""
    outcome: str
    """For people."""
    proof: tuple[str, ...] = ()
    """Files without which the stage counts as not done."""
    facts: dict[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    """More that later stages read."""


class Acts(Protocol):
    """What stages do."""

    def inputs(self, stage: Stage, recipe: Recipe) -> dict[str, str]:
        """Digests, by what they are of, of all that the stage depends on beside earlier stages: settings, files, versions."""
        ...

    def act(self, stage: Stage, out: Path, done: Mapping[str, Done]) -> Done:
        """Do the stage, or go on with it, in a folder of its own; `done` are the stages before it."""
        ...


Following = Callable[[str], AbstractContextManager[Callable[[str], None]]]
"""A stage's name -> what surrounds it and takes its outcome; `Stages.stage`, for one."""


class Record:
    """recipe.json."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._stages: dict[str, dict[str, Any]] = {}
        if file.exists():
            try:
                tree = json.loads(file.read_text(encoding="utf-8"))
                self._stages = dict(tree["stages"]) if tree["format"] == FORMAT else {}
            except (ValueError, KeyError, TypeError) as error:
                raise RunError(
                    f"{str(file)!r} is damaged ({error}): remove it; stages whose work is there are quickly done"
                ) from None

    def done(self, folder: str) -> Done | None:
        """The stage that was done in a folder; None if it was not, or if what it wrote is gone."""
        entry = self._stages.get(folder)
        if entry is None:
            return None
        done = Done(entry["output"], entry["digest"], entry["outcome"], tuple(entry["proof"]), entry["facts"])
        return done if all(Path(path).exists() for path in done.proof) else None

    def changed(self, name: str, inputs: Mapping[str, str]) -> list[str]:
        """What a stage depends on that is not as it was when it was last done; nothing if it never was."""
        before = [entry["inputs"] for entry in self._stages.values() if entry["stage"] == name]
        return [label for label, digest in inputs.items() if before[-1].get(label) != digest] if before else []

    def add(self, folder: str, name: str, done: Done, inputs: Mapping[str, str], seconds: float) -> None:
        """Written as a whole: who is interrupted finds the stages before it."""
        self._stages.pop(folder, None)  # the newest stand last
        entry = {"stage": name, "inputs": dict(inputs), "seconds": round(seconds, 1), **dataclasses.asdict(done)}
        self._stages[folder] = entry | {"proof": list(done.proof)}
        write_json(self.file, {"format": FORMAT, "stages": self._stages})


def follow(recipe: Recipe, root: Path, acts: Acts, *, stage: Following, tell: Callable[[str], None]) -> dict[str, Done]:
    """Go through a recipe's stages; answers what each of them left.

    Raises:
        SignDistError: of the stage that could not be done; the same call goes on with it.
    """
    root = root.absolute()
    record = Record(root / "recipe.json")
    done: dict[str, Done] = {}
    for name, settings in recipe.stages.items():
        with stage(name) as note:
            inputs = acts.inputs(settings, recipe) | dict(_of_references(settings, done))
            folder = f"{name}-{_digest({'kind': settings.kind, 'format': FORMAT, 'inputs': inputs})[:8]}"
            before = record.done(folder)
            if before is None:
                if changed := record.changed(name, inputs):
                    tell(f"  again, for what has changed: {', '.join(changed)}")
                started = time.monotonic()
                now = acts.act(settings, root / folder, done)
                record.add(folder, name, now, inputs, time.monotonic() - started)
            else:
                now = before
            done[name] = now
            _lead(root / name, folder)
            note(now.outcome if before is None else f"{now.outcome} (done before)")
    return done


def digest_of(value: Any) -> str:
    """Twelve hex digits of anything that JSON can hold."""
    return _digest(value)[:12]


def _of_references(settings: Stage, done: Mapping[str, Done]) -> Iterator[tuple[str, str]]:
    for _, text in references(settings):
        yield text, done[text.removeprefix(SIGN)].digest


def _lead(link: Path, folder: str) -> None:
    """Let `link` lead to the folder, if the stage wrote one."""
    if not (link.parent / folder).is_dir() or (link.exists() and not link.is_symlink()):
        return
    fresh = link.with_name(f".{link.name}.new")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(folder, target_is_directory=True)
    fresh.replace(link)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
