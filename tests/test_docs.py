"""What README and docs say, held against the code: links, setting names, tables, targets. Nothing is run here."""

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import typer
from pydantic import BaseModel

from sign_dist.cli import app
from sign_dist.config.data import Glosses, Sampling, SplitSettings
from sign_dist.config.run import Run
from sign_dist.config.search import Search
from sign_dist.config.source import load_run
from sign_dist.inference.problems import PROBLEMS
from sign_dist.inference.upload import Limits
from sign_dist.video.check import REASONS

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted(path for path in ROOT.glob("*/README.md") if path.parent.name != "docs" and not path.parent.name.startswith(".")),
]
VERBS = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


Setting = tuple[str, str, str]
"""(dotted name, default, what is allowed)."""


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def text_of(path: str | Path) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def rows_of(path: str, header: str) -> set[str]:
    """The rows of every table whose first cell in the header is `header`."""
    rows: set[str] = set()
    inside = False
    for line in text_of(path).splitlines():
        if not line.startswith("|"):
            inside = False
        elif line.startswith(f"| {header} |"):
            inside = True
        elif inside and not line.startswith("|---"):
            rows.add(line)
    assert rows, f"{path} has no table with the header {header!r}"
    return rows


def settings_of(cls: type[BaseModel], prefix: str = "", kind: str = "", given: BaseModel | None = None) -> Iterator[Setting]:
    """Every setting below a class; what only one kind of a union has carries that kind behind its name."""
    for name, field in cls.model_fields.items():
        default = getattr(given, name) if given else field.default
        sections = [
            o for o in get_args(field.annotation) or (field.annotation,) if isinstance(o, type) and issubclass(o, BaseModel)
        ]
        if len(sections) == 1:
            yield from settings_of(sections[0], f"{prefix}{name}.", kind, default if isinstance(default, BaseModel) else None)
        elif sections:
            tags = ", ".join(section.model_fields["kind"].default for section in sections)
            yield f"{prefix}{name}.kind", default.kind, tags
            for section in sections:
                yield from settings_of(section, f"{prefix}{name}.", f" ({section.model_fields['kind'].default})")
        elif name != "kind":
            yield f"{prefix}{name}{kind}", "required" if field.is_required() else _text(default), _allowed(field)


def _text(value: Any) -> str:
    """A default as one would type it."""
    if value == "":
        return "empty"
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)


def _allowed(field: Any) -> str:
    if get_origin(field.annotation) is Literal:
        return ", ".join(map(str, get_args(field.annotation)))
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<", "multiple_of": "multiple of"}
    limits = [(sign, getattr(m, name, None)) for m in field.metadata for name, sign in signs.items()]
    bounds = [f"{sign} {limit}" for sign, limit in limits if limit is not None]
    kind = {int: "integer", float: "number", str: "text", bool: "true or false"}[field.annotation]
    return f"{kind} {' and '.join(bounds)}".strip()


def cells(name: str, default: str, allowed: str) -> str:
    """The first cells of a row of a table of settings; what follows is its meaning, in words of the documentation."""
    name, _, kind = name.partition(" ")
    return f"| `{name}`{kind and ' ' + kind} | {default} | {allowed} |"


def serve_args() -> type[BaseModel]:
    from sign_dist.on_ray.serving import ServeArgs

    return ServeArgs


TABLES: dict[str, Callable[[], list[Setting]]] = {
    "docs/train.md": lambda: [*settings_of(Run)],
    "docs/tune.md": lambda: [*settings_of(Search, "search.")],
    "docs/data.md": lambda: [
        *settings_of(SplitSettings, "split."),
        *settings_of(Sampling, "sampling."),
        *settings_of(Glosses, "glosses."),
    ],
    "docs/serve.md": lambda: [*settings_of(serve_args())],
}


@pytest.mark.parametrize("path", TABLES)
def test_the_table_of_settings_is_whole(path: str) -> None:
    written = rows_of(path, "setting")
    starts = [cells(*setting) for setting in TABLES[path]()]
    missing = [start for start in starts if not any(row.startswith(start) for row in written)]
    surplus = [row for row in written if not row.startswith(tuple(starts))]
    assert not missing, f"write into {path}:\n" + "\n".join(missing)
    assert not surplus, f"no such settings any more, remove from {path}:\n" + "\n".join(surplus)
    assert all(row.split("|")[4].strip() for row in written), f"a setting in {path} has no meaning"


