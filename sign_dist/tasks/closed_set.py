"""Score every label of a closed set under a model that writes tokens: exact, and shared beginnings are read once.

A model that writes can answer outside the vocabulary. Held to a closed set it cannot: the tokens of each label and the end behind
them have a probability, and the best label is the answer. The prompt with its pictures is thousands of tokens and the same for all
labels, so it is read once per clip; behind it stands a tree of the labels' tokens, whose nodes are read

- as one sequence in which a node sees the prompt and its own ancestors alone, where a model obeys such a mask: the prompt's keys
  and values are held once, however many labels there are;
- else as batches of branches, each of which holds a copy of the prompt's keys and values.

**Why a score is divided by a length.** Every token costs some log-probability even where nothing is left to choose: smoothing of
labels takes its share of each. A label of five tokens pays that five times, and would lose to one of two tokens by its length
alone. Three ways to weigh:

- `sum`: the log-probability of the whole label. What the model says of texts, long ones at a disadvantage.
- `mean`: the same per token, the end included. Length costs nothing; but tokens that follow without a choice then count as merits,
  and a long label can win by its certain end although its uncertain beginning was the less likely.
- `choices`: at each step the probability is shared out among the tokens that lead to a label, and the shares are multiplied. A step
  without a choice costs nothing and earns nothing, and the labels' probabilities sum to 1.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from sign_dist.errors import DataError
from sign_dist.models.vlm import SignVlm
from sign_dist.models.vlm_tree import branch_log_probs, can_branch
from sign_dist.tasks.task import Prediction
from sign_dist.tasks.trie import LabelTrie, Prefix

Weighing = Literal["sum", "mean", "choices"]

MOST_NODES = 256
"""Nodes of a tree read at a time: so many rows of logits over the whole vocabulary are in memory together."""
MOST_CLIPS = 8
"""Clips whose prompts are held at a time: of a 2B model with 8 frames of 256 tokens each takes 0.24 GB."""


class Prefilled(Protocol):
    """Prompts of B clips, read. `log_probs` (B, V): of the first token behind each."""

    @property
    def log_probs(self) -> Tensor: ...


class Writes(Protocol):
    """The part of a model that scoring asks."""

    def prefill(self, frames: Tensor) -> Any: ...

    def extend(self, prefilled: Any, rows: Tensor, ids: Tensor) -> Tensor:
        """Log-probabilities (R, L, V) behind each of `ids` (R, L), which follow the prompt of clip `rows` (R,)."""
        ...


@dataclasses.dataclass(frozen=True)
class Part:
    """Nodes of a tree in an order in which parents come first, with all their ancestors: what is read at one time.

    `tokens` (N,), `parents` (N,) as places in this very part, -1 behind the prompt; `depths` (N,) from 0.
    """

    tokens: Tensor
    parents: Tensor
    depths: Tensor
    nodes: tuple[int, ...]
    """Their numbers in the whole tree."""

    def sees(self) -> Tensor:
        """(N, N) bool: a node sees its ancestors and itself."""
        seen = torch.eye(len(self.nodes), dtype=torch.bool)
        for i, parent in enumerate(self.parents.tolist()):
            if parent >= 0:
                seen[i] |= seen[parent]
        return seen


class ClosedSet:
    """Labels as a tree of tokens. Nodes are distinct prefixes, numbered from 0; an edge is a token, or the end, behind a prefix.

    `answers` maps each label to its tokens with the end behind them.

    Raises:
        DataError: no label, or two that are the same to the model.
    """

    def __init__(self, answers: Mapping[str, Sequence[int]], *, end: int) -> None:
        try:
            trie = LabelTrie({label: tokens[:-1] for label, tokens in answers.items()}, end=end)
        except ValueError as error:
            raise DataError(f"these labels cannot be told apart by what the model writes: {error}") from None
        self.labels = tuple(answers)
        self.longest = max(map(len, answers.values()))
        prefixes = [prefix for level in trie.levels[1:] for prefix in level]
        self._number: dict[Prefix, int] = {(): -1} | {prefix: i for i, prefix in enumerate(prefixes)}
        self._prefixes = prefixes
        edges: dict[tuple[int, int], int] = {}
        paths: list[list[int]] = []
        for label in self.labels:
            tokens = (*trie.tokens[label], end)
            ways = [(self._number[tokens[:depth]], token) for depth, token in enumerate(tokens)]
            paths.append([edges.setdefault(way, len(edges)) for way in ways])
        self.num_nodes, self.num_edges = len(prefixes), len(edges)
        self.from_node = torch.tensor([node for node, _ in edges])
        self.token = torch.tensor([token for _, token in edges])
        # One column more than there are edges: padding, which adds 0.
        self.paths = torch.tensor([path + [len(edges)] * (self.longest - len(path)) for path in paths])
        self.counts = torch.tensor([len(path) for path in paths])

    def branches(self) -> list[Prefix]:
        """Labels' tokens, without those labels that others begin with: reading these reads every node."""
        begun = {prefix[:-1] for prefix in self._prefixes}
        return [prefix for prefix in self._prefixes if prefix not in begun]

    def parts(self, most: int = MOST_NODES) -> Iterator[Part]:
        """The tree in parts of at most `most` nodes, or of one branch that has more. A part has all its ancestors."""
        nodes: dict[int, None] = {}
        for branch in sorted(self.branches()):
            chain = [self._number[branch[: depth + 1]] for depth in range(len(branch))]
            if nodes and len(nodes.keys() | set(chain)) > most:
                yield self._part(list(nodes))
                nodes = {}
            nodes |= dict.fromkeys(chain)
        if nodes:
            yield self._part(list(nodes))

    def node_of(self, prefix: Prefix) -> int:
        return self._number[prefix]

    def behind(self, nodes: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The edges behind some nodes (n,), and the place among `nodes` of the node that each is behind (n,)."""
        place = {node: i for i, node in enumerate(nodes)}
        pairs = [(edge, place[node]) for edge, node in enumerate(self.from_node.tolist()) if node in place]
        own, at = torch.tensor(pairs).T
        return own, at

    def label_scores(self, edges: Tensor, weighing: Weighing = "mean") -> Tensor:
        """Log-probabilities of edges (B, E) -> scores of labels (B, num_labels)."""
        if weighing == "choices":
            edges = self._shared_out(edges)
        padded = torch.nn.functional.pad(edges.double(), (0, 1))
        total = padded[:, self.paths.to(edges.device)].sum(dim=-1)
        return total / self.counts.to(edges.device) if weighing == "mean" else total

    def _shared_out(self, edges: Tensor) -> Tensor:
        """Each edge's log-probability among the edges of its node."""
        place = (self.from_node + 1).to(edges.device).expand(len(edges), -1)
        highest = edges.new_full((len(edges), self.num_nodes + 1), -torch.inf).scatter_reduce(1, place, edges, "amax")
        # Where no label is possible the shares are unknown, and every one of them is as good as none.
        highest = highest.clamp(min=torch.finfo(edges.dtype).min)
        mass = edges.new_zeros(highest.shape).scatter_add(1, place, (edges - highest.gather(1, place)).exp())
        return edges - highest.gather(1, place) - mass.gather(1, place).log().nan_to_num(neginf=0.0)

    def _part(self, nodes: list[int]) -> Part:
        nodes = sorted(nodes)  # prefixes are numbered by length, so parents come first
        place = {node: i for i, node in enumerate(nodes)}
        prefixes = [self._prefixes[node] for node in nodes]
        parents = [place.get(self._number[prefix[:-1]], -1) for prefix in prefixes]
        depths = [len(prefix) - 1 for prefix in prefixes]
        return Part(torch.tensor([prefix[-1] for prefix in prefixes]), torch.tensor(parents), torch.tensor(depths), tuple(nodes))


@torch.no_grad()
def edge_log_probs(model: Writes, frames: Tensor, labels: ClosedSet, *, most: int = MOST_NODES) -> Tensor:
    """Log-probabilities (B, E), float32, of all tokens that lead to labels, for clips of frames (B, T, H, W, 3).

    `most`: nodes of all clips that are read together.
    """
    prefilled = model.prefill(frames)
    root = prefilled.log_probs
    _check_tokens(labels, root.shape[1])
    edges = root.new_empty((len(root), labels.num_edges))
    first = labels.from_node < 0
    edges[:, first] = root[:, labels.token[first].to(root.device)]
    if isinstance(model, SignVlm) and can_branch(model):
        for part in labels.parts(max(1, most // len(root))):
            own, at = labels.behind(part.nodes)
            token = labels.token[own]
            edges[:, own] = branch_log_probs(model, prefilled, part.tokens, part.depths, part.sees(), node=at, token=token)
    else:
        _by_branches(model, prefilled, labels, edges, most)
    return edges


def rank(
    model: Writes, frames: Tensor, labels: ClosedSet, k: int = 5, *, weighing: Weighing = "mean", most: int = MOST_NODES
) -> list[Prediction]:
    """The k best labels of each clip with their probabilities among all labels: softmax over the scores of `weighing`."""
    parts = [edge_log_probs(model, some, labels, most=most) for some in frames.split(MOST_CLIPS)]
    scores = labels.label_scores(torch.cat(parts), weighing)
    best = scores.softmax(dim=1).topk(min(k, len(labels.labels)), dim=1)
    return [
        Prediction(labels.labels[ids[0]], tuple((labels.labels[i], p) for i, p in zip(ids, values, strict=True)))
        for ids, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def _by_branches(model: Writes, prefilled: Any, labels: ClosedSet, edges: Tensor, most: int) -> None:
    """Fill in all edges but the first, reading whole labels; those of like length together."""
    after: dict[int, list[int]] = {}
    for edge, node in enumerate(labels.from_node.tolist()):
        after.setdefault(node, []).append(edge)
    branches = sorted(labels.branches(), key=len)
    tokens = labels.token.tolist()
    for clip in range(len(edges)):
        known: set[int] = set()
        start = 0
        while start < len(branches):
            size = max(1, most // len(branches[start]))
            taken = branches[start : start + size]
            start += size
            ids = torch.zeros((len(taken), len(taken[-1])), dtype=torch.long)
            for row, branch in zip(ids, taken, strict=True):
                row[: len(branch)] = torch.tensor(branch)
            rows = torch.full((len(taken),), clip, device=edges.device)
            said = model.extend(prefilled, rows, ids.to(edges.device))
            for i, branch in enumerate(taken):
                for depth in range(len(branch)):
                    node = labels.node_of(branch[: depth + 1])
                    if node not in known:
                        known.add(node)
                        edges[clip, after[node]] = said[i, depth, [tokens[edge] for edge in after[node]]]


def _check_tokens(labels: ClosedSet, size: int) -> None:
    if (highest := int(labels.token.max())) >= size:
        raise DataError(f"a label has the token {highest}, and the model writes {size}: the tokenizer is another model's")


def lengths_of(labels: ClosedSet) -> dict[int, int]:
    """How many labels have how many tokens, the end included.

    >>> lengths_of(ClosedSet({"A": [5, 0], "B": [6, 7, 0], "C": [6, 0]}, end=0))
    {2: 2, 3: 1}
    """
    counts = sorted(labels.counts.tolist())
    return {length: len(list(group)) for length, group in itertools.groupby(counts)}
