"""CSLR head, kernels without space, distillation, teacher sizes and WLASL's geometry against numbers of the originals."""

import functools
import math
import re
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sign_dist.data.vocab import Vocab
from sign_dist.models.cslr import FRONT_FRAMES, CslrHead, num_steps, pad_clips, padded_length
from sign_dist.models.distillation import blend, divergence, soft_clip_loss, soft_frame_loss
from sign_dist.models.i3d import normalise_frames
from sign_dist.models.temporal_i3d import PRESETS, TemporalI3d
from sign_dist.tasks.cslr import Cslr
from sign_dist.tasks.distill import Distilled, Terms
from sign_dist.tasks.islr import Islr
from sign_dist.tasks.task import Batch
from sign_dist.tasks.teacher import Teacher
from sign_dist.transfer.freeze import plan_of
from sign_dist.transfer.kernels import adapt_kernel
from sign_dist.transfer.schedule import stage_of
from sign_dist.video.wlasl_view import centre_corner, loader_size
from tests.parity.vectors import cases_of, fan_in, normal, parity_file, parity_json

FOLDER = "i3d"
KERNELS = cases_of(f"{FOLDER}/adapt_3d_to_1d.json").get("cases", [])
DISTILLED = cases_of(f"{FOLDER}/distillation.json").get("cases", [])
FRAMES = [case for case in DISTILLED if "shape_TBV" in case]
CLIPS = [case for case in DISTILLED if "shape_BV" in case]


def named(case: dict[str, Any]) -> str:
    return case["name"]


@functools.cache
def arrays(name: str) -> dict[str, np.ndarray]:
    with np.load(parity_file(f"{FOLDER}/{name}.npz")) as file:
        return dict(file)


def tensors(file: str, case: dict[str, Any], *names: str) -> list[Tensor]:
    return [torch.from_numpy(arrays(file)[f"{case['name']}/{name}"]) for name in names]


# 3-D kernels for 1-D networks


@pytest.mark.parametrize("case", KERNELS, ids=named)
@pytest.mark.parametrize("method", ["temporal_mean", "spatial_mean", "temporal_max"])
def test_kernels_without_space(case: dict[str, Any], method: Any) -> None:
    kernel = torch.from_numpy(normal(case["weight_name"], case["weight_shape"]))
    found = adapt_kernel(kernel, method)
    assert list(found.shape) == case[f"{method}_shape"]
    np.testing.assert_allclose(found.numpy(), arrays("adapt_3d_to_1d")[f"{case['name']}/{method}"], atol=1e-6)
    assert float(found.norm()) == pytest.approx(case["l2"][method], rel=1e-5)
    assert kernel.shape[2] // 2 == case["center_frame"]


# CSLR head


def head_weight(key: str, shape: list[int], salt: str) -> Tensor:
    """A tensor by the rule of the vectors' README; what BatchNorm is, its index in the layers says."""
    if key.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    n = normal(salt + key, shape)
    norm = ".1." in key or ".5." in key
    if key.startswith("classifier"):
        values = n
    elif "bias" in key or key.endswith("running_mean"):
        values = 0.1 * n
    elif key.endswith("running_var"):
        values = 1 + 0.1 * np.abs(n)
    elif norm:
        values = 1 + 0.1 * n
    elif "rnn" in key:
        values = n / math.sqrt(shape[1])
    else:
        values = n * math.sqrt(2 / fan_in(shape))
    return torch.from_numpy(np.asarray(values, np.float32))


