"""Sentences of invented signs, and their English.

A small grammar with what many sign languages share: time comes first and sets the tense of all that follows, the topic
comes before the comment about it, a question word and the negation come last, adjectives follow their noun, a plural is
a noun made twice (Liddell 1980, "American Sign Language Syntax"; Neidle et al. 2000, "The Syntax of American Sign
Language"; Pfau and Steinbach 2006, "Pluralization in sign and in speech"). Verbs like GIVE may be made towards the
place in space that stands for their recipient (agreement; Padden 1988).

    [time] topic [adjective] subject [recipient] verb [NOT | question word]

The English has another order, articles, tenses and helping verbs. It is a FUNCTION of the glosses: two sentences with
the same glosses have the same translation, so who reads all glosses right can translate all sentences right. The words
of the language stand in `words`; like the signs, it is nobody's language.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeVar

import numpy as np

from sign_dist.synthetic.words import DOMAINS, GO, QUESTIONS, Domain, DomainName, Noun, Number, Person, Place, Verb

_T = TypeVar("_T")
Kind = Literal["act", "give", "go", "be", "there"]

SHORTEST: Final = 2
LONGEST: Final = 8
# How often each kind of sentence is tried. Those with objects are the richest, so they are the most frequent.
WEIGHTS: Final[dict[Kind, float]] = {"act": 0.44, "give": 0.20, "go": 0.14, "be": 0.10, "there": 0.12}
# Where a person stands in the space before the signer, -1 the picture's left to 1 its right, when verbs agree.
LOCI: Final = {"ME": 0.0, "YOU": 0.0, "SHE": 1.0, "FRIEND": -1.0, "PAINTER": 1.0, "SISTER": -1.0, "TEACHER": 1.0, "STUDENT": -1.0}


@dataclass(frozen=True)
class Sentence:
    """What is signed, sign by sign, and what it means in English."""

    glosses: tuple[str, ...]
    translation: str
    loci: tuple[float, ...]  # per sign: where in space it is made, -1..1; all 0 without agreement
    num_topic: int  # so many signs, after the time, are the topic: brows are raised
    num_time: int


@dataclass(frozen=True)
class Meaning:
    """What a sentence says, before it becomes glosses or English."""

    kind: Kind
    time: tuple[str, ...] = ()
    person: Person | None = None
    verb: Verb | None = None
    thing: Noun | None = None
    number: Number = "singular"
    adjective: tuple[str, str] | None = None
    recipient: Person | None = None
    place: Place | None = None
    negated: bool = False
    question: str = ""  # a gloss of QUESTIONS


def draw_sentence(domain: DomainName, rng: np.random.Generator, *, agreement: bool = False) -> Sentence:
    """One sentence of 2 to 8 signs about `domain`; the same generator state gives the same sentence.

    >>> sentence = draw_sentence("daily", np.random.default_rng(3))
    >>> SHORTEST <= len(sentence.glosses) <= LONGEST
    True
    """
    while True:
        meaning = _draw_meaning(DOMAINS[domain], rng)
        if SHORTEST <= len(glosses_of(meaning)) <= LONGEST:
            return sentence_of(meaning, agreement=agreement)


def sentence_of(meaning: Meaning, *, agreement: bool = False) -> Sentence:
    """Glosses, translation and places in space of what is meant."""
    glosses = glosses_of(meaning)
    locus = LOCI[meaning.recipient.gloss] if agreement and meaning.recipient else 0.0
    agreeing = {meaning.recipient.gloss, meaning.verb.gloss} if meaning.recipient and meaning.verb else set[str]()
    topic = _place_glosses(meaning) if meaning.kind in ("go", "there") else _thing_glosses(meaning)
    return Sentence(
        glosses=glosses,
        translation=english_of(meaning),
        loci=tuple(locus if gloss in agreeing else 0.0 for gloss in glosses),
        num_topic=len(topic),
        num_time=len(meaning.time),
    )


def glosses_of(meaning: Meaning) -> tuple[str, ...]:
    """The signs in their order.

    >>> daily = DOMAINS["daily"]
    >>> glosses_of(Meaning("act", ("YESTERDAY",), daily.people[3], daily.verbs[2], daily.things[0], negated=True))
    ('YESTERDAY', 'BREAD', 'FRIEND', 'BUY', 'NOT')
    """
    thing, place = _thing_glosses(meaning), _place_glosses(meaning)
    person = (meaning.person.gloss,) if meaning.person else ()
    recipient = (meaning.recipient.gloss,) if meaning.recipient else ()
    verb = (meaning.verb.gloss,) if meaning.verb else ()
    last = ("NOT",) if meaning.negated else (meaning.question,) if meaning.question else ()
    topic = place + thing if meaning.kind in ("go", "there") else thing
    return meaning.time + topic + person + recipient + verb + last


def english_of(meaning: Meaning) -> str:
    """The translation: a sentence with a capital letter and a stop or a question mark.

    >>> daily = DOMAINS["daily"]
    >>> english_of(Meaning("act", ("YESTERDAY",), daily.people[3], daily.verbs[2], daily.things[0], negated=True))
    'The friend did not buy the bread yesterday.'
    """
    match meaning.kind:
        case "be" | "there":
            words = _being(meaning)
        case _:
            words = _acting(meaning)
    text = " ".join(word for word in (*words, _when(meaning)) if word)
    return text[0].upper() + text[1:] + ("?" if meaning.question else ".")


def translation_words(domain: DomainName) -> set[str]:
    """Every English word, lower case, that translations of this domain can hold."""
    of = DOMAINS[domain]
    words = {"a", "an", "the", "there", "not", "yesterday", "tomorrow", "morning", "in", "right", "now", "this"}
    words |= {"am", "is", "are", "was", "were", "be", "will", "do", "does", "did", "to", *(q.lower() for q in QUESTIONS)}
    for person in of.people:
        words |= {*person.subject.lower().split(), *person.object.lower().split()}
    for noun in of.things:
        words |= {noun.singular, noun.form("plural")}
    for place in of.places:
        words |= {*place.at.split(), *place.to.split()}
    for verb in (*of.verbs, *of.giving, GO):
        words |= {verb.base, verb.third, verb.past, verb.ing}
    return words | {english for _, english in of.adjectives} | {word for _, english in of.seasons for word in english.split()}


def _thing_glosses(meaning: Meaning) -> tuple[str, ...]:
    if meaning.thing is None:
        return ()
    noun = (meaning.thing.gloss,) * (2 if meaning.number == "plural" else 1)
    return noun + ((meaning.adjective[0],) if meaning.adjective else ())


def _place_glosses(meaning: Meaning) -> tuple[str, ...]:
    return (meaning.place.gloss,) if meaning.place else ()


def _draw_meaning(domain: Domain, rng: np.random.Generator) -> Meaning:
    kind: Kind = tuple(WEIGHTS)[int(rng.choice(len(WEIGHTS), p=list(WEIGHTS.values())))]
    meaning = Meaning(kind, time=_draw_time(domain, rng))
    if kind != "go":
        thing = _one(domain.things, rng)
        number: Number = "mass" if thing.mass else "plural" if rng.uniform() < 0.3 else "singular"
        adjective = _one(domain.adjectives, rng) if rng.uniform() < 0.35 else None
        meaning = replace(meaning, thing=thing, number=number, adjective=adjective)
    if kind in ("act", "give", "go"):
        verb = GO if kind == "go" else _one(domain.giving if kind == "give" else domain.verbs, rng)
        meaning = replace(meaning, verb=verb, person=_one(domain.people, rng))
    if kind == "give":
        others = tuple(person for person in domain.people if person != meaning.person)
        meaning = replace(meaning, recipient=_one(others, rng))
    if kind in ("go", "there"):
        meaning = replace(meaning, place=_one(domain.places, rng))

    if kind == "be" and meaning.adjective is None:  # "the bird is" says nothing: ask where it is
        return replace(meaning, question="WHERE")
    how = rng.uniform()
    if how < 0.2:
        return replace(meaning, negated=True)
    question = _one(QUESTIONS, rng) if how < 0.5 else ""
    match kind, question:
        case (("act" | "give" | "go"), "WHO"):
            return replace(meaning, question=question, person=None)
        case "act", "WHAT":
            return replace(meaning, question=question, thing=None, number="singular", adjective=None)
        case (("act" | "give"), ("WHERE" | "WHY")):
            return replace(meaning, question=question)
        case "go", "WHERE":
            return replace(meaning, question=question, place=None)
        case "go", "WHY":
            return replace(meaning, question=question)
        case "be", "WHY":
            return replace(meaning, question=question)
        case _:
            return meaning


def _draw_time(domain: Domain, rng: np.random.Generator) -> tuple[str, ...]:
    times = ((), (), ("YESTERDAY",), ("TOMORROW",), ("NOW",), ("MORNING",), ("YESTERDAY", "MORNING"), ("TOMORROW", "MORNING"))
    return _one((*times, *((gloss,) for gloss, _ in domain.seasons)), rng)


def _one(choices: Sequence[_T], rng: np.random.Generator) -> _T:
    return choices[int(rng.integers(len(choices)))]


def _when(meaning: Meaning) -> str:
    match meaning.time:
        case ():
            return ""
        case ("NOW",):
            return "right now"
        case ("MORNING",):
            return "in the morning"
        case (day,) if day in ("YESTERDAY", "TOMORROW"):
            return day.lower()
        case (day, "MORNING"):
            return f"{day.lower()} morning"
        case _:
            return f"in {meaning.time[0].lower()}"


def _object(meaning: Meaning, *, definite: bool = True) -> str:
    """The thing with its article and adjective: "the old lanterns", "an old lantern", "honey"."""
    if meaning.thing is None:
        return ""
    word = meaning.thing.form(meaning.number)
    phrase = f"{meaning.adjective[1]} {word}" if meaning.adjective else word
    if definite:
        return f"the {phrase}"
    if meaning.number != "singular":
        return phrase
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def _acting(meaning: Meaning) -> list[str]:
    """Sentences about what somebody does."""
    verb, question = meaning.verb, meaning.question.lower()
    assert verb is not None  # `_draw_meaning` gives these kinds a verb
    rest = [meaning.recipient.object if meaning.recipient else "", _object(meaning), meaning.place.to if meaning.place else ""]
    subject = meaning.person.subject if meaning.person else ""
    plain = meaning.person is not None and meaning.person.first_or_second
    be = {"I": "am", "you": "are"}.get(subject, "is")
    match meaning.time:
        case ("YESTERDAY", *_):
            helper, form, alone = "did", verb.base, verb.past
        case ("TOMORROW", *_):
            helper, form, alone = "will", verb.base, f"will {verb.base}"
        case ("NOW",) if not verb.stative:
            helper, form, alone = be, verb.ing, f"{be} {verb.ing}"
        case _:
            helper, form, alone = ("do", verb.base, verb.base) if plain else ("does", verb.base, verb.third)
    if question and question != "who":
        return [question, helper, subject, form, *rest]
    if meaning.negated:
        return [subject, helper, "not", form, *rest]
    return [question or subject, alone, *rest]


def _being(meaning: Meaning) -> list[str]:
    """Sentences about how or where something is."""
    many = meaning.number == "plural"
    match meaning.time:
        case ("YESTERDAY", *_):
            be = ["were" if many else "was"]
        case ("TOMORROW", *_):
            be = ["will", "be"]
        case _:
            be = ["are" if many else "is"]
    negated = ["not"] if meaning.negated else []
    if meaning.kind == "there":
        assert meaning.place is not None  # `_draw_meaning` gives this kind a place
        return ["there", be[0], *negated, *be[1:], _object(meaning, definite=False), meaning.place.at]
    plain = _object(replace(meaning, adjective=None))
    quality = [meaning.adjective[1]] if meaning.adjective else []
    if meaning.question == "WHERE":
        return ["where", be[0], plain, *be[1:]]
    if meaning.question:
        return [meaning.question.lower(), be[0], plain, *be[1:], *quality]
    return [plain, be[0], *negated, *be[1:], *quality]


def signs_of(domain: DomainName) -> tuple[str, ...]:
    """The vocabulary of a domain, sorted: all of it are signs of the lexicon."""
    return DOMAINS[domain].vocabulary
