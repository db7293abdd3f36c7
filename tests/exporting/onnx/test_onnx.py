"""ONNX files: operators, opsets, types, checked and run by onnxruntime."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from internimage.backbones import BackboneConfig, InternImage
from internimage.exporting.document import from_text
from internimage.exporting.onnx.file import OnnxRunner, choose, description, write
from internimage.exporting.options import WriteOptions
from internimage.exporting.write import export
from internimage.flow import ExportGraph, GraphDescription, GraphTensor
from internimage.flow.graph import Dimension
from internimage.layers.deform_attention import MSDeformAttention
from internimage.layers.deform_conv import DCNv3, DCNv4
from internimage.types import Images
from tests.threads import torch_threads

TINY = BackboneConfig(channels=16, depths=(1, 1, 1, 1), groups=(1, 2, 4, 8))
CHANNELS = 16


def stirred(network: nn.Module) -> nn.Module:
    """Offsets and weights of any size, so that samples lie between pixels and outside of the map."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    return network.eval()


class Layers(ExportGraph):
    """All deformable layers on one map (N, 16, H, W), or an output for each of them."""

    def __init__(self) -> None:
        free = tuple(Dimension(name, 2, 999) for name in ("batch", "height", "width"))
        pixels = GraphTensor("pixels", "float32", ("batch", CHANNELS, "height", "width"), "a map")
        outputs = tuple(GraphTensor(name, "float32", pixels.shape, "a map") for name in "abcdef")
        super().__init__(TINY, GraphDescription("test", "layers", (pixels,), outputs, free, None, (0.0,), (1.0,)))
        windows = [
            DCNv3(CHANNELS, 4),
            DCNv3(CHANNELS, 2, offset_scale=2.0, center_feature_scale=True, remove_center=True),
            DCNv3(CHANNELS, 1, kernel_size=5, offset_scale=0.5),
            DCNv4(CHANNELS, 4),
            DCNv4(CHANNELS, 2, remove_center=True, dw_kernel_size=3),
        ]
        self.windows = nn.ModuleList(map(stirred, windows))
        self.attention = stirred(MSDeformAttention(CHANNELS, 2, num_levels=2))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        [pixels] = inputs
        x = pixels.permute(0, 2, 3, 1)
        maps = [layer(x) for layer in self.windows]
        height, width = x.shape[1:3]
        rows = x.flatten(1, 2)
        reference = torch.sigmoid(rows[..., :2])[:, :, None].expand(-1, -1, 2, -1)
        values = torch.cat((rows, rows.flip(1)), dim=1)
        seen = self.attention(rows, values, reference, [(height, width), (height, width)])
        return tuple(level.permute(0, 3, 1, 2) for level in (*maps, seen.unflatten(1, (height, width))))

    def dynamic_shapes(self) -> tuple[object, ...]:
        return (super().dynamic_shapes(),)

    def raw(self, outputs: object) -> object:
        return outputs

    def results(self, outputs: object, images: Images) -> list[object]:
        return [outputs]


@pytest.mark.parametrize(
    ("operators", "opset"),
    [
        ("deform_conv", 19),
        ("grid_sample", 16),
        pytest.param("deform_conv", 22, marks=pytest.mark.slow),
        pytest.param("grid_sample", 20, marks=pytest.mark.slow),
    ],
)
def test_every_layer_at_every_size(operators: str, opset: int, tmp_path: Path) -> None:
    graph = Layers()
    with torch_threads(1):
        notes = write(graph, WriteOptions(operators=operators, opset=opset), tmp_path / "a.onnx")  # type: ignore[arg-type]  # texts
        run = OnnxRunner(tmp_path / "a.onnx")
        for size in ((2, 9, 12), (1, 5, 31), (3, 16, 7)):
            pixels = torch.randn(size[0], CHANNELS, *size[1:])
            with torch.no_grad():
                expected = graph(pixels)
            for ours, theirs in zip(run([pixels]), expected, strict=True):
                assert float((ours - theirs).abs().max() / theirs.abs().max()) < 2e-5
    model = onnx.load(tmp_path / "a.onnx")
    kinds = [node.op_type for node in model.graph.node]
    assert notes["opset"] == opset == next(entry.version for entry in model.opset_import if not entry.domain)
    assert {entry.domain for entry in model.opset_import} == {""}, "only standard operators"
    assert kinds.count("DeformConv") == (5 if operators == "deform_conv" else 0)
    assert kinds.count("GridSample") == (2 if operators == "deform_conv" else 7)