@torch.inference_mode()
def test_the_head_is_the_published_one() -> None:
    case, expected = parity_json(f"{FOLDER}/cslr_head.json"), arrays("cslr_head")
    head = CslrHead(case["input_size"], case["num_classes"], hidden=case["hidden_size"]).eval()
    state = {row["key"]: head_weight(row["key"], row["shape"], case["salt"]) for row in case["keys"]}
    head.load_state_dict(state, strict=True)
    frames = case["frame_lengths"]
    clips = torch.from_numpy(normal(case["salt"] + "input", (len(frames), max(frames), case["input_size"])))
    padded, lengths = pad_clips([clip[:n] for clip, n in zip(clips, frames, strict=True)])
    assert (padded.shape[1], lengths.tolist()) == (case["padded_length"], case["video_lengths"])
    np.testing.assert_allclose(padded.numpy(), expected["padded_input"], atol=1e-6)
    outputs = head(padded, lengths)
    assert outputs.lengths.tolist() == case["feat_lengths"]
    found = {
        "conv_logits_TBV": outputs.conv_logits,
        "sequence_logits_TBV": outputs.logits,
        "visual_feat_TBH": head.conv1d(padded),
    }
    for name, tensor in found.items():
        np.testing.assert_allclose(tensor.transpose(0, 1).numpy(), expected[name], atol=1e-4, err_msg=name)


def test_padding_leaves_a_step_for_every_four_frames() -> None:
    for row in parity_json(f"{FOLDER}/cslr_head.json")["padding_table"]:
        assert padded_length(row["n_frames"]) == row["video_length"]
        assert row["left_pad"] == FRONT_FRAMES
        assert int(num_steps(torch.tensor(row["video_length"]))) == row["feat_len"]


# Distillation


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("case", FRAMES, ids=named)
def test_losses_of_a_student_of_gloss_sequences(case: dict[str, Any], dtype: torch.dtype) -> None:
    rtol = 1e-5 if dtype is torch.float64 else 1e-4
    close = functools.partial(pytest.approx, rel=rtol)
    student, teacher, targets = tensors("distillation", case, "student_logits", "teacher_logits", "targets")
    assert list(student.shape) == case["shape_TBV"]
    student = student.to(dtype).requires_grad_()
    own, told = student.transpose(0, 1), teacher.to(dtype).transpose(0, 1)
    lengths, target_lengths = torch.tensor(case["input_lengths"]), torch.tensor(case["target_lengths"])
    soft = functools.partial(soft_frame_loss, own, told, lengths, temperature=case["temperature"])
    found = {
        "soft_per_frame_masked": soft(),
        "soft_all_frames": soft(reduction="all_frames"),
        "soft_all_frames_without_blank": soft(reduction="all_frames", drop_blank=True),
        "soft_kl_div_batchmean_on_TBV": soft(reduction="seed"),
    }
    for name, value in found.items():
        assert value.item() == close(case[name]), name
    clips = soft_clip_loss(own, told, lengths, temperature=case["temperature"])
    assert ((clips * lengths).sum() / lengths.sum()).item() == close(case["soft_per_frame_masked"])
    hard = F.ctc_loss(student.log_softmax(-1), targets, lengths, target_lengths, reduction="none")
    assert hard.tolist() == close(case["hard_ctc_none"])
    hard = (hard / target_lengths).mean()
    assert hard.item() == close(case["hard_ctc_torch_mean"])
    total = blend(found["soft_per_frame_masked"], hard, case["alpha"])
    assert total.item() == close(case["total_masked"])
    assert blend(found["soft_kl_div_batchmean_on_TBV"], hard, case["alpha"]).item() == close(case["total_seed_repo"])
    total.backward()
    assert student.grad is not None
    expected = arrays("distillation")[f"{case['name']}/grad_total_masked"]
    np.testing.assert_allclose(student.grad.numpy(), expected, rtol=rtol, atol=rtol * np.abs(expected).max())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("case", CLIPS, ids=named)
def test_losses_of_a_student_of_single_signs(case: dict[str, Any], dtype: torch.dtype) -> None:
    close = functools.partial(pytest.approx, rel=1e-5 if dtype is torch.float64 else 1e-4)
    student, teacher, labels = tensors("distillation", case, "student_logits", "teacher_logits", "labels")
    assert list(student.shape) == case["shape_BV"]
    student, teacher = student.to(dtype), teacher.to(dtype)
    soft = divergence(student, teacher, temperature=case["temperature"]).mean()
    hard = F.cross_entropy(student, labels)
    assert soft.item() == close(case["soft"])
    assert hard.item() == close(case["hard_cross_entropy"])
    assert blend(soft, hard, case["alpha"]).item() == close(case["total"])


