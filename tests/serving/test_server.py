"""A server as it runs: bundled models, real sockets, real images, hostile ones, a killed worker, an end with grace."""

from __future__ import annotations

import base64
import io
import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

import internimage as ii
from internimage.checkpoints.catalog import BUNDLED
from internimage.visualize import draw
from tests.serving.conftest import CLASSIFIER, DETECTOR, SEGMENTOR, Server, serving
from tests.threads import one_thread as one_thread

SCENE = BUNDLED / "pictures" / "closet_scene.jpg"
GARMENTS = sorted((BUNDLED / "pictures").glob("fashion_*.png"))


def png(pixels: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, options.pop("form", "PNG"), **options)
    return buffer.getvalue()


def close_to(found: Any, expected: Any) -> bool:
    """Whether JSON values are equal but for the last bits of sums, which depend on the batch."""
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(close_to(found[key], expected[key]) for key in expected)
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(close_to, found, expected))
    return found == pytest.approx(expected, abs=0.011) if isinstance(expected, float) else found == expected


# ---------------------------------------------------------------- the same as `predict`


def test_classes_are_those_of_predict(server: Server) -> None:
    expected = [result.to_dict(3) for result in ii.load(CLASSIFIER).predict(GARMENTS)]
    rows = server.rows(CLASSIFIER, *GARMENTS, top_k=3)
    assert all(row.pop("original_hw") == [28, 28] for row in rows)
    assert close_to(rows, expected)


def test_objects_are_those_of_predict(server: Server) -> None:
    [result] = ii.load(DETECTOR).predict([SCENE])
    [row] = server.rows("closet", SCENE)
    assert close_to(row, result.to_dict())
    [row] = server.rows("closet", SCENE, score_threshold=0.5, classes="Coat", masks=True)
    assert close_to(row, result.filter(score_threshold=0.5, classes=["Coat"]).to_dict(masks=True))
    assert row["objects"]


def test_label_maps_are_those_of_predict(server: Server) -> None:
    [result] = ii.load(SEGMENTOR).predict([SCENE])
    [row] = server.rows(SEGMENTOR, SCENE, masks=True, top_k=100)
    label_map = row.pop("label_map")
    assert row == {"original_hw": [384, 384], **result.to_dict()}
    labels = np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(label_map["png"]))))
    assert np.array_equal(labels, result.label_map.numpy())
    assert set(label_map["colors"]) == {str(i) for i in np.unique(labels)}


def test_drawings_are_those_of_draw(server: Server) -> None:
    [result] = ii.load(DETECTOR).predict([SCENE])
    response = server.predict("closet", SCENE, format="png", score_threshold=0.6)
    assert response.headers["content-type"] == "image/png"
    drawn = np.asarray(PIL.Image.open(io.BytesIO(response.content)))
    assert np.array_equal(drawn, np.asarray(draw(result, SCENE, score_threshold=0.6)))


def test_models_say_what_they_are(server: Server) -> None:
    listed = {model["name"]: model for model in server.client.get("/v1/models").json()["models"]}
    assert list(listed) == [CLASSIFIER, "closet", SEGMENTOR]
    assert listed["closet"]["task"] == "detection" and listed["closet"]["source"] == DETECTOR
    assert listed[CLASSIFIER]["options"] == ["top_k"] and "masks" in listed[SEGMENTOR]["options"]
    assert "class_names" not in listed["closet"]
    assert server.client.get("/v1/models/closet").json()["class_names"] == list(ii.load(DETECTOR).config.class_names)
    refused = server.predict(CLASSIFIER, GARMENTS[0], score_threshold=0.5)
    assert refused.status_code == 400 and "takes no score_threshold" in refused.json()["detail"]
    assert server.predict("closet", SCENE, classes="Dragon").status_code == 400


def test_many_clients_at_once_get_their_own_predictions(server: Server) -> None:
    expected = {
        path: result.label for path, result in zip(GARMENTS, ii.load(CLASSIFIER).predict(GARMENTS), strict=True)
    }

    def one(i: int) -> bool:
        path = GARMENTS[i % len(GARMENTS)]
        return server.rows(CLASSIFIER, path)[0]["label"] == expected[path]

    with ThreadPoolExecutor(24) as pool:
        assert all(pool.map(one, range(120)))
    text = server.client.get("/metrics").text
    count = float(text.split(f'internimage_batch_images_count{{model="{CLASSIFIER}"}} ')[1].split("\n")[0])
    images = float(text.split(f'internimage_batch_images_sum{{model="{CLASSIFIER}"}} ')[1].split("\n")[0])
    assert images > 1.5 * count  # they shared batches


# ---------------------------------------------------------------- hostile images and bodies


