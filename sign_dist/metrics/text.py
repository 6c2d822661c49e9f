"""Scores of translations: BLEU-1..4 and chrF by sacrebleu, ROUGE-L by rouge-score, METEOR by nltk, CIDEr-D by its formula.

One reference per sentence. What is counted, and why in this form:

- BLEU-n is the corpus score of n-grams up to n with its brevity penalty: the geometric mean over 1..n, not the precision of
  n-grams alone. sacrebleu, `max_ngram_order=n`, exponential smoothing, and no effective order: an order that no hypothesis is
  long enough for makes the score 0.
- ROUGE-L is the mean over sentences of F with beta 1.2, which favours recall: the form of image captioning that work on sign
  translation reports (Camgoz et al. 2018 and after). rouge-score's own F (beta 1) stands beside it.
- METEOR is the mean over sentences of Banerjee and Lavie (2005) with nltk's weights (alpha 0.9, beta 3, gamma 0.5), matching
  words and stems. Synonyms need WordNet, which is a download and English only; so there are none here, in any language. The Java
  METEOR 1.5 has other weights and gives other numbers.
- CIDEr-D (Vedantam et al. 2015), times 10, sigma 6, n-grams up to 4, without stemming: as pycocoevalcap computes it, which is not
  used itself since it brings 100 MB and has not changed since 2020. n-grams are weighed by how rare they are among the references
  at hand, so that scores of different test sets do not compare.

Words are what blanks divide, except Chinese: there each character is a word. BLEU cuts words as sacrebleu's `13a` does, or `zh`.
"""

import collections
import dataclasses
import functools
import math
from collections.abc import Sequence
from importlib import import_module  # of packages without types, which also load only where they are used
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from sign_dist.metrics import tally
from sign_dist.metrics.tally import Tally

Language = Literal["de", "en", "zh", "other"]
BLEU_ORDERS = (1, 2, 3, 4)
ROUGE_BETA = 1.2
CIDER_ORDER, CIDER_SIGMA = 4, 6.0

NGrams = collections.Counter[tuple[str, ...]]
Weighted = dict[tuple[str, ...], float]


@dataclasses.dataclass(frozen=True)
class TextScore:
    """A score, how it was computed in one line, and what each sentence adds to it."""

    name: str
    value: float
    signature: str
    tally: Tally


def words(text: str, language: Language = "en") -> list[str]:
    """Words for ROUGE-L, METEOR and CIDEr-D.

    >>> words("Guten  Abend"), words("你好 OK 吗", "zh")
    (['Guten', 'Abend'], ['你', '好', 'OK', '吗'])
    """
    if language != "zh":
        return text.split()
    parts: list[str] = []
    for piece in text.split():
        run = ""
        for character in piece:
            if character.isascii():
                run += character
                continue
            parts += [run, character] if run else [character]
            run = ""
        parts += [run] if run else []
    return parts


def bleu(references: Sequence[str], hypotheses: Sequence[str], *, language: Language = "en") -> list[TextScore]:
    """BLEU-1 to BLEU-4, 0..100."""
    _check(references, hypotheses)
    tokenizer = "zh" if language == "zh" else "13a"
    # Sentences are only counted here; effective order keeps sacrebleu from warning about their own scores.
    counter = BLEU(tokenize=tokenizer, effective_order=True)
    found = [counter.sentence_score(h, [r]) for r, h in zip(references, hypotheses, strict=True)]
    counts = [(int(s.sys_len), int(s.ref_len), list(map(int, s.counts)), list(map(int, s.totals))) for s in found]
    matches, totals = (np.array(side).sum(axis=0).tolist() for side in ([c[2] for c in counts], [c[3] for c in counts]))
    lengths = {"sys_len": sum(c[0] for c in counts), "ref_len": sum(c[1] for c in counts)}
    compute: Any = getattr(BLEU, "compute_bleu")  # noqa: B009 - it has no types
    scores: list[TextScore] = []
    for order in BLEU_ORDERS:
        value = compute(matches[:order], totals[:order], **lengths, smooth_method="exp", max_ngram_order=order).score
        signature = f"nrefs:1|case:mixed|eff:no|tok:{tokenizer}|smooth:exp|order:{order}|version:{version('sacrebleu')}"
        scores.append(TextScore(f"bleu{order}", float(value), signature, tally.of_ngrams(counts, order)))
    return scores


def chrf(references: Sequence[str], hypotheses: Sequence[str]) -> TextScore:
    """chrF2, 0..100."""
    _check(references, hypotheses)
    scorer = CHRF()
    value = float(scorer.corpus_score(list(hypotheses), [list(references)]).score)
    return TextScore("chrf", value, str(scorer.get_signature()), tally.of_characters(references, hypotheses))


