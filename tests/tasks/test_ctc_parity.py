"""CTC against the numbers of other implementations: enumeration, two decoders, torch's loss in float64."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sign_dist.tasks import ctc

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def folder(parity_folder: Path) -> Path:
    if not (parity_folder / "i3d" / "ctc_decode.json").exists():
        pytest.skip(f"no i3d/ctc_decode.json in {parity_folder}: SIGN_DIST_PARITY names the folder with parity vectors")
    return parity_folder / "i3d"


@pytest.fixture(scope="module")
def decode(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    with np.load(folder / "ctc_decode.npz") as arrays:
        return json.loads((folder / "ctc_decode.json").read_text(encoding="utf-8")), {
            k: torch.from_numpy(arrays[k]) for k in arrays
        }


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
        assert list(best.labels) == case["beam10"], case["name"]
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
        assert [list(best[0].labels) for best in found] == [case["beam10"] for case in cases]
        assert [list(path.labels) for path in ctc.greedy(log_probs, lengths)] == [case["greedy"] for case in cases]


def test_enumerated_cases_exactly(decode):
    facts, arrays = decode
    exact = [case for case in facts["cases"] if case["kind"] == "exact"]
    assert exact
    for case in exact:
        log_probs = arrays[case["name"]][None]
        found = ctc.beam_search(log_probs, torch.tensor([case["T"]]), width=4000, num_best=4000)[0]
        total = float(np.logaddexp.reduce([decoded.log_prob for decoded in found]))
        assert list(found[0].labels) == case["best"], case["name"]
        assert total == pytest.approx(case["total_log_prob"], abs=TOLERANCE)
        values = {decoded.labels: decoded.log_prob for decoded in found}
        for top in case["top"]:
            assert values[tuple(top["labels"])] == pytest.approx(top["log_prob"], abs=TOLERANCE)


def test_losses_and_gradients(folder):
    facts = json.loads((folder / "ctc_loss.json").read_text(encoding="utf-8"))
    assert facts["blank"] == ctc.BLANK
    with np.load(folder / "ctc_loss.npz") as arrays:
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
