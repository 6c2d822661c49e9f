"""The report of a model that writes: texts are counted over all clips, confidences before and after a temperature."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sign_dist.inference.evaluated import Evaluated, read_predictions
from sign_dist.inference.report import build_report, summary, write_report
from sign_dist.inference.report_calibration import Probabilities, calibration_cautions, calibration_part, targets_of
from sign_dist.metrics.calibration import at_temperature
from tests.inference.pages import Page, check_page

GLOSSES = ("BOOK", "EAT", "MILK", "THANK-YOU", "PLAY", "YES")
TEXTS = st.sampled_from(["BOOK", "eat.", "Milk", "thank you", "The sign is BOOK", "<b>", ""])


def clip(id_, reference, hypothesis, written, error=""):
    scores = tuple((gloss, 0.6 if gloss == hypothesis else 0.08) for gloss in GLOSSES)
    return Evaluated(id_, reference, hypothesis, scores, signer="s", error=error, written=written)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.sampled_from(GLOSSES), st.sampled_from(GLOSSES), TEXTS, st.booleans()), min_size=1, max_size=20))
def test_texts_are_counted_over_all_clips_and_failures_are_never_right(rows):
    clips = [
        clip(str(i), reference, "" if failed else answer, () if failed else (text,), "decode_failed: torn" if failed else "")
        for i, (reference, answer, text, failed) in enumerate(rows)
    ]
    report = build_report(clips, facts={}, task="vlm", vocabulary=GLOSSES)
    if all(failed for *_, failed in rows):
        assert report["written"] is None
        return
    means = {"BOOK": "BOOK", "eat.": "EAT", "Milk": "MILK", "thank you": "THANK-YOU"}
    right = sum(not failed and means.get(text) == reference for reference, _, text, failed in rows)
    lost = sum(not failed and text not in means for _, _, text, failed in rows)
    assert report["written"]["exact_match"] == pytest.approx(right / len(rows))
    assert report["written"]["unparsable"] == pytest.approx(lost / len(rows))
    assert sum(row["count"] for row in report["written"]["unparsable_texts"]) == lost
    by_name = {score["name"]: score for score in report["scores"]}
    assert by_name["exact_match"]["value"] == report["written"]["exact_match"]
    assert not by_name["unparsable"]["higher_is_better"]


def probabilities(clips, seed, sharpness, split):
    rng = np.random.default_rng(seed)
    rows = at_temperature(rng.standard_normal((clips, len(GLOSSES))) * 2, 1.0)
    targets = np.array([rng.choice(len(GLOSSES), p=np.exp(row)) for row in rows])
    return Probabilities((rows * sharpness).astype(np.float32), targets, "9f", split)


def test_a_temperature_of_other_clips_brings_confidences_to_their_word(tmp_path):
    val, test = probabilities(400, 1, 3.0, "val"), probabilities(400, 2, 3.0, "test")
    val.write(tmp_path)
    read = Probabilities.read(tmp_path, "9f")
    assert read is not None
    assert np.array_equal(read.log_probs, val.log_probs)
    assert Probabilities.read(tmp_path, "other weights") is None
    assert Probabilities.read(tmp_path / "nowhere", "9f") is None
    part = calibration_part(test, read)
    assert part["temperature"] == pytest.approx(3.0, rel=0.2)
    assert part["after"]["ece"] < part["before"]["ece"]
    assert part["after"]["nll"] < part["before"]["nll"]
    assert part["after"]["accuracy"] == part["before"]["accuracy"]
    assert calibration_cautions(part, "test", "val") == []


def test_without_other_clips_nothing_is_fitted_and_the_report_says_how_to():
    part = calibration_part(probabilities(20, 1, 1.0, "test"))
    assert part["after"] is None
    assert "'val' first" in calibration_cautions(part, "test", "val")[0]
    assert calibration_cautions(part, "val", "val") == []


def test_a_reference_outside_the_labels_has_no_column():
    assert targets_of(["EAT", "NEW", "BOOK"], GLOSSES).tolist() == [1, -1, 0]


@pytest.mark.parametrize("task", ["islr", "vlm"])
@pytest.mark.parametrize("fitted", [True, False])
def test_the_page_is_well_formed_and_shows_what_was_counted(task, fitted, tmp_path):
    clips = [
        clip(f"c{i}", GLOSSES[i % 6], GLOSSES[(i + (i % 3 == 0)) % 6], ("<script>book</script>" if i % 4 else "BOOK", "EAT"))
        for i in range(24)
    ]
    part = calibration_part(probabilities(24, 1, 1.0, "test"), probabilities(40, 2, 1.0, "val") if fitted else None)
    report = build_report(clips, facts={}, task=task, vocabulary=GLOSSES, calibration=part)
    page = Page(write_report(tmp_path, clips, report).read_text(encoding="utf-8"))
    check_page(page)
    assert "Expected calibration error" in page.text
    assert ("With temperature" in page.text) == fitted
    assert ("What it writes by itself" in page.text) == (task == "vlm")
    assert "a sign that the model cannot answer" not in page.text
    assert [dataclasses.replace(e, model_s=0.0) for e in read_predictions(tmp_path / "predictions.jsonl")] == [
        dataclasses.replace(c, model_s=0.0) for c in clips
    ]
    assert json.loads((tmp_path / "report.json").read_text())["calibration"]["before"]["clips"] == 24
    assert ("left free" in summary(report)) == (task == "vlm")
