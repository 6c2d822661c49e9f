"""The model below adapters: which one a bundle was made over, whether it is the one at hand, and many adapters over one in memory.

A bundle with adapters is small because the model below them is not in it. What is there by its name may be another one by now, so
the bundle holds its digest, and another one is refused.
"""

import copy
import hashlib
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sign_dist.config.model import VlmModel
from sign_dist.config.train import Lora
from sign_dist.data.vocab import Vocab
from sign_dist.errors import RunError, WeightsError
from sign_dist.models.build import build_model
from sign_dist.models.vlm import SignVlm
from sign_dist.models.vlm_source import DTYPES
from sign_dist.training.adapt import adapt
from sign_dist.transfer.lora import quantise
from sign_dist.transfer.weights_file import file_digest

WEIGHTS = ("*.safetensors", "*.bin")


def base_digest(source: str) -> str:
    """Sha256 over the config and the weight files of a model, by their names; "" where `source` is not on this machine.

    A file of the hub's cache is stored under its sha256, which is believed; other files are read.
    """
    folder = _folder(source)
    if folder is None:
        return ""
    kinds = next((kind for kind in WEIGHTS if any(folder.glob(kind))), "")
    files = sorted([*folder.glob("config.json"), *(folder.glob(kinds) if kinds else ())])
    lines = [f"{path.name} {_digest(path)}" for path in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest() if kinds else ""


def drawn_digest(model: nn.Module) -> str:
    """Sha256 over the weights of a model that is drawn on the spot: another version of torch may draw others."""
    found = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def base_of(model: VlmModel, *, feature_shape: tuple[int, ...], vocab: Vocab) -> str:
    """The digest of the model below a run's adapters.

    Raises:
        WeightsError: it is not on this machine.
    """
    if model.source:
        if digest := base_digest(model.source):
            return digest
        raise WeightsError(f"the model {model.source!r} is not on this machine: give a folder with its weights, or fetch it")
    return drawn_digest(_drawn(model, feature_shape, vocab))


class Bases:
    """Models below adapters that are in memory, each once. Predictors of several bundles may ask from several threads."""

    def __init__(self) -> None:
        self._held: dict[tuple[Any, ...], nn.Module] = {}
        self._lock = threading.Lock()

    def with_adapters(
        self,
        model: VlmModel,
        lora: Lora,
        tensors: Mapping[str, Tensor],
        *,
        digest: str,
        feature_shape: tuple[int, ...],
        vocab: Vocab,
        device: torch.device,
    ) -> nn.Module:
        """A model of its own adapters over a base that is shared with all others over the same.

        Raises:
            RunError: the base is not on this machine, or is another one than the adapters were trained over.
            WeightsError: the adapters do not fit it.
        """
        with self._lock:
            key = (
                digest,
                model.quantize,
                model.dtype,
                model.prompt,
                str(device),
                feature_shape,
                () if model.source else vocab.glosses,
            )
            if key not in self._held:
                self._held[key] = _load(model, digest, feature_shape, vocab).to(device).eval()
            adapted = over(self._held[key])
        adapt(adapted, lora)
        try:
            adapted.load_state_dict(dict(tensors))
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:160]
            raise WeightsError(f"the adapters do not fit the model {model.source or 'of their bundle'!r} ({reason})") from None
        return adapted.to(device).eval()

    @property
    def num_held(self) -> int:
        return len(self._held)


def over(base: nn.Module) -> nn.Module:
    """A copy of a model's structure over the very tensors of the model: what is added to it, such as adapters, is its own."""
    known: dict[int, Any] = {}
    for module in base.modules():
        shared = [*module.parameters(recurse=False), *module.buffers(recurse=False), getattr(module, "quant_state", None)]
        known |= {id(held): held for held in shared if held is not None}
    if isinstance(base, SignVlm):
        known[id(base.tokens)] = base.tokens
    return copy.deepcopy(base, known)


def _load(model: VlmModel, digest: str, feature_shape: tuple[int, ...], vocab: Vocab) -> nn.Module:
    if model.source:
        found = base_digest(model.source)
        if not found:
            raise RunError(
                f"these adapters belong over the model {model.source!r}, which is not on this machine: fetch it, say where it is "
                "with base=FOLDER, or export the run with --merged"
            )
        _same(found, digest, model.source)
        return _small(build_model(_asked(model), num_classes=0, feature_shape=feature_shape), model)
    drawn = _drawn(model, feature_shape, vocab)
    _same(drawn_digest(drawn), digest, "drawn from its seed")
    return _small(drawn, model)


def _drawn(model: VlmModel, feature_shape: tuple[int, ...], vocab: Vocab) -> nn.Module:
    return build_model(_asked(model), num_classes=0, feature_shape=feature_shape, glosses=vocab.glosses)


def _asked(model: VlmModel) -> VlmModel:
    """Nothing is computed again where nothing is learned."""
    return model.model_copy(update={"checkpointing": False})


def _small(built: nn.Module, model: VlmModel) -> nn.Module:
    if model.quantize != "none":
        quantise(built, model.quantize, DTYPES[model.dtype])
    return built.requires_grad_(False)


def _same(found: str, wanted: str, source: str) -> None:
    if found != wanted:
        raise RunError(
            f"the model {source!r} is not the one that these adapters were trained over (digest {found[:8]}, not {wanted[:8]}): "
            "say where that one is with base=FOLDER, or export the run with --merged"
        )


def _folder(source: str) -> Path | None:
    """The folder of a model: itself, or where the hub's cache on this machine has it."""
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(source, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, HfHubHTTPError, OSError):
        return None


def _digest(path: Path) -> str:
    blob = path.resolve()
    if path.is_symlink() and blob.parent.name == "blobs" and len(blob.name) == 64:
        return blob.name
    return file_digest(path)
