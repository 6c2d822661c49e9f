"""How sentences, or glosses, are read out of a finished run: nothing is trained, the model's answers are computed once.

`sign-dist tune RUN/run.json tune_spaces/slt_decode.py search.sampler=random`. One beam has no scores that a length could change.
"""

from typing import Any


def space(trial: Any) -> None:
    if trial.suggest_categorical("decode.beam", [1, 2, 4, 6, 8, 12]) > 1:
        trial.suggest_float("decode.len_penalty", 0.0, 2.0)
