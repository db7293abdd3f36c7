"""One worker as the front sees it: a child process, the batches that it has, and what becomes of them."""

from __future__ import annotations

import asyncio
import logging
import sys
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from internimage.serving.frames import Header, pack, read_async
from internimage.serving.worker import BATCH, FAILED, READY

logger = logging.getLogger(__name__)

COMMAND = (sys.executable, "-m", "internimage.serving.worker")
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0  # before a worker that could not start is tried again
CLOSING_S = 5.0  # for a worker without work to end by itself


@dataclass(frozen=True)
class Answered:
    """What a worker has made of one image, see `predicting.Reply`."""

    status: int
    media: str
    content: bytes


class WorkerLost(RuntimeError):
    """The worker that had an image has ended."""


@dataclass(eq=False)
class Waiting:
    """One image on its way.

    Args:
        model: name of the model.
        content: the file.
        asked: options for the worker.
        since: when it was accepted, by the clock of the event loop.
        answer: what becomes of it.
    """

    model: str
    content: bytes
    asked: Mapping[str, Any]
    since: float
    answer: asyncio.Future[Answered]


@dataclass
class Events:
    """What a worker tells its pool.

    Args:
        ready: it has loaded everything; what it says of its models.
        free: it can take a batch.
        failed: it cannot load its models; why.
        lost: it has ended.
        done: a batch is answered: its model, its seconds.
    """

    ready: Callable[[list[Header]], None]
    free: Callable[[], None]
    failed: Callable[[str], None]
    lost: Callable[[], None]
    done: Callable[[str, float], None]


@dataclass(eq=False)
class WorkerProcess:
    """Keeps one worker alive.

    Args:
        job: the first message to it.
        events: whom it tells what.
        seconds: time for a batch; a worker that needs longer is killed.
    """

    job: Mapping[str, Any]
    events: Events
    seconds: float
    is_ready: bool = False
    batches: deque[Sequence[Waiting]] = field(default_factory=deque)
    _process: Process | None = None
    _alarm: asyncio.TimerHandle | None = None
    _is_closing: bool = False

    @property
    def process_id(self) -> int | None:
        """Number of the process, None while there is none."""
        return None if self._process is None else self._process.pid

    async def keep(self) -> None:
        """Start the worker, and start it anew whenever it ends, until it is closed."""
        pause = FIRST_PAUSE_S
        while not self._is_closing:
            self._process = await asyncio.create_subprocess_exec(*COMMAND, stdin=PIPE, stdout=PIPE)
            was_ready = await self._listen(self._process)
            self._lose()
            code = await self._process.wait()
            if self._is_closing:
                return
            self.events.lost()
            if was_ready:
                logger.warning("a worker has ended (exit code %d); it is started anew", code)
                pause = FIRST_PAUSE_S
                continue
            self.events.failed(f"a worker ended while it loaded its models (exit code {code})")
            logger.warning("a worker could not start (exit code %d); tried again in %g s", code, pause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def take(self, batch: Sequence[Waiting]) -> None:
        """Send a batch of images for one model; the worker answers its batches in the order that they came."""
        assert self._process is not None and self._process.stdin is not None
        header = {"model": batch[0].model, "asked": [dict(image.asked) for image in batch]}
        self._process.stdin.writelines(pack(header, [image.content for image in batch]))
        self.batches.append(batch)
        if len(self.batches) == 1:
            self._set_alarm()

    async def close(self) -> None:
        """End the worker, whose batches are done."""
        self._is_closing = True
        process = self._process
        if process is None or process.returncode is not None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), CLOSING_S if self.is_ready else 0)
        except asyncio.TimeoutError:  # it is loading, or stuck
            self._kill()
            await process.wait()

    async def _listen(self, process: Process) -> bool:
        """Send the job, then take answers until the process ends; return whether it was ever ready."""
        assert process.stdin is not None and process.stdout is not None
        process.stdin.writelines(pack(self.job))
        was_ready = False
        while (frame := await read_async(process.stdout)) is not None:
            header, contents = frame
            if header["kind"] == READY:
                was_ready = self.is_ready = True
                self.events.ready(header["models"])
            elif header["kind"] == FAILED:
                self.events.failed(header["error"])
            else:
                assert header["kind"] == BATCH
                self._answer(header, contents)
        return was_ready

    def _answer(self, header: Header, contents: Sequence[bytes]) -> None:
        batch = self.batches.popleft()
        for image, reply, content in zip(batch, header["replies"], contents, strict=True):
            if not image.answer.done():
                image.answer.set_result(Answered(reply["status"], reply["media"], content))
        self._set_alarm()
        self.events.done(batch[0].model, header["seconds"])
        self.events.free()

    def _lose(self) -> None:
        """Fail everything that the worker had."""
        self.is_ready = False
        while self.batches:
            for image in self.batches.popleft():
                if not image.answer.done():
                    image.answer.set_exception(WorkerLost())
        self._set_alarm()

    def _set_alarm(self) -> None:
        """Watch over the batch that the worker has begun, if any."""
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = None
        if self.batches:
            self._alarm = asyncio.get_running_loop().call_later(self.seconds, self._kill_stuck)

    def _kill_stuck(self) -> None:
        logger.warning("a worker needs more than %g s for a batch of %d images", self.seconds, len(self.batches[0]))
        self._kill()

    def _kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
