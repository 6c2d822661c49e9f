"""A head for another vocabulary: rows of glosses that both vocabularies have are kept, the others start afresh."""

import dataclasses
from collections.abc import Mapping, Sequence

from torch import Tensor

from sign_dist.errors import WeightsError

HEADS = ("head", "logits", "classifier", "fc")
"""What the last layer is called, in the models here and in published ones."""


def is_head(name: str, heads: tuple[str, ...] = HEADS) -> bool:
    """Whether a tensor belongs to a head.

    >>> is_head("members.0.head.1.weight"), is_head("logits.conv3d.bias"), is_head("blocks.0.heads.weight")
    (True, True, False)
    """
    return any(part in heads for part in name.split("."))


@dataclasses.dataclass(frozen=True)
class HeadReport:
    """Glosses by what became of their rows, and the tensors in which that was done."""

    kept: tuple[str, ...]
    fresh: tuple[str, ...]
    dropped: tuple[str, ...]
    tensors: tuple[str, ...]

    def __str__(self) -> str:
        return f"head: {len(self.kept)} glosses kept, {len(self.fresh)} new, {len(self.dropped)} dropped"


def carry_rows(
    old: Tensor, new: Tensor, old_glosses: Sequence[str], new_glosses: Sequence[str], *, special: int = 0, axis: int = 0
) -> Tensor:
    """`new` with the rows of `old` for each gloss that both vocabularies have; `special` first rows (a CTC blank) are kept.

    Raises:
        WeightsError: a tensor has not as many rows as its vocabulary, or the two differ in another axis.
    """
    old, result = old.movedim(axis, 0), new.clone().movedim(axis, 0)
    for what, tensor, glosses in (("weights", old, old_glosses), ("model", result, new_glosses)):
        if tensor.shape[0] != special + len(glosses):
            raise WeightsError(
                f"the head of the {what} has {tensor.shape[0]} rows, its vocabulary {len(glosses)} glosses"
                f"{f' and {special} more' if special else ''}: the two do not belong together"
            )
    if old.shape[1:] != result.shape[1:]:
        raise WeightsError(f"the heads read different widths, {tuple(old.shape[1:])} and {tuple(result.shape[1:])}")
    place = {gloss: row for row, gloss in enumerate(old_glosses)}
    shared = [(row, place[gloss]) for row, gloss in enumerate(new_glosses) if gloss in place]
    result[:special] = old[:special].to(result.dtype)
    if shared:
        to, source = zip(*shared, strict=True)
        result[[special + row for row in to]] = old[[special + row for row in source]].to(result.dtype)
    return result.movedim(0, axis).contiguous()


def replace_head(
    tensors: Mapping[str, Tensor],
    fresh: Mapping[str, Tensor],
    old_glosses: Sequence[str],
    new_glosses: Sequence[str],
    *,
    head: tuple[str, ...] = HEADS,
    special: int = 0,
) -> tuple[dict[str, Tensor], HeadReport]:
    """The tensors of a file with their head made for another vocabulary; `fresh` is the state dict of the model to load into.

    The head is what has one of the names in `head` as a part of its own, and an axis as long as the vocabulary: that one holds
    the rows.

    Raises:
        WeightsError: the file's head does not belong to the old vocabulary, or the model's not to the new one.
    """
    old_rows, new_rows = special + len(old_glosses), special + len(new_glosses)
    result, changed = dict(tensors), list[str]()
    for name, new in fresh.items():
        if not is_head(name, head) or name not in tensors or tensors[name].ndim != new.ndim or not new.ndim:
            continue
        pairs = list(zip(tensors[name].shape, new.shape, strict=True))
        rest = [a == b for a, b in pairs]
        axis = next((i for i, pair in enumerate(pairs) if pair == (old_rows, new_rows) and all(rest[:i] + rest[i + 1 :])), None)
        if axis is not None:
            result[name] = carry_rows(tensors[name], new.cpu(), old_glosses, new_glosses, special=special, axis=axis)
            changed.append(name)
    if not changed:
        raise WeightsError(
            f"no tensor of {', '.join(head)} has {old_rows} rows in the weights and {new_rows} in the model: "
            "the vocabulary beside the weights is not theirs"
        )
    old, new_set = set(old_glosses), set(new_glosses)
    report = HeadReport(
        kept=tuple(g for g in new_glosses if g in old),
        fresh=tuple(g for g in new_glosses if g not in old),
        dropped=tuple(g for g in old_glosses if g not in new_set),
        tensors=tuple(changed),
    )
    return result, report
