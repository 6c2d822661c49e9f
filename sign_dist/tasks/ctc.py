"""CTC (Graves et al. 2006): losses per clip, what a labelling is worth, greedy and prefix beam search.

Class 0 is the blank. A path names one class per step; its labelling merges equal neighbours, then drops blanks, so that
`A A blank A` spells `A A`. Lengths are honoured everywhere: steps after a clip's end change nothing.

The beam search sums over all paths of a labelling (Graves 2008, "Supervised sequence labelling", section 7.5; Hannun et al. 2014,
arXiv 1408.2873). It keeps `width` labellings and is exact where that many suffice. All clips go through the same steps at once:
of V classes only the `width + 1` best of a step can enter a beam, which `_extensions` proves, so that the vocabulary's size
costs next to nothing.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

BLANK = 0
WIDTH = 10
# Clips that are decoded side by side with a language model: its scores take clips * width * V numbers a step.
_LM_NUMBERS = 2**24

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_NOWHERE = -1


@dataclasses.dataclass(frozen=True)
class Decoded:
    """A labelling (class ids, without blanks) and the natural log of its probability: of the paths that the search kept."""

    labels: tuple[int, ...]
    log_prob: float


class LanguageModel(Protocol):
    """Says how likely each class is to follow; it may hold any state of its own, since prefixes are whole."""

    def __call__(self, prefix: tuple[int, ...]) -> Floats:
        """Natural log-probabilities (V,) of the next label; the entry of the blank is not read."""
        ...


def ctc_losses(
    log_probs: Tensor, lengths: Tensor, targets: Tensor, target_lengths: Tensor, *, zero_infinity: bool = False
) -> Tensor:
    """Negative log-probability of each clip's labelling (B,), in nats; not divided by any length.

    Args:
        log_probs: (B, T, V), natural.
        targets: class ids (B, L), padded with anything behind `target_lengths`.
        zero_infinity: 0 instead of infinity, and no gradient, for a label that does not fit into its steps.
    """
    return F.ctc_loss(
        log_probs.transpose(0, 1), targets, lengths, target_lengths, blank=BLANK, reduction="none", zero_infinity=zero_infinity
    )


def log_prob_of(log_probs: Tensor, lengths: Tensor, labellings: Sequence[Sequence[int]]) -> list[float]:
    """Exact natural log-probability of one labelling per clip; minus infinity for one that does not fit."""
    longest = max((len(labels) for labels in labellings), default=0)
    targets = torch.zeros((len(labellings), max(longest, 1)), dtype=torch.long)
    for row, labels in zip(targets, labellings, strict=True):
        row[: len(labels)] = torch.tensor(labels, dtype=torch.long)
    target_lengths = torch.tensor([len(labels) for labels in labellings])
    return (-ctc_losses(log_probs.double().cpu(), lengths.cpu(), targets, target_lengths)).tolist()


def greedy(log_probs: Tensor, lengths: Tensor, *, merge_after: bool = False) -> list[Decoded]:
    """The labelling of the single most probable path. `log_prob` is that path's, a lower bound of the labelling's."""
    _check(log_probs, lengths)
    best = log_probs.detach().max(dim=-1)
    values, classes = best.values.double().cpu().numpy(), best.indices.cpu().numpy()
    found: list[Decoded] = []
    for row, path, length in zip(values, classes, lengths.tolist(), strict=True):
        labels = [int(c) for c, _ in itertools.groupby(path[:length].tolist()) if c != BLANK]
        found.append(Decoded(_merged(labels, merge_after), float(row[:length].sum())))
    return found


def beam_search(
    log_probs: Tensor,
    lengths: Tensor,
    *,
    width: int = WIDTH,
    num_best: int = 1,
    merge_after: bool = False,
    language_model: LanguageModel | None = None,
    lm_weight: float = 0.5,
    label_bonus: float = 0.0,
) -> list[list[Decoded]]:
    """The `num_best` most probable labellings of each clip, best first.

    Args:
        log_probs: (B, T, V), natural, on any device.
        lengths: steps of each clip (B,).
        merge_after: merge equal neighbours of the answer, too, so that `A blank A` becomes `A`: published word error rates of
            the VAC family are counted so. Labellings that become equal are one, with the probability of the first.
        language_model: asked once for every labelling in a beam. Labellings are then ranked by
            log p(CTC) + lm_weight * log p(LM) + label_bonus * labels; `log_prob` stays that of CTC.

    Raises:
        ValueError: shapes or lengths that do not fit, or a width below `num_best`.
    """
    _check(log_probs, lengths)
    if not 1 <= num_best <= width:
        raise ValueError(f"need 1 <= num_best <= width: {num_best=} {width=}")
    order = torch.argsort(lengths.cpu(), descending=True, stable=True)
    size = len(order) if language_model is None else max(1, _LM_NUMBERS // (width * log_probs.shape[2]))
    found: dict[int, list[Decoded]] = {}
    for start in range(0, len(order), max(size, 1)):
        chosen = order[start : start + size]
        part = log_probs.detach()[chosen.to(log_probs.device)]
        scorer = _Lm(language_model, lm_weight, label_bonus) if language_model is not None or label_bonus else None
        beams = _Beams(part, lengths.cpu()[chosen].numpy().astype(np.int64), width, scorer)
        found |= zip(chosen.tolist(), beams.search(), strict=True)
    return [_best(found[i], num_best, merge_after) for i in range(len(order))]


class _Lm:
    """Ranks: for every labelling what its labels and each next one add, remembered by trie node."""

    def __init__(self, model: LanguageModel | None, weight: float, bonus: float) -> None:
        self._model, self._weight, self._bonus = model, weight, bonus
        self._rows: dict[int, Floats] = {}

    def rows(self, trie: "_Trie", nodes: Ints, num_classes: int) -> Floats:
        """(B, W) nodes -> what each class adds to the rank (B, W, V)."""
        out = np.zeros((*nodes.shape, num_classes))
        for where, node in np.ndenumerate(nodes):
            if node == _NOWHERE:
                continue
            row = self._rows.get(int(node))
            if row is None:
                row = np.full(num_classes, self._bonus)
                if self._model is not None:
                    row = row + self._weight * np.asarray(self._model(trie.labels(int(node))), dtype=np.float64)
                self._rows[int(node)] = row
            out[where] = row
        return out


class _Trie:
    """Labellings as nodes: a node is its parent and one label more, and stands for the same labelling whenever it is met."""

    def __init__(self) -> None:
        self._ids: dict[tuple[int, int], int] = {}
        self.parent, self.label = [_NOWHERE], [BLANK]

    def child(self, parent: int, label: int) -> int:
        node = self._ids.setdefault((parent, label), len(self.parent))
        if node == len(self.parent):
            self.parent.append(parent)
            self.label.append(label)
        return node

    def labels(self, node: int) -> tuple[int, ...]:
        found: list[int] = []
        while node:
            found.append(self.label[node])
            node = self.parent[node]
        return tuple(reversed(found))


class _Beams:
    """The state of all clips' beams, (B, W): node, last label, log-probability of the paths that end in a blank and in a label.

    Places without a labelling have probability 0 and the node `_NOWHERE`.
    """

    def __init__(self, log_probs: Tensor, lengths: Ints, width: int, scorer: _Lm | None) -> None:
        self._width, self._lengths, self._scorer = width, lengths, scorer
        self._num_classes = log_probs.shape[2]
        labels_only = log_probs[:, :, 1:]
        k = min(width + 1, labels_only.shape[2])
        top = labels_only.topk(k, dim=-1)
        self._top_labels: Ints = (top.indices + 1).cpu().numpy()
        self._top: Floats = top.values.double().cpu().numpy()
        self._all: NDArray[np.floating] = (
            log_probs.cpu().numpy() if log_probs.dtype != torch.bfloat16 else log_probs.float().cpu().numpy()
        )
        batch = len(lengths)
        self._trie = _Trie()
        shape = (batch, width)
        self._node: Ints = np.full(shape, _NOWHERE)
        self._parent: Ints = np.full(shape, _NOWHERE - 1)
        self._last: Ints = np.zeros(shape, dtype=np.int64)
        self._blank: Floats = np.full(shape, -np.inf)
        self._label: Floats = np.full(shape, -np.inf)
        self._rank: Floats = np.zeros(shape)
        self._node[:, 0], self._blank[:, 0] = 0, 0.0

    def search(self) -> list[list[Decoded]]:
        # Clips come longest first, so that those still running are the first `active` ones.
        for t in range(int(self._lengths[0]) if len(self._lengths) else 0):
            self._step(t, int((self._lengths > t).sum()))
        total = np.logaddexp(self._blank, self._label)
        order = np.argsort(-(total + self._rank), axis=1, kind="stable")
        return [
            [
                Decoded(self._trie.labels(int(self._node[b, w])), float(total[b, w]))
                for w in row
                if self._node[b, w] != _NOWHERE and total[b, w] > -np.inf
            ]
            for b, row in enumerate(order)
        ]

    def _step(self, t: int, active: int) -> None:
        node, parent, last = self._node[:active], self._parent[:active], self._last[:active]
        blank, label, rank = self._blank[:active], self._label[:active], self._rank[:active]
        total = np.logaddexp(blank, label)
        frame = self._all[:active, t]
        rows = np.arange(active)[:, None]
        # What stays: the same labelling by one more blank, or by one more step of its last label.
        again = frame[rows, last].astype(np.float64)
        stay_blank = total + frame[:, BLANK, None].astype(np.float64)
        stay_label = np.where(last == BLANK, -np.inf, label + again)
        # A labelling whose parent is in the beam, too, is also reached from there by its last label.
        from_parent = parent[:, :, None] == node[:, None, :]
        has_parent = from_parent.any(axis=2)
        at = from_parent.argmax(axis=2)
        ends_alike = last[rows, at] == last
        reached = np.where(ends_alike, blank[rows, at], total[rows, at]) + again
        stay_label = np.logaddexp(stay_label, np.where(has_parent, reached, -np.inf))
        labels, gains, ranks = self._extensions(t, active)
        grown = np.where(labels == last[:, :, None], blank[:, :, None], total[:, :, None]) + gains
        # Those that already stand in the beam were added there.
        child_at, child = np.nonzero(has_parent)
        taken = labels[child_at, at[child_at, child]] == last[child_at, child][:, None]
        where, which = np.nonzero(taken)
        grown[child_at[where], at[child_at[where], child[where]], which] = -np.inf
        # The best of both kinds.
        stay = np.logaddexp(stay_blank, stay_label)
        scores = np.concatenate([stay + rank, (grown + rank[:, :, None] + ranks).reshape(active, -1)], axis=1)
        best = torch.from_numpy(scores).topk(self._width, dim=1).indices.numpy()
        is_stay = best < self._width
        kept = np.where(is_stay, best, 0)
        flat = np.where(is_stay, 0, best - self._width)
        source, choice = flat // labels.shape[2], flat % labels.shape[2]
        new_blank = np.where(is_stay, stay_blank[rows, kept], -np.inf)
        new_label = np.where(is_stay, stay_label[rows, kept], grown[rows, source, choice])
        added = rank[rows, source] + np.broadcast_to(ranks, grown.shape)[rows, source, choice]
        new_rank = np.where(is_stay, rank[rows, kept], added)
        new_node = np.where(is_stay, node[rows, kept], _NOWHERE)
        new_parent = np.where(is_stay, parent[rows, kept], _NOWHERE - 1)
        new_last = np.where(is_stay, last[rows, kept], labels[rows, source, choice])
        alive = scores[rows, best] > -np.inf
        child_of = self._trie.child
        for b, w in zip(*np.nonzero(~is_stay & alive), strict=True):
            new_parent[b, w] = node[b, source[b, w]]
            new_node[b, w] = child_of(int(new_parent[b, w]), int(new_last[b, w]))
        new_node[~alive], new_parent[~alive] = _NOWHERE, _NOWHERE - 1
        self._node[:active], self._parent[:active], self._last[:active] = new_node, new_parent, new_last
        self._blank[:active], self._label[:active], self._rank[:active] = new_blank, new_label, new_rank

    def _extensions(self, t: int, active: int) -> tuple[Ints, Floats, Floats]:
        """Labels (B, W, K) that may follow, their log-probabilities, and what they add to the rank.

        K = W + 1 of all classes are enough. A label outside them loses, for the same labelling, to W others that are at least as
        probable and that do not repeat the last label, so W candidates stand before it.
        """
        if self._scorer is None:
            shape = (active, self._width, self._top.shape[2])
            labels = np.broadcast_to(self._top_labels[:active, t, None, :], shape)
            return labels, np.broadcast_to(self._top[:active, t, None, :], shape), np.zeros((1, 1, 1))
        added = self._scorer.rows(self._trie, self._node[:active], self._num_classes)[:, :, 1:]
        frame = self._all[:active, t, None, 1:].astype(np.float64)
        best = torch.from_numpy(frame + added).topk(self._top.shape[2], dim=2).indices.numpy()
        gains = np.take_along_axis(np.broadcast_to(frame, added.shape), best, axis=2)
        return best + 1, gains, np.take_along_axis(added, best, axis=2)


def _best(found: Sequence[Decoded], num_best: int, merge_after: bool) -> list[Decoded]:
    merged: dict[tuple[int, ...], Decoded] = {}
    for decoded in found:
        labels = _merged(decoded.labels, merge_after)
        merged.setdefault(labels, Decoded(labels, decoded.log_prob))
    return list(merged.values())[:num_best]


def _merged(labels: Sequence[int], merge: bool) -> tuple[int, ...]:
    return tuple(label for label, _ in itertools.groupby(labels)) if merge else tuple(labels)


def _check(log_probs: Tensor, lengths: Tensor) -> None:
    if log_probs.ndim != 3 or lengths.shape != log_probs.shape[:1]:
        raise ValueError(f"need log_probs (B, T, V) and lengths (B,): got {tuple(log_probs.shape)} and {tuple(lengths.shape)}")
    if log_probs.shape[2] < 2:
        raise ValueError(f"need the blank and at least one label, got {log_probs.shape[2]} classes")
    if len(lengths) and not 0 <= int(lengths.min()) <= int(lengths.max()) <= log_probs.shape[1]:
        raise ValueError(f"need 0 <= length <= {log_probs.shape[1]} steps: got {int(lengths.min())} to {int(lengths.max())}")
