"""Ray Serve: replicas of a Predictor behind `inference.api`.

A replica answers many requests at once: uploads arrive on its event loop, a few threads decode and encode, each with a
predictor of its own, and one thread runs the model on whatever clips came together within `batch_wait_ms`. Requests
wait inside the replica, where the interface counts them and refuses in its own words; Serve's own queue is the fallback.
"""

import asyncio
import contextlib
import functools
import logging
import math
import queue
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import ray
from fastapi import FastAPI
from pydantic import Field, model_validator
from ray import serve
from ray.serve import Application
from ray.serve.api import RunTarget
from ray.serve.schema import ApplicationStatus

from sign_dist.config.base import Settings
from sign_dist.errors import ServiceError
from sign_dist.inference.api import Answer, build_api
from sign_dist.inference.bundle import Bundle
from sign_dist.inference.upload import Limits
from sign_dist.tasks.task import Prediction

if TYPE_CHECKING:
    from sign_dist.inference.bases import Bases

logger = logging.getLogger(__name__)

APP_NAME = "sign-dist"
# Requests that are refused, and those for /metrics or /healthz, pass while all places for videos are taken.
SPARE_REQUESTS = 32


class ServeArgs(Settings):
    """What is served and how. From `serve run`, `name=value` words; nested limits by dotted names, `limits.max_seconds=10`."""

    bundle: str
    """A bundle folder, as `export` writes it. Every node that runs a replica must see it at this path."""
    base: str = ""
    """The folder of the model below a bundle's adapters, if it is not where it was at training."""
    replicas: int = Field(default=1, ge=1)
    cpus: float = Field(default=1.0, ge=0)
    """Logical CPUs that Ray reserves for a replica."""
    device: Literal["cpu", "gpu"] = "cpu"
    """`gpu`: each replica reserves one."""
    decoders: int = Field(default=2, ge=1, le=64)
    """Videos that a replica decodes at a time; each needs a predictor in memory."""
    max_batch_size: int = Field(default=8, ge=1, le=1024)
    batch_wait_ms: float = Field(default=10.0, ge=0, le=10_000)
    """How long the first clip of a batch waits for others."""
    limits: Limits = Limits()
    route_prefix: str = Field(default="/", pattern=r"^/([\w.-]+(/[\w.-]+)*)?$")

    @model_validator(mode="before")
    @classmethod
    def _nest_limits(cls, tree: Any) -> Any:
        """`{"limits.max_seconds": 10}` -> `{"limits": {"max_seconds": 10}}`."""
        if not isinstance(tree, dict):
            return tree
        limits = {name.removeprefix("limits."): value for name, value in tree.items() if name.startswith("limits.")}
        if not limits:
            return tree
        given = tree.get("limits", {})
        given = given.model_dump() if isinstance(given, Limits) else given
        return {name: value for name, value in tree.items() if not name.startswith("limits.")} | {"limits": given | limits}


class Predicts(Protocol):
    """The part of a Predictor that serving uses."""

    model_id: str
    facts: dict[str, Any]

    def features(self, path: Path) -> np.ndarray: ...

    def predict(self, features: Sequence[np.ndarray], k: int = 5) -> list[Prediction]: ...


Load = Callable[[Path, str], Predicts]
"""(bundle, torch device) -> a predictor."""


Ask = tuple[np.ndarray, int]
"""(features, how many glosses)."""
Reply = tuple[Prediction | Exception, float, int]
"""(what the model says, seconds of the call, clips in it)."""


def load_predictor(bundle: Path, device: str, base: str = "", bases: "Bases | None" = None) -> Predicts:
    from sign_dist.inference.predictor import Predictor  # in the replica: it brings torch and the video libraries

    return Predictor.load(bundle, device=device, base=base, bases=bases)


def application(args: ServeArgs, *, load: Load = load_predictor) -> Application:
    """The deployment, bound to its arguments: for `start`, `serve run` and `serve deploy`."""
    args = args.with_values({"bundle": str(Path(args.bundle).absolute())})
    deployment = deployed(Replica, "Recognizer", args)
    return deployment.bind(args.model_dump(), load)


def deployed(replica: Any, name: str, args: ServeArgs) -> Any:
    """The deployment of a class of replicas, not bound to arguments yet."""
    return serve.deployment(
        replica,
        name=name,
        num_replicas=args.replicas,
        ray_actor_options={"num_cpus": args.cpus, "num_gpus": 1 if args.device == "gpu" else 0},
        max_ongoing_requests=args.limits.max_queued + SPARE_REQUESTS,
        max_queued_requests=2 * args.limits.max_queued + SPARE_REQUESTS,
        # A bundle that does not load now will not load the tenth time.
        max_constructor_retry_count=2,
        health_check_period_s=10,
        health_check_timeout_s=30,
        graceful_shutdown_timeout_s=20,
    )


