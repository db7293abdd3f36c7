"""The format ONNX: from a graph to a checked file, and the file in onnxruntime."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import torch
from onnx_ir.passes import common as passes
from torch import Tensor

from internimage.checkpoints.header import HEADER_KEY
from internimage.exporting.document import to_text
from internimage.exporting.formats import Format
from internimage.exporting.graphs import trace
from internimage.exporting.halves import HalfGraph
from internimage.exporting.onnx.cleaning import clean
from internimage.exporting.onnx.operators import DEFORM_CONV, GRID_SAMPLE, OPSETS, translations
from internimage.exporting.onnx.quantize import quantize
from internimage.exporting.options import WriteOptions
from internimage.flow import ExportGraph

OLDEST, NEWEST = 16, 23
WRITTEN = 18  # the oldest that torch writes; files of older opsets are made of one of these
DEFAULT = {DEFORM_CONV: 20, GRID_SAMPLE: 18}  # TensorRT 10 samples wrongly by the GridSample of opset 20
LARGE_BYTES = 1_900_000_000  # protobuf takes less than 2 GiB; larger weights lie in a file of their own


def choose(options: WriteOptions) -> tuple[str, int]:
    """Return the operators and the opset that are asked for, or the best ones.

    Raises:
        ValueError: there is no such opset, or the operator is not in it.

    Example:
        >>> choose(WriteOptions()), choose(WriteOptions(opset=17))
        (('deform_conv', 20), ('grid_sample', 17))
    """
    operators, opset = options.operators, options.opset
    if opset is not None and not OLDEST <= opset <= NEWEST:
        raise ValueError(f"opset must be in {OLDEST}..{NEWEST}, given {opset}")
    if operators == "auto":
        operators = DEFORM_CONV if opset is None or opset >= OPSETS[DEFORM_CONV] else GRID_SAMPLE
    opset = DEFAULT[operators] if opset is None else opset
    if opset < OPSETS[operators]:
        raise ValueError(
            f"opset {opset} has no operator for operators={operators!r}, which came with opset {OPSETS[operators]}; "
            "take operators='grid_sample' or a newer opset"
        )
    return operators, opset


def write(graph: ExportGraph, options: WriteOptions, path: Path) -> dict[str, object]:
    """Write a graph, see `Format.write`."""
    operators, opset = choose(options)
    model = _traced(HalfGraph(graph) if options.dtype == "float16" else graph, operators, max(opset, WRITTEN))
    model = _name(clean(model, opset), graph)
    notes: dict[str, object] = {
        "format": "ONNX",
        "dtype": options.dtype,
        "operators": operators,
        "opset": opset,
    }
    if options.dtype == "int8":
        model = quantize(model, graph, options.calibration, path.parent)
    _describe(model, graph, notes)
    return {**notes, "nodes": save(model, path)}


def save(model: ir.Model, path: Path) -> int:
    """Write a model, check the file, and return its number of nodes."""
    size = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None)
    ir.save(model, path, external_data=f"{path.name}.data" if size > LARGE_BYTES else None)
    onnx.checker.check_model(path, full_check=True)
    return sum(1 for _ in model.graph.all_nodes())


def _traced(graph: ExportGraph, operators: str, opset: int) -> ir.Model:
    """Return a graph as torch's exporter writes it."""
    with _quiet():
        program = torch.onnx.export(
            trace(graph, operators="internimage"),
            dynamo=True,
            opset_version=opset,
            custom_translation_table=translations(operators),
            verbose=False,
        )
    assert program is not None  # of the exporter that writes programs, not files
    return program.model


def _name(model: ir.Model, graph: ExportGraph) -> ir.Model:
    """Give inputs, outputs and their free sizes the names of the description."""
    for node in model.graph.all_nodes():
        for value in node.outputs:
            value.shape = None  # in the exporter's names of sizes
    for values, tensors in (
        (model.graph.inputs, graph.description.inputs),
        (model.graph.outputs, graph.description.outputs),
    ):
        for value, tensor in zip(values, tensors, strict=True):
            value.name, value.doc_string = tensor.name, tensor.meaning
            value.shape = ir.Shape(tensor.shape)
    return passes.ShapeInferencePass()(model).model


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what the exporter says of itself."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def _describe(model: ir.Model, graph: ExportGraph, notes: dict[str, object]) -> None:
    """Write into the file what a user of it must know."""
    description = graph.description
    model.producer_name = "internimage"
    model.metadata_props[HEADER_KEY] = to_text(graph, notes)
    for name, value in (
        ("task", description.task),
        ("architecture", description.architecture),
        ("class_names", description.class_names),
        ("mean", description.mean),
        ("std", description.std),
    ):
        if value is not None:
            model.metadata_props[name] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


class OnnxRunner:
    """An ONNX file in onnxruntime on the CPU.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 3  # errors
        settings.intra_op_num_threads = torch.get_num_threads()
        self.session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
        self.names = [value.name for value in self.session.get_inputs()]

    def __call__(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """See `Runner`."""
        given = {name: value.numpy() for name, value in zip(self.names, inputs, strict=True)}
        return tuple(torch.from_numpy(np.asarray(value)) for value in self.session.run(None, given))


def description(path: Path) -> str:
    """Return the document in a file.

    Raises:
        ValueError: it holds none.
    """
    properties = onnx.load(path, load_external_data=False).metadata_props
    found = next((entry.value for entry in properties if entry.key == HEADER_KEY), None)
    if found is None:
        raise ValueError(f"{path} was not written by this package: it does not say how images are read")
    return found


FORMAT = Format(
    name="ONNX",
    runtime=f"onnxruntime {onnxruntime.__version__}",
    packages=("onnx", "onnxscript", "onnxruntime"),
    extra="export",
    dtypes=("float32", "float16", "int8"),
    write=write,
    open=OnnxRunner,
    description=description,
    check=choose,
)
