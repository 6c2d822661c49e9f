"""What of a dataset's people may be kept: said once, held from then on.

`keypoints`: landmarks only; no picture of a clip goes into the features or a report. `blur`: pictures, but no face.
The level stands in `privacy.json` of the dataset and can only become stricter.
"""

import json
from pathlib import Path
from typing import Literal, get_args

from sign_dist.config.data import Features, LandmarkFeatures
from sign_dist.data.layout import DatasetDir, write_json
from sign_dist.errors import DataError, SettingsError

Level = Literal["none", "blur", "keypoints"]
LEVELS: tuple[Level, ...] = get_args(Level)
"""Each stricter than the one before."""


def level_of(dataset: DatasetDir) -> Level:
    """The level that holds for a dataset.

    Raises:
        DataError: the record is damaged; nothing is then assumed.
    """
    path = _file(dataset)
    if not path.exists():
        return "none"
    try:
        level = json.loads(path.read_text(encoding="utf-8"))["privacy"]
    except (ValueError, KeyError, TypeError):
        level = ""
    if level not in LEVELS:
        raise DataError(f'{str(path)!r} is damaged: write {{"privacy": "keypoints"}} into it, with one of {", ".join(LEVELS)}')
    return level


def shows_people(dataset: DatasetDir) -> bool:
    """Whether pictures of its clips may be put into a page."""
    return level_of(dataset) == "none"


def settle(dataset: DatasetDir, features: Features, wanted: str) -> Features:
    """The features as the dataset's level and the wanted one allow them; a stricter wish is recorded first.

    Raises:
        SettingsError: no such level, or the level allows no such features.
        DataError: features that show more than the level allows are there already.
    """
    if wanted not in LEVELS:
        raise SettingsError(f"no privacy {wanted!r}: it is one of {', '.join(LEVELS)}")
    level = LEVELS[max(LEVELS.index(level_of(dataset)), LEVELS.index(wanted))]
    if not isinstance(features, LandmarkFeatures):
        if level == "keypoints":
            raise SettingsError(
                f"privacy 'keypoints' lets only landmarks be kept, not {features.kind!r}: "
                f"use --features landmarks{_source(dataset, level)}"
            )
        if level == "blur":
            features = features.with_values({"privacy": "blur"})
    if level != "none":
        _refuse_what_shows_more(dataset, level)
        write_json(_file(dataset), {"privacy": level})
    return features


def _refuse_what_shows_more(dataset: DatasetDir, level: Level) -> None:
    for path in sorted(dataset.features.glob("*/spec.json")):
        made: dict[str, str] = json.loads(path.read_text(encoding="utf-8")).get("features", {})
        if made.get("kind") == "landmarks" or (level == "blur" and made.get("privacy") == "blur"):
            continue
        raise DataError(f"privacy {level!r} does not allow {str(path.parent)!r}, made before: remove this folder")


def _source(dataset: DatasetDir, level: Level) -> str:
    return f" (recorded in {str(_file(dataset))!r})" if level_of(dataset) == level else ""


def _file(dataset: DatasetDir) -> Path:
    return dataset.root / "privacy.json"
