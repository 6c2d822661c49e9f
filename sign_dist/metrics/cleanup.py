"""What evaluations of each corpus do to gloss sequences before they count errors. Which one was used belongs beside every WER.

- `phoenix2014`: the official evaluation of RWTH-PHOENIX-Weather 2014 (Koller, Forster and Ney 2015). It changes hypotheses only,
  word by word (`sign_dist.data.normalize.phoenix2014`), against the official `.stm` references, and scores a hypothesis without a
  word as the single word [EMPTY]. Later work runs it on 2014 T and CSL-Daily, too.
- `phoenix2014-slt` and `phoenix2014T`: the rules for whole sentences of neccam/slt (Camgoz et al., CVPR 2020), for references and
  hypotheses. They also write spelled letters as one word and merge repeats: they give other numbers than the official ones.
- `csl_daily`: blanks only. The script above is run on CSL-Daily by published work, and has no rule that fits a Chinese gloss.
"""

import dataclasses
import itertools
import re
from collections.abc import Callable, Sequence

from sign_dist.data.normalize import one_blank
from sign_dist.data.normalize import phoenix2014 as official_word
from sign_dist.errors import SettingsError, did_you_mean

EMPTY = "[EMPTY]"

Rule = tuple[re.Pattern[str], str]


@dataclasses.dataclass(frozen=True)
class Cleanup:
    """One corpus's rules. `empty` replaces a hypothesis without a word."""

    name: str
    reference: Callable[[str], str]
    hypothesis: Callable[[str], str]
    empty: str = ""

    def apply(self, references: Sequence[str], hypotheses: Sequence[str]) -> tuple[list[str], list[str]]:
        """Both sides as they are to be compared."""
        return [self.reference(r) for r in references], [self.hypothesis(h) or self.empty for h in hypotheses]


def words_of_phoenix2014(hypothesis: str) -> str:
    """The official evaluation's words of a hypothesis.

    >>> words_of_phoenix2014("__ON__ loc-SUEDRAUM __PU__ cl-KOMMEN-PLUSPLUS")
    '__ON__ SUED KOMMEN'
    """
    return " ".join(filter(None, map(official_word, hypothesis.split())))


def _rules(*pairs: tuple[str, str]) -> tuple[Rule, ...]:
    return tuple((re.compile(pattern), by) for pattern, by in pairs)


# Spelled words: letters, SCH and NN are joined by +. The rules run in this order, and once each, so that of a run of letters at
# the start of a sentence the first may stay alone: that is how the published numbers were made.
_PAIR = (r"([ +][A-Z]) ([A-Z][ +])", r"\1+\2")
_SPELLING = _rules(
    (r"^([A-Z]) ([A-Z][+ ])", r"\1+\2"),
    (r"[ +]([A-Z]) ([A-Z]) ", r" \1+\2 "),
    _PAIR,
    _PAIR,
    _PAIR,
    (r"([ +]SCH) ([A-Z][ +])", r"\1+\2"),
    (r"([ +]NN) ([A-Z][ +])", r"\1+\2"),
    (r"([ +][A-Z]) (NN[ +])", r"\1+\2"),
    (r"([ +][A-Z]) ([A-Z])$", r"\1+\2"),
)
_AUSSEHEN = _rules((r"WIE AUSSEHEN", "WIE-AUSSEHEN"))
_SLT_2014 = (
    *_rules((r"(?:loc|cl|qu|poss|lh)-", ""), (r"S0NNE", "SONNE"), (r"HABEN2", "HABEN")),
    *_rules((r"__(?:EMOTION|PU|LEFTHAND|EPENTHESIS)__", "")),
    *_AUSSEHEN,
    *_rules((r"ZEIGEN( |$)", r"ZEIGEN-BILDSCHIRM\1")),
    *_SPELLING,
    *_rules((r"([A-Z][A-Z])RAUM", r"\1"), (r"-PLUSPLUS", "")),
)
_SLT_2014T = (
    *_rules((r"__(?:LEFTHAND|EPENTHESIS|EMOTION)__", ""), (r"\b__[^_ ]*__\b", "")),
    *_rules((r"\bloc-([^ ]*)\b", r"\1"), (r"\bcl-([^ ]*)\b", r"\1")),
    *_rules((r"\b([^ ]*)-PLUSPLUS\b", r"\1"), (r"\b([A-Z][A-Z]*)RAUM\b", r"\1")),
    *_AUSSEHEN,
    *_SPELLING,
)
# A word of capitals beside its like, also where one of them is the end or the start of a spelled word. Four times, as in slt:
# what is left of longer runs falls to the merging of equal words that follows.
_REPEATED = _rules((r"(?<![\w-])([A-Z]+) \1(?![\w-])", r"\1")) * 4


def merge_repeats(sentence: str) -> str:
    """Equal words that stand beside each other, once: what published decoders do to their answers.

    >>> merge_repeats("REGEN REGEN SONNE REGEN")
    'REGEN SONNE REGEN'
    """
    return " ".join(word for word, _ in itertools.groupby(sentence.split()))


def slt_phoenix2014(sentence: str) -> str:
    """A sentence of PHOENIX 2014 as neccam/slt cleans it.

    >>> slt_phoenix2014("loc-NORD loc-NORD WIE AUSSEHEN ZEIGEN")
    'NORD WIE-AUSSEHEN ZEIGEN-BILDSCHIRM'
    """
    return _by_rules(sentence, _SLT_2014)


def slt_phoenix2014t(sentence: str) -> str:
    """A sentence of PHOENIX 2014 T as neccam/slt cleans it.

    >>> slt_phoenix2014t("__ON__ loc-NORD loc-NORD poss-EUCH ZEIGEN")
    'NORD poss-EUCH ZEIGEN'
    """
    return _by_rules(sentence, _SLT_2014T)


CLEANUPS = {
    cleanup.name: cleanup
    for cleanup in (
        Cleanup("none", one_blank, one_blank),
        Cleanup("phoenix2014", one_blank, words_of_phoenix2014, EMPTY),
        Cleanup("phoenix2014-slt", slt_phoenix2014, slt_phoenix2014),
        Cleanup("phoenix2014T", slt_phoenix2014t, slt_phoenix2014t),
        Cleanup("csl_daily", one_blank, one_blank),
    )
}


def cleanup_named(name: str) -> Cleanup:
    """Raises SettingsError for a name that there is not."""
    if name not in CLEANUPS:
        raise SettingsError(f"no clean-up {name!r}: there are {', '.join(CLEANUPS)};{did_you_mean(name, CLEANUPS)}".rstrip(";"))
    return CLEANUPS[name]


def _by_rules(sentence: str, rules: Sequence[Rule]) -> str:
    # slt strips the ends but leaves runs of blanks until the spelling is done.
    cleaned = sentence.strip()
    for pattern, by in rules:
        cleaned = pattern.sub(by, cleaned)
    cleaned = re.sub(r" +", " ", cleaned)
    for pattern, by in _REPEATED:
        cleaned = pattern.sub(by, cleaned)
    return merge_repeats(cleaned)
