"""Laws of the landmark and feature classifiers: padding is not read, mirror images agree, groups hold all weights."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sign_dist.models.feature_classifier import FeatureClassifier
from sign_dist.models.landmark import LandmarkClassifier, cut_rest, mirror_points
from sign_dist.models.temporal import mean_over_stride
from sign_dist.video import transform
from sign_dist.video.landmarks import FACE, LEFT_HAND, NUM_LANDMARKS, RIGHT_HAND


def clips(*lengths: int, num_landmarks: int = NUM_LANDMARKS) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    made = [torch.randn(n, num_landmarks, 4, generator=generator).abs() for n in lengths]
    for points in made:
        points[: len(points) // 3, LEFT_HAND] = 0.0
    return made


def landmark_model(**options: object) -> LandmarkClassifier:
    torch.manual_seed(0)
    return LandmarkClassifier(5, width=32, depth=2, num_heads=2, **options).eval()  # type: ignore[arg-type]


def feature_model() -> FeatureClassifier:
    torch.manual_seed(0)
    return FeatureClassifier(5, num_features=12, width=32, depth=2, num_heads=2).eval()


def padded(parts: list[torch.Tensor], filler: float) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(len(p) for p in parts) + 3
    batch = torch.full((len(parts), longest, *parts[0].shape[1:]), filler)
    for i, part in enumerate(parts):
        batch[i, : len(part)] = part
    return batch, torch.tensor([len(p) for p in parts])


OPTIONS = [
    {},
    {"use_face": True, "use_depth": True, "frame_step": 2},
    {"mirror_views": False, "stride": 3, "frame_step": 3, "cut_rest": False},
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("filler", [0.0, 7.0])
def test_a_clip_alone_and_padded_in_a_batch_get_equal_logits(options: dict[str, object], filler: float) -> None:
    model, parts = landmark_model(**options), clips(1, 9, 14)
    batch, lengths = padded(parts, filler)
    with torch.no_grad():
        together = model(batch, lengths)
        for i, part in enumerate(parts):
            alone = model(part[None], torch.tensor([len(part)]))
            torch.testing.assert_close(alone[0], together[i], atol=1e-5, rtol=1e-5)


def test_feature_classifier_does_not_read_padding() -> None:
    model, parts = feature_model(), [torch.randn(n, 12) for n in (1, 4, 11)]
    batch, lengths = padded(parts, 3.0)
    with torch.no_grad():
        together = model(batch, lengths)
        for i, part in enumerate(parts):
            torch.testing.assert_close(model(part[None], torch.tensor([len(part)]))[0], together[i], atol=1e-5, rtol=1e-5)


def test_mirror_views_make_a_clip_and_its_mirror_image_alike() -> None:
    model, (points,) = landmark_model(mirror_views=True), clips(10)
    length = torch.tensor([10])
    with torch.no_grad():
        torch.testing.assert_close(model(points[None], length), model(mirror_points(points)[None], length))


@given(st.lists(st.booleans(), min_size=1, max_size=12), st.integers(0, 3), st.integers(0, 4))
def test_rest_is_cut_up_to_the_margin_and_nothing_between(seen: list[bool], margin: int, padding: int) -> None:
    points = torch.zeros(2, len(seen) + padding, NUM_LANDMARKS, 4)
    points[:, :, 0, 0] = torch.arange(len(seen) + padding)
    points[0, : len(seen), LEFT_HAND.start + 3, 3] = torch.tensor(seen).float()
    points[0, len(seen) :, LEFT_HAND, 3] = 1.0  # padding is not looked at
    cut, lengths = cut_rest(points, torch.tensor([len(seen), 1]), margin)
    where = [t for t, found in enumerate(seen) if found] or [0, len(seen) - 1]
    expected = list(range(max(0, where[0] - margin), min(len(seen), where[-1] + 1 + margin)))
    assert cut[0, : lengths[0], 0, 0].tolist() == expected
    assert cut[1, : lengths[1], 0, 0].tolist() == [0]  # no hand, so whole


def test_rest_around_a_sign_does_not_change_its_logits() -> None:
    model, (points,) = landmark_model(), clips(9)
    points[:, LEFT_HAND, 3] = 1.0
    rest = points[:1].clone()
    rest[:, LEFT_HAND.start : RIGHT_HAND.stop] = 0.0
    shown = torch.cat([rest, points, rest])
    longer = torch.cat([rest, rest, rest, shown, rest, rest])
    with torch.no_grad():
        one, other = (model(x[None], torch.tensor([len(x)])) for x in (shown, longer))
        torch.testing.assert_close(one, other)
        torch.manual_seed(0)
        as_filmed = LandmarkClassifier(5, width=32, depth=2, num_heads=2, cut_rest=False).eval()
        assert (as_filmed(longer[None], torch.tensor([len(longer)])) - one).abs().max() > 1e-3


def test_both_mirrors_agree() -> None:
    (points,) = clips(6)
    np.testing.assert_array_equal(mirror_points(points).numpy(), transform.mirror(points.numpy()))


@pytest.mark.parametrize("num_landmarks", [NUM_LANDMARKS, FACE.start])
def test_absent_hands_and_empty_clips_give_finite_logits_and_gradients(num_landmarks: int) -> None:
    model = landmark_model(num_landmarks=num_landmarks).train()
    batch = torch.zeros(2, 8, num_landmarks, 4)
    batch[1] = clips(8, num_landmarks=num_landmarks)[0]
    model(batch, torch.tensor([8, 5])).square().sum().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("model", [landmark_model(), feature_model()])
def test_layer_groups_hold_every_weight_once_head_first(model: LandmarkClassifier | FeatureClassifier) -> None:
    groups = model.layer_groups()
    assert groups[0][0] == "head"
    assert groups[-1][0] == "input"
    grouped = [id(p) for _, modules in groups for module in modules for p in nn.Module.parameters(module)]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())


def test_mean_over_stride_averages_what_is_there() -> None:
    x = torch.tensor([[[1.0], [3.0], [5.0], [9.0]], [[2.0], [4.0], [6.0], [0.0]]])
    means, lengths = mean_over_stride(x, torch.tensor([4, 3]), 2)
    assert lengths.tolist() == [2, 2]
    assert means[..., 0].tolist() == [[2.0, 7.0], [3.0, 6.0]]


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(ValueError, match="landmarks"):
        LandmarkClassifier(3, num_landmarks=10)
    with pytest.raises(ValueError, match="features"):
        landmark_model()(torch.zeros(1, 4, 10, 4), torch.tensor([4]))
    with pytest.raises(ValueError, match="features"):
        feature_model()(torch.zeros(1, 4, 10), torch.tensor([4]))