def test_every_reason_code_is_documented() -> None:
    assert rows_of("docs/data.md", "code") == {f"| `{code}` | {what} | {remedy} |" for code, (what, remedy) in REASONS.items()}


def test_every_problem_of_the_service_is_documented() -> None:
    assert rows_of("docs/serve.md", "status") == {
        f"| {status} | `{code}` | {title} |" for code, (status, title) in PROBLEMS.items()
    }


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_links_point_to_files_and_headings(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(path)):
        if re.match(r"https?://", target):
            continue
        file, _, heading = target.partition("#")
        found = path.parent / file if file else path
        assert found.exists(), f"{name_of(path)} links to {target}"
        if heading:
            headings = re.findall(r"^#+ (.+)$", found.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in {re.sub(r"[^a-z0-9 -]", "", h.lower()).replace(" ", "-") for h in headings}, target


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_settings_that_are_named_exist(path: Path) -> None:
    known = {name.split(" ")[0] for name, _, _ in [*TABLES["docs/train.md"](), *TABLES["docs/data.md"](), *limits()]}
    known |= {".".join(name.split(".")[:depth]) for name in known for depth in range(1, name.count(".") + 1)}
    text = path.read_text(encoding="utf-8")
    named = set(re.findall(r"(?<![\w./-])((?:data|model|train|scale|split|sampling|limits)(?:\.[a-z_0-9]+)+)=", text))
    named |= set(re.findall(r"[`\"]((?:data|model|train|scale|split|limits)\.[a-z_0-9.]+)[`\"]", text)) - {"model.safetensors"}
    assert named <= known


def limits() -> Iterator[Setting]:
    return settings_of(Limits, "limits.")


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_verbs_and_targets_that_are_named_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    # A verb is a lower-case word behind the command, in code; prose and placeholders are none.
    for verb in re.findall(r"(?:`|^|-m )sign[-_]dist ([a-z]+)\b", text, re.MULTILINE):
        assert verb in VERBS
    targets = set(re.findall(r"^([a-z-]+):", text_of("Makefile"), re.MULTILINE))
    assert set(re.findall(r"(?:`|^)make ([a-z-]+)", text, re.MULTILINE)) <= targets


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_no_path_of_a_private_machine(path: Path) -> None:
    assert not re.search(r"(?<![\w.~])/(?:work|home|root|Users|tmp|opt)/", path.read_text(encoding="utf-8"))


@pytest.mark.long
@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_python_examples_run(path: Path) -> None:
    """An example is a whole file. A job and a space must also hold: their function is called."""
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)):
        file = path.with_name(f"example_{number}.py")
        names: dict[str, Any] = {"__file__": str(file), "__name__": "example"}
        exec(compile(code, str(file), "exec"), names)
        if "run" in names:
            assert isinstance(names["run"](), Run)
        if "space" in names:
            from sign_dist.on_ray.search import check_space

            space = names["space"]
            check_space(load_run(ROOT / "jobs" / "islr.py"), space if inspect.signature(space).parameters else space())


def test_the_reader_of_the_example_reads(tmp_path: Path) -> None:
    names: dict[str, Any] = {}
    exec(re.findall(r"```python\n(.*?)```", text_of("docs/extend.md"), re.DOTALL)[0], names)
    (tmp_path / "clips.csv").write_text("file,word,person\na.mp4,hello,anna\nb.mp4,,ben\n", encoding="utf-8")
    clip, refused = names["read"](tmp_path)
    assert (clip.id, clip.gloss, clip.signer) == ("a", "HELLO", "anna")
    assert refused.reason in REASONS


@pytest.mark.parametrize("folder", ["jobs", "tune_spaces"])
def test_every_file_that_can_be_chosen_is_listed(folder: str) -> None:
    files = {f"`{path.relative_to(ROOT / folder).as_posix()}`" for path in (ROOT / folder).rglob("*.py")}
    assert {row.split("|")[1].strip() for row in rows_of(f"{folder}/README.md", "file")} == files


def without_code(path: Path) -> str:
    return re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
