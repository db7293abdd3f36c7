from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import internimage as ii
from internimage.backbones import InternImage, variant
from internimage.exporting.programs.scan import document_in, refuse_code
from internimage.exporting.write import export

MODEL = "models/model.json"


@pytest.fixture(scope="module")
def backbone() -> InternImage:
    torch.manual_seed(0)
    return InternImage(replace(variant("internimage_pico"), depths=(1, 1, 1, 1))).eval()


@pytest.fixture(scope="module")
def written(backbone: InternImage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "a.pt2"
    found = export(backbone, path)
    assert len(found.checks) == 3
    assert max(check.max_difference for check in found.checks) < 1e-5
    return path


def test_a_program_runs_like_the_model(backbone: InternImage, written: Path) -> None:
    file = ii.load(written)
    pixels = torch.randn(3, 3, 96, 64)
    with torch.inference_mode():
        for ours, theirs in zip(file(pixels).maps, backbone(pixels).maps, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert "internimage" not in {node.target for node in torch.export.load(written).graph.nodes}


def changed(written: Path, path: Path, edit: Callable[[dict[str, bytes]], None]) -> Path:
    """Write the file with other entries, whose names stand below its one folder."""
    with zipfile.ZipFile(written) as archive:
        folder = archive.namelist()[0].partition("/")[0]
        entries = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    edit(entries)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(f"{folder}/{name}", content)
    return path


def in_model(edit: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, bytes]], None]:
    def run(entries: dict[str, bytes]) -> None:
        model = json.loads(entries[MODEL])
        edit(model["graph_module"])
        entries[MODEL] = json.dumps(model).encode()

    return run


def node_of(graph_module: dict[str, Any], **values: Any) -> None:
    graph_module["graph"]["nodes"][20].update(values)


def size_of(graph_module: dict[str, Any], text: str) -> None:
    values = graph_module["graph"]["sym_int_values"]
    next(iter(values.values()))["as_expr"] = {"expr_str": text, "hint": None}


def weights(entries: dict[str, bytes]) -> None:
    name = "data/weights/model_weights_config.json"
    config = json.loads(entries[name])
    next(iter(config["config"].values()))["use_pickle"] = True
    entries[name] = json.dumps(config).encode()


HOSTILE: dict[str, tuple[Callable[[dict[str, bytes]], None], str]] = {
    "sample inputs": (lambda e: e.update({"data/sample_inputs/model.pt": b"x"}), "sample_inputs"),
    "old weights": (lambda e: e.update({"data/weights/model.pt": b"x"}), "model.pt"),
    "object": (lambda e: e.update({"data/constants/custom_obj_0": b"x"}), "custom_obj_0"),
    "pickled weight": (weights, "use_pickle"),
    "load": (in_model(lambda g: node_of(g, target="torch.load")), "torch.load"),
    "library": (in_model(lambda g: node_of(g, target="torch.ops.load_library")), "load_library"),
    "file": (in_model(lambda g: node_of(g, target="torch.ops.aten.from_file.default")), "from_file"),
    "name": (in_model(lambda g: node_of(g, name="x = __import__('os')")), "import"),
    "notes": (in_model(lambda g: node_of(g, metadata={"custom": "{}"})), "source code"),
    "size": (in_model(lambda g: size_of(g, "__import__('os').getcwd()")), "evaluates"),
    "attribute": (in_model(lambda g: size_of(g, "Symbol('s0').func")), "evaluates"),
    "function": (in_model(lambda g: size_of(g, "exec('1')")), "evaluates"),
    "long size": (in_model(lambda g: size_of(g, "1+" * 20_000 + "1")), "evaluates"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_torch_would_run_is_refused(case: str, written: Path, tmp_path: Path) -> None:
    edit, message = HOSTILE[case]
    path = changed(written, tmp_path / "b.pt2", edit)
    with pytest.raises(ValueError, match=message):
        refuse_code(path)
    with pytest.raises(ValueError, match="nothing of it was run"):
        ii.load(path)


def test_an_unchanged_copy_is_taken(written: Path, tmp_path: Path) -> None:
    refuse_code(changed(written, tmp_path / "b.pt2", lambda entries: None))


def test_programs_of_others_are_refused(tmp_path: Path) -> None:
    program = torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),))
    torch.export.save(program, tmp_path / "a.pt2")
    with pytest.raises(ValueError, match="not written by this package"):
        document_in(tmp_path / "a.pt2")
    with pytest.raises(ValueError, match="nothing of it was run"):
        refuse_code(tmp_path / "a.pt2")
    (tmp_path / "b.pt2").write_bytes(b"PK nothing")
    with pytest.raises(ValueError, match=r"no \.pt2 file"):
        ii.load(tmp_path / "b.pt2")
    with pytest.raises(FileNotFoundError, match=r"c\.pt2"):
        ii.load(tmp_path / "c.pt2")


def test_options_that_the_format_lacks(backbone: InternImage, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="float32, float16"):
        export(backbone, tmp_path / "a.pt2", dtype="int8", calibration=["a.png"])
    with pytest.raises(ValueError, match="opset is for ONNX"):
        export(backbone, tmp_path / "a.pt2", opset=18)


def test_machine_code_is_not_opened_as_a_program(written: Path, tmp_path: Path) -> None:
    path = changed(written, tmp_path / "b.pt2", lambda entries: entries.update({"data/aotinductor/model/a.so": b"x"}))
    with pytest.raises(ValueError, match=r"\.aoti\.pt2"):
        ii.load(path)


@pytest.mark.slow  # a minute: every kernel is compiled
def test_a_compiled_program_runs_like_the_model(
    backbone: InternImage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.aoti.pt2"
    found = export(backbone, path, size_hw=(64, 96))
    assert max(check.max_difference for check in found.checks) < 1e-5
    assert document_in(path)
    file = ii.load(path)
    assert "machine code" in caplog.text
    pixels = torch.randn(3, 3, 64, 96)
    with torch.inference_mode():
        for ours, theirs in zip(file(pixels).maps, backbone(pixels).maps, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
