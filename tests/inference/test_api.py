"""The HTTP interface around a fake recognizer: what clients see, above all when something is wrong."""

import asyncio
import io
import json
import math
import re
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from starlette.testclient import TestClient

from sign_dist.errors import ServiceError, VideoError
from sign_dist.inference.api import MAX_K, Answer, build_api
from sign_dist.inference.problems import PROBLEMS
from sign_dist.inference.upload import DIR_PREFIX, Limits
from sign_dist.tasks.task import Prediction
from sign_dist.video.check import REASONS

LIMITS = Limits(max_bytes=100_000, max_seconds=10, max_pixels=640 * 480, max_queued=2, max_wait_s=0.3)
GLOSSES = tuple((f"SIGN-{i}", 0.5**i) for i in range(1, 8))


class Fake:
    """Answers at once, unless told what to raise or to wait for."""

    def __init__(self) -> None:
        self.loaded = True
        self.fault: Exception | None = None
        self.gate: threading.Event | None = None
        self.seen: list[tuple[bytes, int]] = []

    async def recognize(self, path: Path, k: int) -> Answer:
        self.seen.append((path.read_bytes(), k))
        if self.fault:
            raise self.fault
        while self.gate and not self.gate.is_set():
            await asyncio.sleep(0.01)
        return Answer("fake-1", Prediction("SIGN-1", GLOSSES[:k]), decode_encode_s=0.2, model_s=0.1, batch_size=3)

    def facts(self) -> dict[str, Any]:
        return {"model": "fake-1", "num_glosses": 7, "metrics": {"top1": 0.9, "wer": math.nan}}

    def ready(self) -> bool:
        return self.loaded


@pytest.fixture(scope="module")
def clip() -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for i in range(6):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((64, 64, 3), 40 * i, np.uint8), format="rgb24")))
        out.mux(stream.encode(None))
    return buffer.getvalue()


@pytest.fixture
def fake() -> Fake:
    return Fake()


