"""An answer as JSON, by task: a gloss, a list of glosses or a sentence, and the n best; as printed and as served."""

import math
from typing import Any

from sign_dist.tasks.task import Prediction

# The key of an answer and of each of its alternatives.
KEYS = {"islr": "gloss", "vlm": "gloss", "cslr": "glosses", "slt": "sentence"}


def answer_json(task: str, prediction: Prediction, k: int, *, digits: int | None = None) -> dict[str, Any]:
    """The answer, and in `results` the `k` best with their scores, the best first. `digits`: of the scores behind the point.

    >>> answer_json("cslr", Prediction("I EAT", (("I EAT", 0.75), ("EAT", 0.25))), k=1)
    {'glosses': ['I', 'EAT'], 'results': [{'glosses': ['I', 'EAT'], 'score': 0.75}]}
    """
    key = KEYS[task]
    best = [{key: _said(task, label), "score": _score(score, digits)} for label, score in prediction.scores[:k]]
    return {key: _said(task, prediction.hypothesis), "results": best}


def _said(task: str, label: str) -> str | list[str]:
    return label.split() if task == "cslr" else label


def _score(score: float, digits: int | None) -> float | None:
    """JSON has neither NaN nor infinities."""
    if not math.isfinite(score):
        return None
    return score if digits is None else round(score, digits)
