"""Laws of the streaming student: chunks equal the whole, the future changes nothing, it is small, and it learns."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sign_dist.models.distillation import soft_clip_loss
from sign_dist.models.student import CtcStudent
from sign_dist.models.temporal_i3d import PRESETS, TemporalI3d

MAX_BYTES = 20 * 1024 * 1024


def network(**options: int | float) -> CtcStudent:
    torch.manual_seed(0)
    return CtcStudent(7, 5, **{"width": 16, **options})  # type: ignore[arg-type]


def features(batch: int, steps: int, seed: int = 0) -> Tensor:
    return torch.randn(batch, steps, 7, generator=torch.Generator().manual_seed(seed))


@given(
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=12),
    batch=st.integers(1, 3),
    kernel=st.integers(2, 7),
    depth=st.integers(2, 4),
)
@torch.inference_mode()
def test_chunks_of_any_sizes_give_what_the_whole_gives(sizes: list[int], batch: int, kernel: int, depth: int) -> None:
    model = network(kernel=kernel, depth=depth).eval()
    x = features(batch, sum(sizes) or 1)[:, : sum(sizes)]
    whole, steps = model(x)
    assert steps.tolist() == [whole.shape[1]] * batch == [-(-sum(sizes) // 4)] * batch
    state = model.start(batch)
    parts: list[Tensor] = []
    seen = 0
    for chunk in x.split(sizes, dim=1):
        logits, state = model.step(chunk, state)
        seen += chunk.shape[1]
        parts.append(logits)
        assert sum(part.shape[1] for part in parts) == -(-seen // 4)  # nothing that is due is held back
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_the_future_and_padding_change_nothing() -> None:
    model = network().eval()
    x = features(1, 40)
    before, _ = model(x)
    for cut in (1, 8, 21, 36):
        other = x.clone()
        other[:, cut:] = 100
        after, steps = model(other, torch.tensor([cut]))
        assert steps.tolist() == [-(-cut // 4)]
        torch.testing.assert_close(after[:, : steps[0]], before[:, : steps[0]], atol=1e-5, rtol=1e-4)
        assert not torch.allclose(after[:, steps[0] :], before[:, steps[0] :], atol=1e-2)


@torch.inference_mode()
def test_a_state_can_be_used_twice() -> None:
    """Two ways on from one moment: the first leaves no trace in the second."""
    model = network().eval()
    x = features(2, 30)
    _, state = model.step(x[:, :11], model.start(2))
    once, _ = model.step(x[:, 11:], state)
    model.step(features(2, 9, seed=1), state)
    again, _ = model.step(x[:, 11:], state)
    torch.testing.assert_close(once, again, atol=0, rtol=0)


@pytest.mark.parametrize(("num_inputs", "num_classes"), [(1024, 1296), (6516, 1232), (6516, 2001), (768, 2001)])
def test_is_at_most_20_mb(num_inputs: int, num_classes: int) -> None:
    with torch.device("meta"):
        model = CtcStudent(num_inputs, num_classes)
    sizes = [t.numel() * t.element_size() for t in model.state_dict().values()]
    assert sum(sizes) <= MAX_BYTES
    count = sum(p.numel() for p in model.parameters())
    assert count == pytest.approx(256 * num_inputs + 257 * num_classes + 2.12e6, rel=0.01)


@pytest.mark.long
def test_learns_a_sequence_by_heart_and_from_a_teacher_of_as_many_steps() -> None:
    model = network(width=32, dropout=0.0)
    torch.manual_seed(1)
    teacher = TemporalI3d(5, modalities=(7,), shape=PRESETS["i3d1d"]).eval()
    x, lengths = features(2, 41), torch.tensor([41, 30])
    targets, target_lengths = torch.tensor([[1, 2, 2], [4, 3, 0]]), torch.tensor([3, 2])
    with torch.no_grad():
        told, told_steps = teacher(x, lengths)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    hard: list[float] = []
    for _ in range(60):
        logits, steps = model(x, lengths)
        assert logits.shape == told.shape
        assert steps.tolist() == told_steps.tolist()
        assert torch.isfinite(soft_clip_loss(logits, told, steps)).all()
        loss = F.ctc_loss(logits.log_softmax(-1).transpose(0, 1), targets, steps, target_lengths)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        hard.append(loss.item())
    assert hard[-1] < 0.1 * hard[0]


@torch.inference_mode()
def test_bf16_answers_nearly_the_same_in_chunks_too() -> None:
    model = network().eval()
    x = features(2, 23)
    exact, _ = model(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        whole, _ = model(x)
        first, state = model.step(x[:, :10], model.start(2))
        second, _ = model.step(x[:, 10:], state)
    assert float((whole.float() - exact).norm() / exact.norm()) < 0.05
    torch.testing.assert_close(torch.cat([first, second], dim=1).float(), whole.float(), atol=0.05, rtol=0.05)


def test_groups_hold_every_parameter_once() -> None:
    model = network()
    groups = model.layer_groups()
    assert (groups[0][0], groups[-1][0]) == ("classifier", "input")
    assert sorted(id(p) for _, parts in groups for m in parts for p in m.parameters()) == sorted(id(p) for p in model.parameters())


def test_a_chunk_of_other_features_or_streams_is_refused() -> None:
    model = network()
    for chunk in (torch.zeros(1, 4, 6), torch.zeros(2, 4, 7), torch.zeros(4, 7)):
        with pytest.raises(ValueError, match=r"need features \(1, t, 7\), got"):
            model.step(chunk, model.start(1))
    with pytest.raises(ValueError, match="num_classes=1"):
        CtcStudent(7, 1)
