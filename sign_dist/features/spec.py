"""FeatureSpec: all that feature vectors depend on; its digest names their folder."""

import hashlib
import json
from typing import Any

from pydantic import Field

from sign_dist.config.base import Settings
from sign_dist.config.data import Features

VERSION = 2
_SINCE: dict[str, Any] = {"pick": "even"}
"""Settings that came later, with what was done before: features from before keep their names."""
"""Raised when our code changes what the same settings give: older features are then left alone and made anew."""


class FeatureSpec(Settings):
    """The settings of the features, the digest of the weights that made them, and the version of our own code path."""

    features: Features
    weights: str = ""
    """sha256 of the model files used, "" for features that need none."""
    dtype: str = "float16"
    version: int = Field(default=VERSION, ge=1)
    """Of our own code path."""

    def digest(self) -> str:
        """Eight hex digits."""
        tree = self.model_dump(mode="json")
        tree["features"] = {k: v for k, v in tree["features"].items() if k not in _SINCE or v != _SINCE[k]}
        return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:8]

    @property
    def name(self) -> str:
        """The folder's name, e.g. `landmarks-3f9a1c20`."""
        return f"{self.features.kind}-{self.digest()}"

    def to_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json")
