"""A teacher's answers, asked by Ray Data and kept; a student taught by two workers from them."""

from pathlib import Path

import pytest

from sign_dist.config.data import Data, LandmarkFeatures
from sign_dist.config.distill import Distill
from sign_dist.config.model import CtcStudentModel, TemporalI3dModel
from sign_dist.config.run import Run, Scale
from sign_dist.config.train import Augment, Train
from sign_dist.features.store import FeatureStore
from tests.worlds import extract_here, look_alike, train_here

pytestmark = pytest.mark.ray

STILL = Augment(**dict.fromkeys(Augment.model_fields, 0.0))


def test_a_teacher_is_asked_once_and_teaches_two_workers(ray_cluster: None, tmp_path: Path) -> None:
    from sign_dist.on_ray.teacher import ask_teacher
    from sign_dist.on_ray.training import train
    from sign_dist.training.run_dir import RunDir

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
    distill = Distill(teacher=str(tmp_path / "teacher"), kinds="logits sequence:0.5", cache=str(tmp_path / "cache"), gate="1000")
    student = teacher.with_values({"model": CtcStudentModel(width=16), "train.distill": distill, "scale": Scale(workers=2)})
    metrics = train(student, tmp_path / "student")
    assert {"train/ctc", "train/distill_logits", "train/distill_sequence", "val/wer"} <= metrics.keys()
    assert (tmp_path / "student" / "teacher.json").exists()
    stores = [FeatureStore(path) for path in sorted((tmp_path / "cache").iterdir())]
    assert [store.name.partition("-")[0] for store in stores] == ["logits", "sequence"]
    clips = int(dataset.facts()["counts"]["train"])
    assert [len(store.errors()) for store in stores] == [clips, clips]
    assert ask_teacher(RunDir(tmp_path / "student").run()) == 0, "what is kept is not asked again"
