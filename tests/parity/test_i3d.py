"""Inception-I3D against numbers of the published code: keys, every stage, logits, gradients, training mode, WLASL's loss."""

import functools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sign_dist.models.i3d import InceptionI3d, stretch, wlasl_loss
from tests.parity.vectors import assert_stated, cases_of, fan_in, normal, parity_file, parity_json, parity_root, rng

FOLDER = "i3d"
FILE = f"{FOLDER}/i3d_cases.json"
CASES: dict[str, Any] = cases_of(FILE)
SLOW_PIXELS = 3_000_000
"""Cases with more numbers in their input take five seconds and more on one core."""


def marked(names: list[str], case: dict[str, Any]) -> list[Any]:
    slow = [math.prod(case[name]["input_shape"]) > SLOW_PIXELS for name in names]
    return [pytest.param(name, marks=[pytest.mark.slow] if s else []) for name, s in zip(names, slow, strict=True)]


def weight(key: str, shape: list[int], salt: str, rule: str) -> Tensor:
    """A tensor by the rule that the manifest names."""
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
def weights(num_classes: int) -> dict[str, Tensor]:
    manifest = parity_json(f"{FOLDER}/manifest_i3d_rgb_{num_classes}.json")
    return {row["key"]: weight(row["key"], row["shape"], manifest["weight_salt"], row["rule"]) for row in manifest["keys"]}


def network(num_classes: int) -> InceptionI3d:
    model = InceptionI3d(num_classes)
    model.load_state_dict(weights(num_classes), strict=True)
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


@pytest.mark.parametrize("path", sorted((parity_root() / FOLDER).glob("manifest_i3d_rgb_*.json")), ids=lambda p: p.stem)
def test_keys_and_shapes_are_the_published_ones(path: Any) -> None:
    manifest = parity_json(f"{FOLDER}/{path.name}")
    with torch.device("meta"):
        model = InceptionI3d(manifest["num_classes"], in_channels=manifest["in_channels"])
    state = model.state_dict()
    assert {key: list(t.shape) for key, t in state.items()} == {row["key"]: row["shape"] for row in manifest["keys"]}
    assert len(state) == manifest["n_keys"]
    assert sum(p.numel() for p in model.parameters()) == manifest["n_parameters"]
    for row in manifest["keys"]:
        if row["rule"] in ("he", "lecun"):
            assert row["scale"] == pytest.approx(math.sqrt({"he": 2, "lecun": 1}[row["rule"]] / fan_in(row["shape"])))


@pytest.mark.parametrize("name", marked(list(CASES.get("cases", {})), CASES.get("cases", {})))
@torch.inference_mode()
def test_every_stage_and_the_logits_are_those_of_the_reference(name: str) -> None:
    case, expected = CASES["cases"][name], arrays()
    x = video(case["input_name"], case["input_shape"])
    np.testing.assert_allclose(x.flatten()[:8].numpy(), case["input_check"]["first8"], rtol=1e-6)
    assert float(x.double().norm()) == pytest.approx(case["input_check"]["l2"], rel=1e-6)
    model = network(case["num_classes"])
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
    assert logits.amax(2).topk(5).indices.tolist() == case["video_top5_of_max_over_time"]
    torch.testing.assert_close(model(x), logits.amax(2), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("checkpointing", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_gradients_are_those_of_the_reference(checkpointing: bool) -> None:
    case = parity_json(FILE)["gradient"]
    model = network(case["num_classes"])
    model.checkpointing = checkpointing
    x = video(case["input_name"], case["input_shape"]).requires_grad_()
    logits = model.step_logits(x)
    loss = (logits * torch.from_numpy(normal(f"gradient/{case['name']}", logits.shape))).sum()
    assert float(loss.detach()) == pytest.approx(case["loss_value"], rel=1e-3)
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


@pytest.mark.parametrize("checkpointing", [False, True])
def test_training_mode_moves_statistics_as_the_reference_does(checkpointing: bool) -> None:
    """With checkpointing every stage runs twice, and must count once."""
    case = parity_json(FILE)["train_mode"]
    model = network(CASES["gradient"]["num_classes"]).train()
    model.checkpointing = checkpointing
    x = video(case["input_name"], case["input_shape"])
    for endpoint, output in model.endpoints(x):
        if endpoint in case["endpoints"]:
            assert_stated(output, case["endpoints"][endpoint])
    assert_buffers(model, case)
    if checkpointing:
        output.square().mean().backward()
        assert_buffers(model, case)


@pytest.mark.slow
@torch.no_grad()
def test_the_head_behind_batch_statistics_is_that_of_the_reference() -> None:
    case, expected = parity_json(FILE)["train_mode_head"], arrays()
    model = network(case["num_classes"]).train()
    model.dropout.eval()
    logits = model.step_logits(video(case["input_name"], case["input_shape"]))
    np.testing.assert_allclose(logits.numpy(), expected[f"{case['name']}/logits"], atol=1e-3)
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