@serve.ingress()
class Replica:
    """One process of the service. It is the `Recognizer` that its own `build_api` app asks."""

    def __init__(self, args: dict[str, Any], load: Load) -> None:
        self._args = ServeArgs.from_tree(args)
        device = "cuda" if self._args.device == "gpu" else "cpu"
        if load is load_predictor:
            from sign_dist.inference.bases import Bases

            # A model below adapters is in memory once, however many predictors stand on it.
            load = functools.partial(load_predictor, base=self._args.base, bases=Bases())
        predictors = [load(Path(self._args.bundle), device) for _ in range(self._args.decoders)]
        self._predictor = predictors[0]
        self._idle: queue.SimpleQueue[Predicts] = queue.SimpleQueue()
        for predictor in predictors:
            self._idle.put(predictor)
        self._decoding = ThreadPoolExecutor(len(predictors), thread_name_prefix="decode")
        self._modelling = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._begun: dict[int, float] = {}
        self._predict.set_max_batch_size(self._args.max_batch_size)  # pyright: ignore[reportAttributeAccessIssue]
        self._predict.set_batch_wait_timeout_s(self._args.batch_wait_ms / 1e3)  # pyright: ignore[reportAttributeAccessIssue]

    def __serve_build_asgi_app__(self) -> FastAPI:
        app = build_api(self, limits=self._args.limits, task=str(self._predictor.facts.get("task", "islr")))
        app.add_middleware(OneRequestId)
        return app

    async def recognize(self, path: Path, k: int) -> Answer:
        features, decode_encode_s = await asyncio.get_running_loop().run_in_executor(self._decoding, self._features, path)
        prediction, model_s, batch_size = await self._predict((features, k))
        if isinstance(prediction, Exception):
            raise prediction
        return Answer(self._predictor.model_id, prediction, decode_encode_s, model_s, batch_size)

    def facts(self) -> dict[str, Any]:
        return {"model": self._predictor.model_id} | self._predictor.facts

    def ready(self) -> bool:
        return True  # Serve sends requests only after the constructor has loaded the model

    def check_health(self) -> None:
        """Serve replaces a replica whose decoder hangs in a video: a thread cannot be ended, a process can."""
        patience_s = 2 * self._args.limits.max_wait_s
        oldest = min(list(self._begun.values()), default=math.inf)
        if time.monotonic() - oldest > patience_s:
            raise RuntimeError(f"a video has been decoding for more than {patience_s:g} s")

    def _features(self, path: Path) -> tuple[np.ndarray, float]:
        predictor = self._idle.get()  # there are as many as threads, so this does not wait
        begun = time.monotonic()
        self._begun[id(predictor)] = begun
        try:
            return predictor.features(path), time.monotonic() - begun
        finally:
            del self._begun[id(predictor)]
            self._idle.put(predictor)

    @serve.batch(max_batch_size=8, batch_wait_timeout_s=0.01)
    async def _predict(self, clips: list[Ask]) -> list[Reply]:
        return await asyncio.get_running_loop().run_in_executor(self._modelling, self._model_call, clips)

    def _model_call(self, clips: list[Ask]) -> list[Reply]:
        begun = time.monotonic()
        try:
            predictions = self._predictor.predict([features for features, _ in clips], k=max(k for _, k in clips))
        except Exception as error:
            if len(clips) == 1:
                return [(error, 0.0, 1)]
            # One clip's fault is not its neighbours': each is asked for alone.
            logger.warning("a batch of %d failed, its clips are asked for one by one", len(clips), exc_info=True)
            return [reply for clip in clips for reply in self._model_call([clip])]
        seconds = time.monotonic() - begun
        return [(prediction, seconds, len(clips)) for prediction in predictions]


