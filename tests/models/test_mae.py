"""The masked autoencoder: what is hidden stays hidden, padding counts for nothing, and it learns."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sign_dist.models.hiera import HieraShape
from sign_dist.models.mae import MaskedAutoencoder, draw_visible

SHAPE = HieraShape(8, 64, 64, embed_dim=8, stages=(1, 1, 1, 1))
UNITS_PER_STEP = 4


def autoencoder(shape: HieraShape = SHAPE, **options: Any) -> MaskedAutoencoder:
    torch.manual_seed(2)
    return MaskedAutoencoder(shape, decoder_dim=16, decoder_depth=1, decoder_heads=2, **options).eval()


def half_visible(batch: int, steps: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return draw_visible(torch.ones(batch, steps * UNITS_PER_STEP, dtype=torch.bool), UNITS_PER_STEP, 0.5, generator)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.sampled_from([1, 4, 49]), st.floats(0.05, 0.95), st.integers(0, 99))
def test_drawn_masks_leave_something_on_both_sides(real_steps: list[int], per_step: int, ratio: float, seed: int) -> None:
    steps = max(real_steps)
    real = (torch.arange(steps) < torch.tensor(real_steps)[:, None]).repeat_interleave(per_step, dim=1)
    generator = torch.Generator().manual_seed(seed)
    keep = int(steps * per_step * (1 - ratio))
    if not 1 <= keep < steps * per_step or int(real.sum(1).min()) < 2:
        with pytest.raises(ValueError, match="mask_ratio"):
            draw_visible(real, per_step, ratio, generator)
        return
    visible = draw_visible(real, per_step, ratio, generator)
    assert visible.sum(1).tolist() == [keep] * len(real_steps)
    assert visible[:, :per_step].any(1).all(), "one of the first step is seen"
    assert (~visible & real).any(1).all(), "one that is no padding is hidden"
    for row in range(len(real_steps)):
        if (visible[row] & ~real[row]).any():
            assert int((visible[row] & real[row]).sum()) == int(real[row].sum()) - 1, (
                "padding is seen only where nothing else is left"
            )


@torch.inference_mode()
def test_pixels_that_are_hidden_reach_the_loss_only() -> None:
    model, visible = autoencoder(), half_visible(2)
    video = torch.randn(2, 3, 8, 64, 64)
    hidden = ~visible.view(2, 1, 4, 2, 2).repeat_interleave(2, 2).repeat_interleave(32, 3).repeat_interleave(32, 4)
    other = torch.where(hidden, torch.randn_like(video), video)
    first, second = model(video, visible=visible), model(other, visible=visible)
    assert torch.equal(first.pred, second.pred)
    assert not torch.equal(first.labels, second.labels)


@torch.inference_mode()
def test_a_padded_clip_is_the_clip_itself() -> None:
    model = autoencoder()
    short = torch.randn(1, 3, 6, 64, 64)
    padded = torch.cat([short, torch.full((1, 3, 2, 64, 64), 9.0)], dim=2)
    visible = half_visible(1, steps=3)
    alone = model(short, visible=visible)
    for behind in (torch.zeros(1, 4, dtype=torch.bool), torch.tensor([[True, False, True, False]])):
        out = model(padded, visible=torch.cat([visible, behind], 1), padding=[2])
        torch.testing.assert_close(out.loss, alone.loss)
        torch.testing.assert_close(out.pred[:, : alone.pred.shape[1]], alone.pred, atol=1e-5, rtol=1e-5)
        assert not out.counted[:, alone.pred.shape[1] :].any()


@torch.inference_mode()
def test_labels_are_the_normalised_pixels_of_the_first_of_two_frames() -> None:
    model, visible = autoencoder(), half_visible(1)
    video = torch.randn(1, 3, 8, 64, 64)
    out = model(video, visible=visible)
    token = int(out.counted[0].nonzero()[0])
    step, row, column = token // 4, token // 2 % 2, token % 2
    patch = video[0, :, 2 * step, 32 * row : 32 * row + 32, 32 * column : 32 * column + 32].permute(1, 2, 0).flatten()
    torch.testing.assert_close(out.labels[0], (patch - patch.mean()) / (patch.var() + 1e-6).sqrt())


def test_two_poolings_as_the_published_video_autoencoders_have() -> None:
    model = autoencoder(HieraShape(8, 64, 64, embed_dim=8, stages=(1, 1, 1, 1), q_pool=2))
    out = model(torch.randn(1, 3, 8, 64, 64), mask_ratio=0.5)
    assert out.pred.shape == (1, 4 * 4 * 4, 16 * 16 * 3)
    assert int(out.visible.sum()) == 4 * int(4 * UNITS_PER_STEP * 0.5)
    out.loss.backward()


@pytest.mark.long
def test_it_learns_to_fill_in_and_recomputing_gives_equal_gradients() -> None:
    frames = torch.linspace(0, 255, 64).to(torch.uint8).view(1, 1, 1, 64, 1).expand(2, 8, 64, 64, 3)
    grads: list[list[Tensor]] = []
    for recompute in (False, True):
        model = autoencoder(recompute=recompute).train()
        model(frames, visible=half_visible(2)).loss.backward()
        grads.append([p.grad for p in model.parameters() if p.grad is not None])
    assert len(grads[0]) == len(list(autoencoder().parameters()))
    torch.testing.assert_close(grads[0], grads[1])
    model = autoencoder().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    losses: list[float] = []
    for _ in range(30):
        loss = model(frames, mask_ratio=0.75, generator=generator).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ({"padding": [0]}, "need 2 paddings"),
        ({"padding": [0, 8]}, "need 2 paddings"),
        ({"mask_ratio": 1.0}, "mask_ratio"),
        ({"visible": torch.ones(2, 3, dtype=torch.bool)}, "equally many"),
        ({"visible": torch.eye(2, 16, dtype=torch.bool) | (torch.arange(16) == 0)}, "equally many"),
        ({"visible": torch.zeros(2, 16, dtype=torch.bool)}, "equally many"),
        ({"visible": torch.ones(2, 16, dtype=torch.bool)}, "nothing to predict"),
    ],
)
def test_masks_and_paddings_of_no_sense_are_refused(options: dict[str, object], wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        autoencoder()(torch.zeros(2, 3, 8, 64, 64), **options)
