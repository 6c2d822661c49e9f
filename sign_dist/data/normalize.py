"""Clean-up of glosses and texts, per corpus: pure functions of strings."""

import re
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

_YOUTUBE = ("youtube.com", "youtu.be", "youtube-nocookie.com")
_NOT_SIGNED = {"__EMOTION__", "__PU__", "__LEFTHAND__", "__EPENTHESIS__"}
_TYPING = {"S0NNE": "SONNE", "HABEN2": "HABEN", "ZEIGEN": "ZEIGEN-BILDSCHIRM"}


def one_blank(text: str) -> str:
    """Words with one blank between them.

    >>> one_blank("  TEMPERATUR  SUED ")
    'TEMPERATUR SUED'
    """
    return " ".join(text.split())


def upper(text: str) -> str:
    """The label of one sign, as the house writes it: upper case, `_` and runs of blanks are one blank.

    >>> upper("how_many")
    'HOW MANY'
    """
    return one_blank(text.replace("_", " ").upper())


def without_blanks(text: str) -> str:
    """Chinese text that its corpus writes with blanks between the characters.

    >>> without_blanks("他 今 年 四 岁 。")
    '他今年四岁。'
    """
    return "".join(text.split())


def phoenix2014(gloss: str) -> str:
    """One gloss of RWTH-PHOENIX-Weather 2014 as its official evaluation counts it; "" for a mark that it leaves out.

    The rules that the evaluation's shell script applies to single words: prefixes of place, classifier, question, possession
    and left hand, the suffixes -PLUSPLUS (repetition) and RAUM (region), three spellings, and marks that are no sign.
    `__ON__` and `__OFF__` stay.

    >>> [phoenix2014(g) for g in ("loc-SUEDRAUM", "cl-KOMMEN-PLUSPLUS", "__PU__", "__ON__")]
    ['SUED', 'KOMMEN', '', '__ON__']
    """
    if gloss in _NOT_SIGNED:
        return ""
    gloss = re.sub(r"(?:loc|cl|qu|poss|lh)-|-PLUSPLUS", "", gloss)
    gloss = re.sub(r"([A-Z][A-Z])RAUM$", r"\1", gloss)
    return _TYPING.get(gloss, gloss)


CLEANUPS: dict[str, Callable[[str], str]] = {"phoenix2014": phoenix2014}
"""Clean-up of one gloss, by the name that a corpus gives it."""


def youtube_id(url: str) -> str:
    """The id of a YouTube video, "" for any other address; the scheme may be missing.

    >>> youtube_id("www.youtube.com/watch?v=wX78EPtSuzU&t=4"), youtube_id("https://youtu.be/3-Kw1zUWqaA")
    ('wX78EPtSuzU', '3-Kw1zUWqaA')
    """
    try:
        parts = urlsplit(url if "://" in url else f"https://{url}")
        host = parts.hostname or ""
    except ValueError:
        return ""
    if not any(host == known or host.endswith(f".{known}") for known in _YOUTUBE):
        return ""
    video = parse_qs(parts.query).get("v", [parts.path.rstrip("/").rpartition("/")[2]])[0]
    return video if re.fullmatch(r"[\w-]{11}", video, re.ASCII) else ""


def recording(url: str) -> str:
    """Names the recording behind an address: two spellings of one YouTube address are one recording."""
    video = youtube_id(url)
    return f"youtube:{video}" if video else one_blank(url)
