"""Laws of the 1-D teacher: padding counts for nothing, I3D's kernels fill it, it learns, it saves memory without a difference."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sign_dist.models.i3d import InceptionI3d
from sign_dist.models.temporal_i3d import PRESETS, TemporalI3d, TemporalShape, pool_time
from sign_dist.transfer.kernels import Method, adapt_kernel, adapter, temporal_name
from sign_dist.transfer.load import load_into

SIZES = (5, 4, 3)


def network(preset: str = "seed", **options: object) -> TemporalI3d:
    torch.manual_seed(0)
    return TemporalI3d(6, modalities=SIZES, shape=PRESETS[preset], **options)  # type: ignore[arg-type]


def clips(*lengths: int, fill: float = 0.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Padded to the longest with `fill`."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.full((len(lengths), max(lengths), sum(SIZES)), fill)
    for row, length in zip(x, lengths, strict=True):
        row[:length] = torch.randn(length, sum(SIZES), generator=generator)
    return x, torch.tensor(lengths)


@pytest.mark.parametrize("preset", PRESETS)
@torch.inference_mode()
def test_a_clip_alone_equals_the_clip_in_a_padded_batch(preset: str) -> None:
    model = network(preset).eval()
    x, lengths = clips(29, 14, 1, fill=9.0)
    logits, steps = model(x, lengths)
    assert steps.tolist() == [8, 4, 1]
    assert logits.shape == (3, 8, 6)
    for i, length in enumerate(lengths.tolist()):
        alone, own = model(x[i : i + 1, :length])
        assert own.tolist() == [steps[i]]
        torch.testing.assert_close(logits[i, : steps[i]], alone[0], atol=1e-5, rtol=1e-4)


@pytest.mark.long
def test_padding_moves_neither_statistics_nor_gradients() -> None:
    """In training too, where BatchNorm looks at the whole batch."""
    found: list[list[Tensor]] = []
    for fill, more in ((0.0, 0), (7.0, 13)):
        model = network(dropout=0.0).train()
        x, lengths = clips(21, 10, fill=fill)
        logits, steps = model(F.pad(x, (0, 0, 0, more), value=fill), lengths)
        sum(row[:n].square().sum() for row, n in zip(logits, steps, strict=True)).backward()  # type: ignore[union-attr]
        found.append([*(p.grad for p in model.parameters() if p.grad is not None), *(b.float() for b in model.buffers())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("strides", [(1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 1, 2)])
@torch.inference_mode()
def test_steps_are_frames_over_all_strides_rounded_up(strides: tuple[int, int, int]) -> None:
    shape = TemporalShape(b2b_kernel=3, inner_convs=True, bias=False, strides=strides)
    model = TemporalI3d(3, modalities=SIZES, shape=shape).eval()
    for length in (1, 7, 16, 17):
        logits, steps = model(torch.randn(1, length, sum(SIZES)))
        wanted = length
        for stride in strides:
            wanted = -(-wanted // stride)
        assert (logits.shape[1], steps.tolist()) == (wanted, [wanted])


@torch.inference_mode()
def test_the_mirror_computes_what_i3d_does_where_nothing_moves_in_space() -> None:
    """Kernels summed over space, on pictures of one colour each and far from their edges, are I3D itself: same order of layers,
    same windows in time. Strides are I3D's here, and the fusion, which it has not, is taken out."""
    torch.manual_seed(0)
    video_net = InceptionI3d(2).eval()
    shape = TemporalShape(b2b_kernel=3, inner_convs=True, bias=False, strides=(2, 2, 2), fused_width=4)
    model = TemporalI3d(2, modalities=(4,), shape=shape, num_heads=1).eval()
    sums = {
        name: tensor.sum((3, 4)) if tensor.ndim == 5 else tensor
        for name, tensor in video_net.state_dict().items()
        if not name.startswith("logits")
    }
    sums["Conv3d_1a_7x7.conv3d.weight"] = F.pad(sums["Conv3d_1a_7x7.conv3d.weight"], (0, 0, 0, 1))  # a channel nobody reads
    report = load_into(model, sums, rename=temporal_name, min_match=0.9)
    assert not report.misshaped
    model.modality_fusion = Passed()  # type: ignore[assignment]
    colours = torch.rand(1, 3, 24) * 2 - 1
    wanted = _stages_without_edges(video_net, colours[..., None, None])["Mixed_5c"][..., 0, 0]
    seen, _ = model.visual(F.pad(colours, (0, 0, 0, 1)).transpose(1, 2), torch.tensor([24]))
    torch.testing.assert_close(seen, wanted, atol=1e-4, rtol=1e-3)


def _stages_without_edges(model: InceptionI3d, video: Tensor) -> dict[str, Tensor]:
    """I3D's stages over one pixel of an endless even picture: its kernels summed over space, its windows in time."""
    flat = InceptionI3d(2).eval()
    flat.load_state_dict(model.state_dict())
    for module in flat.modules():
        if isinstance(module, nn.Conv3d) and module.bias is None:
            total = module.weight.sum((3, 4), keepdim=True)
            weight = torch.zeros_like(module.weight)
            # SAME padding of a single pixel puts it here.
            at = (module.kernel_size[1] - 1) // 2
            weight[:, :, :, at : at + 1, at : at + 1] = total
            module.weight.copy_(weight)
    return dict(flat.endpoints(video))