def rouge_l(
    references: Sequence[str], hypotheses: Sequence[str], *, language: Language = "en", beta: float = ROUGE_BETA
) -> TextScore:
    """Mean of the sentences' F over their longest common subsequence of words, 0..1."""
    _check(references, hypotheses)
    scorer = import_module("rouge_score.rouge_scorer").RougeScorer(["rougeL"], tokenizer=_Words(language))
    values: list[float] = []
    for reference, hypothesis in zip(references, hypotheses, strict=True):
        found = scorer.score(reference, hypothesis)["rougeL"]
        below = found.recall + beta**2 * found.precision
        values.append(float((1 + beta**2) * found.precision * found.recall / below) if below else 0.0)
    name = "rouge" if beta == ROUGE_BETA else f"rouge_beta{beta:g}"
    signature = f"ROUGE-L|beta:{beta:g}|tok:{_tokens(language)}|case:mixed|rouge-score:{version('rouge-score')}"
    return TextScore(name, _mean(values), signature, tally.of_means(values))


def meteor(references: Sequence[str], hypotheses: Sequence[str], *, language: Language = "en") -> TextScore:
    """Mean of the sentences' METEOR with words and stems but no synonyms, 0..1; lower-cased."""
    _check(references, hypotheses)
    of_pair = import_module("nltk.translate.meteor_score").single_meteor_score
    stemmer, name = _stemmer(language)
    values = [
        float(of_pair(words(r, language), words(h, language), stemmer=stemmer, wordnet=_NoSynonyms()))
        for r, h in zip(references, hypotheses, strict=True)
    ]
    signature = f"METEOR|alpha:0.9|beta:3|gamma:0.5|stem:{name}|synonyms:no|tok:{_tokens(language)}|nltk:{version('nltk')}"
    return TextScore("meteor", _mean(values), signature, tally.of_means(values))


def cider(references: Sequence[str], hypotheses: Sequence[str], *, language: Language = "en") -> TextScore:
    """CIDEr-D, 0..10; the intervals of its tally keep the weights of n-grams that all the references give."""
    _check(references, hypotheses)
    sides = [[_ngrams(words(text, language)) for text in texts] for texts in (references, hypotheses)]
    seen = collections.Counter(ngram for counts in sides[0] for ngram in counts)
    rarity = {ngram: math.log(len(references)) - math.log(count) for ngram, count in seen.items()}
    unseen = math.log(len(references)) if references else 0.0
    values = [_cider_d(r, h, rarity, unseen) for r, h in zip(*sides, strict=True)]
    signature = f"CIDEr-D|n:{CIDER_ORDER}|sigma:{CIDER_SIGMA:g}|stem:no|tok:{_tokens(language)}|case:mixed"
    return TextScore("cider", _mean(values), signature, tally.of_means(values))


def _cider_d(reference: NGrams, hypothesis: NGrams, rarity: Weighted, unseen: float) -> float:
    """10 times the mean over n of the clipped cosine, times the penalty for a length (in pairs of words) that differs."""
    sides = [{ngram: count * rarity.get(ngram, unseen) for ngram, count in counts.items()} for counts in (reference, hypothesis)]
    pairs = [sum(count for ngram, count in counts.items() if len(ngram) == 2) for counts in (reference, hypothesis)]
    penalty = math.exp(-((pairs[1] - pairs[0]) ** 2) / (2 * CIDER_SIGMA**2))
    total = 0.0
    for n in range(1, CIDER_ORDER + 1):
        asked, answered = ({ngram: weight for ngram, weight in side.items() if len(ngram) == n} for side in sides)
        norms = math.sqrt(math.fsum(w * w for w in asked.values())) * math.sqrt(math.fsum(w * w for w in answered.values()))
        common = math.fsum(min(weight, asked.get(ngram, 0.0)) * asked.get(ngram, 0.0) for ngram, weight in answered.items())
        total += (common / norms if norms else common) * penalty
    return 10 * total / CIDER_ORDER


def _ngrams(tokens: Sequence[str]) -> NGrams:
    return collections.Counter(tuple(tokens[i : i + n]) for n in range(1, CIDER_ORDER + 1) for i in range(len(tokens) - n + 1))


class _Words:
    """The tokenizer that rouge-score asks for: its own drops all but ASCII letters and digits, and so umlauts and Chinese."""

    def __init__(self, language: Language) -> None:
        self._language: Language = language

    def tokenize(self, text: str) -> list[str]:
        return words(text, self._language)


class _NoSynonyms:
    """In the place of WordNet."""

    def synsets(self, _word: str) -> list[Any]:
        return []


class _NoStems:
    def stem(self, word: str) -> str:
        return word


@functools.cache
def _stemmer(language: Language) -> tuple[Any, str]:
    match language:
        case "en":
            return import_module("nltk.stem.porter").PorterStemmer(), "porter"
        case "de":
            return import_module("nltk.stem.snowball").SnowballStemmer("german"), "snowball-german"
        case _:
            return _NoStems(), "no"


def _tokens(language: Language) -> str:
    return "zh-characters" if language == "zh" else "blanks"


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def _check(references: Sequence[str], hypotheses: Sequence[str]) -> None:
    if len(references) != len(hypotheses) or not references:
        raise ValueError(f"need one hypothesis per reference: got {len(references)} references, {len(hypotheses)} hypotheses")
