"""A weights file as people have it, read without ever running what is in it; what is none is told in one sentence."""

import argparse
import dataclasses
import hashlib
import json
import re
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sign_dist.errors import WeightsError

CONTAINERS = ("student", "model", "model_state", "state_dict", "model_state_dict", "clip")
"""Where checkpoints keep their weights; of several, the first. `student` is where the sign encoder of SONAR keeps them."""

PREFIXES = ("module.", "_orig_mod.")
"""What DistributedDataParallel and torch.compile put before every name."""

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")

# Values that stand beside the weights in many checkpoints and hold no code: options of a command line, numbers of numpy.
_SCALAR = np.float64(0).__reduce__()[0]
HARMLESS: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *{type(np.dtype(kind)) for kind in ("f8", "f4", "f2", "i8", "i4", "u1", "?")},
    _SCALAR,
    (_SCALAR, "numpy.core.multiarray.scalar"),  # its name before numpy 2
]

_BEGINNINGS: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "a pointer of Git LFS to a file that was not fetched", "run `git lfs pull` where it comes from"),
    (
        b"\x89HDF\r\n\x1a\n",
        "an HDF5 file, such as Keras writes as .h5",
        "save the weights from Keras, and name them, as .safetensors",
    ),
    (b"\x93NUMPY", "a single numpy array", "a checkpoint has named tensors"),
    (b"GGUF", "a GGUF file", "use the original checkpoint"),
    (b"\x1f\x8b", "a gzip archive", "unpack it and give the file inside"),
    (b"BZh", "a bzip2 archive", "unpack it and give the file inside"),
    (b"\xfd7zXZ", "an xz archive", "unpack it and give the file inside"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it and give the file inside"),
    (b"Rar!", "a rar archive", "unpack it and give the file inside"),
)
_OLD_MAGIC = b"l\xfc\x9cF\xf9 j\xa8P\x19"  # torch.save before 1.6: the number 0x1950a86a20f9469cfc6c, pickled
_DAMAGED = "download it again, and compare its size with what the page says"


@dataclasses.dataclass(frozen=True)
class WeightsFile:
    """What a file holds. `container` "" means that the tensors stand in it directly; `beside` is what else stands there."""

    path: Path
    kind: str
    container: str
    tensors: dict[str, Tensor]
    beside: tuple[str, ...] = ()
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def num_parameters(self) -> int:
        """Numbers in it but for BatchNorm's statistics; tensors that share their memory count once."""
        return sum(t.numel() for name, t in self.tensors.items() if name not in self.aliases and not name.endswith(STATISTICS))

    @property
    def num_statistics(self) -> int:
        """Numbers that BatchNorm measured and nobody trained."""
        return sum(t.numel() for name, t in self.tensors.items() if name.endswith(STATISTICS))

    @property
    def aliases(self) -> dict[str, str]:
        """Names whose tensor is that of an earlier name: the same place in memory and the same shape."""
        first: dict[Any, str] = {}
        found: dict[str, str] = {}
        for name, tensor in self.tensors.items():
            if not tensor.numel():
                continue
            place = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
            if place in first:
                found[name] = first[place]
            else:
                first[place] = name
        return found


def file_digest(path: Path) -> str:
    """sha256 of a file.

    Raises:
        WeightsError: there is no such file.
    """
    if not path.is_file():
        raise WeightsError(f"no weights file {str(path)!r}: give the path of a .safetensors, .pt or .pth file")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_weights(path: Path, *, container: str = "") -> WeightsFile:
    """The tensors of a file, out of their container and without the prefixes of wrappers. No code in the file is ever run.

    Raises:
        WeightsError: no such file, none that holds weights, or one that cannot be read without running code.
    """
    if not path.is_file():
        raise WeightsError(f"no weights file {str(path)!r}: give the path of a .safetensors, .pt or .pth file")
    try:
        if _is_safetensors(path):
            return _read_safetensors(path)
        _refuse_other_kinds(path)
        return _unpacked(path, _load(path), container)
    except OSError as error:
        raise WeightsError(f"{str(path)!r} cannot be read ({error.strerror or error})") from None


