"""Downloads against a local server that cuts connections, lies and fails on request."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch

from internimage.checkpoints.catalog import CatalogEntry, info
from internimage.checkpoints.download import fetch
from internimage.checkpoints.local import home, local_copy
from internimage.checkpoints.save import save_model
from internimage.classification import Classifier
from internimage.hub.convert import convert
from internimage.hub.keys import original_state
from internimage.hub.load import load
from tests.checkpoints.local_server import LocalServer, QuietHandler

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Server(LocalServer):
    """Serves `files`; the first `cuts` answers with a body stop halfway; `corrupt` flips a byte of each body."""

    def __init__(self) -> None:
        super().__init__(Handler)
        self.files: dict[str, bytes] = {}
        self.cuts = 0
        self.corrupt = False
        self.requests: list[tuple[str, str, str | None]] = []


class Handler(QuietHandler):
    server: Server

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, *, with_body: bool) -> None:
        self.server.requests.append((self.command, self.path, self.headers.get("Range")))
        body = self.server.files.get(self.path)
        if body is None:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        if with_body:
            self.send_body(body, start)

    def send_body(self, body: bytes, start: int) -> None:
        if self.server.corrupt:
            body = bytes([body[0] ^ 1]) + body[1:]
        if self.server.cuts > 0:
            self.server.cuts -= 1
            self.wfile.write(body[start : (start + len(body)) // 2])
            self.close_connection = True
            return
        self.wfile.write(body[start:])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server().as_hub(monkeypatch) as server:
        yield server


@pytest.fixture
def hub_entry(server: Server, pico: Classifier, tmp_path: Path) -> CatalogEntry:
    """A row whose file lies in a repository of the Hub, here on the local server."""
    path = tmp_path / "source.pth"
    torch.save({"model": original_state(pico)}, path)
    server.files["/OpenGVLab/InternImage/resolve/main/internimage_t_1k_224.pth"] = path.read_bytes()
    path.unlink()
    return info("internimage_t_1k_224")


@pytest.fixture
def web_entry(server: Server) -> CatalogEntry:
    """A row whose file lies on a plain web server."""
    content = io.BytesIO()
    torch.save({"model": {"weight": torch.rand(75_000)}}, content)
    server.files["/releases/track/file.pth"] = content.getvalue()
    return dataclasses.replace(info("internimage_s_1k_224"), url=f"{server.url}/releases/track/file.pth")


def leftovers(folder: Path) -> list[str]:
    """Everything that a failed download may not leave: parts, temporary files, whole-looking files."""
    notes = ("CACHEDIR.TAG", "main")  # what the Hub's cache says about itself
    files = (p for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock" and p.name not in notes)
    return [str(p.relative_to(folder)) for p in files]


def test_hub_file_is_downloaded_once_and_checked(server: Server, hub_entry: CatalogEntry, tmp_path: Path) -> None:
    assert local_copy(hub_entry, cache_dir=tmp_path) is None
    path = fetch(hub_entry, cache_dir=tmp_path)
    assert local_copy(hub_entry, cache_dir=tmp_path) == path
    body = server.files["/OpenGVLab/InternImage/resolve/main/internimage_t_1k_224.pth"]
    assert path.read_bytes() == body
    [record] = (tmp_path / "sha256").iterdir()
    assert record.read_text().strip() == hashlib.sha256(body).hexdigest()
    count = len(server.requests)
    assert fetch(hub_entry, cache_dir=tmp_path, offline=True) == path
    assert fetch(hub_entry, cache_dir=tmp_path) == path and len(server.requests) == count
    damaged = bytearray(body)
    damaged[1000] ^= 1
    path.resolve().chmod(0o644)
    path.resolve().write_bytes(damaged)
    with pytest.raises(ValueError, match="damaged or was replaced"):
        fetch(hub_entry, cache_dir=tmp_path)


def test_load_downloads_by_name(server: Server, pico: Classifier, tmp_path: Path) -> None:
    folder = convert(save_model(pico, tmp_path / "pico.safetensors"), tmp_path / "folder")
    for file in folder.iterdir():
        server.files[f"/OpenGVLab/internimage_t_1k_224/resolve/main/{file.name}"] = file.read_bytes()
        server.files[f"/OpenGVLab/internimage_t_1k_224/resolve/{COMMIT}/{file.name}"] = file.read_bytes()
    model = load("hf:internimage_t_1k_224", cache_dir=tmp_path / "cache")
    assert isinstance(model, Classifier) and model.config == pico.config
    cached = local_copy(info("hf:internimage_t_1k_224"), cache_dir=tmp_path / "cache")
    assert cached is not None and (cached / "config.json").exists()
    again = load("OpenGVLab/internimage_t_1k_224", cache_dir=tmp_path / "cache", offline=True)
    assert torch.equal(again.head.classifier.weight, pico.head.classifier.weight)


def test_cut_connections_are_resumed(
    server: Server, hub_entry: CatalogEntry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 2**16)
    server.cuts = 2
    path = fetch(hub_entry, cache_dir=tmp_path)
    assert path.read_bytes() == server.files["/OpenGVLab/InternImage/resolve/main/internimage_t_1k_224.pth"]
    assert sum(span is not None for _, _, span in server.requests) == 2


def test_a_corrupt_download_is_refused(server: Server, hub_entry: CatalogEntry, tmp_path: Path) -> None:
    server.corrupt = True
    with pytest.raises(ValueError, match="arrived damaged"):
        fetch(hub_entry, cache_dir=tmp_path)
    assert not (tmp_path / "sha256").exists()


def test_offline_says_where_the_file_belongs(tmp_path: Path, hub_entry: CatalogEntry, pico: Classifier) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        load("internimage_t_1k_224", cache_dir=tmp_path, offline=True)
    text = str(caught.value)
    target = tmp_path / "internimage_t_1k_224.pth"
    assert all(part in text for part in ("internimage_t_1k_224.pth", str(hub_entry.url), str(target), "offline=True"))
    torch.save({"model": original_state(pico)}, target)
    assert fetch(hub_entry, cache_dir=tmp_path, offline=True) == target
    target.write_bytes(b"something else")
    with pytest.raises(ValueError, match="not the file that was first used"):
        fetch(hub_entry, cache_dir=tmp_path, offline=True)


def test_an_unreachable_hub_says_where_the_file_belongs(
    server: Server, hub_entry: CatalogEntry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ConnectionError, match=r"internimage_t_1k_224\.pth of .* the download failed"):
        fetch(hub_entry, cache_dir=tmp_path)
    server.files.clear()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    with pytest.raises(FileNotFoundError, match="the server has no such file"):
        fetch(hub_entry, cache_dir=tmp_path)
    assert leftovers(tmp_path) == []


def test_drive_files_are_put_there_by_hand(tmp_path: Path) -> None:
    entry = info("bevformer_base_occ")
    with pytest.raises(FileNotFoundError, match=r"Google Drive .*\n.*bevformer_base_occ\.pth"):
        fetch(entry, cache_dir=tmp_path)
    (tmp_path / "bevformer_base_occ.pth").write_bytes(b"weights")
    assert fetch(entry, cache_dir=tmp_path) == tmp_path / "bevformer_base_occ.pth"
    assert local_copy(entry, cache_dir=tmp_path) == tmp_path / "bevformer_base_occ.pth"


def test_unpublished_weights_say_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="never published"):
        fetch(info("upernet_internimage_g_896_160k_ade20k"), cache_dir=tmp_path)


def test_plain_web_download_resumes(server: Server, web_entry: CatalogEntry, tmp_path: Path) -> None:
    server.cuts = 2
    path = fetch(web_entry, cache_dir=tmp_path)
    assert path.read_bytes() == server.files["/releases/track/file.pth"]
    assert [span is not None for _, _, span in server.requests] == [False, True, True]
    assert sorted(leftovers(tmp_path)) == [path.name, *(f"sha256/{p.name}" for p in (tmp_path / "sha256").iterdir())]


def test_plain_web_download_that_keeps_being_cut_leaves_nothing(
    server: Server, web_entry: CatalogEntry, tmp_path: Path
) -> None:
    server.cuts = 99
    with pytest.raises(ConnectionError, match=r"the server sent \d+ of \d+ bytes"):
        fetch(web_entry, cache_dir=tmp_path)
    assert leftovers(tmp_path) == []
    server.files.clear()
    with pytest.raises(ConnectionError, match="404"):
        fetch(web_entry, cache_dir=tmp_path)
    with pytest.raises(FileNotFoundError, match="offline=True"):
        fetch(web_entry, cache_dir=tmp_path, offline=True)


def test_other_schemes_are_not_opened(tmp_path: Path) -> None:
    entry = dataclasses.replace(info("internimage_s_1k_224"), url="file:///etc/passwd")
    with pytest.raises(ValueError, match="only http and https"):
        fetch(entry, cache_dir=tmp_path)


@pytest.mark.parametrize("kind", ["web_entry", "hub_entry"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_cannot_be_written_leaves_nothing(
    kind: str, number: int, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = request.getfixturevalue(kind)

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("internimage.checkpoints.download.receive", refuse)
    monkeypatch.setattr("huggingface_hub.file_download.http_get", refuse)
    with pytest.raises(OSError, match="free space or give cache_dir") as caught:
        fetch(entry, cache_dir=tmp_path)
    assert caught.value.errno == number
    assert leftovers(tmp_path) == []


def test_a_read_only_cache_is_enough_for_what_lies_in_it(
    hub_entry: CatalogEntry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    target = tmp_path / hub_entry.filename
    target.write_bytes(b"weights")

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "read-only")

    monkeypatch.setattr("internimage.checkpoints.download.replacing", refuse)
    assert fetch(hub_entry, cache_dir=tmp_path) == target
    assert "cannot record the hash" in caplog.text


def test_home_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("INTERNIMAGE_HOME", str(tmp_path / "mine"))
    assert home() == tmp_path / "mine" and home(tmp_path) == tmp_path
    monkeypatch.delenv("INTERNIMAGE_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert home() == tmp_path / "internimage"
