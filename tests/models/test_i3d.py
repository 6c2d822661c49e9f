"""Laws of Inception-I3D that need no reference: sizes, padding, colours, memory-saving training, groups, heads."""

import itertools
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from sign_dist.config.model import I3dModel
from sign_dist.config.run import Run
from sign_dist.errors import SettingsError
from sign_dist.models.build import build_model
from sign_dist.models.i3d import InceptionI3d, max_pool_same, normalise_frames, same_padding, wlasl_loss
from sign_dist.training.start import start_model

SIZES = st.integers(1, 24)


@pytest.fixture(scope="module")
def network() -> InceptionI3d:
    torch.manual_seed(0)
    return InceptionI3d(7).eval()


def frames(batch: int, steps: int, size: int, *, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, steps, size, size, 3), dtype=torch.uint8, generator=generator)


@given(size=st.integers(1, 300), kernel=st.integers(1, 9), stride=st.integers(1, 4))
def test_same_padding_gives_one_window_per_stride_and_no_more_zeros_than_needed(size: int, kernel: int, stride: int) -> None:
    front, back = same_padding(size, kernel, stride)
    wanted = -(-size // stride)
    assert 0 <= back - front <= 1
    if kernel >= stride:
        assert (size + front + back - kernel) // stride + 1 == wanted
    if front + back:  # one zero less would lose a window
        assert (size + front + back - 1 - kernel) // stride + 1 < wanted


@given(
    shape=st.tuples(SIZES, SIZES, SIZES),
    sides=st.sampled_from([((1, 3, 3), (1, 2, 2)), ((3, 3, 3), (2, 2, 2)), ((2, 2, 2), (2, 2, 2)), ((3, 3, 3), (1, 1, 1))]),
)
def test_pooling_equals_written_zeros_and_windows_over_them(
    shape: tuple[int, ...], sides: tuple[tuple[int, int, int], ...]
) -> None:
    kernel, stride = sides
    x = torch.rand(2, 3, *shape, generator=torch.Generator().manual_seed(sum(shape)))
    pads = [same_padding(n, k, s) for n, k, s in zip(shape, kernel, stride, strict=True)]
    plain = F.max_pool3d(F.pad(x, list(itertools.chain(*reversed(pads)))), kernel, stride)
    torch.testing.assert_close(max_pool_same(x, kernel, stride), plain, atol=0, rtol=0)


@pytest.mark.long
@pytest.mark.parametrize(("num_frames", "height", "width"), [(1, 32, 32), (8, 33, 40), (9, 64, 47), (17, 64, 64), (24, 40, 90)])
@torch.inference_mode()
def test_steps_follow_from_frames_for_any_size(network: InceptionI3d, num_frames: int, height: int, width: int) -> None:
    video = torch.rand(2, 3, num_frames, height, width) * 2 - 1
    outputs = dict(network.endpoints(video))
    assert outputs["Mixed_5c"].shape == (2, 1024, -(-num_frames // 8), -(-height // 32), -(-width // 32))
    steps = network.step_logits(video)
    assert steps.shape == (2, 7, max(-(-num_frames // 8) - 1, 1))
    torch.testing.assert_close(network(video), steps.amax(2))


@pytest.mark.long
@torch.inference_mode()
def test_bytes_are_normalised_and_bgr_weights_see_bgr(network: InceptionI3d) -> None:
    shown = frames(2, 9, 32)
    video = normalise_frames(shown)
    assert (video.min(), video.max()) == (-1, 1)
    torch.testing.assert_close(network(shown), network(video))
    other = InceptionI3d(7, colours="bgr", over_time="mean").eval()
    other.load_state_dict(network.state_dict())
    torch.testing.assert_close(other(shown), network.step_logits(video.flip(1)).mean(2))
    assert not torch.allclose(other(shown), network.step_logits(video).mean(2), atol=1e-3)


@pytest.mark.long
@pytest.mark.parametrize("over_time", ["max", "mean"])
@torch.inference_mode()
def test_steps_behind_a_clips_end_do_not_count(over_time: str) -> None:
    torch.manual_seed(0)
    model = InceptionI3d(4, over_time=over_time).eval()  # type: ignore[arg-type]
    shown = frames(3, 40, 32)
    steps = model.step_logits(normalise_frames(shown))
    answer = model(shown, torch.tensor([40, 17, 3]))
    for i, count in enumerate([4, 2, 1]):  # ceil(n / 8) - 1, and one at least
        own = steps[i, :, :count]
        torch.testing.assert_close(answer[i], own.amax(1) if over_time == "max" else own.mean(1))
    torch.testing.assert_close(model(shown, torch.full((3,), 40)), model(shown))


@pytest.mark.parametrize("shape", [(1, 3, 9, 32), (1, 1, 9, 32, 32), (1, 3, 0, 32, 32), (0, 3, 9, 32, 32)])
def test_what_is_no_video_is_refused_with_its_shape(network: InceptionI3d, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"need video \(B, 3, T, H, W\).*got \(" + str(shape[0])):
        network.features(torch.zeros(shape))


def test_a_head_needs_a_class() -> None:
    with pytest.raises(ValueError, match="num_classes=0"):
        InceptionI3d(0)


def test_another_vocabulary_changes_the_head_only(network: InceptionI3d) -> None:
    model = InceptionI3d(7)
    model.load_state_dict(network.state_dict())
    model.replace_logits(11)
    state, before = model.state_dict(), network.state_dict()
    assert {name for name in before if state[name].shape != before[name].shape} == {"logits.conv3d.weight", "logits.conv3d.bias"}
    assert all(torch.equal(state[name], before[name]) for name in before if not name.startswith("logits."))
    assert model.eval()(frames(1, 9, 32)).shape == (1, 11)


@pytest.mark.long
def test_checkpointing_gives_equal_gradients_and_counts_a_batch_once() -> None:
    torch.manual_seed(0)
    plain, thrifty = InceptionI3d(3, dropout=0.0), InceptionI3d(3, dropout=0.0, checkpointing=True)
    thrifty.load_state_dict(plain.state_dict())
    shown = frames(2, 9, 64)
    for model in (plain, thrifty):
        F.cross_entropy(model.train()(shown), torch.tensor([0, 2])).backward()
    for (name, one), other in zip(plain.named_parameters(), thrifty.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, msg=name)
    for (name, one), other in zip(plain.named_buffers(), thrifty.buffers(), strict=True):
        torch.testing.assert_close(other, one, msg=name)
    assert all(m.momentum == 0.01 for m in thrifty.modules() if isinstance(m, torch.nn.BatchNorm3d))


def test_groups_hold_every_parameter_once_from_the_head_down(network: InceptionI3d) -> None:
    groups = network.layer_groups()
    assert [groups[0][0], groups[1][0], groups[-1][0]] == ["logits", "Mixed_5c", "Conv3d_1a_7x7"]
    found = [id(p) for _, parts in groups for part in parts for p in part.parameters()]
    assert sorted(found) == sorted(id(p) for p in network.parameters())


@torch.inference_mode()
def test_bf16_answers_nearly_the_same(network: InceptionI3d) -> None:
    shown = frames(1, 9, 64)
    exact = network(shown)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = network(shown)
    assert float((rounded.float() - exact).norm() / exact.norm()) < 0.05


@pytest.mark.long
def test_learns_a_few_clips_by_heart() -> None:
    torch.manual_seed(0)
    model = InceptionI3d(3, dropout=0.0)
    shown = (torch.arange(3)[:, None, None, None, None] * 80 + frames(3, 9, 32) // 8).to(torch.uint8)
    labels = torch.tensor([0, 1, 2])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses: list[float] = []
    for _ in range(6):
        optimizer.zero_grad()
        located, classified = wlasl_loss(model.step_logits(normalise_frames(shown)), labels, 9)
        loss = (located + classified) / 2
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.long
def test_settings_become_the_network_and_a_kinetics_file_fills_all_but_its_head(tmp_path: Path) -> None:
    """A file as torch 0.3 wrote it: no counts of batches, 287 names, another number of classes."""
    run = Run.model_validate(
        {
            "data": {"root": "data/none", "features": {"kind": "frames", "size_px": 224, "num_frames": 16}},
            "model": {"kind": "i3d", "weights": str(tmp_path / "rgb_imagenet.pt"), "colours": "bgr", "dropout": 0.2},
        }
    )
    torch.manual_seed(0)
    published = {name: tensor for name, tensor in InceptionI3d(9).state_dict().items() if not name.endswith("num_batches_tracked")}
    assert len(published) == 287
    torch.save(published, tmp_path / "rgb_imagenet.pt")
    model = start_model(run, num_classes=4, feature_shape=(224, 224, 3))
    assert isinstance(model, InceptionI3d)
    assert (model.colours, model.dropout.p, model.over_time) == ("bgr", 0.2, "max")
    state = model.state_dict()
    same = {name for name, tensor in published.items() if state[name].shape == tensor.shape and torch.equal(state[name], tensor)}
    # The catalogue knows a file of that name as one for RGB: its first kernel is turned for a model that is given BGR.
    assert published.keys() - same == {"logits.conv3d.weight", "logits.conv3d.bias", "Conv3d_1a_7x7.conv3d.weight"}
    stem = "Conv3d_1a_7x7.conv3d.weight"
    torch.testing.assert_close(state[stem], published[stem].flip(1), atol=0, rtol=0)


def test_statistics_follow_as_fast_as_is_said() -> None:
    model = InceptionI3d(3, norm_momentum=0.25)
    first = model.Conv3d_1a_7x7
    video = torch.randn(2, 3, 8, 32, 32)
    seen = F.conv3d(F.pad(video, [2, 3, 2, 3, 2, 3]), first.conv3d.weight, stride=2).mean(dim=(0, 2, 3, 4))
    model.train()
    with torch.no_grad():
        first(video)
    torch.testing.assert_close(first.bn.running_mean, 0.25 * seen, atol=1e-4, rtol=1e-3)
    assert {m.momentum for m in model.modules() if isinstance(m, torch.nn.BatchNorm3d)} == {0.25}


def test_settings_refuse_features_that_are_no_frames() -> None:
    with pytest.raises(SettingsError, match=r"'i3d' reads frames \(T, H, W, 3\)"):
        build_model(I3dModel(), num_classes=4, feature_shape=(768,))
