"""`internimage serve` under load beside the batched model alone: the same model, images, threads and batches.

100 clients on the loopback send JPEG photographs one after the other, each its own, and compare every answer with the
prediction of the model alone: none may be lost, and none may be that of another client. The memory of all processes is
read once a second. The model alone reads the same files and predicts in full batches, before and after. What the
server adds is the HTTP, which shares the cores with the clients here; how much of the time the worker had work
(`worker_busy`) says what it is without them.

Run: `python -m benchmarks.run --only serving`.
"""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch

from benchmarks import record
from benchmarks.loader import photographs
from benchmarks.record import print_table, save
from internimage import create, load, save_model
from internimage.serving.metrics import resident_bytes

CLIENTS, BATCH, SIZE_WH = 100, 8, (500, 375)
TOLERANCE = 1e-3  # of a probability: sums depend on the batch
SIZES = ("internimage_pico", "internimage_t")  # with random weights, at 224 pixels


def write_photos(folder: Path) -> list[Path]:
    """Write one photograph for each client, all of them different."""
    rng, photos = np.random.default_rng(0), photographs()
    paths: list[Path] = []
    for i in range(CLIENTS):
        photo = photos[i % len(photos)]
        left, top = rng.integers(0, photo.width // 3), rng.integers(0, photo.height // 3)
        cut = photo.crop((left, top, left + photo.width // 2, top + photo.height // 2)).resize(SIZE_WH)
        cut.save(path := folder / f"{i:03d}.jpg", quality=92)
        paths.append(path)
    return paths


def alone(model: Any, paths: Sequence[Path], seconds: float) -> float:
    """Return the images per second of the model in full batches, files read and results written as JSON."""
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        part = [paths[(count + i) % len(paths)] for i in range(BATCH)]
        for result in model.predict(part, batch_size=BATCH):
            result.to_dict()
        count += BATCH
    return count / (time.perf_counter() - start)


class Server:
    """A running server and the memory of its processes."""

    def __init__(self, file: Path) -> None:
        command = [sys.executable, "-m", "internimage", "serve", f"model={file}", "--port", "0", "--device", "cpu"]
        command += ["--batch-size", str(BATCH), "--no-page"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()
        self.memory: list[tuple[float, float, float]] = []  # (seconds, front, worker) in MiB
        while httpx.get(f"{self.address}/readyz").status_code != 200:
            time.sleep(0.2)
        self._is_watched = True
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        start = time.perf_counter()
        while self._is_watched:
            workers = [resident_bytes(int(number)) for number in children.read_text(encoding="ascii").split()]
            row = (time.perf_counter() - start, resident_bytes(self.process.pid) / 2**20, sum(workers) / 2**20)
            self.memory.append(row)
            time.sleep(1)

    def busy_seconds(self) -> float:
        """Return the time in which the worker had a batch."""
        text = httpx.get(f"{self.address}/metrics").text
        return float(text.split('internimage_batch_seconds_sum{model="model"} ')[1].split("\n")[0])

    def close(self) -> int:
        """End the server; return its exit code."""
        self._is_watched = False
        self.process.terminate()
        return self.process.wait(120)


async def clients(
    address: str, paths: Sequence[Path], expected: Sequence[torch.Tensor], seconds: float
) -> dict[str, Any]:
    """Let every client send its image until the time is over; return what came back."""
    bodies = [path.read_bytes() for path in paths]
    statuses: Counter[int] = Counter()
    latencies: list[float] = []
    mixed = 0
    end = time.perf_counter() + seconds

    async def one(client: httpx.AsyncClient, i: int) -> None:
        nonlocal mixed
        while time.perf_counter() < end:
            start = time.perf_counter()
            files = {"images": ("image", io.BytesIO(bodies[i]))}
            response = await client.post("/v1/models/model/predict", files=files, params={"top_k": 3})
            latencies.append(time.perf_counter() - start)
            statuses[response.status_code] += 1
            if response.status_code == 200:
                found = response.json()["predictions"][0]
                label, score = found["label"], found["score"]
                mixed += abs(float(expected[i][label]) - score) > TOLERANCE

    limits = httpx.Limits(max_connections=CLIENTS, max_keepalive_connections=CLIENTS)
    start = time.perf_counter()
    async with httpx.AsyncClient(base_url=address, limits=limits, timeout=300) as client:
        await asyncio.gather(*(one(client, i) for i in range(CLIENTS)))
    elapsed = time.perf_counter() - start
    p50, p99 = (float(np.percentile(latencies, q)) for q in (50, 99))
    return {
        "seconds": elapsed,
        "requests": sum(statuses.values()),
        "statuses": {str(status): count for status, count in statuses.items()},
        "mixed": mixed,
        "images_per_second": statuses[200] / elapsed,
        "p50_ms": 1000 * p50,
        "p99_ms": 1000 * p99,
    }


def run(device: str, *, seconds: float = 60.0, sizes: Sequence[str] = SIZES) -> None:
    """Measure, print and save; the device has no part in it."""
    rows: list[dict[str, Any]] = []
    curves: dict[str, list[tuple[float, float, float]]] = {}
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            torch.manual_seed(0)
            model = create("classifier", backbone=size, num_classes=1000)
            with torch.no_grad():
                model.head.classifier.weight.mul_(50)  # predictions that differ
            file, paths = save_model(model, Path(folder, "model.safetensors")), write_photos(Path(folder))
            model = load(file)
            expected = [result.scores for result in model.predict(paths, batch_size=BATCH)]
            before = alone(model, paths, seconds / 4)
            server = Server(file)
            found = asyncio.run(clients(server.address, paths, expected, seconds))
            busy = server.busy_seconds() / found["seconds"]
            code = server.close()
            after = alone(model, paths, seconds / 4)
        curves[size] = server.memory
        peaks = {"front_mib": max(row[1] for row in server.memory), "worker_mib": max(row[2] for row in server.memory)}
        share = found["images_per_second"] / ((before + after) / 2)
        both = {"alone_before": before, "alone_after": after, "over_alone": share, "worker_busy": busy}
        rows.append({"model": size, "clients": CLIENTS, "exit_code": code, **found, **both, **peaks})
    print_table("Serving, images per second", [{k: v for k, v in row.items() if k != "statuses"} for row in rows])
    load_now = os.getloadavg()[0]
    save(
        "serving", "cpu", rows, seconds=seconds, batch=BATCH, size_wh=SIZE_WH, load_average=load_now, memory_mib=curves
    )
    plot(curves)


def plot(curves: dict[str, list[tuple[float, float, float]]]) -> None:
    """Draw the memory of the front and of the worker over time."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(8, 4))
    for model, rows in curves.items():
        seconds, front, worker = zip(*rows, strict=True)
        axis.plot(seconds, worker, label=f"{model}: worker")
        axis.plot(seconds, front, "--", label=f"{model}: front")
    axis.set(
        xlabel="seconds",
        ylabel="resident memory, MiB",
        title=f"internimage serve under {CLIENTS} clients",
        ylim=(0, None),
    )
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path := record.RESULTS / "serving_cpu.png", dpi=130)
    plt.close(figure)
    print(f"wrote {path}")
