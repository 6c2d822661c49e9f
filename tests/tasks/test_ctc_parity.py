"""CTC against the numbers of other implementations: enumeration, two decoders, torch's loss in float64."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch

from sign_dist.tasks import ctc
from tests.parity.vectors import parity_file, parity_json

TOLERANCE = 1e-4
WIDEST = 2000
"""Labellings that a search keeps to be exact; enumerations that have more are summed by CTC's own recurrence only."""


@pytest.fixture(scope="module")
def decode() -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    with np.load(parity_file("i3d/ctc_decode.npz")) as arrays:
        return parity_json("i3d/ctc_decode.json"), {k: torch.from_numpy(arrays[k]) for k in arrays}


def found_by_search(facts: dict[str, Any], case: dict[str, Any]) -> list[int]:
    """The answer of the recorded beam: its width stands in the name."""
    return case[f"beam{facts['beam_width']}"]


def test_the_blank_is_where_the_vectors_have_it(decode):
    assert decode[0]["blank"] == ctc.BLANK
    assert decode[0]["log"] == "natural"
    assert decode[0]["cases"]


def test_each_case_alone(decode):
    facts, arrays = decode
    for case in facts["cases"]:
        log_probs = arrays[case["name"]][None]
        lengths = torch.tensor([log_probs.shape[1]])
        assert log_probs.shape[1:] == (case["T"], case["V"])
        best = ctc.beam_search(log_probs, lengths, width=facts["beam_width"])[0][0]
        assert list(best.labels) == found_by_search(facts, case), case["name"]
        assert ctc.log_prob_of(log_probs, lengths, [best.labels])[0] == pytest.approx(case["log_prob_best"], abs=TOLERANCE)
        path = ctc.greedy(log_probs, lengths)[0]
        assert list(path.labels) == case["greedy"], case["name"]
        if "log_prob_greedy" in case:
            assert ctc.log_prob_of(log_probs, lengths, [path.labels])[0] == pytest.approx(case["log_prob_greedy"], abs=TOLERANCE)


def test_all_cases_of_a_size_side_by_side(decode):
    """Padded with steps that would win if they counted."""
    facts, arrays = decode
    by_size: dict[int, list[dict[str, Any]]] = {}
    for case in facts["cases"]:
        by_size.setdefault(case["V"], []).append(case)
    for size, cases in by_size.items():
        log_probs = torch.full((len(cases), max(case["T"] for case in cases), size), -50.0)
        log_probs[:, :, size - 1] = 0.0
        for row, case in zip(log_probs, cases, strict=True):
            row[: case["T"]] = arrays[case["name"]]
        lengths = torch.tensor([case["T"] for case in cases])
        found = ctc.beam_search(log_probs, lengths, width=facts["beam_width"])
        assert [list(best[0].labels) for best in found] == [found_by_search(facts, case) for case in cases]
        assert [list(path.labels) for path in ctc.greedy(log_probs, lengths)] == [case["greedy"] for case in cases]


def test_enumerated_cases_exactly(decode):
    """Every labelling there is, by CTC's recurrence, and by a search that is wide enough to keep them all."""
    facts, arrays = decode
    exact = [case for case in facts["cases"] if case["kind"] == "exact"]
    if not exact:
        pytest.skip("this set of parity vectors has no enumerated case")
    for case in exact:
        steps, classes = case["T"], case["V"]
        log_probs = arrays[case["name"]][None]
        labellings = [labels for n in range(steps + 1) for labels in itertools.product(range(1, classes), repeat=n)]
        lengths = torch.full((len(labellings),), steps)
        exact_values = ctc.log_prob_of(log_probs.expand(len(labellings), -1, -1), lengths, labellings)
        values = dict(zip(labellings, exact_values, strict=True))
        possible = sorted((value for value in exact_values if value > -math.inf), reverse=True)
        assert np.logaddexp.reduce(possible) == pytest.approx(case["total_log_prob"], abs=TOLERANCE)
        width = min(len(possible), WIDEST)
        found = ctc.beam_search(log_probs, torch.tensor([steps]), width=width, num_best=width)[0]
        assert list(found[0].labels) == case["best"], case["name"]
        if width == len(possible):
            assert [decoded.log_prob for decoded in found] == pytest.approx(possible, abs=1e-6)
        by_search = {decoded.labels: decoded.log_prob for decoded in found}
        for rank, top in enumerate(case["top"]):
            labels = tuple(top["labels"])
            assert values[labels] == pytest.approx(top["log_prob"], abs=TOLERANCE)
            assert by_search[labels] == pytest.approx(top["log_prob"], abs=TOLERANCE)
            assert possible[rank] == pytest.approx(top["log_prob"], abs=TOLERANCE)
        if len(case["top"]) > 1:
            assert possible[0] - possible[1] == pytest.approx(case["gap_to_second"], abs=TOLERANCE)


def test_losses_and_gradients():
    facts = parity_json("i3d/ctc_loss.json")
    assert facts["blank"] == ctc.BLANK
    assert facts["cases"]
    with np.load(parity_file("i3d/ctc_loss.npz")) as arrays:
        for case in facts["cases"]:
            logits = torch.from_numpy(arrays[f"{case['name']}/logits"]).requires_grad_()
            targets = torch.from_numpy(arrays[f"{case['name']}/targets"])
            lengths, target_lengths = torch.tensor(case["input_lengths"]), torch.tensor(case["target_lengths"])

            def losses(logits=logits, lengths=lengths, targets=targets, target_lengths=target_lengths, **options):
                log_probs = logits.log_softmax(dim=-1).transpose(0, 1)
                return ctc.ctc_losses(log_probs, lengths, targets, target_lengths, **options)

            losses_found = losses()
            found = losses_found.detach()
            assert found.tolist() == pytest.approx([float(value) for value in case["none"]], rel=TOLERANCE)
            if "none_zero_infinity" in case:
                assert losses(zero_infinity=True).tolist() == pytest.approx(case["none_zero_infinity"], rel=TOLERANCE)
            if "sum" in case:
                assert float(found.sum()) == pytest.approx(case["sum"], rel=TOLERANCE)
                assert float(found.mean()) == pytest.approx(case["mean_over_batch"], rel=TOLERANCE)
                assert float((found / target_lengths).mean()) == pytest.approx(case["mean_torch"], rel=TOLERANCE)
                losses_found.sum().backward()
                expected = arrays[f"{case['name']}/grad_logits_of_sum"]
                np.testing.assert_allclose(logits.grad, expected, rtol=TOLERANCE, atol=1e-5 * np.abs(expected).max())
