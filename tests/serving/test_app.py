"""The routes and the pool, with workers that only pretend: limits, batches, refusals, lost workers."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from internimage.serving import Batching, Limits, Served, Serving, process
from internimage.serving.access import read_keys
from internimage.serving.app import create_app
from internimage.serving.pages import FILES

Client = httpx.AsyncClient
SERVING = Serving((Served("pets", "x"), Served("cars", "x")), batching=Batching(4, 20), limits=Limits(seconds=5))
PREDICT = "/v1/models/pets/predict"


@pytest.fixture(autouse=True)
def _pretend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "COMMAND", (sys.executable, str(Path(__file__).with_name("fake_worker.py"))))
    monkeypatch.setattr(process, "FIRST_PAUSE_S", 0.05)


@asynccontextmanager
async def client_of(serving: Serving) -> AsyncIterator[Client]:
    app = create_app(serving)
    async with app.router.lifespan_context(app):
        await asyncio.wait_for(app.state.pool.first_ready.wait(), 30)
        transport = httpx.ASGITransport(app, raise_app_exceptions=True)
        async with Client(transport=transport, base_url="http://server", timeout=60) as client:
            yield client


def run(scenario: Callable[[Client], Awaitable[None]], **changes: Any) -> None:
    async def whole() -> None:
        async with client_of(replace(SERVING, **changes)) as client:
            await scenario(client)

    asyncio.run(whole())


async def send(client: Client, *images: bytes, to: str = PREDICT, **options: Any) -> httpx.Response:
    return await client.post(to, files=[("images", ("name", image)) for image in images], params=options)


def said(response: httpx.Response) -> list[Any]:
    assert response.status_code == 200, response.text
    return response.json()["predictions"]


# ---------------------------------------------------------------- what comes back


def test_files_and_base64_give_the_predictions_in_order() -> None:
    async def scenario(client: Client) -> None:
        sent = [f"echo {i}".encode() for i in range(6)]
        response = await send(client, *sent)
        assert [row["image"] for row in said(response)] == [f"echo {i}" for i in range(6)]
        assert response.json()["model"] == "pets"
        body = {"images": [base64.b64encode(image).decode() for image in sent]}
        assert [row["image"] for row in said(await client.post(PREDICT, json=body))] == [f"echo {i}" for i in range(6)]

    run(scenario)


def test_every_client_gets_its_own_answer() -> None:
    async def scenario(client: Client) -> None:
        async def one(i: int) -> None:
            [row] = said(await send(client, f"{i}".encode(), to=f"/v1/models/{('pets', 'cars')[i % 2]}/predict"))
            assert row["image"] == f"{i}"

        await asyncio.gather(*map(one, range(200)))

    run(scenario, workers=3)


def test_images_of_several_requests_share_a_batch() -> None:
    async def scenario(client: Client) -> None:
        responses = await asyncio.gather(*(send(client, f"{i}".encode()) for i in range(8)))
        assert {said(response)[0]["batch"] for response in responses} == {4}
        assert said(await send(client, b"alone"))[0]["batch"] == 1
        text = (await client.get("/metrics")).text
        assert 'internimage_batch_images_bucket{le="4.0",model="pets"} 3.0' in text
        assert 'internimage_requests_total{model="pets",status="200"} 9.0' in text
        assert 'internimage_queued_images{model="pets"} 0.0' in text
        assert "internimage_workers_ready 1.0" in text and "internimage_requests_in_progress 0.0" in text
        assert 'internimage_worker_resident_bytes{worker="0"}' in text

    run(scenario)


def test_one_broken_image_is_named_and_does_not_touch_other_requests() -> None:
    async def scenario(client: Client) -> None:
        bad, good = await asyncio.gather(send(client, b"fine", b"bad"), send(client, b"echo"))
        assert bad.status_code == 400 and bad.json()["detail"] == 'image 2 of 2: "no image"'
        assert said(good)[0]["batch"] == 3

    run(scenario)


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (dict(content=b"x", headers={"content-type": "image/png"}), 415, "unknown content type 'image/png'"),
        (dict(content=b"x"), 415, "unknown content type ''"),
        (dict(content=b"{", headers={"content-type": "application/json"}), 400, "no JSON"),
        (dict(content=b"[" * 4000, headers={"content-type": "application/json"}), 400, "no JSON"),
        (dict(json=["x"]), 400, "another form"),
        (dict(json={"images": "x"}), 400, "another form"),
        (dict(json={"images": [], "url": "http://x"}), 400, "another form"),
        (dict(json={"images": []}), 400, "given 0"),
        (dict(json={"images": [""]}), 400, "image 1 of 1 is empty"),
        (dict(json={"images": ["http://x/a.png"]}), 400, "addresses and paths are not read"),
        (dict(json={"images": ["/etc/passwd"]}), 400, "addresses and paths are not read"),
        (dict(json={"images": ["QQ=="] * 9}), 400, "expected 1 to 8 images"),
        (dict(files=[("images", ("a", b"x"))] * 9), 400, "at most 8"),
        (dict(data={"images": "/etc/passwd"}, files={"a": b"x"}), 400, "Too many fields"),
        (dict(files={"a": b""}), 400, "image 1 of 1 is empty"),
        (dict(content=b"x", headers={"content-type": "multipart/form-data"}), 400, "boundary"),
        (dict(content=b"--b\r\n", headers={"content-type": "multipart/form-data; boundary=b"}), 400, "given 0"),
        (dict(content=b"nonsense", headers={"content-type": "multipart/form-data; boundary=b"}), 400, "nvalid"),
        (dict(files={"a": b"x" * 5000}), 413, "more than 4096 bytes"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_bodies_without_images_are_refused(body: dict[str, Any], status: int, words: str) -> None:
    async def scenario(client: Client) -> None:
        response = await client.post(PREDICT, **body)
        assert response.status_code == status and words in response.json()["detail"], response.text
        assert said(await send(client, b"echo"))

    run(scenario, limits=Limits(body_bytes=4096, images=8))


def test_bodies_that_do_not_say_how_long_they_are_have_the_same_limit() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 1000

    async def scenario(client: Client) -> None:
        headers = {"content-type": "application/json"}
        assert (await client.post(PREDICT, content=endless(), headers=headers)).status_code == 413

    run(scenario, limits=Limits(body_bytes=4096))


def test_slow_bodies_are_given_up_and_hold_up_nobody() -> None:
    async def slow() -> AsyncIterator[bytes]:
        while True:
            await asyncio.sleep(0.05)
            yield b" "

    async def scenario(client: Client) -> None:
        headers = {"content-type": "application/json"}
        late = [asyncio.create_task(client.post(PREDICT, content=slow(), headers=headers)) for _ in range(5)]
        await asyncio.sleep(0.1)
        assert said(await send(client, b"echo"))
        assert not any(task.done() for task in late)
        assert {(await task).status_code for task in late} == {408}

    run(scenario, limits=Limits(body_seconds=1.0))


def test_models_and_options_that_do_not_exist_are_refused() -> None:
    async def scenario(client: Client) -> None:
        missing = await send(client, b"echo", to="/v1/models/pet/predict")
        assert missing.status_code == 404 and "the nearest names are pets, cars" in missing.json()["detail"]
        assert (await client.get("/v1/models/..%2f..%2fetc%2fpasswd")).status_code == 404
        assert (await send(client, b"echo", top_k=0)).status_code == 422
        assert (await send(client, b"echo", format="gif")).status_code == 422
        assert (await send(client, b"echo", score_threshold="nan")).status_code == 422
        two = await send(client, b"echo", b"echo", format="png")
        assert two.status_code == 400 and "a drawing is of one image" in two.json()["detail"]
        assert (await client.get(PREDICT)).status_code == 405

    run(scenario)


def test_a_full_queue_says_when_to_come_back() -> None:
    async def scenario(client: Client) -> None:
        first = [asyncio.create_task(send(client, b"slow")) for _ in range(8)]  # both batches of the worker
        await asyncio.sleep(0.1)
        waiting = [asyncio.create_task(send(client, b"echo")) for _ in range(6)]
        await asyncio.sleep(0.1)
        refused = await send(client, b"echo")
        assert refused.status_code == 429 and "waiting" in refused.json()["detail"]
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert all([said(await task) for task in first + waiting])
        assert said(await send(client, b"echo"))

    run(scenario, limits=Limits(queued_images=6))


def test_requests_and_their_bytes_in_progress_are_limited() -> None:
    async def scenario(client: Client) -> None:
        first = [asyncio.create_task(send(client, b"slow")) for _ in range(2)]
        await asyncio.sleep(0.1)
        assert (await send(client, b"echo")).status_code == 429
        assert all([said(await task) for task in first])
        assert (await send(client, b"x" * 3000)).status_code == 429
        assert said(await send(client, b"echo"))

    run(scenario, limits=Limits(requests=2, held_bytes=2048))


def test_what_takes_too_long_is_given_up_and_not_predicted() -> None:
    async def scenario(client: Client) -> None:
        responses = await asyncio.gather(*(send(client, b"stuck") for _ in range(4)), send(client, b"echo"))
        assert {response.status_code for response in responses[:4]} <= {503, 504}
        await asyncio.sleep(0.6)  # the stuck worker is killed; another one takes its place
        assert said(await send(client, b"echo"))
        assert 'status="504"' in (await client.get("/metrics")).text

    run(scenario, limits=Limits(seconds=1.0))


# ---------------------------------------------------------------- workers that end


def test_a_worker_that_ends_loses_its_own_images_only() -> None:
    async def scenario(client: Client) -> None:
        died = asyncio.create_task(send(client, b"die"))
        await asyncio.sleep(0.1)
        later = await asyncio.gather(*(send(client, f"{i}".encode()) for i in range(10)))
        lost = await died
        assert lost.status_code == 503 and "try again" in lost.json()["detail"] and lost.headers["retry-after"] == "1"
        assert [said(response)[0]["image"] for response in later] == [f"{i}" for i in range(10)]
        assert "internimage_worker_restarts_total 1.0" in (await client.get("/metrics")).text

    run(scenario)


def test_a_killed_worker_comes_back_and_others_go_on() -> None:
    async def scenario(client: Client) -> None:
        await workers_ready(client, 2)
        [row] = said(await send(client, b"echo"))
        slow = [asyncio.create_task(send(client, b"slow")) for _ in range(8)]
        await asyncio.sleep(0.1)
        os.kill(row["worker"], signal.SIGKILL)
        statuses = [(await task).status_code for task in slow]
        assert sorted(set(statuses)) == [200, 503]  # one of two workers had half of them
        assert said(await send(client, b"echo"))
        await workers_ready(client, 2)

    run(scenario, workers=2)


async def workers_ready(client: Client, number: int) -> None:
    for _ in range(200):
        if f"internimage_workers_ready {number:.1f}" in (await client.get("/metrics")).text:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"there are no {number} workers")


@pytest.mark.parametrize(("source", "words"), [("missing", "not there"), ("crash", "exit code 7")])
def test_models_that_cannot_be_loaded_are_said(source: str, words: str) -> None:
    async def whole() -> None:
        app = create_app(replace(SERVING, models=(Served("pets", source),)))
        async with app.router.lifespan_context(app):
            assert words in await asyncio.wait_for(app.state.pool.failure, 30)
            client = Client(transport=httpx.ASGITransport(app), base_url="http://server")
            assert (await client.get("/readyz")).status_code == 503
            assert (await client.get("/healthz")).status_code == 200
            assert (await client.get("/v1/models")).json() == {"models": [{"name": "pets"}]}

    asyncio.run(whole())


# ---------------------------------------------------------------- keys, pages, other origins


def test_keys_open_the_models_and_the_metrics(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("first-key-of-the-file\n\nsecond-key-of-the-file\n")
    keys = read_keys(file)

    async def scenario(client: Client) -> None:
        guarded = ("/v1/models", "/v1/models/pets", "/metrics")
        for headers in ({}, {"X-API-Key": "first"}, {"Authorization": "Bearer schlüssel".encode()}):
            assert {(await client.get(path, headers=headers)).status_code for path in guarded} == {401}
            assert (await client.post(PREDICT, files={"a": b"echo"}, headers=headers)).status_code == 401
        for headers in ({"X-API-Key": keys[0]}, {"Authorization": f"Bearer {keys[1]}"}):
            assert {(await client.get(path, headers=headers)).status_code for path in guarded} == {200}
            assert said(await client.post(PREDICT, files={"a": b"echo"}, headers=headers))
        for path in ("/healthz", "/readyz", "/"):
            assert (await client.get(path)).status_code == 200

    run(scenario, api_keys=keys)
    assert keys[0] not in repr(replace(SERVING, api_keys=keys))


@pytest.mark.parametrize("text", ["", "short\n"])
def test_keys_that_can_be_guessed_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "keys").write_text(text)
    with pytest.raises(ValueError, match="at least 16 letters"):
        read_keys(tmp_path / "keys")


def test_other_origins_are_kept_out_unless_they_are_named() -> None:
    async def scenario(client: Client, allowed: str | None) -> None:
        for origin in ("https://mine.example", "https://other.example"):
            headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
            found = (await client.options(PREDICT, headers=headers)).headers.get("access-control-allow-origin")
            assert found == (origin if origin == allowed else None)

    run(lambda client: scenario(client, None))
    run(lambda client: scenario(client, "https://mine.example"), origins=("https://mine.example",))


def test_the_pages_name_nothing_outside() -> None:
    async def scenario(client: Client) -> None:
        for path in FILES:
            response = await client.get(path)
            assert response.status_code == 200 and "default-src 'none'" in response.headers["content-security-policy"]
            assert "http" not in response.text.replace("http://www.w3.org/2000/svg", "")
        described = (await client.get("/openapi.json")).json()
        assert set(described["paths"]["/v1/models/{name}/predict"]["post"]["requestBody"]["content"]) == {
            "multipart/form-data",
            "application/json",
        }
        assert (await client.get("/page/../app.py")).status_code == 404

    run(scenario)


def test_a_server_without_pages_has_none() -> None:
    async def scenario(client: Client) -> None:
        assert {(await client.get(path)).status_code for path in FILES} == {404}

    run(scenario, has_page=False)
