"""Servers that send something else than the file: nothing of it gets the file's name, and the error says what came."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub
import pytest
import torch

from internimage.checkpoints.arrivals import flaw
from internimage.checkpoints.catalog import CatalogEntry, info
from internimage.checkpoints.download import fetch
from internimage.checkpoints.transfer import check_reachable
from tests.checkpoints.local_server import LocalServer, QuietHandler

PAGE = b"<!DOCTYPE html><html><title>Sign in</title><body>Please log in.</body></html>"


@dataclasses.dataclass
class Answer:
    """What the server sends: the body, as many bytes of it as `cut` says, and headers that may lie about it."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    cut: int | None = None
    has_length: bool = True


class Scene(LocalServer):
    """Serves one answer after the other, the last one again and again."""

    def __init__(self) -> None:
        super().__init__(Handler)
        self.answers: list[Answer] = []
        self.ranges: list[str | None] = []
        self.metadata: dict[str, str] | None = None  # of HEAD requests, None for those of the answer


class Handler(QuietHandler):
    server: Scene

    def do_HEAD(self) -> None:
        self.send_response(200)
        for name, value in (self.server.metadata or {}).items():
            self.send_header(name, value)
        self.end_headers()

    def do_GET(self) -> None:
        self.server.ranges.append(self.headers.get("Range"))
        answers = self.server.answers
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        self.send_response(answer.status)
        if answer.has_length:
            self.send_header("Content-Length", str(len(answer.body)))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body[: answer.cut])
        self.close_connection = True


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    with Scene().as_hub(monkeypatch) as scene:
        yield scene


@pytest.fixture
def entry(server: Scene) -> CatalogEntry:
    return dataclasses.replace(info("internimage_s_1k_224"), url=f"{server.url}/releases/file.pth")


def checkpoint(seed: int = 0, *, is_zip: bool = True) -> bytes:
    content = io.BytesIO()
    weights = {"model": {"weight": torch.rand(20_000, generator=torch.Generator().manual_seed(seed))}}
    torch.save(weights, content, _use_new_zipfile_serialization=is_zip)
    return content.getvalue()


def rest(body: bytes, start: int, tag: str, **headers: str) -> Answer:
    span = f"bytes {start}-{len(body) - 1}/{len(body)}"
    return Answer(body[start:], 206, {"ETag": tag, "Content-Range": span, **headers})


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.suffix not in (".lock", ".TAG"))


WHOLE, OTHER, PLAIN = checkpoint(), checkpoint(1), checkpoint(is_zip=False)
WRONG: dict[str, tuple[Callable[[], list[Answer]], str]] = {
    "a cut body without a length": (lambda: [Answer(WHOLE[:5000], has_length=False)], "does not end as it should"),
    "a shorter length": (lambda: [Answer(WHOLE[:-30])], "does not end as it should"),
    "a cut body of the plain format": (lambda: [Answer(PLAIN[:5000], has_length=False)], "cannot be read"),
    "a length of zero": (lambda: [Answer(b"")], r"nothing \(0 bytes\)"),
    "a login page": (lambda: [Answer(PAGE)], "a web page of 77 bytes, such as a login"),
    "a text": (lambda: [Answer(b'{"error": "\x1b[31mquota"}')], r"no checkpoint: \{.*\\x1b\[31mquota"),
    "a pointer": (lambda: [Answer(b"version https://git-lfs.github.com/spec/v1\n")], "pointer of git-lfs"),
    "a flipped byte": (lambda: [Answer(WHOLE[:40_000] + b"\xff\x00\xff" + WHOLE[40_003:])], "damaged"),
}


@pytest.mark.parametrize("case", WRONG, ids=lambda case: case.replace(" ", "_"))
def test_what_is_not_the_file_does_not_get_its_name(
    server: Scene, entry: CatalogEntry, tmp_path: Path, case: str
) -> None:
    answers, message = WRONG[case]
    server.answers = answers()
    with pytest.raises(ConnectionError, match=rf"internimage_s_1k_224\.pth .*the server sent .*{message}") as caught:
        fetch(entry, cache_dir=tmp_path)
    assert files(tmp_path) == [] and "\x1b" not in str(caught.value)
    server.answers = [Answer(WHOLE)]
    assert fetch(entry, cache_dir=tmp_path).read_bytes() == WHOLE


