from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import openvino
import pytest
import torch

import internimage as ii
from internimage.backbones import variant
from internimage.checkpoints.catalog import BUNDLED
from internimage.classification.model import Classifier, ClassifierConfig
from internimage.exporting.options import ExportPrecision
from internimage.exporting.write import export

IMAGES = [str(BUNDLED / "pictures" / "closet_scene.jpg")]


@pytest.fixture(scope="module")
def model() -> Classifier:
    torch.manual_seed(0)
    backbone = replace(variant("internimage_pico"), depths=(1, 1, 1, 1))
    return Classifier(ClassifierConfig(backbone, num_classes=2, class_names=("cat <&>", "Köter"))).eval()


@pytest.fixture(scope="module")
def written(model: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("openvino") / "a.xml"
    found = export(model, path)
    assert {tuple(check.call["pixels"]) for check in found.checks} == {
        (1, 3, 224, 224),
        (3, 3, 128, 192),
        (2, 3, 256, 160),
    }
    assert {file.name for file in path.parent.iterdir()} == {"a.xml", "a.bin", "a.xml.json"}
    return path


def test_a_file_predicts_like_the_model(model: Classifier, written: Path) -> None:
    file = ii.load(written)
    [found], [expected] = file.predict(IMAGES), model.predict(IMAGES)
    torch.testing.assert_close(found.scores, expected.scores, rtol=1e-4, atol=1e-5)
    assert found.class_names == ("cat <&>", "Köter")


def test_other_programs_see_names(written: Path) -> None:
    graph = openvino.Core().read_model(written)
    assert [tensor.get_any_name() for tensor in graph.inputs + graph.outputs] == ["pixels", "logits"]


def test_a_file_without_its_weights_or_description(written: Path, tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_bytes(written.read_bytes())
    with pytest.raises(ValueError, match=r"a\.xml"):
        ii.load(tmp_path / "a.xml")
    x = openvino.opset13.parameter([1, 2], name="x")
    graph = openvino.Model([openvino.opset13.relu(x)], [x])  # pyright: ignore[reportGeneralTypeIssues]  # its stubs
    openvino.save_model(graph, tmp_path / "b.xml")
    with pytest.raises(ValueError, match="not written by this package"):
        ii.load(tmp_path / "b.xml")


def test_what_openvino_does_not_read(model: Classifier, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no DeformConv"):
        export(model, tmp_path / "a.xml", operators="deform_conv")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_narrow_files_decide_like_the_model(dtype: ExportPrecision, tmp_path: Path) -> None:
    model = ii.load("internimage_pico_fashion")
    images = sorted((BUNDLED / "pictures").glob("*.png"))
    path = tmp_path / "a.xml"
    found = export(
        model, path, dtype=dtype, size_hw=(64, 64), calibration=images if dtype == "int8" else (), images=images
    )
    assert min(check.agreement for check in found.checks) >= 0.995
    sizes = {"float16": 0.6, "int8": 0.5}
    assert path.with_suffix(".bin").stat().st_size < sizes[dtype] * 4 * sum(p.numel() for p in model.parameters())
    expected = [result.top(1)[0][0] for result in model.predict(images)]
    assert [result.top(1)[0][0] for result in ii.load(path).predict(images)] == expected
