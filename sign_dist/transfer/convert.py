"""Any weights file -> safetensors that say where they come from, in red-green-blue order if wanted."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from sign_dist.data.layout import written_whole
from sign_dist.errors import WeightsError
from sign_dist.transfer.catalogue import recognised
from sign_dist.transfer.kernels import Method, kernel_in_time, temporal_name
from sign_dist.transfer.weights_file import WeightsFile, file_digest, read_weights


@dataclasses.dataclass(frozen=True)
class Converted:
    """What was written."""

    path: Path
    num_tensors: int
    metadata: dict[str, str]


def colour_order(file: WeightsFile) -> str:
    """`rgb` or `bgr`: which channel the first convolution takes first; "" where neither file nor catalogue says."""
    entry = recognised(file.path.name)
    return file.metadata.get("colour_order", "") or (entry.colour_order if entry else "")


def tensors_for(file: WeightsFile, colours: str, *, known: str = "") -> dict[str, Tensor]:
    """The tensors for a model that is given pictures in this order: where the file expects the other, its first kernel is turned.

    `known` is the order that the file expects, where its name and what is written in it do not say so.

    Raises:
        WeightsError: it has to be turned, and it is not clear which the first convolution is.
    """
    known = colour_order(file) or known
    return turned_round(file.tensors) if known and known != colours else dict(file.tensors)


def turned_round(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same network for pictures whose three channels stand the other way round, exactly.

    Raises:
        WeightsError: not exactly one kernel reads three channels.
    """
    stems = [name for name, tensor in tensors.items() if tensor.ndim >= 4 and tensor.shape[1] == 3]
    if len(stems) != 1:
        raise WeightsError(f"the order of colours can be changed where one kernel reads three channels, here {len(stems)} do")
    return {**tensors, stems[0]: tensors[stems[0]].flip(1)}


def convert(
    source: Path, target: Path, *, colour: str = "", to_rgb: bool = False, container: str = "", adapt: Method | None = None
) -> Converted:
    """Write the tensors of a file as safetensors, with their order, shared ones, and where they come from as metadata.

    `colour` is the order that the weights expect, where neither the file nor the catalogue says it; `to_rgb` turns the first
    kernel round, so that the new file expects red first. `adapt` takes space out of 3-D kernels, for the temporal I3D.

    Raises:
        WeightsError: the source cannot be read, the target cannot be written, the order of colours is unknown or contradicted, or
            there is no 3-D kernel to adapt.
    """
    if target.suffix != ".safetensors":
        raise WeightsError(f"{str(target)!r} must end in .safetensors")
    file = read_weights(source, container=container)
    if target.exists() and target.samefile(source):
        raise WeightsError(f"{str(target)!r} is the source itself: choose another name")
    known = colour_order(file)
    if colour and known and colour != known:
        raise WeightsError(f"{source.name} expects {known}, so --colour {colour} is wrong")
    order = colour or known
    tensors = file.tensors
    if to_rgb and not order:
        raise WeightsError(f"which order of colours {source.name} expects is not known: say --colour rgb or --colour bgr")
    if to_rgb and order == "bgr":
        tensors, order = turned_round(tensors), "rgb"
    aliases = {name: first for name, first in file.aliases.items() if tensors[name] is file.tensors[name]}
    if adapt:
        tensors, aliases = without_space(tensors, adapt), {}
    entry = recognised(source.name)
    facts = {
        "source": source.name,
        "source_sha256": file_digest(source),
        "source_container": file.container,
        "colour_order": order,
        "adapted": adapt or file.metadata.get("adapted", ""),
        "licence": file.metadata.get("licence", "") or (entry.licence if entry else ""),
        "page": file.metadata.get("page", "") or (entry.page if entry else ""),
    }
    metadata = {name: value for name, value in facts.items() if value}
    metadata["format"] = "pt"
    metadata["order"] = json.dumps(list(tensors))
    if aliases:
        metadata["aliases"] = json.dumps(aliases)
    kept = {name: _own(tensor) for name, tensor in tensors.items() if name not in aliases}
    try:
        with written_whole(target) as temporary:
            save_file(kept, temporary, metadata)
    except (OSError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{str(target)!r} cannot be written ({' '.join(str(error).split())[:160]})") from None
    return Converted(target, len(tensors), metadata)


def without_space(tensors: Mapping[str, Tensor], method: Method) -> dict[str, Tensor]:
    """The tensors of I3D for the temporal I3D: its names, and 3-D kernels without space.

    Raises:
        WeightsError: there is no 3-D kernel.
    """
    if not any(tensor.ndim == 5 for tensor in tensors.values()):
        raise WeightsError("there is no 3-D kernel (out, in, t, h, w) to adapt: --adapt is for Inception-I3D and its relatives")
    return {temporal_name(name): kernel_in_time(t, method) if t.ndim == 5 else t for name, t in tensors.items()}


def _own(tensor: Tensor) -> Tensor:
    """In memory of its own, which is what safetensors writes; a copy only where it is a part of something larger."""
    tensor = tensor.contiguous()
    whole = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return tensor if whole else tensor.clone()
