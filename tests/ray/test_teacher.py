"""A student taught by two workers, a teacher refused by both, and answers asked by Ray Data and kept."""

from pathlib import Path

import pytest

from sign_dist.config.data import Data, LandmarkFeatures
from sign_dist.config.distill import Distill
from sign_dist.config.model import CtcStudentModel, TemporalI3dModel
from sign_dist.config.run import Run, Scale
from sign_dist.config.train import Augment, Train
from sign_dist.errors import RunError
from sign_dist.features.store import FeatureStore
from tests.worlds import extract_here, look_alike, train_here

pytestmark = pytest.mark.ray

STILL = Augment(**dict.fromkeys(Augment.model_fields, 0.0))


def test_a_teacher_teaches_two_workers_passes_a_gate_and_is_asked_once(ray_cluster: None, tmp_path: Path) -> None:
    from sign_dist.on_ray.teacher import ask_teacher
    from sign_dist.on_ray.training import train

    dataset = look_alike(tmp_path / "world", "sentences")
    features = LandmarkFeatures(every=4)
    extract_here(dataset, features)
    teacher = Run(
        task="cslr",
        data=Data(root=str(dataset.root), features=features),
        model=TemporalI3dModel(channels=0.1, fused_width=16, lstm_width=8),
        train=Train(epochs=1, batch_size=4, augment=STILL),
    )
    train_here(teacher, tmp_path / "teacher")
    told = Distill(teacher=str(tmp_path / "teacher"), kinds="logits features:0.1 sequence", layers="lstm=lstm", gate="1000")
    student = teacher.with_values({"model": CtcStudentModel(width=16), "train.distill": told, "scale": Scale(workers=2)})
    metrics = train(student, tmp_path / "student")
    assert {"train/ctc", "train/distill_logits", "train/distill_features", "train/distill_sequence"} <= metrics.keys()
    assert (tmp_path / "student" / "teacher.json").exists()
    refused = student.with_values({"train.distill.gate": "0"})
    with pytest.raises(RunError, match=r"has val/wer \d+.*, and must have at most 0, since train\.distill\.gate"):
        train(refused, tmp_path / "refused")
    kept = student.with_values(
        {"train.distill": Distill(teacher=str(tmp_path / "teacher"), kinds="logits sequence:0.5", cache=str(tmp_path / "cache"))}
    )
    clips = int(dataset.facts()["counts"]["train"])
    assert ask_teacher(kept) == 2 * clips
    stores = [FeatureStore(path) for path in sorted((tmp_path / "cache").iterdir())]
    assert [store.name.partition("-")[0] for store in stores] == ["logits", "sequence"]
    assert [len(store.errors()) for store in stores] == [clips, clips]
    assert ask_teacher(kept) == 0, "what is kept is not asked again"
