"""3-D kernels for 1-D networks: what Inception-I3D learned on video, brought to the temporal I3D over features.

The methods and their definitions are the seed documents'. A kernel (out, in, t, h, w) becomes

- `temporal_mean`: its mean over space, (out, in, t);
- `spatial_mean`: the middle frame t // 2 of that, (out, in);
- `temporal_max`: its maximum over space, (out, in, t).
"""

import re
from collections.abc import Callable
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

Method = Literal["temporal_mean", "spatial_mean", "temporal_max"]

# I3D's names for what stands before the blocks -> the temporal I3D's. Blocks are called alike but for the capital.
STAGES = {"Conv3d_1a_7x7": "stem", "Conv3d_2b_1x1": "conv_2b", "Conv3d_2c_3x3": "conv_2c"}


def adapt_kernel(kernel: Tensor, method: Method = "temporal_mean") -> Tensor:
    """A kernel (out, in, t, h, w) without space: (out, in, t), or (out, in) by `spatial_mean`.

    Raises:
        ValueError: the tensor has other axes, or there is no such method.
    """
    if kernel.ndim != 5 or 0 in kernel.shape:
        raise ValueError(f"need a kernel (out, in, t, h, w), got the shape {tuple(kernel.shape)}")
    match method:
        case "temporal_mean":
            return kernel.mean(dim=(3, 4))
        case "spatial_mean":
            return kernel.mean(dim=(3, 4))[:, :, kernel.shape[2] // 2]
        case "temporal_max":
            return kernel.amax(dim=(3, 4))
        case _:
            raise ValueError(_unknown(method))


def temporal_name(name: str) -> str:
    """The temporal I3D's name of one of I3D's tensors; a name without a counterpart, such as the head's, stays as it is.

    >>> temporal_name("Mixed_4f.b1b.conv3d.weight"), temporal_name("Conv3d_1a_7x7.bn.bias"), temporal_name("logits.conv3d.bias")
    ('mixed_4f.b1b.conv.weight', 'stem.bn.bias', 'logits.conv3d.bias')
    """
    stage, _, rest = name.removeprefix("module.").partition(".")
    stage = STAGES.get(stage) or (stage.lower() if re.fullmatch(r"Mixed_\d[a-z]", stage) else "")
    return f"{stage}.{rest.replace('conv3d.', 'conv.')}" if stage and rest else name


def kernel_in_time(kernel: Tensor, method: Method = "temporal_mean") -> Tensor:
    """`adapt_kernel` as a kernel (out, in, t) by every method.

    By `spatial_mean` no time is left: that stands in the middle of a kernel as long as it was, with zeros around.
    """
    made = adapt_kernel(kernel, method)
    return made if made.ndim == 3 else F.pad(made[..., None], (kernel.shape[2] // 2, (kernel.shape[2] - 1) // 2))


def adapter(method: Method = "temporal_mean") -> Callable[[str, Tensor, torch.Size], Tensor | None]:
    """What `load_into(..., rename=temporal_name, adapt=adapter(method))` asks for each tensor of another shape."""
    if method not in get_args(Method):
        raise ValueError(_unknown(method))

    def adapt(name: str, tensor: Tensor, shape: torch.Size) -> Tensor | None:
        if tensor.ndim != 5 or len(shape) != 3:
            return None
        kernel = kernel_in_time(tensor, method)
        return kernel if kernel.shape == shape else None

    return adapt


def _unknown(method: str) -> str:
    return f"no method {method!r}: one of {', '.join(get_args(Method))}"
