"""The signs: what a hand looks like, where it is, how it moves, where its palm faces, and what the other hand does.

Sign languages build words from a small stock of such parameters, as spoken ones do from sounds: handshape, location and
movement (Stokoe 1960, "Sign Language Structure"), palm orientation (Battison 1978), arranged as in the prosodic model
(Brentari 1998, "A Prosodic Model of Sign Language Phonology"). The glosses below are INVENTED. They belong to no sign
language that people use, and nothing learned from them says anything about one; the English-like names are only labels.
"""

from dataclasses import dataclass
from itertools import combinations
from typing import Final, Literal, get_args

Vector = tuple[float, float, float]
Shape = Literal["B", "5", "S", "1", "V", "W", "L", "Y", "I", "C", "O", "F"]  # drawn in `hand.HANDSHAPES`
Location = Literal["forehead", "temple", "eyes", "chin", "chest", "shoulder", "side", "neutral", "waist", "palm"]
Movement = Literal[
    "up", "down", "out", "forward", "arc", "circle", "tap", "shake", "zigzag", "twist", "nod", "open_close", "wiggle"
]  # drawn in `motion.stroke_path`
Orientation = Literal["out", "in", "down", "up", "side", "across"]
Hands = Literal["one", "mirrored", "alternating", "base"]

# Where the middle of a right hand goes: shoulder widths from between the shoulders; x to the right of the picture, y up,
# z towards the viewer. "shoulder" is the one of the other side, "palm" is above the flat other hand.
LOCATIONS: Final[dict[Location, Vector]] = {
    "forehead": (-0.20, 0.70, 0.45),
    "temple": (-0.42, 0.52, 0.35),
    "eyes": (-0.16, 0.48, 0.50),
    "chin": (-0.10, 0.24, 0.45),
    "chest": (-0.08, -0.28, 0.42),
    "shoulder": (0.30, -0.06, 0.42),
    "side": (-0.60, 0.08, 0.45),
    "neutral": (-0.36, -0.34, 0.60),
    "waist": (-0.30, -0.74, 0.50),
    "palm": (0.02, -0.42, 0.62),
}

# Where the fingers point and the palm faces: "out" towards the viewer, "side" towards the other hand, "across" towards the
# signer with the fingers to the other side. Slightly turned to the lens, so that no hand is a thin line.
ORIENTATIONS: Final[dict[Orientation, tuple[Vector, Vector]]] = {
    "out": ((0.10, 1.00, 0.05), (0.10, 0.00, 1.00)),
    "in": ((0.25, 1.00, 0.10), (0.15, 0.00, -1.00)),
    "down": ((0.60, 0.25, 0.60), (0.00, -1.00, 0.35)),
    "up": ((0.60, -0.05, 0.60), (0.00, 1.00, 0.45)),
    "side": ((0.10, 0.85, 0.45), (1.00, 0.00, 0.45)),
    "across": ((1.00, 0.15, 0.15), (0.10, 0.00, -1.00)),
}

# The handshape that the "open_close" movement alternates with.
COUNTERPARTS: Final[dict[str, str]] = {"S": "5", "O": "5", "V": "S"}


@dataclass(frozen=True)
class Sign:
    """One invented sign of a right-handed signer.

    `hands`: "one"; "mirrored" and "alternating" for two equal hands moving together or in turns (Battison's symmetry
    condition); "base" for a moving hand on a still, flat one (his dominance condition).
    """

    gloss: str
    handshape: Shape
    location: Location
    movement: Movement
    orientation: Orientation
    hands: Hands = "one"

    @property
    def parameters(self) -> tuple[str, str, str, str, str]:
        """All that tells this sign from another, without its name."""
        return self.handshape, self.location, self.movement, self.orientation, self.hands


