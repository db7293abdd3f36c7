"""A running server for the tests of this folder."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

CLASSIFIER = "internimage_pico_fashion"
DETECTOR = "mask_rcnn_internimage_pico_closet"
SEGMENTOR = "upernet_internimage_pico_closet"


class Server:
    """A running `internimage serve`."""

    def __init__(self, process: subprocess.Popen[str], address: str) -> None:
        self.process, self.address = process, address
        self.client = httpx.Client(base_url=address, timeout=600)

    @property
    def at(self) -> tuple[str, int]:
        url = httpx.URL(self.address)
        assert url.port is not None
        return url.host, url.port

    def predict(self, model: str, *images: Path | bytes, **options: Any) -> httpx.Response:
        contents = [image.read_bytes() if isinstance(image, Path) else image for image in images]
        files = [("images", ("image", content)) for content in contents]
        return self.client.post(f"/v1/models/{model}/predict", files=files, params=options)

    def rows(self, model: str, *images: Path | bytes, **options: Any) -> list[dict[str, Any]]:
        response = self.predict(model, *images, **options)
        assert response.status_code == 200, response.text
        return response.json()["predictions"]

    def wait_until_ready(self) -> None:
        for _ in range(1500):  # 5 minutes and more: the machine may be busy
            assert self.process.poll() is None
            if self.client.get("/readyz").status_code == 200:
                return
            time.sleep(0.2)
        raise AssertionError("the server is not ready")

    def workers(self) -> list[int]:
        """Return the numbers of its worker processes."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text(encoding="ascii")
        return [int(number) for number in children.split()]


@contextmanager
def serving(*arguments: str) -> Iterator[Server]:
    command = [sys.executable, "-m", "internimage", "serve", *arguments, "--port", "0", "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            server = Server(process, process.stdout.readline().strip())
            with server.client:
                server.wait_until_ready()
                yield server
        finally:
            process.kill()


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A server with the bundled models; the detector is called \"closet\"."""
    with serving(CLASSIFIER, f"closet={DETECTOR}", SEGMENTOR, "--max-pixels", "4", "--max-body", "2") as server:
        yield server
