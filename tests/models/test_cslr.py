"""Laws of the CSLR head: clips do not mix, padding repeats frames, one classifier or two, losses per clip."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sign_dist.models.cslr import CslrHead, CslrOutputs, alignment_loss, num_steps, pad_clips, padded_length
from sign_dist.models.distillation import blend, divergence, soft_clip_loss, soft_frame_loss


def head(**options: object) -> CslrHead:
    torch.manual_seed(0)
    return CslrHead(6, 4, hidden=8, **options)  # type: ignore[arg-type]


def clip(length: int, seed: int = 0) -> Tensor:
    return torch.randn(length, 6, generator=torch.Generator().manual_seed(seed))


@given(st.integers(1, 2000))
def test_n_frames_give_a_quarter_of_steps_rounded_up(n: int) -> None:
    length = padded_length(n)
    assert length >= n + 12
    assert int(num_steps(torch.tensor(length))) == -(-n // 4)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=4))
def test_padding_repeats_first_and_last_frames(lengths: list[int]) -> None:
    clips = [torch.arange(n) + 100 * i for i, n in enumerate(lengths)]
    padded, found = pad_clips(clips)
    assert found.tolist() == [padded_length(n) for n in lengths]
    assert padded.shape[1] == max(found)
    for row, own in zip(padded, clips, strict=True):
        assert row[:6].tolist() == [own[0]] * 6
        assert row[6 : 6 + len(own)].tolist() == own.tolist()
        assert set(row[6 + len(own) :].tolist()) == {own[-1].item()}


@torch.inference_mode()
def test_a_clip_alone_equals_the_clip_in_a_batch() -> None:
    model = head().eval()
    clips = [clip(30, 1), clip(17, 2), clip(1, 3)]
    together = model(*pad_clips(clips))
    for i, own in enumerate(clips):
        alone = model(*pad_clips([own]))
        steps = int(alone.lengths)
        assert steps == int(together.lengths[i]) == -(-len(own) // 4)
        torch.testing.assert_close(together.logits[i, :steps], alone.logits[0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(together.conv_logits[i, :steps], alone.conv_logits[0], atol=1e-5, rtol=1e-4)
        assert not together.logits[i, steps:].any()


def test_two_classifiers_are_apart_and_one_is_shared() -> None:
    shared, apart = head(), head(share_classifier=False)
    assert sum(p.numel() for p in apart.parameters()) - sum(p.numel() for p in shared.parameters()) == 8 * 4
    for model in (shared, apart):
        groups = model.layer_groups()
        assert sorted(id(p) for _, parts in groups for m in parts for p in m.parameters()) == sorted(
            id(p) for p in model.parameters()
        )
        outputs = model(*pad_clips([clip(20)]))
        outputs.conv_logits.square().sum().backward()
        assert (model.classifier.weight.grad is None) == (model is apart)


def test_the_length_of_a_classifiers_columns_does_not_count() -> None:
    model = head().eval()
    x = pad_clips([clip(20)])
    with torch.no_grad():
        before = model(*x).logits
        model.classifier.weight.mul_(torch.tensor([0.1, 3.0, 10.0, 1.0]))
        torch.testing.assert_close(model(*x).logits, before, atol=1e-5, rtol=1e-4)


def test_the_alignment_teaches_the_convolutions_and_not_the_lstm() -> None:
    torch.manual_seed(0)
    conv, lstm = torch.randn(2, 5, 4, requires_grad=True), torch.randn(2, 5, 4, requires_grad=True)
    loss = alignment_loss(CslrOutputs(conv, lstm, torch.tensor([5, 3])))
    assert loss.shape == (2,)
    loss.sum().backward()
    assert lstm.grad is None
    assert conv.grad is not None
    assert conv.grad[..., 0].abs().max() == 0  # the blank is left out
    assert conv.grad[..., 1:].abs().min() > 0
    same = alignment_loss(CslrOutputs(lstm, lstm, torch.tensor([5, 3])))
    torch.testing.assert_close(same, torch.zeros(2), atol=1e-5, rtol=0)


def test_refusals_say_what_was_got() -> None:
    with pytest.raises(ValueError, match=r"lengths \[3, 0\]"):
        pad_clips([clip(3), clip(0)])
    with pytest.raises(ValueError, match="16 frames or more, got 15"):
        head()(torch.zeros(1, 15, 6), torch.tensor([15]))
    with pytest.raises(ValueError, match="hidden=7"):
        CslrHead(6, 4, hidden=7)


def test_distillation_is_zero_for_equal_answers_and_blind_to_padding_and_constants() -> None:
    torch.manual_seed(0)
    student, teacher, lengths = torch.randn(3, 6, 5), torch.randn(3, 6, 5), torch.tensor([6, 4, 1])
    torch.testing.assert_close(divergence(student, student + 3, temperature=2.0), torch.zeros(3, 6), atol=1e-5, rtol=0)
    loss = soft_frame_loss(student, teacher, lengths)
    for i, length in enumerate(lengths.tolist()):
        student[i, length:], teacher[i, length:] = float("nan"), 50.0
    torch.testing.assert_close(soft_frame_loss(student, teacher, lengths), loss)
    assert torch.isfinite(soft_clip_loss(student, teacher, lengths)).all()
    assert (divergence(torch.randn(50, 5), torch.randn(50, 5), temperature=4.0) > 0).all()


def test_distillation_in_bf16_is_computed_in_float32() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 6, 50), torch.randn(2, 6, 50)
    exact = soft_frame_loss(student, teacher, torch.tensor([6, 6]))
    rounded = soft_frame_loss(student.bfloat16(), teacher.bfloat16(), torch.tensor([6, 6]))
    assert rounded.dtype == torch.float32
    assert rounded.item() == pytest.approx(exact.item(), rel=0.02)


def test_distillation_refuses_what_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match=r"student \(1, 4, 5\), teacher \(1, 3, 5\)"):
        divergence(torch.zeros(1, 4, 5), torch.zeros(1, 3, 5), temperature=4.0)
    with pytest.raises(ValueError, match="temperature above 0, got 0"):
        divergence(torch.zeros(1, 4, 5), torch.zeros(1, 4, 5), temperature=0)
    with pytest.raises(ValueError, match=r"0\.\.1, got 1.5"):
        blend(torch.zeros(1), torch.zeros(1), 1.5)
