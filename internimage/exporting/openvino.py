"""The format OpenVINO IR: an `.xml` with the graph and a `.bin` with the weights, and both in OpenVINO on the CPU."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import openvino
import torch
from torch import Tensor

from internimage.checkpoints.header import HEADER_KEY
from internimage.errors import MissingExtra, printable
from internimage.exporting.document import to_text
from internimage.exporting.formats import Format
from internimage.exporting.onnx import file as onnx
from internimage.exporting.options import WriteOptions
from internimage.exporting.sample_inputs import batches_of
from internimage.flow import ExportGraph

DEVICE = "CPU"


def check(options: WriteOptions) -> None:
    """Raise for what OpenVINO does not read.

    Raises:
        ValueError: DeformConv is asked for, or an opset that has it alone.
        MissingExtra: int8 is asked for without NNCF.
    """
    if options.operators == "deform_conv":
        raise ValueError("OpenVINO reads no DeformConv out of ONNX; take operators='grid_sample' or 'auto'")
    if options.dtype == "int8" and importlib.util.find_spec("nncf") is None:
        raise MissingExtra("nncf", "export", "int8 for OpenVINO")


def write(graph: ExportGraph, options: WriteOptions, path: Path) -> dict[str, object]:
    """Write a graph, see `Format.write`; in float16 the weights alone are narrow, in int8 what they work on, too."""
    with tempfile.TemporaryDirectory() as folder:
        between = Path(folder) / "between.onnx"
        wide = replace(options, dtype="float32", operators="grid_sample", calibration=())
        opset = onnx.FORMAT.write(graph, wide, between)["opset"]
        model = openvino.convert_model(between)
        if options.dtype == "int8":
            model = _quantized(model, graph, options)
        notes: dict[str, object] = {"format": FORMAT.name, "dtype": options.dtype, "operators": "grid_sample"}
        model.set_rt_info(to_text(graph, notes), [HEADER_KEY])
        openvino.save_model(model, path, compress_to_fp16=options.dtype == "float16")
    return {**notes, "opset": opset, "nodes": len(model.get_ops())}


def _quantized(model: openvino.Model, graph: ExportGraph, options: WriteOptions) -> openvino.Model:
    """Return a model whose linear layers and convolutions run in int8, with ranges out of calibration images."""
    import nncf  # takes long, and is for this alone

    calls = [[value.numpy() for value in inputs] for inputs in batches_of(graph, options.calibration)]
    return nncf.quantize(
        model,
        nncf.Dataset(calls),
        preset=nncf.QuantizationPreset.MIXED,  # signed and unsigned activations, as GELU and softmax give them
        subset_size=len(calls),
    )


def _read(path: Path) -> openvino.Model:
    """Read a file and its weights.

    Raises:
        ValueError: it is damaged, or its `.bin` file is not beside it.
    """
    try:
        return openvino.Core().read_model(path)
    except RuntimeError as error:
        why = printable(str(error).strip().splitlines()[-1])
        raise ValueError(f"OpenVINO does not read {path}, whose weights should lie beside it as .bin: {why}") from error


class OpenVINORunner:
    """An OpenVINO IR on the CPU.

    OpenVINO may take bfloat16 where the processor has it: results then differ by a percent of the largest value. Files
    are run in float32 here, which every processor has.

    Args:
        path: the `.xml` file; the `.bin` file lies beside it.
    """

    def __init__(self, path: Path) -> None:
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": str(torch.get_num_threads()),
            "PERFORMANCE_HINT": "LATENCY",
        }
        self.compiled = openvino.Core().compile_model(_read(path), DEVICE, settings)

    def __call__(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """See `Runner`."""
        request = self.compiled.create_infer_request()  # one for each call: threads may not share one
        found = request.infer([value.numpy() for value in inputs])
        return tuple(torch.from_numpy(np.array(found[output])) for output in self.compiled.outputs)


def description(path: Path) -> str:
    """Return the document in a file.

    Raises:
        ValueError: it holds none.
    """
    model = _read(path)
    if not model.has_rt_info([HEADER_KEY]):
        raise ValueError(f"{path} was not written by this package: it does not say how images are read")
    return str(model.get_rt_info([HEADER_KEY]).value)


FORMAT = Format(
    name="OpenVINO IR",
    runtime=f"OpenVINO {openvino.__version__.partition('-')[0]}",
    packages=("openvino", "onnx", "onnxscript"),
    extra="export",
    dtypes=("float32", "float16", "int8"),
    write=write,
    open=OpenVINORunner,
    description=description,
    check=check,
)
