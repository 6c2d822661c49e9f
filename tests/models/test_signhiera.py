"""SignHiera: clips of any length, layer groups that hold every parameter once, weights of other lengths."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sign_dist.models import hiera
from sign_dist.models.hiera import HieraShape, pool_units, to_grid, to_units
from sign_dist.models.mae import MaskedAutoencoder
from sign_dist.models.signhiera import PRESETS, SignHiera, normalise_frames, published_name, stretched
from sign_dist.transfer.load import load_into, read_state_dict

SMALL = HieraShape(8, 64, 32, embed_dim=8, stages=(1, 1, 1, 1))


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


def small(classes: int = 0, **options: Any) -> SignHiera:
    torch.manual_seed(3)
    return SignHiera(SMALL, classes, **options).eval()


@given(st.integers(1, 8), st.integers(1, 3), st.integers(1, 3), st.sampled_from([1, 2, 4]))
def test_units_and_grids_are_two_orders_of_the_same_tokens(time: int, high: int, wide: int, size: int) -> None:
    grid = torch.arange(time * high * wide * size**2 * 2.0).view(1, time, high * size, wide * size, 2)
    units = to_units(grid, size)
    assert torch.equal(to_grid(units, (high, wide)), grid)
    corner = (time - 1, (high - 1) * size, (wide - 1) * size)
    assert torch.equal(units[0, -1], grid[0, corner[0], corner[1] :, corner[2] :])
    assert torch.equal(units[0, 0], grid[0, 0, :size, :size])


def test_pooling_takes_the_largest_of_each_square() -> None:
    x = torch.rand(2, 3, 4, 4, 5)
    expected = x.view(2, 3, 2, 2, 2, 2, 5).amax(dim=(3, 5))
    assert torch.equal(pool_units(x), expected)


@pytest.mark.long
@given(st.lists(st.integers(1, 8), min_size=1, max_size=4))
@torch.inference_mode()
def test_what_stands_behind_a_clip_s_length_is_not_seen(lengths: list[int]) -> None:
    model = small(3)
    video = torch.randn(len(lengths), 3, 8, 64, 32)
    noisy = video.clone()
    for row, length in enumerate(lengths):
        noisy[row, :, length:] = 1e3
    for row, (found, length) in enumerate(zip(model.features_of(noisy, lengths), lengths, strict=True)):
        assert found.shape == (-(-length // 2), SMALL.dim)
        torch.testing.assert_close(found, model.features(video[row : row + 1, :, :length])[0], atol=1e-5, rtol=1e-5)
    together = model(noisy, torch.tensor(lengths))
    alone = torch.cat([model(video[row : row + 1, :, :length]) for row, length in enumerate(lengths)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("lengths", [[8], [0, 8], [9, 8], [8, 8, 8]])
def test_lengths_that_are_none_are_refused(lengths: list[int]) -> None:
    with pytest.raises(ValueError, match="need 2 lengths from 1 to 8"):
        small().features_of(torch.zeros(2, 3, 8, 64, 32), lengths)


def test_recomputing_saves_memory_and_not_accuracy() -> None:
    video = torch.randn(2, 3, 8, 64, 32)
    grads: list[list[Tensor]] = []
    for recompute in (False, True):
        model = small(3, recompute=recompute).train()
        model(video).square().sum().backward()
        grads.append([p.grad for p in model.parameters() if p.grad is not None])
    assert len(grads[0]) == len(list(small(3).parameters()))
    torch.testing.assert_close(grads[0], grads[1])


def test_dropped_paths_leave_the_mean_as_it_is_and_do_nothing_outside_training() -> None:
    model, plain = small(drop_path=0.5), small()
    video = torch.randn(1, 3, 8, 64, 32)
    with torch.inference_mode():
        assert torch.equal(model.features(video), plain.features(video))
        block: Any = model.train().blocks[-1]
        torch.manual_seed(0)
        dropped = block._dropped(torch.ones(4000, 1, 1, 1, 2))
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert float(dropped.mean()) == pytest.approx(1, abs=0.1)


@torch.inference_mode()
def test_more_sequences_than_a_kernel_takes_are_run_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    model, video = small(), torch.randn(2, 3, 8, 64, 32)
    whole = model.features(video)
    monkeypatch.setattr(hiera, "MAX_SEQUENCES", 3)
    torch.testing.assert_close(model.features(video), whole)


@torch.inference_mode()
def test_bfloat16_is_near_full_precision() -> None:
    model, video = small(), torch.randn(1, 3, 8, 64, 32)
    whole = model.features(video)
    with torch.autocast("cpu", torch.bfloat16):
        half = model.features(video)
    assert float((half.float() - whole).norm() / whole.norm()) < 2e-2


def test_a_checkpoint_of_pretraining_starts_an_encoder(tmp_path: Path) -> None:
    torch.manual_seed(1)
    pretrained = MaskedAutoencoder(SMALL, decoder_dim=8, decoder_depth=1, decoder_heads=2)
    torch.save({"model": pretrained.state_dict(), "epoch": 3}, tmp_path / "mae.pth")
    encoder = small()
    report = load_into(encoder, read_state_dict(tmp_path / "mae.pth"), ignore=("norm.", "head."))
    assert report.match == 1.0
    video = torch.randn(1, 3, 8, 64, 32)
    with torch.inference_mode():
        torch.testing.assert_close(encoder.stages(video), pretrained.eval().stages(video))


def test_weights_of_another_length_are_stretched_in_time() -> None:
    long = SignHiera(HieraShape(16, 64, 32, embed_dim=8, stages=(1, 1, 1, 1)))
    short = small()
    with torch.no_grad():
        short.pos_embed_temporal.copy_(torch.arange(4.0)[None, :, None].expand(1, 4, 8))
    tensors = {f"visual.transformer.{k}": v for k, v in short.state_dict().items()}
    report = load_into(long, tensors, ignore=("norm.",), rename=published_name, adapt=stretched)
    assert report.adapted == ("pos_embed_temporal",)
    found = long.pos_embed_temporal[0, :, 0].detach().numpy()
    assert found == pytest.approx(np.clip(np.arange(8) / 2 - 0.25, 0, 3))
    assert stretched("blocks.0.norm1.weight", torch.zeros(3), torch.Size([4])) is None
    assert stretched("pos_embed_temporal", torch.zeros(1, 4, 9), torch.Size([1, 8, 8])) is None


@pytest.mark.parametrize(
    "wrong", [{"height_px": 60}, {"num_frames": 0}, {"mask_unit_size": 4}, {"stages": (1, 1, 1)}, {"q_pool": 4}]
)
def test_shapes_that_do_not_divide_are_refused(wrong: dict[str, object]) -> None:
    sizes = {"num_frames": 8, "height_px": 64, "width_px": 32} | wrong
    with pytest.raises(ValueError, match="need"):
        HieraShape(**sizes)  # type: ignore[arg-type]