class Passed(nn.Module):
    """Instead of the fusion: what comes in goes out."""

    modalities = (4,)

    def forward(self, x: Tensor, valid: Tensor | None) -> Tensor:
        return x


@pytest.mark.long
@pytest.mark.parametrize("method", ["temporal_mean", "spatial_mean", "temporal_max"])
@pytest.mark.parametrize("preset", PRESETS)
def test_kernels_of_i3d_fill_what_has_their_shape(preset: str, method: Method) -> None:
    torch.manual_seed(1)
    video_net, model = InceptionI3d(9), network(preset)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    report = load_into(model, video_net.state_dict(), min_match=0.1, rename=temporal_name, adapt=adapter(method))
    weights = {name for name in before if name.endswith("conv.weight")}
    unfit = weights - set(report.adapted)
    if preset == "i3d1d":
        assert unfit == {"stem.conv.weight"}  # it reads features, not three colours
    else:  # kernels of 5, and blocks that follow 64 channels instead of 192
        narrow = {f"mixed_3b.{branch}.conv.weight" for branch in ("b0", "b1a", "b2a", "b3b")}
        assert unfit == {"stem.conv.weight", *narrow, *(w for w in weights if ".b2b." in w)}
    assert {name for name in report.misshaped if name.endswith("weight")} == unfit
    assert set(report.skipped) >= {"logits.conv3d.weight", "logits.conv3d.bias"}
    assert all(name in report.loaded for name in before if ".bn." in name)
    after, source = model.state_dict(), video_net.state_dict()
    kernel, made = source["Mixed_4f.b1b.conv3d.weight"], after["mixed_4f.b1b.conv.weight"]
    wanted = {"temporal_mean": kernel.mean((3, 4)), "temporal_max": kernel.amax((3, 4))}.get(method)
    if wanted is None:
        wanted = torch.zeros_like(made)
        wanted[:, :, 1] = kernel.mean((3, 4))[:, :, 1]
    torch.testing.assert_close(made, wanted)
    own = [name for name in before if name.startswith(("modality_fusion", "lstm", "classifier"))]
    assert all(torch.equal(after[name], before[name]) for name in [*own, *unfit])


def test_a_method_nobody_knows_and_a_kernel_without_space_are_refused() -> None:
    with pytest.raises(ValueError, match="'mean': one of temporal_mean"):
        adapter("mean")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'mean': one of temporal_mean"):
        adapt_kernel(torch.zeros(1, 1, 1, 1, 1), "mean")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"\(out, in, t, h, w\).*\(4, 3, 5\)"):
        adapt_kernel(torch.zeros(4, 3, 5))


def test_checkpointing_gives_equal_gradients_and_counts_a_batch_once() -> None:
    plain, thrifty = network(dropout=0.0).train(), network(dropout=0.0, checkpointing=True).train()
    x, lengths = clips(21, 10)
    for model in (plain, thrifty):
        model(x, lengths)[0].square().mean().backward()
    for (name, one), other in zip(plain.named_parameters(), thrifty.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, msg=name)
    for (name, one), other in zip(plain.named_buffers(), thrifty.buffers(), strict=True):
        torch.testing.assert_close(other, one, msg=name)


@pytest.mark.long
def test_learns_two_sequences_by_heart() -> None:
    model = network("i3d1d", dropout=0.0)
    x, lengths = clips(40, 33)
    targets, target_lengths = torch.tensor([[1, 2, 3], [4, 5, 0]]), torch.tensor([3, 2])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses: list[float] = []
    for _ in range(12):
        logits, steps = model(x, lengths)
        loss = F.ctc_loss(logits.log_softmax(-1).transpose(0, 1), targets, steps, target_lengths)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in model.parameters() if p.ndim > 1)


@torch.inference_mode()
def test_bf16_answers_nearly_the_same() -> None:
    model = network().eval()
    x, lengths = clips(20, 9)
    exact, _ = model(x, lengths)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded, _ = model(x, lengths)
    assert float((rounded.float() - exact).norm() / exact.norm()) < 0.05


@pytest.mark.parametrize("preset", PRESETS)
def test_groups_hold_every_parameter_once(preset: str) -> None:
    model = network(preset)
    groups = model.layer_groups()
    assert (groups[0][0], groups[-1][0]) == ("classifier", "modality_fusion")
    assert sorted(id(p) for _, parts in groups for m in parts for p in m.parameters()) == sorted(id(p) for p in model.parameters())


def test_wrong_features_and_empty_clips_are_refused() -> None:
    model = network()
    with pytest.raises(ValueError, match=r"\(B, T, 5 \+ 4 \+ 3\), got \(1, 8, 11\)"):
        model(torch.zeros(1, 8, 11))
    with pytest.raises(ValueError, match=r"lengths \[2, 0\]"):
        model(torch.zeros(2, 8, 12), torch.tensor([8, 0]))
    with pytest.raises(ValueError, match=r"modalities=\(\)"):
        TemporalI3d(3, modalities=())


def test_pooling_in_time_takes_the_maximum_of_each_window() -> None:
    x = torch.tensor([[[3.0, 0, 1, 5, 2]]])
    assert pool_time(x, 3, 1).tolist() == [[[3, 3, 5, 5, 5]]]
    assert pool_time(x, 2, 2).tolist() == [[[3, 5, 2]]]
    assert pool_time(x, 3, 2).tolist() == [[[3, 5, 2]]]
