"""Pickles that are slow, deep or strange, written instruction by instruction as no `torch.save` writes them."""

from __future__ import annotations

import io
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from internimage.checkpoints.formats.torch_files import load_torch_file
from internimage.hub.opening import read_checkpoint

EMPTY_DICT, MARK, TUPLE1, TUPLE2, SETITEM, REDUCE, NONE, BUILD = b"}", b"(", b"\x85", b"\x86", b"s", b"R", b"N", b"b"


def text(value: str) -> bytes:
    content = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(content)) + content


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def pickled(body: bytes) -> bytes:
    return b"\x80\x02" + body + b"."


def archive(path: Path, pickle: bytes) -> Path:
    """Write a checkpoint of the zip format around a pickle."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", pickle)
        file.writestr("archive/byteorder", "little")
        file.writestr("archive/version", "3\n")
    return path


def legacy(path: Path, pickle: bytes) -> Path:
    """Write a checkpoint of the plain format around a pickle."""
    with io.BytesIO() as head:
        torch.save({}, head, _use_new_zipfile_serialization=False)
        content = head.getvalue()
    before = content.index(pickled(b"}q\x00"))
    path.write_bytes(content[:before] + pickle + content[before + len(pickled(b"}q\x00")) :])
    return path


ENCODED = name("_codecs", "encode") + text("a" * 50) + text("punycode") + TUPLE2 + REDUCE
SLOW = {
    "codec": (pickled(ENCODED), "codec"),
    "remembered codec": (
        pickled(text("idna") + b"q\x00" + name("_codecs", "encode") + text("a") + b"h\x00" + TUPLE2 + REDUCE + TUPLE2),
        "codec",
    ),
    "deep tuples": (pickled(NONE + TUPLE1 * 100_000), "200 levels"),
    "deep tuples as a key": (pickled(EMPTY_DICT + NONE + TUPLE1 * 900_000 + NONE + SETITEM), "200 levels"),
    "deep lists": (pickled(b"]" * 1000 + b"a" * 999), "200 levels"),
    "dropped objects": (pickled((NONE + b"0") * 2_500_000 + NONE), "uses POP"),
    "many instructions": (pickled(MARK + NONE * 4000 + b"t"), "more than 3500 instructions"),
    "many calls": (
        pickled(b"]" + MARK + (name("collections", "OrderedDict") + b")" + REDUCE) * 600 + b"e"),
        "more than 500 calls",
    ),
    "many classes": (pickled(b"".join(name("a", f"b{i}") for i in range(300)) + NONE), "100 foreign classes"),
    "a key that is hashed again and again": (
        pickled(MARK + NONE * 3000 + b"tq\x00" + EMPTY_DICT + (b"h\x00" + NONE + SETITEM) * 20_000),
        "unfold",
    ),
    "a tensor of nested lists": (pickled(name("torch", "Tensor") + b"]" + TUPLE1 + REDUCE), r"calls torch\.Tensor"),
    "text with a strange escape": (b"\x80\x02S'\\q'\n.", "uses STRING"),
    "entries of a number": (pickled(NONE + NONE + b"a"), "into a number"),
    "nothing to work on": (pickled(b"s"), "lacks what it works on"),
    "unknown memory": (pickled(b"h\x07"), "lacks what it works on"),
}


@pytest.mark.parametrize("wrap", [archive, legacy])
@pytest.mark.parametrize("case", SLOW, ids=lambda case: case.replace(" ", "_"))
def test_slow_and_deep_pickles_are_refused_at_once(
    tmp_path: Path, case: str, wrap: Callable[[Path, bytes], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("internimage.checkpoints.formats.pickle_scan.MAX_CALLS", 500)
    if case == "many instructions":
        monkeypatch.setattr("internimage.checkpoints.formats.pickle_scan.MAX_OPCODES", 3500)
    pickle, message = SLOW[case]
    path = wrap(tmp_path / "slow.pth", pickle)
    start = time.process_time()
    with pytest.raises(ValueError, match=message) as caught:
        load_torch_file(path)
    assert "slow.pth" in str(caught.value) and len(str(caught.value)) < 1000
    assert time.process_time() - start < 10


def test_old_bytes_load(tmp_path: Path) -> None:
    body = name("_codecs", "encode") + text("\xff") + text("latin1") + TUPLE2 + REDUCE
    assert load_torch_file(archive(tmp_path / "old.pth", pickled(body))) == b"\xff"


@pytest.mark.parametrize("attribute", ["items", "get", "values", "__class__"])
def test_attributes_do_not_hide_what_dictionaries_do(tmp_path: Path, attribute: str) -> None:
    weights = name("collections", "OrderedDict") + b")" + REDUCE + EMPTY_DICT + text(attribute) + NONE + SETITEM + BUILD
    path = archive(tmp_path / "odd.pth", pickled(EMPTY_DICT + text("model") + weights + SETITEM))
    with pytest.raises(ValueError, match=r"odd\.pth.* holds no weights"):
        read_checkpoint(path)


def test_names_with_surrogates_and_escapes_are_spelled_out(tmp_path: Path) -> None:
    path = tmp_path / "a\x1b[31m.pth"
    archive(path, pickled(EMPTY_DICT + text("\ud800\x1b[2J" + "x" * 100_000) + NONE + SETITEM))
    with pytest.raises(ValueError, match=r"holds no weights") as caught:
        read_checkpoint(path)
    message = str(caught.value)
    assert message.isprintable() and r"\ud800\x1b[2J" in message and r"a\x1b[31m.pth" in message
    assert len(message) < 1000 and caught.value.__cause__ is None


def entries(path: Path, *names: str, size: int | None = None) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for entry in names:
            file.writestr(entry, pickled(EMPTY_DICT))
        if size is not None:
            file.filelist[0].file_size = size
            file.filelist[0].compress_size = size
    return path


def test_archives_that_readers_understand_differently_are_refused(tmp_path: Path) -> None:
    path = entries(tmp_path / "two.pth", "archive/data.pkl", "archive/DATA.PKL")
    with pytest.raises(ValueError, match=r"two\.pth.*several entries of one name"):
        load_torch_file(path)
    path = entries(tmp_path / "large.pth", "archive/data.pkl", "archive/data/0", size=2**40)
    with pytest.raises(ValueError, match=r"large\.pth.*claim more bytes|large\.pth"):
        load_torch_file(path)


def test_an_archive_of_several_disks_is_named(tmp_path: Path) -> None:
    path = entries(tmp_path / "disks.pth", "archive/data.pkl")
    content = bytearray(path.read_bytes())
    end = content.rindex(b"PK\x05\x06")
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, 0, 7)
    path.write_bytes(content[:end] + locator + content[end:])
    with pytest.raises(ValueError, match=r"disks\.pth"):
        read_checkpoint(path)
