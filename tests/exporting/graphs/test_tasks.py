"""Graphs of all tasks: what they compute, what their descriptions say, and traced programs at other sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

import internimage as ii
from internimage import tasks
from internimage.backbones import variant
from internimage.classification import ClassificationPreprocess
from internimage.detection import DetectionPreprocess
from internimage.detection.config import DINOConfig, RCNNConfig
from internimage.exporting.graphs import Operators, build_graph, trace
from internimage.flow import AnyModel, ExportGraph, GraphOptions
from internimage.segmentation import SegmentationPreprocess
from internimage.types import Images

SMALL = replace(variant("internimage_pico"), depths=(1, 1, 1, 1))
FLASH = replace(variant("flash_internimage_t"), depths=(1, 1, 1, 1), channels=32, groups=(2, 4, 8, 16))
HEADS = ("conv", "attention_pool", "attention_pool_metadata")
DETECTORS = ("faster_rcnn", "mask_rcnn", "cascade_mask_rcnn", "dino", "cb_dino")
SEGMENTORS = ("upernet", "segformer", "mask2former")


def stirred(model: AnyModel) -> AnyModel:
    """A model whose operators look between the pixels, and that finds something."""
    for name, parameter in model.named_parameters():
        if ".offset" in name or "sampling_offsets" in name:
            torch.nn.init.normal_(parameter, std=0.3 if name.endswith("bias") else 0.02)
    task = tasks.of_model(model)
    if task.set_to_work is not None:
        task.set_to_work(model)
    return model.eval()


def narrow(config: RCNNConfig | DINOConfig) -> RCNNConfig | DINOConfig:
    """The same detector with few channels."""
    if isinstance(config, DINOConfig):
        return replace(config, channels=32, feedforward_channels=64, num_encoder_layers=2, num_decoder_layers=2)
    return replace(
        config,
        channels=32,
        rpn=replace(config.rpn, channels=32),
        stages=tuple(replace(stage, conv_channels=32, fc_channels=64) for stage in config.stages),
        mask=config.mask and replace(config.mask, channels=32),
    )


def model_of(name: str) -> AnyModel:
    torch.manual_seed(0)
    if name in HEADS:
        preprocess = ClassificationPreprocess(size=64)
        model = ii.create("classifier", backbone=SMALL, num_classes=10, head=name, preprocess=preprocess)
    elif name == "flash":
        model = ii.create("classifier", backbone=FLASH, num_classes=10)
    elif name in DETECTORS:
        preprocess = DetectionPreprocess(shorter_side=96, longer_side=128)
        config = ii.create(name.removeprefix("cb_"), backbone=SMALL, num_classes=5, preprocess=preprocess).config
        config = narrow(config)
        model = tasks.build(replace(config, num_backbones=2) if name == "cb_dino" else config)
    else:
        model = ii.create(name, backbone=SMALL, num_classes=5, preprocess=SegmentationPreprocess(scale=None))
    return stirred(model)


def image(height: int = 90, width: int = 121) -> np.ndarray:
    """A smooth image, on which two ways of resizing differ by little."""
    rows, columns = np.mgrid[:height, :width] / 20.0
    channels = [np.sin(rows + i) * np.cos(columns - i) for i in range(3)]
    return np.uint8(127 + 120 * np.stack(channels, axis=-1))


def run(graph: ExportGraph, *inputs: Tensor) -> tuple[Tensor, ...]:
    with torch.no_grad():
        found = graph(*inputs)
    for output, tensor in zip(graph.description.outputs, found, strict=True):
        assert str(tensor.dtype) == f"torch.{output.dtype}"
        fixed = [(side, given) for side, given in zip(output.shape, tensor.shape, strict=True) if side != given]
        assert all(isinstance(side, str) for side, _ in fixed), (output, tensor.shape)
    return found


# ---------------------------------------------------------------- what the graphs compute


@pytest.mark.parametrize("crop", [True, False])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(90, 121), (201, 64), (40, 50)], ids=str)
def test_a_classifier_reads_images(crop: bool, interpolation: str, size: tuple[int, int]) -> None:
    preprocess = ClassificationPreprocess(size=64, crop=crop, interpolation=interpolation)  # type: ignore[arg-type]  # a literal
    model = ii.create("classifier", backbone=SMALL, num_classes=10, preprocess=preprocess).eval()
    graph = build_graph(model, GraphOptions(preprocess=True, postprocess=True))
    pixels = graph._prepare(torch.from_numpy(image(*size))[None])  # type: ignore[operator]  # its own
    expected = model.preprocess([image(*size)]).pixels
    assert (pixels - expected).abs().max() <= 1.01 / 255 / min(preprocess.std)  # a level, where sums are rounded
    assert (pixels - expected).abs().gt(1e-4).float().mean() < 0.01
    [found] = run(graph, torch.from_numpy(image(*size))[None])
    [result] = graph.results([found], Images(pixels, torch.tensor([[64, 64]]), (size,)))
    torch.testing.assert_close(result.scores, model.predict([image(*size)])[0].scores, rtol=0, atol=2e-3)


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
@pytest.mark.parametrize("name", ["mask_rcnn", "dino"])
def test_a_detector_reads_images(name: str, layout: str) -> None:
    model = model_of(name)
    options = GraphOptions(preprocess=True, postprocess=True, size_hw=(128, 160), layout=layout)  # type: ignore[arg-type]  # a literal
    graph = build_graph(model, options)
    given = torch.from_numpy(image())[None]
    found = run(graph, given if layout == "nhwc" else given.permute(0, 3, 1, 2))
    pixels, valid_hw, _ = graph._prepare(given if layout == "nhwc" else given.permute(0, 3, 1, 2))  # type: ignore[operator]  # its own
    expected = model.preprocess([image()])
    height, width = expected.valid_hw[0].tolist()
    assert valid_hw.tolist() == [[height, width]]
    assert (pixels[:, :, :height, :width] - expected.pixels[:, :, :height, :width]).abs().max() < 0.02
    assert pixels[:, :, height:].abs().max() == 0 and pixels[..., width:].abs().max() == 0
    [result] = graph.results(found, Images(torch.empty(1), valid_hw, ((90, 121),)))
    assert len(result) == int(found[3][0]) > 0
    assert result.boxes_xyxy[:, 2].max() <= 121
    assert (result.masks is not None) == (name == "mask_rcnn")


@pytest.mark.parametrize("name", ["mask_rcnn", "dino"])
def test_raw_objects_are_those_of_the_detector(name: str) -> None:
    model = model_of(name)
    graph = build_graph(model, GraphOptions(batch=2))
    images = model.preprocess([image(), image(60, 61)])
    found = run(graph, images.pixels, images.valid_hw)
    with torch.no_grad():
        expected = model(images.pixels, images.valid_hw)
    assert len(expected.scores)
    for one, other in zip(graph.raw(found), expected, strict=True):
        assert torch.equal(one, other) if isinstance(one, Tensor) else one is other
    results = graph.results(found, images)
    for one, other in zip(results, model.postprocess(expected, images), strict=True):
        assert torch.equal(one.boxes_xyxy, other.boxes_xyxy)


def test_masks_on_a_canvas_are_those_of_the_results() -> None:
    model = model_of("mask_rcnn")
    given = torch.from_numpy(image(96, 128))[None]
    both = [
        build_graph(model, GraphOptions(preprocess=True, postprocess=True, size_hw=(96, 128), mask_hw=hw))
        for hw in (None, (96, 128))
    ]
    small, drawn = (run(graph, given) for graph in both)
    [result] = both[0].results(small, Images(torch.empty(1), torch.empty(1), ((96, 128),)))
    assert result.masks is not None and result.masks.any()
    same = drawn[4][0, : len(result)] == result.masks
    assert same.float().mean() > 0.9999  # pixels on the threshold
    assert not drawn[4][0, len(result) :].any()


@pytest.mark.parametrize("name", SEGMENTORS)
def test_a_segmentor_reads_images(name: str) -> None:
    model = model_of(name)
    graph = build_graph(model, GraphOptions(preprocess=True, postprocess=True))
    [label_map] = run(graph, torch.from_numpy(image(96, 128))[None])
    [expected] = model.predict([image(96, 128)])
    assert (label_map[0] == expected.label_map).float().mean() > 0.999
    [result] = graph.results([label_map], Images(torch.empty(1), torch.empty(1), ((96, 128),)))
    assert result.label_map.dtype == torch.uint8
    assert torch.equal(result.label_map.long(), label_map[0])
    stretched = build_graph(model, GraphOptions(preprocess=True, postprocess=True, size_hw=(64, 96)))
    assert run(stretched, torch.from_numpy(image())[None])[0].shape == (1, 90, 121)


@pytest.mark.parametrize(
    "ask",
    [
        lambda: build_graph(model_of("conv"), GraphOptions(preprocess=True, size_hw=(64, 96))),
        lambda: build_graph(model_of("faster_rcnn"), GraphOptions(postprocess=True, mask_hw=(64, 64))),
        lambda: GraphOptions(mask_hw=(64, 64)),
        lambda: GraphOptions(image_hw=(64, 64)),
    ],
)
def test_what_does_not_fit_is_said(ask: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"squares|no masks|postprocess=True|preprocess=True"):
        ask()


# ---------------------------------------------------------------- traced, at other sizes and batches


def check_traced(name: str, options: GraphOptions, operators: Operators = "internimage") -> None:
    graph = build_graph(model_of(name), options)
    program = trace(graph, operators=operators).module()
    for i in (0, 1):
        sizes = {
            free.name: (1, 3)[i]
            if free.name == "batch"
            else max(free.least, (160, 96)[i] - 32 * ("width" in free.name))
            for free in graph.description.dimensions
        }
        inputs = graph.example_inputs(sizes)
        found, expected = program(*inputs), run(graph, *inputs)
        if name in DETECTORS:
            check_objects(found, expected)
            continue
        for one, other in zip(found, expected, strict=True):
            if one.is_floating_point():
                torch.testing.assert_close(one, other, rtol=1e-3, atol=2e-4)
            else:
                assert (one != other).float().mean() < 0.001


def check_objects(found: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    """Check that nearly all objects have their equals: of two with one score, either may come first."""
    assert torch.equal(found[3], expected[3])
    assert int(expected[3].min()) > 0
    apart = (found[0][:, :, None] - expected[0][:, None]).abs().amax(dim=-1)  # (N, D, D) pixels
    apart += (found[1][:, :, None] - expected[1][:, None]).abs()
    apart += (found[2][:, :, None] - expected[2][:, None]).abs()
    assert (apart.amin(dim=2) < 0.01).float().mean() > 0.98


BARE, WHOLE = GraphOptions(), GraphOptions(preprocess=True, postprocess=True, size_hw=(96, 96))


@pytest.mark.parametrize("name, options", [("conv", WHOLE), ("segformer", WHOLE)])
def test_a_traced_program_serves_other_sizes(name: str, options: GraphOptions) -> None:
    check_traced(name, options)


@pytest.mark.slow
@pytest.mark.parametrize("options", [BARE, WHOLE], ids=["bare", "whole"])
@pytest.mark.parametrize("name", [*HEADS, "flash", *DETECTORS, *SEGMENTORS])
def test_every_traced_program_serves_other_sizes(name: str, options: GraphOptions) -> None:
    check_traced(name, options, "grid_sample")
