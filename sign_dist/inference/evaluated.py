"""One clip and what a model answered: the row of predictions.jsonl, from which every score can be counted again."""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sign_dist.data.layout import written_whole
from sign_dist.errors import DataError


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """One clip, what it shows and what the model answered.

    `reference` and `hypothesis` are one gloss, glosses with blanks between them, or a sentence. `scores` are (answer, score)
    pairs, the best first or not. `error` is why there is no answer, "" if there is one; an empty hypothesis without an error
    is an answer, too. `start_s` and `end_s` are the clip's span in the file `video_path`, 0 = to the end. `model_s` is what
    model and decoding took for this clip alone, from features to answer; NaN where it was answered together with others.
    `written` are the texts of a model that writes, before anything held it to the vocabulary, the best first.
    """

    id: str
    reference: str
    hypothesis: str
    scores: tuple[tuple[str, float], ...] = ()
    signer: str = ""
    video_path: str | Path = ""
    start_s: float = 0.0
    end_s: float = 0.0
    error: str = ""
    model_s: float = math.nan
    written: tuple[str, ...] = ()

    def ranked(self) -> list[str]:
        """Answers, the best first; none for a clip that failed."""
        if self.error or not self.hypothesis:
            return []
        order = sorted(self.scores, key=lambda pair: -pair[1])
        return [self.hypothesis, *(label for label, _ in order if label != self.hypothesis)]

    @property
    def answer(self) -> str:
        """The hypothesis, "" for a clip that failed."""
        return "" if self.error else self.hypothesis

    @property
    def confidence(self) -> float:
        """Score of the answer, NaN if it has none."""
        return dict(self.scores).get(self.answer, math.nan)


def write_predictions(path: Path, evaluated: Iterable[Evaluated]) -> None:
    """One JSON line per clip; `read_predictions` reads them."""
    rows = [{n: v for n, v in dataclasses.asdict(e).items() if n != "written" or v} for e in evaluated]
    lines = [json.dumps(jsonable(row), ensure_ascii=False, allow_nan=False) + "\n" for row in rows]
    with written_whole(path) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")


def read_predictions(path: Path) -> list[Evaluated]:
    """The clips of a predictions.jsonl.

    Raises:
        DataError: a line is no answer of ours.
    """
    found: list[Evaluated] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row: dict[str, Any] = json.loads(line)
            scores = tuple((str(label), _number(score)) for label, score in row.get("scores", ()))
            known = {f.name for f in dataclasses.fields(Evaluated)}
            values = {name: value for name, value in row.items() if name in known}
            found.append(
                Evaluated(
                    **values | {"scores": scores, "model_s": _number(row.get("model_s")), "written": tuple(row.get("written", ()))}
                )
            )
        except (ValueError, TypeError, AttributeError) as error:
            raise DataError(f"{str(path)!r} line {number} is no answer ({error}): evaluate the run again") from None
    return found


def jsonable(value: Any) -> Any:
    """The same in JSON's own types: NaN and infinities, which JSON lacks, become null; paths and the like become text."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {str(name): jsonable(inner) for name, inner in value.items()}
        case list() | tuple() | set() | frozenset():
            return [jsonable(inner) for inner in (sorted(value, key=str) if isinstance(value, set | frozenset) else value)]
        case _ if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # a numpy scalar
            return jsonable(value.item())
        case _:
            return str(value)


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
