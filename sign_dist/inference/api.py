"""The HTTP interface to a recognizer: `build_api(service)` -> FastAPI. It knows neither the model nor Ray.

Every failure is an `application/problem+json` (RFC 9457) with a stable `code`; its text is written here or by our own
error classes, so that no traceback and no path of the server reaches a client.
"""

import asyncio
import contextlib
import dataclasses
import logging
import re
import secrets
import time
import uuid
from collections.abc import AsyncIterator
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, Protocol

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel, Field
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import sign_dist
from sign_dist.errors import ServiceError, VideoError
from sign_dist.inference.answers import answer_json
from sign_dist.inference.meter import Meter
from sign_dist.inference.problems import PROBLEMS, RETRY_AFTER_S, ApiError, Problem
from sign_dist.inference.upload import Limits, UploadError, receive_video, sweep_leftovers
from sign_dist.tasks.task import Prediction

logger = logging.getLogger(__name__)

MAX_K = 50
RECOGNIZE = "/v1/recognize"
PAGE = Path(__file__).parent / "page"


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a recognizer says of one video, and where the time went. `batch_size` clips shared the model call."""

    model: str
    prediction: Prediction
    decode_encode_s: float
    model_s: float
    batch_size: int = 1


class Recognizer(Protocol):
    """What the interface serves. A test brings a fake, Ray Serve a replica."""

    async def recognize(self, path: Path, k: int) -> Answer:
        """The `k` best glosses of a video. May raise VideoError, ServiceError or TimeoutError."""
        ...

    def facts(self) -> dict[str, Any]:
        """What is known of the model, ready for JSON; `model` is its name."""
        ...

    def ready(self) -> bool: ...


class Result(BaseModel):
    gloss: str = Field(description="Written label of a sign", examples=["BOOK"])
    score: float = Field(description="Probability, 0 to 1", examples=[0.93])


class Timing(BaseModel):
    """Milliseconds. `total` also holds the time that the request waited for its turn."""

    receive: float = Field(description="Receiving and inspecting the upload")
    decode_encode: float = Field(description="Reading frames and making features of them")
    model: float = Field(description="The model call that this clip shared with its batch")
    total: float = Field(description="From the request's first byte to the answer")


class Recognition(BaseModel):
    model: str = Field(description="Name and digest of the model", examples=["islr-3f9a1c20"])
    hypothesis: str = Field(description="The best gloss", examples=["BOOK"])
    results: list[Result] = Field(description="The best `k` glosses, best first")
    timing_ms: Timing
    request_id: str


class Glosses(BaseModel):
    glosses: list[str] = Field(description="Written labels in the order they are signed", examples=[["I", "BOOK", "READ"]])
    score: float | None = Field(description="Probability, 0 to 1", examples=[0.71])


class GlossRecognition(BaseModel):
    model: str = Field(description="Name and digest of the model", examples=["cslr-3f9a1c20"])
    glosses: list[str] = Field(description="The best sequence of glosses; empty if nothing was recognised")
    results: list[Glosses] = Field(description="The `k` best sequences, best first")
    timing_ms: Timing
    request_id: str


class Sentence(BaseModel):
    sentence: str = Field(description="A translation", examples=["I read the book."])
    score: float | None = Field(description="Log-probability, as the search ranks it", examples=[-0.41])


class Translation(BaseModel):
    model: str = Field(description="Name and digest of the model", examples=["slt-3f9a1c20"])
    sentence: str = Field(description="The best translation")
    results: list[Sentence] = Field(description="The `k` best translations, best first; none where the search keeps only one")
    timing_ms: Timing
    request_id: str


# What an answer looks like, by task.
ANSWERS: dict[str, type[Recognition | GlossRecognition | Translation]] = {
    "islr": Recognition,
    "vlm": Recognition,
    "cslr": GlossRecognition,
    "slt": Translation,
}
SHOWN = {"islr": "one sign", "vlm": "one sign", "cslr": "one sentence", "slt": "one sentence"}
WANTED = {"islr": "the glosses it may be", "vlm": "the glosses it may be", "cslr": "its glosses", "slt": "its translation"}


class Model(BaseModel):
    model: str = Field(description="Name and digest of the model")
    facts: dict[str, Any] = Field(description="Task, vocabulary size, scores and origin of the model")
    limits: Limits = Field(description="What one upload may cost")


class State(BaseModel):
    status: str = Field(examples=["ok"])


def build_api(service: Recognizer, *, limits: Limits | None = None, task: str = "islr") -> FastAPI:
    """The web application around a recognizer: endpoints, page, metrics, errors. `task` decides what answers look like."""
    limits = limits or Limits()
    meter = Meter()
    pages = {name: (PAGE / name).read_text(encoding="utf-8") for name in ("index.html", "docs.html")}

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        sweep_leftovers()
        yield

    app = FastAPI(
        title="Sign recognition",
        version=sign_dist.__version__,
        description=DESCRIPTION.format(limits=limits, mib=limits.max_bytes / 2**20, shown=SHOWN[task], wanted=WANTED[task]),
        lifespan=lifespan,
        # FastAPI's own pages load their scripts from another server.
        docs_url=None,
        redoc_url=None,
    )
    app.add_middleware(Envelope, meter=meter)
    _answer_errors(app)
    _describe_problems(app)

    @app.post(
        RECOGNIZE,
        tags=["recognition"],
        summary="Name the sign in a video" if task in ("islr", "vlm") else "Say what is signed in a video",
        response_model=ANSWERS[task],
        response_description="The best answer, and others with their scores",
        responses=_problems(400, 408, 413, 415, 422, 500, 503, 504),
        openapi_extra={"requestBody": UPLOAD_BODY},
    )
    async def recognize(
        request: Request,
        k: Annotated[int, Query(ge=1, le=MAX_K, description="How many answers to return at most")] = 5,
    ) -> BaseModel:
        """Send one short video as the field `video` of a multipart form.

        The file's name and declared type do not matter, its bytes do: MP4, MOV, WebM, MKV, AVI, MPEG, WMV, FLV, Ogg
        and GIF are read. It is deleted as soon as the request is answered.
        """
        begun = time.perf_counter()
        _refuse_unready(service)
        with meter.place_in_queue(limits.max_queued):
            upload = receive_video(
                request.stream(),
                content_type=request.headers.get("content-type", ""),
                content_length=request.headers.get("content-length", ""),
                limits=limits,
            )
            async with upload as video:
                received = time.perf_counter()
                answer = await _in_time(service, video.path, k, limits.max_wait_s)
        timing = {
            "receive": received - begun,
            "decode_encode": answer.decode_encode_s,
            "model": answer.model_s,
            "total": time.perf_counter() - begun,
        }
        meter.answered(timing, answer.batch_size)
        said = answer_json(task, answer.prediction, k)
        return ANSWERS[task](
            model=answer.model,
            **({"hypothesis": said["gloss"], "results": said["results"]} if task in ("islr", "vlm") else said),
            timing_ms=Timing(**{part: round(seconds * 1e3, 2) for part, seconds in timing.items()}),
            request_id=_request_id(request),
        )

    @app.get("/v1/model", tags=["recognition"], summary="What is served", responses=_problems(500, 503))
    async def model() -> Model:
        """The model's facts, and the limits that an upload must keep."""
        _refuse_unready(service)
        facts = service.facts()
        return Model(model=str(facts.get("model", "")), facts=facts, limits=limits)

    @app.get("/healthz", tags=["operation"], summary="Is the process alive?")
    async def healthz() -> State:
        return State(status="ok")

    @app.get("/readyz", tags=["operation"], summary="Is the model loaded?", responses=_problems(503))
    async def readyz() -> State:
        _refuse_unready(service)
        return State(status="ready")

    @app.get(
        "/metrics",
        tags=["operation"],
        summary="Counts and times in Prometheus's text format",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def metrics() -> Response:
        """Of this replica alone: with several, each scrape reads one of them."""
        return Response(meter.text(), media_type=meter.media_type)

    @app.get("/", include_in_schema=False)
    async def index() -> HTMLResponse:
        return _page(pages["index.html"])

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return _page(pages["docs.html"])

    return app


class Envelope:
    """Around everything: a request id, headers for every response, the count of outcomes, and 500 for what escapes."""

    def __init__(self, app: ASGIApp, meter: Meter) -> None:
        self.app, self.meter = app, meter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        note = scope["sign_dist"] = {"request_id": _accept_id(Headers(scope=scope).get("x-request-id", "")), "outcome": "ok"}
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = note["request_id"]
                headers["x-content-type-options"] = "nosniff"
                headers.setdefault("cache-control", "no-store")
            await send(message)

        try:
            await self.app(scope, receive, send_with_headers)
        except Exception:
            logger.exception("request %s failed", note["request_id"])
            if started:
                raise
            response = _problem(request, "internal", "this is a fault of the server: report it with the request id")
            await response(scope, receive, send_with_headers)
        finally:
            if scope["method"] == "POST" and scope["path"].endswith(RECOGNIZE):
                self.meter.requests.labels(note["outcome"]).inc()


async def _in_time(service: Recognizer, path: Path, k: int, max_wait_s: float) -> Answer:
    try:
        async with asyncio.timeout(max_wait_s):
            return await service.recognize(path, k)
    except TimeoutError:
        raise ApiError("timed_out", f"no answer within {max_wait_s:g} s: try again later, or with a shorter video") from None


def _refuse_unready(service: Recognizer) -> None:
    if not service.ready():
        raise ApiError("not_ready", f"the model is still loading: try again in {RETRY_AFTER_S} s")


def _answer_errors(app: FastAPI) -> None:
    async def on_coded(request: Request, error: Exception) -> Response:
        assert isinstance(error, ApiError | UploadError | VideoError)
        return _problem(request, error.code, str(error))

    async def on_service(request: Request, error: Exception) -> Response:
        logger.error("request %s: %s", _request_id(request), error)
        return _problem(request, "unavailable", f"the recognizer cannot answer now: try again in {RETRY_AFTER_S} s")

    async def on_disconnect(request: Request, _: Exception) -> Response:
        return _problem(request, "disconnected", "the connection closed before the video had arrived")

    async def on_validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"][1:])
        return _problem(request, "invalid_query", f"parameter {name!r}: {first['msg']}, got {str(first.get('input'))[:40]!r}")

    async def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        codes = {404: "not_found", 405: "method_not_allowed", 413: "too_many_bytes", 429: "too_many_requests", 503: "unavailable"}
        detail = error.detail
        if error.status_code in (404, 405):
            detail = f"{request.method} {request.url.path[:100]} is not offered here: /docs lists what is"
        code = codes.get(error.status_code, f"http_{error.status_code}")
        return _problem(request, code, detail, status=error.status_code, headers=dict(error.headers or {}))

    for kind in (ApiError, UploadError, VideoError):
        app.add_exception_handler(kind, on_coded)
    app.add_exception_handler(ServiceError, on_service)
    app.add_exception_handler(ClientDisconnect, on_disconnect)
    app.add_exception_handler(RequestValidationError, on_validation)
    app.add_exception_handler(HTTPException, on_http)


def _problem(request: Request, code: str, detail: str, *, status: int = 0, headers: dict[str, str] | None = None) -> JSONResponse:
    body = Problem.of(code, detail, request_id=_request_id(request), status=status)
    if body.status in (429, 503):
        headers = {"retry-after": str(RETRY_AFTER_S)} | (headers or {})
    request.scope["sign_dist"]["outcome"] = code
    return JSONResponse(body.model_dump(), body.status, headers, media_type="application/problem+json")


def _request_id(request: Request) -> str:
    return request.scope["sign_dist"]["request_id"]


def _accept_id(offered: str) -> str:
    """A caller's own id if it is short and plain, else a new one: it goes into logs and headers."""
    return offered if re.fullmatch(r"[A-Za-z0-9._:+/=-]{1,128}", offered) else str(uuid.uuid4())


def _page(html: str) -> HTMLResponse:
    """A page that may run its own script and style, and load nothing else."""
    nonce = secrets.token_urlsafe(16)
    headers = {
        "content-security-policy": f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; "
        "connect-src 'self'; media-src blob:; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        "permissions-policy": "camera=(self), microphone=(), geolocation=()",
        "referrer-policy": "no-referrer",
    }
    return HTMLResponse(html.replace("__NONCE__", nonce), headers=headers)


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI entries: for each status, which problem codes it can carry."""
    codes = {status: [f"`{code}`" for code, (of, _) in PROBLEMS.items() if of == status] for status in statuses}
    return {
        status: {"model": Problem, "description": f"{HTTPStatus(status).phrase}: {', '.join(codes[status])}"} for status in statuses
    }


def _describe_problems(app: FastAPI) -> None:
    """FastAPI files every model under application/json; in the schema too, problems have their own media type."""
    make = app.openapi

    def openapi() -> dict[str, Any]:
        schema = make()
        for path in schema["paths"].values():
            for operation in path.values():
                for status, response in operation["responses"].items():
                    content = response.get("content", {})
                    if status >= "400" and "application/json" in content:
                        content["application/problem+json"] = content.pop("application/json")
        return schema

    app.openapi = openapi


UPLOAD_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["video"],
                "properties": {"video": {"type": "string", "format": "binary", "description": "The video file"}},
            }
        }
    },
}

DESCRIPTION = """\
Send a short video of {shown}, get {wanted}, best first.

```
curl -F video=@sign.mp4 'http://127.0.0.1:8000/v1/recognize?k=5'
```

A video may have {mib:g} MiB, {limits.max_seconds:g} s and {limits.max_pixels} pixels a frame. It is kept only while it
is being answered. Every error is an `application/problem+json` (RFC 9457): `detail` says what is wrong in words, `code`
is for programs. On 503 wait for the seconds in `retry-after`, then send again.
"""
