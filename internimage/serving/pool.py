"""Queues in front of workers: images of several requests come into one batch, and every one is answered once."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from internimage.processors import usable_processors
from internimage.serving.frames import Header
from internimage.serving.metrics import Metrics
from internimage.serving.process import Answered, Events, Waiting, WorkerProcess
from internimage.serving.settings import Serving

# A worker has the next full batch at hand when it has finished one, so that it never waits for the front.
BATCHES_AHEAD = 2
USUAL_SECONDS = 0.1  # of a batch, before there was one


class QueueFull(RuntimeError):
    """More images wait than are allowed.

    Args:
        retry_s: seconds after which there should be room.
    """

    def __init__(self, retry_s: int) -> None:
        super().__init__(f"too many images are waiting; try again in {retry_s} s")
        self.retry_s = retry_s


class Pool:
    """The workers and what waits for them. All methods belong to the thread of the event loop.

    Args:
        serving: what is served.
        metrics: what is counted.
    """

    def __init__(self, serving: Serving, metrics: Metrics) -> None:
        self.serving, self.metrics = serving, metrics
        self.queues: dict[str, deque[Waiting]] = {model.name: deque() for model in serving.models}
        self.infos: dict[str, Header] = {}
        self.failure: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.first_ready = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._seconds_of_batch = USUAL_SECONDS
        events = Events(self._on_ready, self._dispatch, self._on_failed, self._on_lost, self._on_done)
        self.workers = [WorkerProcess(_job(serving), events, serving.limits.seconds) for _ in range(serving.workers)]
        for index, worker in enumerate(self.workers):
            metrics.watch_worker(index, lambda worker=worker: worker.process_id)
        for name, queue in self.queues.items():
            metrics.queued.labels(name).set_function(lambda queue=queue: len(queue))
        metrics.ready.set_function(lambda: sum(worker.is_ready for worker in self.workers))
        self._keepers: list[asyncio.Task[None]] = []

    @property
    def is_ready(self) -> bool:
        """Whether a worker can predict."""
        return any(worker.is_ready for worker in self.workers)

    def start(self) -> None:
        """Start the workers, which load in the background."""
        self._keepers = [asyncio.create_task(worker.keep()) for worker in self.workers]

    async def close(self) -> None:
        """End the workers; what they have not answered fails."""
        await asyncio.gather(*(worker.close() for worker in self.workers))
        for keeper in self._keepers:
            keeper.cancel()  # one may wait before it tries again
        await asyncio.gather(*self._keepers, return_exceptions=True)

    def submit(self, model: str, contents: Sequence[bytes], asked: Mapping[str, Any]) -> list[asyncio.Future[Answered]]:
        """Queue images; their futures give what the worker answers, or raise `WorkerLost`.

        Raises:
            QueueFull: all of them together are too many.
        """
        queue, loop = self.queues[model], asyncio.get_running_loop()
        if len(queue) + len(contents) > self.serving.limits.queued_images:
            self._drop_forgotten(queue)
        if len(queue) + len(contents) > self.serving.limits.queued_images:
            raise QueueFull(self._retry_s(len(queue)))
        images = [Waiting(model, content, asked, loop.time(), loop.create_future()) for content in contents]
        queue.extend(images)
        self._dispatch()
        return [image.answer for image in images]

    def _retry_s(self, queued: int) -> int:
        batches = queued / self.serving.batching.images / len(self.workers)
        return min(60, max(1, math.ceil(batches * self._seconds_of_batch)))

    def _drop_forgotten(self, queue: deque[Waiting]) -> None:
        """Leave out what nobody waits for any more."""
        kept = [image for image in queue if not image.answer.done()]
        queue.clear()
        queue.extend(kept)

    def _dispatch(self) -> None:
        """Give out batches, to the worker with the least work; come back when an image has waited long enough."""
        ready = [worker for worker in self.workers if worker.is_ready]
        while ready and (batch := self._batch_for(worker := min(ready, key=lambda worker: len(worker.batches)))):
            worker.take(batch)
            self.metrics.batch_images.labels(batch[0].model).observe(len(batch))
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        oldest = min((queue[0].since for queue in self.queues.values() if queue), default=None)
        if oldest is not None and any(not worker.batches for worker in ready):
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(max(loop.time(), oldest + self._delay_s), self._dispatch)

    @property
    def _delay_s(self) -> float:
        return self.serving.batching.delay_ms / 1000

    def _batch_for(self, worker: WorkerProcess) -> list[Waiting]:
        """Take the next batch out of the queue whose first image is the oldest; nothing if it is not time yet.

        One that has a batch takes full ones only: others are better off waiting for more.
        """
        size, now = self.serving.batching.images, asyncio.get_running_loop().time()
        if len(worker.batches) >= BATCHES_AHEAD:
            return []
        for queue in sorted(self.queues.values(), key=lambda queue: queue[0].since if queue else math.inf):
            while queue and queue[0].answer.done():  # whoever asked has gone
                queue.popleft()
            is_due = bool(queue) and not worker.batches and now >= queue[0].since + self._delay_s
            if is_due or len(queue) >= size:
                batch: list[Waiting] = []
                while queue and len(batch) < size:
                    image = queue.popleft()
                    if not image.answer.done():
                        batch.append(image)
                return batch
        return []

    def _on_ready(self, infos: list[Header]) -> None:
        self.infos = {info["name"]: info for info in infos}
        self.first_ready.set()
        self._dispatch()

    def _on_failed(self, reason: str) -> None:
        if not self.first_ready.is_set() and not self.failure.done():
            self.failure.set_result(reason)

    def _on_lost(self) -> None:
        self.metrics.restarts.inc()

    def _on_done(self, model: str, seconds: float) -> None:
        self.metrics.batch_seconds.labels(model).observe(seconds)
        self._seconds_of_batch += 0.1 * (seconds - self._seconds_of_batch)


def _job(serving: Serving) -> dict[str, Any]:
    """Return the first message to a worker."""
    return {
        "models": [{"name": model.name, "source": model.source} for model in serving.models],
        "device": serving.device,
        "dtype": serving.dtype,
        "backend": serving.backend,
        "batch": serving.batching.images,
        "pixels": serving.limits.pixels,
        "threads": max(1, usable_processors() // serving.workers),
    }
