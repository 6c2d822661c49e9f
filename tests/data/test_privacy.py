"""Levels of privacy: they only become stricter, and what shows more is refused."""

import json
from pathlib import Path

import pytest

from sign_dist.config.data import FrameFeatures, LandmarkFeatures, SignHieraFeatures
from sign_dist.data.layout import DatasetDir
from sign_dist.data.privacy import LEVELS, level_of, settle, shows_people
from sign_dist.errors import DataError, SettingsError


@pytest.fixture
def dataset(tmp_path: Path) -> DatasetDir:
    return DatasetDir(tmp_path)


def features_made(dataset: DatasetDir, name: str, **settings: str) -> None:
    folder = dataset.features / name
    folder.mkdir(parents=True)
    (folder / "spec.json").write_text(json.dumps({"features": settings}))


def test_without_a_wish_nothing_is_recorded_or_changed(dataset: DatasetDir) -> None:
    for features in (LandmarkFeatures(), FrameFeatures(), SignHieraFeatures()):
        assert settle(dataset, features, "none") == features
    assert list(dataset.root.iterdir()) == []
    assert shows_people(dataset)


def test_keypoints_lets_landmarks_through_and_nothing_else_from_then_on(dataset: DatasetDir) -> None:
    assert settle(dataset, LandmarkFeatures(), "keypoints") == LandmarkFeatures()
    assert level_of(dataset) == "keypoints"
    assert not shows_people(dataset)
    for wanted in LEVELS:
        assert settle(dataset, LandmarkFeatures(), wanted) == LandmarkFeatures()
        for features in (FrameFeatures(), SignHieraFeatures(crop="face")):
            with pytest.raises(SettingsError, match="--features landmarks"):
                settle(dataset, features, wanted)
    assert level_of(dataset) == "keypoints"


def test_blur_holds_for_what_is_extracted_later(dataset: DatasetDir) -> None:
    settle(dataset, LandmarkFeatures(), "blur")
    for features in (FrameFeatures(), SignHieraFeatures()):
        assert settle(dataset, features, "none") == features.with_values({"privacy": "blur"})
    assert not shows_people(dataset)


def test_a_refused_wish_records_nothing(dataset: DatasetDir) -> None:
    with pytest.raises(SettingsError):
        settle(dataset, FrameFeatures(), "keypoints")
    with pytest.raises(SettingsError, match="none, blur, keypoints"):
        settle(dataset, FrameFeatures(), "faces")
    assert level_of(dataset) == "none"


def test_pictures_made_before_stand_in_the_way(dataset: DatasetDir) -> None:
    features_made(dataset, "landmarks-1", kind="landmarks")
    features_made(dataset, "frames-2", kind="frames", privacy="blur")
    settle(dataset, FrameFeatures(), "blur")
    with pytest.raises(DataError, match="frames-2"):
        settle(dataset, LandmarkFeatures(), "keypoints")
    features_made(dataset, "frames-3", kind="frames", privacy="none")
    with pytest.raises(DataError, match="frames-3"):
        settle(dataset, LandmarkFeatures(), "blur")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"privacy": 3}', '{"privacy": "some"}', '{"privacy": null}', "{}"])
def test_a_damaged_record_is_not_taken_for_none(dataset: DatasetDir, content: str) -> None:
    (dataset.root / "privacy.json").write_text(content)
    with pytest.raises(DataError, match="damaged"):
        shows_people(dataset)


@pytest.mark.long
def test_the_command_refuses_pictures_before_anything_starts(dataset: DatasetDir) -> None:
    from typer.testing import CliRunner

    from sign_dist.cli import app

    dataset.facts_file.write_text("{}")
    words = ["extract", str(dataset.root), "--features", "frames", "--privacy", "keypoints"]
    refused = CliRunner().invoke(app, words)
    assert isinstance(refused.exception, SettingsError)
    assert "only landmarks" in str(refused.exception)
    assert not dataset.features.exists()
