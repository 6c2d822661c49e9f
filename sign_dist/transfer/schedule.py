"""Progressive unfreezing: which stage an epoch belongs to, and which layer groups a stage trains."""

import fnmatch
from collections.abc import Sequence

from sign_dist.errors import SettingsError, did_you_mean

Stages = tuple[tuple[str, ...], ...]
"""Names of groups that train, stage by stage; each stage has those of the stage before."""


def stage_of(epoch: int, epochs: int, stages: int) -> int:
    """floor(epoch * stages / epochs): which of the stages an epoch belongs to, from 0.

    >>> [stage_of(e, epochs=50, stages=4) for e in (0, 12, 13, 24, 25, 37, 38, 49)]
    [0, 0, 1, 1, 2, 2, 3, 3]
    """
    return min(epoch * stages // epochs, stages - 1)


def spread(names: Sequence[str], stages: int) -> Stages:
    """Groups spread evenly over the stages, in their order (the head first); the last stage has all.

    >>> spread(["head", "top", "middle", "bottom"], 2)
    (('head', 'top'), ('head', 'top', 'middle', 'bottom'))
    """
    counts = [max(1, round(len(names) * (stage + 1) / stages)) for stage in range(stages)]
    return tuple(tuple(names[:count]) for count in [*counts[:-1], len(names)])


def planned(names: Sequence[str], plan: str) -> Stages:
    """Stages as a person writes them: `;` parts stages, blanks part patterns of group names. What no stage names stays frozen.

    >>> planned(["classifier", "lstm", "mixed_5c", "mixed_5b", "stem"], "lstm classifier; mixed_5*")
    (('classifier', 'lstm'), ('classifier', 'lstm', 'mixed_5c', 'mixed_5b'))

    Raises:
        SettingsError: a part is empty, or a pattern matches no group.
    """
    stages: list[tuple[str, ...]] = []
    trained: set[str] = set()
    for part in plan.split(";"):
        if not part.split():
            raise SettingsError(f"the plan {plan!r} has an empty stage: write names of groups between its semicolons")
        trained |= set(matching(names, part))
        stages.append(tuple(name for name in names if name in trained))
    return tuple(stages)


def matching(names: Sequence[str], patterns: str) -> list[str]:
    """The groups that patterns, parted by blanks or commas, name; `*` stands for anything.

    Raises:
        SettingsError: a pattern matches none.
    """
    found: set[str] = set()
    for pattern in patterns.replace(",", " ").split():
        hits = fnmatch.filter(names, pattern)
        if not hits:
            hint = did_you_mean(pattern, names)
            raise SettingsError(f"no layer group {pattern!r}: this model has {', '.join(names)};{hint}".rstrip(";"))
        found |= set(hits)
    return [name for name in names if name in found]
