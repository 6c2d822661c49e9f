"""The task of signs as answers: what is learned of a chat, token by token; what is a clip's loss; what is answered."""

import string
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from sign_dist.data.sample import Sample
from sign_dist.data.vocab import Vocab
from sign_dist.errors import DataError
from sign_dist.models.translator import PADDING
from sign_dist.models.vlm import SignVlm
from sign_dist.models.vlm_source import tiny_tokens, tiny_vlm
from sign_dist.tasks.task import Example
from sign_dist.tasks.vlm import VlmTask, chat

PROMPT = "Which sign?"
VOCAB = Vocab.of(["BOOK", "THANK YOU", "ÄRZTIN"])
SIZES: dict[str, Any] = {"size_px": 32, "patch_px": 8}
GLOSSES = st.text(string.ascii_uppercase + string.digits + " -'ÄÖÜßł手", min_size=1, max_size=12).map(str.strip).filter(bool)


def model_of(**values: Any) -> SignVlm:
    return tiny_vlm(VOCAB.glosses, PROMPT, **SIZES, width=32, depth=1, **values).eval()


def clips(glosses: list[str], num_frames: int = 2, seed: int = 0) -> list[Example]:
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (len(glosses), num_frames, 32, 32, 3), dtype=np.uint8)
    return [Example(Sample(f"clip{i}", f"{i}.mp4", gloss=gloss), frames[i]) for i, gloss in enumerate(glosses)]


@pytest.mark.long
@given(vocab=st.sets(GLOSSES, min_size=1, max_size=8), num_frames=st.integers(1, 9), data=st.data())
@settings(max_examples=40, deadline=None)
def test_only_the_answer_and_its_end_are_learned(vocab: set[str], num_frames: int, data: st.DataObject) -> None:
    """Of every row: the prompt, token by token the gloss, the end, and padding; labels are the tokens there and nowhere else."""
    tokens = tiny_tokens(vocab, PROMPT, **SIZES)
    glosses = data.draw(st.lists(st.sampled_from(sorted(vocab)), min_size=1, max_size=4))
    prompt = tokens.prompt_ids(num_frames)
    ids, labels = chat(tokens, glosses, num_frames)
    assert ids.shape == labels.shape
    for gloss, row, label in zip(glosses, ids.tolist(), labels.tolist(), strict=True):
        answer = tokens.answer(gloss)
        end = len(prompt) + len(answer)
        assert row == [*prompt, *answer, *[tokens.pad] * (len(row) - end)]
        for place, (token, wanted) in enumerate(zip(row, label, strict=True)):
            assert wanted == (token if len(prompt) <= place < end else PADDING)
        assert label[end - 1] == tokens.end
        assert tokens.decode([token for token in label if token != PADDING]) == gloss
    assert prompt.count(tokens.pictures.image_token) == num_frames * tokens.pictures.per_frame


def test_the_prompt_has_a_place_for_every_frame_in_order_and_then_the_question() -> None:
    tokens = tiny_tokens(VOCAB.glosses, PROMPT, **SIZES)
    place = "<img>" + "<IMG_CONTEXT>" * 4 + "</img>"
    assert tokens.tokenizer.decode(tokens.prompt_ids(2)) == (
        f"<|im_start|>user\nFrame1: {place}\nFrame2: {place}\n{PROMPT}<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("gloss", ["<IMG_CONTEXT>", "A<|im_end|>", " "])
def test_what_means_something_else_to_the_model_is_no_answer(gloss: str) -> None:
    with pytest.raises(DataError, match="cannot be an answer"):
        tiny_tokens(VOCAB.glosses, PROMPT, **SIZES).answer(gloss)


def test_a_clips_loss_is_the_mean_over_its_answers_tokens() -> None:
    model = model_of()
    task = VlmTask(VOCAB, model.tokens)
    batch = task.collate(clips(["BOOK", "THANK YOU"]))
    loss = task.losses(model, batch)[0]["cross_entropy"]
    ids, labels = batch.targets.unbind(1)
    logits = model(batch.features, batch.lengths, ids)
    for i in range(2):
        places = [place for place in range(1, labels.shape[1]) if labels[i, place] != PADDING]
        wanted = torch.stack([F.cross_entropy(logits[i, place - 1], labels[i, place]) for place in places]).mean()
        torch.testing.assert_close(loss[i], wanted, atol=1e-5, rtol=1e-5)


def test_who_shares_a_batch_changes_no_loss() -> None:
    """Answers of other lengths bring padding, behind which nothing is seen."""
    model = model_of()
    task = VlmTask(VOCAB, model.tokens)
    long = Vocab.of(["A", "A VERY LONG GLOSS INDEED"])
    examples = clips([*long.glosses])
    alone = [task.losses(model, task.collate([example]))[0]["cross_entropy"] for example in examples]
    together = task.losses(model, task.collate(examples))[0]["cross_entropy"]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-5)


def test_labels_are_smoothed_in_training_only() -> None:
    """Szegedy et al. 2016: a share of every target is spread over all tokens."""
    model = model_of()
    task, plain = VlmTask(VOCAB, model.tokens, label_smoothing=0.2), VlmTask(VOCAB, model.tokens)
    batch = task.collate(clips(["BOOK"]))
    torch.testing.assert_close(
        task.losses(model, batch)[0]["cross_entropy"], plain.losses(model, batch)[0]["cross_entropy"], atol=0, rtol=0
    )
    model.train()  # it has no dropout
    losses, outputs = task.losses(model, batch)
    answer = batch.targets[0, 1]
    answer = answer[answer != PADDING]
    log_probs = outputs.logits[0].log_softmax(-1)
    hard = -log_probs[torch.arange(len(answer)), answer].mean()
    torch.testing.assert_close(losses["cross_entropy"][0], 0.8 * hard + 0.2 * -log_probs.mean())


def test_a_clip_without_a_gloss_weighs_nothing_and_is_answered() -> None:
    model = model_of()
    task = VlmTask(VOCAB, model.tokens, class_weights=[2.0, 1.0, 0.5])
    batch = task.collate(clips(["", "BOOK", "ÄRZTIN"]))
    losses, outputs = task.losses(model, batch)
    assert batch.weights.tolist() == [0.0, 2.0, 0.5]
    assert losses["cross_entropy"][0] == 0
    assert (losses["cross_entropy"][1:] > 0).all()
    assert all(p.hypothesis in VOCAB.glosses for p in task.decode(outputs, batch))


def test_scores_count_first_answers_and_the_first_five() -> None:
    model = model_of()
    task = VlmTask(VOCAB, model.tokens)
    batch = task.collate(clips(list(VOCAB.glosses)))
    predictions = task.decode(task.losses(model, batch)[1], batch)
    references = [p.hypothesis for p in predictions]
    assert task.score(references, predictions) == {"top1": 1.0, "top5": 1.0}
    assert task.score(["NONE OF THEM"] * 3, predictions) == {"top1": 0.0, "top5": 0.0}
    assert all(len(p.scores) == len(VOCAB) and abs(sum(s for _, s in p.scores) - 1) < 1e-5 for p in predictions)
