"""A server on this machine that stands where downloads come from."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import huggingface_hub
import pytest

if TYPE_CHECKING:
    from typing_extensions import Self


class QuietHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class LocalServer(ThreadingHTTPServer):
    def __init__(self, handler: type[QuietHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server_port}"

    @contextmanager
    def as_hub(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Self]:
        """Answer instead of the Hugging Face Hub; who waits before another attempt does not wait."""
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr("time.sleep", lambda _: None)
        monkeypatch.setenv("HF_ENDPOINT", self.url)
        thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        with self:
            thread.start()
            yield self
            self.shutdown()
            thread.join()
