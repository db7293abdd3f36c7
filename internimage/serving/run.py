"""Runs the server until it is told to stop; then it answers what it has accepted."""

from __future__ import annotations

import asyncio
import logging
import math
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from internimage.serving.app import create_app
from internimage.serving.pool import Pool
from internimage.serving.settings import Serving

logger = logging.getLogger(__name__)

HEADER_SECONDS = 10.0  # for the lines before the body of a request
MAX_CONNECTIONS = 4096
BACKLOG = 2048


class TimedProtocol(H11Protocol):
    """HTTP/1.1 that closes connections which begin a request and do not get on with it."""

    _alarm: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in the parent
        """Give the first request some time to begin."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Watch as long as the lines before a body are not complete."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Watch no longer."""
        self._stop_watching()
        super().connection_lost(exc)

    def _watch(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_watching()
        elif self._alarm is None:
            self._alarm = self.loop.call_later(HEADER_SECONDS, self.transport.close)

    def _stop_watching(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = None


def serve(
    serving: Serving,
    *,
    on_listening: Callable[[str], None] = lambda address: None,
    on_ready: Callable[[], None] = lambda: None,
) -> None:
    """Serve models until SIGINT or SIGTERM; what has been accepted by then is answered.

    Args:
        serving: models, address and limits.
        on_listening: is told the address when connections are accepted; the models may still load.
        on_ready: is called when a worker can predict.

    Raises:
        OSError: the address cannot be listened on.
        ValueError: a model cannot be loaded.
    """
    with _listening(serving.host, serving.port) as listener, _signals_end_quietly():
        asyncio.run(_serve(serving, listener, on_listening, on_ready))


async def _serve(
    serving: Serving, listener: socket.socket, on_listening: Callable[[str], None], on_ready: Callable[[], None]
) -> None:
    app = create_app(serving)
    server = uvicorn.Server(_config(app, serving))
    running = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started and not running.done():
        await asyncio.sleep(0.01)
    if running.done():
        return await running
    host, port = listener.getsockname()[:2]
    on_listening(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
    pool: Pool = app.state.pool
    ready = asyncio.create_task(pool.first_ready.wait())
    await asyncio.wait((running, ready, pool.failure), return_when=asyncio.FIRST_COMPLETED)
    if ready.done():
        on_ready()
    ready.cancel()
    if pool.failure.done():
        server.should_exit = True
    await running
    if pool.failure.done():
        raise ValueError(pool.failure.result())


def _config(app: FastAPI, serving: Serving) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=TimedProtocol,
        ws="none",
        lifespan="on",
        loop="asyncio",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=math.ceil(serving.limits.body_seconds + serving.limits.seconds),
    )


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(f"cannot listen on {host}, port {port}: {reason}; choose another --port or --host") from error
    with listener:
        yield listener


@contextmanager
def _signals_end_quietly() -> Iterator[None]:
    """Have a signal that ended the server count as its end: uvicorn raises it once more when everything is done."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda *_: None) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