@pytest.fixture
def client(fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with TestClient(build_api(fake, limits=LIMITS)) as client:
        yield client
    assert list(tmp_path.glob(f"{DIR_PREFIX}*")) == []


def problem(response: Any, status: int, code: str) -> dict[str, Any]:
    """The problem a response carries, after checking that it is a whole and clean one."""
    body = response.json()
    assert (response.status_code, body["code"]) == (status, code), body
    assert response.headers["content-type"] == "application/problem+json"
    assert set(body) == {"type", "title", "status", "detail", "code", "request_id"}
    assert body["status"] == status
    assert body["type"].endswith(f":{code}")
    assert body["title"]
    assert body["detail"]
    assert body["request_id"] == response.headers["x-request-id"]
    for leak in ("Traceback", tempfile.gettempdir(), "/tmp", ".py", "sign_dist/"):
        assert leak not in response.text
    return body


def send(client: TestClient, data: bytes, query: str = "", **options: Any) -> Any:
    return client.post(f"/v1/recognize{query}", files={"video": ("../../etc/passwd", data)}, **options)


@pytest.mark.long
@pytest.mark.parametrize(
    ("task", "said", "answer", "best"),
    [
        ("cslr", "I BOOK", {"glosses": ["I", "BOOK"]}, {"glosses": ["I", "BOOK"], "score": 0.5}),
        ("cslr", "", {"glosses": []}, {"glosses": [], "score": 0.5}),
        ("slt", "I read.", {"sentence": "I read."}, {"sentence": "I read.", "score": 0.5}),
    ],
)
def test_every_task_has_an_answer_of_its_own(
    fake: Fake, clip: bytes, task: str, said: str, answer: dict[str, Any], best: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def recognize(path: Path, k: int) -> Answer:
        return Answer("fake-1", Prediction(said, ((said, 0.5), ("NO", -math.inf))[:k]), decode_encode_s=0.2, model_s=0.1)

    monkeypatch.setattr(fake, "recognize", recognize)
    with TestClient(build_api(fake, limits=LIMITS, task=task)) as client:
        body = send(client, clip, "?k=2").json()
        schema = client.get("/openapi.json").json()
    assert body.keys() == {"model", *answer, "results", "timing_ms", "request_id"}
    assert body.items() >= answer.items()
    assert body["results"][0] == best
    assert body["results"][1]["score"] is None
    reply = schema["paths"]["/v1/recognize"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]["$ref"]
    assert schema["components"]["schemas"][reply.rpartition("/")[2]]["properties"].keys() == body.keys()


def test_a_video_is_answered_with_glosses_times_and_ids(client: TestClient, fake: Fake, clip: bytes) -> None:
    response = send(client, clip, "?k=3")
    assert response.status_code == 200
    body = response.json()
    assert (body["model"], body["hypothesis"]) == ("fake-1", "SIGN-1")
    assert body["results"] == [{"gloss": gloss, "score": score} for gloss, score in GLOSSES[:3]]
    assert (body["timing_ms"]["decode_encode"], body["timing_ms"]["model"]) == (200.0, 100.0)
    assert body["timing_ms"]["total"] >= body["timing_ms"]["receive"] > 0
    assert body["request_id"] == response.headers["x-request-id"]
    assert response.headers["x-content-type-options"] == "nosniff"
    assert fake.seen == [(clip, 3)]


@pytest.mark.parametrize("query", ["?k=0", f"?k={MAX_K + 1}", "?k=-1", "?k=many", "?k=1e9", "?k=" + "9" * 400])
def test_k_out_of_range_is_refused_before_the_video_is_looked_at(client: TestClient, fake: Fake, clip: bytes, query: str) -> None:
    assert "'k'" in problem(send(client, clip, query), 422, "invalid_query")["detail"]
    assert fake.seen == []


def test_bad_uploads_are_refused(client: TestClient, fake: Fake, clip: bytes) -> None:
    problem(send(client, b"just text, no video " * 50), 415, "not_video")
    problem(send(client, b""), 422, "empty")
    problem(send(client, clip[:500]), 415, "not_video")
    problem(send(client, bytes(120_000)), 413, "too_many_bytes")
    problem(client.post("/v1/recognize"), 415, "not_multipart")
    problem(client.post("/v1/recognize", json={"video": "x"}), 415, "not_multipart")
    assert "'film'" in problem(client.post("/v1/recognize", files={"film": ("a.mp4", clip)}), 422, "no_video_field")["detail"]
    problem(client.post("/v1/recognize", files=[("video", ("a", clip)), ("video", ("b", clip))]), 422, "two_videos")
    problem(
        client.post("/v1/recognize", content=b"x", headers={"content-type": "multipart/form-data; boundary=y"}),
        400,
        "bad_multipart",
    )
    assert fake.seen == []
    assert send(client, clip).status_code == 200


def test_2_gb_are_refused_by_their_declaration_without_reading_the_body(fake: Fake) -> None:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        raise AssertionError("the body was read")

    async def keep(message: Any) -> None:
        sent.append(message)

    headers = [(b"content-type", b"multipart/form-data; boundary=x"), (b"content-length", str(2 * 2**30).encode())]
    scope = {"type": "http", "method": "POST", "path": "/v1/recognize", "query_string": b"", "headers": headers, "root_path": ""}
    asyncio.run(build_api(fake, limits=LIMITS)(scope, receive, keep))
    assert sent[0]["status"] == 413
    assert json.loads(sent[1]["body"])["code"] == "too_many_bytes"


def test_a_chunked_body_is_cut_at_the_bound(client: TestClient) -> None:
    pulled = 0

    def endless() -> Iterator[bytes]:
        nonlocal pulled
        yield b'--x\r\nContent-Disposition: form-data; name="video"; filename="v"\r\n\r\n'
        for _ in range(1000):
            pulled += 1
            yield bytes(10_000)

    response = client.post("/v1/recognize", content=endless(), headers={"content-type": "multipart/form-data; boundary=x"})
    problem(response, 413, "too_many_bytes")


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (VideoError("no_signer", "no person is found in 'video'"), 422, "no_signer"),
        (VideoError("a_new_reason", "something else"), 422, "a_new_reason"),
        (ServiceError("actor at /srv/secret is gone"), 503, "unavailable"),
        (RuntimeError("secret /tmp/thing.py"), 500, "internal"),
        (MemoryError(), 500, "internal"),
        (TimeoutError(), 504, "timed_out"),
    ],
)
def test_faults_of_the_recognizer_are_problems_and_tell_no_secret(
    client: TestClient, fake: Fake, clip: bytes, fault: Exception, status: int, code: str
) -> None:
    fake.fault = fault
    response = send(client, clip)
    problem(response, status, code)
    assert "secret" not in response.text
    assert ("retry-after" in response.headers) == (status == 503)
    fake.fault = None
    assert send(client, clip).status_code == 200


def test_an_answer_that_does_not_come_is_504(client: TestClient, fake: Fake, clip: bytes) -> None:
    fake.gate = threading.Event()
    problem(send(client, clip), 504, "timed_out")


