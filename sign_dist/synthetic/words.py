"""What the glosses of the grammar mean: classes of words, their English forms, and the domains they belong to.

The English is that of the translations only. Two domains share pronouns, times, questions and some verbs, and differ in
people, things and places, so that a model trained on one can be carried over to the other.
"""

from dataclasses import dataclass
from typing import Final, Literal

DomainName = Literal["daily", "lesson"]
Number = Literal["singular", "plural", "mass"]


@dataclass(frozen=True)
class Noun:
    """A thing that can be spoken about; mass nouns are never repeated."""

    gloss: str
    singular: str
    plural: str = ""
    mass: bool = False

    def form(self, number: Number) -> str:
        """The word in this number; a regular plural where none is given."""
        return (self.plural or f"{self.singular}s") if number == "plural" else self.singular


@dataclass(frozen=True)
class Person:
    """Who acts: a pronoun, or a noun with its article."""

    gloss: str
    subject: str
    object: str
    first_or_second: bool = False  # takes "do" and "have", not "does" and "has"


@dataclass(frozen=True)
class Place:
    """Where something is, and where one goes."""

    gloss: str
    at: str
    to: str


@dataclass(frozen=True)
class Verb:
    """English forms; `stative` verbs do not go into the progressive."""

    gloss: str
    base: str
    third: str
    past: str
    ing: str
    stative: bool = False


@dataclass(frozen=True)
class Domain:
    """A world to speak about."""

    name: DomainName
    people: tuple[Person, ...]
    things: tuple[Noun, ...]
    places: tuple[Place, ...]
    verbs: tuple[Verb, ...]  # with one object
    giving: tuple[Verb, ...]  # with an object and a recipient
    adjectives: tuple[tuple[str, str], ...]  # gloss, English
    seasons: tuple[tuple[str, str], ...]  # habitual times: gloss, English

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Every gloss that its sentences can hold, sorted."""
        words = (*self.people, *self.things, *self.places, *self.verbs, *self.giving)
        pairs = (*self.adjectives, *self.seasons)
        found = {word.gloss for word in words} | {gloss for gloss, _ in pairs} | {*DAYS, "NOW", "MORNING", "GO", "NOT", *QUESTIONS}
        return tuple(sorted(found))


DAYS: Final = ("YESTERDAY", "TOMORROW")
QUESTIONS: Final = ("WHO", "WHAT", "WHERE", "WHY")
GO: Final = Verb("GO", "go", "goes", "went", "going")

_PRONOUNS = (
    Person("ME", "I", "me", first_or_second=True),
    Person("YOU", "you", "you", first_or_second=True),
    Person("SHE", "she", "her"),
)
_GIVING = (Verb("GIVE", "give", "gives", "gave", "giving"), Verb("SHOW", "show", "shows", "showed", "showing"))
_SEE = Verb("SEE", "see", "sees", "saw", "seeing", stative=True)
_ADJECTIVES = (("OLD", "old"), ("NEW", "new"), ("BIG", "big"))


def _person(gloss: str, word: str) -> Person:
    return Person(gloss, f"the {word}", f"the {word}")


DOMAINS: Final[dict[DomainName, Domain]] = {
    "daily": Domain(
        name="daily",
        people=(*_PRONOUNS, _person("FRIEND", "friend"), _person("PAINTER", "painter"), _person("SISTER", "sister")),
        things=(
            Noun("BREAD", "bread", mass=True),
            Noun("HONEY", "honey", mass=True),
            Noun("LETTER", "letter"),
            Noun("CANDLE", "candle"),
            Noun("BIRD", "bird"),
            Noun("LANTERN", "lantern"),
        ),
        places=(
            Place("MARKET", "at the market", "to the market"),
            Place("VILLAGE", "in the village", "to the village"),
            Place("RIVER", "by the river", "to the river"),
            Place("GARDEN", "in the garden", "into the garden"),
            Place("HOUSE", "in the house", "into the house"),
        ),
        verbs=(
            _SEE,
            Verb("LIKE", "like", "likes", "liked", "liking", stative=True),
            Verb("BUY", "buy", "buys", "bought", "buying"),
            Verb("BRING", "bring", "brings", "brought", "bringing"),
            Verb("LOSE", "lose", "loses", "lost", "losing"),
        ),
        giving=_GIVING,
        adjectives=(*_ADJECTIVES, ("COLD", "cold")),
        seasons=(("WINTER", "in winter"), ("SUMMER", "in summer")),
    ),
    "lesson": Domain(
        name="lesson",
        people=(*_PRONOUNS, _person("TEACHER", "teacher"), _person("STUDENT", "student"), _person("FRIEND", "friend")),
        things=(
            Noun("STONE", "stone"),
            Noun("FEATHER", "feather"),
            Noun("COMPASS", "compass", "compasses"),
            Noun("MIRROR", "mirror"),
            Noun("WINDOW", "window"),
            Noun("BRIDGE", "bridge"),
            Noun("LANTERN", "lantern"),
        ),
        places=(
            Place("SCHOOL", "at school", "to school"),
            Place("FOREST", "in the forest", "into the forest"),
            Place("MOUNTAIN", "on the mountain", "up the mountain"),
            Place("OCEAN", "by the ocean", "to the ocean"),
            Place("ISLAND", "on the island", "to the island"),
        ),
        verbs=(
            _SEE,
            Verb("DRAW", "draw", "draws", "drew", "drawing"),
            Verb("CUT", "cut", "cuts", "cut", "cutting"),
            Verb("CLEAN", "clean", "cleans", "cleaned", "cleaning"),
            Verb("BUILD", "build", "builds", "built", "building"),
        ),
        giving=_GIVING,
        adjectives=(*_ADJECTIVES, ("HEAVY", "heavy")),
        seasons=(("SUMMER", "in summer"),),
    ),
}
