"""From float32 to int8: linear layers and convolutions, with ranges out of calibration images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from internimage.data.images.read import ImageInput
from internimage.exporting.sample_inputs import batches_of
from internimage.flow import ExportGraph


class _Reader(CalibrationDataReader):
    """Gives the quantizer one call after the other."""

    def __init__(self, graph: ExportGraph, images: Sequence[ImageInput]) -> None:
        self.calls = self._calls(graph, images)

    @staticmethod
    def _calls(graph: ExportGraph, images: Sequence[ImageInput]) -> Iterator[dict[str, np.ndarray]]:
        names = [tensor.name for tensor in graph.description.inputs]
        for inputs in batches_of(graph, images):
            yield {name: value.numpy() for name, value in zip(names, inputs, strict=True)}

    def get_next(self) -> dict[str, np.ndarray] | None:  # type: ignore[override]  # None is how it ends
        """Return the inputs of the next call, None behind the last one."""
        return next(self.calls, None)


def quantize(model: ir.Model, graph: ExportGraph, images: Sequence[ImageInput], folder: Path) -> ir.Model:
    """Return a model whose linear layers and convolutions run in int8.

    Args:
        model: of float32.
        graph: its inputs.
        images: calibration images.
        folder: where files may lie for a while.
    """
    wide, prepared, narrow = (folder / f"{name}.calibrating" for name in ("wide", "prepared", "narrow"))
    try:
        ir.save(model, wide)
        quant_pre_process(wide, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            narrow,
            _Reader(graph, images),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "MatMul", "Gemm"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        found = ir.load(narrow)
        for value in found.graph.initializers.values():  # read before the file goes
            if value.const_value is not None:
                value.const_value = ir.tensor(value.const_value.numpy(), name=value.name)
        return found
    finally:
        for path in (wide, prepared, narrow):
            path.unlink(missing_ok=True)
