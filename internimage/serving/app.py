"""The routes: what a client can ask for, and what it is told."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, HTTPException, Query, Request
from fastapi.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from internimage.errors import UnknownName
from internimage.serving.access import key_check
from internimage.serving.bodies import HeldBytes, read_images
from internimage.serving.metrics import CONTENT_TYPE_LATEST, Metrics
from internimage.serving.pages import add_pages
from internimage.serving.pool import Pool, QueueFull
from internimage.serving.process import Answered, WorkerLost
from internimage.serving.settings import Serving
from internimage.version import __version__

logger = logging.getLogger(__name__)

PNG, JSON = "image/png", "application/json"
GONE = 499  # the client has; nobody sees it but the metrics
NOSNIFF = {"X-Content-Type-Options": "nosniff"}

TopK = Annotated[int, Query(ge=1, le=1000, description="Classes that are named, the most probable or largest ones.")]
Threshold = Annotated[
    float | None, Query(ge=0, le=1, description="Objects below are left out; in a drawing those below 0.3 by default.")
]
Classes = Annotated[list[str] | None, Query(description="Objects of other classes are left out; may be repeated.")]
Masks = Annotated[bool, Query(description="Add masks of objects (COCO run lengths) or the label map (PNG in base64).")]
Form = Annotated[Literal["json", "png"], Query(alias="format", description="JSON, or one image with the prediction.")]

BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"images": {"type": "array", "items": {"type": "string", "format": "binary"}}},
                }
            },
            JSON: {
                "schema": {
                    "type": "object",
                    "required": ["images"],
                    "properties": {"images": {"type": "array", "items": {"type": "string", "format": "byte"}}},
                }
            },
        },
    }
}
RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The predictions in the order of the images, or a drawing of one.",
        "content": {
            JSON: {
                "schema": {
                    "type": "object",
                    "properties": {
                        "model": {"type": "string"},
                        "predictions": {"type": "array", "items": {"type": "object"}},
                    },
                }
            },
            PNG: {"schema": {"type": "string", "format": "binary"}},
        },
    },
    400: {"description": "An image cannot be read, or the body has another form; the detail says which and why."},
    401: {"description": "An API key is needed."},
    404: {"description": "There is no such model."},
    408: {"description": "The request came too slowly."},
    413: {"description": "The request is too large."},
    415: {"description": "The body, or an image in it, is of an unknown type."},
    429: {"description": "Too many images are waiting; try again after the seconds of Retry-After."},
    503: {"description": "The worker that had the image has ended, or is out of memory; try again."},
    504: {"description": "The prediction took too long."},
}


def create_app(serving: Serving) -> FastAPI:
    """Return the application; its pool of workers starts and ends with it, and is `app.state.pool`."""
    metrics = Metrics()

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.pool = Pool(serving, metrics)
        app.state.pool.start()
        yield
        await app.state.pool.close()

    app = FastAPI(
        title="internimage",
        version=__version__,
        description="Image models behind HTTP.",
        docs_url=None,  # its page would load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    if serving.origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=serving.origins, allow_methods=["GET", "POST"], allow_headers=["*"]
        )
    Routes(serving, metrics).add_to(app)
    if serving.has_page:
        add_pages(app)
    return app


def pool_of(request: Request) -> Pool:
    """Return the workers of the server that has a request."""
    return request.app.state.pool


class Routes:
    """The answers of the server.

    Args:
        serving: what is served.
        metrics: what is counted.
    """

    def __init__(self, serving: Serving, metrics: Metrics) -> None:
        self.serving, self.metrics = serving, metrics
        self.names = [model.name for model in serving.models]
        self.held = HeldBytes(serving.limits.held_bytes)
        self.in_progress = 0
        metrics.in_progress.set_function(lambda: self.in_progress)

    def add_to(self, app: FastAPI) -> None:
        """Add the routes to an app."""
        guarded = [Depends(key_check(self.serving.api_keys))]
        app.get("/healthz", summary="Whether the server runs")(self.healthz)
        app.get("/readyz", summary="Whether a worker can predict")(self.readyz)
        app.get("/metrics", summary="Metrics for Prometheus", dependencies=guarded)(self.show_metrics)
        app.get("/v1/models", summary="The models", dependencies=guarded)(self.list_models)
        app.get("/v1/models/{name}", summary="One model", dependencies=guarded)(self.show_model)
        app.post(
            "/v1/models/{name}/predict",
            summary="Predict for images",
            dependencies=guarded,
            responses=RESPONSES,
            openapi_extra=BODY,
        )(self.predict)

    async def healthz(self) -> dict[str, str]:
        """Answer as long as the server runs."""
        return {"status": "ok"}

    async def readyz(self, request: Request) -> JSONResponse:
        """Answer 200 as soon as a worker has loaded and warmed up its models, 503 before."""
        is_ready = pool_of(request).is_ready
        return JSONResponse({"status": "ready" if is_ready else "loading"}, 200 if is_ready else 503)

    async def show_metrics(self) -> Response:
        """Return the metrics of the server and its workers."""
        return Response(self.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    async def list_models(self, request: Request) -> dict[str, list[dict[str, Any]]]:
        """Return name, task, number of classes, usual input and options of each model, once it is loaded."""
        infos = pool_of(request).infos
        shown = [infos.get(name, {"name": name}) for name in self.names]
        return {"models": [{key: value for key, value in info.items() if key != "class_names"} for info in shown]}

    async def show_model(self, name: str, request: Request) -> dict[str, Any]:
        """Return what there is to know of a model, with the names of its classes."""
        self._check(name)
        return pool_of(request).infos.get(name, {"name": name})

    async def predict(
        self,
        name: str,
        request: Request,
        top_k: TopK = 5,
        score_threshold: Threshold = None,
        classes: Classes = None,
        masks: Masks = False,
        form: Form = "json",
    ) -> Response:
        """Predict for one image or several, sent as files (multipart/form-data) or in base64 (application/json)."""
        self._check(name)
        asked = dict(top_k=top_k, score_threshold=score_threshold, classes=classes, masks=masks, form=form)
        start, status = time.perf_counter(), 500
        try:
            response = await self._answer(name, request, asked)
            status = response.status_code
            return response
        except HTTPException as error:
            status = error.status_code
            raise
        finally:
            seconds = time.perf_counter() - start
            self.metrics.requests.labels(name, str(status)).inc()
            self.metrics.latency.labels(name).observe(seconds)
            logger.info("%s: %d in %.0f ms", name, status, 1000 * seconds)

    async def _answer(self, name: str, request: Request, asked: dict[str, Any]) -> Response:
        limits = self.serving.limits
        if self.in_progress >= limits.requests:
            reason = f"{limits.requests} requests are in progress, the limit here"
            raise HTTPException(429, reason, {"Retry-After": "1", "Connection": "close"})
        self.in_progress += 1
        try:
            with self.held.of_one_request() as hold:
                images = await read_images(request, limits, hold)
                if asked["form"] == "png" and len(images) > 1:
                    raise HTTPException(400, f"a drawing is of one image, given {len(images)}")
                found = await self._predicted(name, images, asked, request)
        except ClientDisconnect:
            return Response(status_code=GONE)
        finally:
            self.in_progress -= 1
        if found is None:
            return Response(status_code=GONE)
        return _response(name, found)

    async def _predicted(
        self, name: str, images: Sequence[bytes], asked: dict[str, Any], request: Request
    ) -> list[Answered] | None:
        """Return what the workers answer; None where the client has gone, whose images are then left out."""
        pool = pool_of(request)
        self._check_options(pool, name, asked)
        try:
            answers = pool.submit(name, images, asked)
        except QueueFull as error:
            raise HTTPException(429, str(error), {"Retry-After": str(error.retry_s)}) from error
        everything = asyncio.gather(*answers)
        gone = asyncio.create_task(_has_gone(request))
        try:
            await asyncio.wait(
                (everything, gone), timeout=self.serving.limits.seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if everything.done():
                return everything.result()
            if gone.done():
                return None
            raise HTTPException(504, f"there was no prediction within {self.serving.limits.seconds:g} s")
        except WorkerLost as error:
            reason = "the worker that had the image has ended and is started anew; try again"
            raise HTTPException(503, reason, {"Retry-After": "1"}) from error
        finally:
            gone.cancel()
            everything.cancel()  # so that nothing is predicted for nobody

    def _check(self, name: str) -> None:
        if name not in self.names:
            raise HTTPException(404, str(UnknownName("model", name, self.names, "GET /v1/models lists them.")))

    def _check_options(self, pool: Pool, name: str, asked: dict[str, Any]) -> None:
        """Refuse options that mean nothing for a model; those of one that still loads are not known."""
        if name not in pool.infos:
            return
        known = pool.infos[name]["options"]
        given = {option: asked[option] for option in ("score_threshold", "classes", "masks")}
        foreign = [option for option, value in given.items() if value not in (None, False) and option not in known]
        if foreign:
            raise HTTPException(400, f"{name} takes no {' and no '.join(foreign)}; it takes {', '.join(known)}")


async def _has_gone(request: Request) -> None:
    """Return when the client has closed its connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _response(name: str, found: Sequence[Answered]) -> Response:
    """Return the predictions of all images; one that could not be read refuses the request and is named."""
    for i, answer in enumerate(found, 1):
        if answer.status != 200:
            which = f"image {i} of {len(found)}: " if len(found) > 1 else ""
            raise HTTPException(answer.status, which + answer.content.decode())
    if found[0].media == PNG:
        return Response(found[0].content, media_type=PNG, headers=NOSNIFF)
    rows = b", ".join(answer.content for answer in found)
    return Response(b'{"model": "%s", "predictions": [%s]}' % (name.encode(), rows), media_type=JSON, headers=NOSNIFF)
