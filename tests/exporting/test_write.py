"""What every format shares: suffixes, limits, files that are whole or not there."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from internimage.backbones import BackboneConfig, InternImage
from internimage.cli import app
from internimage.errors import MissingExtra
from internimage.exporting import formats
from internimage.exporting.document import from_text, to_text
from internimage.exporting.formats import Format
from internimage.exporting.graphs import build_graph
from internimage.exporting.options import WriteOptions
from internimage.exporting.sample_inputs import bundled_images, calls, inputs
from internimage.exporting.write import export
from internimage.flow import ExportGraph, GraphOptions
from tests.threads import torch_threads

TINY = BackboneConfig(channels=16, depths=(1, 1, 1, 1), groups=(1, 2, 4, 8))


@pytest.fixture(scope="module")
def backbone() -> InternImage:
    torch.manual_seed(0)
    return InternImage(TINY).eval()


class Weights:
    """A format of this test: the model's output, disturbed; it "runs" by a copy of the graph."""

    def __init__(self, disturb: float = 0.0, *, runs: bool = True) -> None:
        self.disturb, self.runs = disturb, runs
        self.graph: ExportGraph

    def write(self, graph: ExportGraph, options: WriteOptions, path: Path) -> dict[str, object]:
        self.graph = graph
        path.write_text("new", encoding="utf-8")
        path.with_suffix(".weights").write_text("more", encoding="utf-8")
        return {"format": "TEST", "dtype": options.dtype}

    def open(self, path: Path) -> Weights:
        assert path.read_text(encoding="utf-8") == "new"
        return self

    def __call__(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        with torch.inference_mode():
            return tuple(output * (1 + self.disturb) for output in self.graph(*inputs))

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        module = ModuleType("format_of_this_test")
        reason = None if self.runs else "no such machine"
        module.FORMAT = Format(  # type: ignore[attr-defined]  # made here
            name="TEST",
            runtime="torch",
            packages=("torch",),
            extra="export",
            dtypes=("float32", "float16"),
            write=self.write,
            open=self.open,
            description=lambda path: "",
            why_not_run=lambda: reason,
        )
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(formats.MODULES, ".test", module.__name__)


def test_a_file_comes_with_all_that_belongs_to_it(
    backbone: InternImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Weights(1e-6).install(monkeypatch)
    with torch_threads(1):
        written = export(backbone, tmp_path / "new folder" / "maps.test", images=bundled_images()[:2])
    assert sorted(path.name for path in written.path.parent.iterdir()) == [
        "maps.test",
        "maps.test.json",
        "maps.weights",
    ]
    assert len(written.checks) == 3 and written.not_run is None and written.bytes == 7
    shapes = {check.call["pixels"] for check in written.checks}
    assert len({shape[0] for shape in shapes}) == 3 and len({shape[2:] for shape in shapes}) == 3
    assert all(5e-7 < check.max_difference < 2e-6 and check.agreement == 1 for check in written.checks)
    document = from_text(written.description.read_text(encoding="utf-8"), "the file")
    assert document.config == TINY
    assert [tensor.name for tensor in document.description.outputs] == ["stride4", "stride8", "stride16", "stride32"]
    assert document.written == {"format": "TEST", "dtype": "float32"}


@pytest.mark.parametrize(
    ("disturb", "dtype", "message"),
    [(1e-3, "float32", "differs from torch by 0.001"), (-2.0, "float16", "agrees with torch in 0.00%")],
)
def test_a_file_that_is_too_far_from_torch_is_not_kept(
    backbone: InternImage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    disturb: float,
    dtype: str,
    message: str,
) -> None:
    Weights(disturb).install(monkeypatch)
    (tmp_path / "maps.test").write_text("old", encoding="utf-8")
    with torch_threads(1), pytest.raises(ValueError, match=message):
        export(backbone, tmp_path / "maps.test", dtype=dtype, size_hw=(64, 64), batch=1)  # type: ignore[arg-type]  # a parameter
    assert [path.name for path in tmp_path.iterdir()] == ["maps.test"]
    assert (tmp_path / "maps.test").read_text(encoding="utf-8") == "old"


def test_what_cannot_run_here_is_built_and_said_so(
    backbone: InternImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Weights(1.0, runs=False).install(monkeypatch)
    written = export(backbone, tmp_path / "maps.test")
    assert written.checks == () and written.not_run == "no such machine"


def test_what_is_wrong_is_said_before_anything_is_computed(
    backbone: InternImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.onnx").mkdir()
    monkeypatch.setattr("internimage.exporting.graphs.build_graph", lambda *_: pytest.fail("it began"))
    for name, options, error, message in (
        ("maps.jpg", {}, ValueError, r"by its suffix; name the file with one of \.onnx"),
        ("maps", {}, ValueError, "by its suffix"),
        ("maps.onnx", {"opset": 15}, ValueError, "opset must be in 16..23, given 15"),
        ("maps.onnx", {"opset": 18, "operators": "deform_conv"}, ValueError, "came with opset 19; take operators"),
        ("maps.onnx", {"dtype": "int8"}, ValueError, "needs calibration images"),
        ("maps.onnx", {"dtype": "bfloat16"}, ValueError, "are of float32, float16, int8; given dtype='bfloat16'"),
        ("maps.onnx", {"calibration": bundled_images()}, ValueError, "are for dtype='int8'"),
        ("file/maps.onnx", {}, OSError, "file"),
        ("folder.onnx", {}, IsADirectoryError, "is a folder; give the name of a file"),
    ):
        with pytest.raises(error, match=message):
            export(backbone, tmp_path / name, **options)  # type: ignore[arg-type]  # wrong on purpose
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.onnx"]


def test_a_folder_without_permission(backbone: InternImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)  # the tests may run as root, who may write anywhere
    with pytest.raises(PermissionError, match="its folder is not writable; choose another one"):
        export(backbone, tmp_path / "maps.onnx")


def test_a_missing_package_names_the_pip_command(
    backbone: InternImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec
    missing = lambda name, *rest: None if name == "onnxscript" else find_spec(name, *rest)  # noqa: E731 - used once
    monkeypatch.setattr("importlib.util.find_spec", missing)
    with pytest.raises(MissingExtra, match=r"ONNX export needs the package 'onnxscript'.*internimage\[export\]"):
        export(backbone, tmp_path / "maps.onnx")


def test_a_command_says_what_is_wrong_in_a_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["export", "no_such_model", str(tmp_path / "maps.jpg")])
    assert result.exit_code == 1 and "cannot tell the format" in result.stderr and "Traceback" not in result.stderr


def test_calls_keep_to_what_is_free(backbone: InternImage) -> None:
    assert calls(build_graph(backbone, GraphOptions(batch=2, size_hw=(64, 96)))) == [{}]
    assert [call["batch"] for call in calls(build_graph(backbone, GraphOptions(size_hw=(64, 96))))] == [1, 3, 2]
    graph = build_graph(backbone, GraphOptions(batch=2, size_hw=(32, 64)))
    [pixels] = inputs(graph, bundled_images(), {})
    assert pixels.shape == (2, 3, 32, 64) and not torch.equal(pixels[0], pixels[1])
    assert -3 < float(pixels.min()) < float(pixels.max()) < 3  # normalized


def test_a_document_of_something_else_is_refused(backbone: InternImage) -> None:
    text = to_text(build_graph(backbone), {"format": "TEST"})
    assert from_text(text, "it").written == {"format": "TEST"}
    content = json.loads(text)
    content["info"]["graph"]["inputs"] = []
    for broken, message in (
        ("{}", "it: cannot read"),
        (text.replace('"graph"', '"other"'), "describes a model, but no graph"),
        (json.dumps(content), "it: cannot read the description of the graph"),
    ):
        with pytest.raises(ValueError, match=message):
            from_text(broken, "it")
