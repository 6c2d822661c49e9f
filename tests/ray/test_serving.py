"""The service on a local Ray, with a predictor that decodes for real and recognises by brightness."""

import concurrent.futures
import http.client
import io
import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from sign_dist.errors import ServiceError
from sign_dist.inference.upload import Limits

pytestmark = [
    pytest.mark.ray,
    # Ray's own, when it is imported.
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20"),
]

DECODE_S = 0.15
LIMITS = Limits(max_bytes=2**20, max_queued=24, max_wait_s=30.0)


def make_load() -> Callable[[Path, str], Any]:
    """Classes made in a function travel to a replica by value, so that it need not import this file."""

    class Brightness:
        def __init__(self) -> None:
            self.model_id = "brightness-1"
            self.facts = {"task": "islr", "num_glosses": 2}
            self.busy = False

        def features(self, path: Path) -> np.ndarray:
            from sign_dist.video.decode import read_clip

            assert not self.busy, "two threads use one predictor"
            self.busy = True
            try:
                clip = read_clip(path, fps=10, max_side_px=64, max_seconds=5)
                time.sleep(DECODE_S)
                return clip.frames.mean(axis=(1, 2, 3))
            finally:
                self.busy = False

        def predict(self, features: list[np.ndarray], k: int = 5) -> list[Any]:
            from sign_dist.tasks.task import Prediction

            if len({len(clip) for clip in features}) > 1:
                raise ValueError("this model cannot pad")
            scores = [float(clip.mean() / 255) for clip in features]
            best = [sorted([("DAY", score), ("NIGHT", 1 - score)], key=lambda pair: -pair[1]) for score in scores]
            return [Prediction(pairs[0][0], tuple(pairs[:k])) for pairs in best]

    def load(bundle: Path, device: str) -> Brightness:
        if bundle.name == "broken":
            raise ServiceError(f"bundle {bundle.name!r} is damaged")
        return Brightness()

    return load


def video(brightness: int, num_frames: int = 12) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for _ in range(num_frames):
            picture = np.full((64, 64, 3), brightness, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def service(ray_cluster: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    from sign_dist.on_ray import serving

    port = free_port()
    args = serving.ServeArgs(bundle=str(tmp_path_factory.mktemp("bundle")), max_batch_size=4, limits=LIMITS)
    url = serving.start(args, port=port, load=make_load())
    assert url == f"http://127.0.0.1:{port}/"
    yield "127.0.0.1", port
    serving.stop()


def ask(service: tuple[str, int], method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(*service, timeout=60)
    try:
        connection.request(method, path, body or None, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    finally:
        connection.close()


def upload(
    service: tuple[str, int], data: bytes, *, field: str = "video", query: str = ""
) -> tuple[int, dict[str, str], dict[str, Any]]:
    head = f'--edge\r\nContent-Disposition: form-data; name="{field}"; filename="../../etc/passwd"\r\n\r\n'.encode()
    body = head + data + b"\r\n--edge--\r\n"
    status, headers, answer = ask(service, "POST", f"/v1/recognize{query}", body, content_type="multipart/form-data; boundary=edge")
    return status, headers, json.loads(answer)


def test_twenty_parallel_requests_are_all_answered_rightly_and_share_model_calls(service: tuple[str, int]) -> None:
    clips = {"DAY": video(230), "NIGHT": video(20)}
    # Two lengths, which the model cannot batch together: those calls fall apart into single ones.
    wanted = ["DAY", "NIGHT"] * 10
    with concurrent.futures.ThreadPoolExecutor(20) as clients:
        answers = list(clients.map(lambda gloss: upload(service, clips[gloss]), wanted))
    assert [status for status, _, _ in answers] == [200] * 20
    assert [body["hypothesis"] for _, _, body in answers] == wanted
    assert len({body["request_id"] for _, _, body in answers}) == 20
    timing = answers[0][2]["timing_ms"]
    assert timing["decode_encode"] >= DECODE_S * 1e3
    assert timing["total"] >= timing["decode_encode"] + timing["model"]


def test_a_clip_that_breaks_a_batch_does_not_harm_its_neighbours(service: tuple[str, int]) -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda count: upload(service, video(200, count)), [8, 20] * 4))
    assert [status for status, _, _ in answers] == [200] * 8


def test_bad_uploads_are_refused_and_the_service_goes_on(service: tuple[str, int]) -> None:
    good = video(200)
    cases = {
        "not_video": (415, upload(service, b"hello, I am a text file, not a video. " * 9)),
        "empty": (422, upload(service, b"")),
        "no_video_field": (422, upload(service, good, field="film")),
        "invalid_query": (422, upload(service, good, query="?k=0")),
        "too_many_bytes": (413, upload(service, good + bytes(LIMITS.max_bytes))),
        "decode_failed": (422, upload(service, good[:48] + bytes(len(good) - 48))),
    }
    for code, (status, (got, headers, body)) in cases.items():
        if code == "decode_failed":
            assert 400 <= got < 500
            continue
        assert (got, body["code"]) == (status, code)
        assert headers["content-type"] == "application/problem+json"
        assert headers["x-request-id"] == body["request_id"]
    assert upload(service, good)[0] == 200


def test_a_body_declared_as_2_gb_is_refused_before_it_is_sent(service: tuple[str, int]) -> None:
    with socket.create_connection(service, timeout=20) as connection:
        connection.sendall(
            b"POST /v1/recognize HTTP/1.1\r\nHost: x\r\nContent-Length: 2147483648\r\n"
            b"Content-Type: multipart/form-data; boundary=edge\r\n\r\n"
        )
        answer = connection.recv(4096)
    assert answer.startswith(b"HTTP/1.1 413")


def test_requests_beyond_the_queue_get_503_with_retry_after(service: tuple[str, int]) -> None:
    clip = video(200)
    with concurrent.futures.ThreadPoolExecutor(48) as clients:
        answers = list(clients.map(lambda _: upload(service, clip), range(48)))
    assert {status for status, _, _ in answers} <= {200, 503}
    refused = [(headers, body) for status, headers, body in answers if status == 503]
    assert sum(status == 200 for status, _, _ in answers) >= LIMITS.max_queued
    for headers, body in refused:
        assert (body["code"], headers["content-type"]) == ("busy", "application/problem+json")
        assert int(headers["retry-after"]) >= 1
    assert upload(service, clip)[0] == 200


def test_the_other_addresses_answer(service: tuple[str, int]) -> None:
    for path, kind in {
        "/": "text/html",
        "/healthz": "application/json",
        "/readyz": "application/json",
        "/metrics": "text/plain",
    }.items():
        status, headers, _ = ask(service, "GET", path)
        assert (status, headers["content-type"].split(";")[0]) == (200, kind)
    assert json.loads(ask(service, "GET", "/v1/model")[2])["model"] == "brightness-1"
    status, headers, _ = ask(service, "GET", "/nowhere", x_request_id="mine-1")
    assert (status, headers["content-type"], headers["x-request-id"]) == (404, "application/problem+json", "mine-1")


def test_a_taken_port_is_one_sentence_with_the_remedy(ray_cluster: object) -> None:
    from sign_dist.on_ray import serving

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ServiceError, match=rf"{port}.*--port"):
            serving.refuse_taken_port("127.0.0.1", port)


def test_arguments_from_the_command_line_nest_the_limits() -> None:
    from sign_dist.on_ray import serving

    args = serving.ServeArgs.model_validate({"bundle": "b", "replicas": "2", "limits.max_seconds": "10"})
    assert (args.replicas, args.limits.max_seconds) == (2, 10.0)
