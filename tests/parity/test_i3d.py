"""Inception-I3D against numbers of the published code: keys, every stage, logits, gradients, training mode, WLASL's loss."""

import functools
import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sign_dist.models.i3d import InceptionI3d, stretch, wlasl_loss
from tests.parity.vectors import assert_stated, cases_of, fan_in, normal, parity_file, parity_json, parity_path, part_of, rng

FOLDER = "i3d"
FILE = f"{FOLDER}/i3d_cases.json"
CASES: dict[str, Any] = cases_of(FILE)
SLOW_PIXELS = 3_000_000
"""Cases with more numbers in their input take five seconds and more on one core."""


def marked(names: list[str], case: dict[str, Any]) -> list[Any]:
    slow = [math.prod(case[name]["input_shape"]) > SLOW_PIXELS for name in names]
    return [pytest.param(name, marks=[pytest.mark.slow] if s else []) for name, s in zip(names, slow, strict=True)]


def rule_of(key: str) -> str:
    """Which rule a tensor of this name follows, by the table of the vectors' README."""
    layer, _, name = key.rpartition(".")
    if layer.endswith("conv3d"):
        return "bias" if name == "bias" else "lecun" if key.startswith("logits.") else "he"
    return "zero" if name == "num_batches_tracked" else f"bn_{name}"


def weight(key: str, shape: tuple[int, ...], salt: str) -> Tensor:
    rule = rule_of(key)
    if rule == "zero":
        return torch.zeros(shape, dtype=torch.int64)
    n = normal(salt + key, shape)
    values = {
        "he": lambda: n * math.sqrt(2 / fan_in(shape)),
        "lecun": lambda: n * math.sqrt(1 / fan_in(shape)),
        "bias": lambda: 0.1 * n,
        "bn_weight": lambda: 1 + 0.1 * n,
        "bn_bias": lambda: 0.1 * n,
        "bn_running_mean": lambda: 0.1 * n,
        "bn_running_var": lambda: 1 + 0.1 * np.abs(n),
    }[rule]()
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


@functools.cache
def weights(num_classes: int, in_channels: int, salt: str) -> dict[str, Tensor]:
    with torch.device("meta"):
        state = InceptionI3d(num_classes, in_channels=in_channels).state_dict()
    return {key: weight(key, tuple(tensor.shape), salt) for key, tensor in state.items()}


def network(case: dict[str, Any]) -> InceptionI3d:
    """The model of a case. One that stops before the head may say nothing of classes."""
    num_classes, in_channels = case.get("num_classes", 2), case["input_shape"][1]
    model = InceptionI3d(num_classes, in_channels=in_channels)
    model.load_state_dict(weights(num_classes, in_channels, CASES["weight_salt"]), strict=True)
    return model.eval()


