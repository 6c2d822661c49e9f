"""The part of a report on confidences: do they keep their word, before and after a temperature that was fitted on other clips."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sign_dist.data.layout import written_whole
from sign_dist.metrics.calibration import NUM_BINS, Bin, calibration, fit_temperature

PROBABILITIES = "probabilities.npz"
MIN_BINS, CLIPS_PER_BIN = 3, 10
"""Of a small split fewer bins are made: the share that is right of three clips says nothing."""


@dataclasses.dataclass(frozen=True)
class Probabilities:
    """What a model gave every label of every clip that it answered: `log_probs` (N, V) float32, `targets` (N,), -1 for a reference
    that is no label. `weights` is the digest of the weights that answered, `split` whose clips they are."""

    log_probs: np.ndarray
    targets: np.ndarray
    weights: str
    split: str

    def write(self, folder: Path) -> None:
        with written_whole(folder / PROBABILITIES) as temporary, temporary.open("wb") as file:
            facts = np.frombuffer(json.dumps({"weights": self.weights, "split": self.split}).encode(), np.uint8)
            np.savez_compressed(file, log_probs=self.log_probs, targets=self.targets, facts=facts)

    @classmethod
    def read(cls, folder: Path, weights: str) -> "Probabilities | None":
        """Those of the same weights, None if there are none."""
        if not (folder / PROBABILITIES).is_file():
            return None
        with np.load(folder / PROBABILITIES) as held:
            facts = json.loads(held["facts"].tobytes())
            if facts["weights"] != weights:
                return None
            return cls(held["log_probs"], held["targets"], **facts)


def calibration_part(asked: Probabilities, fitted_on: Probabilities | None = None) -> dict[str, Any]:
    """What report.json says of confidences. With the answers on other clips, of which a temperature is fitted, also after it."""
    bins = max(MIN_BINS, min(NUM_BINS, len(asked.targets) // CLIPS_PER_BIN))
    before = dataclasses.asdict(calibration(asked.log_probs, asked.targets, bins=bins))
    part: dict[str, Any] = {"before": before, "after": None, "temperature": None, "fitted_on": "", "fitted_clips": 0}
    if fitted_on is not None and (fitted_on.targets >= 0).any():
        temperature = fit_temperature(fitted_on.log_probs, fitted_on.targets)
        part |= {
            "temperature": temperature,
            "fitted_on": fitted_on.split,
            "fitted_clips": int((fitted_on.targets >= 0).sum()),
            "after": dataclasses.asdict(calibration(asked.log_probs, asked.targets, temperature=temperature, bins=bins)),
        }
    return part


@dataclasses.dataclass(frozen=True)
class ReliabilityChart:
    """Confidence from left to right, the share that is right from below up; a point for each bin, on the diagonal if it keeps its
    word. Laid out in units of about a pixel."""

    series: list[dict[str, Any]]
    """Name, style, points (x, y, left, right, radius, text) and path of each."""
    ticks: list[tuple[float, float, str]]
    """(x, y, text)."""
    description: str
    width: float = 372.0
    height: float = 300.0
    left: float = 46.0
    right: float = 346.0
    top: float = 10.0
    bottom: float = 262.0


def reliability_chart(part: Mapping[str, Any]) -> ReliabilityChart:
    """The picture of a `calibration_part`."""
    chart = ReliabilityChart([], [], "")

    def x(value: float) -> float:
        return round(chart.left + (chart.right - chart.left) * value, 1)

    def y(value: float) -> float:
        return round(chart.bottom - (chart.bottom - chart.top) * value, 1)

    kinds = [("before", "as the model says", part["before"]), ("after", "with the temperature", part["after"])]
    series: list[dict[str, Any]] = []
    for style, name, found in kinds:
        if found is None:
            continue
        bins = [Bin(**row) if isinstance(row, Mapping) else row for row in found["bins"]]
        largest = max(b.count for b in bins)
        points = [
            {
                "x": x(b.confidence),
                "y": y(b.accuracy),
                "low": x(b.low),
                "high": x(b.high),
                "r": round(2.5 + 3.5 * (b.count / largest) ** 0.5, 1),
                "text": f"{name}: {b.count} clips said {_percent(b.confidence)}, {_percent(b.accuracy)} right",
            }
            for b in bins
        ]
        path = "M" + "L".join(f"{p['x']} {p['y']}" for p in points)
        series.append({"name": name, "style": style, "points": points, "path": path})
    ticks = [(x(i / 4), y(i / 4), f"{25 * i} %") for i in range(5)]
    said = "; ".join(f"{s['name']}: expected calibration error {_percent(part[s['style']]['ece'])}" for s in series)
    return dataclasses.replace(chart, series=series, ticks=ticks, description=f"Reliability diagram. {said}")


def calibration_cautions(part: Mapping[str, Any], split: str, fit_split: str) -> list[str]:
    """What to do where no temperature was fitted."""
    if part["temperature"] is None and split != fit_split:
        return [f"no temperature is fitted to the confidences: evaluate the split {fit_split!r} first, then this one again"]
    return []


def targets_of(references: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    """Place of each reference among the labels, -1 for one that is none."""
    place = {label: i for i, label in enumerate(labels)}
    return np.array([place.get(reference, -1) for reference in references], dtype=np.int64)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
