"""Graphs of models: their descriptions, and traced programs that equal the models at other sizes and batches."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from internimage.backbones import InternImage, variant
from internimage.exporting.graphs import Operators, build_graph, trace
from internimage.flow import GraphDescription, GraphOptions
from internimage.settings import from_plain, to_plain

SMALL = dataclasses.replace(variant("internimage_pico"), depths=(1, 1, 1, 1))


def stirred(model: InternImage) -> InternImage:
    """A model whose operators look between the pixels."""
    for name, parameter in model.named_parameters():
        if ".offset" in name or "sampling_offsets" in name:
            torch.nn.init.normal_(parameter, std=0.3 if name.endswith("bias") else 0.02)
    return model.eval()


@pytest.mark.parametrize("operators", ["internimage", "grid_sample", "deform_conv"])
def test_a_backbone_of_any_size(operators: Operators) -> None:
    backbone = stirred(InternImage(SMALL))
    graph = build_graph(backbone)
    program = trace(graph, operators=operators)
    for size in ((2, 3, 64, 96), (1, 3, 75, 131)):
        pixels = torch.randn(size)
        with torch.no_grad():
            expected, found = backbone(pixels).maps, program.module()(pixels)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_fused_backbone_is_traced_without_its_packed_weights() -> None:
    backbone = stirred(InternImage(SMALL))
    pixels = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected = backbone(pixels).maps
    program = trace(build_graph(backbone.fuse()))
    assert set(program.state_dict) == {f"model.{name}" for name in backbone.state_dict()}
    for one, other in zip(program.module()(pixels), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", ["reference", "auto"])
def test_the_backend_of_a_model_is_put_back(backend: str) -> None:
    backbone = InternImage(SMALL).eval().set_backend(backend)
    program = trace(build_graph(backbone, GraphOptions(batch=1, size_hw=(64, 64))), operators="internimage")
    assert "internimage.dcnv3" in str(program.graph)
    assert {part.backend for part in backbone.modules() if hasattr(part, "backend")} == {backend}
    with pytest.raises(ValueError, match="backend must be one of"):
        backbone.set_backend("nonsense")


def test_descriptions_survive_json() -> None:
    description = build_graph(InternImage(SMALL), GraphOptions(batch=1, size_hw=(64, 96))).description
    assert from_plain(GraphDescription, json.loads(json.dumps(to_plain(description)))) == description
    assert description.inputs[0].shape == (1, 3, 64, 96)
    assert [output.shape for output in description.outputs][1] == (1, 48, 8, 12)


def test_what_does_not_fit_is_said() -> None:
    with pytest.raises(ValueError, match="no preprocessing"):
        build_graph(InternImage(SMALL), GraphOptions(preprocess=True))
    with pytest.raises(ValueError, match="operators must be one of"):
        trace(build_graph(InternImage(SMALL)), operators="nonsense")  # type: ignore[arg-type]  # on purpose
