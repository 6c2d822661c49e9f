"""Scores on the scales that people state them on: shares and rates in percent, BLEU in points, ROUGE-L from 0 to 1."""

import math
from typing import Literal, assert_never

Unit = Literal["share", "percent", "points", "unit"]
"""`share`: 0 to 1, written in percent; `percent`: a rate in percent, not capped; `points`: 0 to 100; `unit`: 0 to 1 as it is."""


def value_of(unit: Unit, value: float | None) -> str:
    """A value as text.

    >>> value_of("points", 61.234), value_of("unit", 0.5), value_of("share", 0.714), value_of("percent", None)
    ('61.2', '0.500', '71.4 %', 'n/a')
    """
    if value is None or math.isnan(value):
        return "n/a"
    match unit:
        case "share":
            return f"{100 * value:.1f} %"
        case "percent":
            return f"{value:.1f} %"
        case "points":
            return f"{value:.1f}"
        case "unit":
            return f"{value:.3f}"
        case _:
            assert_never(unit)


def place_of(unit: Unit, value: float | None) -> float | None:
    """Where a value lies on a bar from 0 to 100; what lies beyond its end is at the end."""
    if value is None or math.isnan(value):
        return None
    return round(min(100.0, max(0.0, value * (100 if unit in ("share", "unit") else 1))), 2)
