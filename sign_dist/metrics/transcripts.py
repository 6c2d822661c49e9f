"""Files of references and hypotheses as people have them -> texts by id.

| file | holds |
|---|---|
| `.stm` | NIST: `id channel speaker start end [<labels>] words`; lines with `;;` are comments |
| `.ctm` | NIST: `id channel start duration word [confidence]`; clips without a word are absent from it |
| `.trn` | NIST: `words (id)` |
| `.jsonl` | one object a line with `id` and `reference`, `hypothesis` or `text`: what `sign-dist evaluate` writes |
| `.tsv`, or a first line with a TAB | id, TAB, text |
| `.csv` | the same with commas and quotes |
| anything else | plain lines, named by their numbers from 1 |

A table of more columns has a header: it begins with `id` and names the column to score `reference`, `hypothesis` or `text`.
"""

import csv
import dataclasses
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, cast

from sign_dist.errors import DataError

Side = Literal["reference", "hypothesis"]


@dataclasses.dataclass(frozen=True)
class Transcripts:
    """Texts by id, in the order of the file. `numbered`: ids are only line numbers. `partial`: absent means empty.

    `ranked` are answers by id, the best first, where a file has scores of several.
    """

    path: Path
    texts: dict[str, str]
    numbered: bool = False
    partial: bool = False
    ranked: dict[str, list[str]] = dataclasses.field(default_factory=dict[str, list[str]])


def read_transcripts(path: Path, side: Side) -> Transcripts:
    """Texts of one side of an evaluation.

    Raises:
        DataError: no such file, not UTF-8, no text in it, an id twice, or a line that is not of the file's form.
    """
    try:
        content = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"no file {str(path)!r} with a {side} per line: check the path") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{str(path)!r} is not UTF-8 (line {line}): save it as UTF-8, such as by iconv -f latin1 -t utf-8"
        ) from None
    except OSError as error:
        raise DataError(f"{str(path)!r} cannot be read: {error.strerror}") from None
    # Not splitlines(): it also parts at characters that may stand inside a sentence.
    lines = content.replace("\r\n", "\n").removesuffix("\n").split("\n") if content else []
    ranked: dict[str, list[str]] = {}
    numbered = partial = False
    match path.suffix.lower():
        case ".stm":
            rows = _stm(path, lines)
        case ".ctm":
            rows, partial = _ctm(path, lines), True
        case ".trn":
            rows = _trn(path, lines)
        case ".jsonl":
            rows = _jsonl(path, lines, side, ranked)
        case suffix if suffix == ".tsv" or (lines and "\t" in lines[0]):
            cells = ((number, line.split("\t")) for number, line in enumerate(lines, 1))
            rows = _columns(path, lines, cells, side, "id, a TAB, text")
        case ".csv":
            rows = _columns(path, lines, _csv(path, lines), side, "id,text")
        case _:
            rows, numbered = ((str(number), line) for number, line in enumerate(lines, 1)), True
    texts: dict[str, str] = {}
    for id_, text in rows:
        if id_ in texts:
            raise DataError(f"{str(path)!r} has {id_!r:.80} twice: keep one {side} per clip")
        texts[id_] = " ".join(text.split())
    if not texts:
        raise DataError(f"{str(path)!r} holds no {side}: it is empty")
    return Transcripts(path, texts, numbered, partial, ranked)


def paired(references: Transcripts, hypotheses: Transcripts) -> tuple[list[str], list[str], list[str]]:
    """Ids, references and hypotheses in the order of the references.

    Raises:
        DataError: the files do not hold the same clips.
    """
    ref, hyp = references.texts, hypotheses.texts
    names = f"{str(references.path)!r} and {str(hypotheses.path)!r}"
    if references.numbered or hypotheses.numbered:
        if len(ref) != len(hyp):
            raise DataError(f"{names} have {len(ref)} and {len(hyp)} lines: plain lines are paired in order, so give one for one")
        return list(ref), list(ref.values()), list(hyp.values())
    surplus = [id_ for id_ in hyp if id_ not in ref]
    missing = [] if hypotheses.partial else [id_ for id_ in ref if id_ not in hyp]
    if surplus or missing:
        parts = [
            f"{len(ids)} of {of} are only in the {side}, such as {ids[0]!r:.80}"
            for ids, of, side in ((missing, len(ref), "references"), (surplus, len(hyp), "hypotheses"))
            if ids
        ]
        raise DataError(f"{names} do not hold the same clips: {' and '.join(parts)}; score files of the same split")
    return list(ref), list(ref.values()), [hyp.get(id_, "") for id_ in ref]


