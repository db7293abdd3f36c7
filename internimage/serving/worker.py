"""A worker process: holds the models, reads batches from its standard input, writes what it predicts to its output.

It ends when its input does, whatever becomes of the front. Signals of a terminal or a service manager are for the
front, which lets the workers finish what it has accepted.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Mapping
from typing import Any, BinaryIO

from internimage.errors import BackendUnavailable, MissingExtra, printable
from internimage.processors import let_threads_sleep
from internimage.serving.frames import pack, read

logger = logging.getLogger(__name__)

READY, FAILED, BATCH = "ready", "failed", "batch"
# What an operator can mend: a file that is not there, damaged weights, a device that this machine lacks.
MENDABLE = (ValueError, OSError, ArithmeticError, MemoryError, BackendUnavailable, MissingExtra)


def main() -> None:
    """Serve batches until the input ends."""
    for name in ("SIGINT", "SIGTERM"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    logging.basicConfig(format="%(levelname)s: %(message)s")
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not come between the frames
    first = read(sys.stdin.buffer)
    if first is None:
        return
    let_threads_sleep()
    try:
        serve(first[0], sys.stdin.buffer, output)
    except BrokenPipeError:
        logger.warning("the server has gone; its worker ends")


def serve(job: Mapping[str, Any], source: BinaryIO, output: BinaryIO) -> None:
    """Load the models of a job, then answer batches; what cannot be loaded is said in place of "ready"."""
    from internimage.serving.predicting import Predictor  # imports torch, after threads were told to sleep

    try:
        predictors = {model["name"]: Predictor(model["source"], job) for model in job["models"]}
        infos = [{"name": name, **predictor.warm_up()} for name, predictor in predictors.items()]
    except MENDABLE as error:
        _write(output, pack({"kind": FAILED, "error": printable(str(error) or type(error).__name__, 2000, keep="\n")}))
        return
    _write(output, pack({"kind": READY, "models": infos}))
    while (frame := read(source)) is not None:
        header, contents = frame
        started = time.perf_counter()
        replies = predictors[header["model"]].predict(contents, header["asked"])
        answer = {
            "kind": BATCH,
            "seconds": time.perf_counter() - started,
            "replies": [{"status": reply.status, "media": reply.media} for reply in replies],
        }
        _write(output, pack(answer, [reply.content for reply in replies]))


def _write(output: BinaryIO, pieces: list[bytes]) -> None:
    for piece in pieces:
        output.write(piece)
    output.flush()


if __name__ == "__main__":
    main()
