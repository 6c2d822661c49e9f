"""Forward passes side by side: SignHiera and the modules of hiera-transformer, I3D and a plain forward, CTC search and others.

Both sides have the same weights and see the same numbers; they take turns, and each one's best time counts. `ratio` is ours
divided by theirs, so below 1 ours is faster; `apart` is the norm of the difference of the outputs, divided by the norm of theirs.

    python benchmarks/models.py [--parts signhiera i3d ctc] [--presets tiny base_16x224] [--threads N] [--repeat N]

The package that SignHiera is compared with is no dependency of ours: `pip install --no-deps hiera-transformer`. Without the
option it brings timm and torchvision, whose wheel does not go with every build of torch. Of timm it takes two classes that
compute what everybody's do: those below stand in. The decoders are those of `decoding.py`.

Hiera knows no padding, so a clip that is shorter than the model costs it as much as a full one. Outputs are then not compared:
it looks at the padding, which ours leaves out.
"""

import argparse
import math
import os
import sys
import time
import types
from collections.abc import Callable, Mapping, Sequence

import decoding
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sign_dist.models import i3d
from sign_dist.models.hiera import FRAMES_PER_TOKEN, PATCH_STRIDE_PX
from sign_dist.models.signhiera import PRESETS, SignHiera

PARTS = ("signhiera", "i3d", "ctc")
NUM_CLASSES = 400
# Frames of a clip of 224 px: what BSL-1K trains on, and what WLASL does.
I3D_FRAMES = (16, 64)

Run = Callable[[], Tensor]


def take_turns(runs: Mapping[str, Run], repeat: int) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Best seconds of each, and its output. What the first turn spends on memory and plans is in none of the others."""
    seconds: dict[str, float] = {}
    outputs: dict[str, Tensor] = {}
    for _ in range(repeat):
        for name, run in runs.items():
            began = time.process_time()
            outputs[name] = run()
            took = time.process_time() - began
            seconds[name] = min(seconds.get(name, took), took)
    return seconds, outputs


def apart(ours: Tensor, theirs: Tensor) -> float:
    return float((ours.double() - theirs.double()).norm() / theirs.double().norm())


def report(what: str, seconds: Mapping[str, float], difference: float | None) -> None:
    ratio = seconds["ours"] / seconds["theirs"]
    told = "-" if difference is None else f"{difference:.1e}"
    print(f"{what:<44} {seconds['ours']:>9.3f} {seconds['theirs']:>9.3f} {ratio:>7.2f} {told:>9}", flush=True)


def enliven(model: nn.Module) -> None:
    """Weights that keep the size of what flows through, so that differences show; fresh ones let nearly nothing through."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=1 / math.sqrt(max(parameter[0].numel(), 1)))
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)


class TheirMlp(nn.Module):
    """Two linear layers, called as timm's."""

    def __init__(self, width: int, hidden: int, act_layer: type[nn.Module]) -> None:
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(width, hidden), act_layer(), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


def their_hiera(ours: SignHiera) -> nn.Module | str:
    """The package's model of the same shape with the same weights, or why there is none."""
    layers = types.ModuleType("timm.models.layers")
    layers.Mlp, layers.DropPath = TheirMlp, nn.Dropout
    sys.modules |= {"timm": types.ModuleType("timm"), "timm.models": types.ModuleType("timm.models"), layers.__name__: layers}
    try:
        from hiera import Hiera
    except ImportError as error:
        return f"SignHiera is compared with nothing ({error}): pip install --no-deps hiera-transformer"
    shape = ours.shape
    theirs = Hiera(
        input_size=(shape.num_frames, shape.height_px, shape.width_px),
        embed_dim=shape.embed_dim,
        num_heads=shape.num_heads,
        num_classes=NUM_CLASSES,
        stages=shape.stages,
        q_pool=shape.q_pool,
        q_stride=(1, 2, 2),
        mask_unit_size=(1, shape.mask_unit_size, shape.mask_unit_size),
        mask_unit_attn=shape.mask_unit_attn,
        mlp_ratio=shape.mlp_ratio,
        patch_kernel=(3, 7, 7),
        patch_stride=(FRAMES_PER_TOKEN, PATCH_STRIDE_PX, PATCH_STRIDE_PX),
        patch_padding=(1, 3, 3),
        sep_pos_embed=True,
    ).eval()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    return theirs


def logits_of(probabilities: Tensor) -> Tensor:
    """What the softmax was of, but for a number that is added to all."""
    logs = probabilities.double().log()
    return logs - logs.mean(dim=-1, keepdim=True)


