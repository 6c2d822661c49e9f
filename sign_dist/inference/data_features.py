"""What the feature stores of a dataset hold: which clips are done, which failed and why, and how often signers were found."""

import collections
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sign_dist.config.data import LandmarkFeatures
from sign_dist.data.layout import SPLITS, DatasetDir
from sign_dist.data.sample import Sample
from sign_dist.errors import DataError
from sign_dist.features.store import FeatureStore
from sign_dist.video.landmarks import detection_rates

NUM_EXAMPLES = 3
NUM_WORST = 12
# Landmarks of a clip are some 50 KB: so many take a few seconds.
MAX_READ = 2000
HANDS_FEW = 0.5
"""A clip with a hand in fewer of its frames than this is one to look at."""

Rates = Mapping[str, float]


def feature_facts(
    dataset: DatasetDir,
    clips: Sequence[Sample],
    *,
    shared: str = "",
    most: int = MAX_READ,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """One record per store. One that is damaged is a record with `damage`, a sentence."""
    return [_store_facts(store, clips, most, progress) for store in FeatureStore.all_of(dataset, shared=shared)]


def _store_facts(
    store: FeatureStore, clips: Sequence[Sample], most: int, progress: Callable[[int, int], None] | None
) -> dict[str, Any]:
    facts: dict[str, Any] = {"name": store.name, "damage": "", "settings": {}, "weights": "", "errors": [], "detection": {}}
    facts |= {"clips": len(clips), "done": 0, "failed": 0, "to_do": len(clips)}
    try:
        spec = store.spec()
        errors = store.errors()
        mine = [s for s in clips if s.key in errors]
        failed = [s for s in mine if errors[s.key]]
        facts |= {"settings": spec.features.model_dump(mode="json"), "weights": spec.weights}
        facts |= {"done": len(mine) - len(failed), "failed": len(failed), "to_do": len(clips) - len(mine)}
        facts["errors"] = _errors(failed, errors)
        if isinstance(spec.features, LandmarkFeatures):
            facts["detection"] = _detection(store, [s for s in mine if not errors[s.key]], spec.features.face, most, progress)
    except DataError as error:
        facts["damage"] = str(error)
    return facts


def _errors(failed: Sequence[Sample], errors: Mapping[str, str]) -> list[dict[str, Any]]:
    groups: dict[str, list[Sample]] = collections.defaultdict(list)
    for clip in failed:
        groups[errors[clip.key].partition(":")[0]].append(clip)
    return [
        {
            "code": code,
            "count": len(members),
            "examples": [{"id": s.id, "detail": errors[s.key].partition(": ")[2]} for s in members[:NUM_EXAMPLES]],
        }
        for code, members in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    ]


def _detection(
    store: FeatureStore, clips: Sequence[Sample], face: bool, most: int, progress: Callable[[int, int], None] | None
) -> dict[str, Any]:
    """Means over clips of the share of frames in which each part was found; {} without a clip.

    A key is a digest, so the first `most` keys are a sample by lot that is always the same.
    """
    wanted = set(sorted({s.key for s in clips})[:most])
    # In the order of the shards, so that each is read once however large the store is.
    reader = store.reader()
    rates: dict[str, Rates] = {}
    for key in reader.keys:
        if key in wanted:
            rates[key] = _rates(reader.features(key), face)
            if progress:
                progress(len(rates), len(wanted))
    seen = [s for s in clips if rates.get(s.key)]
    if not seen:
        return {}
    worst = sorted((s for s in seen if rates[s.key]["hands"] < HANDS_FEW), key=lambda s: (rates[s.key]["hands"], s.id))
    return {
        "clips": len(seen),
        "of": len(clips),
        "parts": list(rates[seen[0].key]),
        "by_split": [row for split in SPLITS if (row := _mean(split, [s for s in seen if s.split == split], rates))],
        "by_signer": [_mean(signer, [s for s in seen if s.signer == signer], rates) for signer in sorted({s.signer for s in seen})],
        "few_hands": len(worst),
        "worst": [{"id": s.id, "gloss": s.gloss, "signer": s.signer, "hands": rates[s.key]["hands"]} for s in worst[:NUM_WORST]],
    }


def _rates(points: Any, face: bool) -> Rates:
    """{} for points in another arrangement than this version's."""
    try:
        found = detection_rates(points)
    except ValueError:
        return {}
    return {part: rate for part, rate in found.items() if face or part != "face"}


def _mean(name: str, clips: Sequence[Sample], rates: Mapping[str, Rates]) -> dict[str, Any]:
    if not clips:
        return {}
    parts = rates[clips[0].key]
    return {"name": name, "clips": len(clips)} | {
        part: round(statistics.fmean(rates[s.key][part] for s in clips), 4) for part in parts
    }