def _stm(path: Path, lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    for number, line in _whole(lines):
        fields = line.split(None, 5)
        if len(fields) < 5:
            raise _bad(path, number, line, "id channel speaker start end words")
        text = fields[5] if len(fields) == 6 else ""
        yield fields[0], re.sub(r"^<[^>]*>", "", text)


def _ctm(path: Path, lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    words: dict[str, list[tuple[float, str]]] = {}
    for number, line in _whole(lines):
        fields = line.split()
        try:
            id_, _, start_s, _, word = fields[:5]
            words.setdefault(id_, []).append((float(start_s), word))
        except ValueError:
            raise _bad(path, number, line, "id channel start duration word") from None
    for id_, found in words.items():
        yield id_, " ".join(word for _, word in sorted(found, key=lambda pair: pair[0]))


def _jsonl(path: Path, lines: Sequence[str], side: Side, ranked: dict[str, list[str]]) -> Iterator[tuple[str, str]]:
    form = f'{{"id": ..., "{side}": ...}}'
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row: Any = json.loads(line)
        except ValueError:
            raise _bad(path, number, line, form) from None
        if not isinstance(row, dict):
            raise _bad(path, number, line, form)
        record = cast("dict[str, Any]", row)
        text = record.get(side, record.get("text"))
        if side == "hypothesis" and record.get("error"):
            text = ""  # what a clip that failed was answered
        if "id" not in record or not isinstance(text, str):
            raise _bad(path, number, line, form)
        id_ = str(record["id"])
        scores = record.get("scores") or record.get("results")
        if side == "hypothesis" and text and isinstance(scores, list):
            ranked[id_] = _answers(path, number, line, text, cast("list[Any]", scores))
        yield id_, text


def _answers(path: Path, number: int, line: str, text: str, scores: Sequence[Any]) -> list[str]:
    """The answer, then the others by their scores: pairs [gloss, score]."""
    try:
        others = sorted(((str(gloss), float(score)) for gloss, score in scores), key=lambda pair: -pair[1])
    except (TypeError, ValueError):
        raise _bad(path, number, line, '"scores": [[gloss, score], ...]') from None
    return [text, *(gloss for gloss, _ in others if gloss != text)]


def _trn(path: Path, lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    for number, line in _whole(lines):
        found = re.fullmatch(r"(.*)\(([^()]+)\)\s*", line)
        if not found:
            raise _bad(path, number, line, "words (id)")
        yield found[2].strip(), found[1]


def _csv(path: Path, lines: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader((f"{line}\n" for line in lines), strict=True)
    try:
        for cells in reader:
            yield reader.line_num, cells
    except csv.Error as error:
        raise DataError(f"line {reader.line_num} of {str(path)!r} is no CSV: {error}") from None


def _columns(
    path: Path, lines: Sequence[str], rows: Iterator[tuple[int, list[str]]], side: Side, form: str
) -> Iterator[tuple[str, str]]:
    """Without a header two columns; more than these would be taken for words of the text."""
    width, text_at = 2, 1
    for number, row in rows:
        cells = [cell.strip() for cell in row]
        if not any(cells):
            continue
        if number == 1 and cells[0].lower() == "id":
            width, text_at = len(cells), _text_column(path, [cell.lower() for cell in cells], side)
        elif len(cells) != width or not cells[0]:
            raise _bad(path, number, lines[number - 1], form if width == 2 else f"{width} columns, as its header has")
        else:
            yield cells[0], cells[text_at]


def _text_column(path: Path, names: Sequence[str], side: Side) -> int:
    for name in (side, "text"):
        if name in names:
            return names.index(name)
    if len(names) == 2:
        return 1
    raise DataError(f"{str(path)!r} has the columns {', '.join(names)}: name the one to score {side!r} or 'text'")


def _whole(lines: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Lines that are neither empty nor comments, with their numbers."""
    return ((number, line) for number, line in enumerate(lines, 1) if line.strip() and not line.startswith(";;"))


def _bad(path: Path, number: int, line: str, form: str) -> DataError:
    return DataError(f"line {number} of {str(path)!r} is {line!r:.80}, but should be: {form}")
