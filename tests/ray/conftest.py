"""One local Ray for all tests that need one, and one small synthetic corpus: a start costs seconds."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("RAY_AUTH_MODE", "disabled")


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """Connected to a Ray of our own with four logical CPUs."""
    import ray

    from sign_dist.on_ray import cluster

    cluster.connect("local", num_cpus=4)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four signs by five signers, twice each, and two damaged files: what a user would deliver."""
    from sign_dist.synthetic.corpus import write_corpus

    root = tmp_path_factory.mktemp("corpus")
    write_corpus(root, num_signs=4, num_signers=5, clips_per_sign=2, num_corrupt=2)
    return root


@pytest.fixture(scope="session")
def dataset(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus, prepared without Ray, with frame features extracted without Ray."""
    from sign_dist.config.data import FrameFeatures
    from sign_dist.data.layout import SPLITS
    from sign_dist.data.manifest import read_manifest
    from sign_dist.data.prepare import prepare
    from sign_dist.features.encode import build_encoder, decode_row, encode_row, find_files, spec_for
    from sign_dist.features.store import FeatureStore

    root = tmp_path_factory.mktemp("dataset")
    prepared = prepare("table", corpus, root)
    features = FrameFeatures(num_frames=8)
    files = find_files(features)
    store, encoder = FeatureStore.create(prepared.dataset, spec_for(features, files)), build_encoder(features, files)
    for split in SPLITS:
        rows = [
            {"key": s.key, "id": s.id, "path": str(corpus / s.video_path), "start_s": s.start_s, "end_s": s.end_s}
            for s in read_manifest(prepared.dataset, split)
        ]
        store.commit(f"{split}-0", [encode_row(decode_row(row, features), encoder) for row in rows])
    return root