class Answer(torch.nn.Module):
    """A model whose answer is given: logits (B, T, V) and lengths, or (B, V)."""

    def __init__(self, logits: Tensor, lengths: Tensor | None = None) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(logits)
        self.lengths = lengths

    def forward(self, features: Tensor, lengths: Tensor) -> Any:
        return self.logits if self.lengths is None else (self.logits, self.lengths)


class MeanCtc(Cslr):
    """CTC of each clip divided by the length of its label, in the logits' own precision: torch's `mean`."""

    def losses(self, model: Any, batch: Batch) -> Any:
        outputs = model(batch.features, batch.lengths)
        known = (batch.targets >= 0).sum(1)
        hard = F.ctc_loss(outputs[0].transpose(0, 1).log_softmax(-1), batch.targets, outputs[1], known, reduction="none")
        return {"ctc": hard / known}, outputs


def batch_of(num_clips: int, targets: Tensor) -> Batch:
    ones = torch.ones(num_clips)
    names = tuple(f"clip{i}" for i in range(num_clips))
    return Batch(names, names, torch.zeros(num_clips, 1, 1), ones.long(), targets, ones)


def vocabulary(num_glosses: int) -> Vocab:
    return Vocab(tuple(f"G{i}" for i in range(num_glosses)))


def wrapped(task: Any, teacher: torch.nn.Module, case: dict[str, Any], **terms: Any) -> Distilled:
    return Distilled(task, Teacher(teacher, task), Terms(told={"logits": 1.0}, temperature=case["temperature"], **terms))


def summed(losses: dict[str, Tensor]) -> Tensor:
    """What the loop minimises: the mean over the clips of the sum of a clip's terms."""
    return torch.stack(list(losses.values())).sum(0).mean()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("case", FRAMES, ids=named)
def test_losses_of_the_task_around_gloss_sequences(case: dict[str, Any], dtype: torch.dtype) -> None:
    rtol = 1e-5 if dtype is torch.float64 else 1e-4
    logits, told, targets = tensors("distillation", case, "student_logits", "teacher_logits", "targets")
    own, told = (each.to(dtype).transpose(0, 1).contiguous() for each in (logits, told))
    lengths = torch.tensor(case["input_lengths"])
    teacher, student = Answer(told, lengths), Answer(own, lengths)
    lasts = torch.arange(targets.shape[1])[None] < torch.tensor(case["target_lengths"])[:, None]
    batch = batch_of(len(own), targets.long().where(lasts, -1))
    task = MeanCtc(vocabulary(own.shape[2] - 1), time_stride=1, beam=1)

    def loss(**terms: Any) -> Tensor:
        return summed(wrapped(task, teacher, case, **terms).losses(student, batch)[0])

    soft = {
        "soft_per_frame_masked": loss(alpha=1.0),
        "soft_all_frames": loss(alpha=1.0, reduction="all_frames"),
        "soft_all_frames_without_blank": loss(alpha=1.0, reduction="all_frames", drop_blank=True),
        "soft_kl_div_batchmean_on_TBV": loss(alpha=1.0, reduction="seed"),
        "hard_ctc_torch_mean": loss(alpha=0.0),
        "total_masked": loss(alpha=case["alpha"]),
        "total_seed_repo": loss(alpha=case["alpha"], reduction="seed"),
    }
    for name, value in soft.items():
        assert value.item() == pytest.approx(case[name], rel=rtol), name
    by_clip, _ = wrapped(task, teacher, case, alpha=1.0, reduction="per_clip").losses(student, batch)
    mean = (by_clip["distill_logits"] * lengths).sum() / lengths.sum()
    assert mean.item() == pytest.approx(case["soft_per_frame_masked"], rel=rtol)
    # Each clip's own CTC, as the task has it in nats, where nothing of the teacher is taken.
    plain = Cslr(task.vocab, time_stride=1, beam=1)
    hard, _ = wrapped(plain, teacher, case, alpha=0.0).losses(student, batch)
    assert hard["ctc"].tolist() == pytest.approx(case["hard_ctc_none"], rel=1e-4)  # in float32 by the task
    soft["total_masked"].backward()
    assert student.logits.grad is not None
    expected = arrays("distillation")[f"{case['name']}/grad_total_masked"]
    np.testing.assert_allclose(student.logits.grad.transpose(0, 1), expected, rtol=rtol, atol=rtol * np.abs(expected).max())
    assert teacher.logits.grad is None


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("case", CLIPS, ids=named)
def test_losses_of_the_task_around_single_signs(case: dict[str, Any], dtype: torch.dtype) -> None:
    logits, told, labels = tensors("distillation", case, "student_logits", "teacher_logits", "labels")
    student, teacher = Answer(logits.to(dtype)), Answer(told.to(dtype))
    batch = batch_of(len(logits), F.one_hot(labels.long(), logits.shape[1]).float())
    task = Islr(vocabulary(logits.shape[1]))
    for name, alpha in (("soft", 1.0), ("hard_cross_entropy", 0.0), ("total", case["alpha"])):
        value = summed(wrapped(task, teacher, case, alpha=alpha).losses(student, batch)[0])
        assert value.item() == pytest.approx(case[name], rel=1e-4), name