def video(name: str, shape: list[int]) -> Tensor:
    """The input of a name: coarse noise that lasts 4 frames and spans 16 px, and fine noise over it."""
    generator = rng(name)
    batch, channels, time, height, width = shape
    coarse = generator.uniform(-1, 1, (batch, channels, -(-time // 4), -(-height // 16), -(-width // 16)))
    fine = generator.uniform(-1, 1, tuple(shape))
    coarse = coarse.repeat(4, 2).repeat(16, 3).repeat(16, 4)[:, :, :time, :height, :width]
    return torch.from_numpy((0.7 * coarse + 0.3 * fine).astype(np.float32))


def arrays() -> Any:
    return np.load(parity_file(f"{FOLDER}/i3d_arrays.npz"))


@pytest.mark.parametrize("path", sorted(parity_path(f"{FOLDER}/").glob("manifest_i3d_*.json")), ids=lambda p: p.stem)
def test_keys_and_shapes_are_the_published_ones(path: Any) -> None:
    manifest = parity_json(f"{FOLDER}/{path.name}")
    with torch.device("meta"):
        model = InceptionI3d(manifest["num_classes"], in_channels=manifest["in_channels"])
    state = model.state_dict()
    assert {key: list(t.shape) for key, t in state.items()} == {row["key"]: row["shape"] for row in manifest["keys"]}
    assert len(state) == manifest["n_keys"]
    assert sum(p.numel() for p in model.parameters()) == manifest["n_parameters"]
    assert manifest["weight_salt"] == CASES.get("weight_salt", manifest["weight_salt"])
    for row in manifest["keys"]:
        assert row["rule"] == rule_of(row["key"]), row
        assert row["dtype"] == str(state[row["key"]].dtype).removeprefix("torch.")
        if row["rule"] in ("he", "lecun"):
            assert row["scale"] == pytest.approx(math.sqrt({"he": 2, "lecun": 1}[row["rule"]] / fan_in(row["shape"])))


@pytest.mark.long
@pytest.mark.parametrize("name", marked(list(CASES.get("cases", {})), CASES.get("cases", {})))
@torch.inference_mode()
def test_every_stage_and_the_logits_are_those_of_the_reference(name: str) -> None:
    case, expected = CASES["cases"][name], arrays()
    x = video(case["input_name"], case["input_shape"])
    np.testing.assert_allclose(x.flatten()[:8].numpy(), case["input_check"]["first8"], rtol=1e-6)
    assert float(x.double().norm()) == pytest.approx(case["input_check"]["l2"], rel=1e-6)
    assert float(x.double().sum()) == pytest.approx(case["input_check"]["sum"], rel=1e-6, abs=1e-6 * x.numel())
    model = network(case)
    seen: list[str] = []
    for endpoint, output in model.endpoints(x):
        assert_stated(output, case["endpoints"][endpoint])
        seen.append(endpoint)
    assert seen == list(case["endpoints"])
    if "logits" not in case:  # smaller than the published head takes
        return
    features = model.features(x)
    np.testing.assert_allclose(features[..., None, None].numpy(), expected[f"{name}/pool"], atol=1e-4, rtol=1e-4)
    logits = model.logits(features)
    assert_stated(logits, case["logits"])
    np.testing.assert_allclose(logits.numpy(), expected[f"{name}/logits"], atol=1e-4, rtol=1e-4)
    assert logits.amax(2).argmax(1).tolist() == case["video_argmax_of_max_over_time"]
    assert logits.mean(2).argmax(1).tolist() == case["video_argmax_of_mean_over_time"]
    top = case["video_top5_of_max_over_time"]
    assert logits.amax(2).topk(len(top[0])).indices.tolist() == top
    torch.testing.assert_close(model(x), logits.amax(2), atol=1e-5, rtol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("checkpointing", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_gradients_are_those_of_the_reference(checkpointing: bool) -> None:
    case = part_of(parity_json(FILE), "gradient")
    model = network(case)
    model.checkpointing = checkpointing
    x = video(case["input_name"], case["input_shape"]).requires_grad_()
    logits = model.step_logits(x)
    named = re.search(r'normal\("([^"]+)"', case["loss"])
    assert named, case["loss"]
    loss = (logits * torch.from_numpy(normal(named[1], logits.shape))).sum()
    # A sum of logits of both signs: what it may miss by is what each of them may.
    assert float(loss.detach()) == pytest.approx(case["loss_value"], rel=1e-4, abs=1e-4 * logits.numel() ** 0.5)
    loss.backward()
    assert x.grad is not None
    assert float(x.grad.norm()) == pytest.approx(case["input_grad_l2"], rel=1e-3)
    stated = case["param_grad"]
    assert set(stated) == {name for name, _ in model.named_parameters()}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        assert_stated(parameter.grad, stated[name], rtol=1e-3)


def assert_buffers(model: InceptionI3d, case: dict[str, Any]) -> None:
    buffers = dict(model.named_buffers())
    for name, stated in case["buffers_after"].items():
        assert_stated(buffers[name], stated)
    for name, count in case["num_batches_tracked_after"].items():
        assert int(buffers[name]) == count


@pytest.mark.long
@pytest.mark.parametrize("checkpointing", [False, True])
def test_training_mode_moves_statistics_as_the_reference_does(checkpointing: bool) -> None:
    """With checkpointing every stage runs twice, and must count once."""
    case = part_of(parity_json(FILE), "train_mode")
    model = network(case).train()
    model.checkpointing = checkpointing
    x = video(case["input_name"], case["input_shape"])
    seen: set[str] = set()
    for endpoint, output in model.endpoints(x):
        if endpoint in case["endpoints"]:
            assert_stated(output, case["endpoints"][endpoint])
            seen.add(endpoint)
    assert seen == set(case["endpoints"])
    assert_buffers(model, case)
    if checkpointing:
        output.square().mean().backward()
        assert_buffers(model, case)


@pytest.mark.slow
@torch.no_grad()
def test_the_head_behind_batch_statistics_is_that_of_the_reference() -> None:
    case, expected = part_of(parity_json(FILE), "train_mode_head"), arrays()
    model = network(case).train()
    model.dropout.eval()
    logits = model.step_logits(video(case["input_name"], case["input_shape"]))
    np.testing.assert_allclose(logits.numpy(), expected[f"{case['name']}/logits"], atol=1e-3)
    assert_stated(logits, case["logits"], atol=1e-3, rtol=1e-3)
    assert logits.amax(2).argmax(1).tolist() == case["argmax_of_max_over_time"]


@pytest.mark.parametrize("name", list(CASES.get("wlasl_loss", {})))
def test_the_loss_of_wlasl_is_that_of_the_reference(name: str) -> None:
    case, expected = CASES["wlasl_loss"][name], arrays()
    logits = torch.from_numpy(expected[f"{name}/logits"]).requires_grad_()
    assert list(logits.shape) == case["shape"]
    labels = torch.from_numpy(expected[f"{name}/labels"])
    frames = stretch(logits, case["frames"])
    np.testing.assert_allclose(frames.detach().numpy(), expected[f"{name}/upsampled"], atol=1e-5, rtol=1e-5)
    located, classified = wlasl_loss(logits, labels, case["frames"])
    total = (located + classified) / 2
    assert float(located.detach()) == pytest.approx(case["loc_loss"], rel=1e-5)
    assert float(classified.detach()) == pytest.approx(case["cls_loss"], rel=1e-5)
    assert float(total.detach()) == pytest.approx(case["total"], rel=1e-5)
    total.backward()
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad.numpy(), expected[f"{name}/grad_logits"], atol=1e-6, rtol=1e-3)
    assert frames.amax(2).argmax(1).tolist() == case["prediction_max_over_time"]
