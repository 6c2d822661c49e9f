"""Every shipped job trains one epoch on a synthetic look-alike of its corpus, and run.json repeats a run to the same numbers.

Models and pictures are made small by settings; all else of a job is as it is shipped.
"""

from pathlib import Path
from typing import Any

import pytest

from sign_dist.config.run import Run
from sign_dist.config.source import load_run
from tests.worlds import extract_here, last_metrics, look_alike, train_here

ROOT = Path(__file__).resolve().parents[1]
JOBS = sorted(path for path in (ROOT / "jobs").rglob("*.py") if path.parent.name != "recipes")

FRONT: dict[str, Any] = {"model.encoder.preset": "tiny", "model.encoder.weights": "", "decode.max_len": 12}
SMALL: dict[str, dict[str, Any]] = {
    "landmark": {"model.width": 16, "model.depth": 1, "model.members": 1},
    "feature": {"model.width": 16, "model.depth": 1},
    "video_cnn": {"model.width": 8, "model.depth": 1},
    "signhiera": {"model.preset": "tiny", "model.weights": ""},
    "i3d": {"model.weights": "", "train.parts": 1},  # a part of one clip has one value a channel, of which BatchNorm makes nothing
    "temporal_i3d": {"model.weights": "", "model.channels": 0.1},
    "ctc_student": {},
    "cslr_head": {},
    "translator": FRONT | {"model.source": "", "model.tokenizer": "", "model.glosses": "", "model.width": 16, "model.depth": 1},
    "vlm": {"model.source": "", "model.width": 32, "model.depth": 1, "train.lora.rank": 2, "train.parts": 1},
    "sonar": FRONT | {"model.preset": "tiny", "model.encoder_weights": "", "model.decoder_weights": "", "model.tokenizer": ""},
}


def world_of(run: Run) -> str:
    """The look-alike of the corpus that a job names; of landmarks, tracks, which need no detector."""
    corpus = Path(run.data.root).name
    if run.data.features.kind == "landmarks":
        return "isolated_tracks" if run.task == "islr" else "sentences"
    for known in ("wlasl", "phoenix2014T", "phoenix2014", "how2sign"):
        if corpus.startswith(known):
            return known
    return "isolated" if run.task in ("islr", "vlm") else "how2sign"


def small(run: Run) -> Run:
    """The run with a small model and small features, for one epoch on the CPU."""
    values = SMALL[run.model.kind] | {"train.epochs": min(run.train.epochs, 1), "scale.device": "cpu", "train.start_from": ""}
    values |= {"train.distill.teacher": "", "train.distill.unlabelled": ""}  # tests/training/test_distillation.py has teachers
    match run.data.features.kind:
        case "frames":
            size_px = 64 if run.model.kind in ("signhiera", "translator", "sonar") else 32
            values |= {"data.features.num_frames": 8, "data.features.size_px": size_px, "data.features.crop": "none"}
        case "signhiera":
            values |= {"data.features.preset": "tiny", "data.features.weights": "", "data.features.crop": "none"}
        case _:
            pass
    return run.with_values(values)


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("worlds")


def trained(path: Path, worlds: Path, out: Path) -> Run:
    run = small(load_run(path))
    dataset = look_alike(worlds / world_of(run), world_of(run))
    run = run.with_values({"data.root": str(dataset.root)})
    extract_here(dataset, run.data.features)
    train_here(run, out)
    return run


@pytest.mark.long
@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.relative_to(ROOT / "jobs").with_suffix("").as_posix())
def test_a_job_trains(path: Path, worlds: Path, tmp_path: Path) -> None:
    run = trained(path, worlds, tmp_path / "run")
    metrics = last_metrics(tmp_path / "run")
    assert metrics["epoch"] == run.train.epochs
    assert any(name.startswith("val/") for name in metrics)


@pytest.mark.long
def test_run_json_repeats_a_run_to_the_same_numbers(worlds: Path, tmp_path: Path) -> None:
    trained(ROOT / "jobs" / "synthetic" / "islr_frames.py", worlds, tmp_path / "first")
    train_here(load_run(tmp_path / "first" / "run.json"), tmp_path / "second")
    assert last_metrics(tmp_path / "second") == last_metrics(tmp_path / "first")
    changed = load_run(tmp_path / "first" / "run.json", ["train.seed=1"])
    train_here(changed, tmp_path / "third")
    assert last_metrics(tmp_path / "third") != last_metrics(tmp_path / "first")