def compare_signhiera(preset: str, repeat: int) -> None:
    shape = PRESETS[preset]
    ours = SignHiera(shape, NUM_CLASSES).eval()
    enliven(ours)
    theirs = their_hiera(ours)
    if isinstance(theirs, str):
        print(theirs)
        return
    time_frames = shape.num_frames
    cases: list[tuple[str, list[int]]] = [
        ("full", [time_frames]),
        (f"{time_frames // 2} frames of it", [time_frames // 2]),
    ]
    if time_frames <= 16:
        cases += [
            ("2 full clips", [time_frames] * 2),
            ("2 clips, one of half the length", [time_frames, time_frames // 2]),
        ]
    for what, lengths in cases:
        video = torch.randn(len(lengths), 3, time_frames, shape.height_px, shape.width_px)
        is_full = min(lengths) == time_frames
        given = None if is_full else torch.tensor(lengths)
        runs: dict[str, Run] = {
            "ours": lambda video=video, given=given: ours(video, given).softmax(dim=-1),
            "theirs": lambda video=video: theirs(video),
        }
        seconds, outputs = take_turns(runs, repeat)
        difference = apart(logits_of(outputs["ours"]), logits_of(outputs["theirs"])) if is_full else None
        report(f"SignHiera {preset}, {what}", seconds, difference)


class PlainUnit(nn.Module):
    """Padding, convolution, BatchNorm, ReLU: one after the other, as the paper lists them."""

    def __init__(self, num_inputs: int, num_outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(num_inputs, num_outputs, kernel, stride=stride, bias=False)
        self.bn = nn.BatchNorm3d(num_outputs, eps=i3d.BATCH_NORM_EPS)
        self.kernel, self.stride = (kernel,) * 3, (stride,) * 3

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv3d(plain_pad(x, self.kernel, self.stride))))


class PlainMixed(nn.Module):
    def __init__(self, num_inputs: int, widths: tuple[int, int, int, int, int, int]) -> None:
        super().__init__()
        b0, b1a, b1b, b2a, b2b, b3b = widths
        self.b0, self.b3b = PlainUnit(num_inputs, b0, 1), PlainUnit(num_inputs, b3b, 1)
        self.b1a, self.b1b = PlainUnit(num_inputs, b1a, 1), PlainUnit(b1a, b1b, 3)
        self.b2a, self.b2b = PlainUnit(num_inputs, b2a, 1), PlainUnit(b2a, b2b, 3)

    def forward(self, x: Tensor) -> Tensor:
        pooled = plain_pool(x, (3, 3, 3), (1, 1, 1))
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(pooled)], dim=1)


class PlainI3d(nn.Module):
    """Inception-I3D (arXiv 1705.07750) as its description reads: zeros are written around every input, nothing is merged."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.Conv3d_1a_7x7 = PlainUnit(3, 64, 7, stride=2)
        self.Conv3d_2b_1x1 = PlainUnit(64, 64, 1)
        self.Conv3d_2c_3x3 = PlainUnit(64, 192, 3)
        channels = 192
        for name, widths in i3d.MIXED.items():
            self.add_module(f"Mixed_{name}", PlainMixed(channels, widths))
            channels = widths[0] + widths[2] + widths[4] + widths[5]
        self.logits = nn.Module()
        self.logits.conv3d = nn.Conv3d(channels, num_classes, 1)

    def forward(self, video: Tensor) -> Tensor:
        x = video
        for name, stage in self.named_children():
            if name == "logits":
                break
            x = stage(x)
            if name in i3d.POOLS:
                _, kernel, stride = i3d.POOLS[name]
                x = plain_pool(x, kernel, stride)
        x = F.avg_pool3d(x, (2, 7, 7), stride=1)
        return self.logits.conv3d(x)[..., 0, 0].amax(dim=2)


def plain_pad(x: Tensor, kernel: Sequence[int], stride: Sequence[int]) -> Tensor:
    pads: list[int] = []
    for size, k, s in zip(reversed(x.shape[2:]), reversed(kernel), reversed(stride), strict=True):
        total = max(k - s, 0) if size % s == 0 else max(k - size % s, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads)


def plain_pool(x: Tensor, kernel: Sequence[int], stride: Sequence[int]) -> Tensor:
    return F.max_pool3d(plain_pad(x, kernel, stride), tuple(kernel), tuple(stride))


def compare_i3d(num_frames: int, repeat: int) -> None:
    ours, theirs = i3d.InceptionI3d(NUM_CLASSES).eval(), PlainI3d(NUM_CLASSES).eval()
    enliven(ours)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    video = torch.rand(1, 3, num_frames, 224, 224) * 2 - 1
    seconds, outputs = take_turns({"ours": lambda: ours(video), "theirs": lambda: theirs(video)}, repeat)
    report(f"I3D, {num_frames} frames of 224 px", seconds, apart(outputs["ours"], outputs["theirs"]))


@torch.inference_mode()
def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    words.add_argument("--presets", nargs="+", choices=list(PRESETS), default=["tiny", "base_16x224"])
    words.add_argument("--threads", type=int, default=1)
    words.add_argument("--repeat", type=int, default=4)
    asked = words.parse_args()
    torch.set_num_threads(asked.threads)
    print(f"torch {torch.__version__}, {asked.threads} threads, best of {asked.repeat}, load {os.getloadavg()[0]:.1f} at the start")
    print(f"{'forward pass, fp32':<44} {'ours s':>9} {'theirs s':>9} {'ratio':>7} {'apart':>9}")
    if "signhiera" in asked.parts:
        for preset in asked.presets:
            compare_signhiera(preset, asked.repeat)
    if "i3d" in asked.parts:
        for num_frames in I3D_FRAMES:
            compare_i3d(num_frames, asked.repeat)
    if "ctc" in asked.parts:
        print()
        decoding.compare(repeat=asked.repeat)


if __name__ == "__main__":
    main()
