"""Several objectives at once: which trials no other one beats in all of them, and how much they cover together."""

import math
from collections.abc import Mapping, Sequence

from sign_dist.study.objectives import direction
from sign_dist.study.rows import TrialRow


def dominates(first: Mapping[str, float], second: Mapping[str, float], names: Sequence[str]) -> bool:
    """Whether the first is nowhere worse, and better in one objective at least."""
    a, b = _less_is_better(first, names), _less_is_better(second, names)
    return all(x <= y for x, y in zip(a, b, strict=True)) and a != b


def front(rows: Sequence[TrialRow], names: Sequence[str]) -> list[TrialRow]:
    """The trials that no other dominates, sorted by the first objective, the best first.

    Only finished trials count, with a finite value of each objective: a stopped one might have come further. Of trials that are
    equal in all objectives, the first stands for them.
    """
    ended = [row for row in rows if row.state == "finished" and all(math.isfinite(row.objectives.get(n, math.nan)) for n in names)]
    found: dict[tuple[float, ...], TrialRow] = {}
    for row in sorted(ended, key=lambda row: row.number):
        if not any(dominates(other.objectives, row.objectives, names) for other in ended):
            found.setdefault(_less_is_better(row.objectives, names), row)
    return [found[values] for values in sorted(found)]


def hypervolume(points: Sequence[tuple[float, float]], reference: tuple[float, float]) -> float:
    """Area that points of two objectives dominate, up to a reference that is worse than all; less is better in both.

    >>> hypervolume([(1.0, 2.0), (2.0, 1.0)], (3.0, 3.0))
    3.0
    """
    area, height = 0.0, reference[1]
    for x, y in sorted(set(points)):
        if x < reference[0] and y < height:
            area += (reference[0] - x) * (height - y)
            height = y
    return area


def _less_is_better(values: Mapping[str, float], names: Sequence[str]) -> tuple[float, ...]:
    return tuple(values[name] if direction(name) == "min" else -values[name] for name in names)
