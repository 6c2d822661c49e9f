"""Laws of the video network: colours and still parts do not count, nor does padding; every weight learns."""

import numpy as np
import pytest
import torch

from sign_dist.models.video_cnn import VideoCnn, standout


def moving_square(num_frames: int = 6, size: int = 64, *, seed: int = 0) -> torch.Tensor:
    """float (T, size, size, 3) between 60 and 180: a coloured square walks over a still, patterned ground."""
    generator = torch.Generator().manual_seed(seed)
    frames = (60 + 120 * torch.rand(1, size, size, 3, generator=generator)).repeat(num_frames, 1, 1, 1)
    for t in range(num_frames):
        at = 4 + t * (size // (2 * num_frames))
        frames[t, at : at + 12, at : at + 12] = 60 + 120 * torch.rand(12, 12, 3, generator=generator)
    return frames


def as_bytes(frames: torch.Tensor) -> torch.Tensor:
    return frames.round().clamp(0, 255).to(torch.uint8)


def model(num_classes: int = 5, **options: int) -> VideoCnn:
    torch.manual_seed(0)
    return VideoCnn(num_classes, width=8, num_features=16, **options)


def whole(frames: torch.Tensor) -> torch.Tensor:
    return torch.full((len(frames),), frames.shape[1])


@pytest.mark.parametrize(("num_frames", "height", "width"), [(1, 32, 32), (2, 64, 96), (7, 96, 64), (16, 160, 160)])
def test_any_number_of_frames_and_any_multiple_of_32_px(num_frames: int, height: int, width: int) -> None:
    frames = torch.randint(0, 256, (2, num_frames, height, width, 3), dtype=torch.uint8)
    assert standout(frames, whole(frames)).shape == (2, num_frames, height, width)
    assert model().eval()(frames).shape == (2, 5)


@pytest.mark.parametrize(("times", "add"), [(1.0, 40.0), (0.5, 0.0), (1.4, -30.0)])
def test_brightness_and_contrast_do_not_count(times: float, add: float) -> None:
    plain = moving_square()
    other = plain * times + add
    seen = standout(torch.stack([plain, other]), torch.tensor([6, 6]))
    # What is held against rounding noise stays the same when contrast grows: hence a tolerance, not equality.
    torch.testing.assert_close(seen[0], seen[1], atol=2e-2, rtol=2e-2)


def test_another_colouring_of_the_same_scene_does_not_count() -> None:
    plain = moving_square()
    rotation, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    turned = (plain - 120) @ torch.from_numpy(rotation).float() + 120
    seen = standout(torch.stack([plain, plain.flip(-1), turned]), torch.tensor([6, 6, 6]))
    torch.testing.assert_close(seen[1], seen[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(seen[2], seen[0], atol=1e-3, rtol=1e-3)


def test_what_stands_still_is_not_seen() -> None:
    frames = as_bytes(moving_square())
    seen = standout(frames[None], torch.tensor([6]))[0]
    still = (frames == frames[:1]).all(0).all(-1)
    assert still.any()
    assert not still.all()
    torch.testing.assert_close(seen[:, still], torch.zeros_like(seen[:, still]), atol=1e-4, rtol=0)
    assert seen[:, ~still].amax(0).min() > 0.1
    torch.testing.assert_close(standout(frames[None, [0] * 4], torch.tensor([4])), torch.zeros(1, 4, 64, 64), atol=1e-4, rtol=0)


def test_a_clip_alone_and_padded_in_a_batch_get_equal_logits() -> None:
    net = model().eval()
    short, long = as_bytes(moving_square(5)), as_bytes(moving_square(9, seed=1))
    batch = torch.full((2, 9, 64, 64, 3), 200, dtype=torch.uint8)
    batch[0, :5], batch[1] = short, long
    with torch.no_grad():
        together = net(batch, torch.tensor([5, 9]))
        torch.testing.assert_close(net(short[None], torch.tensor([5]))[0], together[0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(net(long[None])[0], together[1], atol=1e-5, rtol=1e-5)


def test_the_same_frames_give_the_same_logits_in_eval_mode_alone_or_together() -> None:
    net = model().eval()
    frames = torch.stack([as_bytes(moving_square(seed=s)) for s in range(3)])
    with torch.no_grad():
        first = net(frames)
        torch.testing.assert_close(net(frames), first, atol=0, rtol=0)
        torch.testing.assert_close(net(frames[1:2])[0], first[1], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(first[0], first[1])


def test_where_something_moves_is_not_lost() -> None:
    net = model().eval()
    frames = as_bytes(moving_square())[None]
    with torch.no_grad():
        assert not torch.allclose(net(frames), net(frames.flip(2)), atol=1e-3)
        assert not torch.allclose(net(frames), net(frames.flip(1)), atol=1e-3)  # nor when


def test_the_gradient_reaches_every_parameter_and_groups_name_each_once() -> None:
    net = model()
    frames = torch.stack([as_bytes(moving_square(seed=s)) for s in range(4)])
    torch.nn.functional.cross_entropy(net(frames), torch.tensor([0, 1, 2, 3])).backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []
    groups = net.layer_groups()
    assert [name for name, _ in groups] == ["head", "convolution_1", "convolution_0", "input", "stage 2", "stage 1", "stage 0"]
    named = [id(p) for _, modules in groups for module in modules for p in module.parameters()]
    assert sorted(named) == sorted(id(p) for p in net.parameters())


def test_learns_to_tell_directions_apart_in_a_few_steps() -> None:
    """Squares that walk down or up, in random colours: solved only by what moves, where and when."""
    down = torch.stack([moving_square(4, 32, seed=s) for s in range(8)])
    frames = as_bytes(torch.cat([down, down.flip(1)]))
    targets = torch.arange(2).repeat_interleave(8)
    net = model(2)
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    for _ in range(30):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(frames), targets).backward()
        optimizer.step()
    unseen = torch.stack([moving_square(4, 32, seed=s) for s in range(100, 108)])
    with torch.no_grad():
        found = net.eval()(as_bytes(torch.cat([unseen, unseen.flip(1)]))).argmax(1)
    assert (found == targets).float().mean() >= 0.9
