from __future__ import annotations

import argparse
import os
import pickle
import random
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from internimage.checkpoints.checkpoint import plain_settings
from internimage.checkpoints.formats.torch_files import InertObject, load_torch_file
from internimage.hub.opening import read_checkpoint

FORMATS = pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
WEIGHTS = {"head.weight": torch.arange(6.0).reshape(2, 3), "steps": torch.tensor(7)}


class Bomb:
    """Pickles as a call of `function`."""

    def __init__(self, function: Callable, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple:
        return self.call


def save(path: Path, content: Any, is_zip: bool = True) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=is_zip)
    return path


@FORMATS
def test_configurations_of_old_trainings_load_as_data(
    tmp_path: Path, as_yacs: Callable, yacs_settings: dict[str, Any], is_zip: bool
) -> None:
    content = {
        "model": WEIGHTS,
        "config": as_yacs(yacs_settings),
        "args": argparse.Namespace(lr=0.1),
        "max_accuracy": np.float64(83.5),
        "history": np.arange(3),
        "path": Path("/somewhere"),
    }
    path = save(tmp_path / "old.pth", content, is_zip)
    del sys.modules["yacs.config"], sys.modules["yacs"]
    loaded = load_torch_file(path)
    assert "yacs" not in sys.modules
    assert torch.equal(loaded["model"]["head.weight"], WEIGHTS["head.weight"])
    assert type(loaded["config"]) is OrderedDict and type(loaded["max_accuracy"]) is InertObject
    settings = plain_settings(loaded)
    assert settings == {name: yacs_settings[name] for name in ("MODEL", "DATA")}


@FORMATS
@pytest.mark.parametrize(
    "bomb",
    [
        Bomb(os.system, "touch PWNED"),
        Bomb(exec, "open('PWNED', 'w')"),
        Bomb(eval, "open('PWNED', 'w')"),
        Bomb(subprocess.Popen, ["touch", "PWNED"]),
        Bomb(pickle.loads, pickle.dumps(Bomb(os.system, "touch PWNED"))),
        Bomb(open, "PWNED", "w"),
        Bomb(bytearray, 10**13),
        Bomb(getattr, OrderedDict, "__init__"),
        Bomb(map, print, [1]),
        Bomb(torch.load, "other.pth"),
        Bomb(torch.hub.load, "a/b", "c"),
        Bomb(torch.zeros, 10**6, 10**6),
        [{"deep": (Bomb(os.system, "touch PWNED"),)}],
    ],
    ids=lambda bomb: bomb.call[0].__name__ if isinstance(bomb, Bomb) else "nested",
)
def test_pickle_bombs_do_not_go_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bomb: Any, is_zip: bool) -> None:
    monkeypatch.chdir(tmp_path)
    path = save(tmp_path / "bomb.pth", {"model": WEIGHTS, "config": bomb}, is_zip)
    try:
        loaded = load_torch_file(path)
    except ValueError as error:
        assert "bomb.pth" in str(error)
    else:  # an inert placeholder took the place of the call
        assert type(loaded["config"]) in (OrderedDict, InertObject)
    assert not (tmp_path / "PWNED").exists()


def test_refusal_names_what_was_asked_for(tmp_path: Path) -> None:
    path = save(tmp_path / "bomb.pth", {"model": WEIGHTS, "config": Bomb(os.system, "true")})
    with pytest.raises(ValueError, match=r"refused, nothing in it was run: it asks for (posix|nt)\.system"):
        read_checkpoint(path)


def test_foreign_functions_become_placeholders(tmp_path: Path) -> None:
    import webbrowser

    path = save(tmp_path / "odd.pth", {"model": WEIGHTS, "config": Bomb(webbrowser.open, "http://localhost")})
    assert load_torch_file(path)["config"] == {}


def test_settings_that_unfold_without_end_are_cut(tmp_path: Path) -> None:
    laugh: Any = ["ha"] * 10
    for _ in range(9):
        laugh = [laugh] * 10
    path = save(tmp_path / "laugh.pth", {"model": WEIGHTS, "config": {"MODEL": {"A": laugh}}})
    checkpoint = read_checkpoint(path)
    assert checkpoint.stated.settings is None
    deep: Any = {}
    for _ in range(500):
        deep = {"MODEL": deep}
    assert plain_settings({"config": deep}) is not None


@FORMATS
def test_tuples_that_unfold_without_end_are_refused(tmp_path: Path, is_zip: bool) -> None:
    laugh: Any = ("ha", "ha")
    for _ in range(12):
        laugh = (laugh,) * 3
    path = save(tmp_path / "laugh.pth", {"model": WEIGHTS, "config": laugh}, is_zip)
    with pytest.raises(ValueError, match="tuples that unfold"):
        load_torch_file(path)


def test_tensors_larger_than_their_storage_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "wide.pth", {"model": {"head.weight": torch.ones(1).expand(10**5, 10**5)}})
    with pytest.raises(ValueError, match="storage holds fewer"):
        read_checkpoint(path)


def test_compressed_archives_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "plain.pth", {"model": WEIGHTS})
    packed = tmp_path / "packed.pth"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
    with pytest.raises(ValueError, match="compressed"):
        load_torch_file(packed)


def test_large_descriptions_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "long.pth", {"model": WEIGHTS, "text": "x" * 2000})
    monkeypatch.setattr("internimage.checkpoints.formats.torch_files.MAX_PICKLE_BYTES", 1000)
    with pytest.raises(ValueError, match="more than 1000"):
        load_torch_file(path)
    with pytest.raises(ValueError, match="more than 1000"):
        load_torch_file(save(tmp_path / "old.pth", {"model": WEIGHTS, "text": "x" * 2000}, is_zip=False))


def test_newer_pickle_protocols_are_explained(tmp_path: Path) -> None:
    path = tmp_path / "new.pth"
    path.write_bytes(pickle.dumps({"model": OrderedDict(a=1)}, protocol=4))
    with pytest.raises(ValueError, match="STACK_GLOBAL"):
        load_torch_file(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>Sign in</html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"PK\x03\x04 and then nothing", "no readable torch checkpoint"),
        (random.Random(0).randbytes(64), "no readable torch checkpoint"),
        (pickle.dumps([1, 2, 3], protocol=2), "no readable torch checkpoint"),
    ],
)
def test_files_that_are_no_checkpoints(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "odd.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_checkpoint(path)


@FORMATS
def test_truncated_files(tmp_path: Path, is_zip: bool) -> None:
    weights = {f"w{i}": torch.rand(64, 64) for i in range(8)}
    content = save(tmp_path / "whole.pth", {"model": weights}, is_zip).read_bytes()
    for share in (0.05, 0.5, 0.95):
        path = tmp_path / "part.pth"
        path.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(ValueError, match=r"part\.pth"):
            read_checkpoint(path)
