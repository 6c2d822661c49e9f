"""Scores of a closed set equal those of every label read alone, however the tree is cut up and read."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sign_dist.errors import DataError
from sign_dist.models.internvl import InternVlPictures, tiny_config, tiny_internvl, tiny_tokenizer
from sign_dist.models.vlm import Prefilled, SignVlm
from sign_dist.models.vlm_tokens import VlmTokens
from sign_dist.models.vlm_tree import can_branch
from sign_dist.tasks.closed_set import ClosedSet, edge_log_probs, rank
from sign_dist.tasks.trie import LabelTrie, score_labels

END, SIZE = 0, 7
GLOSSES = ["BOOK", "BOOKCASE", "BOOKCASES", "BOO", "MILK", "MILKMAN", "THANK-YOU", "THANK", "A", "Mother in law", "MOTHER"]
token_lists = st.lists(st.lists(st.integers(1, SIZE - 1), min_size=1, max_size=5).map(tuple), min_size=1, max_size=14, unique=True)


class Text:
    """A model whose next token depends on the clip and on all that was written before, by random tables."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rows = 0

    def prefill(self, frames):
        return Prefilled(None, torch.stack([self.next(clip, ()) for clip in range(len(frames))]), 0)

    def extend(self, prefilled, rows, ids):
        self.rows += ids.numel()
        both = zip(rows.tolist(), ids.tolist(), strict=True)
        return torch.stack([torch.stack([self.next(clip, row[: i + 1]) for i in range(len(row))]) for clip, row in both])

    def next(self, clip, prefix):
        generator = torch.Generator().manual_seed(hash((self.seed, clip, *prefix)) % 2**63)
        return (2 * torch.randn(SIZE, generator=generator)).log_softmax(-1)


def closed(lists):
    return ClosedSet({f"label {i}": [*tokens, END] for i, tokens in enumerate(lists)}, end=END)


def alone(model, clip, tokens):
    """Log-probability of a label's tokens and the end, one after the other."""
    whole = [*tokens, END]
    return math.fsum(model.next(clip, whole[:depth])[token].item() for depth, token in enumerate(whole))


@given(token_lists, st.integers(0, 10**6), st.integers(1, 12))
@settings(deadline=None, max_examples=60)
def test_scores_equal_brute_force(lists, seed, most):
    model, labels = Text(seed), closed(lists)
    edges = edge_log_probs(model, torch.zeros(2, 1, 1, 1, 3), labels, most=most)
    for clip in range(2):
        wanted = torch.tensor([alone(model, clip, tokens) for tokens in lists])
        assert labels.label_scores(edges, "sum")[clip].tolist() == pytest.approx(wanted.tolist(), abs=1e-5)
        counts = torch.tensor([len(tokens) + 1 for tokens in lists])
        assert labels.label_scores(edges, "mean")[clip].tolist() == pytest.approx((wanted / counts).tolist(), abs=1e-5)
        shared = score_labels(
            LabelTrie({f"label {i}": tokens for i, tokens in enumerate(lists)}, end=END),
            lambda prefixes, clip=clip: torch.stack([model.next(clip, prefix) for prefix in prefixes]).numpy(),
            length_penalty=0,
            among_labels=True,
        )
        found = dict(zip(labels.labels, labels.label_scores(edges, "choices")[clip].tolist(), strict=True))
        assert found == pytest.approx({score.label: score.log_prob for score in shared}, abs=1e-5)


@given(token_lists, st.integers(0, 10**6))
@settings(deadline=None, max_examples=40)
def test_shares_of_choices_sum_to_one_and_are_never_below_what_the_model_says(lists, seed):
    labels = closed(lists)
    edges = edge_log_probs(Text(seed), torch.zeros(1, 1, 1, 1, 3), labels)
    shares = labels.label_scores(edges, "choices")
    assert shares.exp().sum().item() == pytest.approx(1.0, abs=1e-5)
    assert (shares >= labels.label_scores(edges, "sum") - 1e-5).all()


@given(token_lists, st.integers(1, 20))
def test_parts_of_the_tree_hold_every_node_with_its_ancestors_before_it(lists, most):
    labels = closed(lists)
    seen: set[int] = set()
    for part in labels.parts(most):
        seen |= set(part.nodes)
        assert len(part.nodes) <= max(most, labels.longest)
        for i, (parent, depth) in enumerate(zip(part.parents.tolist(), part.depths.tolist(), strict=True)):
            assert parent < i
            assert depth == (0 if parent < 0 else part.depths[parent] + 1)
        assert part.sees().sum(dim=1).tolist() == (part.depths + 1).tolist()
    assert seen == set(range(labels.num_nodes))


