from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import internimage as ii
from internimage.backbones import InternImage, variant
from internimage.checkpoints.catalog import BUNDLED
from internimage.data.images.read import read_rgb
from internimage.exporting.document import Document
from internimage.exporting.file_model import FileModel, file_model
from internimage.exporting.graphs import build_graph
from internimage.flow import ExportGraph, GraphOptions, Network, TaskModel

SCENE = read_rgb(BUNDLED / "pictures" / "closet_scene.jpg")
IMAGES = [SCENE, SCENE.crop((40, 60, 300, 250)), SCENE.resize((96, 120))]
SHA256 = "ab" * 32


class TorchRunner:
    """The graph itself in the place of a file."""

    def __init__(self, graph: ExportGraph) -> None:
        self.graph = graph
        self.calls = 0

    def __call__(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        self.calls += 1
        with torch.inference_mode():
            return self.graph(*inputs)


def as_file(model: Network, options: GraphOptions) -> tuple[Any, TorchRunner]:
    graph = build_graph(model.eval(), options)
    runner = TorchRunner(graph)
    return file_model(Document(graph.config, graph.description, {}), runner, "model.onnx", SHA256), runner


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    names = ("internimage_pico_fashion", "mask_rcnn_internimage_pico_closet", "upernet_internimage_pico_closet")
    return dict(zip(("fashion", "mask_rcnn", "upernet"), map(ii.load, names), strict=True))


def same(found: Sequence[Any], expected: Sequence[Any]) -> None:
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert type(ours) is type(theirs)
        assert ours.original_hw == theirs.original_hw
        assert ours.class_names == theirs.class_names
        for name, value in vars(theirs).items():
            if isinstance(value, Tensor):
                torch.testing.assert_close(getattr(ours, name), value, rtol=1e-4, atol=1e-4)
            elif name != "run_length_masks":
                assert getattr(ours, name) == value, name
        if getattr(theirs, "masks", None) is not None:
            assert (ours.masks == theirs.masks).float().mean() > 0.9999


@pytest.mark.parametrize("task", ["fashion", "mask_rcnn", "upernet"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_file_predicts_like_its_model(models: dict[str, Any], task: str, batch_size: int) -> None:
    file, _ = as_file(models[task], GraphOptions())
    assert isinstance(file, FileModel)
    assert isinstance(file, type(models[task]))
    same(file.predict(IMAGES, batch_size=batch_size), models[task].predict(IMAGES, batch_size=batch_size))


@pytest.mark.parametrize("task", ["fashion", "mask_rcnn"])
def test_postprocessing_inside_gives_the_same_results(models: dict[str, Any], task: str) -> None:
    file, _ = as_file(models[task], GraphOptions(postprocess=True))
    same(file.predict(IMAGES, batch_size=3), models[task].predict(IMAGES, batch_size=3))


def test_a_label_map_of_the_graph_is_enlarged(models: dict[str, Any]) -> None:
    file, _ = as_file(models["upernet"], GraphOptions(postprocess=True))
    for ours, theirs in zip(file.predict(IMAGES, batch_size=3), models["upernet"].predict(IMAGES), strict=True):
        assert ours.label_map.shape == theirs.label_map.shape
        assert (ours.label_map == theirs.label_map).float().mean() > 0.95  # borders are less fine


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
def test_images_go_in_as_they_are_read_where_the_preprocessing_is_inside(models: dict[str, Any], layout: Any) -> None:
    file, runner = as_file(models["fashion"], GraphOptions(preprocess=True, postprocess=True, layout=layout))
    found, expected = file.predict(IMAGES, batch_size=3), models["fashion"].predict(IMAGES)
    assert runner.calls == 3  # of different sizes
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.top(1)[0][0] == theirs.top(1)[0][0]
        assert ours.original_hw == theirs.original_hw


def test_a_fixed_number_of_images_is_filled_up(models: dict[str, Any]) -> None:
    file, runner = as_file(models["fashion"], GraphOptions(batch=2))
    same(file.predict(IMAGES, batch_size=3), models["fashion"].predict(IMAGES))
    assert runner.calls == 2
    pixels = torch.randn(5, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(file(pixels), models["fashion"](pixels), rtol=1e-4, atol=1e-4)
    assert runner.calls == 5


def test_a_detector_of_one_size_takes_smaller_images_with_padding(models: dict[str, Any]) -> None:
    model = models["mask_rcnn"]
    [expected] = model.predict(IMAGES[:1], score_threshold=0.5)
    height, width = model.preprocess(IMAGES[:1]).pixels.shape[2:]
    file, _ = as_file(model, GraphOptions(size_hw=(height + 32, width + 64)))
    [found] = file.predict(IMAGES[:1], score_threshold=0.5)
    assert len(found) == len(expected)  # the padding reaches into the image a little
    assert (found.boxes_xyxy - expected.boxes_xyxy).abs().max() < 4


def test_other_sizes_are_refused_in_words(models: dict[str, Any]) -> None:
    file, runner = as_file(models["fashion"], GraphOptions(size_hw=(64, 64)))
    with pytest.raises(ValueError, match=r"takes pixels of float32 \(1..1024, 3, 64, 64\), given float32 \(1, 3"):
        file(torch.zeros(1, 3, 96, 64))
    assert runner.calls == 0
    free, _ = as_file(models["upernet"], GraphOptions())
    with pytest.raises(ValueError, match=r"64..16384 by 32"):
        free(torch.zeros(1, 3, 96, 17_000))


def test_what_needs_weights_is_refused(models: dict[str, Any], tmp_path: Path) -> None:
    file, _ = as_file(models["fashion"], GraphOptions())
    with pytest.raises(ValueError, match="cannot be trained"):
        file.loss(None, None)
    with pytest.raises(ValueError, match="weights cannot be taken out"):
        ii.save_model(file, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="runs as a whole"):
        file.backbone(torch.zeros(1, 3, 64, 64))
    assert file.to("cpu") is file
    assert file.fuse() is file
    with pytest.raises(ValueError, match="records no graphs"):
        file.fuse(graphs=1)


def test_probabilities_need_scores(models: dict[str, Any]) -> None:
    file, _ = as_file(models["upernet"], GraphOptions(postprocess=True))
    with pytest.raises(ValueError, match="no probabilities"):
        file.predict(IMAGES[:1], probabilities=True)


def test_evaluation_is_the_same_and_tells_files_apart(models: dict[str, Any], tmp_path: Path) -> None:
    for name in ("Bag", "Coat"):
        folder = tmp_path / "data" / "val" / name
        folder.mkdir(parents=True)
        for i, image in enumerate(IMAGES):
            image.save(folder / f"{i}.png")
    file, runner = as_file(models["fashion"], GraphOptions(batch=4))
    expected = ii.evaluate(models["fashion"], tmp_path / "data").to_dict()
    assert ii.evaluate(file, tmp_path / "data", folder=tmp_path / "log").to_dict() == expected
    calls = runner.calls
    ii.evaluate(file, tmp_path / "data", folder=tmp_path / "log")
    assert runner.calls == calls  # taken up again
    other = file_model(Document(file.config, file.graph.description, {}), runner, "other.onnx", "cd" * 32)
    assert isinstance(other, TaskModel)
    with pytest.raises(ValueError, match="model"):
        ii.evaluate(other, tmp_path / "data", folder=tmp_path / "log")


def test_a_bare_backbone_gives_its_maps() -> None:
    backbone = InternImage(replace(variant("internimage_pico"), depths=(1, 1, 1, 1))).eval()
    file, _ = as_file(backbone, GraphOptions())
    pixels = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        for ours, theirs in zip(file(pixels).maps, backbone(pixels).maps, strict=True):
            torch.testing.assert_close(ours, theirs)
    assert not list(file.parameters())