CHANGES: dict[str, list[Answer]] = {
    "another version in spite of If-Range": [rest(OTHER, 20_000, '"two"')],
    "another place": [rest(WHOLE, 30_000, '"one"')],
    "the range of another file": [rest(WHOLE + b"more", 20_000, '"one"')],
    "no range at all": [Answer(WHOLE[20_000:], 206, {"ETag": '"one"'})],
    "a range that is not there": [Answer(b"", 416)],
    "the whole file again": [],
}


@pytest.mark.parametrize("case", CHANGES, ids=lambda case: case.replace(" ", "_"))
def test_pieces_of_different_files_are_never_joined(
    server: Scene, entry: CatalogEntry, tmp_path: Path, case: str
) -> None:
    first = Answer(WHOLE, headers={"ETag": '"one"'}, cut=20_000)
    server.answers = [first, *CHANGES[case], Answer(OTHER, headers={"ETag": '"two"'})]
    assert fetch(entry, cache_dir=tmp_path).read_bytes() == OTHER
    assert server.ranges[:2] == [None, "bytes=20000-"]


def test_a_weak_tag_names_no_bytes(server: Scene, entry: CatalogEntry, tmp_path: Path) -> None:
    server.answers = [Answer(WHOLE, headers={"ETag": 'W/"one"'}, cut=20_000), Answer(WHOLE)]
    assert fetch(entry, cache_dir=tmp_path).read_bytes() == WHOLE
    assert server.ranges == [None, None]


@pytest.mark.parametrize("has_hash", [True, False])
def test_the_cache_of_the_hub_keeps_no_login_page(server: Scene, tmp_path: Path, has_hash: bool) -> None:
    tag = hashlib.sha256(WHOLE).hexdigest() if has_hash else "0" * 40
    server.metadata = {"ETag": f'"{tag}"', "X-Repo-Commit": "0" * 40, "Content-Length": str(len(PAGE))}
    server.answers = [Answer(PAGE)]
    entry = info("internimage_t_1k_224")
    error = ValueError if has_hash else ConnectionError
    with pytest.raises(error, match=r"(arrived damaged: )?the server sent a web page"):
        fetch(entry, cache_dir=tmp_path)
    assert [name for name in files(tmp_path) if name != "main"] == []
    server.metadata["Content-Length"] = str(len(WHOLE))
    server.answers = [Answer(WHOLE)]
    assert fetch(entry, cache_dir=tmp_path).read_bytes() == WHOLE


def test_an_unreachable_server_is_tried_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tried: list[tuple[str, int]] = []

    def refuse(address: tuple[str, int], timeout: float) -> socket.socket:
        tried.append(address)
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr("socket.create_connection", refuse)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.invalid")
    monkeypatch.setenv("NO_PROXY", "*")
    with pytest.raises(ConnectionError, match=r"cannot reach hub\.invalid:443: Name or service not known"):
        fetch(info("internimage_t_1k_224"), cache_dir=tmp_path)
    web = dataclasses.replace(info("internimage_s_1k_224"), url="http://web.invalid/a.pth")
    with pytest.raises(ConnectionError, match=r"cannot reach web\.invalid:80"):
        fetch(web, cache_dir=tmp_path)
    assert tried == [("hub.invalid", 443), ("web.invalid", 80)]
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_a_proxy_is_asked_in_the_servers_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(ConnectionError, match=r"cannot reach the proxy 127\.0\.0\.1:9"):
        check_reachable("https://hub.invalid/a")


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("config.json", b'{"a": 1}', None),
        ("config.json", b'{"a": ', "no JSON"),
        ("config.json", PAGE, "a web page"),
        ("model.safetensors", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      ", None),
        ("model.safetensors", b"\xff" * 100, "no whole safetensors file"),
        ("a.pth", WHOLE, None),
        ("a.pth", PLAIN, None),
        ("a.pth", PLAIN[:-7], "cannot be read"),
        ("a.pth", b"\x00\x01\x02\x03", "4 bytes that are no checkpoint"),
    ],
)
def test_what_is_wrong_with_a_file(tmp_path: Path, name: str, content: bytes, what: str | None) -> None:
    path = tmp_path / "part"
    path.write_bytes(content)
    found = flaw(path, name)
    assert found is None if what is None else what in (found or "")