def test_requests_beyond_the_queue_are_503_and_places_come_free_again(fake: Fake, clip: bytes) -> None:
    fake.gate = threading.Event()
    with TestClient(build_api(fake, limits=LIMITS.with_values({"max_wait_s": 20}))) as client:
        answers: list[int] = []
        threads = [
            threading.Thread(target=lambda: answers.append(send(client, clip).status_code)) for _ in range(LIMITS.max_queued)
        ]
        for thread in threads:
            thread.start()
        while len(fake.seen) < LIMITS.max_queued:
            threading.Event().wait(0.01)
        response = send(client, clip)
        problem(response, 503, "busy")
        assert int(response.headers["retry-after"]) >= 1
        assert client.get("/healthz").status_code == 200
        assert "sign_dist_in_flight 2.0" in client.get("/metrics").text
        fake.gate.set()
        for thread in threads:
            thread.join()
        assert answers == [200, 200]
        assert "sign_dist_in_flight 0.0" in client.get("/metrics").text
        assert send(client, clip).status_code == 200


def test_readiness_follows_the_model(client: TestClient, fake: Fake, clip: bytes) -> None:
    fake.loaded = False
    for response in (client.get("/readyz"), client.get("/v1/model"), send(client, clip)):
        assert "retry-after" in response.headers
        problem(response, 503, "not_ready")
    assert client.get("/healthz").json() == {"status": "ok"}
    fake.loaded = True
    assert client.get("/readyz").json() == {"status": "ready"}


def test_unknown_addresses_and_methods_are_problems(client: TestClient) -> None:
    problem(client.get("/nowhere"), 404, "not_found")
    problem(client.get("/v1/../etc/passwd"), 404, "not_found")
    response = client.get("/v1/recognize")
    problem(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "POST"
    problem(client.delete("/v1/model"), 405, "method_not_allowed")


def test_a_callers_request_id_is_kept_if_it_is_plain(client: TestClient) -> None:
    for mine in ("abc-123", "x" * 128):
        assert client.get("/nowhere", headers={"x-request-id": mine}).json()["request_id"] == mine
    for hostile in ("x" * 129, "a b", '"><script>', "a\tb"):
        assert hostile not in client.get("/nowhere", headers={"x-request-id": hostile}).text
    assert len({client.get("/healthz").headers["x-request-id"] for _ in range(5)}) == 5


def test_metrics_count_outcomes_and_do_not_mix_between_apps(client: TestClient, clip: bytes) -> None:
    send(client, clip)
    send(client, clip)
    send(client, b"")
    send(client, clip, "?k=0")
    client.get("/nowhere")
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    counts = dict(re.findall(r'sign_dist_requests_total{outcome="(\w+)"} (\S+)', response.text))
    assert counts == {"ok": "2.0", "empty": "1.0", "invalid_query": "1.0"}
    assert 'sign_dist_request_seconds_count{part="total"} 2.0' in response.text
    assert "sign_dist_batch_size_sum 6.0" in response.text
    with TestClient(build_api(Fake())) as other:
        assert "outcome=" not in other.get("/metrics").text


def test_the_model_is_described_with_its_limits(client: TestClient) -> None:
    body = client.get("/v1/model").json()
    assert body["model"] == "fake-1"
    assert body["facts"]["metrics"] == {"top1": 0.9, "wer": None}  # JSON has no NaN
    assert body["limits"]["max_bytes"] == LIMITS.max_bytes


def test_the_schema_describes_every_error_as_a_problem(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()
    operation = schema["paths"]["/v1/recognize"]["post"]
    assert "multipart/form-data" in operation["requestBody"]["content"]
    errors = {status: response for status, response in operation["responses"].items() if status >= "400"}
    assert set(errors) >= {"400", "408", "413", "415", "422", "500", "503", "504"}
    for response in errors.values():
        assert list(response["content"]) == ["application/problem+json"]
        assert response["content"]["application/problem+json"]["schema"] == {"$ref": "#/components/schemas/Problem"}
    assert client.get("/docs").status_code == 200
    of_tables = {"no_gloss", "not_allowed", "bad_name", "duplicate_id", "bad_row", "not_kept", "too_few_clips", "bad_span"}
    of_files = {"missing", "not_a_file", "unreadable", "missing_frames", "span_outside", "crashed"}
    assert set(REASONS) - of_tables - of_files <= set(PROBLEMS)


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_need_nothing_from_elsewhere_and_run_only_their_own_script(client: TestClient, path: str) -> None:
    first, second = client.get(path), client.get(path)
    policy = first.headers["content-security-policy"]
    nonces = re.findall(r"'nonce-([\w-]+)'", policy)
    assert len(set(nonces)) == 1
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert first.text.count(f'nonce="{nonces[0]}"') == len(re.findall(r"<(?:style|script)\b", first.text)) >= 2
    assert first.text != second.text
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", first.text)
    assert "__NONCE__" not in first.text