class OneRequestId:
    """Serve's proxy adds `x-request-id` to every response, with the id that it has put into the request as well."""

    def __init__(self, app: Callable[..., Any]) -> None:
        self.app = app

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        async def send_without_id(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [(name, value) for name, value in message["headers"] if name != b"x-request-id"]
            await send(message)

        await self.app(scope, receive, send_without_id)


def start(
    args: ServeArgs,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    load: Load = load_predictor,
    app: Application | None = None,
    patience_s: float = 300.0,
) -> str:
    """Serve a bundle on the Ray that this process is connected to; the URL, once it answers. `app`: another application of `args`.

    Raises:
        RunError: the folder is no bundle, or damaged.
        ServiceError: no Ray, a port that is taken, too few CPUs or GPUs, or a replica that does not start.
    """
    if not ray.is_initialized():
        raise ServiceError("no Ray is connected: call on_ray.cluster.connect() before serving")
    if load is load_predictor and app is None:
        Bundle(Path(args.bundle)).facts()  # a fault is told at once, and not after a replica has tried twice
    if not serve.status().proxies:  # else the port is Serve's own, and this is an update of what it serves
        refuse_taken_port(host, port)
    _refuse_too_large(args)
    app = app or application(args, load=load)
    limits = args.limits
    logging.getLogger("ray.serve").setLevel(logging.WARNING)  # else it tells of each step, and of options that it has applied
    serve.start(
        proxy_location="HeadOnly",
        # The interface answers earlier and in its own words; this is for a replica that does not answer at all.
        http_options={"host": host, "port": port, "request_timeout_s": limits.max_receive_s + limits.max_wait_s + 30},
        logging_config={"log_level": "WARNING"},
    )
    target = RunTarget(app, name=APP_NAME, route_prefix=args.route_prefix, logging_config={"log_level": "WARNING"})
    serve.run_many([target], wait_for_applications_running=False)
    _wait_until_running(patience_s)
    url = f"http://{'127.0.0.1' if host in ('0.0.0.0', '::') else host}:{port}{args.route_prefix}"
    _wait_until_answering(url, patience_s=60)
    return url


def stop() -> None:
    """End the service; Ray itself stays connected."""
    serve.shutdown()


def refuse_taken_port(host: str, port: int) -> None:
    """Raise ServiceError unless a server could listen there now.

    Serve's proxy shares its port with any other process of the user that shares it too, so Serve itself would not notice.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OverflowError:
            raise ServiceError(f"port {port} is none: choose one from 1024 to 65535 with --port") from None
        except OSError as error:
            raise ServiceError(
                f"cannot listen on {host}:{port} ({error.strerror}): choose another port with --port, or end what uses it"
            ) from None


def _refuse_too_large(args: ServeArgs) -> None:
    """A replica that fits nowhere would be waited for without end."""
    have = ray.cluster_resources()
    wanted = {"CPU": args.replicas * args.cpus, "GPU": float(args.replicas if args.device == "gpu" else 0)}
    for kind, count in wanted.items():
        if count > have.get(kind, 0):
            raise ServiceError(
                f"{args.replicas} replicas need {count:g} {kind}s, the cluster has {have.get(kind, 0):g}: "
                "lower replicas or cpus, use device=cpu, or connect to a larger cluster"
            )


def _wait_until_running(patience_s: float) -> None:
    end = time.monotonic() + patience_s
    while True:
        app = serve.status().applications.get(APP_NAME)
        match app.status if app else None:
            case ApplicationStatus.RUNNING:
                return
            case ApplicationStatus.DEPLOY_FAILED | ApplicationStatus.UNHEALTHY:
                assert app is not None
                why = " ".join(deployment.message for deployment in app.deployments.values()) or app.message
                with contextlib.suppress(Exception):  # what failed is told below; half a service must not stay behind
                    serve.delete(APP_NAME)
                raise ServiceError(f"the service does not start: {_heart(why)}")
            case _ if time.monotonic() > end:
                raise ServiceError(f"the service is not ready after {patience_s:g} s: look at `serve status` and Ray's dashboard")
            case _:
                time.sleep(0.2)


def _wait_until_answering(url: str, *, patience_s: float) -> None:
    """The proxy learns of a new application a moment after the controller says it runs."""
    end = time.monotonic() + patience_s
    while True:
        try:
            with urllib.request.urlopen(f"{url.rstrip('/')}/readyz", timeout=10):
                return
        except (urllib.error.URLError, OSError) as error:
            if time.monotonic() > end:
                raise ServiceError(f"{url} does not answer: {error}") from None
            time.sleep(0.2)


def _heart(message: str) -> str:
    """The last line of a replica's traceback, which is the error itself."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    errors = [line for line in lines if line.split(":")[0].endswith(("Error", "Exception"))]
    return (errors or lines or ["no reason is given"])[-1].removeprefix("sign_dist.errors.")
