"""The rule by which weights and inputs of the SignHiera and SONAR vectors are made, and how a set of them is read."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.parity.vectors import family_folder, normal, rng

TOLERANCE = 2e-6
"""Relative l2 on a CPU in fp32, as the vectors' README states; an epsilon of 1e-5 would already miss it."""


@dataclasses.dataclass(frozen=True)
class VectorSet:
    """One folder: what was asked of the reference, how its weights are drawn, what it answered."""

    folder: Path
    case: dict[str, Any]
    manifest: dict[str, Any]
    expected: dict[str, np.ndarray]


def read_sets(parity_folder: Path, pattern: str) -> list[VectorSet]:
    """All sets whose folder's name fits; the test is skipped where there is none."""
    place = family_folder(parity_folder, "ssvp_slt")
    folders = sorted(path for path in place.glob(pattern) if path.is_dir())
    if not folders:
        pytest.skip(f"no {place / pattern}: SIGN_DIST_PARITY names the folder with parity vectors")
    return [_read(folder) for folder in folders]


def _read(folder: Path) -> VectorSet:
    expected = folder / "expected.npz"
    return VectorSet(
        folder,
        json.loads((folder / "config.json").read_text()),
        json.loads((folder / "manifest.json").read_text()),
        dict(np.load(expected)) if expected.exists() else {},
    )


def draw(key: str, shape: list[int], scale: float = 1.0, shift: float = 0.0) -> Tensor:
    """Numbers of a tensor, from the name alone."""
    return torch.from_numpy(normal(key, shape) * np.float32(scale) + np.float32(shift))


def draw_bytes(key: str, shape: list[int]) -> np.ndarray:
    """uint8, from the name alone."""
    return rng(key).integers(0, 256, shape, dtype=np.uint8)


def draw_weights(manifest: dict[str, Any], salt: str) -> dict[str, Tensor]:
    """A state dict; names that share their storage with another have its tensor."""
    own = {k: draw(salt + k, v["shape"], v["scale"], v["shift"]) for k, v in manifest.items() if "alias_of" not in v}
    return {k: own[v.get("alias_of", k)] for k, v in manifest.items()}


def relative(found: Tensor | np.ndarray, expected: np.ndarray) -> float:
    """Relative l2 distance of two arrays of one shape."""
    found = found.numpy() if isinstance(found, Tensor) else found
    assert found.shape == expected.shape
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
