from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import internimage as ii
from internimage.backbones import InternImage, variant
from internimage.errors import MissingExtra
from internimage.exporting import tensorrt
from internimage.exporting.document import Document
from internimage.exporting.file_model import file_model
from internimage.exporting.formats import format_of
from internimage.exporting.graphs import build_graph
from internimage.exporting.options import WriteOptions
from internimage.exporting.suffixes import suffix_of


def test_longer_suffixes_win() -> None:
    assert suffix_of("a.aoti.pt2") == ".aoti.pt2"
    assert suffix_of("A.PT2") == ".pt2"
    assert suffix_of("internimage_t_1k_224") is None


@pytest.mark.parametrize("name", ["a.onnx", "a.xml", "a.pt2", "a.aoti.pt2", "a.engine"])
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=name):
        ii.load(tmp_path / name)


def test_what_a_file_cannot_be_asked(tmp_path: Path) -> None:
    asked: dict[str, Any] = {"num_classes": 3, "ema": True, "dtype": torch.float16, "backend": "reference"}
    for name, value in asked.items():
        with pytest.raises(ValueError, match="an exported file, which is as it was written, takes no"):
            ii.load(tmp_path / "a.onnx", **{name: value})
    with pytest.raises(ValueError, match="inputs on the CPU"):
        ii.load(tmp_path / "a.onnx", device="cuda")


def test_a_missing_runtime_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delitem(sys.modules, "internimage.exporting.openvino", raising=False)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtra, match=r"internimage\[export\]"):
        format_of(tmp_path / "a.xml")


def test_engines_need_a_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"internimage\[tensorrt\]"):
        tensorrt.check(WriteOptions())


def test_engines_are_made_of_grid_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt, "find_library", lambda: (None, True))
    for options in (WriteOptions(operators="deform_conv"), WriteOptions(opset=20)):
        with pytest.raises(ValueError, match="GridSample in opset 18"):
            tensorrt.check(options)


def test_an_engine_without_its_description(tmp_path: Path) -> None:
    (tmp_path / "a.engine").write_bytes(b"x")
    with pytest.raises(FileNotFoundError, match=r"a\.engine\.json is missing"):
        ii.load(tmp_path / "a.engine")


@pytest.mark.slow  # half a minute for each processor, and a library of 1.5 GB
def test_an_engine_is_built_without_a_gpu(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="not installed")
    model = ii.load("internimage_pico_fashion")
    found = ii.export(model, tmp_path / "a.engine", size_hw=(64, 64))
    assert found.not_run is not None or found.checks
    assert "SM86" in str(found.notes["processors"])
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="cannot run here: this machine has no GPU"):
            ii.load(tmp_path / "a.engine")


def test_a_file_is_not_exported_again(tmp_path: Path) -> None:
    graph = build_graph(InternImage(variant("internimage_pico")))
    file = file_model(Document(graph.config, graph.description, {}), graph, "a.onnx", "00" * 32)
    with pytest.raises(ValueError, match="export the model that it was made of"):
        ii.export(file, tmp_path / "b.onnx")
