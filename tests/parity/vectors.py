"""Numbers of reference implementations: where they lie, and the rules by which weights and inputs of their cases are made."""

import json
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor


def parity_root() -> Path:
    """`SIGN_DIST_PARITY`, else tests/parity, which holds the sets that are small and hold numbers only."""
    return Path(os.environ.get("SIGN_DIST_PARITY", "") or Path(__file__).resolve().parent)


def parity_file(name: str) -> Path:
    """A file of the folder; the test is skipped, with the reason, where it is absent."""
    path = parity_root() / name
    if not path.exists():
        pytest.skip(f"no {path}: SIGN_DIST_PARITY names the folder with parity vectors")
    return path


def parity_json(name: str) -> Any:
    return json.loads(parity_file(name).read_text(encoding="utf-8"))


def cases_of(name: str) -> Any:
    """The content of a JSON file while tests are collected; {} where it is absent, so that no case is made of it."""
    path = parity_root() / name
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def rng(name: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(name.encode("utf-8")))


def normal(name: str, shape: Sequence[int]) -> np.ndarray:
    """The standard normal numbers that belong to a name, float32."""
    return rng(name).standard_normal(tuple(shape)).astype(np.float32)


def fan_in(shape: Sequence[int]) -> int:
    return int(np.prod(shape[1:]))


def assert_stated(found: Tensor, stated: dict[str, Any], *, atol: float = 1e-4, rtol: float = 1e-4) -> None:
    """A tensor against the numbers of it that a case states: shape, single values, norm, mean, spread, largest."""
    assert list(found.shape) == stated.get("shape", list(found.shape))
    flat = found.detach().double().flatten()
    if "sample_index" in stated:
        wanted = torch.tensor(stated["sample_value"], dtype=torch.float64)
        torch.testing.assert_close(flat[stated["sample_index"]], wanted, atol=atol, rtol=rtol)
    assert float(flat.norm()) == pytest.approx(stated["l2"], rel=rtol, abs=1e-12)
    if "mean" in stated:  # a mean of many signs: what it may miss by is a share of the values, not of itself
        scale = stated["l2"] / max(len(flat), 1) ** 0.5
        assert float(flat.mean()) == pytest.approx(stated["mean"], rel=rtol, abs=rtol * scale)
    if "std" in stated:
        assert float(flat.std(correction=0)) == pytest.approx(stated["std"], rel=rtol)
    if "abs_max" in stated:
        assert float(flat.abs().max()) == pytest.approx(stated["abs_max"], rel=rtol, abs=atol)