# Sizes of the seed's teacher


@functools.cache
def teacher(num_classes: int) -> TemporalI3d:
    sizes = parity_json(f"{FOLDER}/seed_teacher_counts.json")["architecture_that_reproduces_all_numbers"]["input_features"]
    modalities = tuple(size for name, size in sizes.items() if name != "total")
    assert sum(modalities) == sizes["total"]
    with torch.device("meta"):
        return TemporalI3d(num_classes, modalities=modalities, shape=PRESETS["seed"])


def counted(model: torch.nn.Module, *, trainable: bool = False) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trainable)


def test_the_seed_preset_has_the_published_sizes() -> None:
    facts = parity_json(f"{FOLDER}/seed_teacher_counts.json")
    totals = {int(name.rpartition("_")[2]): count for name, count in facts.items() if name.startswith("total_at_vocab_")}
    assert totals
    for num_classes, count in totals.items():
        assert counted(teacher(num_classes)) == count
    largest = teacher(max(totals))
    blocks = {name: sum(counted(part) for part in parts) for name, parts in largest.layer_groups()}
    assert blocks == facts["parameters_per_block"]


def test_freezing_and_stages_leave_the_published_number_of_parameters_to_train() -> None:
    facts = parity_json(f"{FOLDER}/seed_teacher_counts.json")
    model = teacher(max(int(name.rpartition("_")[2]) for name in facts if name.startswith("total_at_vocab_")))
    for layer, count in facts["trainable_after_freeze_until"].items():
        plan_of(model, until=layer).apply(model, 0)
        assert counted(model, trainable=True) == count, layer
    stages = facts["progressive_stages"]
    groups = dict(model.layer_groups())
    training: set[str] = set()
    for stage in stages:
        training |= set(stage["adds"])
        assert sum(counted(part) for name in training for part in groups[name]) == stage["trainable"]
    rules = {name: spans for name, spans in facts["stage_rule"].items() if name.startswith("epochs_")}
    assert rules
    for name, spans in rules.items():
        epochs, num_stages = map(int, re.findall(r"\d+", name))
        assert len(spans) == num_stages
        assert [stage_of(e, epochs, num_stages) for e in range(epochs)] == [
            i for i, (first, last) in enumerate(spans) for _ in range(first, last + 1)
        ]


# What WLASL's loaders make of frames


def test_sizes_and_crops_of_wlasl() -> None:
    facts = parity_json(f"{FOLDER}/wlasl_geometry.json")
    for row in facts["frames"]:
        for kind in ("train", "test"):
            size = loader_size(*row["input_hw"], train=kind == "train")
            assert list(size) == row[f"{kind}_hw"], row
            assert list(centre_corner(*size)) == row[f"{kind}_center_crop_top_left"], row
    grey = torch.tensor([row["u8"] for row in facts["normalise"]], dtype=torch.uint8)
    frames = grey[:, None, None, None, None].expand(-1, 1, 1, 1, 3)
    wanted = torch.tensor([row["float"] for row in facts["normalise"]], dtype=torch.float64)
    torch.testing.assert_close(normalise_frames(frames)[:, 0, 0, 0, 0].double(), wanted, atol=0, rtol=0)