# Ordered by farthest-point selection over joint paths: each sign is as far as could be from all before it, so that the
# first n are well told apart for any n. New signs are added at the end: the first n stay what they are.
LEXICON: Final[tuple[Sign, ...]] = (
    Sign("HELLO", "5", "side", "shake", "out", "mirrored"),
    Sign("HOUSE", "F", "shoulder", "circle", "across"),
    Sign("RIVER", "B", "waist", "nod", "side", "mirrored"),
    Sign("FRIEND", "W", "chest", "zigzag", "up", "mirrored"),
    Sign("LANTERN", "C", "forehead", "twist", "out"),
    Sign("MOUNTAIN", "L", "waist", "out", "in"),
    Sign("BREAD", "I", "temple", "circle", "side", "alternating"),
    Sign("WINTER", "Y", "side", "tap", "up", "mirrored"),
    Sign("BRIDGE", "W", "temple", "nod", "side", "mirrored"),
    Sign("MUSIC", "O", "neutral", "down", "in", "alternating"),
    Sign("GARDEN", "S", "palm", "open_close", "across", "base"),
    Sign("LETTER", "S", "temple", "open_close", "in", "mirrored"),
    Sign("OCEAN", "B", "side", "zigzag", "up"),
    Sign("FOREST", "1", "chest", "circle", "across", "mirrored"),
    Sign("MORNING", "5", "shoulder", "down", "in"),
    Sign("MARKET", "L", "neutral", "shake", "down", "mirrored"),
    Sign("CANDLE", "V", "waist", "up", "side", "alternating"),
    Sign("STORY", "O", "chin", "tap", "across"),
    Sign("BIRD", "F", "neutral", "nod", "side"),
    Sign("HARVEST", "C", "chest", "arc", "across", "mirrored"),
    Sign("WINDOW", "5", "side", "circle", "out"),
    Sign("TRAIN", "I", "waist", "arc", "down", "alternating"),
    Sign("HONEY", "V", "neutral", "shake", "down"),
    Sign("CLOUD", "B", "palm", "out", "side", "base"),
    Sign("SCHOOL", "I", "side", "zigzag", "out", "mirrored"),
    Sign("ISLAND", "L", "temple", "tap", "out", "mirrored"),
    Sign("PAINTER", "Y", "chin", "arc", "in"),
    Sign("STONE", "C", "chest", "up", "up", "mirrored"),
    Sign("TEACHER", "O", "shoulder", "twist", "across"),
    Sign("SUMMER", "F", "palm", "circle", "down", "base"),
    Sign("MIRROR", "Y", "chest", "up", "out"),
    Sign("JOURNEY", "1", "shoulder", "nod", "side"),
    Sign("FEATHER", "W", "waist", "tap", "across", "mirrored"),
    Sign("COMPASS", "C", "side", "twist", "in", "mirrored"),
    Sign("VILLAGE", "O", "palm", "shake", "down", "base"),
    Sign("THUNDER", "F", "neutral", "circle", "out", "alternating"),
    # What sentences need beside nouns, chosen in the same way from one-handed and from two-handed candidates.
    Sign("ME", "O", "forehead", "circle", "down"),
    Sign("YOU", "5", "waist", "up", "across"),
    Sign("SHE", "F", "temple", "arc", "across"),
    Sign("YESTERDAY", "5", "chin", "down", "out"),
    Sign("NOW", "B", "waist", "down", "down"),
    Sign("TOMORROW", "S", "side", "out", "in"),
    Sign("WHO", "Y", "temple", "down", "up"),
    Sign("WHAT", "W", "temple", "out", "across", "alternating"),
    Sign("WHERE", "V", "temple", "up", "down"),
    Sign("WHY", "O", "chest", "zigzag", "up"),
    Sign("NOT", "5", "chest", "arc", "in"),
    Sign("SEE", "5", "waist", "zigzag", "out"),
    Sign("LIKE", "V", "side", "up", "across"),
    Sign("GIVE", "I", "temple", "arc", "in"),
    Sign("SHOW", "O", "temple", "down", "down", "mirrored"),
    Sign("GO", "W", "chin", "up", "in"),
    Sign("BUY", "5", "neutral", "arc", "across"),
    Sign("BRING", "5", "side", "down", "across", "alternating"),
    Sign("LOSE", "5", "forehead", "circle", "across"),
    Sign("DRAW", "V", "temple", "up", "up", "mirrored"),
    Sign("CUT", "O", "chest", "arc", "down"),
    Sign("CLEAN", "Y", "waist", "arc", "in", "mirrored"),
    Sign("BUILD", "W", "side", "up", "across", "alternating"),
    Sign("OLD", "5", "shoulder", "out", "out"),
    Sign("NEW", "L", "neutral", "down", "in"),
    Sign("BIG", "V", "chest", "out", "side", "mirrored"),
    Sign("COLD", "1", "forehead", "arc", "across"),
    Sign("HEAVY", "Y", "chest", "arc", "out", "alternating"),
    Sign("SISTER", "L", "waist", "arc", "up"),
    Sign("STUDENT", "Y", "temple", "out", "across", "mirrored"),
)


def alike(first: Sign, second: Sign) -> int:
    """How many of the five parameters two signs share.

    >>> alike(LEXICON[0], LEXICON[0])
    5
    """
    return sum(a == b for a, b in zip(first.parameters, second.parameters, strict=True))


def check_lexicon(signs: tuple[Sign, ...]) -> None:
    """Raises ValueError when two signs share a gloss or all parameters, or when one cannot be made."""
    for sign in signs:
        if not sign.gloss.isidentifier() or sign.gloss != sign.gloss.upper():
            raise ValueError(f"a gloss is one word of upper-case letters, got {sign.gloss!r}")
        if sign.movement == "open_close" and sign.handshape not in COUNTERPARTS:
            raise ValueError(f"{sign.gloss}: {sign.handshape} cannot open_close, only {', '.join(COUNTERPARTS)} can")
        if (sign.hands == "base") != (sign.location == "palm"):
            raise ValueError(f"{sign.gloss}: location 'palm' and hands 'base' go together")
    for first, second in combinations(signs, 2):
        if first.gloss == second.gloss or first.parameters == second.parameters:
            raise ValueError(f"{first.gloss} and {second.gloss} cannot be told apart: {first.parameters}")


def inventory() -> dict[str, tuple[str, ...]]:
    """The values of each parameter, by name."""
    return {
        "handshape": get_args(Shape),
        "location": get_args(Location),
        "movement": get_args(Movement),
        "orientation": get_args(Orientation),
        "hands": get_args(Hands),
    }
