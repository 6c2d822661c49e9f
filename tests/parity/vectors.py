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
    """`SIGN_DIST_PARITY`, else tests/parity, which holds the sets that are small and hold numbers only.

    Raises:
        FileNotFoundError: the variable names no folder. Tests that are all skipped would look like tests that pass.
    """
    given = os.environ.get("SIGN_DIST_PARITY", "")
    if given and not Path(given).is_dir():
        raise FileNotFoundError(f"SIGN_DIST_PARITY is {given!r}, which is no folder: name one with parity vectors, or unset it")
    return Path(given or Path(__file__).resolve().parent)


def family_folder(root: Path, family: str) -> Path:
    """`i3d` or `ssvp_slt` below a folder, or the folder itself where it holds the sets of one family directly."""
    return root / family if (root / family).is_dir() else root


def parity_path(name: str) -> Path:
    """Where `FAMILY/...` lies."""
    family, _, rest = name.partition("/")
    return family_folder(parity_root(), family) / rest


def parity_file(name: str) -> Path:
    """A file of the folder; the test is skipped, with the reason, where it is absent."""
    path = parity_path(name)
    if not path.exists():
        pytest.skip(f"no {path}: SIGN_DIST_PARITY names the folder with parity vectors")
    return path


def parity_json(name: str) -> Any:
    return json.loads(parity_file(name).read_text(encoding="utf-8"))


def cases_of(name: str) -> Any:
    """The content of a JSON file while tests are collected; {} where it is absent, so that no case is made of it."""
    path = parity_path(name)
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def part_of(content: dict[str, Any], name: str) -> Any:
    """One part of a file; the test is skipped where this set has none."""
    if name not in content:
        pytest.skip(f"this set of parity vectors has no {name!r}")
    return content[name]


def corpus_json(name: str) -> Any:
    """Vectors that hold sentences of a corpus, which are not kept in the repository: only the larger folders have them."""
    shared = Path(os.environ.get("SIGN_DIST_SHARED", "") or Path(__file__).resolve().parents[3] / "shared")
    for path in (parity_path(name), shared / "parity" / name):
        if path.exists():
            return json.loads(path.read_text(encoding="utf-8"))
    pytest.skip(
        f"no {name}, which holds sentences of a corpus: SIGN_DIST_PARITY or SIGN_DIST_SHARED (with parity/) name its folder"
    )


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
