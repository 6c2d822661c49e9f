"""Scores of texts equal sacrebleu, rouge-score, nltk and, for CIDEr-D, a second way to its formula, on random pairs."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nltk.stem.porter import PorterStemmer
from nltk.translate.meteor_score import single_meteor_score
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF

from sign_dist.metrics import tally, text
from sign_dist.metrics.intervals import corpus_interval

TIGHT = {"rel": 1e-9, "abs": 1e-9}
VOCABULARY = [
    "the",
    "The",
    "rain",
    "rains",
    "raining",
    "north,",
    "north",
    "south.",
    "Grüße",
    "3.5",
    "U.S.",
    "don't",
    "sun-shine",
    "it",
    "is",
]


def random_texts(num: int, *, seed: int = 0, vocabulary: list[str] = VOCABULARY, between: str = " ") -> tuple[list[str], list[str]]:
    rng = np.random.default_rng(seed)
    references = [[vocabulary[k] for k in rng.integers(0, len(vocabulary), rng.integers(1, 9))] for _ in range(num)]
    hypotheses = []
    for reference in references:
        changed = [w if rng.random() < 0.7 else vocabulary[rng.integers(len(vocabulary))] for w in reference]
        hypotheses.append(changed[: rng.integers(0, len(changed) + 1)] if rng.random() < 0.3 else changed)
    return [between.join(r) for r in references], [between.join(h) for h in hypotheses]


def parts(references: list[str], hypotheses: list[str], size: int) -> list[tuple[list[str], list[str]]]:
    return [(references[i : i + size], hypotheses[i : i + size]) for i in range(0, len(references), size)]


@pytest.mark.long
@pytest.mark.parametrize(("language", "tokenizer", "num"), [("en", "13a", 10_000), ("zh", "zh", 2500)])
def test_bleu_equals_sacrebleu(language, tokenizer, num):
    """In corpora of 1 to 400 sentences; the tally, from which intervals come, agrees as well."""
    chinese = [*list("今天下雨北方南晴好不"), "OK", "3.5"]
    texts = random_texts(num, vocabulary=chinese, between="") if language == "zh" else random_texts(num)
    corpora = parts(*(side[:40] for side in texts), 1) + parts(*(side[40:220] for side in texts), 9)
    for references, hypotheses in corpora + parts(*(side[220:] for side in texts), 400):
        for order, found in zip(text.BLEU_ORDERS, text.bleu(references, hypotheses, language=language), strict=True):
            expected = BLEU(tokenize=tokenizer, max_ngram_order=order).corpus_score(hypotheses, [references]).score
            assert found.value == pytest.approx(expected, **TIGHT)
            assert found.tally.value == pytest.approx(expected, **TIGHT)
            assert f"tok:{tokenizer}|" in found.signature


@pytest.mark.long
def test_chrf_equals_sacrebleu():
    texts = random_texts(10_000, seed=1)
    for references, hypotheses in parts(*(side[:100] for side in texts), 1) + parts(*(side[100:] for side in texts), 450):
        found = text.chrf(references, hypotheses)
        expected = CHRF().corpus_score(hypotheses, [references])
        assert found.value == pytest.approx(expected.score, **TIGHT)
        assert found.tally.value == pytest.approx(expected.score, **TIGHT)


@pytest.mark.long
def test_rouge_equals_rouge_score():
    references, hypotheses = random_texts(10_000, seed=2)
    scorer = RougeScorer(["rougeL"], tokenizer=type("Blanks", (), {"tokenize": staticmethod(str.split)})())
    expected = [scorer.score(r, h)["rougeL"] for r, h in zip(references, hypotheses, strict=True)]
    one = text.rouge_l(references, hypotheses, beta=1.0)
    np.testing.assert_allclose(one.tally.rows[:, 0], [e.fmeasure for e in expected], rtol=1e-9, atol=1e-9)
    found = text.rouge_l(references, hypotheses)
    b = 1.2**2
    harmonic = [(1 + b) / (1 / e.precision + b / e.recall) if e.precision else 0.0 for e in expected]
    np.testing.assert_allclose(found.tally.rows[:, 0], harmonic, rtol=1e-9, atol=1e-9)
    assert found.value == pytest.approx(np.mean(harmonic), **TIGHT)


@pytest.mark.long
def test_meteor_equals_nltk():
    references, hypotheses = random_texts(10_000, seed=3)
    nothing = type("Nothing", (), {"synsets": staticmethod(lambda _word: [])})()
    expected = [
        single_meteor_score(r.split(), h.split(), stemmer=PorterStemmer(), wordnet=nothing)
        for r, h in zip(references, hypotheses, strict=True)
    ]
    np.testing.assert_allclose(text.meteor(references, hypotheses).tally.rows[:, 0], expected, rtol=1e-9, atol=1e-9)


def cider_by_vectors(references: list[str], hypotheses: list[str]) -> np.ndarray:
    """CIDEr-D with dense vectors over all n-grams of the corpus, order by order."""
    scores = np.zeros(len(references))
    sides = [[side.split() for side in texts] for texts in (references, hypotheses)]
    pairs = np.array([[max(len(tokens) - 1, 0) for tokens in side] for side in sides])
    for n in range(1, 5):
        cut = [[[tuple(t[i : i + n]) for i in range(len(t) - n + 1)] for t in side] for side in sides]
        index = {g: k for k, g in enumerate(sorted({g for side in cut for grams in side for g in grams}))}
        counts = np.zeros((2, len(references), max(len(index), 1)))
        for s, side in enumerate(cut):
            for row, grams in enumerate(side):
                for gram in grams:
                    counts[s, row, index[gram]] += 1
        frequency = (counts[0] > 0).sum(axis=0)
        reference, hypothesis = counts * (np.log(len(references)) - np.log(np.maximum(frequency, 1)))
        norm = np.linalg.norm(reference, axis=1) * np.linalg.norm(hypothesis, axis=1)
        common = (np.minimum(reference, hypothesis) * reference).sum(axis=1)
        scores += np.divide(common, norm, out=np.zeros_like(common), where=norm > 0)
    return 10 / 4 * scores * np.exp(-((pairs[0] - pairs[1]) ** 2) / 72)


@pytest.mark.long
def test_cider_equals_its_formula():
    for references, hypotheses in parts(*random_texts(10_000, seed=4), 200):
        found = text.cider(references, hypotheses)
        np.testing.assert_allclose(found.tally.rows[:, 0], cider_by_vectors(references, hypotheses), rtol=1e-9, atol=1e-9)


def test_cider_equals_pycocoevalcap():
    cider = pytest.importorskip("pycocoevalcap.cider.cider", reason="pycocoevalcap is not installed: 100 MB for one formula")
    for references, hypotheses in parts(*random_texts(10_000, seed=5), 200):
        sides = [{i: [t] for i, t in enumerate(texts)} for texts in (references, hypotheses)]
        value, rows = cider.Cider().compute_score(*sides)
        found = text.cider(references, hypotheses)
        np.testing.assert_allclose(found.tally.rows[:, 0], rows, rtol=1e-9, atol=1e-9)
        assert found.value == pytest.approx(value, **TIGHT)


@pytest.mark.parametrize("language", ["en", "de", "zh", "other"])
def test_equal_texts_have_the_highest_scores(language):
    texts = ["morgen regnet es im norden", "übermorgen scheint dann wieder die sonne", "今天 下雨 了 明天 呢"]
    best = {s.name: s.value for s in text.bleu(texts, texts, language=language)} | {"chrf": text.chrf(texts, texts).value}
    assert all(value == pytest.approx(100) for value in best.values())
    assert text.rouge_l(texts, texts, language=language).value == pytest.approx(1)
    assert text.cider(texts, texts, language=language).value == pytest.approx(10)
    assert text.meteor(texts, texts, language=language).value > 0.98  # its fragmentation penalty is never quite 0


def test_stems_count_in_their_language_only():
    asked, answered = ["die starken winde wehen"], ["die starke wind weht"]
    scores = {language: text.meteor(asked, answered, language=language).value for language in ("de", "other")}
    assert scores["de"] > scores["other"]


def test_chinese_is_cut_into_characters():
    assert text.words("明天OK 3.5度", "zh") == ["明", "天", "OK", "3.5", "度"]
    half = text.rouge_l(["明天下雨"], ["明天晴"], language="zh").value
    assert 0 < half < 1
    assert text.rouge_l(["明天下雨"], ["明天晴"], language="en").value == 0


def test_nothing_in_common_is_zero_and_nothing_to_score_is_refused():
    for scored in (*text.bleu(["a b"], [""]), text.chrf(["a b"], [""]), text.rouge_l(["a b"], [""]), text.meteor(["a b"], ["c"])):
        assert scored.value == 0
        assert not math.isnan(scored.tally.value)
    for function in (text.bleu, text.chrf, text.rouge_l, text.meteor, text.cider):
        with pytest.raises(ValueError, match="0 references"):
            function([], [])
        with pytest.raises(ValueError, match="1 references, 2 hypotheses"):
            function(["a"], ["a", "b"])


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 8)), min_size=1, max_size=30))
def test_an_interval_of_a_corpus_score_contains_it(rows):
    rate = tally.Tally(np.array(rows, dtype=float), lambda sums: sums[..., 0] / sums[..., 1], higher_is_better=False)
    interval = corpus_interval(rate, resamples=100)
    assert interval.low <= interval.value <= interval.high
    assert interval.value == pytest.approx(sum(e for e, _ in rows) / sum(n for _, n in rows))
    shuffled = tally.Tally(rate.rows[::-1], rate.score, higher_is_better=False)
    assert corpus_interval(shuffled, resamples=100) == interval
