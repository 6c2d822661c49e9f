"""Where a Run comes from: a job file with `run()`, a run.json or YAML, and `key=value` overrides."""

import importlib.util
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import pydantic
import yaml

from sign_dist.config.base import Settings, settings_error
from sign_dist.config.run import Run
from sign_dist.errors import SettingsError, SignDistError, did_you_mean

S = TypeVar("S", bound=Settings)


def load_run(source: str | Path, overrides: list[str] | None = None) -> Run:
    """The Run that a `.py` job, `.json` or `.yaml` file describes, with overrides such as `train.epochs=3`.

    Raises:
        SettingsError: no such file, no `run()` in it, or settings that do not hold.
    """
    path = Path(source)
    if not path.is_file():
        near = did_you_mean(path.name, [p.name for p in path.parent.glob("*") if p.suffix in (".py", ".json", ".yaml")])
        raise SettingsError(f"no job file {str(path)!r}: give a .py, .json or .yaml file, such as jobs/islr.py;{near}".rstrip(";"))
    match path.suffix:
        case ".py":
            run = call(path, "run")
        case ".json" | ".yaml" | ".yml":
            run = Run.from_tree(_read_tree(path))
        case other:
            raise SettingsError(f"{str(path)!r} ends in {other!r}: a job is a .py, .json or .yaml file")
    if not isinstance(run, Run):
        raise SettingsError(f"run() in {str(path)!r} must return a Run, got {type(run).__name__}")
    return apply(run, overrides or [])


def apply(settings: S, overrides: list[str]) -> S:
    """`settings` with `key=value` words set."""
    return settings.with_values(dict(map(parse_override, overrides))) if overrides else settings


def parse_override(word: str) -> tuple[str, Any]:
    """`"train.optim.lr=3e-4"` -> `("train.optim.lr", 0.0003)`; what is no JSON value stays a string.

    Raises:
        SettingsError: no `=` in the word.
    """
    name, sign, text = word.partition("=")
    if not sign or not name.strip():
        raise SettingsError(f"{word!r} is not a setting: write name=value, such as train.epochs=20")
    try:
        return name.strip(), json.loads(text)
    except (ValueError, RecursionError):  # also a number with more digits than Python reads
        return name.strip(), text


def call(path: Path, function: str) -> Any:
    """The value of a no-argument function in a Python file, which need not be importable by name.

    Raises:
        SettingsError: no such file or function, or the file does not run.
    """
    return _from_file(path, function, lambda found: found())


def space_of(path: Path) -> Any:
    """What `space` in a file of tune_spaces/ means: what `space()` answers, or `space(trial)` itself, to be asked for each trial.

    Raises:
        SettingsError: no such file or function, or the file does not run.
    """
    return _from_file(path, "space", lambda found: found if inspect.signature(found).parameters else found())


def _from_file(path: Path, function: str, use: Callable[[Any], Any]) -> Any:
    if not path.is_file():
        raise SettingsError(f"no file {str(path)!r}: give a Python file with a function {function}()")
    spec = importlib.util.spec_from_file_location(f"sign_dist_file_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise SettingsError(f"{str(path)!r} cannot be read as Python: name it with .py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        if callable(getattr(module, function, None)):
            return use(getattr(module, function))
    except SignDistError:
        raise
    except pydantic.ValidationError as error:
        raise SettingsError(f"{str(path)!r}: {settings_error(error)}") from None
    except (Exception, SystemExit) as error:
        reason = " ".join(str(error).split())[:300]
        raise SettingsError(f"{str(path)!r} does not run: {type(error).__name__}: {reason}") from error
    raise SettingsError(f"{str(path)!r} has no function {function}()")


def _read_tree(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        tree: Any = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise SettingsError(f"{str(path)!r} cannot be parsed: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise SettingsError(f"{str(path)!r} must hold one mapping of settings, got {type(tree).__name__}")
    return cast("dict[str, Any]", tree)