RNG = np.random.default_rng(0)
NOISE = png(RNG.integers(0, 256, (40, 60, 3), dtype=np.uint8))
HOSTILE = {
    "text": (b"no image at all", 415, "no image of a known format"),
    "script": (b"#!/bin/sh\nreboot", 415, "no image of a known format"),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', 415, "no image of a known format"),
    "cut": (NOISE[: len(NOISE) // 2], 400, "damaged or not complete"),
    "header alone": (NOISE[:20], 400, "header is damaged"),
    "too many pixels": (png(np.zeros((2001, 2000), np.uint8)), 400, "more pixels"),
    "numpy": (b"\x93NUMPY\x01\x00" + b"x" * 100, 415, "no image of a known format"),
    "pickle": (b"\x80\x04\x95cos\nsystem\n", 415, "no image of a known format"),
    "cut tiff": (b"II*\0" + b"\xff" * 60, 400, "image"),
    "path": (b"/etc/passwd", 415, "no image of a known format"),
    "url": (b"http://127.0.0.1/x.png", 415, "no image of a known format"),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("model", [CLASSIFIER, "closet", SEGMENTOR])
def test_broken_images_are_refused_with_a_reason(server: Server, model: str, name: str) -> None:
    content, status, words = HOSTILE[name]
    response = server.predict(model, content)
    assert response.status_code in (400, 415) if name == "cut tiff" else response.status_code == status, response.text
    assert words in response.json()["detail"] and "/work" not in response.text
    alone = server.predict(model, SCENE, content)
    assert alone.json()["detail"].startswith("image 2 of 2: ")


ODD = {
    "one pixel": png(np.full((1, 1, 3), 200, np.uint8)),
    "tall": png(np.zeros((4000, 1, 3), np.uint8)),
    "wide": png(np.zeros((1, 4000, 3), np.uint8)),
    "16 bits": png(RNG.integers(0, 65536, (30, 30), dtype=np.uint16)),
    "transparent": png(RNG.integers(0, 256, (30, 20, 4), dtype=np.uint8)),
    "gif": png(RNG.integers(0, 256, (30, 20), dtype=np.uint8), form="GIF"),
    "tiff": png(RNG.integers(0, 256, (30, 20, 3), dtype=np.uint8), form="TIFF"),
    "cmyk": (lambda buffer: (PIL.Image.new("CMYK", (30, 20)).save(buffer, "JPEG"), buffer.getvalue())[1])(io.BytesIO()),
}


@pytest.mark.parametrize("model", [CLASSIFIER, "closet", SEGMENTOR])
def test_odd_images_of_all_kinds_and_sizes_have_predictions(server: Server, model: str) -> None:
    rows = server.rows(model, *ODD.values())
    expected = [PIL.Image.open(io.BytesIO(content)).size[::-1] for content in ODD.values()]
    assert [tuple(row["original_hw"]) for row in rows] == expected
    assert server.predict(model, ODD["tall"], format="png").status_code == 200


def test_slow_half_sent_and_oversized_bodies_hold_up_nobody(server: Server) -> None:
    head = f"POST /v1/models/{CLASSIFIER}/predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    starts = [b"", b"GET", b"GET / HTTP/1.1\r\nHost:", f"{head}Content-Length: 1000\r\n\r\n{{".encode()]
    starts.append(f"{head}Transfer-Encoding: chunked\r\n\r\n5\r\nab".encode())
    connections = [socket.create_connection(server.at) for _ in range(20) for _ in starts]
    try:
        for connection, start in zip(connections, starts * 20, strict=True):
            connection.sendall(start)
        started = time.perf_counter()
        assert server.rows(CLASSIFIER, GARMENTS[0])
        assert time.perf_counter() - started < 10
        assert server.predict(CLASSIFIER, b"x" * (3 << 20)).status_code == 413
        nonsense = socket.create_connection(server.at)
        nonsense.sendall(b"\x16\x03\x01 nonsense\r\n\r\n")
        assert nonsense.recv(100).startswith(b"HTTP/1.1 400")
        nonsense.close()
    finally:
        for connection in connections:
            connection.close()
    assert server.rows(CLASSIFIER, GARMENTS[0])


def test_clients_that_leave_do_not_matter(server: Server) -> None:
    body = b'{"images": ["%s"]}' % base64.b64encode(SCENE.read_bytes())
    head = "POST /v1/models/closet/predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    for _ in range(12):
        with socket.create_connection(server.at) as connection:
            connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    assert server.rows(CLASSIFIER, GARMENTS[0])
    assert server.rows("closet", SCENE)


# ---------------------------------------------------------------- the end of a worker, the end of the server


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="processes are looked up in Linux' /proc")
def test_a_killed_worker_loses_its_requests_alone_and_the_server_ends_with_grace() -> None:
    with serving(CLASSIFIER, DETECTOR, "--batch-size", "2", "--timeout", "500") as server:
        [worker] = server.workers()
        with ThreadPoolExecutor(12) as pool:
            running = [pool.submit(server.predict, DETECTOR, SCENE) for _ in range(12)]
            time.sleep(0.5)
            os.kill(worker, signal.SIGKILL)
            statuses = [request.result().status_code for request in running]
        assert 1 <= statuses.count(503) <= 4  # two batches
        assert statuses.count(200) == 12 - statuses.count(503)
        assert server.workers() not in ([], [worker])
        assert server.rows(CLASSIFIER, GARMENTS[0])

        with ThreadPoolExecutor(8) as pool:
            running = [pool.submit(server.predict, DETECTOR, SCENE) for _ in range(8)]
            time.sleep(0.5)
            [worker] = server.workers()
            for number in (worker, server.process.pid):  # as a service manager does
                os.kill(number, signal.SIGTERM)
            assert [request.result().status_code for request in running] == [200] * 8
        assert server.process.wait(30) == 0
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="processes are looked up in Linux' /proc")
def test_workers_end_with_a_server_that_is_killed() -> None:
    with serving(CLASSIFIER) as server:
        [worker] = server.workers()
        server.process.kill()
        for _ in range(100):
            if not Path(f"/proc/{worker}").exists() or "Z" in Path(f"/proc/{worker}/stat").read_text().split()[2]:
                return
            time.sleep(0.1)
        raise AssertionError("the worker is still there")
