"""One local Ray for all tests that need one: a start costs seconds."""

import os
from collections.abc import Iterator

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
