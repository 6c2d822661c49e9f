"""Sentences: order, agreement of English with glosses, and words that exist."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sign_dist.synthetic.grammar import (
    LOCI,
    LONGEST,
    SHORTEST,
    Meaning,
    draw_sentence,
    english_of,
    glosses_of,
    sentence_of,
    signs_of,
    translation_words,
)
from sign_dist.synthetic.lexicon import LEXICON
from sign_dist.synthetic.words import DAYS, DOMAINS, GO, QUESTIONS

DOMAIN = st.sampled_from(tuple(DOMAINS))
SEED = st.integers(0, 2**32)
TIMES = {*DAYS, "NOW", "MORNING", "WINTER", "SUMMER"}


@given(DOMAIN, SEED, st.booleans())
def test_a_sentence_follows_the_grammar(domain, seed: int, agreement: bool) -> None:
    sentence = draw_sentence(domain, np.random.default_rng(seed), agreement=agreement)
    assert sentence == draw_sentence(domain, np.random.default_rng(seed), agreement=agreement)
    glosses = sentence.glosses
    assert SHORTEST <= len(glosses) <= LONGEST
    assert set(glosses) <= set(signs_of(domain))
    assert len(sentence.loci) == len(glosses)

    times = [place for place, gloss in enumerate(glosses) if gloss in TIMES]
    assert times == list(range(sentence.num_time)), "time comes first"
    last = [place for place, gloss in enumerate(glosses) if gloss in QUESTIONS or gloss == "NOT"]
    assert last in ([], [len(glosses) - 1]), "question word and negation come last"
    assert sentence.translation.endswith("?") == (glosses[-1] in QUESTIONS)
    people = {person.gloss for person in DOMAINS[domain].people}
    things = {thing.gloss for thing in DOMAINS[domain].things}
    where = [place for place, gloss in enumerate(glosses) if gloss in people]
    assert all(place < min(where) for place, gloss in enumerate(glosses) if where and gloss in things), "topic before comment"

    words = sentence.translation.lower().rstrip(".?").split()
    assert set(words) <= translation_words(domain)
    assert words != [gloss.lower() for gloss in glosses], "a translation is not word by word"
    if not agreement:
        assert not any(sentence.loci)


@pytest.mark.parametrize("domain", DOMAINS)
def test_the_english_is_a_function_of_the_glosses_in_another_order(domain) -> None:
    rng = np.random.default_rng(7)
    sentences = [draw_sentence(domain, rng) for _ in range(3000)]
    english: dict[tuple[str, ...], str] = {}
    for sentence in sentences:
        assert english.setdefault(sentence.glosses, sentence.translation) == sentence.translation
    assert len(english) > 2000
    assert {gloss for glosses in english for gloss in glosses} == set(signs_of(domain)), "every sign is used"
    repeated = [g for g in english if any(a == b for a, b in pairwise(g))]
    assert len(repeated) > 0.1 * len(english), "plurals are repeated glosses"

    moved = 0
    for glosses, text in english.items():
        words = text.lower().rstrip(".?").split()
        places = [words.index(gloss.lower()) for gloss in dict.fromkeys(glosses) if gloss.lower() in words]
        moved += places != sorted(places)
    assert moved > 0.6 * len(english), "most sentences have another order"


def test_tense_number_and_person_are_right() -> None:
    daily = DOMAINS["daily"]
    me, you, she, friend = daily.people[:4]
    buy = next(verb for verb in daily.verbs if verb.gloss == "BUY")
    letter = next(thing for thing in daily.things if thing.gloss == "LETTER")
    give = daily.giving[0]
    market = daily.places[0]
    cases = [
        (Meaning("act", ("YESTERDAY",), friend, buy, letter, "plural"), "The friend bought the letters yesterday."),
        (Meaning("act", ("TOMORROW", "MORNING"), me, buy, letter), "I will buy the letter tomorrow morning."),
        (Meaning("act", ("NOW",), me, buy, letter, negated=True), "I am not buying the letter right now."),
        (Meaning("act", (), she, buy, letter, negated=True), "She does not buy the letter."),
        (Meaning("act", (), None, buy, letter, question="WHO"), "Who buys the letter?"),
        (Meaning("act", ("YESTERDAY",), you, buy, question="WHAT"), "What did you buy yesterday?"),
        (Meaning("give", ("TOMORROW",), friend, give, letter, recipient=me), "The friend will give me the letter tomorrow."),
        (Meaning("go", ("YESTERDAY",), she, GO, place=market, negated=True), "She did not go to the market yesterday."),
        (Meaning("be", ("YESTERDAY",), thing=letter, number="plural", adjective=("OLD", "old")), "The letters were old yesterday."),
        (Meaning("be", ("TOMORROW",), thing=letter, question="WHERE"), "Where will the letter be tomorrow?"),
        (Meaning("there", thing=letter, adjective=("OLD", "old"), place=market), "There is an old letter at the market."),
    ]
    for meaning, text in cases:
        assert english_of(meaning) == text
    assert glosses_of(cases[0][0]) == ("YESTERDAY", "LETTER", "LETTER", "FRIEND", "BUY")

    towards = sentence_of(Meaning("give", (), friend, give, letter, recipient=she), agreement=True)
    assert dict(zip(towards.glosses, towards.loci, strict=True)) == {
        "LETTER": 0,
        "FRIEND": 0,
        "SHE": LOCI["SHE"],
        "GIVE": LOCI["SHE"],
    }


def test_domains_share_some_words_and_all_are_signs() -> None:
    daily, lesson = (set(signs_of(domain)) for domain in ("daily", "lesson"))
    assert daily | lesson <= {sign.gloss for sign in LEXICON}
    assert min(len(daily & lesson), len(daily - lesson), len(lesson - daily)) >= 10
