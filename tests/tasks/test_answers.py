"""What a written text means: the label itself, however it is set, and nothing that must be guessed."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sign_dist.tasks.answers import Answers, cleaned, write

words = st.text(st.sampled_from("abcdé ÄZ"), min_size=1, max_size=8).filter(str.strip)


@given(st.lists(words, min_size=1, max_size=6, unique=True))
def test_every_label_means_itself(labels):
    answers = Answers(labels)
    assert [answers.label_of(label) for label in labels] == labels


@given(words, st.sampled_from(["{}.", '"{}"', " {} ", "**{}**", "{}!\n"]), st.booleans())
def test_marks_and_case_around_a_label_say_nothing(word, frame, upper):
    text = frame.format(word.upper() if upper else word)
    assert cleaned(cleaned(text)) == cleaned(text)
    if cleaned(word):
        assert Answers([word]).label_of(text) == word


@pytest.mark.parametrize("text", ["", "?", "The sign is BOOK", "BOOKS", "BOOK MILK"])
def test_what_is_no_label_means_none(text):
    assert Answers(["BOOK", "MILK"]).label_of(text) == ""


def test_two_labels_that_look_alike_are_told_apart_by_their_exact_text_alone():
    answers = Answers(["TURKEY", "turkey", "THANK-YOU"])
    assert [answers.label_of(text) for text in ("TURKEY", "turkey", "Turkey", "thank you")] == ["TURKEY", "turkey", "", "THANK-YOU"]


def test_texts_come_best_first_and_few_beams_are_held_at_a_time():
    class Echo:
        tokens = type("T", (), {"decode": staticmethod(lambda ids: "".join(map(chr, ids)))})
        held: list[int] = []

        def generate(self, frames, beams=1, max_new=16):
            self.held.append(len(frames) * beams)
            return [[([65 + i], -float(beams - i)) for i in range(beams)] for _ in frames]

    model = Echo()
    assert write(model, torch.zeros(5, 1), beams=3, max_new=4) == [("C", "B", "A")] * 5
    assert max(model.held) <= 8
