"""`internimage serve`: models behind HTTP, with a page to try them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from internimage.cli.terminal import (
    BackendOption,
    DeviceOption,
    PrecisionOption,
    choose_backend,
    choose_device,
    model_names,
    note,
)
from internimage.errors import MissingExtra

if TYPE_CHECKING:
    from internimage.serving import Served

NEEDED = {"fastapi": "fastapi", "uvicorn": "uvicorn", "prometheus_client": "prometheus-client"}
NEEDED["python_multipart"] = "python-multipart"
MIB = 1 << 20


def serve(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="Names of `internimage list`, files, folders of runs; NAME=MODEL chooses the name in addresses.",
            autocompletion=model_names,
            show_default=False,
        ),
    ],
    host: Annotated[str, typer.Option("--host", help="Address to listen on; 0.0.0.0: from everywhere.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65_535, help="Port; 0 for a free one.")] = 8000,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes that hold all models, each.")] = 1,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Images in one forward pass at most.")] = 8,
    max_delay: Annotated[
        float, typer.Option("--max-delay", min=0, help="Milliseconds in which a batch waits for more images.")
    ] = 5.0,
    max_body: Annotated[float, typer.Option("--max-body", min=0.01, help="MiB of a request at most.")] = 32.0,
    max_pixels: Annotated[
        float, typer.Option("--max-pixels", min=0.001, help="Megapixels of an image at most.")
    ] = 50.0,
    max_images: Annotated[int, typer.Option("--max-images", min=1, help="Images of a request at most.")] = 32,
    max_queue: Annotated[int, typer.Option("--max-queue", min=1, help="Images waiting for a model at most.")] = 256,
    max_requests: Annotated[int, typer.Option("--max-requests", min=1, help="Predictions in progress at most.")] = 256,
    max_memory: Annotated[
        float, typer.Option("--max-memory", min=1, help="MiB of all requests in progress together at most.")
    ] = 1024.0,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0.01, help="Seconds in which a request is answered.")
    ] = 60.0,
    body_timeout: Annotated[
        float, typer.Option("--body-timeout", min=0.01, help="Seconds in which a request has to arrive.")
    ] = 30.0,
    api_keys: Annotated[
        Path | None,
        typer.Option("--api-keys", help="File of keys, one a line; a client sends one of them.", show_default=False),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-origin",
            help="Web page that may use the server from a browser, such as https://example.com; may be repeated.",
            show_default=False,
        ),
    ] = None,
    page: Annotated[bool, typer.Option("--page/--no-page", help="Show a page to try the models.")] = True,
    device: DeviceOption = "auto",
    dtype: PrecisionOption = "float32",
    backend: BackendOption = "auto",
) -> None:
    """Serve models over HTTP, with dynamic batching, worker processes, metrics, and a page to try them.

    The address is written to stdout as soon as the server listens; the models load meanwhile, and `/readyz` says when
    they are there. SIGTERM and Ctrl-C end it after it has answered what it has accepted.
    """
    for module, package in NEEDED.items():
        if importlib.util.find_spec(module) is None:
            raise MissingExtra(package, "serve", "serving models")
    from internimage.serving import Batching, Limits, Serving, named_models
    from internimage.serving.access import read_keys
    from internimage.serving.run import serve as run

    served = named_models(models)
    _check_sources(served)
    if device not in ("auto", "cpu"):  # the server itself needs no torch: its workers choose
        choose_device(device)
    if backend != "auto":
        choose_backend(backend)
    limits = Limits(
        body_bytes=round(max_body * MIB),
        pixels=round(max_pixels * 1e6),
        images=max_images,
        queued_images=max_queue,
        requests=max_requests,
        held_bytes=round(max_memory * MIB),
        body_seconds=body_timeout,
        seconds=timeout,
    )
    serving = Serving(
        served,
        host=host,
        port=port,
        workers=workers,
        device=device,
        dtype=dtype,
        backend=backend,
        batching=Batching(batch_size, max_delay),
        limits=limits,
        api_keys=() if api_keys is None else read_keys(api_keys),
        origins=tuple(allow_origin or ()),
        has_page=page,
    )
    run(serving, on_listening=typer.echo, on_ready=lambda: note("ready: the models are loaded and warmed up"))


def _check_sources(models: tuple[Served, ...]) -> None:
    """Refuse a model that is not there before anything is started."""
    from internimage.checkpoints.catalog import find, not_there

    for model in models:
        if not Path(model.source).exists() and find(model.source) is None:
            raise not_there(model.source)
