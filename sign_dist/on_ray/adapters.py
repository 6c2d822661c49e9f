"""Ray Serve: many sets of adapters over one model, asked for by name with each request (`serve.multiplexed`).

The model below the adapters is in a replica's memory once; a set of adapters is loaded when it is first asked for, and the one that
was asked for longest ago makes room when there are too many. A request names its set in the header `serve_multiplexed_model_id`,
by which Ray also sends it to a replica that has it, if one does. Clips of different sets cannot share a call, so each has its own.
"""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from pydantic import Field
from ray import serve
from ray.serve import Application

from sign_dist.errors import RunError, did_you_mean
from sign_dist.inference.api import Answer, build_api
from sign_dist.inference.bundle import Bundle, BundleFacts
from sign_dist.inference.problems import ApiError
from sign_dist.on_ray.serving import OneRequestId, ServeArgs, deployed

HEADER = "serve_multiplexed_model_id"


class AdapterArgs(ServeArgs):
    """What is served: `bundle` is a folder whose folders are bundles, each known by its folder's name."""

    at_most: int = Field(default=8, ge=1, le=256)
    """Sets of adapters that a replica holds at a time."""
    default: str = ""
    """The set for requests that name none; empty: the first by name."""


def application(args: AdapterArgs) -> Application:
    """The deployment, bound to its arguments.

    Raises:
        RunError: the folder holds no bundles, or they do not belong over one model.
    """
    args = args.with_values({"bundle": str(Path(args.bundle).absolute())})
    sets_of(args)
    deployment = deployed(serve.ingress()(_replica(args.at_most)), "Adapters", args)
    return deployment.bind(args.model_dump())


def sets_of(args: AdapterArgs) -> dict[str, BundleFacts]:
    """The bundles of a folder, by name.

    Raises:
        RunError: there is none, one is damaged, or they do not belong over one model.
    """
    root = Path(args.bundle)
    found = {path.parent.name: Bundle(path.parent).facts() for path in sorted(root.glob("*/bundle.json"))}
    if not found:
        raise RunError(
            f"{str(root)!r} holds no bundles: give a folder whose folders are bundles, as `sign-dist export` writes them"
        )
    whole = [name for name, facts in found.items() if not facts.base]
    if whole:
        raise RunError(f"the bundle {whole[0]!r} is a whole model and no adapters: serve it by itself, or export without --merged")
    first, *others = found
    for name in others:
        if found[name].base != found[first].base:
            raise RunError(f"{first!r} and {name!r} belong over different models: serve each model's adapters by themselves")
    if args.default and args.default not in found:
        raise RunError(f"no bundle {args.default!r} to be the default: there are {', '.join(found)}")
    return found


def _replica(at_most: int) -> type["AdapterReplica"]:
    """The class of a replica that holds so many sets: Ray takes the number where a method is written."""

    class Adapters(AdapterReplica):
        @serve.multiplexed(max_num_models_per_replica=at_most)
        async def loaded(self, name: str) -> tuple[Any, threading.Lock]:  # pyright: ignore[reportIncompatibleMethodOverride]
            return await asyncio.get_running_loop().run_in_executor(self.loading, self.load, name)

    return Adapters


class AdapterReplica:
    """One process of the service."""

    def __init__(self, args: dict[str, Any]) -> None:
        from sign_dist.inference.bases import Bases

        self._args = AdapterArgs.from_tree(args)
        self._sets = sets_of(self._args)
        self._default = self._args.default or next(iter(self._sets))
        self._bases = Bases()
        self._decoding = ThreadPoolExecutor(self._args.decoders, thread_name_prefix="decode")
        self._modelling = ThreadPoolExecutor(1, thread_name_prefix="model")
        self.loading = ThreadPoolExecutor(1, thread_name_prefix="load")
        # A model below the adapters that is missing is told at the start, and not to the first who asks.
        self._held = self.load(self._default)

    def __serve_build_asgi_app__(self) -> FastAPI:
        app = build_api(self, limits=self._args.limits, task="vlm")
        app.add_middleware(OneRequestId)
        return app

    async def recognize(self, path: Path, k: int) -> Answer:
        predictor, lock = await self._asked()
        run = asyncio.get_running_loop().run_in_executor

        def features() -> tuple[Any, float]:
            with lock:
                begun = time.monotonic()
                return predictor.features(path), time.monotonic() - begun

        def answer(clip: Any) -> tuple[Any, float]:
            begun = time.monotonic()
            return predictor.predict([clip], k=k)[0], time.monotonic() - begun

        clip, decode_encode_s = await run(self._decoding, features)
        prediction, model_s = await run(self._modelling, answer, clip)
        return Answer(predictor.model_id, prediction, decode_encode_s, model_s)

    def facts(self) -> dict[str, Any]:
        name = self._name()
        facts = self._sets[name]
        model_id = f"{facts.name}-{facts.weights_sha256[:8]}"
        return {**self._held[0].facts, "model": model_id, "metrics": facts.metrics, "models": list(self._sets), "header": HEADER}

    def ready(self) -> bool:
        return True

    def _name(self) -> str:
        name = serve.get_multiplexed_model_id() or self._default
        if name not in self._sets:
            hint = did_you_mean(name, self._sets)
            raise ApiError("not_found", f"no model {name[:80]!r}: there are {', '.join(self._sets)};{hint}".rstrip(";"))
        return name

    async def _asked(self) -> tuple[Any, threading.Lock]:
        name = self._name()
        return self._held if name == self._default else await self.loaded(name)

    async def loaded(self, name: str) -> tuple[Any, threading.Lock]:
        """A set of adapters that is in memory from now on, and the lock of whoever decodes with it."""
        raise NotImplementedError(name)

    def load(self, name: str) -> tuple[Any, threading.Lock]:
        from sign_dist.inference.predictor import Predictor

        device = "cuda" if self._args.device == "gpu" else "cpu"
        bundle = Path(self._args.bundle) / name
        return Predictor.load(bundle, device=device, base=self._args.base, bases=self._bases), threading.Lock()