def test_the_whole_way(tmp_path: Path) -> None:
    torch.manual_seed(0)
    backbone = stirred_offsets(InternImage(TINY))
    with torch_threads(1):
        written = export(backbone, tmp_path / "maps.onnx", batch=1)
    assert all(check.max_difference < 1e-5 and check.agreement == 1 for check in written.checks)
    assert len({check.call["pixels"][2:] for check in written.checks}) == 3
    model = onnx.load(written.path)
    [pixels] = model.graph.input
    sides = [side.dim_param or side.dim_value for side in pixels.type.tensor_type.shape.dim]
    assert pixels.name == "pixels" and sides[:2] == [1, 3] and "height" in str(sides[2]) and "width" in str(sides[3])
    assert "normalized pixels" in pixels.doc_string
    assert [output.name for output in model.graph.output] == ["stride4", "stride8", "stride16", "stride32"]
    properties = {entry.key: entry.value for entry in model.metadata_props}
    assert properties["task"] == "backbone" and len(json.loads(properties["mean"])) == 3
    document = from_text(description(written.path), "the file")
    beside = from_text(written.description.read_text(encoding="utf-8"), "the file")
    assert document.description == beside.description and document.config == beside.config == TINY
    # One node for each norm, nothing but the operator between the transposes of a block, no shapes computed in vain.
    kinds = [node.op_type for node in model.graph.node]
    norms = sum(isinstance(module, nn.LayerNorm) for module in backbone.modules())
    assert kinds.count("LayerNormalization") == norms
    assert not {"ReduceMean", "Sqrt", "Pow", "Erf", "Identity", "Constant"} & set(kinds)
    assert_no_round_trips(model)


def stirred_offsets(backbone: InternImage) -> InternImage:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            if ".offset." in name or ".mask." in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return backbone.eval()


def assert_no_round_trips(model: onnx.ModelProto) -> None:
    """No transpose reads what another one wrote."""
    moved = {node.output[0] for node in model.graph.node if node.op_type == "Transpose"}
    assert not [node.name for node in model.graph.node if node.op_type == "Transpose" and node.input[0] in moved]


def test_float16_keeps_norms_and_positions_wide(tmp_path: Path) -> None:
    torch.manual_seed(0)
    with torch_threads(1):
        written = export(
            stirred_offsets(InternImage(TINY)), tmp_path / "half.onnx", dtype="float16", size_hw=(64, 96), batch=2,
            min_agreement=0.9,
        )  # fmt: skip
    assert all(check.max_difference < 2e-2 for check in written.checks)
    model = onnx.load(written.path)
    types = {value.name: numpy_helper.to_array(value).dtype for value in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "DeformConv":
            assert types[node.input[1]] == "float32"  # and so its map, offsets and weights
        if node.op_type == "LayerNormalization":
            assert {entry.name: entry.i for entry in node.attribute}.get("stash_type", 1) == onnx.TensorProto.FLOAT
        if node.op_type in ("MatMul", "Conv"):
            assert types[node.input[1]] == "float16"
    wide = sum(
        value.nbytes for value in map(numpy_helper.to_array, model.graph.initializer) if value.dtype == "float32"
    )
    assert wide < 0.2 * written.bytes


def test_operators_by_opset() -> None:
    assert choose(WriteOptions(opset=19)) == ("deform_conv", 19)
    assert choose(WriteOptions(opset=16)) == ("grid_sample", 16)
    assert choose(WriteOptions(operators="grid_sample")) == ("grid_sample", 18)


def test_a_file_of_others_says_no_more_than_it_knows(tmp_path: Path) -> None:
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"]
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([node], "g", values[:1], values[1:])), tmp_path / "a.onnx")
    with pytest.raises(ValueError, match="was not written by this package"):
        description(tmp_path / "a.onnx")
