"""Activations of layers that stand still, kept by clip: a store below the features, named by all that they depend on.

    FEATURES/prefix/i3d-Mixed_4f-1f0c.../prefix.json, shards/, commits/, claims/

A row's key is the clip's, as in any store; the folder's name follows from the frames' spec, the kind of model and its settings, the
weights before the cut, the cut and the arithmetic. So runs, trials and datasets with equal layers share one, and cannot meet the
activations of others.
"""

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from sign_dist.data.layout import DatasetDir
from sign_dist.errors import SettingsError
from sign_dist.features.blocks import MAX_ROWS
from sign_dist.features.place import LocalPlace, join, place_at
from sign_dist.features.spec import FeatureSpec
from sign_dist.features.store import FeatureReader, FeatureStore

FOLDER = "prefix"
RECORD = "prefix.json"
VERSION = 1
"""Raised when our code changes what the same layers give."""

SHARD_BYTES = 2**20
"""A shard is read whole where one clip of it is wanted: small ones keep that cheap. Of larger clips it holds `TOGETHER`."""
TOGETHER = 2
"""Clips that are computed at once. On a CPU convolutions of a single clip round otherwise (by 6e-7 of the largest number) than
those of two or more, which agree to the bit: so a step of any size but one reads what it would have computed."""
MEMORY_BYTES = 256 * 2**20
"""Of shards that a reader keeps."""


@dataclasses.dataclass(frozen=True)
class PrefixSpec:
    """Everything that activations depend on beside the clip."""

    frames: FeatureSpec
    kind: str
    """Of the model."""
    settings: dict[str, Any]
    """What of its settings counts before the cut."""
    weights: str
    """Digest of the tensors before the cut."""
    cut: str
    precision: str = "fp32"
    """Numbers rest in what they were computed in: float32."""
    tf32: bool = False
    version: int = VERSION

    def to_json(self) -> dict[str, Any]:
        return {**dataclasses.asdict(dataclasses.replace(self, frames=None)), "frames": self.frames.to_json()}  # pyright: ignore[reportArgumentType]

    @property
    def name(self) -> str:
        """The folder's."""
        digest = hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()
        return f"{self.kind}-{self.cut}-{digest[:16]}"


class PrefixStore(FeatureStore):
    """A feature store of activations."""

    again = "train again"

    @classmethod
    def of(cls, dataset: DatasetDir, spec: PrefixSpec, *, shared: str = "") -> "PrefixStore":
        """The store of a spec, made if it is not there: beside the features, wherever those are."""
        store = cls(join(join(shared or dataset.features, FOLDER), spec.name))
        store.place.create(RECORD, (json.dumps(spec.to_json(), indent=2) + "\n").encode())
        return store

    @classmethod
    def all_of(cls, dataset: DatasetDir, *, shared: str = "") -> list[FeatureStore]:
        root = join(shared or str(dataset.features), FOLDER)
        return [cls(join(root, name)) for name in place_at(root).folders() if place_at(join(root, name)).exists(RECORD)]

    def reader(self, clip_bytes: int = SHARD_BYTES) -> FeatureReader:
        """`clip_bytes`: what a clip takes, so that the shards kept in memory stay within bounds."""
        shard = max(SHARD_BYTES, TOGETHER * clip_bytes)
        return FeatureReader(self, cached_shards=max(2, MEMORY_BYTES // shard))


def rows_per_shard(clip_bytes: int) -> int:
    return max(TOGETHER, min(MAX_ROWS, SHARD_BYTES // max(clip_bytes, 1)))


def refuse_large(store: FeatureStore, num_bytes: int, *, limit_gb: float, clips: int, cut: str) -> None:
    """Refuse activations that would take more than they may, or than there is room for.

    Raises:
        SettingsError: with the figures.
    """
    need, each = num_bytes / 1e9, num_bytes / max(clips, 1) / 1e6
    said = f"train.cache_prefix would write {need:.2g} GB ({clips} clips behind {cut!r}, {each:.2g} MB each)"
    if need > limit_gb:
        raise SettingsError(f"{said} and train.cache_gb allows {limit_gb:g}: raise that, freeze other layers, or leave it off")
    if isinstance(store.place, LocalPlace):
        free = shutil.disk_usage(_existing(store.place.folder)).free / 1e9
        if need > 0.9 * free:
            raise SettingsError(
                f"{said} and {free:.2g} GB are free at {store.uri!r}: make room, freeze other layers, or leave it off"
            )


def _existing(folder: Path) -> Path:
    return folder if folder.exists() else _existing(folder.absolute().parent)
