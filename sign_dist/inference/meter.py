"""Counts and times of requests for Prometheus, and the places that requests wait in."""

import contextlib
from collections.abc import Iterator

import prometheus_client as prometheus

from sign_dist.inference.problems import RETRY_AFTER_S, ApiError


class Meter:
    """What happens to requests, in a registry of its own, so that several apps in one process do not collide."""

    media_type = prometheus.CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = prometheus.CollectorRegistry()
        self.requests = prometheus.Counter(
            "sign_dist_requests", "Recognition requests by outcome: ok or a problem code", ["outcome"], registry=self.registry
        )
        self.seconds = prometheus.Histogram(
            "sign_dist_request_seconds",
            "Time of answered requests by part",
            ["part"],
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120),
            registry=self.registry,
        )
        self.batch_size = prometheus.Histogram(
            "sign_dist_batch_size", "Clips per model call, once per clip", buckets=(1, 2, 4, 8, 16, 32, 64), registry=self.registry
        )
        self.in_flight = prometheus.Gauge(
            "sign_dist_in_flight", "Requests received, waiting or answered now", registry=self.registry
        )
        self._in_flight = 0

    @contextlib.contextmanager
    def place_in_queue(self, max_queued: int) -> Iterator[None]:
        """One of the places for requests.

        Raises:
            ApiError: `busy`, if all are taken.
        """
        if self._in_flight >= max_queued:
            raise ApiError("busy", f"{max_queued} requests are being answered already: try again in {RETRY_AFTER_S} s")
        self._in_flight += 1
        self.in_flight.set(self._in_flight)
        try:
            yield
        finally:
            self._in_flight -= 1
            self.in_flight.set(self._in_flight)

    def answered(self, seconds: dict[str, float], batch_size: int) -> None:
        for part, value in seconds.items():
            self.seconds.labels(part).observe(value)
        self.batch_size.observe(batch_size)

    def text(self) -> bytes:
        """Everything, as Prometheus reads it."""
        return prometheus.generate_latest(self.registry)
