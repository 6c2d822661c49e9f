"""SignHiera: the numbers of the published encoder, and layer groups that hold every parameter once."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sign_dist.models.signhiera import PRESETS, HieraShape, SignHiera, normalise_frames

TOLERANCE = 2e-6
"""Relative l2 on a CPU in fp32, as the vectors' README states; an epsilon of 1e-5 would already miss it."""


def draw(key: str, shape: list[int], scale: float = 1.0, shift: float = 0.0) -> Tensor:
    """The rule by which weights and inputs of the vectors are made."""
    values = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape).astype(np.float32)
    return torch.from_numpy(values * np.float32(scale) + np.float32(shift))


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    assert found.shape == expected.shape
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("name", ["signhiera_tiny_a", "signhiera_tiny_b"])
@torch.inference_mode()
def test_outputs_are_those_of_the_reference(parity_folder: Path, name: str) -> None:
    folder = parity_folder / "ssvp_slt" / name
    if not folder.is_dir():
        pytest.skip(f"no folder {folder}")
    case = json.loads((folder / "config.json").read_text())
    manifest = json.loads((folder / "manifest.json").read_text())
    expected = np.load(folder / "expected.npz")
    config = case["config"]
    num_frames, height, width = config["input_size"]
    shape = HieraShape(
        num_frames,
        height,
        width,
        config["embed_dim"],
        config["num_heads"],
        tuple(config["stages"]),
        tuple(config["mask_unit_attn"]),
        config["mask_unit_size"][1],
        config["mlp_ratio"],
    )
    model = SignHiera(shape, config["num_classes"]).eval()
    weights = {key: draw(case["salt"] + key, v["shape"], v["scale"], v["shift"]) for key, v in manifest.items()}
    model.load_state_dict(weights, strict=True)
    video = draw(case["input_key"], case["input_shape"])
    assert relative(model.features(video).flatten(0, 1).numpy(), expected["features_nopad"]) < TOLERANCE
    assert relative(model(video).numpy(), expected["prelogits"]) < TOLERANCE
    cut = [model.features(video[i : i + 1, :, : 2 * (num_frames // 2 - p // 2)])[0].numpy() for i, p in enumerate(case["padding"])]
    assert relative(np.concatenate(cut), expected["features_pad"]) < TOLERANCE


def test_layer_groups_hold_every_parameter_once() -> None:
    for classes in (0, 5):
        model = SignHiera(PRESETS["tiny"], classes)
        found: list[int] = []
        for _, parts in model.layer_groups():
            for part in parts:
                found += [id(part)] if isinstance(part, torch.nn.Parameter) else [id(p) for p in part.parameters()]
        assert sorted(found) == sorted(id(p) for p in model.parameters())


@torch.inference_mode()
def test_bytes_and_normalised_frames_give_equal_logits_and_clips_do_not_mix() -> None:
    torch.manual_seed(0)
    model = SignHiera(PRESETS["tiny"], 5).eval()
    frames = torch.randint(0, 256, (2, 16, 64, 64, 3), dtype=torch.uint8)
    both = model(frames)
    torch.testing.assert_close(both, model(normalise_frames(frames)))
    torch.testing.assert_close(both[1:], model(frames[1:]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", [(1, 3, 18, 64, 64), (1, 3, 16, 96, 64), (1, 3, 16, 32, 32)])
def test_a_video_of_another_shape_is_refused_with_the_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"need video .*64, 64"):
        SignHiera(PRESETS["tiny"]).features(torch.zeros(shape))


def test_an_encoder_without_a_head_has_no_logits() -> None:
    with pytest.raises(ValueError, match="without classes"):
        SignHiera(PRESETS["tiny"])(torch.zeros(1, 3, 16, 64, 64))
