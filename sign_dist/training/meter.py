"""How much of the machine a training uses: arithmetic per second, and its share of what the device could do."""

import dataclasses

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sign_dist.tasks.task import Example, Task

BACKWARD = 2
"""A backward pass takes about twice the arithmetic of the forward pass (Kaplan et al. 2020, arXiv 2001.08361, table 1)."""

# Dense peak in operations per second, from the makers' data sheets: by part of the device's name, of 16-bit numbers and of float32.
PEAKS = {
    "H200": (989e12, 67e12),
    "H100": (989e12, 67e12),
    "A100": (312e12, 19.5e12),
    "L40S": (362e12, 91.6e12),
    "L4": (121e12, 30.3e12),
    "A10": (125e12, 31.2e12),
    "T4": (65e12, 8.1e12),
    "V100": (125e12, 15.7e12),
    "RTX 4090": (165e12, 82.6e12),
    "RTX 3090": (71e12, 35.6e12),
}


@dataclasses.dataclass(frozen=True)
class Meter:
    """Arithmetic of a training; frames are those that were computed, padding included."""

    flops_per_frame: float
    """Of the forward pass: matrix products, convolutions and attention; recurrent layers are not counted."""
    peak: float
    """Operations per second that all devices together could do; 0: not known."""

    def __call__(self, frames: float, seconds: float) -> dict[str, float]:
        """What metrics.jsonl says of it; MFU as PaLM defines it (Chowdhery et al. 2022, arXiv 2204.02311, appendix B)."""
        if not self.flops_per_frame or not seconds:
            return {}
        done = (1 + BACKWARD) * self.flops_per_frame * frames / seconds
        return {"tflops_per_s": done / 1e12} | ({"mfu": done / self.peak} if self.peak else {})


@torch.no_grad()
def measure(model: nn.Module, task: Task, example: Example, *, device: torch.device, workers: int, precision: str) -> Meter:
    """Count one clip's forward pass, where the model is."""
    batch = task.collate([example]).to(next(model.parameters()).device)
    was_training = model.training
    model.eval()
    with FlopCounterMode(display=False) as counter:
        task.losses(model, batch)
    model.train(was_training)
    return Meter(counter.get_total_flops() / max(int(batch.lengths.sum()), 1), peak_of(device, precision) * workers)


def peak_of(device: torch.device, precision: str) -> float:
    """Operations per second of a device, 0 where we do not know."""
    if device.type != "cuda":
        return 0.0
    name = torch.cuda.get_device_name(device)
    return next((peak[precision == "fp32"] for part, peak in PEAKS.items() if part in name), 0.0)
