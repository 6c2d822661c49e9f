"""Why a score is bad: what is broken rather than hard. Each check gives findings with numbers and a remedy, or nothing.

A loss that falls beside a word error rate of 100 % is most often one of these: a network that answers only the blank, labels
that do not fit into the features, a vocabulary that is another one than the model's, or a split that lacks classes.
"""

import collections
import dataclasses
import itertools
from collections.abc import Collection, Mapping, Sequence

# A trained network answers the blank most of the time; a collapsed one all of it.
COLLAPSED_SHARE = 0.99
FEW_EMPTY = 0.05
ONE_ANSWER_SHARE = 0.5
NAMED = 5
"""How many clips or glosses a finding names."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something that is wrong with `count` of `total`; `names` are the first of them."""

    code: str
    text: str
    remedy: str
    count: int
    total: int
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        named = f" ({', '.join(self.names)}{', ...' if self.count > len(self.names) else ''})" if self.names else ""
        return f"{self.text}{named}: {self.remedy}"


def frames_needed(label: Sequence[str]) -> int:
    """Fewest frames that CTC can spell a label with: one per gloss, and a blank between equal neighbours.

    >>> frames_needed(["REGEN", "REGEN", "SONNE"])
    4
    """
    return len(label) + sum(a == b for a, b in itertools.pairwise(label))


def blank_collapse(ids: Sequence[str], blank_shares: Sequence[float]) -> list[Finding]:
    """`blank_shares`: of each clip's frames, the share whose most probable class is the blank."""
    _check(ids, blank_shares)
    collapsed = [i for i, share in zip(ids, blank_shares, strict=True) if share >= COLLAPSED_SHARE]
    if not collapsed or len(collapsed) < len(ids) / 2:
        return []
    mean = sum(blank_shares) / len(blank_shares)
    return [
        _finding(
            "blank_collapse",
            f"the blank wins {mean:.1%} of frames, and all of them in {len(collapsed)} of {len(ids)} clips",
            "the network has learned to answer nothing; train longer or with a higher learning rate, and check that the "
            "vocabulary is the one the labels were made with and that features are not all alike",
            collapsed,
            len(ids),
        )
    ]


def empty_hypotheses(ids: Sequence[str], references: Sequence[str], hypotheses: Sequence[str]) -> list[Finding]:
    """Clips that show something and were answered with nothing; a few are no finding."""
    _check(ids, references, hypotheses)
    asked = [(i, h) for i, r, h in zip(ids, references, hypotheses, strict=True) if r.strip()]
    empty = [i for i, hypothesis in asked if not hypothesis.strip()]
    if not empty or len(empty) <= FEW_EMPTY * len(asked):
        return []
    return [
        _finding(
            "empty_hypotheses",
            f"{len(empty)} of {len(asked)} clips have an empty hypothesis",
            "look for a collapse to the blank, for clips that failed to decode, or for a hypothesis file of another split",
            empty,
            len(asked),
        )
    ]


def one_answer(ids: Sequence[str], references: Sequence[str], hypotheses: Sequence[str]) -> list[Finding]:
    """One and the same hypothesis for most clips, though the references differ."""
    _check(ids, references, hypotheses)
    answers = collections.Counter(h for h in hypotheses if h.strip())
    if len(ids) < 2 * NAMED or not answers:
        return []
    answer, count = answers.most_common(1)[0]
    asked = collections.Counter(references)[answer]
    if count < ONE_ANSWER_SHARE * len(ids) or asked >= ONE_ANSWER_SHARE * len(ids):
        return []
    return [
        _finding(
            "one_answer",
            f"{count} of {len(ids)} clips are answered {answer!r:.60}, which is right for {asked}",
            "the model ignores its input; check that features belong to their clips, and train without what was frozen",
            [i for i, h in zip(ids, hypotheses, strict=True) if h == answer],
            len(ids),
        )
    ]


def too_short(ids: Sequence[str], num_features: Sequence[int], labels: Sequence[Sequence[str]]) -> list[Finding]:
    """Clips whose label CTC cannot spell within their features: their loss is infinite.

    `num_features`: steps that reach the loss, so after any pooling over time.
    """
    _check(ids, num_features, labels)
    needs = [frames_needed(label) for label in labels]
    short = [i for i, has, need in zip(ids, num_features, needs, strict=True) if has < need]
    if not short:
        return []
    gap = max(need - has for has, need in zip(num_features, needs, strict=True))
    return [
        _finding(
            "too_short",
            f"{len(short)} of {len(ids)} clips have fewer feature steps than their label needs, up to {gap} too few",
            "sample more frames per second, pool less over time, or leave these clips out",
            short,
            len(ids),
        )
    ]


def missing_classes(
    vocabulary: Collection[str],
    references: Sequence[str],
    hypotheses: Sequence[str] = (),
    *,
    trained: Mapping[str, int] | None = None,
) -> list[Finding]:
    """Glosses that are asked but not in the vocabulary, that have no training clip, or that are never answered.

    References and hypotheses are sequences of glosses with blanks between them; in isolated recognition a gloss that holds a
    blank counts as itself if the vocabulary has it. `trained` counts training clips per gloss.
    """
    known = set(vocabulary)
    asked = {gloss for reference in references for gloss in _glosses(reference, known)}
    found: list[Finding] = []
    if unknown := sorted(asked - known):
        found.append(
            _finding(
                "outside_vocabulary",
                f"{len(unknown)} of {len(asked)} glosses of the references are not in the vocabulary",
                "the model can never answer them; use the vocabulary of this corpus, or state how many words they cost",
                unknown,
                len(asked),
            )
        )
    if trained is not None and (untrained := sorted(g for g in known if not trained.get(g))):
        found.append(
            _finding(
                "no_training_clips",
                f"{len(untrained)} of {len(known)} glosses of the vocabulary have no training clip",
                "leave them out of the vocabulary, or divide the corpus so that each gloss is in train",
                untrained,
                len(known),
            )
        )
    answered = {gloss for hypothesis in hypotheses for gloss in _glosses(hypothesis, known)}
    silent = sorted((asked & known) - answered)
    if hypotheses and len(silent) > len(asked & known) / 2:
        found.append(
            _finding(
                "never_answered",
                f"{len(silent)} of {len(asked & known)} glosses of the references are never answered",
                "the model knows only part of its classes; look at class counts, class weights and how long it trained",
                silent,
                len(asked & known),
            )
        )
    return found


def _glosses(text: str, known: Collection[str]) -> list[str]:
    return [text] if text in known else text.split()


def _finding(code: str, text: str, remedy: str, which: Sequence[str], total: int) -> Finding:
    return Finding(code, text, remedy, len(which), total, tuple(which[:NAMED]))


def _check(ids: Sequence[str], *others: Sequence[object]) -> None:
    if any(len(other) != len(ids) for other in others):
        raise ValueError(
            f"need one value per clip: got {len(ids)} clips and {', '.join(str(len(other)) for other in others)} values"
        )
