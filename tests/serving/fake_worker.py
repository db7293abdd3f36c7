"""Speaks like a worker and does at once what an image says: "echo", "slow", "die", "stuck", "bad", "broken"."""

from __future__ import annotations

import json
import os
import sys
import time

from internimage.serving.frames import pack, read
from internimage.serving.worker import BATCH, FAILED, READY

SLOW_SECONDS = 0.3


def main() -> None:
    first = read(sys.stdin.buffer)
    assert first is not None
    job = first[0]
    if job["models"][0]["source"] == "missing":
        write({"kind": FAILED, "error": "the weights are not there"})
        return
    if job["models"][0]["source"] == "crash":
        os._exit(7)
    options = ["classes", "masks", "score_threshold", "top_k"]
    write({"kind": READY, "models": [{"name": model["name"], "options": options} for model in job["models"]]})
    while (frame := read(sys.stdin.buffer)) is not None:
        _, images = frame
        if b"die" in images:
            os._exit(9)
        if b"stuck" in images:
            time.sleep(3600)
        time.sleep(SLOW_SECONDS if b"slow" in images else 0)
        replies = [reply(image, len(images)) for image in images]
        texts = [json.dumps(content).encode() for _, content in replies]
        write(
            {
                "kind": BATCH,
                "seconds": 0.1,
                "replies": [{"status": s, "media": "application/json"} for s, _ in replies],
            },
            texts,
        )


def reply(image: bytes, number: int) -> tuple[int, object]:
    if image == b"bad":
        return 400, "no image"
    return 200, {"image": image.decode(), "batch": number, "worker": os.getpid()}


def write(header: dict[str, object], parts: list[bytes] | None = None) -> None:
    for piece in pack(header, parts or []):
        sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
