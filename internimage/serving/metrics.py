"""What Prometheus is told: requests, latency, queues, batches, workers, memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST as CONTENT_TYPE_LATEST

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
IMAGES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The metrics of one server; those of its own process come with them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "internimage_requests", "Predictions asked for.", ("model", "status"), registry=self.registry
        )
        self.latency = Histogram(
            "internimage_request_seconds",
            "From the first byte of a request to its response.",
            ("model",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.batch_images = Histogram(
            "internimage_batch_images", "Images in a batch.", ("model",), buckets=IMAGES, registry=self.registry
        )
        self.batch_seconds = Histogram(
            "internimage_batch_seconds",
            "Time of a worker for a batch: decode, predict, write.",
            ("model",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.queued = Gauge(
            "internimage_queued_images", "Images that wait for a worker.", ("model",), registry=self.registry
        )
        self.in_progress = Gauge(
            "internimage_requests_in_progress", "Predictions that are not answered yet.", registry=self.registry
        )
        self.ready = Gauge("internimage_workers_ready", "Workers that can predict.", registry=self.registry)
        self.restarts = Counter(
            "internimage_worker_restarts", "Workers that ended and were started anew.", registry=self.registry
        )
        self.memory = Gauge(
            "internimage_worker_resident_bytes", "Memory of a worker.", ("worker",), registry=self.registry
        )

    def watch_worker(self, index: int, process_id: Callable[[], int | None]) -> None:
        """Report the memory of a worker, whichever process it is at the moment."""
        self.memory.labels(index).set_function(lambda: resident_bytes(process_id()))

    def text(self) -> bytes:
        """Return everything in the form that Prometheus reads."""
        return generate_latest(self.registry)


def resident_bytes(process_id: int | None) -> float:
    """Return the resident memory of a process; NaN where there is none, or the system does not say."""
    try:
        lines = Path(f"/proc/{process_id}/status").read_text(encoding="ascii", errors="replace").splitlines()
        return int(next(line for line in lines if line.startswith("VmRSS:")).split()[1]) * 1024.0
    except (OSError, StopIteration):  # no Linux, or it has just ended
        return float("nan")