def test_a_shared_beginning_is_read_fewer_times_than_labels_have_it():
    lists = [(1, 2, 3), (1, 2), (1,), (1, 2, 3, 4)]
    model = Text(0)
    edge_log_probs(model, torch.zeros(1, 1, 1, 1, 3), closed(lists))
    assert model.rows == 4


def test_an_edge_without_probability_is_last_under_every_weighing():
    class Certain(Text):
        def next(self, clip, prefix):
            return torch.tensor([0.5, 0.5, *[0.0] * (SIZE - 2)]).log()

    edges = edge_log_probs(Certain(0), torch.zeros(1, 1, 1, 1, 3), labels := closed([(1,), (2, 3)]))
    for weighing in ("sum", "mean", "choices"):
        first, second = labels.label_scores(edges, weighing)[0].tolist()
        assert math.isfinite(first)
        assert second == -math.inf


def test_length_alone_decides_a_sum_and_neither_of_the_others():
    """Three tokens of which two leave no choice, at 0.9 each, against one token: equally likely at the only choice there is."""
    labels = ClosedSet({"SHORT": [1, END], "LONG": [2, 3, 4, END]}, end=END)
    edge = {(-1, 1): 0.45, (-1, 2): 0.45}
    said = [edge.get((node, token), 0.9) for node, token in zip(labels.from_node.tolist(), labels.token.tolist(), strict=True)]
    scores = {weighing: labels.label_scores(torch.tensor([said]).log(), weighing)[0] for weighing in ("sum", "mean", "choices")}
    assert scores["sum"][0] > scores["sum"][1]
    assert scores["mean"][0] < scores["mean"][1]
    assert scores["choices"].tolist() == pytest.approx([math.log(0.5)] * 2)


@pytest.mark.parametrize(
    ("answers", "words"), [({}, "at least one"), ({"A": [1, 0], "a": [1, 0]}, "same tokens"), ({"A": [0]}, "needs tokens")]
)
def test_labels_that_cannot_be_told_apart_are_refused(answers, words):
    with pytest.raises(DataError, match=words):
        ClosedSet(answers, end=END)


def test_a_tokenizer_of_another_model_is_refused():
    with pytest.raises(DataError, match="another model"):
        edge_log_probs(Text(0), torch.zeros(1, 1, 1, 1, 3), ClosedSet({"A": [SIZE, END]}, end=END))


@pytest.fixture(scope="module")
def vlm():
    tokenizer = tiny_tokenizer(GLOSSES[:4])
    config = tiny_config(tokenizer, size_px=16, patch_px=4, width=32)
    pictures = InternVlPictures(config, tokenizer)
    return SignVlm(tiny_internvl(config, seed=3), VlmTokens(tokenizer, pictures, "Which sign?")).eval()


@pytest.mark.long
@pytest.mark.parametrize("most", [1, 9, 256])
@pytest.mark.parametrize("by_tree", [True, False])
@torch.no_grad()
def test_a_real_model_gives_each_label_what_reading_it_alone_gives(vlm, most, by_tree, monkeypatch):
    assert can_branch(vlm)
    monkeypatch.setattr(vlm.tokens.pictures, "counts_one_by_one", by_tree)
    frames = torch.randint(0, 256, (3, 2, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    labels = ClosedSet({gloss: vlm.tokens.answer(gloss) for gloss in GLOSSES}, end=vlm.tokens.end)
    assert len(set(labels.counts.tolist())) > 2
    found = labels.label_scores(edge_log_probs(vlm, frames, labels, most=most), "sum")
    prompt = vlm.tokens.prompt_ids(2)
    for column, gloss in enumerate(GLOSSES):
        answer = vlm.tokens.answer(gloss)
        ids = torch.tensor([[*prompt, *answer]]).expand(3, -1)
        said = vlm(frames, torch.full((3,), 2), ids).log_softmax(-1)[:, len(prompt) - 1 : -1]
        wanted = said.gather(2, torch.tensor(answer).expand(3, -1)[..., None]).sum(dim=(1, 2))
        assert found[:, column].tolist() == pytest.approx(wanted.tolist(), abs=1e-5)
    best = rank(vlm, frames, labels, k=3, weighing="sum")
    assert [p.hypothesis for p in best] == [GLOSSES[i] for i in found.argmax(dim=1).tolist()]
    assert [p.scores[0][1] for p in best] == pytest.approx(found.softmax(1).amax(1).tolist())