def plain(names: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names without the prefixes of wrappers, however many of them stand before one."""
    return {_unwrapped(name): tensor for name, tensor in names.items()}


def _unwrapped(name: str) -> str:
    while name.startswith(PREFIXES):
        name = name.partition(".")[2]
    return name


def _is_safetensors(path: Path) -> bool:
    """By its content, whatever its name: the length of a header, and then the header, which is JSON."""
    with path.open("rb") as file:
        head = file.read(9)
    return len(head) == 9 and head[8:] == b"{" and int.from_bytes(head[:8], "little") < 100 << 20


def _read_safetensors(path: Path) -> WeightsFile:
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
        order: list[str] = json.loads(metadata.get("order", "[]"))
        aliases: dict[str, str] = json.loads(metadata.get("aliases", "{}"))
        tensors |= {alias: tensors[name] for alias, name in aliases.items()}
        tensors = {name: tensors[name] for name in [*order, *(n for n in tensors if n not in set(order))]}
    except (SafetensorError, ValueError, KeyError, AttributeError, TypeError) as error:
        size = path.stat().st_size
        raise _none(path, f"a safetensors file of {size} bytes that is damaged or cut off ({_first(error)})", _DAMAGED) from None
    if not tensors:
        raise _none(path, "a safetensors file without tensors", "give a checkpoint")
    return WeightsFile(path, "safetensors", "", plain(tensors), metadata=metadata)


def _refuse_other_kinds(path: Path) -> None:
    """What is recognisably something else than a file of torch."""
    with path.open("rb") as file:
        head = file.read(1024)
    if not head:
        raise _none(path, "empty", _DAMAGED)
    for beginning, what, remedy in _BEGINNINGS:
        if head.startswith(beginning):
            raise _none(path, what, remedy)
    if head[4:8] == b"TFL3":
        raise _none(path, "a TensorFlow Lite model", "use the original checkpoint")
    if head[257:262] == b"ustar":
        raise _none(path, "a tar archive", "unpack it and give the file inside")
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<head", b"<?xml")):
        raise _none(path, "a web page", "open its address in a browser: it is often a login or a question to confirm")
    if head.startswith(b"PK"):
        _refuse_other_zips(path)
    elif not re.search(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]", head):
        raise _none(path, f"text that begins {head[:40].decode('utf-8', 'replace')!r}", _DAMAGED)
    elif _OLD_MAGIC not in head[:32]:
        if head[0] == 0x80:
            raise _none(path, "a pickle that torch did not write, and a pickle can run code", "save its tensors with torch.save")
        raise _none(path, "of no kind that is known here", "give a .safetensors, .pt or .pth file")


def _refuse_other_zips(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if any(name.endswith("constants.pkl") for name in names):
                raise _none(path, "TorchScript, which is a program", "ask for the model's state dict, or for .safetensors")
            if any(name.endswith("model.weights.h5") for name in names):
                raise _none(path, "a Keras archive (.keras)", "save the weights from Keras, and name them, as .safetensors")
            if names and all(name.endswith(".npy") for name in names):
                raise _none(path, "a set of numpy arrays (.npz)", "such a file holds features more often than weights")
            if not any(name.endswith("data.pkl") for name in names):
                raise _none(path, "a zip archive", "unpack it and give the file inside")
            # torch itself does not compare them, and would give tensors with other numbers.
            if bad := archive.testzip():
                raise _none(path, f"damaged: the check sum of {bad!r} does not hold", _DAMAGED)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, UnicodeDecodeError, ValueError, RuntimeError) as error:
        raise _none(path, f"cut off or damaged ({_first(error)})", _DAMAGED) from None


def _load(path: Path) -> Any:
    try:
        # An open file, not its name: by the name torch would take a file that ends in .safetensors for one.
        with path.open("rb") as file, torch.serialization.safe_globals(HARMLESS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch thinks of the pickle's version
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 (damaged bytes make the reader fail in any way they can)
        text = str(error)
        if code := re.search(r"(?:Unsupported global: GLOBAL|GLOBAL|Unsupported class) ([\w.]+)", text):
            remedy = "code of a file is never run here; ask for .safetensors, or save its state dict alone where you trust it"
            raise _none(path, f"a pickle that would run {code[1]!r} when it is read", remedy) from None
        if "unexpected EOF" in text or isinstance(error, EOFError):
            raise _none(path, f"cut off ({_first(error)})", _DAMAGED) from None
        inner = text.partition("WeightsUnpickler error: ")[2].strip() or text
        raise _none(path, f"no file of torch, or damaged ({_first(inner)})", _DAMAGED) from None


def _unpacked(path: Path, content: Any, container: str) -> WeightsFile:
    """Go down into containers as long as there is one."""
    way: list[str] = []
    beside: list[str] = []
    wanted = [part for part in container.split(".") if part]
    while isinstance(content, Mapping):
        inside = {str(name): value for name, value in content.items()}
        name = wanted.pop(0) if wanted else "" if container else _container_of(inside)
        if not name:
            break
        if not isinstance(inside.get(name), Mapping):
            there = ", ".join(n for n, v in inside.items() if isinstance(v, Mapping)) or "none"
            raise WeightsError(f"{str(path)!r} has no container {name!r}: there are {there}")
        beside += [other for other in inside if other != name]
        content = inside[name]
        way.append(name)
    tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, Mapping) else {}
    if not tensors:
        parts = ", ".join(map(str, list(content)[:6])) if isinstance(content, Mapping) else ""
        has = f" (it has {parts})" if parts else ""
        raise WeightsError(f"{str(path)!r} holds no named tensors{has}: it is no checkpoint")
    kind = "torch" if zipfile.is_zipfile(path) else "torch, as before 1.6"
    return WeightsFile(path, kind, ".".join(way), plain(tensors), tuple(beside))


def _container_of(content: Mapping[str, Any]) -> str:
    """The name under which tensors stand; "" if they stand here. One unknown name that alone holds tensors is one, too."""
    for name in CONTAINERS:
        if isinstance(content.get(name), Mapping) and content[name]:
            return name
    if any(isinstance(value, Tensor) for value in content.values()):
        return ""
    full = [n for n, v in content.items() if isinstance(v, Mapping) and v and all(isinstance(t, Tensor) for t in v.values())]
    return full[0] if len(full) == 1 else ""


def _none(path: Path, what: str, remedy: str) -> WeightsError:
    return WeightsError(f"{str(path)!r} holds no weights that can be read safely, it is {what}: {remedy}")


def _first(said: object) -> str:
    """The first sentence, short."""
    text = " ".join(str(said).split())
    return (text.split(". ")[0] or type(said).__name__)[:120]
